"""The loop itself: what it counts, when it stops, and that every algorithm learns a bandit through it."""

from dataclasses import replace
from functools import cache
from weakref import ref

import pytest
import torch

from oneloop.algorithms import ALGORITHMS, DAPO, DPO, GRPO, PPO, REINFORCE, SFT, Preference, Unpaired
from oneloop.batch import Batch
from oneloop.loop import train
from oneloop.objective.divergence import KL, AdaptiveKL
from oneloop.seeds import named_seed
from toy_models import Bigram, Fixed, Memory, on_ranks, ragged_batch

GOOD, LENGTH, ROWS = 5, 3, 32
"""The bandit: three actions a response; the reward is the share of token 5."""


def responses(tokens, group, logprobs=None):
    """Rows of one prompt token and three actions; reward at the last."""
    mask = torch.ones_like(tokens, dtype=torch.bool)
    mask[:, 0] = False
    rewards = torch.zeros(tokens.shape, dtype=torch.float32)
    rewards[:, -1] = (tokens[:, 1:] == GOOD).float().mean(1)
    return Batch(tokens, mask, group, rewards, torch.zeros(len(tokens), dtype=torch.bool), logprobs)


def rollouts(models):
    """Groups of eight, drawn from the policy as it is."""

    def draw(step):
        rng = torch.Generator().manual_seed(named_seed(0, "rollouts", step))
        tokens, logprobs = models.sample(ROWS, LENGTH, rng)
        return responses(tokens, torch.arange(ROWS) // 8, logprobs)

    return Fixed(draw)


def written(step, share):
    """Responses by someone else: each action is good with probability `share`, else any other token."""
    rng = torch.Generator().manual_seed(named_seed(1, "written", step))
    other = (GOOD + torch.randint(1, 8, (ROWS, LENGTH), generator=rng)) % 8
    good = torch.rand(ROWS, LENGTH, generator=rng) < share
    actions = torch.where(good, GOOD, other)
    return torch.cat([torch.zeros(ROWS, 1, dtype=torch.int64), actions], 1)


def demonstrations(step):
    batch = responses(written(step, 0.95), torch.arange(ROWS))
    return replace(batch, rewards=torch.zeros_like(batch.rewards).index_fill_(1, torch.tensor([LENGTH]), 1.0))


def pairs(step):
    """The better of two by the number of good tokens; ties are settled by making the first one good."""
    tokens = written(step, 0.4)
    counts = (tokens == GOOD).sum(1)
    first, second = slice(0, ROWS, 2), slice(1, ROWS, 2)
    tie = counts[first] == counts[second]
    tokens[first][tie] = torch.tensor([0, GOOD, GOOD, GOOD])
    tokens[second][tie & (counts[second] == LENGTH), 1] = 0
    batch = responses(tokens, torch.arange(ROWS) // 2)
    score = batch.rewards.sum(1)
    better = torch.zeros(ROWS, dtype=torch.bool)
    better[first], better[second] = score[first] > score[second], score[second] > score[first]
    rewards = torch.zeros_like(batch.rewards)
    rewards[:, -1] = better.float()
    return replace(batch, rewards=rewards)


def rated(step):
    """The same answers, each for itself: the better of two is good, the other bad."""
    return replace(pairs(step), group=torch.arange(ROWS))


@cache
def teacher():
    """A policy that knows, from demonstrations."""
    models = Bigram(1, torch.float32, learning_rate=0.03)
    train(SFT, Fixed(demonstrations), models, Memory(), steps=60, minibatch=8, max_tokens=64, seed=0)
    return models


def source(algorithm, models):
    if isinstance(algorithm, Preference | Unpaired):
        return Fixed(rated if isinstance(algorithm, Unpaired) else pairs)
    return Fixed(demonstrations) if algorithm.name == "sft" else rollouts(models)


def skill(algorithm, models):
    """Share of good tokens drawn. A reward model draws none, IPO stops at a margin and ORPO at what the chosen answers
    look like: for these the share of unseen pairs in the right order."""
    if algorithm.name in ("reward_model", "ipo", "orpo"):
        batch = algorithm.prepare(pairs(10_000), models)
        return algorithm.loss(models.policy(batch), batch, batch.size).stats["rewards/accuracies"].item()
    tokens, _ = models.sample(256, LENGTH, torch.Generator().manual_seed(5))
    return float((tokens[:, 1:] == GOOD).double().mean())


@pytest.mark.parametrize("name", ALGORITHMS)
def test_every_algorithm_learns_the_bandit(name):
    """No constant is changed: only the reference, which the KL holds on to, is the untrained policy."""
    algorithm = ALGORITHMS[name]
    reference = teacher() if name == "distill" else Bigram(1, torch.float32)
    models = Bigram(1, torch.float32, learning_rate=0.03, reference=reference)
    before, recorder = skill(algorithm, models), Memory()
    steps = 80 if name in ("a2c", "vpg") else 40  # a single pass over each batch, half of which goes to the critic
    train(algorithm, source(algorithm, models), models, recorder, steps=steps, minibatch=8, max_tokens=64, seed=0)
    after = skill(algorithm, models)
    assert before < 0.6 and after > 0.85, (before, after)
    assert len(recorder.rows) == steps and not recorder.events


def test_ipo_stops_at_its_margin_and_dpo_does_not():
    # (m/β − 1/(2β))² is 0 at m = ½, whatever β; −log σ(m) falls for ever
    ends = []
    for name in ("ipo", "dpo"):
        models = Bigram(1, torch.float32, learning_rate=0.03, reference=Bigram(1, torch.float32))
        recorder = Memory()
        train(ALGORITHMS[name], Fixed(pairs), models, recorder, steps=60, minibatch=16, max_tokens=200, seed=0)
        ends.append(sum(recorder.column("rewards/margins")[-10:]) / 10)
    assert 0.4 < ends[0] < 0.55 and ends[1] > 0.9


@pytest.mark.parametrize("name", ["grpo", "dpo"])
def test_the_bandit_is_not_learned_from_inverted_rewards(name):
    """The mutant: it is the reward that teaches."""
    algorithm = ALGORITHMS[name]
    models = Bigram(1, torch.float32, learning_rate=0.03, reference=Bigram(1, torch.float32))
    honest = source(algorithm, models).draw

    def inverted(step):
        batch = honest(step)
        last = torch.zeros_like(batch.rewards)
        last[:, -1] = 1 - batch.rewards[:, -1]
        return replace(batch, rewards=last)

    train(algorithm, Fixed(inverted), models, Memory(), steps=40, minibatch=8, max_tokens=64, seed=0)
    assert skill(algorithm, models) < 0.1


def steady(group_size=3, **changes):
    """The same ragged batch at every step."""
    return Fixed(lambda step: replace(ragged_batch(0, group_size, truncate=False), **changes))


def run(algorithm, experience=None, models=None, **arguments):
    models = models or Bigram(0, reference=Bigram(7))
    recorder = Memory()
    settings = {"steps": 3, "minibatch": 3, "max_tokens": 40, "seed": 0} | arguments
    last = train(algorithm, experience or steady(), models, recorder, **settings)
    return models, recorder, last


@pytest.mark.parametrize(("epochs", "minibatch", "updates"), [(1, 4, 1), (1, 3, 2), (1, 1, 4), (3, 3, 6), (2, 100, 2)])
def test_optimizer_steps_are_epochs_times_minibatches(epochs, minibatch, updates):
    # four groups: ⌈4/minibatch⌉ minibatches an epoch; the smaller last one is not dropped
    experience = steady()
    models, recorder, _ = run(replace(GRPO, epochs=epochs), experience, steps=2, minibatch=minibatch)
    assert models.steps == 2 * updates
    assert recorder.column("optimizer_steps") == [updates] * 2 and recorder.column("skipped_steps") == [0, 0]
    assert [step for step, _ in recorder.rows] == [0, 1] == experience.updates  # scalars and μ ← π_θ once a step


def test_a_pass_s_graph_is_gone_before_the_next_pass():
    """What a node of it keeps would be in memory beside the next pass, and small objects between large holes."""
    graphs = []

    class Mark:
        """As old as the node that holds it."""

    class Marked(torch.autograd.Function):
        @staticmethod
        def forward(ctx, x):
            ctx.mark = Mark()
            graphs.append(ref(ctx.mark))
            return x.clone()

        @staticmethod
        def backward(ctx, *gradients):
            return gradients[0]

    class Watched(Bigram):
        def policy(self, batch):
            assert not [graph for graph in graphs if graph() is not None]
            out = super().policy(batch)
            return out._replace(logprobs=Marked.apply(out.logprobs))

    run(GRPO, models=Watched(0, reference=Bigram(7)), steps=2, minibatch=2, max_tokens=14)
    assert len(graphs) > 4 and not [graph for graph in graphs if graph() is not None]


def test_each_optimizer_step_divides_by_its_own_whole_size():
    """One minibatch through the loop, cut into many microbatches, is one gradient step on the naive loss."""
    models, _, _ = run(GRPO, steps=1, minibatch=4, max_tokens=14)
    naive = Bigram(0, reference=Bigram(7))
    batch = GRPO.prepare(ragged_batch(0, 3, truncate=False), naive)
    GRPO.loss(naive.policy(batch), batch, batch.size).value.backward()
    naive.step()
    torch.testing.assert_close(models.weights(), naive.weights(), rtol=1e-9, atol=1e-9)
    other, _, _ = run(GRPO, steps=1, minibatch=2, max_tokens=14)
    assert not torch.allclose(other.weights(), naive.weights(), rtol=1e-3)


def test_early_stop_drops_the_rest_of_the_epochs():
    eager = replace(PPO, epochs=6, target_kl=None)
    free, free_log, _ = run(eager, steps=2)
    assert free.steps == 2 * 6 * 2
    strict, strict_log, _ = run(replace(eager, target_kl=0.01), steps=2)
    assert strict.steps < free.steps
    for recorder, limit in ((free_log, None), (strict_log, 0.01)):
        for count, kl in zip(recorder.column("optimizer_steps"), recorder.column("approx_kl"), strict=True):
            assert (count < 12) == (limit is not None) and kl > 0
    # the first update is on policy, so its KL is 0 and the second one happens
    assert min(strict_log.column("optimizer_steps")) >= 2
    patient, _, _ = run(replace(eager, target_kl=1e9), steps=2)
    assert torch.equal(patient.weights(), free.weights())


def test_early_stop_looks_at_each_optimizer_step_s_own_kl():
    """The step that exceeds the target is applied and counted; nothing after it is."""
    seen = []
    algorithm = replace(PPO, epochs=6, target_kl=0.01)

    class Watched(Bigram):
        def step(self):
            seen.append(None)
            return super().step()

    _, recorder, _ = run(algorithm, models=Watched(0, reference=Bigram(7)), steps=1)
    assert len(seen) == recorder.column("optimizer_steps")[0]
    means = recorder.column("approx_kl")[0]
    assert means * len(seen) > 0.01  # only the last of them was above: the sum is, and the mean of the others is not
    _, longer, _ = run(replace(algorithm, target_kl=0.05), steps=1)
    assert longer.column("optimizer_steps")[0] > len(seen)


def test_adaptive_kl_moves_in_the_log_and_in_the_returned_value():
    adaptive = AdaptiveKL(target=1e-3, horizon=60.0)  # the observed KL is far above: +0.2·12/60 = 4% a step
    start = replace(GRPO, kl=KL(0.04, at="loss", adaptive=adaptive))
    _, recorder, last = run(start)
    assert recorder.column("kl_coef") == pytest.approx([0.04 * 1.04**k for k in range(3)])
    assert last.kl.coef == pytest.approx(0.04 * 1.04**3) and start.kl.coef == 0.04
    assert replace(last, kl=start.kl) == start
    low = replace(start, kl=replace(start.kl, adaptive=AdaptiveKL(target=1e3, horizon=60.0)))
    assert run(low)[2].kl.coef == pytest.approx(0.04 * 0.96**3)
    _, fixed, same = run(GRPO)
    assert same == GRPO and fixed.column("kl_coef") == [0.04] * 3


def test_a_step_without_actions_is_skipped_and_changes_no_bit():
    algorithm = replace(DAPO, epochs=2)
    models = Bigram(0)
    run(algorithm, models=models, steps=1)  # so that the optimizer has momentum
    before, steps = models.weights(), models.steps
    masked = steady(truncated=torch.ones(12, dtype=torch.bool))
    _, recorder, _ = run(algorithm, masked, models, steps=1)
    assert torch.equal(models.weights(), before) and models.steps == steps
    assert recorder.column("skipped_steps") == [4] and recorder.column("optimizer_steps") == [0]
    # the mutant: an update with a gradient of 0 still moves the weights, by momentum
    for parameter in models.parameters():
        parameter.grad = torch.zeros_like(parameter)
    models.step()
    assert not torch.equal(models.weights(), before)


def test_one_masked_minibatch_does_not_stop_the_others():
    truncated = torch.zeros(12, dtype=torch.bool)
    truncated[:3] = True  # the whole first group
    models, recorder, _ = run(DAPO, steady(truncated=truncated), steps=1, minibatch=1)
    assert models.steps == 3 and recorder.column("skipped_steps") == [1]


NAMES = """reward loss entropy approx_kl clip/outside_band clip/gradient_zero ratio/max kl value_loss kl_coef
explained_variance grad_norm optimizer_steps skipped_steps time/rollout time/prepare time/update tokens_per_second"""


def test_scalars_measures_and_hooks_once_a_step():
    calls = []

    def measure(step):
        calls.append(("measure", step))
        return {"eval/reward": float(step)}

    def hook(step, algorithm):
        calls.append(("hook", step))
        assert algorithm.name == "ppo"

    models, recorder = Bigram(0, reference=Bigram(7)), Memory()
    train(PPO, steady(), models, recorder, steps=4, minibatch=2, max_tokens=50, seed=0, start=2,
          measures=[measure], hooks=[hook])  # fmt: skip
    assert calls == [("measure", 2), ("hook", 2), ("measure", 3), ("hook", 3)]
    assert recorder.column("eval/reward") == [2.0, 3.0] and [step for step, _ in recorder.drawn] == [2, 3]
    for _, values in recorder.rows:
        assert set(NAMES.split()) <= set(values)
        assert values["ratio/max"] >= 1.0 and 0 <= values["clip/gradient_zero"] <= values["clip/outside_band"] <= 1


def test_statistics_do_not_depend_on_microbatches():
    logs = [run(PPO, max_tokens=max_tokens)[1] for max_tokens in (14, 10**6)]
    for (_, small), (_, large) in zip(logs[0].rows, logs[1].rows, strict=True):
        for name in small:
            if not name.startswith("time/") and name != "tokens_per_second":
                assert small[name] == pytest.approx(large[name], rel=1e-5, abs=1e-9), name


def test_statistics_are_means_over_optimizer_steps():
    """With a learning rate of 0: the plain mean of what each minibatch alone says, nothing carried over."""
    still = Bigram(0, learning_rate=0.0, reference=Bigram(7))
    _, recorder, _ = run(GRPO, models=still, steps=1, minibatch=1)
    batch = GRPO.prepare(ragged_batch(0, 3, truncate=False), still)
    with torch.no_grad():
        each = [GRPO.loss(still.policy(mini), mini, mini.size).stats for mini in batch.split(1)]
    for name in ("loss", "entropy", "kl"):
        wanted = sum(stats[name].item() for stats in each) / 4
        assert recorder.column(name) == pytest.approx([wanted], rel=1e-9, abs=1e-12), name


@pytest.mark.parametrize("algorithm", [PPO, GRPO, SFT, DPO], ids=lambda a: a.name)
def test_resuming_at_a_step_is_the_same_run(algorithm):
    size = 2 if algorithm is DPO else 3
    whole, _, _ = run(algorithm, steady(size), steps=4, minibatch=2)
    first, _, _ = run(algorithm, steady(size), steps=2, minibatch=2)
    second, recorder, _ = run(algorithm, steady(size), first, start=2, steps=4, minibatch=2)
    assert torch.equal(second.weights(), whole.weights()) and [step for step, _ in recorder.rows] == [2, 3]
    other, _, _ = run(algorithm, steady(size), steps=4, minibatch=2, seed=1)
    assert not torch.equal(other.weights(), whole.weights())


def test_two_ranks_train_the_single_process_s_weights():
    """The whole loop on two threads, each with half of the passes; gradients are added up before the step."""
    batch = ragged_batch(0, 4, truncate=False)
    algorithm = replace(PPO, epochs=2, target_kl=0.5)
    single, log, _ = run(algorithm, Fixed(lambda step: batch), minibatch=3, steps=2)

    def work(rank, world):
        class Together(Bigram):
            def step(self):
                self.add_gradients(world)
                return super().step()

        models, recorder = Together(0, reference=Bigram(7)), Memory()
        train(algorithm, Fixed(lambda step: batch), models, recorder, steps=2, minibatch=3, max_tokens=40, seed=0,
              world=world)  # fmt: skip
        return models.weights(), recorder

    (one, first), (two, second) = on_ranks(2, work)
    assert torch.equal(one, two)
    torch.testing.assert_close(one, single.weights(), rtol=1e-9, atol=1e-9)
    for name in ("loss", "approx_kl", "kl", "ratio/max", "clip/outside_band", "value_loss", "optimizer_steps"):
        assert first.column(name) == second.column(name) == pytest.approx(log.column(name), rel=1e-5, abs=1e-9)


@pytest.fixture
def passes():
    """A policy that notes its forward passes: True with gradient, False without."""
    models, calls = Bigram(0), []
    forward = models.policy
    models.policy = lambda batch: calls.append(torch.is_grad_enabled()) or forward(batch)
    return models, calls


@pytest.mark.parametrize("algorithm", [REINFORCE, replace(GRPO, kl=None), GRPO, ALGORITHMS["dr_grpo"]], ids=str)
def test_one_update_needs_no_old_policy(passes, algorithm):
    """With a single optimizer step a batch, π_old is the policy of that step's own forward pass."""
    models, calls = passes
    models.frozen = [Bigram(0)]  # the reference's passes are not the policy's
    run(algorithm, steady(), models, steps=1, minibatch=4, max_tokens=10**6)
    assert calls == [True]


def test_several_updates_need_the_old_policy_once(passes):
    models, calls = passes
    run(replace(GRPO, kl=None), steady(), models, steps=1, minibatch=2, max_tokens=10**6)
    assert calls == [False, True, True]
    calls.clear()
    run(replace(GRPO, kl=None, epochs=2), steady(), models, steps=1, minibatch=4, max_tokens=10**6)
    assert calls == [False, True, True]


def test_a_kl_in_the_reward_needs_the_old_policy_even_so(passes):
    models, calls = passes
    models.frozen = [Bigram(0)]
    run(ALGORITHMS["rloo"], steady(), models, steps=1, minibatch=4, max_tokens=10**6)
    assert calls == [False, True]


def test_an_old_policy_that_is_known_is_not_computed_again(passes):
    """Where the sampler's log-probs are the trainer's, they come with the batch."""
    models, calls = passes
    batch = steady().batch(0)
    known = replace(batch, old_logprobs=Bigram(0).policy(batch).logprobs.detach())
    recomputed, other = Bigram(0), Bigram(0)
    run(replace(GRPO, kl=None), Fixed(lambda step: known), models, steps=1, minibatch=2, max_tokens=10**6)
    assert calls == [True, True]
    run(replace(GRPO, kl=None), Fixed(lambda step: batch), recomputed, steps=1, minibatch=2, max_tokens=10**6)
    assert torch.equal(models.weights(), recomputed.weights())
    run(replace(GRPO, kl=None), Fixed(lambda step: known), other, steps=1, minibatch=4, max_tokens=10**6)
    first = replace(known, old_logprobs=known.old_logprobs + 1)  # one update does not even look at it
    again = Bigram(0)
    run(replace(GRPO, kl=None), Fixed(lambda step: first), again, steps=1, minibatch=4, max_tokens=10**6)
    assert torch.equal(other.weights(), again.weights())


def test_one_update_is_the_same_update_with_or_without_the_old_pass():
    """The gradient with π_old = stop-gradient(π_θ) is bitwise that with π_old from a pass of its own."""
    algorithm, batch = replace(GRPO, kl=None), steady().batch(0)
    models = Bigram(0)
    gradients = []
    for one_update in (False, True):
        prepared = algorithm.prepare(batch, models, one_update=one_update)
        assert (prepared.old_logprobs is None) == one_update
        algorithm.loss(models.policy(prepared), prepared, prepared.size).value.backward()
        gradients.append(models.gradient())
    assert torch.equal(*gradients)
