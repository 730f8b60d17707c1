"""One call of the engine, from waiting requests to completions."""

from __future__ import annotations

from collections import deque
from collections.abc import Iterator, Sequence
from functools import partial
from typing import Any, NamedTuple

import torch
from jaxtyping import Bool, Int
from torch import Tensor
from transformers import PreTrainedModel

from oneloop.batch import Batch
from oneloop.forward.attention import hidden_states
from oneloop.forward.fused import Backbone, Fused, Setting, decode_linear, worth_a_copy
from oneloop.forward.packed import packed
from oneloop.rollout.appended import Appended
from oneloop.rollout.cache import Prefilled, SharedPrompts, Slots, lengthened, padded_index
from oneloop.rollout.replay import STRIDE, Pass, Recorder
from oneloop.rollout.sampler import draw
from oneloop.types import Completion, Sampling, StopReason

SHRINK_AT = 0.94
"""With nobody waiting, the batch is cut to its running rows when fewer than this share are left."""
SHRINK_RECORDED_AT = 0.5
"""The same where a cut costs a recording."""
PREFILL_TOKENS = 4096
"""Prompt tokens of one prefill: enough to keep matrix products busy."""
WORTH_SHARING = 32
"""Tokens of a prompt, for each of its rows but the first, from which one shared copy beats one in every slot."""


class Request(NamedTuple):
    """One completion to draw."""

    position: int
    """In the input."""
    prompt: tuple[int, ...]
    seed: int


class Ready(NamedTuple):
    """A request whose prompt has been read."""

    request: Request
    prompt: int
    """Its prompt's number in the prefill it came from."""


class Decoding:
    """Continuous batching over `rows` slots.

    Args:
        settings: the backbone runs as `Fused`; None: as its modules do.
        recorder: of passes; None: each launches its operations one by one.
        turns: most tokens of a row of several turns. Rows then keep their slots when a turn has ended, until they go on
            or leave, and prompts are not shared. None: a completion is all there is of a row.
    """

    def __init__(
        self,
        model: PreTrainedModel,
        requests: Sequence[Request],
        sampling: Sampling,
        end_ids: Int[Tensor, " E"],
        rows: int,
        version: int,
        settings: tuple[Setting, ...] | None = None,
        recorder: Recorder | None = None,
        turns: int | None = None,
    ) -> None:
        self._model, self._sampling, self._end_ids, self._version = model, sampling, end_ids, version
        self._settings, self._most, self._keeps = settings, rows, turns is not None
        self.read = 0
        """Tokens of prompts, and between turns, that were read."""
        self._read_weights()
        self._waiting = deque(_by_prompt(requests))
        self._ready: deque[Ready] = deque()
        count, device = min(rows, len(requests)), model.device
        longest = max((len(request.prompt) for request in requests), default=0)
        saved = sum(len(prompt) * (len(members) - 1) for prompt, members in self._waiting)
        shares = not self._keeps and saved >= WORTH_SHARING * len(requests)
        self._shared = SharedPrompts() if shares else None
        columns = sampling.max_new_tokens + (0 if shares else longest) if turns is None else turns
        if recorder is not None and not recorder.works:
            recorder = None
        self._recorder = recorder
        self._shrink_at = SHRINK_AT if recorder is None else SHRINK_RECORDED_AT
        self._slots = Slots(count, columns, device, self._shared, 1 if recorder is None else STRIDE)
        self._pass = Pass(self._backbone, self._slots, recorder)
        self._request: list[Request | None] = [None] * count
        # on the CPU, as all that decides what happens next; one answer of the device a step is waited for: who ended
        self._parked = torch.zeros(count, dtype=torch.bool)  # rows whose turn has ended
        self._prompt_of, self._lengths = (torch.zeros(count, dtype=torch.int64) for _ in range(2))
        self._seeds = torch.zeros(count, dtype=torch.int64, device=device)
        self._tokens = torch.zeros(count, sampling.max_new_tokens, dtype=torch.int64, device=device)
        self._logprobs = torch.zeros(count, sampling.max_new_tokens, device=device)
        self._states = torch.zeros(0, device=device)  # [S, H]: what the next token is drawn from
        self._newest = torch.zeros(count, dtype=torch.int64, device=device)
        self._due: dict[int, tuple[Sequence[int], int]] = {}  # by request: what was said to it, and a seed
        self._started: dict[int, int] = {}  # by request: the version of its first token
        self._changes: dict[int, list[tuple[int, int]]] = {}

    @property
    def left(self) -> bool:
        """Whether a completion is still to come."""
        return any(self._request) or bool(self._ready or self._waiting)

    def run(self) -> Iterator[tuple[int, Completion]]:
        while self.left:
            yield from self.step()

    @property
    def running(self) -> bool:
        """Whether a step would draw something: not where all rows that have slots wait."""
        rows = sum(request is not None for request in self._request)
        return self._drawn() or bool(self._due) or (bool(self._ready or self._waiting) and rows < self._most)

    def _drawn(self) -> bool:
        """Whether a row is in the middle of its turn."""
        if not self._keeps:
            return any(self._request)
        return sum(request is not None for request in self._request) > int(self._parked.sum())

    def step(self) -> list[tuple[int, Completion]]:
        """One token of every row; the completions that end with it, by their place in the input."""
        if self._drawn():
            self._states = self._pass(self._newest)
        self._admit()
        self._go_on()
        self._draw()
        ended = list(self._finish())
        self._shrink()
        return ended

    def add(self, requests: Sequence[Request], rows: int) -> None:
        """More, which are admitted as slots get free; there may be up to `rows` of those now, or as many as before."""
        self._waiting.extend(_by_prompt(requests))
        self._most = min(self._most, rows)

    def renew(self, version: int) -> None:
        """The model's weights are others now. Rows on their way go on with them, after keys and values of the old."""
        self._version = version
        self._read_weights()
        self._pass = Pass(self._backbone, self._slots, self._recorder)
        # prompts that were read and wait for a slot are read again
        self._waiting.extendleft(reversed(_by_prompt([ready.request for ready in self._ready])))
        self._ready.clear()
        for slot, request in enumerate(self._request):
            if request is not None:
                place, before = int(self._lengths[slot]), self._changes.get(request.position, [])
                self._changes[request.position] = [*(old for old in before if old[0] < place), (place, version)]

    def _read_weights(self) -> None:
        """What decoding multiplies with: the modules themselves, or copies laid out for it."""
        self._backbone: Backbone = partial(hidden_states, self._model)
        self._head: Any = self._model.get_output_embeddings()
        if self._settings is not None:
            copied = worth_a_copy(self._model)
            self._backbone = Fused(self._model, self._settings, decode=copied)
            self._head = decode_linear(self._head) if copied else self._head

    def _admit(self) -> None:
        """Waiting requests into free slots."""
        self._grow()
        free = deque(slot for slot, request in enumerate(self._request) if request is None)
        while free and (self._ready or self._waiting):
            if not self._ready:
                self._prefill()
            count = min(len(free), len(self._ready))
            self._seat([free.popleft() for _ in range(count)], [self._ready.popleft() for _ in range(count)])

    def _grow(self) -> None:
        """Slots for those that were added when the batch had been cut, or was never large enough."""
        waiting = len(self._ready) + sum(len(members) for _, members in self._waiting)
        count = min(self._most, sum(request is not None for request in self._request) + waiting)
        if count <= len(self._request):
            return
        self._slots.grow(count)
        self._request += [None] * (count - len(self._request))
        self._prompt_of, self._lengths, self._parked = (
            lengthened(x, count) for x in (self._prompt_of, self._lengths, self._parked)
        )
        self._seeds, self._tokens, self._logprobs, self._newest = (
            lengthened(x, count) for x in (self._seeds, self._tokens, self._logprobs, self._newest)
        )
        if len(self._states):
            self._states = lengthened(self._states, count)

    def _prefill(self) -> None:
        """Read the next prompts, end to end in one pass, each once."""
        if self._shared is not None:
            self._forget_prompts(self._shared)
        prompts: list[tuple[int, ...]] = []
        first = 0 if self._shared is None else len(self._shared.lengths)
        while self._waiting and (not prompts or sum(map(len, prompts)) + len(self._waiting[0][0]) <= PREFILL_TOKENS):
            prompt, members = self._waiting.popleft()
            self._ready += [Ready(request, first + len(prompts)) for request in members]
            prompts.append(prompt)
        self.read += sum(map(len, prompts))
        sequence = packed(_rows_of(prompts, self._model.device))
        self._prefilled = Prefilled(sequence)
        states = self._backbone(sequence.tokens, sequence.positions, self._prefilled)[0]
        lengths = [len(prompt) for prompt in prompts]
        rows = torch.arange(len(prompts))
        self._last_states = states[sequence.index[rows, torch.tensor(lengths) - 1]]
        self._first, self._index = first, padded_index(sequence.index[:, 0].tolist(), lengths, self._model.device)
        self._prompt_lengths = torch.tensor(lengths)
        if self._shared is not None:
            self._shared.add(self._prefilled, self._index, self._prompt_lengths)

    def _forget_prompts(self, shared: SharedPrompts) -> None:
        """Drop the prompts that no running row reads."""
        running = torch.tensor([request is not None for request in self._request], dtype=torch.bool)
        kept, pointers = self._prompt_of[running].unique(return_inverse=True)
        shared.keep(kept)
        self._prompt_of = torch.zeros_like(self._prompt_of).masked_scatter_(running, pointers)
        if len(kept):
            shared.point(self._prompt_of)

    def _seat(self, slots: list[int], ready: list[Ready]) -> None:
        device = self._model.device
        where, prompt = torch.tensor(slots), torch.tensor([item.prompt for item in ready])
        of_prefill = prompt - self._first
        lengths = self._prompt_lengths[of_prefill]
        if self._shared is None:
            self._slots.insert(where, self._prefilled, self._index[of_prefill.to(device)], lengths)
        else:
            self._slots.link(where, lengths)
            self._prompt_of[where] = prompt
            self._shared.point(self._prompt_of)
        self._lengths[where] = 0
        states, where = self._last_states[of_prefill.to(device)], where.to(device)
        if not len(self._states):
            self._states = states.new_zeros(len(self._request), states.shape[1])
        self._states[where] = states
        self._seeds[where] = torch.tensor([item.request.seed for item in ready], device=device)
        for slot, item in zip(slots, ready, strict=True):
            self._request[slot] = item.request
            self._started[item.request.position] = self._version

    def _draw(self) -> None:
        """The next token of every slot."""
        lengths = self._lengths.to(self._model.device)
        drawn, logprob = draw(self._head(self._states), self._sampling, self._seeds, lengths)
        # what a row that waits said last is still to be read
        self._newest = torch.where(self._parked.to(drawn.device), self._newest, drawn) if self._keeps else drawn
        self._tokens.scatter_(1, lengths[:, None], self._newest[:, None])
        self._logprobs.scatter_(1, lengths[:, None], logprob[:, None])

    def _finish(self) -> Iterator[tuple[int, Completion]]:
        """Completions that end with the newest token; their slots are free."""
        ended = torch.isin(self._newest, self._end_ids).cpu()
        self._lengths += 1
        over = ended | (self._lengths == self._sampling.max_new_tokens)
        done = [
            slot for slot in (over & ~self._parked).nonzero()[:, 0].tolist() if self._request[slot] is not None
        ]  # fmt: skip
        if done:
            yield from self._completions(done, ended)
        # an empty slot goes on with the others until somebody takes it
        self._lengths.masked_fill_(over | self._parked, 0)
        self._slots.release(over & ~self._parked)

    def _completions(self, done: list[int], ended: Bool[Tensor, " S"]) -> Iterator[tuple[int, Completion]]:
        where, lengths = torch.tensor(done, device=self._model.device), self._lengths[done].tolist()
        tokens, logprobs = (table[where, : max(lengths)].tolist() for table in (self._tokens, self._logprobs))
        for row, (slot, length, by_end) in enumerate(zip(done, lengths, ended[done].tolist(), strict=True)):
            request = self._request[slot]
            assert request is not None
            if self._keeps:
                self._parked[slot] = True
                self._slots.park(torch.tensor([slot]))
            else:
                self._request[slot] = None
            yield (
                request.position,
                Completion(
                    tokens=tuple(tokens[row][:length]),
                    logprobs=tuple(logprobs[row][:length]),
                    stop=StopReason.EOS if by_end else StopReason.LENGTH,
                    version=self._started.pop(request.position),
                    changes=tuple(self._changes.pop(request.position, ())),
                ),
            )

    def go_on(self, position: int, given: Sequence[int], seed: int) -> None:
        """A row that waits has its next turn, behind what was said to it: at the next step."""
        self._due[position] = given, seed

    def _go_on(self) -> None:
        """Read what was said to rows, several in one pass."""
        if not self._due:
            return
        slots = {request.position: slot for slot, request in enumerate(self._request) if request is not None}
        rows = [(slots[place], given, seed) for place, (given, seed) in self._due.items()]
        self._due.clear()
        rows.sort(key=lambda row: len(row[1]))
        while rows:  # the longest first, with as many others as fit
            width = len(rows[-1][1]) + 1
            count = max(PREFILL_TOKENS // width, 1)
            self._append(rows[-count:], width)
            del rows[-count:]

    def _append(self, rows: Sequence[tuple[int, Sequence[int], int]], width: int) -> None:
        device, where = self._model.device, torch.tensor([slot for slot, _, _ in rows])
        counts = torch.tensor([len(given) + 1 for _, given, _ in rows])
        tokens = torch.tensor([[0, *given, *[0] * (width - 1 - len(given))] for _, given, _ in rows], device=device)
        tokens[:, 0] = self._newest[where.to(device)]  # drawn, and not read yet
        layout = Appended(self._slots, where, counts)
        states = self._backbone(tokens, layout.positions, layout)
        self._slots.go_on(where, counts)
        self.read += int(counts.sum())
        self._parked[where], self._lengths[where] = False, 0
        where = where.to(device)
        self._states[where] = states[torch.arange(len(rows), device=device), (counts - 1).to(device)]
        self._seeds[where] = torch.tensor([seed for _, _, seed in rows], device=device)
        for slot, _, _ in rows:
            request = self._request[slot]
            assert request is not None
            self._started[request.position] = self._version

    def leave(self, position: int) -> None:
        """A row that waits has ended; its slot is free."""
        places = [None if request is None else request.position for request in self._request]
        slot = places.index(position)
        self._request[slot], self._parked[slot] = None, False
        self._slots.release(torch.arange(len(self._request)) == slot)

    def _shrink(self) -> None:
        """Cut the batch to its running rows when nobody waits and enough have ended."""
        running = [slot for slot, request in enumerate(self._request) if request is not None]
        if not running or self._ready or self._waiting or len(running) >= self._shrink_at * len(self._request):
            return
        # those that lie behind the cut move into the gaps before it; the others stay where they are
        behind = iter(running[::-1])
        order = [slot if self._request[slot] is not None else next(behind) for slot in range(len(running))]
        kept = torch.tensor(order, dtype=torch.int64)
        self._request = [self._request[slot] for slot in order]
        self._slots.keep(kept)
        self._lengths, self._prompt_of, self._parked = (x[kept] for x in (self._lengths, self._prompt_of, self._parked))
        if self._shared is not None:
            self._forget_prompts(self._shared)
        kept = kept.to(self._model.device)
        self._seeds, self._states, self._newest = self._seeds[kept], self._states[kept], self._newest[kept]
        self._tokens, self._logprobs = self._tokens[kept], self._logprobs[kept]


def _by_prompt(requests: Sequence[Request]) -> list[tuple[tuple[int, ...], list[Request]]]:
    members: dict[tuple[int, ...], list[Request]] = {}
    for request in requests:
        members.setdefault(request.prompt, []).append(request)
    return list(members.items())


def _rows_of(prompts: Sequence[Sequence[int]], device: torch.device) -> Batch:
    """Prompts as rows without actions, each a group of its own."""
    count, width = len(prompts), max(map(len, prompts))
    tokens = torch.tensor([[*prompt, *[0] * (width - len(prompt))] for prompt in prompts])
    return Batch(
        tokens=tokens,
        mask=torch.zeros(count, width, dtype=torch.bool),
        group=torch.arange(count),
        rewards=torch.zeros(count, width),
        truncated=torch.zeros(count, dtype=torch.bool),
        lengths=torch.tensor([len(prompt) for prompt in prompts]),
    ).to(device)
