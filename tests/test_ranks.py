"""What one rank alone would count wrongly, and where one could wait for another without end."""

from dataclasses import replace

import pytest
import torch

from oneloop import errors
from oneloop.algorithms import ALGORITHMS, GRPO, PPO
from oneloop.batch import Loss
from oneloop.errors import ConfigError, OneloopError, RewardError
from oneloop.experience.drawing import OneTurn
from oneloop.experience.rollouts import Rollouts
from oneloop.loop import Tally, train
from oneloop.objective.divergence import KL, AdaptiveKL
from oneloop.objective.select import MixedOutcome
from oneloop.recipes.held import Held
from oneloop.together import by_first, together
from oneloop.trace.passes import Passes, Saw, everyones
from oneloop.types import Completion, Prompt, Reward, Sampling, StopReason
from toy_models import Bigram, Fixed, Memory, on_ranks, ragged_batch, rows_for


class Ranked(Bigram):
    """Replicas: gradients are added up before each step."""

    def __init__(self, world, *arguments, **options):
        super().__init__(*arguments, **options)
        self.world = world

    def step(self):
        self.add_gradients(self.world)
        return super().step()


def trained(algorithm, batch, world=None, **settings):
    models = Bigram(0, reference=Bigram(7)) if world is None else Ranked(world, 0, reference=Bigram(7))
    recorder = Memory()
    settings = {"steps": 2, "minibatch": 2, "max_tokens": 40, "seed": 0} | settings
    settings |= {} if world is None else {"world": world}
    train(algorithm, Fixed(lambda step: batch), models, recorder, **settings)
    return models.weights(), recorder


def test_the_adaptive_coefficient_counts_every_sequence() -> None:
    """Far above its target the KL's error is cut to 0.2: 12 sequences of a horizon of 60 give 4 % a step, not 2 %."""
    algorithm = replace(GRPO, kl=KL(0.04, at="loss", adaptive=AdaptiveKL(target=1e-3, horizon=60.0)))
    batch = ragged_batch(0, 4, truncate=False)

    def work(rank, world):
        models, recorder = Bigram(0, learning_rate=0.0, reference=Bigram(7)), Memory()
        settings = {"steps": 3, "minibatch": 3, "max_tokens": 40, "seed": 0, "world": world}
        last = train(algorithm, Fixed(lambda step: batch), models, recorder, **settings)
        return last.kl.coef, recorder.column("kl_coef")

    for coef, logged in on_ranks(2, work):
        assert coef == pytest.approx(0.04 * 1.04**3)
        assert logged == pytest.approx([0.04 * 1.04**k for k in range(3)])


@pytest.mark.parametrize("name", ALGORITHMS)
def test_three_ranks_train_the_single_process_s_weights(name) -> None:
    """Every method, with minibatches that have fewer microbatches than there are ranks."""
    algorithm, batch = ALGORITHMS[name], rows_for(ALGORITHMS[name])
    alone, log = trained(algorithm, batch)
    for weights, recorder in on_ranks(3, lambda rank, world: trained(algorithm, batch, world)):
        torch.testing.assert_close(weights, alone, rtol=1e-9, atol=1e-9)
        for (_, row), (_, wanted) in zip(recorder.rows, log.rows, strict=True):
            assert row.keys() == wanted.keys()
            for key in (key for key in wanted if not key.startswith(("time/", "tokens_per_second", "grad_norm"))):
                assert row[key] == pytest.approx(wanted[key], rel=1e-5, abs=1e-9), key


def test_a_rank_without_a_microbatch_does_not_wait_for_the_others() -> None:
    """One short group on four ranks: three have nothing, and all come to the same calls."""
    batch = ragged_batch(0, 3, rows=3)
    alone, _ = trained(PPO, batch, minibatch=1, max_tokens=10**6)
    for weights, _ in on_ranks(4, lambda rank, world: trained(PPO, batch, world, minibatch=1, max_tokens=10**6)):
        torch.testing.assert_close(weights, alone, rtol=1e-9, atol=1e-9)


def test_statistics_that_only_some_ranks_have_are_added_up() -> None:
    """A rank may have no statistic at all, or not every name: still one call, and the same result everywhere."""

    def work(rank, world):
        tally = Tally(world)
        if rank:
            tally.add({"loss": torch.tensor(1.0 + rank)} | ({"gap/max": torch.tensor(4.0)} if rank == 2 else {}))
        return tally.close({})

    assert on_ranks(3, work) == [{"loss": 5.0, "gap/max": 4.0}] * 3


def test_a_pass_that_does_not_count_keeps_its_graph_and_its_maximum() -> None:
    weight = torch.tensor(3.0, requires_grad=True)
    loss = Loss(weight * 2, {"loss": torch.tensor(6.0), "nan": torch.tensor(torch.nan), "ratio/max": torch.tensor(7.0)})
    assert loss.counted(True) is loss
    idle = loss.counted(False)
    idle.value.backward()
    assert weight.grad == 0 and {name: float(value) for name, value in idle.stats.items()} == {
        "loss": 0.0, "nan": 0.0, "ratio/max": 7.0,
    }  # fmt: skip


class Drawing:
    """Implements `oneloop.ports.RolloutEngine`: what is drawn depends on the seed alone."""

    version, exact = 3, False

    def update(self, version): ...

    def generate(self, prompts, sampling, seeds, finished=lambda index, completion: None):
        done = []
        for index, seed in enumerate(seeds):
            tokens = tuple(seed // 7**place % 7 + 1 for place in range(1 + seed % 5))
            stop = StopReason.LENGTH if seed % 3 == 0 else StopReason.EOS
            done.append(Completion(tokens=tokens, logprobs=(-1 / (1 + seed % 11),) * len(tokens), stop=stop, version=3))
            finished(index, done[-1])
        return done


def rollouts(world=None, failing=None, early=False, keep=None, **options):
    asked = []

    def scorer(items, step=0, told=None):
        asked.extend((item.group, item.sample) for item in items)
        if any(item.group == failing for item in items):
            raise RewardError("reward share failed: no answer")
        reward = {"measures": {"m": 1 / 3}, "extras": {"e": None}}
        return [replace(item, reward=Reward(value=float(len(item.text) % 2), **reward)) for item in items]

    prompts = [Prompt(id=str(place), text="x", tokens=(1, place % 8)) for place in range(9)]
    settings = {"prompts_per_step": 5, "group_size": 2, "seed": 0, "recorder": Memory(), "keep": keep} | options
    settings |= {} if world is None else {"world": world}
    experience = Rollouts(
        engine=Drawing(), prompts=prompts, draw=OneTurn(Drawing().generate, lambda tokens: "x" * sum(tokens)),
        scorer=scorer, sampling=Sampling(), score_early=early, **settings,
    )  # fmt: skip
    return experience, asked


@pytest.mark.parametrize("early", [False, True])
@pytest.mark.parametrize("ranks", [2, 4, 7])
def test_ranks_draw_what_one_rank_draws(ranks, early) -> None:
    """Refills included, and with more ranks than a refill has groups; each group is scored once, by one rank."""
    single, asked = rollouts(keep=MixedOutcome(), max_refills=3)
    batches = [single.batch(step) for step in range(3)]
    wanted = single.report(batches[-1])
    assert len(asked) > 3 * 10, "some groups were drawn again"

    def work(rank, world):
        mine, scored = rollouts(world, early=early, keep=MixedOutcome(), max_refills=3)
        return [mine.batch(step) for step in range(3)], mine.report(batches[-1]), scored, mine.state()

    results = on_ranks(ranks, work)
    for drawn, report, _, state in results:
        for batch, expected in zip(drawn, batches, strict=True):
            assert torch.equal(batch.tokens, expected.tokens) and torch.equal(batch.rewards, expected.rewards)
            assert torch.equal(batch.rollout_logprobs, expected.rollout_logprobs)
        assert report.trajectories == wanted.trajectories and state == single.state()
        assert {**report.scalars, "time/reward": 0} == {**wanted.scalars, "time/reward": 0}
    assert len({report.scalars["time/reward"] for _, report, _, _ in results}) == 1
    assert sorted(place for _, _, scored, _ in results for place in scored) == sorted(asked)


def test_a_reward_that_fails_on_one_rank_fails_on_all() -> None:
    def work(rank, world):
        with pytest.raises(RewardError, match="no answer") as failure:
            rollouts(world, failing=3)[0].batch(0)
        return str(failure.value)

    assert len(set(on_ranks(4, work))) == 1


def test_an_error_keeps_its_kind_and_its_notes() -> None:
    def work(rank, world):
        def fail():
            if rank == 1:
                error = ConfigError("--out x is a file")
                error.add_note("look there")
                raise error
            if rank == 2:
                raise KeyError("a bug")
            return rank

        with pytest.raises(ConfigError if rank < 2 else KeyError) as failure:
            together(world, fail)
        with pytest.raises(OneloopError, match="rank 0: OSError: no disk") if rank else pytest.raises(OSError):
            by_first(world, lambda: (_ for _ in ()).throw(OSError("no disk")))
        assert by_first(world, lambda: rank + 5) == 5
        return failure.value.__notes__ if rank < 2 else None

    assert on_ranks(3, work) == [["look there"], ["look there"], None]
    assert errors.Stopped("x", 15).exit_code == 143


def test_ranks_that_fail_in_different_words_say_the_first_one_s() -> None:
    """So that it is told once; what oneloop does not explain is kept."""

    def work(rank, world):
        def fail():
            raise ZeroDivisionError("a bug") if rank == 3 else RewardError(f"as rank {rank} saw it")

        with pytest.raises(ZeroDivisionError if rank == 3 else RewardError) as failure:
            together(world, fail)
        return str(failure.value)

    assert on_ranks(4, work) == [*["as rank 0 saw it"] * 3, "a bug"]


def test_what_all_ranks_saw_is_what_one_process_sees() -> None:
    """Bit for bit, whichever rank had a pass, and where some had none."""
    batch, models = ragged_batch(0, 3), Bigram(0)
    saws = []
    for update, mini in enumerate(batch.split(2)):
        for micro in mini.microbatches(30):
            with torch.no_grad():
                saws.append(Saw.of(update, micro, models.policy(micro)))
    wanted = Passes.gathered(saws, batch)

    def work(rank, world):
        mine = [saw for number, saw in enumerate(saws) if number % 7 % 3 == rank]
        return Passes.gathered(everyones(mine, batch.rewards.dtype, world), batch)

    for found in on_ranks(4, work):
        assert torch.equal(found.update, wanted.update)
        torch.testing.assert_close(found.logprobs, wanted.logprobs, rtol=0, atol=0, equal_nan=True)
        torch.testing.assert_close(found.scores, wanted.scores, rtol=0, atol=0, equal_nan=True)


def test_a_failed_evaluation_waits_for_the_save_on_every_rank() -> None:
    """Also where one rank alone failed, unexplained. A failure that no rank was told of cannot wait."""

    def work(rank, world):
        def fail():
            if rank == 1:
                raise KeyError("a bug")
            return {}

        saved = []
        held = Held(lambda step, algorithm: saved.append(world.collect([rank])), alone=False)
        assert held.measure(lambda step: together(world, fail), 4) == {}
        with pytest.raises(KeyError if rank == 1 else OneloopError, match="a bug") as failure:
            held(4, None)
        with pytest.raises(KeyError):
            held.measure(lambda step: {}[step], 5)
        return saved, failure.value.__notes__[-1]

    said = "the evaluation after 5 steps has no result; the steps are complete without it"
    assert on_ranks(3, work) == [([[0, 1, 2]], said)] * 3


def test_a_failed_evaluation_is_told_with_what_ends_its_step() -> None:
    def stopped(step, algorithm):
        raise errors.Stopped("stopped by signal 15", 15)

    def fail(step):
        raise RewardError("the judge is down")

    held = Held(stopped, alone=True)
    held.measure(fail, 1)
    with pytest.raises(errors.Stopped) as stop:
        held(1, None)
    assert stop.value.__notes__ == [
        "RewardError: the judge is down",
        "the evaluation after 2 steps has no result; the steps are complete without it",
    ]
