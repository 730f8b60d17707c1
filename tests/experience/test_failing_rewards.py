"""Samples that a reward failed on teach nothing, are counted and told, and end the run when they are many."""

from dataclasses import replace

import pytest
from test_sources import rollouts

from oneloop.errors import RewardError
from oneloop.objective.advantage import GroupRelative
from oneloop.types import Reward

NAMES = {name: [0.0] * 10 for name in "ab"}
"""Two prompts; with ten samples each, a step has twenty."""


def failing(count):
    """A scorer that fails on the first `count(step)` samples of each step."""

    def score(items, step=0, scored=None):
        return [
            replace(item, reward=Reward(value=None, parts={"r": None}, failures={"r": f"raised {place}"}))
            if place < count(step)
            else replace(item, reward=Reward(value=float(place), parts={"r": float(place)}))
            for place, item in enumerate(items)
        ]

    return score


def source_of(count, **options):
    source, notes = rollouts(NAMES, group_size=10, **options)
    source._scorer = failing(count)
    return source, notes


def test_a_failed_sample_leaves_its_group_as_it_would_be_without_it() -> None:
    """One sample of ten has no value: the others' advantages are those of a group of nine, its own is 0."""
    source, notes = source_of(lambda step: 1)
    batch = source.batch(0)
    assert int(batch.mask[0].sum()) == 0 and bool(batch.mask[1:].any(1).all())
    advantages = GroupRelative()(batch.rewards, None, batch.mask, batch.group).advantages
    alone = GroupRelative()(batch.rewards[1:], None, batch.mask[1:], batch.group[1:]).advantages
    assert advantages[1:].tolist() == alone.tolist() and advantages[0].abs().sum() == 0
    scalars = source.report(batch).scalars
    assert (scalars["rewards/unscored"], scalars["rewards/r/failed"]) == (1.0, 1.0)
    assert notes.codes == ["A_REWARD"], "once a step, however many samples"


def test_a_part_that_failed_is_told_also_where_the_sum_has_a_value() -> None:
    source, notes = source_of(lambda step: 0)

    def score(items, step=0, scored=None):
        return [
            replace(i, reward=Reward(value=1.0, parts={"r": None}, failures={"r": "raised"})) for i in items[:1]
        ] + [replace(i, reward=Reward(value=0.0, parts={"r": 0.0})) for i in items[1:]]

    source._scorer = score
    scalars = source.report(source.batch(0)).scalars
    assert (scalars["rewards/unscored"], scalars["rewards/r/failed"]) == (0.0, 1.0)
    assert notes.codes == ["A_REWARD"]


def steps_until_the_end(source, most: int = 60) -> int:
    for step in range(most):
        try:
            source.batch(step)
        except RewardError:
            return step
    return most


@pytest.mark.parametrize(
    ("count", "last"),
    [
        (lambda step: 0, 60),
        (lambda step: 2, 60),  # 2 of 20 is a tenth, and not more
        (lambda step: 3, 13),  # 14 steps with 3 are 42: more than a tenth of 20 · 20
        (lambda step: 20, 2),  # all of two steps are 40; the third step's are too many
        (lambda step: 20 if step % 20 == 0 else 0, 60),
        (lambda step: 20 if step % 20 < 3 and step > 30 else 0, 42),
    ],
)
def test_a_run_ends_at_more_than_a_tenth_of_twenty_steps(count, last: int) -> None:
    assert steps_until_the_end(source_of(count)[0]) == last


def test_the_message_says_how_many_and_why() -> None:
    source, _ = source_of(lambda step: 20)
    with pytest.raises(RewardError, match=r"failed on 60 of the last 60 samples, more than 10% .* reward r raised 0$"):
        for step in range(3):
            source.batch(step)


def test_a_resumed_run_counts_on() -> None:
    source, _ = source_of(lambda step: 3)
    for step in range(10):
        source.batch(step)
    state = source.state()
    other, _ = source_of(lambda step: 3)
    other.restore({**state, "failed": [list(pair) for pair in state["failed"]]})  # as JSON gives it back
    assert steps_until_the_end(other) == 3
