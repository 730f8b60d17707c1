"""The algorithms as values: their constants, what they need, what they refuse, and one mask everywhere."""

from dataclasses import fields, replace
from math import isnan

import pytest
import torch

from oneloop.algorithms import (
    ALGORITHMS,
    DAPO,
    DPO,
    GRPO,
    PPO,
    REWARD_MODEL,
    RLOO,
    TRPO,
    Algorithm,
    Critic,
    PolicyGradient,
    TrustRegion,
)
from oneloop.batch import PolicyOutput, Size
from oneloop.errors import ConfigError
from oneloop.objective.advantage import GAE, BatchWhitened, GroupRelative, LeaveOneOut, NoBaseline
from oneloop.objective.aggregate import FixedLength, SequenceMean, TokenMean
from oneloop.objective.correction import TruncatedImportance
from oneloop.objective.divergence import KL, AdaptiveKL
from oneloop.objective.preference import ImplicitReward, LogOdds, LogSigmoid, RewardHead, SquaredMargin
from oneloop.objective.select import MixedOutcome, OverlongFilter
from oneloop.objective.shaping import OverlongPenalty
from oneloop.objective.surrogate import ClippedRatio, ClippedWeight, Ratio, ScoreFunction
from toy_models import Bigram, ragged_batch

NAMES = (
    "ppo grpo dapo dr_grpo rloo reinforce reinforce_pp gspo cispo sft dpo ipo reward_model simpo orpo kto distill "
    "trpo npg a2c vpg"
)
PREFERENCES = ("dpo", "ipo", "reward_model", "simpo", "orpo", "kto")


def test_keys_are_the_contract_s_and_the_names():
    assert list(ALGORITHMS) == NAMES.split()
    assert all(name == value.name and isinstance(value, Algorithm) for name, value in ALGORITHMS.items())


NEEDS = {
    "ppo": {"reference", "values"},
    "grpo": {"reference"},
    "rloo": {"reference"},
    "reinforce_pp": {"reference"},
    "dpo": {"reference"},
    "ipo": {"reference"},
    "kto": {"reference"},
    "distill": {"reference"},
    "trpo": {"reference", "values"},
    "npg": {"reference", "values"},
    "a2c": {"reference", "values"},
    "vpg": {"values"},
}


@pytest.mark.parametrize("name", NAMES.split())
def test_needs(name):
    assert ALGORITHMS[name].needs == NEEDS.get(name, set())


def test_needs_follow_the_pieces():
    assert replace(PPO, kl=None).needs == {"values"}
    assert replace(GRPO, kl=KL(0.0, at="loss")).needs == set()  # a KL that can never count
    assert replace(GRPO, kl=KL(0.0, at="loss", adaptive=AdaptiveKL(0.1, 10.0))).needs == {"reference"}
    assert replace(DPO, reward=RewardHead()).needs == set()


# advantage, surrogate, aggregate, KL, epochs
CONSTANTS = {
    "ppo": (GAE(1.0, 0.95, True), ClippedRatio(0.2, 0.2), TokenMean(), KL(0.05, at="reward", estimator="k1"), 4),
    "grpo": (GroupRelative("std", 0, 1e-6), ClippedRatio(0.2, 0.2), SequenceMean(), KL(0.04, "loss", "k3"), 1),
    "dapo": (GroupRelative("std", 0, 1e-6), ClippedRatio(0.2, 0.28), TokenMean(), None, 1),
    "dr_grpo": (GroupRelative("none"), ClippedRatio(0.2, 0.2), FixedLength(3000), None, 1),
    "rloo": (LeaveOneOut(), ScoreFunction(), TokenMean(), KL(0.05, at="reward", estimator="k1"), 1),
    "reinforce": (NoBaseline(), ScoreFunction(), TokenMean(), None, 1),
    "reinforce_pp": (BatchWhitened(1.0), ClippedRatio(0.2, 0.2), TokenMean(), KL(0.01, "reward", "k1"), 1),
    "gspo": (GroupRelative(), ClippedRatio(3e-4, 4e-4, level="sequence"), SequenceMean(), None, 1),
    "cispo": (GroupRelative(), ClippedWeight(low=None, high=4.0), TokenMean(), None, 1),
    "sft": (NoBaseline(), ScoreFunction(), TokenMean(), None, 1),
    "distill": (NoBaseline(gamma=0.0), ScoreFunction(), TokenMean(), KL(1.0, at="reward", estimator="k1"), 1),
    "trpo": (GAE(1.0, 0.95, True), Ratio(), TokenMean(), KL(0.05, at="reward", estimator="k1"), 1),
    "npg": (GAE(1.0, 0.95, True), Ratio(), TokenMean(), KL(0.05, at="reward", estimator="k1"), 1),
    "a2c": (GAE(1.0, 0.95, True), ScoreFunction(), TokenMean(), KL(0.05, at="reward", estimator="k1"), 1),
    "vpg": (GAE(1.0, 1.0, False), ScoreFunction(), TokenMean(), None, 1),
}


@pytest.mark.parametrize("name", CONSTANTS)
def test_constants(name):
    value = ALGORITHMS[name]
    assert (value.advantage, value.surrogate, value.aggregate, value.kl, value.epochs) == CONSTANTS[name]
    assert value.entropy == 0.0 and value.correction is None
    unclipped = Critic(coef=0.5, clip=None)
    critics = {"ppo": Critic(coef=0.5, clip=0.2)} | dict.fromkeys(("trpo", "npg", "a2c", "vpg"), unclipped)
    assert value.critic == critics.get(name)
    regions = {"trpo": TrustRegion(0.01, 0.1, 10, 10, 0.8, 10), "npg": TrustRegion(backtracks=None)}
    assert value.region == regions.get(name)
    additions = (MixedOutcome(), OverlongPenalty(20480, 4096), OverlongFilter())
    assert (value.keep, value.shape, value.drop) == (additions if name == "dapo" else (None, None, None))


def test_preference_constants():
    assert (ALGORITHMS["dpo"].reward, ALGORITHMS["dpo"].link) == (ImplicitReward(0.1), LogSigmoid())
    assert (ALGORITHMS["ipo"].reward, ALGORITHMS["ipo"].link) == (ImplicitReward(0.1), SquaredMargin())
    assert (REWARD_MODEL.reward, REWARD_MODEL.link) == (RewardHead(), LogSigmoid())
    simpo, orpo, kto = (ALGORITHMS[name] for name in ("simpo", "orpo", "kto"))
    assert simpo.reward == ImplicitReward(beta=2.0, length_normalized=True, reference=False)
    assert simpo.link == LogSigmoid(margin=1.0)
    assert (orpo.reward, orpo.link, orpo.weight, orpo.sft) == (LogOdds(), LogSigmoid(), 0.1, 1.0)
    assert (kto.reward, kto.desirable, kto.undesirable) == (ImplicitReward(0.1), 1.0, 1.0)
    assert all((a.weight, a.sft, a.center) == (1, 0, 0) for a in (DPO, ALGORITHMS["ipo"], REWARD_MODEL, simpo))
    assert all(ALGORITHMS[name].epochs == 1 for name in PREFERENCES)


def test_every_piece_prints_its_formula():
    for value in ALGORITHMS.values():
        for field in fields(value):
            piece = getattr(value, field.name)
            if hasattr(type(piece), "__dataclass_fields__"):
                assert piece.formula.strip(), (value.name, field.name)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"advantage": GAE()}, "needs a critic"),
        ({"critic": Critic()}, "never reads the critic's values"),
        ({"epochs": 0}, "at least once"),
    ],
)
def test_impossible_combinations_are_refused(changes, message):
    with pytest.raises(ConfigError, match=message):
        replace(GRPO, **changes)


def test_a_trust_region_is_around_the_policy_that_drew_the_batch():
    with pytest.raises(ConfigError, match="trpo: epochs is 2, and each would have a trust region of its own"):
        replace(TRPO, epochs=2)


@pytest.mark.parametrize(
    "changes",
    [
        {"max_kl": 0.0},
        {"damping": -0.1},
        {"cg_iterations": 0},
        {"backtracks": -1},
        {"shrink": 1.0},
        {"critic_steps": 0},
    ],
    ids=str,
)
def test_impossible_trust_regions_are_refused(changes):
    ((name, value),) = changes.items()
    with pytest.raises(ConfigError, match=rf"TrustRegion\({name}={value}\): wanted"):
        TrustRegion(**changes)


def test_values_are_frozen_and_compare_by_content():
    with pytest.raises(AttributeError):
        PPO.epochs = 2  # type: ignore[misc]
    assert replace(PPO) == PPO and hash(PPO) == hash(replace(PPO)) and replace(PPO, epochs=2) != PPO


def test_loss_without_prepare_says_so():
    models, batch = Bigram(0), ragged_batch(0)
    with pytest.raises(ValueError, match="call prepare"):
        GRPO.loss(models.policy(batch), batch, batch.size)
    pairs = ragged_batch(0, 2)
    with pytest.raises(ValueError, match=r"call algorithm\.prepare"):
        DPO.loss(models.policy(pairs), pairs, pairs.size)


def without(field):
    """A model whose output lacks one field."""
    models = Bigram(0)
    forward = models.policy
    models.policy = lambda batch: forward(batch)._replace(**{field: None})
    return models


def test_a_truncated_row_needs_its_final_value():
    with pytest.raises(ValueError, match="final_values"):
        PPO.prepare(ragged_batch(0), without("final_values"))
    assert PPO.prepare(ragged_batch(0, truncate=False), without("final_values")).returns is not None
    with pytest.raises(ValueError, match="GAE needs values"):
        PPO.prepare(ragged_batch(0), without("values"))


def test_prepare_fills_what_each_method_reads_and_nothing_with_gradient():
    for name, value in ALGORITHMS.items():
        models = Bigram(0, reference=Bigram(7))
        batch = value.prepare(ragged_batch(0, 1) if name == "kto" else ragged_batch(0, 2), models)
        assert (batch.ref_logprobs is not None) == ("reference" in value.needs)
        assert (batch.values is not None) == (batch.returns is not None) == ("values" in value.needs)
        assert (batch.advantages is not None) == (name not in PREFERENCES)
        assert not any(tensor.requires_grad for _, tensor in batch._tensors())
        if batch.advantages is not None:
            assert bool((batch.advantages[~batch.mask] == 0).all())


def test_truncated_rows_bootstrap_and_terminated_ones_do_not():
    models, batch = Bigram(0), ragged_batch(0)
    plain = replace(PPO, kl=None, advantage=GAE(1.0, 1.0, whiten=False))
    prepared = plain.prepare(batch, models)
    with torch.no_grad():
        final = models.policy(batch).final_values
    score = torch.where(batch.mask, batch.rewards, 0.0).sum(1)
    for i in range(len(batch)):
        wanted = score[i] + (final[i] if batch.truncated[i] else 0.0)  # γ = λ = 1: every return is the row's
        torch.testing.assert_close(prepared.returns[i][batch.mask[i]], wanted.expand(int(batch.mask[i].sum())))
    assert int(batch.truncated.sum()) == 2


def gradient(algorithm, models, batch, size):
    algorithm.loss(models.policy(batch), batch, size).value.backward()
    return models.gradient()


@pytest.mark.parametrize("aggregate", [TokenMean(), SequenceMean(), FixedLength(10)], ids=repr)
@pytest.mark.parametrize("base", [GRPO, PPO], ids=lambda a: a.name)
def test_half_truncated_numerator_and_denominator_use_one_mask(base, aggregate):
    """Filtered rows leave the loss and its divisor: the gradient is that of the other rows alone."""
    algorithm = replace(base, drop=OverlongFilter(), aggregate=aggregate)
    models = Bigram(0, reference=Bigram(7))
    half = replace(ragged_batch(0), truncated=torch.arange(12) % 2 == 0)
    batch = algorithm.prepare(half, models)
    actions = int(half.mask[1::2].sum())
    assert batch.size == Size(actions, 6)
    full = replace(algorithm, drop=None).prepare(half, models)
    assert torch.equal(full.advantages[1::2], batch.advantages[1::2])  # still in the baseline of the others
    models.nudge()
    rest = full.rows(torch.arange(1, 12, 2))
    ours = gradient(algorithm, models, batch, batch.size)
    torch.testing.assert_close(ours, gradient(algorithm, models, rest, rest.size), rtol=1e-9, atol=1e-12)
    mutant = gradient(algorithm, models, batch, half.size)  # the unfiltered count below
    assert float((mutant - ours).norm()) > 0.1 * float(ours.norm())


@pytest.mark.parametrize("name", [name for name in NAMES.split() if name not in PREFERENCES])
def test_all_truncated_is_finite_and_zero(name):
    algorithm = replace(ALGORITHMS[name], drop=OverlongFilter())
    models = Bigram(0)
    batch = algorithm.prepare(replace(ragged_batch(0), truncated=torch.ones(12, dtype=torch.bool)), models)
    assert batch.size == Size(0, 0)
    loss = algorithm.loss(models.policy(batch), batch, batch.size)
    loss.value.backward()
    assert loss.value.item() == 0.0 and float(models.gradient().abs().max()) == 0.0
    assert all(bool(stat.isfinite()) for stat in loss.stats.values())
    facts = algorithm.observe(batch)
    assert all(not isnan(value) for fact, value in facts.items() if fact != "explained_variance")


@pytest.mark.parametrize("name", [name for name in NAMES.split() if name not in PREFERENCES])
def test_a_row_without_a_score_teaches_nothing(name):
    """One NaN reward: advantages, critic, KL and with them the gradient are as if the row were absent."""
    algorithm = ALGORITHMS[name]
    models = Bigram(0, reference=Bigram(7))
    plain = ragged_batch(0, truncate=False)
    rewards = plain.rewards.clone()
    rewards[4, int(plain.lengths[4]) - 1] = torch.nan
    others = torch.tensor([i for i in range(12) if i != 4])
    batch = algorithm.prepare(replace(plain, rewards=rewards), models)
    alone = algorithm.prepare(plain.rows(others), models)
    assert torch.equal(batch.advantages[others], alone.advantages) and batch.size == alone.size
    models.nudge()
    ours, wanted = gradient(algorithm, models, batch, batch.size), gradient(algorithm, models, alone, alone.size)
    torch.testing.assert_close(ours, wanted, rtol=1e-9, atol=1e-12)
    zero = algorithm.prepare(replace(plain, rewards=rewards.nan_to_num(0.0)), models)  # the mutant: None read as 0
    assert not torch.allclose(gradient(algorithm, models, zero, zero.size), wanted, rtol=1e-3)


@pytest.mark.parametrize("jump", [89.0, -89.0])
@pytest.mark.parametrize("name", NAMES.split())
def test_a_huge_log_ratio_keeps_loss_and_gradient_finite(name, jump):
    """Against π_old, π_ref and μ at once, in float32, on a masked and on a live slot."""
    algorithm = ALGORITHMS[name]
    if name not in PREFERENCES:
        algorithm = replace(algorithm, correction=TruncatedImportance(2.0))
    models = Bigram(0, torch.float32)
    batch = algorithm.prepare(ragged_batch(0, 1 if name == "kto" else 2, dtype=torch.float32), models)
    out = models.policy(batch)
    live = int(batch.mask[0].int().argmax())
    dead = int(batch.lengths[1]) if int(batch.lengths[1]) < batch.mask.shape[1] else 0
    assert not batch.mask[1, dead]
    moved = torch.zeros_like(out.logprobs)
    moved[0, live] = moved[1, dead] = jump
    logprobs = (out.logprobs.detach() + moved).requires_grad_()
    loss = algorithm.loss(PolicyOutput(logprobs, *(x.detach() for x in out[1:])), batch, batch.size)
    assert bool(loss.value.isfinite()) and all(bool(stat.isfinite()) for stat in loss.stats.values())
    if name != "reward_model":
        loss.value.backward()
        assert bool(logprobs.grad.isfinite().all()) and float(logprobs.grad[1, dead]) == 0.0


def test_observed_facts():
    models, batch = Bigram(0, reference=Bigram(7)), ragged_batch(0)
    prepared = PPO.prepare(batch, models)
    facts = PPO.observe(prepared)
    assert facts["kl_coef"] == 0.05
    stats = PPO.loss(models.policy(prepared), prepared, prepared.size).stats
    gap = (prepared.old_logprobs - batch.rollout_logprobs)[batch.mask].abs()
    assert float(stats["rollout/logprob_gap"]) == pytest.approx(float(gap.mean()))
    assert float(stats["rollout/logprob_gap/max"]) == pytest.approx(float(gap.max()))
    values, returns = prepared.values[batch.mask], prepared.returns[batch.mask]
    wanted = 1 - float((returns - values).var(correction=0) / returns.var(correction=0))
    assert facts["explained_variance"] == pytest.approx(wanted, rel=1e-5)
    assert DPO.observe(batch) == {} and not DPO.too_far({"approx_kl": 9.0}) and DPO.adapted(1.0, 1) is DPO


def test_sequence_level_clip_fractions_agree_on_the_ratio():
    """GSPO's ratio is the row's: a flat token lies in a row outside the band, and never the other way round."""
    algorithm = replace(ALGORITHMS["gspo"], surrogate=ClippedRatio(0.05, 0.08, level="sequence"))
    models = Bigram(0)
    batch = algorithm.prepare(ragged_batch(0), models)
    models.nudge(0.1)
    out = models.policy(batch)
    stats = algorithm.loss(out, batch, batch.size).stats
    difference = torch.where(batch.mask, out.logprobs.detach() - batch.old_logprobs, 0.0)
    lengths = batch.mask.sum(1)
    ratio = (difference.sum(1) / lengths).exp()
    outside = lengths[(ratio < 0.95) | (ratio > 1.08)].sum() / lengths.sum()
    assert stats["clip/outside_band"].item() == pytest.approx(float(outside), rel=1e-6)
    assert 0 < stats["clip/gradient_zero"].item() <= stats["clip/outside_band"].item() < 1


def test_too_far_and_adapted():
    assert PPO.too_far({"approx_kl": 0.11}) and not PPO.too_far({"approx_kl": 0.1}) and not PPO.too_far({})
    assert not replace(PPO, target_kl=None).too_far({"approx_kl": 99.0})
    moving = replace(PPO, kl=KL(0.05, adaptive=AdaptiveKL(0.1, 100.0)))
    assert moving.adapted(0.2, 10).kl.coef == pytest.approx(0.05 * 1.02)  # error cut to 0.2, 0.2·10/100
    assert moving.adapted(None, 10) is moving and DAPO.adapted(0.2, 10) is DAPO
    assert PPO.adapted(0.2, 10) == PPO  # a fixed coefficient stays


def test_values_say_which_fields_of_ppo_change():
    def changed(value):
        return {f.name for f in fields(PolicyGradient) if getattr(value, f.name) != getattr(PPO, f.name)} - {"name"}

    assert changed(GRPO) == {"advantage", "aggregate", "kl", "critic", "epochs", "target_kl"}
    assert changed(RLOO) == {"advantage", "surrogate", "critic", "epochs", "target_kl"}
    assert changed(DAPO) == {"advantage", "surrogate", "kl", "critic", "epochs", "target_kl", "keep", "shape", "drop"}
