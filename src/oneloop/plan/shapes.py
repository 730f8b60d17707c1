"""The models of a run without their weights, each as the run would hold it."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cache, partial
from typing import NamedTuple

import torch
from torch import nn
from transformers import PreTrainedModel

from oneloop.algorithms import Need
from oneloop.config import Run
from oneloop.model.frozen import hold_in
from oneloop.model.lora import Lora, keep_frozen_in
from oneloop.plan.rehearsal import Cast, Role, saved_in, shapes_only, size_of, weightless
from oneloop.recipes.models import dtype_of, lora_of
from oneloop.recipes.resolve import Algorithm, entropy_of, kind_of, reference_from


class Weights(NamedTuple):
    """Bytes of a model's parameters."""

    all: int
    trained: int

    @classmethod
    def of(cls, model: nn.Module | None) -> Weights:
        return cls(size_of(model), size_of(model, trained=True))


@dataclass(frozen=True)
class Shapes:
    """The models of a run without their weights."""

    cast: Cast
    reference: PreTrainedModel | None
    teacher: Cast | None
    """The reference where it is another model than the policy was, with a forward pass of its own size."""
    reward: Cast | None

    @property
    def policy(self) -> Weights:
        return Weights.of(self.cast.policy)

    @property
    def critic_module(self) -> nn.Module | None:
        """A critic of its own with its head, or the head alone."""
        return self.cast.critic or self.cast.critic_head

    @property
    def critic(self) -> Weights:
        return Weights.of(self.critic_module)


def kind_of_device(run: Run) -> str:
    return "cuda" if run.device.startswith("cuda") else "cpu"


def shapes_of(run: Run, algorithm: Algorithm) -> Shapes:
    needs: frozenset[Need] = algorithm.needs
    trained = partial(_trained, run.model, lora=lora_of(run), dtype=dtype_of(run))
    policy = trained("reward model" if run.algorithm == "reward_model" else "policy")
    critic = head = None
    if "values" in needs and run.critic == "separate":
        critic = trained("critic")
        head = critic.score
    elif "values" in needs:
        with shapes_only():
            head = nn.Linear(policy.config.get_text_config().hidden_size, 1)
    cast = Cast(
        policy=policy,
        critic=critic,
        critic_head=head,  # pyright: ignore[reportArgumentType]
        temperature=run.temperature if kind_of(algorithm) == "prompts" else 1.0,
        entropy=entropy_of(run, algorithm),
        dtype=dtype_of(run),
        device=kind_of_device(run),
        recompute=run.gradient_checkpointing,
    )
    frozen = partial(_frozen, dtype=cast.dtype)
    beside = partial(Cast, dtype=cast.dtype, device=cast.device)
    reference = frozen(run.teacher or run.model, "policy") if reference_from(run, algorithm) == "model" else None
    teacher = beside(policy=reference) if run.teacher and reference is not None else None
    reward = beside(policy=frozen(run.reward_model, "reward model")) if run.reward_model else None
    return Shapes(cast, reference, teacher, reward)


_model = cache(weightless)


@cache
def _frozen(source: str, kind: Role, dtype: torch.dtype) -> PreTrainedModel:
    """As a run holds what it does not train. What loses nothing in `dtype` is taken to be what was saved in it."""
    if dtype == torch.float32:
        return _model(source, kind)
    lossless = saved_in(source) == dtype
    with shapes_only():
        return hold_in(weightless(source, kind), dtype, lambda weight: lossless)


@cache
def _trained(source: str, kind: Role, lora: Lora | None, dtype: torch.dtype) -> PreTrainedModel:
    """As a run holds what it trains."""
    if lora is None:
        return _model(source, kind)
    model = weightless(source, kind, lora)
    with shapes_only():
        keep_frozen_in(model, dtype)
    return model
