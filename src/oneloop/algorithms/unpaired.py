"""Learning from answers that are called good or bad, one at a time: KTO."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace

import torch
from jaxtyping import Float
from torch import Tensor

from oneloop.algorithms.protocol import Need, knowing_reference
from oneloop.batch import Batch, Loss, PolicyOutput, Size
from oneloop.errors import ConfigError
from oneloop.objective.advantage import row_rewards
from oneloop.objective.mismatch import mismatched, partners
from oneloop.objective.preference import PairReward
from oneloop.ports import Models, World


@dataclass(frozen=True)
class Unpaired:
    """A row is a group of one with reward 1 (desirable) or 0 (undesirable).

    L(θ) = 1/N · Σ over rows λ_y·(1 − σ(±(r − z))),   + and λ_D for a desirable row, − and λ_U for another

    z = max(0, mean of r over prompts with the answer to another prompt), without gradient: over the whole
    step's rows, measured before the step's first update (`objective/mismatch.py`). N rows with an action.

    Reference: KTO, arXiv:2402.01306, eq. 8. Differs: the answer comes from the next row with another prompt, in the
    order of groups; z is that of the step, so that micro-batches, padding and ranks cannot change it.
    """

    reward: PairReward
    desirable: float = 1.0
    """λ_D."""
    undesirable: float = 1.0
    """λ_U."""
    epochs: int = 1
    name: str = "custom"

    def __post_init__(self) -> None:
        if not (self.desirable >= 0 and self.undesirable >= 0 and self.desirable + self.undesirable > 0):
            raise ConfigError(
                f"{self.name}: desirable={self.desirable}, undesirable={self.undesirable}; wanted weights of 0 or "
                "more, and one above 0"
            )
        if self.epochs < 1:
            raise ConfigError(f"{self.name}: epochs is {self.epochs}; a batch is used at least once")

    @property
    def needs(self) -> frozenset[Need]:
        return frozenset({"reference"} if self.reward.uses_reference else ())

    @torch.no_grad()
    def prepare(self, batch: Batch, models: Models, *, one_update: bool = False) -> Batch:
        """π_ref and z."""
        batch = knowing_reference(batch, models, self.needs)
        z, other = 0.0, mismatched(batch, partners(batch))
        if other is not None:
            other = knowing_reference(other, models, self.needs)
            z = max(float(self.reward(models.policy(other), other).mean(dtype=torch.float64)), 0.0)
        return replace(batch, offset=torch.full_like(batch.rewards[:, 0], z))

    def loss(self, out: PolicyOutput, batch: Batch, size: Size) -> Loss:
        if batch.offset is None:
            raise ValueError(f"{self.name}: the batch has no offset; call prepare(batch, models) first")
        acts, good = batch.mask.any(1), row_rewards(batch.rewards, batch.mask) > 0
        rewards = self.reward(out, batch)
        right = torch.where(good, rewards - batch.offset, batch.offset - rewards)

        def mean(values: Tensor) -> Float[Tensor, ""]:
            return torch.where(acts, values, 0.0).sum() / max(size.sequences, 1)

        missing = torch.sigmoid(-right)
        value = mean(torch.where(good, self.desirable * missing, self.undesirable * missing))
        stats = {"loss": value, "rewards/accuracies": mean((right > 0).to(right.dtype)), "rewards/margins": mean(right)}
        return Loss(value, {name: stat.detach() for name, stat in stats.items()})

    def step(self, models: Models, mini: Batch, max_tokens: int, world: World) -> Mapping[str, float]:
        return models.step()

    def observe(self, batch: Batch) -> dict[str, float]:
        """z in nats per answer, and the share of desirable rows."""
        if batch.offset is None or not len(batch):
            return {}
        good = row_rewards(batch.rewards, batch.mask) > 0
        return {"z_ref": float(batch.offset[0]) / self.reward.beta, "frac_desirable": float(good.float().mean())}

    def too_far(self, stats: dict[str, float]) -> bool:
        return False

    def adapted(self, kl: float | None, sequences: int) -> Unpaired:
        return self

    @property
    def formula(self) -> str:
        return (
            f"1/N · Σ over rows  {self.desirable:g}·(1 − σ(r − z)) if desirable, "
            f"{self.undesirable:g}·(1 − σ(z − r)) if not  (N rows of the whole step)"
        )

    @property
    def baseline(self) -> str:
        return "z = max(0, mean r(x, y′)),  y′ the answer to another prompt of the step; no gradient, before the update"
