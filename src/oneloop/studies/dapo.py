"""What each of DAPO's changes does, alone and on top of the others: table 1 of its paper, with intervals."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from itertools import pairwise
from pathlib import Path
from random import Random
from statistics import fmean
from tempfile import TemporaryDirectory
from typing import Any

from oneloop.algorithms import GRPO, PolicyGradient
from oneloop.config import Run, default_run
from oneloop.loop import train
from oneloop.model.save import save_policy
from oneloop.model.tiny import Scratch, character_tokenizer, scratch_model
from oneloop.objective.aggregate import TokenMean
from oneloop.objective.select import MixedOutcome, OverlongFilter
from oneloop.objective.shaping import OverlongPenalty
from oneloop.objective.surrogate import ClippedRatio
from oneloop.recipes.build import assemble
from oneloop.recipes.given import Given
from oneloop.recipes.inputs import read_inputs
from oneloop.recipes.parts import Parts
from oneloop.recipes.resolve import Algorithm, kind_of, resolved
from oneloop.studies.judge import above, below, every, minus, said
from oneloop.studies.once import Kept
from oneloop.studies.study import Claim, Judged, Panel, Point, Study, Table
from oneloop.tasks import ChainSum
from oneloop.types import Trajectory

TASK = ChainSum(steps=(1, 3), flawed=0.3)
PADDING, MORE = "0+0=0,", 0.6
"""A step that is right and leads nowhere, and the chance of one more of it before a demonstration's working."""
LIMIT = 32
"""Tokens of an answer: what needs one more is cut, and worth 0."""


@dataclass(frozen=True)
class Amount:
    """How much of everything."""

    shape: Scratch
    demonstrations: int
    """Steps of 32 of them."""
    steps: int
    prompts: int
    """Of a step, with `GROUP` answers to each."""
    held_out: int
    refills: int

    @property
    def samples(self) -> int:
        return self.steps * self.prompts * GROUP


FULL = Amount(Scratch(hidden=64, layers=2, heads=4), demonstrations=400, steps=10, prompts=8, held_out=192, refills=4)
QUICK = Amount(Scratch(hidden=16, layers=1, heads=2), demonstrations=2, steps=1, prompts=2, held_out=2, refills=1)
GROUP, UPDATES, RATE = 8, 4, 2e-4
BASE = "GRPO"
FILTER, HIGHER, SOFT, TOKENS = "overlong filtering", "clip-higher", "soft overlong punishment", "token-level loss"
DYNAMIC = "dynamic sampling"
CHANGES: Mapping[str, Mapping[str, Any]] = {
    FILTER: {"drop": OverlongFilter()},
    HIGHER: {"surrogate": ClippedRatio(0.2, 0.28)},
    SOFT: {"shape": OverlongPenalty(max_length=LIMIT, margin=LIMIT // 4)},
    TOKENS: {"aggregate": TokenMean()},
    DYNAMIC: {"keep": MixedOutcome()},
}
"""In the order of the paper's table."""
ON_TOP, ALONE, AT_STEPS = "with all that stand before it", "alone", ", at equal steps"
START = "before training"


def variants(quick: bool) -> dict[tuple[str, str], PolicyGradient]:
    """By series and row; the first of those on top stands alone as well."""
    base, found = replace(GRPO, kl=None), {}
    on_top = base
    found[ON_TOP, BASE] = base
    for name, change in CHANGES.items():
        on_top = replace(on_top, **change)
        found[ON_TOP, name] = on_top
        if name != FILTER:
            found[ALONE, name] = replace(base, **change)
    return {key: value for key, value in found.items() if not quick or key in QUICK_ROWS}


QUICK_ROWS = {(ON_TOP, BASE), (ON_TOP, DYNAMIC), (ALONE, HIGHER), (ALONE, SOFT), (ALONE, DYNAMIC)}


@dataclass(frozen=True)
class Look:
    """A policy on held-out prompts, and what its training did."""

    accuracy: float
    """Right within the limit."""
    cut: float
    entropy: float
    """Of the policy in training, nats, the mean of the last quarter of the steps."""
    drawn: float
    """Answers so far, for each that a batch holds."""


def run(seeds: Sequence[int], quick: bool) -> Table:
    amount = QUICK if quick else FULL
    points: dict[str, list[Point]] = {"accuracy": [], "cut": [], "entropy": [], "drawn": []}

    def keep(series: str, row: str, looks: Sequence[Look]) -> None:
        for key, panel in points.items():
            panel.append(Point(series, row, tuple(getattr(look, key) for look in looks)))

    with TemporaryDirectory(prefix="oneloop-dapo-") as place:
        folder = Path(place)
        start = begun(folder, amount)
        firsts = [_first(replace(start, seed=seed)) for seed in seeds]
        points["accuracy"].append(
            Point(START, START, tuple(first["eval/rewards/right_in_time/mean"] for first in firsts))
        )
        points["cut"].append(Point(START, START, tuple(first["eval/rewards/is_cut/mean"] for first in firsts)))
        for (series, row), algorithm in variants(quick).items():
            looks = [_trained(replace(start, seed=seed), algorithm, amount) for seed in seeds]
            keep(series, row, [at_samples for at_samples, _ in looks])
            if algorithm.keep is not None:
                keep(series + AT_STEPS, row, [at_steps for _, at_steps in looks])
    return {
        "accuracy": Panel("right within the limit, share of held-out answers", "", tuple(points["accuracy"])),
        "cut": Panel(f"longer than {LIMIT} tokens, share of held-out answers", "", tuple(points["cut"])),
        "entropy": Panel("entropy in training, nats", "", tuple(points["entropy"])),
        "drawn": Panel(f"answers drawn, by the {amount.samples} of the budget", "", tuple(points["drawn"])),
    }


def padded(row: dict[str, Any], rng: Random) -> dict[str, Any]:
    """With steps before the working that only make it longer."""
    count = 0
    while rng.random() < MORE:
        count += 1
    return row | {"completion": PADDING * count + row["completion"]}


def begun(folder: Path, amount: Amount) -> Run:
    """The run that every variant begins with: a model that was shown demonstrations, and prompts in files."""
    rng = Random("padding")
    _write(folder / "shown.jsonl", [padded(row, rng) for row in TASK.demonstrations(3000, 0, "train")])
    _write(folder / "train.jsonl", TASK.prompts(2000, 0, "train"))
    _write(folder / "test.jsonl", TASK.prompts(amount.held_out, 0, "test"))
    tokenizer = character_tokenizer()
    save_policy(folder / "scratch", scratch_model(amount.shape, tokenizer, 0), tokenizer)
    shown = replace(
        default_run("sft"), model=str(folder / "scratch"), data=str(folder / "shown.jsonl"),
        steps=amount.demonstrations, prompts_per_step=32, learning_rate=5e-3, schedule="cosine", warmup=10,
    )  # fmt: skip
    _loop(shown, resolved(shown), Kept()).write_model(folder / "start")
    return replace(
        default_run("grpo"),
        model=str(folder / "start"),
        data=str(folder / "train.jsonl"),
        reward=("task:chain_sum",),
        eval_data=str(folder / "test.jsonl"),
        eval_reward=(RIGHT, CUT),
        eval_samples=2,
        eval_temperature=1.0,
        eval_max_new_tokens=2 * LIMIT,
        steps=amount.steps,
        prompts_per_step=amount.prompts,
        group_size=GROUP,
        minibatch=max(amount.prompts // UPDATES, 1),
        max_refills=amount.refills,
        max_new_tokens=LIMIT,
        learning_rate=RATE,
    )


def _write(file: Path, rows: Sequence[dict[str, Any]]) -> None:
    file.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")


def _is_cut(text: str) -> bool:
    """One token a character, and one that ends the answer."""
    return len(text) + 1 > LIMIT


def right_in_time(completions: Sequence[str], answer: Sequence[str], **columns: Any) -> list[float | None]:
    graded = TASK.reward(completions, answer)
    return [0.0 if _is_cut(text) else grade for text, grade in zip(completions, graded, strict=True)]


def is_cut(completions: Sequence[str], **columns: Any) -> list[float | None]:
    return [float(_is_cut(text)) for text in completions]


RIGHT, CUT = "python:right_in_time", "python:is_cut"
HELD_OUT: Mapping[str, Callable[..., Any]] = {RIGHT: right_in_time, CUT: is_cut}


@contextmanager
def assembled(run: Run, algorithm: Algorithm, recorder: Kept) -> Iterator[Parts]:
    """The parts of a run without its folder."""
    inputs = read_inputs(run, kind_of(algorithm), Given(functions=HELD_OUT))
    try:
        yield assemble(run, algorithm, inputs, recorder)
    finally:
        inputs.close()


def _loop(
    run: Run, algorithm: Algorithm, recorder: Kept, watched: Callable[[Parts, int], None] = lambda parts, step: None
) -> Parts:
    with assembled(run, algorithm, recorder) as parts:
        train(
            algorithm, parts.experience, parts.learner, recorder, steps=run.steps, minibatch=run.groups_per_update,
            max_tokens=run.max_tokens, seed=run.seed, hooks=[lambda step, _: watched(parts, step)],
        )  # fmt: skip
        return parts


def _first(run: Run) -> Mapping[str, float]:
    """The start on the held-out prompts."""
    with assembled(run, resolved(run), Kept()) as parts:
        return parts.measures[0].measure()


def _trained(run: Run, algorithm: PolicyGradient, amount: Amount) -> tuple[Look, Look]:
    """After as many answers as a run without dynamic sampling draws, and after as many steps."""
    recorder, looks = Drawn(), list[Look]()

    def watch(parts: Parts, step: int) -> None:
        drawn = sum(recorder.answers)
        spent, last = drawn >= amount.samples and not looks, step + 1 == amount.steps
        if spent or last:
            looks.append(_look(parts, recorder, drawn / amount.samples))

    _loop(run, algorithm, recorder, watch)
    return looks[0], looks[-1]


def _look(parts: Parts, recorder: Drawn, drawn: float) -> Look:
    found = parts.measures[0].measure()
    late = recorder.surprise[-max(len(recorder.surprise) // 4, 1) :]
    return Look(
        accuracy=found["eval/rewards/right_in_time/mean"],
        cut=found["eval/rewards/is_cut/mean"],
        entropy=fmean(late),
        drawn=drawn,
    )


class Drawn(Kept):
    """A recorder that counts every answer, those of dropped groups too."""

    def __init__(self) -> None:
        super().__init__()
        self.answers: list[int] = []
        """Of each step."""
        self.surprise: list[float] = []
        """−log μ of the tokens of each step's answers, a mean over them: the entropy, nats, by sampling."""

    def trajectories(self, step: int, items: Sequence[Trajectory]) -> None:
        logprobs = [logprob for item in items for logprob in item.completion.logprobs]
        self.answers.append(len(items))
        self.surprise.append(-fmean(logprobs))


def _base(table: Table, key: str = "accuracy") -> Point:
    return table[key].at(ON_TOP, BASE)


def _all(table: Table) -> Judged:
    whole, base = table["accuracy"].at(ON_TOP, DYNAMIC), _base(table)
    gained = minus(whole, base)
    return Judged(
        above(gained.interval, 0),
        f"{said(whole)} right with all five and {said(base)} with GRPO, of the same number of answers drawn; "
        f"difference {said(gained)}",
    )


def _each(table: Table) -> Judged:
    steps = [(after.x, minus(after, before)) for before, after in pairwise(table["accuracy"].of(ON_TOP))]
    told = ", ".join(f"{name} {said(change)}" for name, change in steps)
    return Judged(every(above(change.interval, 0) for _, change in steps), f"what each adds to those before it: {told}")


def _dynamic(table: Table) -> Judged:
    return _better(table, ALONE, "of the same number of answers drawn")


def _dynamic_steps(table: Table) -> Judged:
    return _better(table, ALONE + AT_STEPS, "after the same number of steps")


def _better(table: Table, series: str, when: str) -> Judged:
    alone, base, drawn = table["accuracy"].at(series, DYNAMIC), _base(table), table["drawn"].at(series, DYNAMIC)
    gained = minus(alone, base)
    return Judged(
        above(gained.interval, 0),
        f"{said(alone)} right with it and {said(base)} without, {when} ({said(drawn)} times the budget); difference "
        f"{said(gained)}",
    )


def _drawn(table: Table) -> Judged:
    drawn = table["drawn"].at(ALONE + AT_STEPS, DYNAMIC)
    return Judged(above(drawn.interval, 1), f"it draws {said(drawn)} times as many as it trains on")


def _entropy(table: Table) -> Judged:
    higher, base = table["entropy"].at(ALONE, HIGHER), _base(table, "entropy")
    gained = minus(higher, base)
    return Judged(
        above(gained.interval, 0),
        f"{said(higher)} nats with clip-higher alone, {said(base)} with GRPO; difference {said(gained)}",
    )


def _shorter(table: Table) -> Judged:
    soft, base = table["cut"].at(ALONE, SOFT), _base(table, "cut")
    return Judged(
        below(minus(soft, base).interval, 0),
        f"{said(soft)} of the answers are longer than the limit with it alone, {said(base)} with GRPO",
    )


def _rows(table: Table) -> str:
    start, base = table["accuracy"].at(START, START), _base(table)
    cut = ", ".join(f"{point.x} {said(point)}" for point in table["cut"].of(ON_TOP))
    return (
        f"Training takes {said(start)} right answers to {said(base)} with GRPO alone: what the changes add to that is "
        f"small beside it. Longer than the limit, each with all that stand before it: {cut}. Why it "
        "rises with overlong filtering was not measured."
    )


STUDY = Study(
    name="dapo",
    title="What each of DAPO's changes does, alone and together",
    setting=(
        "Sums in visible steps, the built-in task with one to three steps; a Llama of two layers and 64 numbers reads "
        "characters. It was shown demonstrations, three in ten of them flawed, with idle steps before the working: "
        f"answers of more than {LIMIT} tokens are cut. From this one start, each variant of oneloop's GRPO without a "
        f"KL trains for {FULL.steps} steps of {FULL.prompts} prompts with {GROUP} answers, {UPDATES} updates a step: "
        f"{FULL.samples} answers. Dynamic sampling draws more of them for a step and is looked at twice: after as many "
        f"answers, and after as many steps. {FULL.held_out} held-out prompts, two answers to each. A seed is a run."
    ),
    claims=(
        Claim(
            "All of DAPO's changes together end above GRPO, at equal samples",
            "founding documents, on DAPO; arXiv:2503.14476, table 1",
            _all,
        ),
        Claim(
            "Each change adds to those that stand before it",
            "arXiv:2503.14476, table 1, in whose order they stand",
            _each,
        ),
        Claim(
            "Dynamic sampling alone is worth what it draws: it ends above GRPO at equal samples",
            "founding documents, on DAPO",
            _dynamic,
        ),
        Claim(
            "Dynamic sampling alone ends above GRPO after as many steps", "arXiv:2503.14476, table 1", _dynamic_steps
        ),
        Claim(
            "Dynamic sampling has a price: for as many steps it draws more answers",
            "arXiv:2503.14476, section 3.2",
            _drawn,
        ),
        Claim("Clip-higher alone keeps entropy above GRPO's", "arXiv:2503.14476, section 3.1", _entropy),
        Claim(
            "Soft overlong punishment alone leaves fewer answers beyond the limit than GRPO",
            "founding documents, on DAPO; arXiv:2503.14476, section 3.4",
            _shorter,
        ),
    ),
    run=run,
    told=_rows,
    seeds=tuple(range(5)),
)
