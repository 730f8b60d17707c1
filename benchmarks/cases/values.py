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
    ours: str = "oneloop"


@dataclass(frozen=True)
class Best:
    """One peer in many settings, engines all of them: ours is measured against the fastest.

    Args:
        usual: as most people run it: all rows of a step in one padded pass.
    """

    settings: tuple[str, ...]
    wanted: float | None = None
    usual: str = ""


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
    rows_of: str = ""
    """The case whose rows it has; "": its own."""
    peers: tuple[Peer, ...] = ()
    best: Best | None = None
    rounds: int = 5
    """So many say whether a goal is met; fewer say nothing."""
    steps: int = 3
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


FIXED_64, FIXED_128, FIXED_32 = Lengths(64, 64), Lengths(128, 128), Lengths(32, 32)
RAGGED, ANSWERS = Lengths(8, 256), Lengths(8, 400)

ROWS = (1, 2, 4, 16)
"""Rows (of DPO and a reward model: pairs) that the peer takes in one pass; the optimizer's step is the same."""


def rows_a_pass(engine: str) -> int | None:
    """Of an engine such as `trl-rows-4` or `trl-rows-4@0.001`; None: all rows of the step."""
    rows = engine.partition("@")[0].partition("-rows-")[2]
    return int(rows) if rows else None


def _rows(name: str, *counts: int) -> tuple[str, ...]:
    return tuple(f"{name}-rows-{count}" for count in counts)


def _grpo(name: str, shape: Shape, lengths: Lengths, *others: str, **changes: object) -> Case:
    """64 samples a step, in TRL always generated together."""
    best = Best((*_rows("trl", *ROWS, 64), *others), wanted=0.5, usual="trl-rows-64")
    return Case(name=name, kind="grpo", shape=shape, lengths=lengths, best=best, **changes)  # type: ignore[arg-type]


def _given(name: str, kind: Kind, *others: str, **changes: object) -> Case:
    """16 ragged rows or pairs a step."""
    best = Best((*_rows("trl", *ROWS), *others), wanted=0.5, usual="trl-rows-16")
    return Case(name=name, kind=kind, shape=MIDDLE, lengths=ANSWERS, rows=16, best=best, **changes)  # type: ignore[arg-type]


COMPARED = (
    _grpo("grpo-fixed", MIDDLE, FIXED_64, *_rows("trl-continuous", 4)),
    _grpo("grpo-fixed-small", SMALL, FIXED_128, *_rows("trl-continuous", 4)),
    _grpo("grpo-ragged", MIDDLE, RAGGED, *_rows("trl-continuous", *ROWS, 64), ending="counted"),
    _grpo("grpo-prompt", MIDDLE, FIXED_32, *_rows("trl-continuous", 4), prompt_tokens=256),
    _grpo("grpo-lora", MIDDLE, FIXED_64, rows_of="grpo-fixed", lora=16),
    _given("dpo", "dpo", group=2, beta=0.1),
    _given("reward-model", "reward_model", group=2),
    _given("sft", "sft", *_rows("trl-padding-free", 2, 4, 16), group=1),
    _given("sft-lora", "sft", *_rows("trl-padding-free", 2, 4, 16), group=1, rows_of="sft", lora=16),
    Case(
        name="rollout-fixed",
        kind="rollout",
        shape=SMALL,
        lengths=FIXED_128,
        rows=64,
        group=1,
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
        rounds=3,
        steps=1,
        peers=tuple(Peer(f"trl-rows-{pairs}", ours=f"oneloop-rows-{pairs}") for pairs in (1, 4, 16)),
        ours="oneloop-rows-1",
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
    # rows with the answers of 8 tokens that this case has are nearly of one length; 512 of them are one pass for most
    best=Best((*(f"trl@{rate:g}" for rate in RATES), *(f"trl-rows-{n}@{OURS_AT:g}" for n in (16, 64))), wanted=0.4),
    rounds=3,
    ours=f"oneloop@{OURS_AT:g}",
    also=tuple(f"oneloop@{rate:g}" for rate in RATES if rate != OURS_AT),
)
PROMPTS = 512
"""Different prompts of the accuracy case."""
ENOUGH, WINDOW = 0.9, 4
"""Accuracy is reached when the exact matches of the last WINDOW steps' samples are at least ENOUGH of them."""

_BASE = Case(name="scaling", kind="scaling", shape=MIDDLE, lengths=FIXED_32, rounds=3)


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
