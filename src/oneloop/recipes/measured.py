"""One measure of a model, value by value: its mean with an interval, and the difference to another model's."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from math import exp, fsum

from oneloop.errors import DataError
from oneloop.record.statistics import Interval, difference_interval, mean_interval, ratio_interval, share_interval


@dataclass(frozen=True, slots=True)
class Value:
    """What one answer, pair or demonstration adds to a mean."""

    key: str
    """Its prompt: values of one prompt are one cluster."""
    total: float | None
    """None: could not be scored."""
    count: int = 1
    """What the total is a sum of, such as tokens."""


@dataclass(frozen=True)
class Score:
    """A mean over scored answers; None and no interval when nothing could be scored."""

    name: str
    mean: float | None
    interval: Interval | None
    answers: int
    unscored: int
    prompts: int = 0
    """How many prompts the scored answers are to."""

    def __str__(self) -> str:
        if self.mean is None or self.interval is None:
            return f"{self.name:<16}none of {self.unscored} answers could be scored"
        unscored = f", {self.unscored} unscored" if self.unscored else ""
        low, high = self.interval
        several = f" to {self.prompts} prompts" if self.prompts not in (0, self.answers) else ""
        return f"{self.name:<16}{self.mean:.4f}  95 % [{low:.4f}, {high:.4f}]  n = {self.answers}{several}{unscored}"


@dataclass(frozen=True)
class Difference:
    """One model's mean minus another's, on the same prompts."""

    name: str
    mean: float
    interval: Interval
    higher: int
    equal: int
    lower: int
    """Prompts on which the first model's mean is higher than, equal to, lower than the other's."""

    @property
    def told_apart(self) -> bool:
        return not self.interval.low <= 0 <= self.interval.high

    def __str__(self) -> str:
        low, high = self.interval
        verdict = "" if self.told_apart else "  (0 is inside: not told apart)"
        prompts = self.higher + self.equal + self.lower
        counts = f"higher on {self.higher}, equal on {self.equal}, lower on {self.lower} of {prompts} prompts"
        return f"{self.name:<16}{self.mean:+.4f}  95 % [{low:+.4f}, {high:+.4f}]  {counts}{verdict}"


@dataclass(frozen=True)
class Measured:
    """A named measure with a value for every answer, in the order of the data.

    Args:
        share: its values are right or wrong, or chances; None: where all of them are 0 or 1.
    """

    name: str
    values: tuple[Value, ...]
    share: bool | None = None

    @property
    def scored(self) -> list[Value]:
        return [value for value in self.values if value.total is not None]

    def score(self) -> Score:
        """The mean: Wilson's interval for a share, the clustered normal one otherwise."""
        scored = self.scored
        left = len(self.values) - len(scored)
        if len({value.key for value in scored}) < 2:
            return Score(self.name, None, None, len(scored), left)
        totals = [value.total or 0.0 for value in scored]
        mean = fsum(totals) / sum(value.count for value in scored)
        keys = [value.key for value in scored]
        if any(value.count != 1 for value in scored):
            interval = ratio_interval(totals, [value.count for value in scored])
        else:
            interval = (share_interval if self._is_share(totals) else mean_interval)(totals, keys)
        return Score(self.name, mean, interval, len(scored), left, len(set(keys)))

    def _is_share(self, totals: Sequence[float]) -> bool:
        return set(totals) <= {0.0, 1.0} if self.share is None else self.share

    def minus(self, other: Measured) -> Difference | None:
        """The paired difference, over answers that both models' could be scored; None where those are too few.

        Raises: DataError when the two were not measured on the same thing.
        """
        if [(v.key, v.count) for v in self.values] != [(v.key, v.count) for v in other.values]:
            raise DataError(
                f"--against: {self.name} was not measured on the same rows and tokens, so it cannot be paired. "
                "Fix: two models with one tokenizer"
            )
        both = [
            (value.key, value.total, second.total, value.count)
            for value, second in zip(self.values, other.values, strict=True)
            if value.total is not None and second.total is not None
        ]
        if len({key for key, *_ in both}) < 2:
            return None
        differences = [first - second for _, first, second, _ in both]
        keys, counts = [key for key, *_ in both], [count for *_, count in both]
        mean = fsum(differences) / sum(counts)
        if any(count != 1 for count in counts):
            interval = ratio_interval(differences, counts)
        else:
            shares = self._is_share([number for _, first, second, _ in both for number in (first, second)])
            interval = difference_interval(differences, keys, shares=shares)
        by_prompt = _totals(keys, differences)
        higher, lower = sum(d > 0 for d in by_prompt), sum(d < 0 for d in by_prompt)
        return Difference(self.name, mean, interval, higher, len(by_prompt) - higher - lower, lower)


def perplexity(loss: Score) -> Score:
    """exp of a mean loss in nats per token, with the ends of its interval."""
    if loss.mean is None or loss.interval is None:
        return Score("perplexity", None, None, loss.answers, loss.unscored)
    low, high = (exp(min(end, 700.0)) for end in loss.interval)
    mean = exp(min(loss.mean, 700.0))
    return Score("perplexity", mean, Interval(low, high), loss.answers, loss.unscored, loss.prompts)


def _totals(keys: Sequence[str], values: Sequence[float]) -> list[float]:
    totals = dict.fromkeys(keys, 0.0)
    for key, value in zip(keys, values, strict=True):
        totals[key] += value
    return list(totals.values())
