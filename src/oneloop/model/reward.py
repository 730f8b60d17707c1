"""A learned reward: a sequence-classification model behind the signature of every other reward function."""

from collections.abc import Sequence
from typing import Any

import torch
from transformers import PreTrainedModel

from oneloop.batch import Batch
from oneloop.forward.reader import Backbone, reward_scores


class LearnedReward:
    """Scores sampled ids as they are: nothing is decoded and encoded again.

    Args:
        model: `*ForSequenceClassification` with one label and the policy's tokenizer.
        max_tokens: most tokens of one pass.
    """

    def __init__(self, model: PreTrainedModel, *, max_tokens: int = 16384) -> None:
        self._backbone, self._max_tokens = Backbone.of(model.eval().requires_grad_(False)), max_tokens

    @torch.no_grad()
    def __call__(
        self, completions: Sequence[str], prompt_ids: Sequence[Sequence[int]], completion_ids: Sequence[Sequence[int]],
        **columns: Any,
    ) -> list[float]:  # fmt: skip
        rows = [[*prompt, *completion] for prompt, completion in zip(prompt_ids, completion_ids, strict=True)]
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
        ).to(self._backbone.model.device)
        scores = torch.zeros(count, device=self._backbone.model.device)
        for micro in batch.microbatch_rows(self._max_tokens):
            scores[micro] = reward_scores(self._backbone, batch.rows(micro).trimmed())
        return scores.tolist()
