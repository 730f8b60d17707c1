"""Rollouts that do not wait: what a batch is made of never depends on time, and no token is older than it may be.

The engine's clock is scripted: how long each completion waits before it is drawn, and how many tokens the sampler gets
done between two updates. One thread does everything, in an order that the script alone decides.
"""

import json
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from random import Random
from threading import Event
from unittest.mock import Mock

import pytest
import torch
from test_sources import by_prompt, rollouts

from oneloop.errors import EngineError, RewardError
from oneloop.experience import ahead
from oneloop.experience.ahead import Ahead, InTurn, staleness_scalars
from oneloop.experience.episodes import Request
from oneloop.experience.turns import Budget, Episodes, Language
from oneloop.experience.wire import heard, told
from oneloop.objective.select import MixedOutcome
from oneloop.types import Completion, Prompt, Reward, StopReason, Trajectory
from toy_models import Bigram

REWARDS = {name: [float((place + sample) % 3 == 0) for sample in range(3)] for place, name in enumerate("abcdefg")}
REWARDS |= {"dead": [1.0, 1.0, 1.0], "wrong": [0.0, 0.0, 0.0]}
SHAPE = {"prompts_per_step": 2, "group_size": 3, "keep": MixedOutcome(), "max_refills": 3}
STEPS = 6
MODELS = Bigram()


class Later:
    """Implements a thread pool: work is done by whoever asks for its result."""

    def __init__(self, *_, **__) -> None: ...

    def submit(self, work, *arguments):
        return Result(work, arguments)

    def shutdown(self, **_) -> None: ...


class Result:
    def __init__(self, work, arguments) -> None:
        self.work, self.arguments = work, arguments

    def result(self):
        return self.work(*self.arguments)


class Clocked:
    """Implements `oneloop.ports.BesideEngine`. A token says its seed, its place and the weights it was drawn from.

    Args:
        script: names the waits and the speed of the sampler.
        continues: updates do not wait for what is on its way.
    """

    def __init__(self, script: int, *, continues: bool = False, exact: bool = False) -> None:
        self.random, self.continues, self.exact = Random(script), continues, exact
        self.version, self.running, self.updates, self.order = 0, [], [], []

    def update(self, version):
        if self.continues:
            for _ in range(self.random.randrange(6)):
                self.tick()
        while self.running and not self.continues:
            self.tick()
        self.version = version
        self.updates.append(version)

    def begin(self, prompts, sampling, seeds):
        arrived = []
        mine = [
            {"of": arrived, "index": n, "seed": seed, "wait": self.random.randrange(9), "drawn": []}
            for n, seed in enumerate(seeds)
        ]
        self.running += mine

        def wait(finished):
            told = 0
            while told < len(prompts):
                if told == len(arrived):
                    self.tick()
                for index, completion in arrived[told:]:
                    finished(index, completion)
                    told += 1
            return [completion for _, completion in sorted(arrived, key=lambda pair: pair[0])]

        return wait

    def tick(self):
        for row in list(self.running):
            if row["wait"]:
                row["wait"] -= 1
                continue
            row["drawn"].append(self.version)
            if len(row["drawn"]) == 1 + row["seed"] % 4:
                self.running.remove(row)
                self.order.append(row["seed"])
                row["of"].append((row["index"], completion_of(row["seed"], row["drawn"])))

    def generate(self, prompts, sampling, seeds, finished=lambda place, completion: None):
        """What cannot wait, from the newest weights."""
        completions = [completion_of(seed, [self.version] * (1 + seed % 4)) for seed in seeds]
        for place, completion in enumerate(completions):
            finished(place, completion)
        return completions

    def until(self, done):
        return done.result()

    def close(self): ...


def completion_of(seed, versions):
    return Completion(
        tokens=tuple(10 + seed % 50 + version for version in versions),
        logprobs=tuple(-0.1 - version / 100 for version in versions),
        stop=StopReason.EOS,
        version=versions[0],
        changes=tuple((n, new) for n, new in enumerate(versions) if n and new != versions[n - 1]),
    )


@pytest.fixture(autouse=True)
def one_thread(monkeypatch):
    monkeypatch.setattr(ahead, "ThreadPoolExecutor", Later)


def source(engine, staleness, last=STEPS - 1, **changes):
    inner, _ = rollouts(REWARDS, engine, **{**SHAPE, **changes})
    return Ahead(inner, engine, staleness=staleness, last=last)


def steps_of(experience, first=0, steps=STEPS):
    """The batch and the report of each step, in the order in which the loop asks."""
    for step in range(first, steps):
        batch = experience.batch(step)
        experience.update(MODELS, step)
        yield batch, experience.report(batch)


def tables(batch):
    return {name: value.tolist() for name, value in batch._tensors()}


@pytest.mark.parametrize("exact", [True, False])
@pytest.mark.parametrize("early", [True, False])
def test_with_nothing_ahead_it_is_the_rollouts_bit_for_bit(early: bool, exact: bool) -> None:
    plain, _ = rollouts(REWARDS, Clocked(0, exact=exact), score_early=early, **SHAPE)
    for (one, report), (other, its) in zip(
        steps_of(source(Clocked(0, exact=exact), 0, score_early=early)), steps_of(plain), strict=True
    ):
        assert tables(one) == tables(other) and (one.old_logprobs is not None) == exact
        scalars = {name: value for name, value in report.scalars.items() if "staleness" not in name}
        same = ("time/reward", "epoch")  # the next step's prompts are taken already
        assert {n: v for n, v in scalars.items() if n not in same} == {
            n: v for n, v in its.scalars.items() if n not in same
        }
        assert report.scalars["rollout/staleness/max"] == 0
        assert list(report.trajectories) == list(its.trajectories)


@pytest.mark.parametrize("staleness", [1, 2, 3])
def test_finished_completions_are_the_same_whatever_ends_first(staleness: int) -> None:
    engines = [Clocked(script) for script in range(6)]
    runs = [[tables(batch) for batch, _ in steps_of(source(engine, staleness))] for engine in engines]
    assert all(run == runs[0] for run in runs)
    assert len({tuple(engine.order) for engine in engines}) == len(engines), "the scripts do differ"


@pytest.mark.parametrize("continues", [False, True])
@pytest.mark.parametrize("staleness", [1, 2, 4])
def test_no_token_is_older_than_it_may_be_and_no_group_depends_on_time(staleness: int, continues: bool) -> None:
    asked, mixed = set(), 0
    for script in range(12):
        prompts = []
        for step, (batch, report) in enumerate(
            steps_of(source(Clocked(script, continues=continues, exact=True), staleness))
        ):
            items = report.trajectories
            versions = [version for item in items for version, _ in item.completion.versions]
            assert all(max(step - staleness, 0) <= version <= step for version in versions)
            assert report.scalars["rollout/staleness/max"] <= staleness and batch.old_logprobs is None
            mixed += any(item.completion.changes for item in items)
            prompts.append([(item.prompt.id, item.group, item.sample) for item in items])
        asked.add(json.dumps(prompts))
    assert len(asked) == 1, "which prompts a step has, refills included, is not for the clock to say"
    assert bool(mixed) == continues


def test_finished_completions_have_one_version_each() -> None:
    """Step j is drawn from the weights of step j − K, what replaces dropped groups from the newest."""
    for step, (_, report) in enumerate(steps_of(source(Clocked(3), 2))):
        first = [item.completion.version for item in report.trajectories if item.group < 2]
        more = [item.completion.version for item in report.trajectories if item.group >= 2]
        assert set(first) == {max(step - 2, 0)} and set(more) <= {step}


def test_staleness_is_of_tokens() -> None:
    """Three tokens from weights 4, two from 6, at step 7: ages 3, 3, 3, 1, 1."""
    completion = Completion(
        tokens=(5, 5, 5, 5, 5), logprobs=(-1.0,) * 5, stop=StopReason.EOS, version=4, changes=((3, 6),)
    )
    assert list(completion.versions) == [(4, 3), (6, 2)]
    item = Trajectory(
        prompt=Prompt(id="a", text="a", tokens=(1,)), group=0, sample=0, completion=completion, text="",
        reward=Reward(value=1.0),
    )  # fmt: skip
    wanted = {"rollout/staleness": pytest.approx(11 / 5), "rollout/staleness/max": 3.0}
    assert staleness_scalars(7, [item, replace(item, kept=False)]) == wanted
    again = heard(Request(item.prompt, 0, 0, 0), json.loads(json.dumps(told(item))))
    assert again.completion == completion, "to other ranks too"


def test_a_run_that_was_killed_trains_on_everything_once() -> None:
    """Killed after each step in turn: the steps on their way are drawn again, from the checkpoint's weights."""
    whole = [[item.prompt.id for item in report.trajectories] for _, report in steps_of(source(Clocked(0), 2))]
    for killed in range(1, STEPS):
        first = source(Clocked(1), 2)
        seen = [[item.prompt.id for item in report.trajectories] for _, report in steps_of(first, 0, killed)]
        state = json.loads(json.dumps(first.state()))
        engine = Clocked(2)
        second = source(engine, 2)
        second.restore(state)
        for step, (_, report) in enumerate(steps_of(second, killed), start=killed):
            seen.append([item.prompt.id for item in report.trajectories])
            ages = [step - version for item in report.trajectories for version, _ in item.completion.versions]
            assert 0 <= max(ages) <= min(2, step - killed), "what is drawn again is not older than the checkpoint"
        assert seen == whole, f"killed after step {killed}"
        assert engine.updates[0] == killed


def test_prompts_follow_each_other_without_a_gap() -> None:
    reports = [report for _, report in steps_of(source(Clocked(5), 2, keep=None, max_refills=0), steps=9)]
    plain, _ = rollouts(REWARDS, Clocked(0), **{**SHAPE, "keep": None})
    wanted = [item.prompt.id for _, report in steps_of(plain, steps=9) for item in report.trajectories]
    assert [item.prompt.id for report in reports for item in report.trajectories] == wanted


def test_nothing_is_begun_that_no_step_will_train_on() -> None:
    engine = Clocked(0)
    list(steps_of(source(engine, 3, last=STEPS - 1)))
    assert not engine.running


def test_a_failure_is_told_by_the_step_it_belongs_to() -> None:
    def broken(items, step=0, scored=None):
        if step == 2:
            raise RewardError("no reward for step 2")
        return by_prompt(REWARDS)(items)

    experience = source(Clocked(0), 2)
    experience._rollouts._scorer = InTurn(broken)
    done = 0
    with pytest.raises(RewardError, match="no reward for step 2"):
        for _ in steps_of(experience):
            done += 1
    assert done == 2


def test_an_engine_that_fails_ends_the_step() -> None:
    class Dying(Clocked):
        def begin(self, prompts, sampling, seeds):
            def wait(finished):
                raise EngineError("gone")

            return wait

    with pytest.raises(EngineError, match="gone"):
        source(Dying(0), 1).batch(0)


@pytest.mark.parametrize("patience", [20.0, 0.0])
def test_the_end_waits_for_episodes_that_are_played_but_not_for_ever(patience, monkeypatch) -> None:
    """What environments have in common is closed behind it. The second of two that are begun is never played."""
    monkeypatch.setattr(ahead, "ThreadPoolExecutor", ThreadPoolExecutor)
    monkeypatch.setattr(ahead, "_LEAVING", patience)
    begun, closed, go_on, left = Event(), Event(), Event(), []

    class Slow(Episodes):
        def beside(self, requests, sampling):
            begun.set()
            assert closed.wait(20)
            go_on.wait(0.2 if patience else 20)
            left.append("its environment")
            raise EngineError("the run ended")

    class Closed(Clocked):
        def close(self):
            closed.set()

    experience = source(Closed(1), staleness=1)
    experience._draw = Slow(
        name="g", scene=Mock(), opened=Mock(), language=Mock(spec=Language), budget=Budget(turns=1, tokens=9)
    )
    experience._begin(0, STEPS - 1)
    assert begun.wait(20)
    experience.close()
    assert left == (["its environment"] if patience else [])
    go_on.set()


def test_the_rows_are_those_of_the_batch() -> None:
    experience = source(Clocked(7), 1)
    for batch, report in steps_of(experience):
        rows = [item for item in report.trajectories if item.kept]
        assert torch.equal(batch.lengths, torch.tensor([len(item.tokens) for item in rows]))
