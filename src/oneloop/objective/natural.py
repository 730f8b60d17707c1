"""The natural gradient without a matrix: products with the Fisher, a solver that needs nothing else, a line search.

References: Kakade, "A natural policy gradient", 2001; TRPO arXiv:1502.05477, appendix C; Pearlmutter, "Fast exact
multiplication by the Hessian", 1994.
"""

from collections.abc import Callable, Sequence
from typing import NamedTuple

import torch
from jaxtyping import Float
from torch import Tensor

Product = Callable[[Float[Tensor, " n"]], Float[Tensor, " n"]]
"""v → A v of a symmetric matrix A that nobody writes down."""


def flat(tensors: Sequence[Tensor]) -> Float[Tensor, " n"]:
    """All numbers end to end."""
    return torch.cat([tensor.reshape(-1) for tensor in tensors])


def taken(parameters: Sequence[Tensor]) -> Float[Tensor, " n"]:
    """The gradients that were added up, end to end. The parameters have none after it."""
    gradient = flat([torch.zeros_like(p) if p.grad is None else p.grad for p in parameters])
    for parameter in parameters:
        parameter.grad = None
    return gradient


def fisher_vector_product(kl: Float[Tensor, ""], parameters: Sequence[Tensor]) -> Product:
    """v → F v, with F = ∇²_θ KL(π_old ‖ π_θ) at θ = θ_old, which is the Fisher information of π_θ.

    F v = ∇_θ (vᵀ ∇_θ KL): a gradient of a gradient through the model's own graph (Pearlmutter's trick). Where the KL
    is a mean over states, F is the mean of their Fisher matrices.

    Args:
        kl: KL(π_old ‖ π_θ), with π_old without gradient and θ = θ_old; its graph is kept as long as the product.
        parameters: θ. What the KL does not depend on has slope and curvature 0.
    """
    slope = flat(torch.autograd.grad(kl, parameters, create_graph=True, materialize_grads=True))

    def product(v: Float[Tensor, " n"]) -> Float[Tensor, " n"]:
        return flat(torch.autograd.grad(slope @ v, parameters, retain_graph=True, materialize_grads=True)).detach()

    return product


class Solved(NamedTuple):
    """x with A x ≈ b."""

    x: Float[Tensor, " n"]
    residual: float
    """‖b − A x‖ / ‖b‖, 0 for b = 0."""
    iterations: int


def conjugate_gradient(
    matvec: Product, b: Float[Tensor, " n"], iterations: int = 10, tolerance: float = 1e-5
) -> Solved:
    """Solve A x = b for a symmetric positive definite A, of which only products are known.

    From x = 0, r = p = b:   α = rᵀr / pᵀAp;   x ← x + α p;   r′ ← r − α A p;   p ← r′ + (r′ᵀr′ / rᵀr) p

    Args:
        iterations: at most so many products; n of them are enough without rounding.
        tolerance: it ends earlier at ‖r‖ ≤ tolerance · ‖b‖.

    Reference: Hestenes and Stiefel 1952; TRPO arXiv:1502.05477, appendix C, which takes 10 iterations.
    """
    x, residual, direction = torch.zeros_like(b), b.clone(), b.clone()
    square = float(residual @ residual)
    start, done = square, 0
    while done < iterations and square > tolerance**2 * start:
        image = matvec(direction)
        curvature = float(direction @ image)
        if curvature <= 0:  # rounding has used up what is positive in A
            break
        length = square / curvature
        x = x + length * direction
        residual = residual - length * image
        last, square = square, float(residual @ residual)
        direction = residual + (square / last) * direction
        done += 1
    return Solved(x, (square / start) ** 0.5 if start else 0.0, done)


class Attempt(NamedTuple):
    """What a step would do."""

    kl: float
    """KL(π_old ‖ π_θ) after it, nats per action."""
    gain: float
    """By how much the objective, which is minimised, falls."""


class Searched(NamedTuple):
    """How a line search ended."""

    shortened: int
    """How often the step was shortened."""
    attempt: Attempt | None
    """The step that was taken; None: none was good enough."""


def line_search(attempt: Callable[[float], Attempt], *, max_kl: float, backtracks: int, shrink: float) -> Searched:
    """The longest of the steps shrink⁰, shrink¹, …, shrink^backtracks that keeps the bound and improves.

    Taken is the first with KL(π_old ‖ π_θ) ≤ max_kl and gain > 0: both are measured, and neither follows from the
    quadratic model that gave the whole step its length. What is not a number passes neither.

    Args:
        attempt: makes the step at that fraction of its length, and measures it. The last call is the step that stays.

    Reference: TRPO arXiv:1502.05477, appendix C.
    """
    for shortened in range(backtracks + 1):
        found = attempt(shrink**shortened)
        if found.kl <= max_kl and found.gain > 0:
            return Searched(shortened, found)
    return Searched(backtracks, None)
