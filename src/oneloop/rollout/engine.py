"""Generation with continuous batching, on the modules and weights that are being trained.

    waiting requests → prompts prefilled end to end, each once → slots → one token a step → completions

A finished row's slot goes to the next request at once; when none waits, the batch shrinks. There is no copy of the
weights to synchronise, but where the trainer's are cut over ranks: the next call samples from whatever they are then. A
cache lives inside one call, so none can outlive the weights it was computed from.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, nullcontext

import torch
from transformers import PreTrainedModel

from oneloop.forward.attention import evaluating
from oneloop.forward.fused import settings_of
from oneloop.forward.probe import packs, plain_head
from oneloop.ports import Finished
from oneloop.rollout.decoding import Decoding, Request
from oneloop.rollout.limits import check_lengths
from oneloop.rollout.plain import PlainDecoding
from oneloop.rollout.replay import STRIDE, recorder_for
from oneloop.rollout.turns import KeptTurns, Rounds
from oneloop.types import Completion, Sampling

CACHE_BYTES = 4 * 2**30
"""Most memory for keys and values of the rows that are decoded together; a GPU may give more."""
MOST_ROWS = 512
"""Most rows decoded together, whatever the memory."""
SHARE_OF_FREE = 0.5
"""Of a GPU's free memory that keys and values may take; the rest is for prompts, logits and fragments."""


class Engine:
    """Implements `oneloop.ports.RolloutEngine`.

    Args:
        model: any Hugging Face causal language model.
        end_ids: tokens that end a completion.
        max_rows: most rows decoded together; fewer where their keys and values could exceed `cache_bytes`.
        dtype: as the trainer's, so that log-probs agree.
        cache_bytes: for keys and values, counted at full length; None: `CACHE_BYTES`, or more where a GPU has it free.
        replays: on a GPU, passes of the same shapes are recorded once and replayed (CUDA graphs). Where that fails,
            or a replay says something else than the pass, a warning tells, and operations are launched one by one.
        refresh: makes the weights of `model` those of the trainer; None: they are the trainer's own.
    """

    def __init__(
        self,
        model: PreTrainedModel,
        end_ids: Sequence[int],
        *,
        max_rows: int = MOST_ROWS,
        dtype: torch.dtype = torch.float32,
        cache_bytes: int | None = None,
        replays: bool = True,
        refresh: Callable[[], None] | None = None,
    ) -> None:
        self.version, self._refresh = 0, refresh
        self.exact = dtype == torch.float32
        self._model, self._max_rows, self._dtype, self._cache_bytes = model, max_rows, dtype, cache_bytes
        self._end_ids = torch.tensor(sorted(end_ids), dtype=torch.int64, device=model.device)
        self._fast = packs(model) and plain_head(model)
        self._settings = settings_of(model) if self._fast and self.exact else None
        self._recorder = recorder_for(model.device, 1e-4 if self.exact else 1e-2) if replays else None
        self.note = "" if self._fast else (
            f"{type(model).__name__} is sampled in padded batches that wait for their longest row, because its "
            "attention or its head does more than the built-in engine knows: correct, but slower"
        )  # fmt: skip

    def update(self, version: int) -> None:
        """Where the weights are the trainer's own, only their name changes."""
        if self._refresh is not None:
            self._refresh()
        self.version = version

    def generate(
        self,
        prompts: Sequence[Sequence[int]],
        sampling: Sampling,
        seeds: Sequence[int],
        finished: Finished = lambda index, completion: None,
    ) -> list[Completion]:
        """One completion per prompt, in the order of the input; `finished` hears of each as it ends.

        A row's draws depend on its prompt, its seed and the weights only. (In floating point, another batch size can
        move a probability in its last bits; a draw changes only if its number falls exactly there.)
        """
        done: dict[int, Completion] = {}
        with self.reading():
            for index, completion in self.decoding(prompts, sampling, seeds).run():
                done[index] = completion
                finished(index, completion)
        return [done[index] for index in range(len(prompts))]

    @contextmanager
    def reading(self) -> Iterator[None]:
        """The state in which passes are made."""
        with torch.no_grad(), evaluating(self._model), self._precision():
            yield

    def decoding(
        self,
        prompts: Sequence[Sequence[int]],
        sampling: Sampling,
        seeds: Sequence[int],
        *,
        first: int = 0,
        running: Decoding | PlainDecoding | None = None,
    ) -> Decoding | PlainDecoding:
        """What `generate` carries out, to be carried out step by step while `reading`.

        Args:
            first: the number of the first prompt: completions come with their prompt's.
            running: one of the same sampling, to which these are added instead.
        """
        check_lengths(prompts, sampling, getattr(self._model.config, "max_position_embeddings", None))
        asked = enumerate(zip(prompts, seeds, strict=True), start=first)
        requests, rows = [Request(n, tuple(prompt), seed) for n, (prompt, seed) in asked], self._rows(prompts, sampling)
        if running is not None:
            running.add(requests, rows)
            return running
        if not self._fast:
            return PlainDecoding(self._model, requests, sampling, self._end_ids, rows, self.version)
        return Decoding(
            self._model, requests, sampling, self._end_ids, rows, self.version, self._settings, self._recorder
        )

    @contextmanager
    def turns(self, sampling: Sampling, most: int) -> Iterator[KeptTurns | Rounds]:
        """Rows of several turns, of at most so many tokens each."""
        if not self._fast:
            yield Rounds(self.generate, sampling)
            return
        context, rows = getattr(self._model.config, "max_position_embeddings", None), self.rows_of(most)
        with self.reading():
            decoding = Decoding(
                self._model, [], sampling, self._end_ids, rows, self.version, self._settings, self._recorder, most
            )
            yield KeptTurns(decoding, rows, lambda prompt: check_lengths([prompt], sampling, context))

    def _rows(self, prompts: Sequence[Sequence[int]], sampling: Sampling) -> int:
        return self.rows_of(max((len(prompt) for prompt in prompts), default=0) + sampling.max_new_tokens)

    def rows_of(self, columns: int) -> int:
        """Rows of so many tokens whose cache is sure to fit: most that are decoded together."""
        config = self._model.config.get_text_config()
        heads = getattr(config, "num_key_value_heads", None) or config.num_attention_heads
        width = getattr(config, "head_dim", None) or config.hidden_size // config.num_attention_heads
        of_token = 2 * config.num_hidden_layers * heads * width * self._dtype.itemsize
        stride = STRIDE if self._recorder else 1
        of_row = of_token * -(-columns // stride) * stride
        return max(min(self._max_rows, self._room() // of_row), 1)

    def _room(self) -> int:
        """Bytes for keys and values."""
        if self._cache_bytes is not None:
            return self._cache_bytes
        if self._model.device.type != "cuda":
            return CACHE_BYTES
        held = torch.cuda.memory_reserved(self._model.device) - torch.cuda.memory_allocated(self._model.device)
        return max(int(SHARE_OF_FREE * (torch.cuda.mem_get_info(self._model.device)[0] + held)), CACHE_BYTES)

    def _precision(self):
        if self._dtype == torch.float32:
            return nullcontext()
        return torch.autocast(self._model.device.type, dtype=self._dtype)
