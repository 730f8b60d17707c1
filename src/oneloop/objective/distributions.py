"""Distributions of actions: how far one is from another, exactly, and differentiable as often as one likes."""

from typing import NamedTuple, Protocol, runtime_checkable

from jaxtyping import Float
from torch import Tensor

from oneloop.objective.divergence import exact_kl


@runtime_checkable
class Distribution(Protocol):
    """π(· | s) at each of A actions."""

    def kl(self, other: "Distribution") -> Float[Tensor, " A"]:
        """KL(self ‖ other) in nats, action by action. Raises: TypeError where `other` is of another kind."""
        ...

    def detached(self) -> "Distribution":
        """The same numbers, without gradient."""
        ...


class Categorical(NamedTuple):
    """One of V tokens, or of V discrete actions: π(v) = softmax(logits)_v."""

    logits: Float[Tensor, "A V"]

    def kl(self, other: "Distribution") -> Float[Tensor, " A"]:
        """Σ_v π(v) (log π(v) − log π′(v)), over all V."""
        if not isinstance(other, Categorical):
            raise TypeError(f"KL(Categorical ‖ {type(other).__name__}): wanted two of a kind")
        return exact_kl(self.logits, other.logits)

    def detached(self) -> "Categorical":
        return Categorical(self.logits.detach())


class DiagonalGaussian(NamedTuple):
    """A real vector of D independent numbers: π(a) = Π_d N(a_d; mean_d, exp(log_std_d)²)."""

    mean: Float[Tensor, "A D"]
    log_std: Float[Tensor, "A D"]

    def kl(self, other: "Distribution") -> Float[Tensor, " A"]:
        """Σ_d [ log σ′ − log σ + (σ² + (μ − μ′)²) / (2σ′²) − ½ ], in closed form."""
        if not isinstance(other, DiagonalGaussian):
            raise TypeError(f"KL(DiagonalGaussian ‖ {type(other).__name__}): wanted two of a kind")
        variance, others = (2 * self.log_std).exp(), (2 * other.log_std).exp()
        spread = (variance + (self.mean - other.mean).square()) / (2 * others)
        return (other.log_std - self.log_std + spread - 0.5).sum(-1)

    def detached(self) -> "DiagonalGaussian":
        return DiagonalGaussian(self.mean.detach(), self.log_std.detach())
