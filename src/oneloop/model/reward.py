"""A learned reward: a sequence-classification model behind the signature of every other reward function."""

from collections.abc import Sequence
from contextlib import AbstractContextManager, nullcontext
from typing import Any

import torch
from transformers import PreTrainedModel

from oneloop.batch import Batch
from oneloop.forward.reader import Backbone, at_ends


class LearnedReward:
    """Scores sampled ids as they are: nothing is decoded and encoded again. Of an episode of several turns it reads the
    whole conversation, what the environment said included.

    Args:
        model: `*ForSequenceClassification` with one label and the policy's tokenizer.
        max_tokens: most tokens of one pass.
        dtype: of the backbone's products; the score is read from its states in float32.
        here: entered while the model is used.
    """

    def __init__(
        self,
        model: PreTrainedModel,
        *,
        max_tokens: int = 16384,
        dtype: torch.dtype = torch.float32,
        here: AbstractContextManager[None] = nullcontext(),  # noqa: B008
    ) -> None:
        self._max_tokens, self._dtype, self._here = max_tokens, dtype, here
        with here:
            self._backbone = Backbone.of(model.eval().requires_grad_(False), dtype)

    @torch.no_grad()
    def __call__(
        self, completions: Sequence[str], prompt_ids: Sequence[Sequence[int]], episode_ids: Sequence[Sequence[int]],
        **columns: Any,
    ) -> list[float]:  # fmt: skip
        rows = [[*prompt, *completion] for prompt, completion in zip(prompt_ids, episode_ids, strict=True)]
        width, count = max(map(len, rows)), len(rows)
        first: dict[tuple[int, ...], int] = {}
        tokens = torch.tensor([row + [0] * (width - len(row)) for row in rows])
        batch = Batch(
            tokens=tokens,
            mask=torch.zeros(count, width, dtype=torch.bool),
            # answers to one prompt form a group, so that the prompt is read once
            group=torch.tensor([first.setdefault(tuple(prompt), row) for row, prompt in enumerate(prompt_ids)]),
            rewards=torch.zeros(count, width),
            truncated=torch.zeros(count, dtype=torch.bool),
            lengths=torch.tensor([len(row) for row in rows]),
        )
        with self._here:
            return self._scores(batch.to(self._backbone.model.device))

    def _scores(self, batch: Batch) -> list[float]:
        head: Any = self._backbone.model.score
        device = self._backbone.model.device
        scores = torch.zeros(len(batch), device=device)
        for rows in batch.microbatch_rows(self._max_tokens):
            micro = batch.rows(rows).trimmed()
            with torch.autocast(device.type, self._dtype, enabled=self._dtype != torch.float32):
                states = self._backbone(micro, at_ends(micro)).last(micro.lengths)
            scores[rows] = head(states.float())[:, 0]
        return scores.tolist()
