"""One forward pass over a batch, read out as log-probs, entropy, values and scores.

Rows run end to end without padding where the architecture allows it, and right padded where not. Padding never
changes a number: attention is causal, so no token sees what stands after it, ids beyond a row's length are replaced
before they are looked up, and every read-out goes by length.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, ExitStack, contextmanager, nullcontext
from dataclasses import dataclass, replace
from functools import partial
from typing import Any

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor, nn
from torch.nn.attention import SDPBackend, sdpa_kernel
from transformers import PreTrainedModel

from oneloop.batch import Batch, PolicyOutput
from oneloop.forward.attention import hidden_states, switched
from oneloop.forward.compiled import compiled
from oneloop.forward.fused import Fused, Setting, settings_of
from oneloop.forward.packed import packed
from oneloop.forward.probe import check_compiled, one_kernel, packs
from oneloop.forward.recompute import recomputed
from oneloop.objective.distributions import Categorical
from oneloop.objective.logprobs import Entropy, HeadMemory, before, logits_logprobs, token_logprobs


@dataclass(frozen=True, eq=False)
class States:
    """Last hidden states of a batch, after the backbone's final norm.

    Args:
        index: which of them belongs to token t of row b; −1, which no read-out accepts: it was not asked for.
    """

    flat: Float[Tensor, "N H"]
    index: Int[Tensor, "B T"]

    def before(self, mask: Bool[Tensor, "B T"]) -> Float[Tensor, "A H"]:
        """s_t of every action: the state before it."""
        return self.flat.index_select(0, before(self.index)[mask])

    def last(self, lengths: Int[Tensor, " B"]) -> Float[Tensor, "B H"]:
        """The state after each row's last token."""
        rows = torch.arange(len(lengths), device=lengths.device)
        return self.flat.index_select(0, self.index[rows, lengths.clamp(min=1) - 1])


@dataclass(frozen=True)
class Backbone:
    """A model without its heads.

    Args:
        packs: rows may run end to end.
        one_kernel: attention over the whole packed sequence is one call.
        recompute: layers are computed again for gradients instead of being kept.
        settings: the modules' weights run as `oneloop.forward.fused.Fused`; None: as the modules do.
        compiler: the modules' layers run through this backend of torch.compile; None: as they are.
    """

    model: PreTrainedModel
    packs: bool
    one_kernel: bool = False
    settings: tuple[Setting, ...] | None = None
    recompute: bool = False
    compiler: str | None = None

    @classmethod
    def of(
        cls,
        model: PreTrainedModel,
        dtype: torch.dtype = torch.float32,
        *,
        recompute: bool = False,
        compiler: str | None = None,
        sharded: bool = False,
    ) -> Backbone:
        """As fast as trials on `model` allow, for forward passes in `dtype`.

        Args:
            sharded: the model will be cut over ranks, and is whole only where its modules run.
        """
        if not packs(model):
            return cls(model, packs=False, recompute=recompute, compiler=compiler)
        settings = settings_of(model) if dtype == torch.float32 and compiler is None and not sharded else None
        return cls(model, True, one_kernel(model, dtype), settings, recompute, compiler)

    def check_compiled(self, dtype: torch.dtype) -> None:
        """Compile now, for a few rows in `dtype`.

        Raises: ConfigError where the compiler fails, or says something else than the modules.
        """
        if self.compiler is not None:
            modules = replace(self, compiler=None)
            check_compiled(self.model, lambda rows: self(rows).flat, lambda rows: modules(rows).flat, dtype)

    def __call__(self, batch: Batch, read: Bool[Tensor, "B T"] | None = None) -> States:
        """States after the tokens of a batch.

        Args:
            read: after which; None: all. The others' may be missing from what comes back, and cost less.
        """
        if self.packs and batch.lengths.any():
            sequence, places = packed(batch, self.one_kernel), None
            index, run = sequence.index, partial(hidden_states, self.model)
            if self.settings is not None:
                if read is not None:
                    places, index = _picked(index, read, sequence.tokens.numel())
                run = partial(Fused(self.model, self.settings, recompute=self.recompute), read=places)
            with self.passing(partial(switched, self.model.base_model.config)):
                return States(run(sequence.tokens, sequence.positions, sequence).squeeze(0), index)
        with self.passing():
            hidden = self.model.base_model(input_ids=known_ids(batch), use_cache=False).last_hidden_state
        return States(
            hidden.flatten(0, 1), torch.arange(batch.tokens.numel(), device=hidden.device).view_as(batch.tokens)
        )

    @contextmanager
    def passing(self, around: Callable[[], AbstractContextManager[None]] = nullcontext) -> Iterator[None]:
        """The modules for one pass: compiled or not, and with gradients as `recompute` has them."""
        with ExitStack() as stack:
            if self.compiler is not None:
                stack.enter_context(compiled(self.model, self.compiler))
            if self.recompute and torch.is_grad_enabled():
                stack.enter_context(recomputed(self.model, around))
            yield


def _picked(
    index: Int[Tensor, "B T"], read: Bool[Tensor, "B T"], count: int
) -> tuple[Int[Tensor, " M"], Int[Tensor, "B T"]]:
    """Which of a sequence of `count` tokens are read, and which of them belongs to token t of row b; −1: none."""
    wanted = torch.zeros(count, dtype=torch.bool, device=index.device).index_fill_(0, index[read], True)
    number = torch.where(wanted, wanted.cumsum(0) - 1, -1)
    return wanted.nonzero()[:, 0], number[index]


def before_actions(mask: Bool[Tensor, "B T"]) -> Bool[Tensor, "B T"]:
    """The tokens after whose states actions are chosen."""
    token = torch.arange(mask.numel(), device=mask.device)
    return torch.zeros_like(mask).view(-1).index_fill_(0, before(token.view_as(mask))[mask], True).view_as(mask)


def at_ends(batch: Batch) -> Bool[Tensor, "B T"]:
    """The last token of each row."""
    columns = torch.arange(batch.mask.shape[1], device=batch.mask.device)
    return columns == (batch.lengths.clamp(min=1) - 1)[:, None]


def known_ids(batch: Batch) -> Int[Tensor, "B T"]:
    """Tokens with padding replaced by an id that every model has."""
    inside = torch.arange(batch.tokens.shape[1], device=batch.tokens.device) < batch.lengths[:, None]
    return torch.where(inside, batch.tokens, 0)


@dataclass(frozen=True)
class CausalReader:
    """Log-probs and entropy of a causal language model at the actions of a batch, 0 elsewhere.

    Args:
        plain_head: logits are `lm_head(hidden)` and nothing else, checked once by `oneloop.forward.probe.plain_head`.
            If not, the whole model is called: correct for any architecture, but it holds logits for every position.
        memory: as for `token_logprobs`.
    """

    backbone: Backbone
    temperature: float
    plain_head: bool
    memory: HeadMemory | None = None

    def __call__(
        self, batch: Batch, entropy: Entropy, *, critic: bool = False
    ) -> tuple[Float[Tensor, "B T"], Float[Tensor, "B T"] | None, States | None]:
        """Args: critic: one will read the states too, after every token."""
        mask, targets, model = batch.mask, batch.tokens[batch.mask], self.backbone.model
        states = None
        if self.plain_head:
            head: Any = model.get_output_embeddings()
            states = self.backbone(batch, None if critic else before_actions(mask))
            flat = token_logprobs(
                states.before(mask),
                head.weight,
                targets,
                temperature=self.temperature,
                bias=head.bias,
                entropy=entropy,
                memory=self.memory,
            )
        else:
            with self.backbone.passing():
                flat = logits_logprobs(self._logits(batch), targets, self.temperature)
        logprobs, entropies = (torch.zeros(mask.shape, device=mask.device).masked_scatter(mask, x) for x in flat)
        return logprobs, None if entropy == "none" else entropies, states

    def distribution(self, batch: Batch) -> Categorical:
        """Over the vocabulary at each action, at the sampling temperature, from the unchanged modules on padded rows.

        Their operations are torch's own, attention the one of them that has a second derivative: what is fused here, or
        computed again in backward, has none.
        """
        with sdpa_kernel(SDPBackend.MATH):
            return Categorical(self._logits(batch) / self.temperature)

    def _logits(self, batch: Batch) -> Float[Tensor, "A V"]:
        """Of the whole model, at each action."""
        logits = self.backbone.model(input_ids=known_ids(batch), use_cache=False).logits
        index = torch.arange(batch.mask.numel(), device=batch.mask.device).view_as(batch.mask)
        return logits.flatten(0, 1)[before(index)[batch.mask]]


def values_of(head: nn.Module, states: States) -> Float[Tensor, "B T"]:
    """V(s_t): the value head on the state before each token, 0 at the first."""
    values = head(states.flat)[:, 0].float()[before(states.index)]
    return torch.cat([torch.zeros_like(values[:, :1]), values[:, 1:]], 1)


def final_values_of(head: nn.Module, states: States, lengths: Int[Tensor, " B"]) -> Float[Tensor, " B"]:
    return head(states.last(lengths))[:, 0].float()


def reward_scores(backbone: Backbone, batch: Batch) -> Float[Tensor, " B"]:
    """A reward model's score after each row's last token, found by length and never by token value."""
    head: nn.Module = backbone.model.score  # pyright: ignore[reportAssignmentType]
    return head(backbone(batch, at_ends(batch)).last(batch.lengths))[:, 0].float()


def score_only(scores: Float[Tensor, " B"], batch: Batch) -> PolicyOutput:
    """A reward model has no log-probs: reading them gives NaN."""
    undefined = torch.full(batch.mask.shape, torch.nan, device=batch.mask.device)
    return PolicyOutput(undefined, undefined, None, scores)
