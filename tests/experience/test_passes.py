"""pass@k: the unbiased estimate, against all subsets written out."""

from itertools import combinations

import pytest

from oneloop.experience.passes import pass_at, pass_scalars, passes
from oneloop.types import Completion, Prompt, Reward, StopReason, Trajectory


def answers(*rewards: list[float | None]) -> list[Trajectory]:
    return [
        Trajectory(
            prompt=Prompt(id=str(group), text="?", tokens=(1,)),
            group=group,
            sample=sample,
            completion=Completion(tokens=(2,), logprobs=(-1.0,), stop=StopReason.EOS),
            text="!",
            reward=Reward(value=value),
        )
        for group, values in enumerate(rewards)
        for sample, value in enumerate(values)
    ]


@pytest.mark.parametrize("samples", range(1, 7))
def test_it_is_the_share_of_subsets_with_a_right_one(samples: int) -> None:
    for right in range(samples + 1):
        outcomes = [1] * right + [0] * (samples - right)
        for k in range(1, samples + 1):
            subsets = list(combinations(outcomes, k))
            assert pass_at(k, right, samples) == pytest.approx(sum(map(any, subsets)) / len(subsets))


def test_worked_example() -> None:
    """Two of four right: 1 − C(2, 2)/C(4, 2) = 1 − 1/6; the biased 1 − (1 − ½)² says ¾."""
    assert pass_at(2, 2, 4) == pytest.approx(5 / 6)
    assert passes(answers([1.0, 1.0, 0.0, 0.0], [0.0] * 4), 2) == pytest.approx({"0": 5 / 6, "1": 0.0})


@pytest.mark.parametrize(("k", "right", "samples"), [(0, 1, 2), (3, 1, 2), (1, 3, 2), (1, -1, 2)])
def test_bad_counts(k: int, right: int, samples: int) -> None:
    with pytest.raises(ValueError, match="wanted"):
        pass_at(k, right, samples)


def test_graded_rewards_are_neither_right_nor_wrong() -> None:
    assert passes(answers([0.5, 1.0]), 1) is None
    assert pass_scalars(answers([0.5, 1.0]), 2) == {}


def test_what_could_not_be_scored_is_no_sample() -> None:
    """Three of four scored: pass@2 = 1 − C(2, 2)/C(3, 2) = ⅔; the second prompt has too few left."""
    assert passes(answers([1.0, 0.0, None, 0.0], [1.0, None, None, None]), 2) == pytest.approx({"0": 2 / 3})


@pytest.mark.parametrize(
    ("samples", "names"),
    [(1, []), (2, ["pass@2"]), (4, ["pass@2", "pass@4"]), (6, ["pass@2", "pass@4", "pass@6"])],
)
def test_which_k_a_run_logs(samples: int, names: list[str]) -> None:
    assert list(pass_scalars(answers([1.0] * samples, [0.0] * samples), samples)) == names
