"""pass@k: the chance that at least one of k samples is right, from n samples of which c are."""

from __future__ import annotations

from collections.abc import Sequence
from math import comb
from statistics import fmean

from oneloop.types import Trajectory


def pass_at(k: int, right: int, samples: int) -> float:
    """The unbiased estimate pass@k = 1 − C(n − c, k) / C(n, k): the share of all k-subsets of the samples with a
    right one in it. 1 − (1 − c/n)^k would be too low.

    Reference: Chen et al., arXiv:2107.03374, eq. 1, with n = samples and c = right.

    Raises: ValueError unless 0 ≤ right ≤ samples and 1 ≤ k ≤ samples.
    """
    if not (0 <= right <= samples and 1 <= k <= samples):
        raise ValueError(f"k = {k}, {right} right of {samples} samples; wanted 0 ≤ right ≤ samples, 1 ≤ k ≤ samples")
    return 1 - comb(samples - right, k) / comb(samples, k)


def passes(items: Sequence[Trajectory], k: int) -> dict[str, float] | None:
    """pass@k of each prompt, by its id; None where a reward is neither 0 nor 1, and nothing is right or wrong.

    Samples that could not be scored are not counted; a prompt with fewer than k others is left out.
    """
    by_prompt: dict[str, list[float]] = {}
    for item in items:
        if item.reward.value is not None:
            by_prompt.setdefault(item.prompt.id, []).append(item.reward.value)
    if any(value not in (0.0, 1.0) for values in by_prompt.values() for value in values):
        return None
    return {
        prompt: pass_at(k, round(sum(values)), len(values)) for prompt, values in by_prompt.items() if len(values) >= k
    }


def pass_scalars(items: Sequence[Trajectory], samples: int) -> dict[str, float]:
    """`pass@k` for k = 2, 4, 8, ... and `samples`, where rewards are 0 or 1; pass@1 is the reward itself."""
    scalars: dict[str, float] = {}
    for k in sorted({*(2**power for power in range(1, samples.bit_length())), samples} - {1}):
        if found := passes(items, k):
            scalars[f"pass@{k}"] = fmean(found.values())
    return scalars
