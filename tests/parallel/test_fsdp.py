"""Models that are cut over real processes learn what one process learns, whatever passes a method asks, and say it."""

import pytest
import torch

from sharded_cases import Case, learner, weights
from sharded_jobs import ON_FOUR, ON_TWO


@pytest.fixture(scope="module")
def alone(on_two) -> dict:
    return on_two[0]["alone"] | on_two[1]["alone"]


def check_equal(found, expected, start) -> None:
    """To what the order of additions leaves: Adam divides by √v, so that where a gradient is almost 0 its rounding is
    a large share of the update."""
    (ours, logged), (theirs, wanted) = found, expected
    assert ours.keys() == theirs.keys() == start.keys()
    apart = torch.cat([(ours[name] - theirs[name]).abs().flatten() for name in ours])
    assert float(apart.max()) <= 5e-5 and float(apart.mean()) <= 2e-8
    assert max(float((theirs[name] - start[name]).abs().max()) for name in start) > 9e-4, "training moved the weights"
    for row, other in zip(logged, wanted, strict=True):
        assert row.keys() == other.keys()
        for name in row.keys() - {name for name in row if name.startswith("time/")} - {"tokens_per_second"}:
            assert row[name] == pytest.approx(other[name], rel=1e-3, abs=1e-4), name


@pytest.mark.parametrize(("mode", "case"), ON_TWO, ids=str)
def test_two_ranks_learn_what_one_process_learns(on_two, alone, folder, mode: str, case: Case) -> None:
    start = weights(learner(case, folder))
    for mine in on_two:
        check_equal(mine["learned"][mode, str(case)], alone[str(case)], start)


@pytest.mark.parametrize(("mode", "case"), ON_FOUR, ids=str)
def test_four_ranks_of_which_some_idle(on_four, alone, folder, mode: str, case: Case) -> None:
    """More ranks than some optimizer step has microbatches."""
    start = weights(learner(case, folder))
    for mine in on_four:
        check_equal(mine["learned"][mode, str(case)], alone[str(case)], start)


def test_a_bad_gradient_on_one_rank_is_skipped_on_all(on_two) -> None:
    for mine in on_two:
        assert mine["bad"] == {"outcomes": [1, 1, "stopped"], "unchanged": True}


@pytest.mark.parametrize("mode", ["full", "grad"])
def test_a_pass_without_gradient_leaves_nothing_whole_behind(on_two, mode: str) -> None:
    """What stayed whole would be what the next pass reads: the weights before the update."""
    for mine in on_two:
        assert mine["passes"][mode] < 2e-5
        assert mine["passes"][f"{mode} fast"] == ["", ""], "rows are packed, and the head is read in chunks"


def test_a_copy_draws_what_the_weights_draw(on_two) -> None:
    for mine in on_two:
        assert mine["drawn"]["fast"], "the copy runs as a model does that was never cut"
        (before, _), (after, version) = mine["drawn"]["sharded"]
        assert version == 1 and [row.tokens for row in before] != [row.tokens for row in after]
        for ours, theirs in zip(mine["drawn"]["sharded"], mine["drawn"]["alone"], strict=True):
            assert [row.tokens for row in ours[0]] == [row.tokens for row in theirs[0]]


def test_half_precision_means_one_thing(on_two) -> None:
    for mine in on_two:
        said = mine["bfloat16"]
        # processors without bfloat16 add up products in an order that goes by where a matrix lies
        assert said["sharded"] < 1e-6 and said["copied"] < said["float32"] / 8 and said["float32"] > 1e-4
        assert said["rounded"], "the copy's weights are the policy's, rounded once"
        assert said["dtypes"] == {torch.float32, torch.bfloat16}
