"""Reward functions tried on completions whose worth is known: the right answer, none, a wrong one, endless ones."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from math import ceil
from statistics import median
from time import perf_counter

from oneloop.config import Run
from oneloop.data import Row, Rows
from oneloop.model.text import Text
from oneloop.recipes import items
from oneloop.recipes.seen import Answers
from oneloop.rewards import NamedReward, RewardScorer
from oneloop.types import Completion, Prompt, Reward, StopReason, Trajectory

RIGHT, EMPTY, WRONG, LONG, POWER = "right", "empty", "wrong", "very long", "a power"
OTHERS = 100
"""Rows among which another answer is looked for."""
TOWER = "9**9**9"
"""What no grader should carry out: it has 370 million digits."""


@dataclass(frozen=True)
class Finding:
    """A problem with its fix.

    Args:
        stops: whether training would refuse to begin, or stop at it.
    """

    text: str
    stops: bool = True


@dataclass(frozen=True)
class Call:
    """What all rewards said of one completion.

    Args:
        what: one of the kinds above.
        values, failures: by reward.
        total: the weighted sum; None where nothing could be scored.
    """

    row: int
    what: str
    text: str
    values: Mapping[str, float | None]
    failures: Mapping[str, str]
    total: float | None


@dataclass(frozen=True)
class Trial:
    """Every call, and the seconds of a usual one by reward.

    Args:
        source: where the right answers come from; "" where they are not known.
    """

    calls: tuple[Call, ...]
    seconds: Mapping[str, float]
    source: str


def tried(
    run: Run, rewards: Sequence[NamedReward], rows: Rows, shown: Sequence[int], text: Text, answers: Answers
) -> Trial:
    """The right answer of each row in `shown`, and hostile completions of the first of them.

    What a function raises is in the calls.
    """
    seconds: dict[str, list[float]] = {reward.name: [] for reward in rewards}
    calls: list[Call] = []
    for number in shown:
        prompts, _ = items.prompts(rows[number : number + 1], text, None, run.max_new_tokens)
        known = answers.right(rows[number])
        said = [(RIGHT, known[1])] if known else []
        if number == shown[0]:
            said += _hostile(text, run.max_new_tokens, answers.wrong(rows[number], rows[:OTHERS]))
        for what, completion in said:
            item = _trajectory(prompts[0], rows[number], what, completion, text)
            calls.append(_called(run, rewards, number, what, item, seconds))
    first = answers.right(rows[shown[0]])
    usual = {name: median(times) for name, times in seconds.items()}
    return Trial(tuple(calls), usual, first[0] if first else "")


def _hostile(text: Text, limit: int, wrong: str) -> Iterator[tuple[str, str]]:
    yield EMPTY, ""
    yield WRONG, wrong
    digits = text.chat.encode("9" * 4 * limit)[:limit]  # a tokenizer may take three of them at once
    yield LONG, text.decode(digits)
    yield POWER, TOWER


def _trajectory(prompt: Prompt, row: Row, what: str, said: str, text: Text) -> Trajectory:
    ids = text.chat.encode(said) if what == LONG else text.completion(said, row["prompt"])
    stop = StopReason.LENGTH if what == LONG else StopReason.EOS
    drawn = Completion(tokens=ids, logprobs=(0.0,) * len(ids), stop=stop)
    # as in training: what the tokenizer cannot write, no reward sees
    return Trajectory(
        prompt=prompt, group=0, sample=0, completion=drawn, text=text.decode(ids), reward=Reward(value=None)
    )


def _called(
    run: Run,
    rewards: Sequence[NamedReward],
    number: int,
    what: str,
    item: Trajectory,
    seconds: Mapping[str, list[float]],
) -> Call:
    values: dict[str, float | None] = {}
    failures: dict[str, str] = {}
    for reward in rewards:
        start = perf_counter()
        found = RewardScorer((reward,), "unscored", run.steps)([item])[0].reward
        seconds[reward.name].append(perf_counter() - start)
        values |= found.parts
        failures |= found.failures
    parts = [reward.weight * value for reward in rewards if (value := values[reward.name]) is not None]
    return Call(number, what, item.text, values, failures, sum(parts) if parts else None)


def problems(run: Run, rewards: Sequence[NamedReward], trial: Trial) -> Iterator[Finding]:
    """What is wrong with the rewards."""
    yield from _failed(run, trial)
    names = " + ".join(reward.name for reward in rewards)
    if all(call.total is None for call in trial.calls):
        yield Finding(
            f"reward {names} scored none of {len(trial.calls)} completions: such samples are left out of training. "
            "Fix: a number wherever a sample can be judged",
            stops=False,
        )
        return
    right = next((call for call in trial.calls if call.what == RIGHT), None)
    if right is not None and not right.failures and (right.total is None or right.total <= 0):
        yield Finding(
            f"reward {names}: the right answer, {_short(right.text)} ({trial.source}), gets {_number(right.total)}: it "
            "wants another form, or is broken. Fix: call it on a completion that you know to be right; where that "
            "column holds only a part of one, nothing is wrong",
            stops=False,
        )
        return
    yield from _generous(names, right, trial.calls)
    yield from _slow(run, rewards, trial)


def _generous(names: str, right: Call | None, calls: Sequence[Call]) -> Iterator[Finding]:
    """Completions that are worth nothing and get as much as the right answer."""
    best = 1.0 if right is None or right.total is None else right.total
    for call in calls:
        if call.what in (EMPTY, WRONG) and call.total is not None and call.total >= best:
            said = "an empty completion" if call.what == EMPTY else f"a wrong answer ({_short(call.text)})"
            than = "as if it were right" if right is None else f"and the right one {_number(best)}"
            yield Finding(
                f"reward {names}: {said} gets {_number(call.total)}, {than}: the policy will learn to give such "
                "answers. Fix: return less for what is not right",
                stops=False,
            )


def _failed(run: Run, trial: Trial) -> Iterator[Finding]:
    stops = run.on_reward_error == "stop"
    after = "training would stop at such a sample" if stops else "such samples are trained without it"
    told: set[tuple[str, str]] = set()
    for call in trial.calls:
        for name, reason in call.failures.items():
            if (name, reason) in told:
                continue
            told.add((name, reason))
            yield Finding(
                f"reward {name} {reason}, for {_completion(call)} on row {call.row + 1}: {after}. Fix: a number for "
                "every completion, None where it cannot be scored"
                + (", or --on-reward-error unscored, which counts such samples" if stops else ""),
                stops,
            )


def _completion(call: Call) -> str:
    if call.what == RIGHT:
        return f"the right answer {_short(call.text)}"
    return {EMPTY: "an empty completion", LONG: "a very long completion"}.get(
        call.what, f"the completion {_short(call.text)}"
    )


def _slow(run: Run, rewards: Sequence[NamedReward], trial: Trial) -> Iterator[Finding]:
    """Functions that are called for every completion, and would not be done with a group in time."""
    for reward in rewards:
        signature, group = reward.grader.signature, trial.seconds[reward.name] * run.group_size
        if not signature.form.each or signature.asynchronous or group / run.reward_workers <= run.reward_timeout:
            continue
        yield Finding(
            f"reward {reward.name} takes {group:.0f} s for a group of {run.group_size}, more than --reward-timeout "
            f"{run.reward_timeout:g}. Fix: --reward-workers {ceil(2 * group / run.reward_timeout)}",
            stops=False,
        )


def _short(text: str) -> str:
    shown = repr(text)
    return shown if len(shown) <= 40 else f"{shown[:37]}..."


def _number(value: float | None) -> str:
    return "no value" if value is None else f"{value:g}"
