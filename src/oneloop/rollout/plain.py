"""The slow way to decode, for any architecture: padded batches that wait for their longest row."""

from __future__ import annotations

from collections import deque
from collections.abc import Iterator, Sequence

import torch
from jaxtyping import Bool, Int
from torch import Tensor
from transformers import DynamicCache, PreTrainedModel

from oneloop.rollout.decoding import Request
from oneloop.rollout.sampler import draw
from oneloop.types import Completion, Sampling, StopReason

SHRINK_AT = 0.75
"""The batch is cut to its unfinished rows when fewer than this share are left; each cut copies the cache once."""


class PlainDecoding:
    """As `Decoding`, with `rows` rows at a time in order of their prompts' lengths."""

    def __init__(
        self,
        model: PreTrainedModel,
        requests: Sequence[Request],
        sampling: Sampling,
        end_ids: Int[Tensor, " E"],
        rows: int,
        version: int,
    ) -> None:
        self._model, self._sampling, self._end_ids, self._version = model, sampling, end_ids, version
        self._batches: deque[Sequence[Request]] = deque()
        self.add(requests, rows)

    def add(self, requests: Sequence[Request], rows: int) -> None:
        ordered = sorted(requests, key=lambda request: len(request.prompt))
        self._batches += (ordered[start : start + rows] for start in range(0, len(ordered), rows))

    @property
    def left(self) -> bool:
        return bool(self._batches)

    def run(self) -> Iterator[tuple[int, Completion]]:
        while self.left:
            yield from self.step()

    def step(self) -> list[tuple[int, Completion]]:
        """One batch to its end."""
        batch = self._batches.popleft()
        decoding = _Padded(self._model, batch, self._end_ids)
        completions = decoding.run(self._sampling, self._version)
        return list(zip((request.position for request in batch), completions, strict=True))

    def renew(self, version: int) -> None:
        """The model's weights are others now; no batch is on its way."""
        self._version = version


class _Padded:
    """One batch from its prompts to its completions."""

    def __init__(self, model: PreTrainedModel, requests: Sequence[Request], end_ids: Int[Tensor, " E"]) -> None:
        prompts, seeds = [request.prompt for request in requests], [request.seed for request in requests]
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
