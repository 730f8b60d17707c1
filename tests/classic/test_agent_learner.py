"""The optimizer step over one tensor, against the same step over the parameters one by one; and what is no number."""

import math
from copy import deepcopy
from math import isnan

import pytest
import torch
from torch import nn

from oneloop.batch import Batch
from oneloop.classic.learner import ADAM_EPS, AgentLearner
from oneloop.classic.policy import Agent, Categorical, Gaussian
from oneloop.errors import DivergedError
from oneloop.model.optimizer import Optimization
from oneloop.objective.natural import fisher_vector_product, flat


def made(*, natural: bool = False, **plan: float) -> AgentLearner:
    rates = {"learning_rate": 1e-2, "critic_learning_rate": 3e-2, "total_updates": 10, "max_grad_norm": 0.5}
    agent = Agent(3, Gaussian(2), (6, 5), critic=True, seed=0)
    return AgentLearner(agent, optimization=Optimization(**{**rates, **plan}), natural=natural)


def loss(agent: Agent, rng: torch.Generator) -> torch.Tensor:
    states, actions = torch.randn(8, 3, generator=rng), torch.randn(8, 2, generator=rng)
    logprobs, _ = agent.judge(states, torch.zeros(8, dtype=torch.int64), actions)
    return -logprobs.mean() + agent.values(states).square().mean()


def test_steps_are_those_of_adam_over_separate_parameters() -> None:
    learner, rng = made(), torch.Generator().manual_seed(1)
    alone = deepcopy(learner.model)
    groups = [
        {"params": alone.policy_parameters(), "lr": 1e-2},
        {"params": list(alone.critic.parameters()), "lr": 3e-2},
    ]
    optimizer = torch.optim.Adam(groups, eps=ADAM_EPS)
    for _ in range(5):
        place = rng.get_state()
        loss(learner.model, rng).backward()
        norm = learner.step()["grad_norm"]
        rng.set_state(place)
        optimizer.zero_grad()
        loss(alone, rng).backward()
        assert norm == pytest.approx(float(nn.utils.clip_grad_norm_(alone.parameters(), 0.5)), rel=1e-5)
        optimizer.step()
    assert norm > 0.5, "gradients were cut"
    for ours, theirs in zip(learner.model.parameters(), alone.parameters(), strict=True):
        torch.testing.assert_close(ours, theirs, atol=1e-6, rtol=1e-5)


def test_every_parameter_is_a_part_of_what_the_optimizer_has_and_stays_one() -> None:
    learner = made()
    loss(learner.model, torch.Generator().manual_seed(0)).backward()
    learner.step()
    flat = learner.named_parameters()
    for name, members in (("policy", learner.policy_parameters()), ("critic", list(learner.model.critic.parameters()))):
        assert torch.equal(flat[name].data, torch.cat([member.data.reshape(-1) for member in members]))
        assert torch.equal(flat[name].grad, torch.cat([member.grad.reshape(-1) for member in members]))
        assert not flat[name].grad.any()
    assert sum(one.numel() for one in flat.values()) == sum(one.numel() for one in learner.model.parameters())


def test_a_gradient_that_was_taken_moves_no_policy() -> None:
    """For whoever moves the policy otherwise: the step after it is the critic's."""
    learner = made()
    loss(learner.model, torch.Generator().manual_seed(0)).backward()
    wanted = torch.cat([parameter.grad.reshape(-1).clone() for parameter in learner.policy_parameters()])
    before = {name: flat.clone() for name, flat in learner.named_parameters().items()}
    assert torch.equal(learner.take_gradient(), wanted) and wanted.any()
    learner.step()
    after = learner.named_parameters()
    assert torch.equal(before["policy"], after["policy"]) and not torch.equal(before["critic"], after["critic"])


def test_a_gradient_that_is_no_number_moves_nothing_and_the_third_ends_the_run() -> None:
    learner = made()
    before = {name: flat.clone() for name, flat in learner.named_parameters().items()}
    for _ in range(2):
        (loss(learner.model, torch.Generator().manual_seed(0)) * float("nan")).backward()
        stats = learner.step()
        assert isnan(stats["grad_norm"]) and stats["skipped_steps"] == 1
    assert all(torch.equal(before[name], flat) for name, flat in learner.named_parameters().items())
    (loss(learner.model, torch.Generator().manual_seed(0)) * float("nan")).backward()
    with pytest.raises(DivergedError, match="3 optimizer steps in a row"):
        learner.step()


def test_a_linear_schedule_takes_both_rates_to_zero() -> None:
    learner = made(schedule="linear")
    rates = []
    for _ in range(10):
        loss(learner.model, torch.Generator().manual_seed(0)).backward()
        learner.step()
        rates.append([group["lr"] for group in learner.optimizer.param_groups])
    assert rates[0] == [1e-2, 3e-2] and rates[5] == pytest.approx([5e-3, 1.5e-2]) and rates[9][0] == pytest.approx(1e-3)


def test_a_batch_of_tokens_alone_is_refused() -> None:
    some = torch.zeros(1, 1)
    batch = Batch(some.long(), some.bool(), some[0].long(), some, some[0].bool())
    with pytest.raises(ValueError, match="no observations"):
        made().policy(batch)


def test_beside_a_trust_region_the_optimizer_moves_the_critic_alone() -> None:
    """Decay too: what the region has left is left to the very bits."""
    learner, rng = made(natural=True, weight_decay=0.1), torch.Generator().manual_seed(1)
    policy = [parameter.detach().clone() for parameter in learner.policy_parameters()]
    critic = [parameter.detach().clone() for parameter in learner.model.critic.parameters()]
    loss(learner.model, rng).backward()
    assert learner.take_gradient().abs().sum() > 0 and learner.take_gradient().abs().sum() == 0
    learner.step()
    assert all(torch.equal(old, new) for old, new in zip(policy, learner.policy_parameters(), strict=True))
    assert all(not torch.equal(old, new) for old, new in zip(critic, learner.model.critic.parameters(), strict=True))


@pytest.mark.parametrize("head", [Gaussian(2), Categorical(4)], ids=lambda head: type(head).__name__)
def test_the_fisher_of_a_policy_is_the_spread_of_its_scores(head: Gaussian | Categorical) -> None:
    """F v by two gradients of the KL = E[∇log π (∇log π · v)], over draws from the policy."""
    agent, rng = Agent(3, head, (4,), critic=False, seed=0), torch.Generator().manual_seed(2)
    state, parameters = torch.randn(1, 3, generator=rng), agent.policy_parameters()
    v = torch.randn(sum(parameter.numel() for parameter in parameters), generator=rng)
    here = agent.distribution(state)
    found = fisher_vector_product(here.detached().kl(here).sum(), parameters)(v)
    if isinstance(head, Categorical):
        tokens, actions = torch.arange(4), None
        weights = agent.judge(state.expand(4, 3), tokens, None)[0].exp().detach()
    else:  # draws in pairs around the mean, whose average is the mean
        noise = torch.randn(40_000, 2, generator=rng)
        actions = here.mean.detach() + here.log_std.detach().exp() * torch.cat([noise, -noise])
        tokens, weights = torch.zeros(len(actions), dtype=torch.int64), torch.full((len(actions),), 1 / len(actions))
    rows = state.expand(len(tokens), 3)
    # one Jacobian-vector product by a dummy that the score is linear in
    dummy = torch.zeros(len(tokens), requires_grad=True)
    slope = torch.autograd.grad(agent.judge(rows, tokens, actions)[0], parameters, dummy, create_graph=True)
    pushed = torch.autograd.grad(flat(slope) @ v, dummy)[0]
    score = torch.autograd.grad(agent.judge(rows, tokens, actions)[0], parameters, weights * pushed)
    assert torch.allclose(found, flat(score), rtol=0.05, atol=0.02)


def test_what_a_distribution_was_does_not_move_with_the_policy() -> None:
    """A region measures from before a step: also how far σ went, which is a parameter and no output."""
    agent = Agent(3, Gaussian(2), (4,), critic=False, seed=0)
    with torch.no_grad():
        before = agent.distribution(torch.ones(1, 3))
        agent.head.log_std -= 0.5
        moved = before.kl(agent.distribution(torch.ones(1, 3)))
    # two numbers: log σ′ − log σ + σ²/2σ′² − ½ = −0.5 + e/2 − 0.5 each
    assert moved.item() == pytest.approx(2 * (-0.5 + math.exp(1) / 2 - 0.5), rel=1e-5)
