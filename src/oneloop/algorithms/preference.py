"""Learning from pairs: DPO, its relatives, and reward models."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

import torch
from jaxtyping import Float, Int
from torch import Tensor

from oneloop.algorithms.protocol import Need, knowing_reference
from oneloop.batch import Batch, Loss, PolicyOutput, Size
from oneloop.errors import ConfigError
from oneloop.objective.advantage import row_rewards
from oneloop.objective.preference import Link, LogSigmoid, PairReward, RewardHead, mean_logprobs, pairs
from oneloop.ports import Models, World


@dataclass(frozen=True)
class Preference:
    """Learning from pairs.

    L(θ) = 1/P · Σ over pairs [ λ·link(r_w − r_l − m) + sft·NLL_w + c·(r_w + r_l)² ],   NLL_w = −1/|y_w| Σ_t log π_θ

    P pairs of the whole step; m is the pair's own margin, `Batch.offset`, where the data brings one. An answer without
    an action is half of a pair like any other: its log-probs add up to 0.

    Reference: the SFT term ORPO, arXiv:2403.07691, eq. 6, and arXiv:2404.19733, eq. 2; the pair's margin Llama 2,
    arXiv:2307.09288, eq. 2; centring arXiv:2312.09244, section 3.
    """

    reward: PairReward
    link: Link = field(default_factory=LogSigmoid)
    weight: float = 1.0
    """λ, of the preference term."""
    sft: float = 0.0
    """Weight of the mean negative log-prob per token of the chosen answer."""
    center: float = 0.0
    """c, the pull of a pair's rewards towards a sum of 0: margins alone leave a reward model's zero free."""
    epochs: int = 1
    name: str = "custom"

    def __post_init__(self) -> None:
        for name in ("weight", "sft", "center"):
            if not getattr(self, name) >= 0:
                raise ConfigError(f"{self.name}: {name} is {getattr(self, name)}; wanted 0 or more")
        if self.weight == self.sft == 0:
            raise ConfigError(f"{self.name}: weight and sft are both 0, so that nothing is learned")
        if self.sft and isinstance(self.reward, RewardHead):
            raise ConfigError(f"{self.name}: sft={self.sft:g}, but a reward model has no log-probs. Fix: sft=0")
        if self.epochs < 1:
            raise ConfigError(f"{self.name}: epochs is {self.epochs}; a batch is used at least once")

    @property
    def needs(self) -> frozenset[Need]:
        return frozenset({"reference"} if self.reward.uses_reference else ())

    @torch.no_grad()
    def prepare(self, batch: Batch, models: Models, *, one_update: bool = False) -> Batch:
        """π_ref."""
        return knowing_reference(batch, models, self.needs)

    def loss(self, out: PolicyOutput, batch: Batch, size: Size) -> Loss:
        chosen, rejected = pairs(batch.group, labels(batch))
        rewards = self.reward(out, batch)
        margin = rewards[chosen] - rewards[rejected]
        lead = leads(margin, batch, chosen, rejected)
        share = 1 / max(size.pairs, 0.5)  # one over the pairs of the whole step
        value = self.weight * share * self.link(lead, self.reward.beta).sum()
        stats = {
            "rewards/accuracies": share * (margin > 0).sum(),
            "rewards/margins": share * margin.sum(),
            "rewards/chosen": share * rewards[chosen].sum(),
            "rewards/rejected": share * rewards[rejected].sum(),
        }
        if not isinstance(self.reward, RewardHead):  # which has no log-probs
            total = torch.where(batch.mask, out.logprobs, 0.0).sum(1)
            stats |= {"logps/chosen": share * total[chosen].sum(), "logps/rejected": share * total[rejected].sum()}
        if self.sft:
            stats["nll_loss"] = -share * mean_logprobs(out, batch)[chosen].sum()
            value = value + self.sft * stats["nll_loss"]
        if self.center:
            value = value + self.center * share * (rewards[chosen] + rewards[rejected]).square().sum()
        return Loss(value, {name: stat.detach() for name, stat in ({"loss": value} | stats).items()})

    def step(self, models: Models, mini: Batch, max_tokens: int, world: World) -> Mapping[str, float]:
        return models.step()

    def observe(self, batch: Batch) -> dict[str, float]:
        return {}

    def too_far(self, stats: dict[str, float]) -> bool:
        return False

    def adapted(self, kl: float | None, sequences: int) -> Preference:
        return self


def leads(
    margin: Float[Tensor, " P"], batch: Batch, chosen: Int[Tensor, " P"], rejected: Int[Tensor, " P"]
) -> Float[Tensor, " P"]:
    """What the link sees: the margin without what the data says it should be."""
    return margin if batch.offset is None else margin - (batch.offset[chosen] - batch.offset[rejected])


def labels(batch: Batch) -> Float[Tensor, " B"]:
    """Which answer is the better one; an empty one has no slot that says so, and is what its partner is not."""
    return torch.where(batch.mask.any(1), row_rewards(batch.rewards, batch.mask), 0.5)
