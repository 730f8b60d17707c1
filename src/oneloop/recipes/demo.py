"""The main job end to end on the built-in task: SFT → reward model → PPO, then GRPO, DAPO, RLOO and DPO from the
same SFT policy. Every stage is an ordinary run.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from time import monotonic
from typing import Any

from oneloop.config import Run, default_run
from oneloop.lab.report import Table, write_report
from oneloop.recipes.evaluate import Exam, evaluate
from oneloop.recipes.execute import execute
from oneloop.recipes.measured import Score
from oneloop.recipes.resolve import models_in_memory, resolved
from oneloop.recipes.watched import Observer, PhaseObserver
from oneloop.record.reader import read_run
from oneloop.record.statistics import Interval, wilson

TASK = "task:flawed_chain_sum"
HELD_OUT = 512
"""Prompts of the test split that every policy is scored on."""
CAPTION = f"accuracy on {HELD_OUT} held-out prompts, sampled at temperature 1, with 95 % intervals"
EXPECTED_SECONDS = {"sft": 23, "reward_model": 12, "ppo": 40, "grpo": 13, "dapo": 11, "rloo": 13, "dpo": 11}
"""Of each stage, on a 2-core Xeon: how much of the whole each is."""
PAIRS_RIGHT = 0.8
"""Least share of held-out pairs that the reward model must rank right."""


@dataclass(frozen=True)
class Result:
    """One line of the table."""

    method: str
    models: str
    before: Score | None
    after: Score | None
    pairs: tuple[float, Interval] | None
    seconds: float

    def cells(self) -> list[str]:
        seconds = f"{self.seconds:.0f}"
        if self.pairs is not None:
            return [self.method, self.models, "pairs ranked right", _percent(*self.pairs), seconds]
        return [self.method, self.models, _shown(self.before), _shown(self.after), seconds]


@dataclass(frozen=True)
class Gate:
    """A check on the result."""

    text: str
    passed: bool

    def __str__(self) -> str:
        return f"{'pass' if self.passed else 'FAIL'}  {self.text}"


@dataclass(frozen=True)
class Demo:
    """What the demo has to show."""

    results: tuple[Result, ...]
    gates: tuple[Gate, ...]
    report: Path
    seconds: float


HEADER = ("method", "models in memory", "before", "after", "sec")


def stages(out: Path, seed: int) -> dict[str, Run]:
    """The runs, in order. Learning rates are those of a model of 0.4 M weights; a large one needs far smaller."""
    policy, learned = str(out / "sft" / "final"), str(out / "reward_model" / "final")
    rollouts = {"model": policy, "max_new_tokens": 32, "eval_temperature": 1.0, "eval_every": 5, "eval_size": 128}
    runs = {
        "sft": _stage("sft", steps=220, prompts_per_step=64, learning_rate=3e-3, schedule="cosine", warmup=10),
        "reward_model": _stage(
            "reward_model", steps=60, prompts_per_step=64, learning_rate=5e-4, schedule="linear", warmup=10,
            model=policy, eval_size=512,
        ),
        "ppo": _stage(
            "ppo", steps=30, prompts_per_step=128, minibatch=32, epochs=2, learning_rate=1.5e-4,
            critic="separate", critic_learning_rate=5e-4, reward_model=learned, eval_reward=(TASK,), **rollouts,
        ),
        "grpo": _stage("grpo", steps=25, prompts_per_step=16, learning_rate=2e-4, **rollouts),
        "dapo": _stage("dapo", steps=20, prompts_per_step=16, learning_rate=2e-4, **rollouts),
        "rloo": _stage("rloo", steps=25, prompts_per_step=32, learning_rate=2e-4, **rollouts),
        "dpo": _stage("dpo", steps=40, prompts_per_step=64, learning_rate=1e-4, model=policy),
    }  # fmt: skip
    return {name: replace(run, data=TASK, out=str(out / name), seed=seed) for name, run in runs.items()}


def _stage(algorithm: str, **settings: Any) -> Run:
    return replace(default_run(algorithm), data_size=3000, **settings)


def demo(out: Path, seed: int, observer: Callable[[str, Run], Observer]) -> Demo:
    """Carry out every stage and measure it. `observer` is asked for who watches a stage."""
    start = monotonic()
    runs = stages(out, seed)
    results: list[Result] = []
    before: Score | None = None
    for name, run in runs.items():
        begun = monotonic()
        watcher = observer(name, run)
        execute(run, watcher)
        if isinstance(watcher, PhaseObserver):
            watcher.phase("evaluation")
        seconds = monotonic() - begun
        if name == "reward_model":
            results.append(Result(name, _models(run), None, None, _pair_accuracy(run), seconds))
            continue
        exam = Exam(data=TASK, size=HELD_OUT, temperature=1.0, max_new_tokens=32, seed=seed)
        after = evaluate(f"{run.out}/final", exam).scores[0]
        results.append(Result(name, _models(run), before, after, None, seconds))
        before = after if name == "sft" else before
    total = monotonic() - start
    gates = _gates(runs, results)
    report = write_report(
        [(name, Path(run.out)) for name, run in runs.items()],
        out / "report.html",
        title="oneloop demo: one loop, seven methods",
        tables=[
            Table(HEADER, [result.cells() for result in results], CAPTION),
            Table(("gate",), [[str(gate)] for gate in gates], "what must hold"),
        ],
        notes=[f"seed {seed}; {total:.0f} seconds for everything"],
    )
    return Demo(tuple(results), tuple(gates), report, total)


def _models(run: Run) -> str:
    return ", ".join(models_in_memory(run, resolved(run)))


def _pair_accuracy(run: Run) -> tuple[float, Interval]:
    """Share of held-out pairs that the reward model ranks right, from the run's own last evaluation."""
    share = read_run(Path(run.out)).series("eval/rewards/accuracies")[1][-1]
    return share, wilson(round(share * run.eval_size), run.eval_size)


def _gates(runs: dict[str, Run], results: list[Result]) -> list[Gate]:
    gates = []
    for result in results:
        if result.pairs is not None:
            gates.append(
                Gate(
                    f"reward model ranks at least {PAIRS_RIGHT:.0%} of held-out pairs right: {result.pairs[0]:.1%}",
                    result.pairs[0] >= PAIRS_RIGHT,
                )
            )
        elif result.before is not None and result.after is not None:
            gates.append(_rises(result.method, result.before, result.after))
    for name, run in runs.items():
        shares = read_run(Path(run.out)).series("completions/clipped_ratio")[1]
        if shares:
            gates.append(Gate(f"{name}: no step was all truncated (most: {max(shares):.1%})", max(shares) < 1))
    return gates


def _rises(method: str, before: Score, after: Score) -> Gate:
    """The intervals must not touch: the rise is larger than what either could be off by."""
    assert before.interval is not None and after.interval is not None
    learned = " on the learned reward raises the verified" if method == "ppo" else " raises the"
    return Gate(
        f"{method}{learned} accuracy by more than its interval: {_shown(before)} → {_shown(after)}",
        after.interval.low > before.interval.high,
    )


def _shown(score: Score | None) -> str:
    if score is None or score.mean is None or score.interval is None:
        return ""
    return _percent(score.mean, score.interval)


def _percent(share: float, interval: Interval) -> str:
    return f"{share:.1%} [{100 * interval.low:.1f}, {100 * interval.high:.1f}]"
