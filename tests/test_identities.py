"""What must not change the gradient, and which methods are the same method.

Each identity has a mutant beside it: a plausible mistake for which the same comparison fails.
"""

from dataclasses import replace
from functools import partial
from math import log

import pytest
import torch
from torch.nn import functional as F

from oneloop.algorithms import (
    ALGORITHMS,
    CISPO,
    DAPO,
    DPO,
    DR_GRPO,
    GRPO,
    GSPO,
    KTO,
    PPO,
    REINFORCE,
    REINFORCE_PP,
    REWARD_MODEL,
    RLOO,
    SFT,
)  # fmt: skip
from oneloop.loop import dealt, minibatches
from oneloop.objective.advantage import GAE
from oneloop.objective.aggregate import TokenMean
from oneloop.objective.correction import TruncatedImportance
from oneloop.objective.divergence import KL
from oneloop.objective.preference import Hinge, ImplicitReward, LogSigmoid
from oneloop.objective.surrogate import ClippedRatio
from toy_models import Bigram, gradient, on_ranks, ragged_batch, rows_for

VALUES = [
    *ALGORITHMS.values(),
    replace(PPO, name="ppo, entropy and correction", entropy=0.01, correction=TruncatedImportance(1.2)),
    replace(GSPO, name="gspo, wide band", surrogate=ClippedRatio(0.05, 0.08, level="sequence")),
    replace(DPO, name="dpo, by length", reward=ImplicitReward(0.5, length_normalized=True), link=LogSigmoid(0.1)),
    replace(DPO, name="dpo, hinge and sft", link=Hinge(), sft=0.3),
    replace(REWARD_MODEL, name="reward model, centred", center=0.2),
    replace(KTO, name="kto, weights", reward=ImplicitReward(0.5), desirable=0.6, undesirable=1.7),
]
every_algorithm = pytest.mark.parametrize("algorithm", VALUES, ids=lambda a: a.name)
DTYPES = {torch.float64: {"rtol": 1e-9, "atol": 1e-11}, torch.float32: {"rtol": 1e-5, "atol": 1e-6}}


def setting(algorithm, dtype=torch.float64, seed=0):
    """Models that left π_old behind, and the batch prepared before they did."""
    models = Bigram(seed, dtype, reference=Bigram(7, dtype))
    batch = algorithm.prepare(rows_for(algorithm, seed, dtype=dtype), models)
    models.nudge()
    return models, batch


def far(a, b):
    """Whether two gradients differ by more than one percent."""
    return float((a - b).norm()) > 0.01 * float(b.norm()) > 0


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
@every_algorithm
def test_microbatches_do_not_change_the_gradient(algorithm, dtype):
    models, batch = setting(algorithm, dtype)
    naive = gradient(algorithm, models, [batch], batch.size)
    assert float(naive.norm()) > 1e-6
    for max_tokens in (1, 14, 30, 75, 10**6):
        pieces = list(batch.microbatches(max_tokens))
        torch.testing.assert_close(gradient(algorithm, models, pieces, batch.size), naive, **DTYPES[dtype])


@every_algorithm
def test_a_mean_of_means_would_show(algorithm):
    """The mutant: each microbatch divides by its own count, and the gradients are averaged."""
    models, batch = setting(algorithm)
    naive = gradient(algorithm, models, [batch], batch.size)
    pieces = [batch.rows(torch.arange(start, stop)) for start, stop in ((0, 2), (2, 6), (6, 12))]
    mutant = torch.zeros_like(naive)
    for piece in pieces:
        mutant += gradient(algorithm, models, [piece], piece.size) / len(pieces)
    assert far(mutant, naive)


def padded(batch, columns, junk):
    """More columns on the right: other tokens, and junk wherever nothing may look."""
    rng = torch.Generator().manual_seed(1)
    changes = {}
    for name, value in batch._tensors():
        if value.dim() == 2 and name != "mask":
            new = torch.randint(8, (len(batch), columns), generator=rng).to(value.dtype)
            if value.is_floating_point():
                value, new = torch.where(batch.mask, value, junk), torch.full_like(new, junk)
            changes[name] = torch.cat([value, new], 1)
    mask = torch.cat([batch.mask, torch.zeros(len(batch), columns, dtype=torch.bool)], 1)
    return replace(batch, mask=mask, **changes)


@pytest.mark.parametrize("junk", [1e6, float("nan")])
@every_algorithm
def test_padding_and_masked_content_do_not_change_the_gradient(algorithm, junk):
    models, batch = setting(algorithm)
    naive = gradient(algorithm, models, [batch], batch.size)
    wide = padded(batch, 5, junk)
    torch.testing.assert_close(gradient(algorithm, models, [wide], wide.size), naive, rtol=1e-9, atol=1e-11)
    # the same before the step is prepared
    fresh = Bigram(0, reference=Bigram(7))
    again = algorithm.prepare(padded(rows_for(algorithm), 5, junk), fresh)
    torch.testing.assert_close(gradient(algorithm, models, [again], again.size), naive, rtol=1e-9, atol=1e-11)
    # the mutant: a mean over slots instead of actions
    slots = batch.size._replace(tokens=wide.mask.numel(), sequences=batch.size.sequences + 3)
    assert far(gradient(algorithm, models, [wide], slots), naive)


@every_algorithm
def test_row_order_does_not_change_the_gradient(algorithm):
    """Rows arrive in any order, then are shuffled, split and packed: every row keeps its own reward."""
    models, batch = setting(algorithm)
    naive = gradient(algorithm, models, [batch], batch.size)
    fresh = Bigram(0, reference=Bigram(7))
    plain = rows_for(algorithm)
    for seed in range(3):
        rng = torch.Generator().manual_seed(seed)
        arrived = plain.rows(torch.randperm(len(plain), generator=rng))
        again = algorithm.prepare(arrived, fresh).shuffle(rng)
        pieces = [micro for mini in again.split(2) for micro in mini.microbatches(40)]
        torch.testing.assert_close(gradient(algorithm, models, pieces, again.size), naive, rtol=1e-9, atol=1e-11)
    order = torch.randperm(len(plain), generator=torch.Generator().manual_seed(0))
    mutant = replace(plain, tokens=plain.tokens[order], lengths=plain.lengths[order], mask=plain.mask[order])
    mutant = algorithm.prepare(replace(mutant, rewards=mutant.mask * plain.rewards.sum(1, keepdim=True)), fresh)
    assert far(gradient(algorithm, models, [mutant], mutant.size), naive)


@pytest.mark.parametrize("ranks", [1, 2, 4])
@every_algorithm
def test_ranks_do_not_change_the_gradient(algorithm, ranks):
    """Passes are dealt to ranks, whole step in hand; the sum of their gradients is the single process's."""
    models, batch = setting(algorithm)
    naive = gradient(algorithm, models, [batch], batch.size)
    pieces = len(list(batch.microbatches(30)))

    def work(rank, world, every=False):
        moved = Bigram(0, reference=Bigram(7))
        moved.nudge()
        for micro, mine in dealt(world, batch.microbatches(30)):
            algorithm.loss(moved.policy(micro), micro, batch.size).counted(mine or every).value.backward()
        return moved.gradient()

    total = sum(on_ranks(ranks, work))
    torch.testing.assert_close(total, naive, rtol=1e-9, atol=1e-11)
    if ranks > 1:  # the mutants: gradients averaged over ranks, as data parallelism does for means, and an idle pass
        assert far(total / ranks, naive)
        assert not pieces % ranks or far(sum(on_ranks(ranks, partial(work, every=True))), naive)


@pytest.mark.parametrize("algorithm", [PPO, REINFORCE_PP], ids=lambda a: a.name)
def test_whitening_each_rank_alone_would_show(algorithm):
    models, batch = setting(algorithm)
    naive = gradient(algorithm, models, [batch], batch.size)
    fresh = Bigram(0, reference=Bigram(7))
    plain = ragged_batch(0, 3)
    pieces = [algorithm.prepare(half, fresh) for half in plain.split(2)]
    assert far(gradient(algorithm, models, pieces, batch.size), naive)


def test_sft_is_cross_entropy():
    models = Bigram(0)
    batch = SFT.prepare(ragged_batch(0, 1), models)
    ours = gradient(SFT, models, [batch], batch.size)
    after = models.states(batch.tokens)
    before = torch.cat([torch.zeros_like(after[:, :1]), after[:, :-1]], 1)
    logits = before @ models.head.T
    loss = F.cross_entropy(logits[batch.mask], batch.tokens[batch.mask])
    torch.testing.assert_close(SFT.loss(models.policy(batch), batch, batch.size).value, loss, rtol=1e-7, atol=0)
    loss.backward()
    wanted = models.gradient()
    torch.testing.assert_close(ours, wanted, rtol=1e-6, atol=1e-9)  # 1/tokens is rounded to float32
    itself = models.states(batch.tokens) @ models.head.T  # the mutant: no shift, each token predicted from itself
    F.cross_entropy(itself[batch.mask], batch.tokens[batch.mask]).backward()
    assert far(models.gradient(), wanted)


@pytest.mark.parametrize("link", [LogSigmoid(), LogSigmoid(0.2)], ids=repr)
def test_dpo_gradient_is_a_policy_gradient(link):
    """∇DPO = REINFORCE with Â = ±β(σ(r̂_l − r̂_w) − s) for each token of a pair, and a mean over pairs."""
    algorithm = replace(DPO, link=link)
    models, batch = setting(algorithm)
    wanted = gradient(algorithm, models, [batch], batch.size)
    with torch.no_grad():
        rewards = algorithm.reward(models.policy(batch), batch)
    signs = {}
    for sign in (1.0, -1.0):  # −1: the mutant with the pair the wrong way round
        advantages = torch.zeros_like(batch.rewards)
        for winner in range(0, len(batch), 2):
            loser = winner + 1
            strength = 0.1 * (torch.sigmoid(rewards[loser] - rewards[winner]) - link.label_smoothing)
            advantages[winner], advantages[loser] = sign * strength, -sign * strength
        filled = replace(batch, advantages=torch.where(batch.mask, advantages, 0.0))
        out = models.policy(filled)
        loss, _ = REINFORCE.surrogate(out.logprobs, out.logprobs.detach(), filled.advantages, filled.mask)
        (loss.sum() / (len(batch) / 2)).backward()
        signs[sign] = models.gradient()
    torch.testing.assert_close(signs[1.0], wanted, rtol=1e-9, atol=1e-12)
    assert far(signs[-1.0], wanted)


def test_gae_with_lambda_one_is_reinforce_with_the_values_as_baseline():
    """The actor's part of PPO at ratio 1, λ = γ = 1, unwhitened, no KL: −(R − V)·log π, summed and divided."""
    algorithm = replace(PPO, advantage=GAE(1.0, 1.0, whiten=False), kl=None)
    models = Bigram(0)
    batch = algorithm.prepare(ragged_batch(0, 3, truncate=False), models)
    returns = torch.where(batch.mask, batch.rewards, 0.0).sum(1, keepdim=True)
    advantage = torch.where(batch.mask, returns - batch.values, 0.0)
    torch.testing.assert_close(batch.advantages, advantage, rtol=1e-12, atol=1e-12)
    usual = replace(algorithm, advantage=GAE()).prepare(batch, models).advantages
    assert not torch.allclose(usual, advantage, rtol=0.1)


def test_symmetric_dapo_without_its_additions_is_grpo_with_token_mean_and_no_kl():
    stripped = replace(DAPO, surrogate=ClippedRatio(0.2, 0.2), keep=None, shape=None, drop=None)
    grpo = replace(GRPO, aggregate=TokenMean(), kl=None)
    assert replace(stripped, name="grpo") == grpo
    models, batch = setting(grpo)
    ours = gradient(stripped, models, [batch], batch.size)
    assert torch.equal(ours, gradient(grpo, models, [batch], batch.size))
    assert far(gradient(GRPO, models, [batch], batch.size), ours)
    wide = setting(DAPO)
    assert far(gradient(DAPO, wide[0], [wide[1]], wide[1].size), ours)


@pytest.mark.parametrize("algorithm", [GRPO, DR_GRPO, GSPO, CISPO, DAPO], ids=lambda a: a.name)
def test_on_policy_every_ratio_method_is_reinforce_with_its_advantage(algorithm):
    """At step 0, ratio 1 and π_ref = π_θ: the loss's gradient is Σ w·(−Â)∇log π."""
    models = Bigram(0)
    batch = algorithm.prepare(ragged_batch(0, 3), models)
    loss = algorithm.loss(models.policy(batch), batch, batch.size)
    assert float(loss.stats["ratio/max"]) == 1.0
    assert float(loss.stats["clip/outside_band"]) == float(loss.stats["clip/gradient_zero"]) == 0.0
    assert abs(float(loss.stats["approx_kl"])) == 0.0 and float(loss.stats.get("kl", 0.0)) == 0.0
    ours = gradient(algorithm, models, [batch], batch.size)
    plain = replace(REINFORCE, aggregate=algorithm.aggregate)
    torch.testing.assert_close(ours, gradient(plain, models, [batch], batch.size), rtol=1e-9, atol=1e-12)
    models.nudge()  # the mutant: one update later they part
    moved = gradient(algorithm, models, [batch], batch.size)
    assert far(moved, gradient(plain, models, [batch], batch.size))


@pytest.mark.parametrize("name", ["ppo", "rloo", "reinforce_pp", "grpo"])
def test_at_step_zero_the_policy_is_the_reference(name):
    algorithm, models = ALGORITHMS[name], Bigram(0)
    batch = algorithm.prepare(ragged_batch(0, 3), models)
    assert torch.equal(batch.old_logprobs[batch.mask], batch.ref_logprobs[batch.mask])
    stats = algorithm.loss(models.policy(batch), batch, batch.size).stats
    assert float(stats["kl"]) == 0.0
    strong = replace(algorithm, kl=replace(algorithm.kl, coef=50.0))
    same = gradient(algorithm, models, [batch], batch.size)
    again = strong.prepare(ragged_batch(0, 3), models)
    torch.testing.assert_close(gradient(strong, models, [again], again.size), same, rtol=1e-9, atol=1e-12)
    models.nudge()
    other = algorithm.prepare(ragged_batch(0, 3), Bigram(0, reference=models))
    assert float(algorithm.loss(Bigram(0).policy(other), other, other.size).stats["kl"]) != 0.0


def test_at_step_zero_dpo_loses_ln_two():
    models = Bigram(0)
    batch = DPO.prepare(ragged_batch(0, 2), models)
    assert DPO.loss(models.policy(batch), batch, batch.size).value.item() == pytest.approx(log(2), rel=1e-12)
    models.nudge()
    assert abs(DPO.loss(models.policy(batch), batch, batch.size).value.item() - log(2)) > 1e-4


def test_rloo_has_no_bias_from_a_common_reward():
    """A constant added to every reward of a group changes nothing; without a baseline it does."""
    models, plain = Bigram(0), ragged_batch(0, 3)
    ends = plain.rewards != 0
    shifted = replace(plain, rewards=plain.rewards + 5.0 * ends)
    for algorithm, changes in ((replace(RLOO, kl=None), False), (REINFORCE, True)):
        one, two = (algorithm.prepare(b, models) for b in (plain, shifted))
        a, b = (gradient(algorithm, models, [x], x.size) for x in (one, two))
        assert far(a, b) == changes


def test_a_reward_model_learns_from_the_difference_alone():
    models, batch = setting(REWARD_MODEL)
    out = models.policy(batch)
    base = REWARD_MODEL.loss(out, batch, batch.size).value
    moved = REWARD_MODEL.loss(out._replace(scores=out.scores + 3.0), batch, batch.size).value
    torch.testing.assert_close(moved, base, rtol=1e-12, atol=0)
    assert not torch.allclose(REWARD_MODEL.loss(out._replace(scores=2 * out.scores), batch, batch.size).value, base)


def test_statistics_add_up_over_microbatches_and_ranks():
    algorithm = replace(PPO, kl=KL(0.1, at="loss"))
    models, batch = setting(algorithm)
    whole = algorithm.loss(models.policy(batch), batch, batch.size).stats
    pieces = [algorithm.loss(models.policy(m), m, batch.size).stats for m in batch.microbatches(30)]
    for name, value in whole.items():
        parts = torch.stack([piece[name] for piece in pieces])
        together = parts.max() if name.endswith("/max") else parts.sum()
        torch.testing.assert_close(together, value, rtol=1e-5, atol=0)  # fractions are float32
    assert 0 < float(whole["clip/gradient_zero"]) < float(whole["clip/outside_band"]) < 1


def test_the_order_of_groups_depends_on_seed_and_step_alone():
    batch = ragged_batch(0, 1)
    orders = [[mini.group.tolist() for mini in minibatches(batch, 2, 5, seed, step)] for seed, step in
              ((0, 3), (0, 3), (0, 4), (1, 3))]  # fmt: skip
    assert orders[0] == orders[1] and orders[0] not in orders[2:]
    assert [len(groups) for groups in orders[0]] == [5, 5, 2] * 2
    assert orders[0][:3] != orders[0][3:]  # each epoch has its own
