"""Rows of several turns: with caches that stay in their slots, or, for other engines, read anew for each turn."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager

from oneloop.ports import Finished
from oneloop.rollout.decoding import Decoding, Request
from oneloop.together import Crew, together
from oneloop.types import Completion, Sampling

Generate = Callable[[Sequence[Sequence[int]], Sampling, Sequence[int], Finished], list[Completion]]
"""Of an engine."""
PATIENCE = 8
"""Tokens of the others for which a row's environment has time. A number of tokens, and no time: which rows are drawn
together, and so the last bits of every number, must not depend on how fast anything was."""


class KeptTurns:
    """Implements `oneloop.ports.Turns`: only what was said to a row is read before its next turn.

    Args:
        decoding: whose rows keep their slots.
        rows: most of them.
        check: refuses prompts.
    """

    patience = PATIENCE

    def __init__(self, decoding: Decoding, rows: int, check: Callable[[Sequence[int]], None]) -> None:
        self._decoding, self._rows, self._check = decoding, rows, check
        self._new: list[Request] = []

    @property
    def read(self) -> int:
        return self._decoding.read

    @property
    def running(self) -> bool:
        return bool(self._new) or self._decoding.running

    def begin(self, number: int, prompt: Sequence[int], seed: int) -> None:
        """Raises: ConfigError for a prompt that does not fit."""
        self._check(prompt)
        self._new.append(Request(number, tuple(prompt), seed))

    def go_on(self, number: int, given: Sequence[int], seed: int) -> None:
        self._decoding.go_on(number, given, seed)

    def leave(self, number: int) -> None:
        self._decoding.leave(number)

    def step(self) -> list[tuple[int, Completion]]:
        if self._new:  # together, so that a prompt of several is read once
            self._decoding.add(self._new, self._rows)
            self._new = []
        return self._decoding.step()


class Rounds:
    """Implements `oneloop.ports.Turns` with any engine: all rows that can go on have their next turn together, each
    behind everything that was said so far.

    Args:
        generate: of the engine.
    """

    patience = 0

    def __init__(
        self,
        generate: Generate,
        sampling: Sampling,
    ) -> None:
        self._generate, self._sampling = generate, sampling
        self._rows: dict[int, tuple[int, ...]] = {}
        self._asked: dict[int, int] = {}
        self.read = 0

    @property
    def running(self) -> bool:
        return bool(self._asked)

    def begin(self, number: int, prompt: Sequence[int], seed: int) -> None:
        self._rows[number], self._asked[number] = tuple(prompt), seed

    def go_on(self, number: int, given: Sequence[int], seed: int) -> None:
        self._rows[number] += tuple(given)
        self._asked[number] = seed

    def leave(self, number: int) -> None:
        del self._rows[number]

    def step(self) -> list[tuple[int, Completion]]:
        asked, self._asked = self._asked, {}
        prompts = [self._rows[number] for number in asked]
        self.read += sum(map(len, prompts))
        completions = self._generate(prompts, self._sampling, list(asked.values()), lambda index, completion: None)
        for number, completion in zip(asked, completions, strict=True):
            self._rows[number] += completion.tokens
        return list(zip(asked, completions, strict=True))


@contextmanager
def rounds_in_step(generate: Generate, sampling: Sampling, crew: Crew) -> Iterator[Rounds]:
    """Rounds of ranks that have to ask their engine in step, whose episodes have different numbers of turns.

    Each asks for nothing first: the first call of all starts a server, where the ranks meet, and one whose episodes
    fail before they draw would not be there.
    """
    rounds = _InStep(generate, sampling, crew)
    try:
        rounds.ask_for_nothing()
        yield rounds
        rounds.finish()
    except Exception as error:
        rounds.failed(error)
        raise


class _InStep(Rounds):
    """A rank that has no row left asks for nothing until the others have none. What fails on one ends all rounds."""

    def __init__(self, generate: Generate, sampling: Sampling, crew: Crew) -> None:
        super().__init__(generate, sampling)
        self._crew, self._told = crew, False

    def step(self) -> list[tuple[int, Completion]]:
        self._meet(draws=True)
        return super().step()

    def finish(self) -> None:
        while self._meet(draws=False):
            self.ask_for_nothing()

    def ask_for_nothing(self) -> None:
        self._generate([], self._sampling, [], lambda index, completion: None)

    def failed(self, error: Exception) -> None:
        """Raises: it, or what failed on a rank before this one."""
        if not self._told:
            together(self._crew, lambda: _raise(error))

    def _meet(self, *, draws: bool) -> bool:
        """Whether a rank draws in this round. Raises: what ended the rounds of another."""
        self._told = True  # of whatever fails here, the others know
        together(self._crew, lambda: None)
        self._told = False
        return any(self._crew.collect([draws]))


def _raise(error: Exception) -> None:
    raise error
