"""Batched generation with a key-value cache, on the modules and weights that are being trained.

There is no copy to synchronise: the next call samples from whatever the weights are then. A cache lives inside one
call, so none can outlive the weights it was computed from.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager, nullcontext

import torch
from jaxtyping import Bool, Int
from torch import Tensor
from transformers import DynamicCache, PreTrainedModel

from oneloop.errors import ConfigError
from oneloop.rollout.sampler import draw
from oneloop.types import Completion, Sampling, StopReason

SHRINK_AT = 0.75
"""The batch is cut to its unfinished rows when fewer than this share are left; each cut copies the cache once."""


class Engine:
    """Implements `oneloop.ports.RolloutEngine`.

    Args:
        model: any Hugging Face causal language model.
        end_ids: tokens that end a completion.
        max_rows: most rows decoded together.
        dtype: as the trainer's, so that log-probs agree.
    """

    def __init__(
        self,
        model: PreTrainedModel,
        end_ids: Sequence[int],
        *,
        max_rows: int = 512,
        dtype: torch.dtype = torch.float32,
    ) -> None:
        self.version = 0
        self._model, self._max_rows, self._dtype = model, max_rows, dtype
        self._end_ids = torch.tensor(sorted(end_ids), device=model.device)

    @torch.no_grad()
    def generate(self, prompts: Sequence[Sequence[int]], sampling: Sampling, seeds: Sequence[int]) -> list[Completion]:
        """One completion per prompt, in the order of the input.

        A row's draws depend on its prompt, its seed and the weights only. (In floating point, another batch size can
        move a probability in its last bits; a draw changes only if its number falls exactly there.)
        """
        self._check_lengths(prompts, sampling)
        order = sorted(range(len(prompts)), key=lambda i: len(prompts[i]))
        done: dict[int, Completion] = {}
        with _inference(self._model), self._precision():
            for start in range(0, len(order), self._max_rows):
                rows = order[start : start + self._max_rows]
                decoding = _Decoding(self._model, [prompts[i] for i in rows], [seeds[i] for i in rows], self._end_ids)
                done |= zip(rows, decoding.run(sampling, self.version), strict=True)
        return [done[i] for i in range(len(prompts))]

    def _check_lengths(self, prompts: Sequence[Sequence[int]], sampling: Sampling) -> None:
        if any(len(prompt) == 0 for prompt in prompts):
            raise ConfigError("a prompt has no tokens; generation needs at least one")
        context = getattr(self._model.config, "max_position_embeddings", None)
        longest = max((len(prompt) for prompt in prompts), default=0)
        if context is not None and longest + sampling.max_new_tokens > context:
            raise ConfigError(
                f"a prompt of {longest} tokens and max_new_tokens={sampling.max_new_tokens} exceed the model's context "
                f"of {context}. Fix: --max-new-tokens {max(context - longest, 1)}, or shorter prompts"
            )

    def _precision(self):
        if self._dtype == torch.float32:
            return nullcontext()
        return torch.autocast(self._model.device.type, dtype=self._dtype)


class _Decoding:
    """One batch from its prompts to its completions."""

    def __init__(
        self, model: PreTrainedModel, prompts: list[Sequence[int]], seeds: list[int], end_ids: Int[Tensor, " E"]
    ) -> None:
        device, width = model.device, max(len(prompt) for prompt in prompts)
        self._model, self._end_ids = model, end_ids
        # left padding stays inside this class: the newest token of every row stands in the last column
        self._attended = torch.tensor([[0] * (width - len(p)) + [1] * len(p) for p in prompts], device=device)
        self._tokens = torch.tensor([[0] * (width - len(p)) + list(p) for p in prompts], device=device)
        self._seeds = torch.tensor(seeds, dtype=torch.int64, device=device)
        self._cache = DynamicCache(config=model.config)

    def run(self, sampling: Sampling, version: int) -> list[Completion]:
        count, limit = len(self._tokens), sampling.max_new_tokens
        device = self._tokens.device
        tokens = torch.zeros(count, limit, dtype=torch.int64, device=device)
        logprobs = torch.zeros(count, limit, device=device)
        lengths = torch.full((count,), limit, device=device)
        alive = torch.arange(count, device=device)  # the row that each slot of the batch decodes
        running = torch.ones(count, dtype=torch.bool, device=device)  # by slot
        for position in range(limit):
            token, logprob = draw(self._forward(), sampling, self._seeds, position)
            tokens[alive, position], logprobs[alive, position] = token, logprob
            ended = running & torch.isin(token, self._end_ids)
            lengths[alive[ended]] = position + 1
            running = running & ~ended
            left = int(running.sum())
            if left == 0:
                break
            self._append(token)
            if left < SHRINK_AT * len(running):
                alive, running = alive[running], self._shrink(running)
        return _completions(tokens, logprobs, lengths, self._end_ids, version)

    def _forward(self) -> Tensor:
        """Logits of the next token."""
        positions = (self._attended.cumsum(-1) - 1).clamp(min=0)[:, -self._tokens.shape[1] :]
        out = self._model(
            input_ids=self._tokens,
            attention_mask=self._attended,
            position_ids=positions,
            past_key_values=self._cache,
            use_cache=True,
            logits_to_keep=1,
        )
        return out.logits[:, -1]

    def _append(self, token: Int[Tensor, " B"]) -> None:
        self._tokens = token[:, None]
        self._attended = torch.cat([self._attended, torch.ones_like(token)[:, None]], 1)

    def _shrink(self, running: Bool[Tensor, " B"]) -> Bool[Tensor, " L"]:
        """Cut the batch to the rows that still run."""
        kept = running.nonzero()[:, 0]
        self._tokens, self._attended, self._seeds = (x[kept] for x in (self._tokens, self._attended, self._seeds))
        self._cache.batch_select_indices(kept)
        return running[kept]


def _completions(tokens: Tensor, logprobs: Tensor, lengths: Tensor, end_ids: Tensor, version: int) -> list[Completion]:
    last = tokens.gather(1, lengths[:, None] - 1)[:, 0]
    ended = torch.isin(last, end_ids).tolist()
    rows = zip(tokens.tolist(), logprobs.tolist(), lengths.tolist(), ended, strict=True)
    return [
        Completion(
            tokens=tuple(row[:length]),
            logprobs=tuple(numbers[:length]),
            stop=StopReason.EOS if has_ended else StopReason.LENGTH,
            version=version,
        )
        for row, numbers, length, has_ended in rows
    ]


@contextmanager
def _inference(model: PreTrainedModel) -> Iterator[None]:
    """Dropout off and the cache on, whatever mode the trainer is in; every module's own mode comes back."""
    modes = [(module, module.training) for module in model.modules()]
    model.eval()
    try:
        yield
    finally:
        for module, mode in modes:
            module.training = mode
