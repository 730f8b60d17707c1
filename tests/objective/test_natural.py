"""The natural gradient's parts against matrices that are written down, and divergences against torch's own."""

import pytest
import torch
from torch.distributions import Categorical as TorchCategorical
from torch.distributions import Independent, Normal, kl_divergence

from oneloop.objective.distributions import Categorical, DiagonalGaussian, Distribution
from oneloop.objective.natural import Attempt, Searched, conjugate_gradient, fisher_vector_product, flat, line_search

STATES, WIDTH, HIDDEN, ACTIONS = 5, 3, 4, 6


def drawn(*shape, seed=0):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


class Softmax:
    """π(a|s) = softmax(W₂ tanh(W₁ s))."""

    def __init__(self):
        self.states = drawn(STATES, WIDTH)
        self.parameters = [
            drawn(HIDDEN, WIDTH, seed=1).requires_grad_(),
            drawn(ACTIONS, HIDDEN, seed=2).requires_grad_(),
        ]

    def __call__(self) -> Categorical:
        first, second = self.parameters
        return Categorical(torch.tanh(self.states @ first.T) @ second.T)

    def logprobs(self):
        return torch.log_softmax(self().logits, -1)


def fisher_of(policy) -> torch.Tensor:
    """F = 1/S Σ_s Σ_a π(a|s) ∇log π(a|s) ∇log π(a|s)ᵀ, one score after the other."""
    table = policy.logprobs()
    n = sum(parameter.numel() for parameter in policy.parameters)
    total = torch.zeros(n, n, dtype=torch.float64)
    for logprob in table.flatten():
        score = flat(torch.autograd.grad(logprob, policy.parameters, retain_graph=True))
        total += logprob.detach().exp() * torch.outer(score, score)
    return total / len(table)


def product_of(policy, old=None):
    here = policy()
    return fisher_vector_product((old or here.detached()).kl(here).mean(), policy.parameters)


def columns(product, n) -> torch.Tensor:
    return torch.stack([product(row) for row in torch.eye(n, dtype=torch.float64)])


def test_products_are_those_of_the_fisher_matrix_that_is_written_down():
    policy = Softmax()
    wanted = fisher_of(policy)
    found = columns(product_of(policy), len(wanted))
    torch.testing.assert_close(found, wanted, rtol=1e-10, atol=1e-12)
    torch.testing.assert_close(found, found.T, rtol=1e-10, atol=1e-12)
    # mutants: π_old with its gradient, a KL that is 0 everywhere; and the curvature at another place than θ_old
    here = policy()
    alone = fisher_vector_product(here.kl(here).mean(), policy.parameters)
    assert float(columns(alone, len(wanted)).abs().max()) < 1e-12
    elsewhere = Categorical(here.logits.detach() + drawn(STATES, ACTIONS, seed=3))
    assert not torch.allclose(columns(product_of(policy, elsewhere), len(wanted)), wanted, rtol=0.1)


def test_the_fisher_of_a_gaussian_is_known():
    """Of mean and log σ:  diag(1/σ², 2) for each dimension."""
    mean, log_std = drawn(1, 3).requires_grad_(), drawn(1, 3, seed=1).requires_grad_()
    here = DiagonalGaussian(mean, log_std)
    product = fisher_vector_product(here.detached().kl(here).mean(), [mean, log_std])
    wanted = torch.diag(torch.cat([(-2 * log_std.detach()).exp(), torch.full((1, 3), 2.0, dtype=torch.float64)], 1)[0])
    torch.testing.assert_close(columns(product, 6), wanted, rtol=1e-10, atol=1e-12)


def test_what_the_policy_does_not_depend_on_has_no_curvature():
    policy, other = Softmax(), drawn(2).requires_grad_()
    here = policy()
    product = fisher_vector_product(here.detached().kl(here).mean(), [*policy.parameters, other])
    v = drawn(sum(p.numel() for p in policy.parameters) + 2)
    assert torch.equal(product(v)[-2:], torch.zeros(2, dtype=torch.float64)) and product(v)[:-2].abs().min() > 0


def spd(n: int, seed: int) -> torch.Tensor:
    root = drawn(n, n, seed=seed)
    return root @ root.T + 0.5 * torch.eye(n, dtype=torch.float64)


@pytest.mark.parametrize("seed", range(5))
def test_conjugate_gradient_solves_what_a_solver_solves(seed: int):
    matrix, b = spd(20, seed), drawn(20, seed=100 + seed)
    wanted = torch.linalg.solve(matrix, b)
    found = conjugate_gradient(lambda v: matrix @ v, b, iterations=60, tolerance=1e-12)
    torch.testing.assert_close(found.x, wanted, rtol=1e-8, atol=1e-10)
    early = conjugate_gradient(lambda v: matrix @ v, b, iterations=5, tolerance=1e-12)
    assert early.iterations == 5
    residual = float((b - matrix @ early.x).norm() / b.norm())
    assert early.residual == pytest.approx(residual, rel=1e-9) and residual > 1e-3
    # after k products the best of the Krylov space: in the norm of A it never gets worse, and x is within xᵀAx = xᵀb
    errors = []
    for iterations in range(1, 12):
        x = conjugate_gradient(lambda v: matrix @ v, b, iterations).x
        errors.append(float((x - wanted) @ matrix @ (x - wanted)))
        assert float(x @ matrix @ x) == pytest.approx(float(x @ b), rel=1e-9)
    assert errors == sorted(errors, reverse=True)


def test_conjugate_gradient_ends_where_it_is_done():
    calls = []

    def matvec(v):
        calls.append(v)
        return 2 * v

    b = drawn(4)
    found = conjugate_gradient(matvec, b, iterations=10)
    torch.testing.assert_close(found.x, b / 2)
    assert found.iterations == len(calls) == 1 and found.residual < 1e-12
    nothing = conjugate_gradient(matvec, torch.zeros(4), iterations=10)
    assert nothing.residual == 0.0 and not nothing.x.any() and len(calls) == 1
    assert not conjugate_gradient(lambda v: 0 * v, b).x.any(), "no curvature: no division by it"
    assert conjugate_gradient(lambda v: v * torch.nan, b).x.isnan().all(), "what is no number stays visible"


def attempts(*found: tuple[float, float]):
    """Of the whole step, of the next shorter one, …; and what was asked."""
    asked: list[float] = []

    def attempt(fraction: float) -> Attempt:
        asked.append(fraction)
        return Attempt(*found[len(asked) - 1])

    return attempt, asked


@pytest.mark.parametrize(
    ("found", "taken"),
    [
        ([(0.009, 0.1)], 0),
        ([(0.01, 1e-9)], 0),  # the bound itself is within it
        ([(0.02, 0.3), (0.013, 0.2), (0.008, 0.1)], 2),  # too far, too far, near enough
        ([(0.005, -0.1), (0.003, 0.0), (0.002, 0.05)], 2),  # near enough, but no better
        ([(0.02, 0.1), (0.009, -0.1), (0.006, 0.01)], 2),  # one of the two is not enough
        ([(float("nan"), 0.1), (0.009, float("nan")), (0.005, 0.1)], 2),
        ([(0.02, 0.1), (0.015, 0.1), (0.012, 0.1), (0.011, 0.1)], None),
    ],
)
def test_the_line_search_takes_the_longest_step_that_keeps_both_promises(found, taken):
    attempt, asked = attempts(*found)
    searched = line_search(attempt, max_kl=0.01, backtracks=3, shrink=0.5)
    steps = 3 if taken is None else taken
    assert searched == Searched(steps, None if taken is None else Attempt(*found[taken]))
    assert asked == [0.5**k for k in range(steps + 1)]


def test_divergences_are_torch_s():
    a, b = Categorical(drawn(7, 4)), Categorical(drawn(7, 4, seed=1))
    wanted = kl_divergence(TorchCategorical(logits=a.logits), TorchCategorical(logits=b.logits))
    torch.testing.assert_close(a.kl(b), wanted)
    means, spreads = (drawn(7, 3, seed=2), drawn(7, 3, seed=3)), (drawn(7, 3, seed=4), drawn(7, 3, seed=5))
    c, d = map(DiagonalGaussian, means, spreads)
    of_torch = [Independent(Normal(m, s.exp()), 1) for m, s in zip(means, spreads, strict=True)]
    torch.testing.assert_close(c.kl(d), kl_divergence(*of_torch))
    assert not torch.allclose(c.kl(d), d.kl(c)) and not torch.allclose(a.kl(b), b.kl(a))
    for one in (a, c):
        assert isinstance(one, Distribution) and one.kl(one.detached()).abs().max() < 1e-12
    for one, other in ((a, c), (c, a)):
        with pytest.raises(TypeError, match="wanted two of a kind"):
            one.kl(other)


def test_a_detached_one_has_no_gradient():
    for kind, parts in ((Categorical, 1), (DiagonalGaussian, 2)):
        made = kind(*(drawn(2, 3).requires_grad_() for _ in range(parts)))
        assert all(part.requires_grad for part in made) and not any(part.requires_grad for part in made.detached())
        assert all(map(torch.equal, made, made.detached()))
