"""Ranks that share a server ask it in step, while their episodes differ in length: nobody waits for an ended one."""

import threading

import pytest

from oneloop.errors import EnvironmentFailed
from oneloop.rollout.turns import rounds_in_step
from oneloop.types import Completion, Sampling, StopReason
from toy_models import on_ranks

SAMPLING = Sampling(max_new_tokens=2)


class Shared:
    """A server that answers when every rank has asked it: a token that says how much stood before."""

    def __init__(self, ranks):
        self.everyone, self.asked = threading.Barrier(ranks), [0] * ranks

    def generate(self, rank):
        def generate(prompts, sampling, seeds, finished=None):
            self.everyone.wait(20)
            self.asked[rank] += 1
            return [
                Completion(tokens=(len(prompt), seed), logprobs=(-1.0, -1.0), stop=StopReason.EOS)
                for prompt, seed in zip(prompts, seeds, strict=True)
            ]

        return generate


def played(rounds, turns):
    """What one row draws in so many turns; () without a row."""
    drawn = []
    if turns:
        rounds.begin(0, [1, 2], 5)
    for left in reversed(range(turns)):
        ((number, completion),) = rounds.step()
        drawn.append(completion.tokens)
        if left:
            rounds.go_on(number, [7], 6)
    assert not rounds.running
    return drawn


def test_a_rank_without_rows_goes_on_asking_for_nothing() -> None:
    server = Shared(3)

    def work(rank, world):
        with rounds_in_step(server.generate(rank), SAMPLING, world) as rounds:
            return played(rounds, (3, 1, 0)[rank])

    assert on_ranks(3, work) == [[(2, 5), (5, 6), (8, 6)], [(2, 5)], []]
    assert server.asked == [4, 4, 4]


class Starting(Shared):
    """One whose first call starts it, where the ranks meet."""

    def __init__(self, worlds):
        super().__init__(worlds)
        self.started = [False] * worlds

    def generate(self, rank, world):
        ask = super().generate(rank)

        def generate(prompts, sampling, seeds, finished=None):
            if not self.started[rank]:
                assert world.collect(["start"]) == ["start"] * len(self.started), "all of them start it"
                self.started[rank] = True
            return ask(prompts, sampling, seeds, finished)

        return generate


def test_a_rank_that_never_draws_starts_the_server_with_the_others() -> None:
    """The second has no episode; what the third would play fails in its reset."""
    server = Starting(3)

    def work(rank, world):
        with (
            pytest.raises(EnvironmentFailed, match=r"^reset raised ValueError: no$"),
            rounds_in_step(server.generate(rank, world), SAMPLING, world) as rounds,
        ):
            if rank == 2:
                raise EnvironmentFailed("reset raised ValueError: no")
            played(rounds, (2, 0)[rank])
        return world.collect([rank])

    assert on_ranks(3, work) == [[0, 1, 2]] * 3
    assert server.started == [True] * 3


@pytest.mark.parametrize("failing", [0, 1, 2])
def test_what_fails_on_one_rank_ends_the_rounds_of_all(failing) -> None:
    """With its words, and before anybody waits for an answer that will not come."""
    server = Shared(3)

    def work(rank, world):
        with (
            pytest.raises(EnvironmentFailed, match=r"^step raised ValueError: no$"),
            rounds_in_step(server.generate(rank), SAMPLING, world) as rounds,
        ):
            played(rounds, 1)
            if rank == failing:
                raise EnvironmentFailed("step raised ValueError: no")
            played(rounds, 2)
        return world.collect([rank])

    assert on_ranks(3, work) == [[0, 1, 2]] * 3, "their next calls are the same"


def test_what_the_engine_raises_on_all_is_raised_on_all() -> None:
    def work(rank, world):
        def generate(*_):
            raise EnvironmentFailed("the server is gone")

        with (
            pytest.raises(EnvironmentFailed, match="the server is gone"),
            rounds_in_step(generate, SAMPLING, world) as rounds,
        ):
            played(rounds, 1)
        return world.collect([rank])

    assert on_ranks(2, work) == [[0, 1]] * 2
