"""The models in memory, behind the loop's `Models` port: forward passes, the optimizer step and its safety check."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass, replace
from functools import partial
from math import isfinite, nan
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor, nn
from transformers import PreTrainedModel

from oneloop.batch import Batch, PolicyOutput
from oneloop.errors import DivergedError
from oneloop.forward.probe import plain_head
from oneloop.forward.reader import (
    Backbone,
    CausalReader,
    States,
    final_values_of,
    reward_scores,
    score_only,
    values_of,
)
from oneloop.model.idle import Guest
from oneloop.model.lora import adapters_off, has_adapters
from oneloop.model.optimizer import MOST_SKIPS, Optimization, decayed, optimizer_of
from oneloop.model.sharded import Entered, Root, Unsharded, own, whole
from oneloop.objective.distributions import Categorical
from oneloop.objective.logprobs import Entropy
from oneloop.objective.natural import taken
from oneloop.ports import SingleProcess, World
from oneloop.room import Room

WITHOUT_CRITIC = ("rollout", "evaluation")
"""Phases of a step."""
_NO_SHAPE = ("_name_or_path", "transformers_version", "architectures", "dtype", "torch_dtype")


@dataclass(frozen=True)
class Critic:
    """V_φ: a head on the policy's backbone, or on its own."""

    head: nn.Module
    backbone: PreTrainedModel | None = None
    """None: the policy's."""

    def parameters(self) -> Iterator[tuple[str, nn.Parameter]]:
        return _trained(self.head if self.backbone is None else self.backbone)


class Learner:
    """Implements `oneloop.ports.Models`, `TwiceDifferentiable` and `AskedForValues`.

    Dropout stays off throughout: π_θ must be one function, or the ratio to π_old is noise.

    Args:
        policy: a causal language model, or a reward model with a `score` head; with adapters, they alone are trained.
        reference: frozen; None when no KL asks for it, or when the policy with its adapters off is π_ref.
        temperature: that of sampling, applied to every log-prob.
        max_tokens: most tokens of one pass without gradient.
        entropy: what a training pass says about it. "gradient": the loss needs it, in every pass.
        recompute: layers are computed again for gradients: less memory, more time, the same numbers.
        compiler: backend of torch.compile for the layers of every pass; None: they run as they are.
        dtype: bfloat16 runs the forward passes in autocast; weights and moments stay float32.
        offload_idle: the reference and a critic of its own, with its moments, are on the policy's device only while
            they are used, or until `phase` tells of one without them.
        shard: cuts models over the ranks, once they have been tried out; None: each rank holds a replica.
        world: the ranks. Passes without gradient are dealt to them, and gradients are added up.
        natural: the policy is moved by a trust region: the optimizer has no moments of it.
        told: that memory ran out in a pass without gradient, which was made again in smaller ones.
    """

    def __init__(
        self,
        policy: PreTrainedModel,
        *,
        optimization: Optimization,
        reference: PreTrainedModel | None = None,
        critic: Critic | None = None,
        temperature: float = 1.0,
        max_tokens: int = 16384,
        dtype: torch.dtype = torch.float32,
        entropy: Entropy = "value",
        recompute: bool = False,
        compiler: str | None = None,
        offload_idle: bool = False,
        shard: Entered | None = None,
        world: World = SingleProcess(),  # noqa: B008
        natural: bool = False,
        told: Callable[[str], None] = lambda text: None,
    ) -> None:
        self.model, self.critic, self.optimization = policy.eval(), critic, optimization
        self.dtype, self.device = dtype, policy.device
        self._room = Room(max_tokens, world.ranks == 1, told)
        self.updates = 0
        self.skipped_in_a_row = 0
        self._world, self._natural = world, natural
        self._scores = hasattr(policy, "score")
        self._entropy: Entropy = entropy
        plain = not self._scores and plain_head(policy)
        how: dict[str, Any] = {"recompute": recompute, "compiler": compiler}
        self.sharded = shard is not None
        backbone = partial(Backbone.of, dtype=dtype, sharded=self.sharded, **how)
        self._backbone = backbone(policy) if plain or self._scores else Backbone(policy, False, **how)
        self._backbone.check_compiled(dtype)
        self.note = "" if self._backbone.packs else _slow_note(policy, plain or self._scores)
        self._read = CausalReader(self._backbone, temperature, plain)
        self._read_reference = None
        self._with_reference: AbstractContextManager[None] = nullcontext()
        if reference is not None:
            if offload_idle:
                self._with_reference = Guest(reference.to, self.device)  # pyright: ignore[reportArgumentType]
            with self._with_reference:
                reference = reference.eval().requires_grad_(False)
                self._read_reference = self._reader_of(reference, policy, temperature, plain)
        elif has_adapters(policy):
            self._read_reference = self._read
        self._critic_backbone, self._critic_guest = self._backbone, None
        if critic is not None and critic.backbone is not None:
            self._critic_backbone = backbone(critic.backbone)
            self._critic_backbone.check_compiled(dtype)
            self._critic_guest = Guest(self._move_critic, self.device, here=True) if offload_idle else None
        self._enter(shard or Unsharded, reference)
        self.optimizer = self._make_optimizer()

    def _enter(self, shard: Entered, reference: PreTrainedModel | None) -> None:
        """What a pass enters its modules through."""
        critic = self.critic
        heads = (critic.head,) if critic is not None and critic.backbone is None else ()
        self._root = self._reference_root = shard(self.model, *heads)
        self._roots: list[Root] = [self._root]
        if reference is not None:
            self._reference_root = shard(reference)
            self._roots.append(self._reference_root)
        if critic is not None and critic.backbone is not None:
            self._critic_root = shard(critic.backbone)
            self._roots.append(self._critic_root)

    @property
    def writers(self) -> World:
        """The ranks that save it together: all of them where it is cut, else the first by itself."""
        return self._world if self.sharded else SingleProcess()

    def _reshard(self) -> None:
        for root in self._roots:
            root.cut_again()

    def _reader_of(
        self, reference: PreTrainedModel, policy: PreTrainedModel, temperature: float, plain: bool
    ) -> CausalReader:
        """As the policy is read, whose start it was; a teacher of another shape as its own trials allow."""
        if _shape(reference) == _shape(policy):
            return CausalReader(replace(self._backbone, model=reference), temperature, plain)
        plain = plain_head(reference)
        compiler = self._backbone.compiler
        backbone = (
            Backbone.of(reference, self.dtype, compiler=compiler, sharded=self.sharded)
            if plain
            else Backbone(reference, False, compiler=compiler)
        )
        backbone.check_compiled(self.dtype)
        return CausalReader(backbone, temperature, plain)

    @property
    def max_tokens(self) -> int:
        """Most tokens of one pass without gradient."""
        return self._room.tokens

    def check_weights(self) -> None:
        """Raises: DivergedError for weights that are no numbers: a checkpoint of them is worth nothing.

        Of shares, each rank looks at its own.
        """
        for name, parameter in self.named_parameters().items():
            if not bool(torch.isfinite(own(parameter.detach())).all()):
                raise DivergedError(
                    f"{name} holds numbers that are not finite, and is not saved. Fix: go on from an older checkpoint "
                    "with a lower --learning-rate"
                )

    def _make_optimizer(self) -> torch.optim.Optimizer:
        plan = self.optimization
        groups = [
            {"params": picked, "lr": rate, "rate": rate, "weight_decay": decay}
            for named, rate in (
                (_trained(self.model), plan.learning_rate),
                (self._critic_parameters(), plan.critic_learning_rate),
            )
            for decay, picked in decayed(named, plan.weight_decay)
            if picked
        ]
        return optimizer_of(plan.optimizer, groups, self.device)

    def phase(self, name: str) -> None:
        """A part of a step begins: answers are drawn without the critic."""
        if self._critic_guest is not None and name in WITHOUT_CRITIC:
            self._critic_guest.go()

    def _move_critic(self, device: torch.device) -> None:
        """The critic and its moments. The optimizer keeps its counts of steps where they are."""
        assert self.critic is not None and self.critic.backbone is not None
        for parameter in self.critic.backbone.to(device).parameters():  # pyright: ignore[reportArgumentType]
            state = self.optimizer.state.get(parameter, {})
            state |= {key: value.to(device) for key, value in state.items() if key != "step"}

    def _critic_parameters(self) -> Iterator[tuple[str, nn.Parameter]]:
        return iter(()) if self.critic is None else self.critic.parameters()

    def named_parameters(self) -> dict[str, nn.Parameter]:
        """Everything that is trained, by a name that stays."""
        named = {f"policy.{name}": parameter for name, parameter in _trained(self.model)}
        return named | {f"critic.{name}": parameter for name, parameter in self._critic_parameters()}

    def optimized_parameters(self) -> dict[str, nn.Parameter]:
        """Those of `named_parameters` that the optimizer moves, and has moments of."""
        of = "critic." if self._natural else ""
        return {name: parameter for name, parameter in self.named_parameters().items() if name.startswith(of)}

    def policy_parameters(self) -> list[nn.Parameter]:
        return [parameter for _, parameter in _trained(self.model)]

    def take_gradient(self) -> Float[Tensor, " n"]:
        return taken(self.policy_parameters())

    def distribution(self, batch: Batch) -> Categorical:
        return self._read.distribution(batch)

    def policy(self, batch: Batch) -> PolicyOutput:
        if torch.is_grad_enabled():
            return self._forward(batch, self._entropy)
        entropy: Entropy = "value" if self._entropy == "gradient" else "none"
        return self._by_microbatch(batch, lambda micro: self._forward(micro, entropy))

    @torch.no_grad()
    def reference(self, batch: Batch) -> Float[Tensor, "B T"]:
        if self._read_reference is None:
            raise ValueError("this run has no reference model: its algorithm's `needs` does not name one")
        read = self._read_reference

        def forward(micro: Batch) -> PolicyOutput:
            with self._precision():
                return self._reference_root(lambda: PolicyOutput(read(micro, "none")[0]))

        with self._with_reference, adapters_off(self.model) if read is self._read else nullcontext():
            return self._by_microbatch(batch, forward).logprobs

    def _forward(self, batch: Batch, entropy: Entropy) -> PolicyOutput:
        with self._precision():
            out = self._root(partial(self._read_out, batch, entropy))
            if self.critic is None or self.critic.backbone is None:
                return out
            values, last = self._own_values(batch)
            return out._replace(values=values, final_values=last)

    def critic_values(self, batch: Batch) -> Float[Tensor, "B T"] | None:
        """V(s_t), with gradient: of a critic with a backbone of its own without the policy's pass."""
        if self.critic is None or self.critic.backbone is None:
            return self.policy(batch).values
        with self._precision():
            return self._own_values(batch)[0]

    def _own_values(self, batch: Batch) -> tuple[Tensor, Tensor]:
        """Of a critic that has a backbone of its own."""
        if self._critic_guest is not None:
            self._critic_guest.come()
        return self._critic_root(lambda: self._values(self._critic_backbone(batch), batch))

    def _read_out(self, batch: Batch, entropy: Entropy) -> PolicyOutput:
        if self._scores:
            return score_only(reward_scores(self._backbone, batch), batch)
        shared = self.critic is not None and self.critic.backbone is None
        logprobs, entropies, states = self._read(batch, entropy, critic=shared)
        if not shared:
            return PolicyOutput(logprobs, entropies)
        values, last = self._values(self._backbone(batch) if states is None else states, batch)
        return PolicyOutput(logprobs, entropies, values=values, final_values=last)

    def _values(self, states: States, batch: Batch) -> tuple[Tensor, Tensor]:
        """V at every action, and after the last one."""
        assert self.critic is not None
        if self._natural and self.critic.backbone is None:  # the trunk is the trust region's: the head alone is fitted
            states = replace(states, flat=states.flat.detach())
        return values_of(self.critic.head, states), final_values_of(self.critic.head, states, batch.lengths)

    def _by_microbatch(self, batch: Batch, forward: Callable[[Batch], PolicyOutput]) -> PolicyOutput:
        """`forward` over microbatches without gradient, dealt to the ranks, put back in the order of the rows."""
        return self._room(partial(self._dealt, batch, forward))

    def _dealt(self, batch: Batch, forward: Callable[[Batch], PolicyOutput], max_tokens: int) -> PolicyOutput:
        pieces, tables = list(batch.microbatch_rows(max_tokens)), dict[str, Tensor]()
        for rows in self._world.share(pieces):
            # a rank with one fewer goes along with the first once more, and leaves its zeros for whoever has it
            out = forward(batch.rows(pieces[0] if rows is None else rows).trimmed())
            for name, value in out._asdict().items():
                if value is None:
                    continue
                shape = batch.mask.shape if value.dim() == 2 else batch.mask.shape[:1]
                table = tables.setdefault(name, torch.zeros(shape, device=value.device, dtype=value.dtype))
                if rows is not None:
                    table[(rows, slice(value.shape[1])) if value.dim() == 2 else rows] = value
        # in here, where adapters are off: peft turns them on again in the parameters that stand there then
        self._reshard()
        return PolicyOutput(**{name: self._world.add(table) for name, table in tables.items()})

    def _precision(self):
        if self.dtype == torch.float32:
            return nullcontext()
        # what autocast keeps of a layer's weights would stay until the pass is over; layers that are gathered may not
        return torch.autocast(self.device.type, dtype=self.dtype, cache_enabled=not self.sharded)

    def step(self) -> dict[str, float]:
        parameters = list(self.named_parameters().values())
        self._add_gradients(parameters)
        norm = float(whole(nn.utils.clip_grad_norm_(parameters, self.optimization.max_grad_norm)))
        if not isfinite(norm):
            return self.skip()
        self.skipped_in_a_row = 0
        factor = self.optimization.factor(self.updates)
        for group in self.optimizer.param_groups:
            group["lr"] = group["rate"] * factor
        self.optimizer.step()
        self.optimizer.zero_grad()
        self.updates += 1
        return {"grad_norm": norm, "learning_rate": self.optimization.learning_rate * factor}

    def _add_gradients(self, parameters: Sequence[nn.Parameter]) -> None:
        """Of all ranks. The loss is weighted by the size of the whole step, so they are added up, never averaged.

        A parameter that no rank's passes reached stays without a gradient, as in one process.
        """
        if self._world.ranks == 1 or self.sharded:  # backward has added up those of shares
            return
        reached = [parameter.grad is not None for parameter in parameters]
        counts = self._world.add(torch.tensor(reached, dtype=torch.float32, device=self.device))
        for parameter, count in zip(parameters, counts.tolist(), strict=True):
            if count:
                parameter.grad = torch.zeros_like(parameter) if parameter.grad is None else parameter.grad
                self._world.add(parameter.grad)

    def forget(self) -> None:
        """Drop the gradient that was added up, and what the device keeps of memory that was free."""
        self.optimizer.zero_grad()
        if self.device.type == "cuda":
            torch.cuda.empty_cache()

    def skip(self) -> dict[str, float]:
        """Leave weights and moments as they are; give up when it keeps happening."""
        self.optimizer.zero_grad()
        self.skipped_in_a_row += 1
        if self.skipped_in_a_row >= MOST_SKIPS:
            raise DivergedError(
                f"numbers were not finite in {MOST_SKIPS} optimizer steps in a row; weights are those before the "
                "first. Fix: look at the batches in skipped/, which name the first number that is none; a lower "
                "--learning-rate where it came with training"
            )
        return {"grad_norm": nan, "skipped_steps": 1}


def _trained(module: nn.Module) -> Iterator[tuple[str, nn.Parameter]]:
    return ((name, parameter) for name, parameter in module.named_parameters() if parameter.requires_grad)


def _shape(model: PreTrainedModel) -> dict[str, Any]:
    """Everything that its configuration says of how it computes."""
    return {name: value for name, value in model.config.to_dict().items() if name not in _NO_SHAPE}


def _slow_note(model: PreTrainedModel, plain: bool) -> str:
    name = type(model).__name__
    if plain:
        return (
            f"{name}'s attention cannot run over rows laid end to end, so rows are padded to the longest of their "
            "microbatch: correct, but slower; a smaller --max-tokens holds the memory down"
        )
    return (
        f"{name}'s logits are more than its output embedding times the last hidden state, so log-probs are taken from "
        "whole-vocabulary logits of padded rows: correct, but slower and with more memory"
    )
