"""Heads against torch.distributions, draws against their probabilities, and derivatives of both orders."""

import math

import numpy as np
import pytest
import torch

from oneloop.classic.policy import Agent, Categorical, Gaussian, Perceptron

RNG = torch.Generator().manual_seed(0)


def test_a_categorical_head_says_what_torchs_distribution_says() -> None:
    outputs, tokens = torch.randn(50, 4, generator=RNG), torch.randint(0, 4, (50,), generator=RNG)
    logprobs, entropy = Categorical(4).judge(outputs, tokens, None)
    oracle = torch.distributions.Categorical(logits=outputs)
    torch.testing.assert_close(logprobs, oracle.log_prob(tokens))
    torch.testing.assert_close(entropy, oracle.entropy())


def test_a_gaussian_head_says_what_torchs_distribution_says() -> None:
    head = Gaussian(3)
    with torch.no_grad():
        head.log_std.copy_(torch.tensor([-1.0, 0.0, 0.7]))
    means, actions = torch.randn(50, 3, generator=RNG), torch.randn(50, 3, generator=RNG)
    logprobs, entropy = head.judge(means, torch.zeros(50, dtype=torch.int64), actions)
    oracle = torch.distributions.Normal(means, head.log_std.exp())
    torch.testing.assert_close(logprobs, oracle.log_prob(actions).sum(1))
    torch.testing.assert_close(entropy, oracle.entropy().sum(1))


def test_discrete_draws_follow_the_softmax_and_without_noise_the_largest_is_taken() -> None:
    head, logits = Categorical(3), np.array([[0.0, 1.0, 2.0]], dtype=np.float32)
    drawn = head.act(np.repeat(logits, 20_000, 0), head.noise(np.random.default_rng(0), 20_000))
    share = np.bincount(drawn, minlength=3) / 20_000
    wanted = np.exp(logits[0]) / np.exp(logits[0]).sum()  # 0.090, 0.245, 0.665
    assert np.abs(share - wanted).max() < 5 * math.sqrt(0.25 / 20_000)
    assert head.act(logits, None).tolist() == [2]


def test_continuous_draws_have_the_mean_and_deviation_and_without_noise_the_mean_is_taken() -> None:
    head = Gaussian(2)
    with torch.no_grad():
        head.log_std.copy_(torch.tensor([0.0, -1.0]))
    means = np.tile(np.array([[1.0, -2.0]], dtype=np.float32), (20_000, 1))
    drawn = head.act(means, head.noise(np.random.default_rng(0), 20_000))
    assert np.abs(drawn.mean(0) - [1, -2]).max() < 0.05
    assert np.abs(drawn.std(0) - [1, math.exp(-1)]).max() < 0.05
    assert head.act(means, None) is means


def test_layers_are_orthogonal_with_the_gains_of_the_peers() -> None:
    network = Perceptron((4, 64, 64, 2), 0.01, torch.Generator().manual_seed(0))
    first, second, last = (layer.weight.detach() for layer in network.layers)
    torch.testing.assert_close(first.T @ first, 2 * torch.eye(4), atol=1e-5, rtol=0)
    torch.testing.assert_close(second @ second.T, 2 * torch.eye(64), atol=1e-5, rtol=0)
    torch.testing.assert_close(last @ last.T, 1e-4 * torch.eye(2), atol=1e-8, rtol=0)
    assert all(not layer.bias.any() for layer in network.layers)


@pytest.mark.parametrize("head", [Categorical(3), Gaussian(2)], ids=["discrete", "continuous"])
def test_log_probs_can_be_differentiated_twice(head: Categorical | Gaussian) -> None:
    """What natural gradients need: the Hessian of the mean log-prob times a vector, against differences."""
    agent = Agent(3, head, (5,), critic=True, seed=0).double()
    states, tokens = torch.randn(20, 3, generator=RNG).double(), torch.randint(0, 2, (20,), generator=RNG)
    actions = torch.randn(20, 2, generator=RNG).double() if isinstance(head, Gaussian) else None
    parameters = agent.policy_parameters()
    way = [torch.randn(p.shape, generator=RNG).double() for p in parameters]

    def gradient(graph: bool) -> list[torch.Tensor]:
        mean = agent.judge(states, tokens, actions)[0].mean()
        return list(torch.autograd.grad(mean, parameters, create_graph=graph))

    along = sum((g * v).sum() for g, v in zip(gradient(True), way, strict=True))
    product = torch.autograd.grad(along, parameters)
    moved = []
    for sign in (1, -1):
        with torch.no_grad():
            for parameter, v in zip(parameters, way, strict=True):
                parameter += sign * 1e-5 * v
        moved.append(gradient(False))
        with torch.no_grad():
            for parameter, v in zip(parameters, way, strict=True):
                parameter -= sign * 1e-5 * v
    for exact, up, down in zip(product, *moved, strict=True):
        torch.testing.assert_close(exact, (up - down) / 2e-5, atol=1e-6, rtol=1e-4)
