"""PPO as a value with a field for each piece that a paper may change."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace

import torch
from jaxtyping import Bool, Float
from torch import Tensor

from oneloop.algorithms.protocol import Need
from oneloop.algorithms.trust_region import TrustRegion
from oneloop.batch import Batch, Loss, PolicyOutput, Size
from oneloop.errors import ConfigError
from oneloop.objective.advantage import AdvantageEstimator, row_rewards, scored
from oneloop.objective.aggregate import Aggregate, TokenMean
from oneloop.objective.correction import TruncatedImportance, logprob_gap
from oneloop.objective.critic import explained_variance, value_loss
from oneloop.objective.divergence import KL, kl_estimate
from oneloop.objective.pieces import check_pieces
from oneloop.objective.select import GroupFilter, OverlongFilter
from oneloop.objective.shaping import RewardShaping, last_action
from oneloop.objective.surrogate import Surrogate, bounded_log_ratio
from oneloop.ports import Models, World


@dataclass(frozen=True)
class Critic:
    """A learned baseline V_φ.

    Args:
        coef: weight of its loss, which includes the ½.
        clip: values may move this far from the old ones; None deletes the clip.
        huber: δ of a Huber loss instead of the square.
    """

    coef: float = 0.5
    clip: float | None = 0.2
    huber: float | None = None

    @property
    def formula(self) -> str:
        error = "½(V − R̂)²" if self.huber is None else f"Huber_{self.huber:g}(V − R̂)"
        clip = "" if self.clip is None else f", the larger of V and clip(V, V_old ± {self.clip:g})"
        return f"+ {self.coef:g}·{error}{clip},  R̂ = Âₜ + V_old(sₜ) before whitening"


@dataclass(frozen=True)
class PolicyGradient:
    """One field for each piece of PPO that a paper may change; None means deleted.

    L(θ) = Σ_t w_t [ surrogate(ρ_t, Â_t) + β·KL_t − c_H·H_t ] + c_v·Σ_t w_t value_loss_t

    With a trust region the last term is no part of the loss, whose gradient is the policy's alone: the region fits
    the critic.
    """

    advantage: AdvantageEstimator
    surrogate: Surrogate
    aggregate: Aggregate
    kl: KL | None = None
    critic: Critic | None = None
    keep: GroupFilter | None = None
    """Which groups are worth training on; the others are drawn again (dynamic sampling)."""
    shape: RewardShaping | None = None
    """Changes the reward of a whole response."""
    correction: TruncatedImportance | None = None
    """π_old/μ, when sampler and trainer differ."""
    entropy: float = 0.0
    """c_H, the weight of the entropy bonus."""
    epochs: int = 1
    """K, passes over each batch."""
    drop: OverlongFilter | None = None
    """Which rows give no loss, although they count in their group's baseline."""
    target_kl: float | None = None
    """Drop the rest of the epochs when the approximate KL(π_old ‖ π_θ), nats per token, exceeds this."""
    region: TrustRegion | None = None
    """Bounds each step of the policy, and takes it in the place of the optimizer."""
    name: str = "custom"

    def __post_init__(self) -> None:
        check_pieces(advantage=self.advantage, surrogate=self.surrogate, aggregate=self.aggregate)
        if self.advantage.uses_values and self.critic is None:
            raise ConfigError(f"{self.name}: {self.advantage} needs a critic. Fix: critic=Critic(), or LeaveOneOut()")
        if self.critic is not None and not self.advantage.uses_values:
            raise ConfigError(f"{self.name}: {self.advantage} never reads the critic's values. Fix: critic=None")
        if self.epochs < 1:
            raise ConfigError(f"{self.name}: epochs is {self.epochs}; a batch is used at least once")
        if self.region is not None and self.epochs > 1:
            raise ConfigError(
                f"{self.name}: epochs is {self.epochs}, and each would have a trust region of its own, ever farther "
                "from the policy that drew the batch. Fix: epochs=1, and a larger region.max_kl for longer steps"
            )

    @property
    def needs(self) -> frozenset[Need]:
        """The critic if there is one; the reference only if its KL can ever count."""
        kl = self.kl is not None and (self.kl.coef > 0 or self.kl.adaptive is not None)
        wanted: dict[Need, bool] = {"reference": kl, "values": self.critic is not None}
        return frozenset(need for need, is_needed in wanted.items() if is_needed)

    @torch.no_grad()
    def prepare(self, batch: Batch, models: Models, *, one_update: bool = False) -> Batch:
        bootstrap = None
        if self.critic is not None:
            out = models.policy(batch)
            batch = replace(batch, old_logprobs=out.logprobs.detach(), values=out.values)
            bootstrap = _bootstrap(out, batch)
        elif self.asks_old(one_update) and batch.old_logprobs is None:
            batch = replace(batch, old_logprobs=models.policy(batch).logprobs.detach())
        if "reference" in self.needs:
            batch = replace(batch, ref_logprobs=models.reference(batch))
        rewards = self._rewards(batch)
        credit = self.advantage(rewards, batch.values, batch.mask, batch.group, bootstrap=bootstrap)
        mask = scored(batch.rewards, batch.mask)  # a row without a score has no loss either: no KL, no value error
        mask = mask if self.drop is None else self.drop(mask, batch.truncated)
        advantages = torch.where(mask, credit.advantages, 0.0)
        inert = ~mask.any(1)
        if one_update and self._needs_advantage:
            inert = inert | ~advantages.any(1)
        old = batch.old_logprobs if self.asks_old(one_update) else None
        return replace(batch, advantages=advantages, returns=credit.returns, mask=mask, old_logprobs=old, inert=inert)

    @property
    def _needs_advantage(self) -> bool:
        """Whether a row without advantage has neither loss nor gradient: no other term reaches it, no bound sees it.

        Asked for the only update of a batch. A later one moves such a row's ratios, which `approx_kl` must see.
        """
        pulled = self.kl is not None and self.kl.at == "loss" and "reference" in self.needs
        return self.surrogate.proportional and not (pulled or self.entropy or self.critic or self.region)

    def asks_old(self, one_update: bool) -> bool:
        """Whether π_old is needed before the first forward pass, or differs from what that pass will say."""
        at_reward = self.kl is not None and self.kl.at == "reward" and "reference" in self.needs
        compares = self.surrogate.uses_old or self.correction is not None
        return at_reward or (compares and not one_update)

    def _rewards(self, batch: Batch) -> Float[Tensor, "B T"]:
        """Per-token rewards with the KL and the shaping in them."""
        rewards = torch.where(batch.mask, batch.rewards, 0.0)
        if self.shape is not None:
            total = row_rewards(rewards, batch.mask)
            change = self.shape(total, batch.mask.sum(1)) - total
            rewards = torch.where(last_action(batch.mask), rewards + change[:, None], rewards)
        if self.kl is not None and self.kl.at == "reward" and batch.ref_logprobs is not None:
            rewards = rewards - self.kl.coef * self._kl(batch.old_logprobs, batch)
        return rewards

    def _kl(self, logprobs: Tensor | None, batch: Batch) -> Float[Tensor, "B T"]:
        assert self.kl is not None and logprobs is not None and batch.ref_logprobs is not None
        log_ratio = torch.where(batch.mask, logprobs, 0.0) - torch.where(batch.mask, batch.ref_logprobs, 0.0)
        return kl_estimate(log_ratio, self.kl.estimator)

    def loss(self, out: PolicyOutput, batch: Batch, size: Size) -> Loss:
        if batch.advantages is None:
            raise ValueError(f"{self.name}: the batch has no advantages; call prepare(batch, models) first")
        old = out.logprobs.detach() if batch.old_logprobs is None else batch.old_logprobs
        value, gradient_zero = self._policy_loss(out, old, batch, size)
        stats = self._stats(out, old, gradient_zero, batch, size)
        if self.critic is not None:
            error = self._critic_loss(out.values, batch, size)
            stats["value_loss"] = error.detach()
            value = value + self.critic.coef * error if self.region is None else value
        return Loss(value, {"loss": value.detach(), **stats})

    def _policy_loss(
        self, out: PolicyOutput, old: Float[Tensor, "B T"], batch: Batch, size: Size
    ) -> tuple[Float[Tensor, ""], Bool[Tensor, "B T"]]:
        """What the policy has of the loss, and where its gradient is 0 because of a clip."""
        assert batch.advantages is not None
        mask, weights = batch.mask, self.aggregate(batch.mask, size)
        per_token, gradient_zero = self.surrogate(out.logprobs, old, batch.advantages, mask)
        if self.correction is not None and batch.rollout_logprobs is not None:
            per_token = torch.where(mask, self.correction(old, batch.rollout_logprobs), 0.0) * per_token
        if self.kl is not None and self.kl.at == "loss" and batch.ref_logprobs is not None:
            per_token = per_token + self.kl.coef * self._kl(out.logprobs, batch)
        if self.entropy:
            if out.entropy is None:
                raise ValueError(f"{self.name}: the entropy bonus needs PolicyOutput.entropy, with its gradient")
            per_token = per_token - self.entropy * torch.where(mask, out.entropy, 0.0)
        return (weights * per_token).sum(), gradient_zero

    def _critic_loss(self, said: Tensor | None, batch: Batch, size: Size) -> Float[Tensor, ""]:
        """Σ_t w_t value_loss_t"""
        if self.critic is None or said is None or batch.values is None or batch.returns is None:
            raise ValueError(f"{self.name}: the critic's values are missing from the model's output or the batch")
        values, old, returns = (torch.where(batch.mask, x, 0.0) for x in (said, batch.values, batch.returns))
        error = value_loss(values, old, returns, clip=self.critic.clip, huber=self.critic.huber)
        return (self.aggregate(batch.mask, size) * error).sum()

    def step(self, models: Models, mini: Batch, max_tokens: int, world: World) -> Mapping[str, float]:
        if self.region is None:
            return models.step()
        size, critic = mini.size, self.critic

        def loss(out: PolicyOutput, rows: Batch) -> Float[Tensor, ""]:
            assert rows.old_logprobs is not None
            return self._policy_loss(out, rows.old_logprobs, rows, size)[0]

        def error(values: Tensor | None, rows: Batch) -> Float[Tensor, ""]:
            assert critic is not None
            return critic.coef * self._critic_loss(values, rows, size)

        return self.region.step(models, mini, max_tokens, world, loss, error if critic else None)

    def _stats(
        self, out: PolicyOutput, old: Tensor, gradient_zero: Bool[Tensor, "B T"], batch: Batch, size: Size
    ) -> dict[str, Tensor]:
        mask, each = batch.mask, TokenMean()(batch.mask, Size(size.seen, size.sequences))
        log_ratio = bounded_log_ratio(out.logprobs.detach(), old, mask)
        stats = {}
        if out.entropy is not None:
            stats["entropy"] = (each * torch.where(mask, out.entropy.detach(), 0.0)).sum()
        if batch.rollout_logprobs is not None and not torch.equal(old, batch.rollout_logprobs):
            stats |= logprob_gap(old, batch.rollout_logprobs, mask, each)  # nothing to say where one is the other
        if self.surrogate.uses_old:
            stats |= {
                # the tokens were drawn from π_old, so x = log π_old − log π_θ
                "approx_kl": (each * kl_estimate(-log_ratio, "k3")).sum(),
                "clip/gradient_zero": (each * gradient_zero).sum(),
                "ratio/max": log_ratio.exp().amax() if log_ratio.numel() else torch.ones(()),
            }
            if outside := getattr(self.surrogate, "outside_band", None):  # somebody's own need not have one
                stats["clip/outside_band"] = (each * outside(log_ratio, mask)).sum()
        if self.kl is not None and batch.ref_logprobs is not None:
            trained = batch.old_logprobs if self.kl.at == "reward" else out.logprobs.detach()
            stats["kl"] = (each * self._kl(trained, batch)).sum()
        return stats

    def observe(self, batch: Batch) -> dict[str, float]:
        facts = {}
        if batch.values is not None and batch.returns is not None:
            facts["explained_variance"] = float(explained_variance(batch.values, batch.returns, batch.mask))
        if self.kl is not None:
            facts["kl_coef"] = self.kl.coef
        return facts

    def too_far(self, stats: dict[str, float]) -> bool:
        return self.target_kl is not None and stats.get("approx_kl", 0.0) > self.target_kl

    def adapted(self, kl: float | None, sequences: int) -> PolicyGradient:
        return self if self.kl is None or kl is None else replace(self, kl=self.kl.adapted(kl, sequences))


def _bootstrap(out: PolicyOutput, batch: Batch) -> Float[Tensor, " B"] | None:
    """V after the last token of truncated rows, 0 for terminated ones."""
    if out.final_values is None:
        if bool(batch.truncated.any()):
            raise ValueError("a truncated row needs PolicyOutput.final_values: V after its last token, to bootstrap")
        return None
    return torch.where(batch.truncated, out.final_values, 0.0)
