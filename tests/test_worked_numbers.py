"""The numbers that the founding documents print, digit for digit."""

from dataclasses import replace
from math import exp

import pytest
import torch

from oneloop.algorithms import PPO, REINFORCE, RLOO
from oneloop.batch import Batch, PolicyOutput
from oneloop.objective.advantage import GAE, GroupRelative, LeaveOneOut
from oneloop.objective.critic import value_loss
from oneloop.objective.divergence import KL, AdaptiveKL
from oneloop.objective.surrogate import ClippedRatio


def one_token(value):
    return torch.tensor([[value]], dtype=torch.float64)


LIVE = torch.tensor([[True]])


def test_group_advantages():
    # mean 0.6; squares 0.16, 0.04, 0.04, 0.16 → variance 0.1, population std 0.3162 (printed 0.32)
    # ±0.4/0.3162 = ±1.2649, ±0.2/0.3162 = ±0.6325 (printed ±1.25 and ±0.63 from the rounded std)
    rewards = torch.tensor([[1.0], [0.8], [0.4], [0.2]])
    mask, group = torch.ones(4, 1, dtype=torch.bool), torch.zeros(4, dtype=torch.int64)
    advantages = GroupRelative()(rewards, None, mask, group).advantages[:, 0].tolist()
    assert [round(x, 2) for x in advantages] == [1.26, 0.63, -0.63, -1.26]
    assert advantages == pytest.approx([1.2649, 0.6325, -0.6325, -1.2649], abs=1e-4)
    # with G − 1 the std is 0.3651 and the first advantage 1.095: visibly another number
    assert GroupRelative(ddof=1)(rewards, None, mask, group).advantages[0].item() == pytest.approx(1.0954, abs=1e-4)
    # leave-one-out: 1.0 − (0.8 + 0.4 + 0.2)/3 = 0.5333
    assert LeaveOneOut()(rewards, None, mask, group).advantages[0].item() == pytest.approx(0.5333, abs=1e-4)


def test_the_clipped_objective():
    # log π_old −2.1 → log π_θ −1.8: ρ = e^0.3 = 1.34986 (1.35); ε 0.2, Â 0.2
    # unclipped 1.35·0.2 = 0.27, clipped 1.2·0.2 = 0.24, the smaller counts
    new, old, advantage = one_token(-1.8), one_token(-2.1), one_token(0.2)
    assert round(exp(0.3), 2) == 1.35
    wide, _ = ClippedRatio(0.2, 10.0)(new, old, advantage, LIVE)
    assert -wide.item() == pytest.approx(0.27, abs=5e-4)
    loss, flat = ClippedRatio(0.2, 0.2)(new, old, advantage, LIVE)
    assert -loss.item() == pytest.approx(0.24, abs=1e-12) and flat.item()


@pytest.mark.parametrize(
    ("ratio", "advantage", "gain", "flat"),
    [
        (1.5, 1.0, 1.2, True),  # good action, already more likely: no further push
        (0.5, 1.0, 0.5, False),  # good action, less likely: the gradient brings it back
        (1.5, -1.0, -1.5, False),  # bad action, more likely: the gradient takes it down
        (0.5, -1.0, -0.8, True),  # bad action, already less likely: no further push
        (1.1, 1.0, 1.1, False),  # inside the band nothing is cut
        (0.9, -1.0, -0.9, False),
    ],
)
def test_four_cases_of_clipping(ratio, advantage, gain, flat):
    new = torch.tensor([[ratio]], dtype=torch.float64).log().requires_grad_()
    loss, zero = ClippedRatio(0.2, 0.2)(new, one_token(0.0), one_token(advantage), LIVE)
    loss.sum().backward()
    assert -loss.item() == pytest.approx(gain, rel=1e-12)
    assert zero.item() is flat and (new.grad.item() == 0) is flat


class Given:
    """A policy and a reference whose log-probs are given."""

    def __init__(self, policy, reference):
        self.out, self.ref = PolicyOutput(policy, torch.zeros_like(policy)), reference

    def policy(self, batch):
        return self.out

    def reference(self, batch):
        return self.ref

    def step(self):
        return {}


@pytest.mark.parametrize("beta", [6.0, 0.0, 12.0])
def test_reward_minus_kl(beta):
    # the reward model gives 0.8, the sequence's KL is 0.05 nats: 0.8 − 6·0.05 = 0.5
    # two tokens with log π − log π_ref of 0.08 and −0.03
    ref = torch.tensor([[-1.0, -2.0]], dtype=torch.float64)
    models = Given(ref + torch.tensor([[0.08, -0.03]], dtype=torch.float64), ref)
    batch = Batch(
        tokens=torch.zeros(1, 2, dtype=torch.int64),
        mask=torch.ones(1, 2, dtype=torch.bool),
        group=torch.tensor([0]),
        rewards=torch.tensor([[0.0, 0.8]], dtype=torch.float64),
        truncated=torch.tensor([False]),
    )
    prepared = replace(REINFORCE, kl=KL(beta, at="reward")).prepare(batch, models)
    assert prepared.advantages[0, 0].item() == pytest.approx(0.8 - beta * 0.05, rel=1e-9)  # the reward to go
    assert prepared.advantages[0, 1].item() == pytest.approx(0.8 + beta * 0.03, rel=1e-9)  # the score at the last token


def test_the_printed_constants_of_ppo():
    # ε 0.1–0.2, λ 0.95, c_v 0.5, K 3–8; γ is 1 for responses (0.99 in the general case) and can be written
    assert PPO.surrogate == ClippedRatio(0.2, 0.2) and PPO.advantage.lam == 0.95 and PPO.critic.coef == 0.5
    assert 3 <= PPO.epochs <= 8
    assert replace(PPO, advantage=GAE(gamma=0.99), entropy=0.01).advantage.gamma == 0.99
    assert RLOO.critic is None and RLOO.kl == PPO.kl


def test_adaptive_kl_raises_above_and_lowers_below_its_target():
    controller = AdaptiveKL(target=0.05, horizon=1000.0)
    assert controller.update(6.0, 0.1, 100) == pytest.approx(6.0 * 1.02)
    assert controller.update(6.0, 0.01, 100) == pytest.approx(6.0 * 0.98)


def test_value_loss_has_its_half():
    assert value_loss(one_token(0.5), one_token(0.5), one_token(0.8)).item() == pytest.approx(0.045)  # ½·0.3²
