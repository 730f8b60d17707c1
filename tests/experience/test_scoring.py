"""Rewards beside the sampling: the same trajectories, and a failure that stops the sampling."""

import re
from concurrent.futures import Future
from threading import Event, get_ident
from time import sleep

import pytest

from oneloop.errors import OneloopError, RewardError
from oneloop.experience.drawing import OneTurn
from oneloop.experience.episodes import Request
from oneloop.experience.scoring import drawn_and_scored
from oneloop.rewards import NamedReward, RewardScorer
from oneloop.types import Completion, Prompt, Sampling, StopReason

PROMPTS = [Prompt(id=name, text=name, tokens=(place + 5,), columns={"name": name}) for place, name in enumerate("abc")]
REQUESTS = [Request(prompt, number, sample, 10 * number + sample)
            for number, prompt in enumerate(PROMPTS) for sample in range(2)]  # fmt: skip


def completion(seed: int) -> Completion:
    return Completion(tokens=(seed,), logprobs=(-1.0,), stop=StopReason.EOS)


class Engine:
    """Ends its rows in a given order; before each, waits for what `gate` says."""

    version, exact = 0, True

    def __init__(self, order, gate=lambda place: None) -> None:
        self.order, self.gate, self.ended = order, gate, []

    def update(self, version) -> None: ...

    def generate(self, prompts, sampling, seeds, finished=lambda place, completion: None):
        for place in self.order:
            self.gate(place)
            self.ended.append(place)
            finished(place, completion(seeds[place]))
        return [completion(seed) for seed in seeds]


def scorer(function) -> RewardScorer:
    return RewardScorer((NamedReward(name="r", function=function),))


def scored(engine, function, early):
    return drawn_and_scored(OneTurn(engine.generate, str), scorer(function), REQUESTS, Sampling(), early=early)


def by_seed(completions, completion_ids, **columns):
    return [float(ids[0]) for ids in completion_ids]


@pytest.mark.parametrize("order", [range(6), [5, 0, 2, 3, 4, 1], [1, 3, 5, 0, 2, 4]])
def test_early_and_late_give_the_same_trajectories(order) -> None:
    late = scored(Engine(order), by_seed, early=False).trajectories
    early = scored(Engine(order), by_seed, early=True).trajectories
    assert early == late
    assert [item.reward.value for item in early] == [0.0, 1.0, 10.0, 11.0, 20.0, 21.0]


def test_a_group_is_scored_while_others_are_still_drawn() -> None:
    """The last row is not drawn before the first group has its reward: with scoring afterwards this would not end."""
    seen, first, threads = [], Event(), set()

    def reward(completions, name, **columns):
        seen.append(name)
        threads.add(get_ident())
        first.set()
        return [1.0] * len(completions)

    def gate(place: int) -> None:
        assert place != 5 or first.wait(timeout=20)

    scored(Engine(range(6), gate), reward, early=True)
    assert seen == [["a", "a"], ["b", "b"], ["c", "c"]], "whole groups, in the order in which they end"
    assert len(threads) == 1 and get_ident() not in threads


def test_a_failure_ends_the_sampling() -> None:
    failed = Event()

    def reward(completions, **columns):
        failed.set()
        raise ValueError("no grader at home")

    def gate(place: int) -> None:
        if place > 1:
            assert failed.wait(timeout=20)
            sleep(0.05)  # until the thread has put the exception where it is looked for

    engine = Engine(range(6), gate)
    with pytest.raises(RewardError, match="no grader at home"):
        scored(engine, reward, early=True)
    assert len(engine.ended) < 6


def test_rewards_are_asked_for_once_and_not_by_every_row(monkeypatch) -> None:
    """With all rewards there at once: one question for each group, and none twice."""
    asked = []
    done = Future.done

    def counted(future):
        asked.append(id(future))
        future.result(timeout=20)
        return done(future)

    monkeypatch.setattr(Future, "done", counted)
    scored(Engine(range(6)), by_seed, early=True)
    assert len(asked) == len(set(asked)) == 3


def test_a_failure_of_the_engine_is_its_own() -> None:
    def gate(place: int) -> None:
        if place == 3:
            raise RuntimeError("out of memory")

    with pytest.raises(RuntimeError, match="out of memory"):
        scored(Engine(range(6), gate), by_seed, early=True)


@pytest.mark.parametrize("early", [False, True])
def test_slow_scoring_says_how_far_it_is(early: bool, monkeypatch) -> None:
    """The reward waits until it has been said; sampling alone is no reason to say it."""
    monkeypatch.setattr("oneloop.experience.scoring.SLOW", 0.01)
    said, told = [], Event()

    def say(text: str) -> None:
        said.append(text)
        told.set()

    def reward(completions, name, **columns):
        assert "c" not in name or told.wait(timeout=20)
        return [1.0] * len(completions)

    def gate(place: int) -> None:
        sleep(0.02)
        assert not said

    drawn_and_scored(
        OneTurn(Engine(range(6), gate).generate, str), scorer(reward), REQUESTS, Sampling(), early=early, say=say
    )
    count = r"[024]" if early else "0"
    assert re.fullmatch(rf"scoring: {count} of 6 after 0 s", said[0])


@pytest.mark.parametrize("early", [False, True], ids=["after", "beside"])
def test_the_phase_is_scoring_while_rewards_alone_are_waited_for(early: bool) -> None:
    """Every sample counts once; what is scored beside the sampling is there when the waiting begins."""
    told, sampled, waiting = [], Event(), Event()

    def phase(name: str, note: str) -> None:
        assert sampled.is_set()
        told.append((name, note))
        waiting.set()

    def reward(completions, name, **columns):
        assert "c" not in name or waiting.wait(timeout=20)
        return [1.0] * len(completions)

    def gate(place: int) -> None:
        sampled.set() if place == 5 else None

    drawn_and_scored(
        OneTurn(Engine(range(6), gate).generate, str), scorer(reward), REQUESTS, Sampling(), early=early, phase=phase
    )
    assert {name for name, _ in told} == {"score"} and told[-1] == ("score", "6 of 6")
    counts = [int(note.split()[0]) for _, note in told]
    assert counts == sorted(counts) and len(told) > 1
    if not early:
        assert counts == [0, 6]


def test_the_step_reaches_the_reward() -> None:
    seen = []

    def reward(completions, trainer_state):
        seen.append(trainer_state.global_step)
        return [1.0] * len(completions)

    for early in (False, True):
        drawn_and_scored(
            OneTurn(Engine(range(6)).generate, str), scorer(reward), REQUESTS, Sampling(), early=early, step=7
        )
    assert seen == [7, 7, 7, 7]


@pytest.mark.parametrize("early", [False, True], ids=["after", "beside"])
def test_completions_that_an_engine_lost_end_the_step(early) -> None:
    """Nothing is filled in for them, and no other sample takes their place."""

    class Losing(Engine):
        def generate(self, prompts, sampling, seeds, finished=lambda place, completion: None):
            return super().generate(prompts[:-1], sampling, seeds[:-1], finished)

    with pytest.raises(OneloopError, match="5 completions for 6 requests"):
        scored(Losing(range(5)), by_seed, early)
