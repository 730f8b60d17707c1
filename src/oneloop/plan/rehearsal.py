"""A step without numbers: the real code on tensors that have shapes and no memory, while a ledger counts them.

Models are made from their configuration alone. What autograd keeps, what backward needs for a moment and what a forward
pass without gradient needs is then not estimated: it is what the operations of the run ask for.
"""

from __future__ import annotations

import warnings
import weakref
from collections.abc import Callable
from contextlib import nullcontext
from dataclasses import dataclass, field
from functools import cache, cached_property
from typing import Any, Literal

import torch
from torch import Tensor, nn
from torch._subclasses.fake_tensor import DataDependentOutputException, FakeTensor, FakeTensorMode
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves
from transformers import (
    AutoConfig,
    AutoModelForCausalLM,
    AutoModelForSequenceClassification,
    AutoModelForTokenClassification,
    PreTrainedModel,
)

from oneloop.batch import Batch, PolicyOutput
from oneloop.errors import ConfigError
from oneloop.forward import probe
from oneloop.forward.fused import Setting, settings_of
from oneloop.forward.reader import Backbone, CausalReader, final_values_of, reward_scores, score_only, values_of
from oneloop.model.load import load_policy, quiet
from oneloop.model.lora import Lora, add_adapters, base_of
from oneloop.objective.logprobs import HEAD_MEMORY, Entropy, HeadMemory
from oneloop.objective.natural import fisher_vector_product, flat
from oneloop.recipes.resolve import Algorithm

VECTORS = 5
"""Of a trust region's step, beside the product with the Fisher."""
Role = Literal["policy", "reward model", "critic"]
HEAD_CHANGES = ("final_logit_softcapping", "logits_scaling", "logit_scale", "output_multiplier_scale")
"""Settings of configurations whose logits are more than the output embedding times the last state."""


@cache
def shapes_only() -> FakeTensorMode:
    """Tensors made inside have a shape and no memory. All of them know each other: there is one mode."""
    return FakeTensorMode(allow_non_fake_inputs=True)


def weightless(source: str, kind: Role = "policy", lora: Lora | None = None) -> PreTrainedModel:
    """A model with every parameter's shape and no parameter's memory, from its configuration.

    Args:
        kind: "policy" (and reference), "reward model" or "critic": the classes that a run loads for them.
        lora: the adapters that it is trained with.

    Raises: ConfigError when there is no configuration, or when the architecture has no such head.
    """
    with torch.device("meta"), quiet():  # where a copy can be made, and a move to a device does nothing
        model = _from_config(source, kind)
        if lora is not None:
            add_adapters(model, lora, source)
    return _given_shapes(model).eval()


def _from_config(source: str, kind: Role) -> PreTrainedModel:
    if source.startswith("scratch:"):
        if kind != "policy":
            raise ConfigError(
                f"--model {source}: a {kind} of its own starts from saved weights. Fix: a trained folder"
                + (", or --critic shared" if kind == "critic" else "")
            )
        return load_policy(source)
    classes: dict[Role, Any] = {
        "policy": AutoModelForCausalLM,
        "reward model": AutoModelForSequenceClassification,
        "critic": AutoModelForTokenClassification,
    }
    options = {} if kind == "policy" else {"num_labels": 1}
    try:
        config = AutoConfig.from_pretrained(base_of(source), trust_remote_code=False, **options)
        model = classes[kind].from_config(config, dtype=torch.float32, trust_remote_code=False)
    except (OSError, ValueError) as error:
        reason = str(error).strip().splitlines()[0]
        raise ConfigError(
            f"--model {source}: no {kind} can be planned ({reason}). Fix: a folder with config.json, a hub id that "
            "can be reached, or scratch:tiny"
        ) from error
    if kind != "policy" and not isinstance(getattr(model, "score", None), nn.Linear):
        raise ConfigError(f"--model {source}: {type(model).__name__} has no `score` head for a {kind}")
    return model


def saved_in(source: str) -> torch.dtype:
    """The precision that a model's configuration says its weights were saved in; float32 where it says nothing."""
    if source.startswith("scratch:"):
        return torch.float32
    named = getattr(AutoConfig.from_pretrained(base_of(source), trust_remote_code=False), "dtype", None)
    return getattr(torch, named) if isinstance(named, str) else named or torch.float32


def _given_shapes(model: PreTrainedModel) -> PreTrainedModel:
    """The model with tensors of `shapes_only` for those on "meta", shared ones shared again."""
    made: dict[int, Tensor] = {}
    with shapes_only():
        for module in model.modules():
            _replace(module._parameters, made)
            _replace(module._buffers, made)
    return model


def _replace(table: dict[str, Any], made: dict[int, Tensor]) -> None:
    for name, value in table.items():
        if value is not None:
            table[name] = made.setdefault(id(value), _like(value))


def _like(value: Tensor) -> Tensor:
    empty = torch.empty(value.shape, dtype=value.dtype)
    return nn.Parameter(empty, value.requires_grad) if isinstance(value, nn.Parameter) else empty


def size_of(model: nn.Module | None, *, trained: bool = False) -> int:
    """Bytes of its parameters, or of those that are trained; tied ones once."""
    wanted = [] if model is None else [p for p in model.parameters() if p.requires_grad or not trained]
    return sum(parameter.nbytes for parameter in wanted)


class Ledger(TorchDispatchMode):
    """Counts the storages that operations make and drop, in bytes.

    Args:
        owners: modules whose parameters and buffers are counted elsewhere.
    """

    def __init__(self, *owners: nn.Module | None) -> None:
        super().__init__()
        self.live = self.most = 0
        known = [x for owner in owners if owner is not None for x in (*owner.parameters(), *owner.buffers())]
        self._kept = [x.untyped_storage() for x in known]
        self._seen: dict[int, Any] = {storage._cdata: storage for storage in self._kept}

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        try:
            out = func(*args, **(kwargs or {}))
        except DataDependentOutputException:
            if func is not torch.ops.aten._local_scalar_dense.default:
                raise
            return torch.zeros((), dtype=args[0].dtype).item()  # code that asks for a number goes on with 0
        for value in tree_leaves(out):
            if isinstance(value, FakeTensor):
                self._note(value.untyped_storage())
        return out

    def _note(self, storage: torch.UntypedStorage) -> None:
        key, size = storage._cdata, storage.nbytes()
        if key in self._seen:
            return

        def gone(_: object) -> None:
            self._seen.pop(key, None)
            self.live -= size

        self._seen[key] = weakref.ref(storage, gone)
        self.live += size
        self.most = max(self.most, self.live)


@dataclass(frozen=True)
class Update:
    """One optimizer step: gradients, and what forward and backward passes hold."""

    most: int
    """Bytes at the worst moment."""
    policy: int
    """What autograd keeps of the policy's largest microbatch, in bytes."""
    critic: int


@dataclass(frozen=True, kw_only=True)
class Cast:
    """The models of a run, weightless, in the roles that the learner gives them.

    Args:
        critic_head: V_φ's head; None without a critic.
        critic: its own backbone; None where it reads the policy's states.
    """

    policy: PreTrainedModel
    critic_head: nn.Module | None = None
    critic: PreTrainedModel | None = None
    temperature: float = 1.0
    entropy: Entropy = "value"
    dtype: torch.dtype = torch.float32
    device: str = "cpu"
    recompute: bool = False
    held: dict[str, int] = field(default_factory=dict)
    """Most bytes that a forward pass of each model left behind."""

    @cached_property
    def backbone(self) -> Backbone:
        return backbone_of(self.policy, self.device, self.recompute, self.dtype)

    @cached_property
    def critic_backbone(self) -> Backbone:
        critic = self.critic
        return self.backbone if critic is None else backbone_of(critic, self.device, self.recompute, self.dtype)

    @cached_property
    def fast(self) -> bool:
        """Whether the built-in engine decodes it with continuous batching."""
        return self.backbone.packs and plain_head(self.policy)

    @property
    def head_memory(self) -> HeadMemory:
        """Of the run's device: weightless tensors say that they are on the CPU."""
        return HEAD_MEMORY[self.device]

    def ledger(self) -> Ledger:
        assert self.backbone and self.critic_backbone  # tried out before anything is counted
        return Ledger(self.policy, self.critic, self.critic_head)

    def forward(self, batch: Batch, ledger: Ledger, entropy: Entropy) -> PolicyOutput:
        """As the learner's forward pass."""
        before = ledger.live
        if hasattr(self.policy, "score"):
            out = score_only(reward_scores(self.backbone, batch), batch)
            self._hold("policy", ledger.live - before)
            return out
        read = CausalReader(self.backbone, self.temperature, plain_head(self.policy), self.head_memory)
        shared = self.critic_head is not None and self.critic is None
        logprobs, entropies, states = read(batch, entropy, critic=shared)
        after = ledger.live
        self._hold("policy", after - before)
        if self.critic_head is None:
            return PolicyOutput(logprobs, entropies)
        if self.critic is not None or states is None:
            states = self.critic_backbone(batch)
        values = values_of(self.critic_head, states)
        final = final_values_of(self.critic_head, states, batch.lengths)
        self._hold("critic", ledger.live - after)
        return PolicyOutput(logprobs, entropies, values=values, final_values=final)

    def _hold(self, name: str, size: int) -> None:
        self.held[name] = max(self.held.get(name, 0), size)

    def update(self, algorithm: Algorithm, batch: Batch, max_tokens: int) -> Update:
        """One optimizer step on `batch`, which `algorithm.prepare` has filled.

        Two microbatches tell all: the first without gradients, the second beside them.
        """
        ledger = self.ledger()
        self.held.clear()
        with ledger, self._precision(), warnings.catch_warnings():
            # a loss on the device and log-probs beside it make torch look at a gradient that nobody asks for
            warnings.simplefilter("ignore", UserWarning)
            for micro, _ in zip(batch.microbatches(max_tokens), range(2), strict=False):
                self._pass(algorithm, micro, batch, ledger)
        for owner in (self.policy, self.critic, self.critic_head):
            for parameter in () if owner is None else owner.parameters():
                parameter.grad = None
        return Update(ledger.most, self.held["policy"], self.held.get("critic", 0))

    def _pass(self, algorithm: Algorithm, micro: Batch, batch: Batch, ledger: Ledger) -> None:
        loss = algorithm.loss(self.forward(micro, ledger, self.entropy), micro, batch.size)
        loss.value.backward()

    def curving(self, batch: Batch, max_tokens: int) -> int:
        """Bytes of a trust region's step at its worst moment: a product with the Fisher, over the largest microbatch.

        Beside it are vectors of the policy's size: its gradient, those of conjugate gradient, and the way back.
        """
        parameters = [parameter for parameter in self.policy.parameters() if parameter.requires_grad]
        read, ledger = CausalReader(self.backbone, self.temperature, plain_head(self.policy)), self.ledger()
        with ledger:
            here = read.distribution(next(batch.microbatches(max_tokens)))
            product = fisher_vector_product(here.detached().kl(here).mean(), parameters)
            product(flat([torch.zeros_like(parameter) for parameter in parameters]))
        return ledger.most + VECTORS * size_of(self.policy, trained=True)

    @torch.no_grad()
    def reading(self, batch: Batch, max_tokens: int) -> int:
        """Bytes of the forward pass without gradient over the largest microbatch of `batch`, at its worst moment."""
        ledger = self.ledger()
        with ledger, self._precision():
            out = self.forward(next(batch.microbatches(max_tokens)), ledger, "none")
        del out
        return ledger.most

    def watch(self, run: Callable[[], object]) -> tuple[int, int]:
        """Bytes at the worst moment of a call without gradient, and those that its result keeps."""
        ledger = self.ledger()
        with torch.no_grad(), ledger, self._precision():
            result = run()
            kept = ledger.live
        del result
        return ledger.most, kept

    def _precision(self):
        return nullcontext() if self.dtype == torch.float32 else torch.autocast("cpu", dtype=self.dtype)


def packs(model: PreTrainedModel) -> bool:
    """Whether rows run end to end, as far as shapes can tell."""
    return _passes(probe.packs, model)


@cache
def backbone_of(model: PreTrainedModel, device: str, recompute: bool, dtype: torch.dtype) -> Backbone:
    """As `Backbone.of` makes it. A GPU's kernel for the whole sequence keeps what attention in buckets keeps."""
    runs_on = packs(model)
    merged = runs_on and device == "cpu" and dtype == torch.float32 and _passes(settings_of, model)
    plain = [Setting(None, None)] * model.config.get_text_config().num_hidden_layers
    return Backbone(model, runs_on, settings=tuple(plain) if merged else None, recompute=recompute)


def _passes(trial: Callable[[PreTrainedModel], object], model: PreTrainedModel) -> bool:
    """Whether a trial would hold if it depends on shapes alone: it then gets as far as comparing numbers."""
    try:
        return bool(trial(model))
    except DataDependentOutputException:
        return True


def plain_head(model: PreTrainedModel) -> bool:
    """Whether logits are the output embedding of the last state: as the probe finds out, read off the configuration."""
    config = model.config.get_text_config()
    changed = any(getattr(config, name, None) not in (None, 1, 1.0) for name in HEAD_CHANGES)
    return isinstance(model.get_output_embeddings(), nn.Linear) and not changed
