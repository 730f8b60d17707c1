"""Surrogates against the papers' formulas token by token, and gradient_zero against autograd."""

from math import exp

import pytest
import torch

from oneloop.objective.surrogate import LOG_RATIO_BOUND, ClippedRatio, ClippedWeight, ScoreFunction

SURROGATES = [
    ScoreFunction(),
    ClippedRatio(),
    ClippedRatio(0.2, 0.28),
    ClippedRatio(0.1, 0.3, dual=3.0),
    ClippedRatio(0.05, 0.08, level="sequence"),
    ClippedRatio(3e-4, 4e-4, level="sequence"),
    ClippedRatio(0.05, 0.08, level="sequence", dual=1.5),
    ClippedWeight(),
    ClippedWeight(low=0.3, high=0.5),
    ClippedWeight(low=0.3, high=None),
    ClippedWeight(low=None, high=None),
]


def tokens(seed, spread, rows=5, width=6, dtype=torch.float64):
    """Log-probs whose log-ratios have the given spread, advantages of both signs with zeros, holes in the mask."""
    rng = torch.Generator().manual_seed(seed)
    old = -3 * torch.rand(rows, width, generator=rng, dtype=torch.float64)
    new = old + spread * torch.randn(rows, width, generator=rng, dtype=torch.float64)
    advantages = torch.randn(rows, width, generator=rng, dtype=torch.float64)
    advantages[torch.rand(rows, width, generator=rng) < 0.2] = 0.0
    mask = torch.rand(rows, width, generator=rng) < 0.8
    mask[:, 0] = True
    return new.to(dtype), old.to(dtype), advantages.to(dtype), mask


def clip(x, low, high):
    return min(max(x, low), high)


def slow_clipped_ratio(surrogate, new, old, advantages, mask):
    """−min(ρÂ, clip(ρ)Â), and with dual clip c: −max(min(ρÂ, clip(ρ)Â), cÂ) where Â < 0."""
    out = torch.zeros_like(new)
    for i in range(len(new)):
        actions = [t for t in range(new.shape[1]) if mask[i, t]]
        differences = {t: float(new[i, t] - old[i, t]) for t in actions}
        for t in actions:
            x = differences[t] if surrogate.level == "token" else sum(differences.values()) / len(actions)
            ratio, advantage = exp(clip(x, -LOG_RATIO_BOUND, LOG_RATIO_BOUND)), float(advantages[i, t])
            gain = min(ratio * advantage, clip(ratio, 1 - surrogate.low, 1 + surrogate.high) * advantage)
            if surrogate.dual is not None and advantage < 0:
                gain = max(gain, surrogate.dual * advantage)
            out[i, t] = -gain
    return out


def slow_weighted(surrogate, new, old, advantages, mask):
    """−w·Â·log π with w = 1 (score function) or the clipped ratio (CISPO)."""
    out = torch.zeros_like(new)
    for i in range(len(new)):
        for t in range(new.shape[1]):
            if not mask[i, t]:
                continue
            weight = 1.0
            if isinstance(surrogate, ClippedWeight):
                weight = exp(float(new[i, t] - old[i, t]))
                weight = weight if surrogate.low is None else max(weight, 1 - surrogate.low)
                weight = weight if surrogate.high is None else min(weight, 1 + surrogate.high)
            out[i, t] = -weight * float(advantages[i, t]) * float(new[i, t])
    return out


def gradient_of(surrogate, new, old, advantages, mask):
    new = new.clone().requires_grad_()
    loss, gradient_zero = surrogate(new, old, advantages, mask)
    loss.sum().backward()
    return loss.detach(), new.grad, gradient_zero


@pytest.mark.parametrize("spread", [0.0, 0.1, 1.0])
@pytest.mark.parametrize("surrogate", SURROGATES, ids=repr)
def test_loss_is_the_formula_token_by_token(surrogate, spread):
    slow = slow_clipped_ratio if isinstance(surrogate, ClippedRatio) else slow_weighted
    for seed in range(3):
        batch = tokens(seed, spread)
        loss, _ = surrogate(*batch)
        torch.testing.assert_close(loss, slow(surrogate, *batch), rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("spread", [0.0, 1e-3, 0.2, 2.0, 40.0])
@pytest.mark.parametrize("surrogate", SURROGATES, ids=repr)
def test_gradient_zero_is_where_autograd_gives_zero(surrogate, spread, dtype):
    for seed in range(5):
        new, old, advantages, mask = tokens(seed, spread, dtype=dtype)
        _, gradient, flat = gradient_of(surrogate, new, old, advantages, mask)
        assert torch.equal(flat, (gradient == 0) & mask & (advantages != 0))


@pytest.mark.parametrize("surrogate", [s for s in SURROGATES if isinstance(s, ClippedRatio)], ids=repr)
def test_gradient_zero_has_both_answers_on_these_inputs(surrogate):
    """So that the test above cannot pass on constants; the band alone, a common shortcut, is wrong."""
    flats, bands, lives = [], [], []
    for seed in range(5):
        new, old, advantages, mask = tokens(seed, 2.0)
        _, flat = surrogate(new, old, advantages, mask)
        log_ratio = torch.where(mask, new - old, 0.0)
        bands.append(surrogate.outside_band(log_ratio, mask)), flats.append(flat), lives.append(mask)
    flat, band, live = torch.cat(flats), torch.cat(bands), torch.cat(lives)
    assert bool(flat.any()) and bool((live & ~flat).any())
    assert bool((flat & band == flat).all())  # without huge ratios, only a ratio outside the band can be flat
    assert not torch.equal(flat, band)


def test_sequence_gradient_is_the_paper_s():
    """∇ of s_i = (Π ρ_t)^(1/|o|): s·Â·(1/|o|)·Σ_t ∇log π_t, which the sequence mean of the token form equals."""
    new, old, _, mask = tokens(1, 0.1)
    new.requires_grad_()
    advantages = torch.tensor([1.0, -2.0, 0.5, 3.0, -1.0], dtype=torch.float64)
    wide = ClippedRatio(1.0, 1e9, level="sequence")  # nothing clips
    loss, _ = wide(new, old, advantages[:, None].expand_as(new), mask)
    lengths = mask.sum(1)
    (token_form,) = torch.autograd.grad((loss.sum(1) / lengths).sum(), new)
    ratio = (torch.where(mask, new - old, 0.0).sum(1) / lengths).exp()
    (sequence_form,) = torch.autograd.grad(-(ratio * advantages).sum(), new)
    torch.testing.assert_close(token_form, sequence_form, rtol=1e-12, atol=1e-15)
    token_level = ClippedRatio(1.0, 1e9)(new, old, advantages[:, None].expand_as(new), mask)[0]
    (mutant,) = torch.autograd.grad((token_level.sum(1) / lengths).sum(), new)
    assert not torch.allclose(mutant, sequence_form, rtol=1e-3)


def test_sequence_ratio_is_one_number_a_row_in_float32():
    """A band of 3e-4 is far inside the rounding of log-probs near −20: the row's ratio must not pass through them."""
    old = torch.tensor([[-20.3, -0.01, -17.77, -3.3]])
    new = old + torch.tensor([[2e-3, 1e-3, -1e-3, 0.5e-3]])
    mask, advantages = torch.ones_like(old, dtype=torch.bool), torch.ones_like(old)
    loss, _ = ClippedRatio(0.2, 0.2, level="sequence")(new, old, advantages, mask)
    assert len(set(loss[0].tolist())) == 1
    assert float(-loss[0, 0]) == pytest.approx(exp(float((new - old).double().mean())), rel=1e-6)


def test_outside_band_of_a_sequence_is_the_row_s_ratio():
    # log-ratios +0.5 and −0.5 in one row: both tokens leave the band, the row's geometric mean 1 does not
    log_ratio, mask = torch.tensor([[0.5, -0.5, 0.0], [0.5, 0.5, 0.0]]), torch.tensor([[True, True, False]] * 2)
    assert ClippedRatio().outside_band(log_ratio, mask).tolist() == [[True, True, False], [True, True, False]]
    row = ClippedRatio(level="sequence").outside_band(log_ratio, mask)
    assert row.tolist() == [[False, False, False], [True, True, False]]
    cap = ClippedWeight(low=None, high=0.2).outside_band(log_ratio, mask)  # e^−0.5 has no lower bound to leave
    assert cap.tolist() == [[True, False, False], [True, True, False]]
    assert not bool(ScoreFunction().outside_band(log_ratio, mask).any())


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("jump", [89.0, -89.0, 1e4])
@pytest.mark.parametrize("surrogate", SURROGATES, ids=repr)
def test_a_huge_log_ratio_stays_finite(surrogate, jump, dtype):
    """On a live token loss and gradients are finite, for both signs; on a masked one the gradient is exactly 0."""
    for sign in (1.0, -1.0):
        old = torch.full((2, 3), -1.0, dtype=dtype)
        new = old.clone()
        new[0, 1] += jump
        new[1, 2] += jump
        mask = torch.tensor([[True, True, True], [True, True, False]])
        loss, gradient, _ = gradient_of(surrogate, new, old, torch.full_like(old, sign), mask)
        assert bool(loss.isfinite().all()) and bool(gradient.isfinite().all())
        assert float(gradient[1, 2]) == 0.0 and float(loss[1, 2]) == 0.0
        assert bool((gradient[1, :2] != 0).all())


def test_the_unbounded_ratio_would_overflow():
    """The mutant of the test above: ρ = e^89 in float32."""
    assert torch.tensor(89.0).exp().isinf()


@pytest.mark.parametrize("junk", [float("nan"), float("inf"), -float("inf"), 1e6])
@pytest.mark.parametrize("surrogate", SURROGATES, ids=repr)
def test_masked_slots_are_finite_whatever_stands_there(surrogate, junk):
    new, old, advantages, mask = tokens(4, 0.3)
    clean = gradient_of(surrogate, new, old, advantages, mask)
    dirty = gradient_of(surrogate, *(torch.where(mask, x, junk) for x in (new, old, advantages)), mask)
    for a, b in zip(clean, dirty, strict=True):
        assert torch.equal(a, b)
    assert bool((clean[1][~mask] == 0).all())


@pytest.mark.parametrize("surrogate", SURROGATES, ids=repr)
def test_ratio_one_is_the_policy_gradient(surrogate):
    """At π_θ = π_old every surrogate has REINFORCE's gradient, −Â on each log-prob."""
    _, old, advantages, mask = tokens(6, 0.0)
    if isinstance(surrogate, ClippedRatio) and surrogate.level == "sequence":
        advantages = advantages[:, :1].expand_as(old)
    _, gradient, flat = gradient_of(surrogate, old, old, advantages, mask)
    torch.testing.assert_close(gradient, torch.where(mask, -advantages, 0.0), rtol=0, atol=0)
    assert not bool(flat.any())
    _, moved, _ = gradient_of(surrogate, old + 0.4, old, advantages, mask)
    if not isinstance(surrogate, ScoreFunction):  # the mutant: one update later this no longer holds
        assert not torch.allclose(moved, gradient, rtol=1e-3)


@pytest.mark.parametrize(
    "arguments",
    [{"low": -0.1}, {"low": 1.5}, {"high": -0.1}, {"dual": 1.0}, {"dual": 0.5}],
)
def test_impossible_bands_are_refused(arguments):
    with pytest.raises(ValueError, match="ClippedRatio"):
        ClippedRatio(**arguments)
