"""Every comparison as a frozen value. No imports beyond the standard library: every engine's environment reads this."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Literal

Kind = Literal["grpo", "dpo", "reward_model", "sft", "rollout", "accuracy", "memory", "scaling", "peak"]
Ending = Literal["never", "sampled", "counted"]
"""How a model ends its answers: never (the limit does), with a sampled length, or a number of tokens after its prompt
that the prompt's last token says."""


@dataclass(frozen=True)
class Shape:
    """A Llama model."""

    name: str
    vocabulary: int
    hidden: int
    layers: int
    heads: int
    intermediate: int
    context: int = 1024
    tied: bool = False

    @property
    def parameters(self) -> int:
        layer = 4 * self.hidden**2 + 3 * self.hidden * self.intermediate + 2 * self.hidden
        embeddings = (1 if self.tied else 2) * self.vocabulary * self.hidden
        return embeddings + self.layers * layer + self.hidden


SMALL = Shape("0.9m", vocabulary=512, hidden=128, layers=4, heads=4, intermediate=352, tied=True)
MIDDLE = Shape("12m", vocabulary=4096, hidden=384, layers=6, heads=6, intermediate=800)
LARGE = Shape("100m", vocabulary=16384, hidden=768, layers=12, heads=12, intermediate=2048)
WIDE = Shape("wide", vocabulary=152_000, hidden=384, layers=6, heads=6, intermediate=800)


@dataclass(frozen=True)
class Lengths:
    """Lengths in tokens, the end token included: lognormal, then clipped to [low, high]. Equal bounds fix them."""

    low: int
    high: int
    median: float = 48.0
    sigma: float = 0.8

    @property
    def fixed(self) -> bool:
        return self.low == self.high


@dataclass(frozen=True)
class Peer:
    """Another engine, and the most of its time (or memory) that ours may need."""

    engine: str
    wanted: float | None = None


@dataclass(frozen=True, kw_only=True)
class Case:
    """One comparison. `rows` are prompts, pairs, demonstrations or requests of a step."""

    name: str
    kind: Kind
    shape: Shape
    lengths: Lengths
    ending: Ending = "never"
    rows: int = 8
    group: int = 8
    prompt_tokens: int = 16
    peers: tuple[Peer, ...] = ()
    steps: int = 5
    """Timed passes and one warm-up before them."""
    beta: float = 0.04
    learning_rate: float = 1e-6
    lora: int = 0
    """Rank of adapters that are trained instead of the weights; 0: none."""
    seed: int = 0
    ours: str = "oneloop"
    also: tuple[str, ...] = ()
    """Engines that are measured and shown, but that no target speaks of."""
    share: float | None = None
    """Wanted share of the machine's peak, for kind `peak`."""

    @property
    def max_new_tokens(self) -> int:
        return self.lengths.high


TRL_GRPO = ("trl", "trl-continuous")
FIXED_64, FIXED_128, FIXED_32 = Lengths(64, 64), Lengths(128, 128), Lengths(32, 32)
RAGGED, ANSWERS = Lengths(8, 256), Lengths(8, 400)


def _grpo(name: str, wanted: float, shape: Shape, lengths: Lengths, **changes: object) -> Case:
    peers = tuple(Peer(engine, wanted) for engine in TRL_GRPO)
    return Case(name=name, kind="grpo", shape=shape, lengths=lengths, peers=peers, **changes)  # type: ignore[arg-type]


COMPARED = (
    _grpo("grpo-fixed", 0.60, MIDDLE, FIXED_64),
    _grpo("grpo-fixed-small", 0.60, SMALL, FIXED_128),
    _grpo("grpo-ragged", 0.35, MIDDLE, RAGGED, ending="sampled"),
    _grpo("grpo-prompt", 0.45, MIDDLE, FIXED_32, prompt_tokens=256),
    Case(name="grpo-lora", kind="grpo", shape=MIDDLE, lengths=FIXED_64, lora=16, peers=(Peer("trl"),)),
    Case(name="dpo", kind="dpo", shape=MIDDLE, lengths=ANSWERS, rows=16, group=2, beta=0.1, peers=(Peer("trl", 0.25),)),
    Case(
        name="reward-model",
        kind="reward_model",
        shape=MIDDLE,
        lengths=ANSWERS,
        rows=16,
        group=2,
        peers=(Peer("trl", 0.30),),
    ),
    Case(
        name="sft",
        kind="sft",
        shape=MIDDLE,
        lengths=ANSWERS,
        rows=16,
        group=1,
        peers=(Peer("trl", 0.30), Peer("trl-padding-free")),
    ),
    Case(name="sft-lora", kind="sft", shape=MIDDLE, lengths=ANSWERS, rows=16, group=1, lora=16, peers=(Peer("trl"),)),
    Case(
        name="rollout-fixed",
        kind="rollout",
        shape=SMALL,
        lengths=FIXED_128,
        rows=64,
        group=1,
        steps=4,
        peers=(Peer("transformers", 0.65), Peer("transformers-continuous"), Peer("vllm", 1.0)),
    ),
    Case(
        name="rollout-ragged",
        kind="rollout",
        shape=MIDDLE,
        lengths=RAGGED,
        ending="counted",
        rows=128,
        group=1,
        steps=4,
        peers=(Peer("transformers", 0.35), Peer("transformers-continuous"), Peer("vllm", 0.8)),
    ),
    Case(
        name="memory",
        kind="memory",
        shape=WIDE,
        lengths=Lengths(496, 496),
        rows=16,
        group=2,
        beta=0.1,
        steps=1,
        peers=(Peer("trl", 0.25),),
    ),
)

RATES = (1e-4, 3e-4, 6e-4)
"""Learning rates of the accuracy case, for every engine; ours is judged at OURS_AT against the best of the peer's."""
OURS_AT = 3e-4
ACCURACY = Case(
    name="accuracy",
    kind="accuracy",
    shape=SMALL,  # stands for the checkpoint, which brings its own shape
    lengths=Lengths(8, 8),
    rows=64,
    group=8,
    steps=300,
    beta=0.0,  # the peer's default; a pull towards the start would hold both below the goal
    peers=tuple(Peer(f"trl@{rate:g}", 0.4) for rate in RATES),
    ours=f"oneloop@{OURS_AT:g}",
    also=tuple(f"oneloop@{rate:g}" for rate in RATES if rate != OURS_AT),
)
PROMPTS = 512
"""Different prompts of the accuracy case."""
ENOUGH, WINDOW = 0.9, 4
"""Accuracy is reached when the exact matches of the last WINDOW steps' samples are at least ENOUGH of them."""

_BASE = Case(name="scaling", kind="scaling", shape=MIDDLE, lengths=FIXED_32, steps=3)


@dataclass(frozen=True)
class Point:
    """One size of the scaling case: `axis` stands at `value`, everything else at the base."""

    axis: str
    value: int
    case: Case


def _points() -> tuple[Point, ...]:
    points = [Point("prompts", n, replace(_BASE, rows=n)) for n in (4, 8, 16)]
    points += [Point("length", n, replace(_BASE, lengths=Lengths(n, n))) for n in (32, 64, 128)]
    points += [Point("group", n, replace(_BASE, group=n)) for n in (4, 8, 16)]
    wider = (2048, 4096, 8192)
    return (
        *points,
        *(Point("vocabulary", n, replace(_BASE, shape=replace(MIDDLE, name=f"12m-{n}", vocabulary=n))) for n in wider),
    )


SCALING = _points()
PEAK = tuple(
    Case(
        name=f"peak-{shape.name}",
        kind="peak",
        shape=shape,
        lengths=Lengths(tokens, tokens),
        rows=rows,
        group=1,
        steps=steps,
        share=0.60,
    )
    for shape, rows, tokens, steps in ((MIDDLE, 16, 240, 5), (LARGE, 8, 112, 3))
)
CASES: dict[str, Case] = {case.name: case for case in (*COMPARED, ACCURACY, _BASE, *PEAK)}
