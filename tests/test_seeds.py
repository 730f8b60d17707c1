"""Names of seeds, and what an episode's values refuse."""

import pytest

from oneloop.seeds import named_seed
from oneloop.types import Completion, StopReason

NAN, INF = float("nan"), float("inf")


def test_different_names_give_different_seeds() -> None:
    names = [
        (0, "order", 1),
        (0, "order", "1"),
        (0, "order", 11),
        (0, "order1"),
        (0, "or", "der", 1),
        ("0", "order", 1),
    ]
    names += [("a", "b"), ("astr:b",)]
    assert len({named_seed(*name) for name in names}) == len(names)
    assert all(0 <= named_seed(*name) < 2**63 for name in names)
    assert named_seed(0, "order", 1) == named_seed(0, "order", 1)


def test_only_limits_truncate() -> None:
    assert [stop for stop in StopReason if stop.truncated] == [StopReason.LENGTH, StopReason.TURNS]


@pytest.mark.parametrize("logprobs", [(), (-1.0,), (-1.0, NAN), (-1.0, -INF), (-1.0, 0.1)])
def test_a_completion_has_a_log_prob_for_each_token(logprobs: tuple[float, ...]) -> None:
    with pytest.raises(ValueError, match="engine returned"):
        Completion(tokens=(5, 6), logprobs=logprobs, stop=StopReason.EOS)
