"""Episodes of many turns: while the environments of some answer, the turns of others are drawn.

    reset → prompt · turn · given · turn · … · turn     turn: ids that the policy chose, given: ids that were said to it

Ids are the truth: what was drawn is never encoded again, and what an environment says is put behind it.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass, field, replace
from itertools import groupby
from time import perf_counter
from typing import Any, Literal, Protocol, runtime_checkable

from oneloop.errors import ConfigError, EnvironmentFailed
from oneloop.experience.drawing import Ended
from oneloop.experience.episodes import Request
from oneloop.ports import Drawn, Turns
from oneloop.seeds import named_seed
from oneloop.types import Completion, Prompt, Reward, Sampling, Step, StopReason, Trajectory, Turn

Ids = tuple[int, ...]
Opened = Callable[[Sampling, int], AbstractContextManager[Turns]]
MOST_ALIVE = 640
"""Episodes whose environments exist at the same time. The built-in engine draws at most 512 rows together, so that some
are ready whenever it has room; and an environment is a thread."""


@runtime_checkable
class Scene(Protocol):
    """One rollout's environment. Asking returns at once; what it returns waits for the answer.

    Waiting raises EnvironmentFailed where there is none.
    """

    @property
    def tools(self) -> Sequence[Any] | None:
        """For the chat template."""
        ...

    def reset(self, row: Mapping[str, Any], seed: int) -> Callable[[], Step]: ...

    def step(self, completion: str) -> Callable[[], Step]: ...

    def leave(self) -> None:
        """Nothing more is asked."""
        ...


@runtime_checkable
class Language(Protocol):
    """Between messages and ids."""

    def prompt(self, prompt: Any, tools: Sequence[Any] | None = None) -> tuple[Ids, str]: ...

    def reply(self, before: Any, new: Any, tools: Sequence[Any] | None = None) -> Ids:
        """What stands between a turn that was drawn, the last of `before`, and the next one, which answers `new`."""
        ...

    def decode(self, ids: Sequence[int]) -> str: ...


@dataclass(frozen=True, kw_only=True)
class Budget:
    """What an episode may take. Where it runs out the episode is truncated, never terminated."""

    turns: int
    """Most turns of the policy."""
    tokens: int
    """Most tokens of prompt and episode together. A turn begins only where `Sampling.max_new_tokens` fit."""


@dataclass(frozen=True, kw_only=True)
class Episodes:
    """Implements `oneloop.experience.drawing.Draw` with an environment for each request.

    Args:
        name: of the environment: its rewards are logged under it.
        scene: makes an environment.
        opened: rows of several turns of at most so many tokens, as the engine draws them.
        on_error: what an environment does that raises, hangs or answers nonsense: end the run, or leave its sample
            unscored.
    """

    name: str
    scene: Callable[[], Scene]
    opened: Opened
    language: Language
    budget: Budget
    on_error: Literal["stop", "unscored"] = "stop"
    opened_beside: Opened | None = None
    """As `opened`, drawn while the trainer goes on; None: the engine does not."""

    def beside(self, requests: Sequence[Request], sampling: Sampling) -> Drawn:
        """Drawn while the trainer goes on.

        Raises: ConfigError where the engine does not.
        """
        if self.opened_beside is None:
            raise ConfigError("the engine draws no episodes beside the training. Fix: --staleness 0")
        return replace(self, opened=self.opened_beside)(requests, sampling, lambda index, item: None)

    def __call__(self, requests: Sequence[Request], sampling: Sampling, ended: Ended) -> Drawn:
        rows = [_Episode(request, self.scene(), self.language) for request in requests]
        try:
            with self.opened(sampling, self.budget.tokens) as turns:
                playing = _Playing(self, rows, turns, sampling.max_new_tokens, ended)
                playing.run()
                counts = {"tokens/prefilled": float(turns.read), "time/environment": playing.waited}
                return Drawn([playing.over[number] for number in range(len(rows))], counts)
        finally:
            for row in rows:
                row.scene.leave()


@dataclass
class _Episode:
    """One of them, as far as it is."""

    request: Request
    scene: Scene
    language: Language
    prompt: Ids = ()
    shown: str = ""
    messages: list[Mapping[str, Any]] = field(default_factory=list)
    opening: int = 0
    """Messages of the prompt."""
    tokens: list[int] = field(default_factory=list)
    logprobs: list[float] = field(default_factory=list)
    given: list[tuple[int, int]] = field(default_factory=list)
    turns: list[Turn] = field(default_factory=list)
    version: int = 0
    count: int = 0
    """Turns of the policy."""
    answer: Callable[[], Step] | None = None
    """Waits for the environment."""

    @property
    def length(self) -> int:
        return len(self.prompt) + len(self.tokens)

    def seed(self) -> int:
        """Of the next turn. The first is drawn as a single answer would be."""
        return named_seed(self.request.seed, "turn", self.count) if self.count else self.request.seed

    def begin(self, step: Step) -> None:
        self.messages, self.opening = list(step.messages), len(step.messages)
        self.prompt, self.shown = self.language.prompt(self.messages, self.scene.tools)

    def said(self, completion: Completion) -> str:
        """The policy's turn; returns it as the environment reads it."""
        text = self.language.decode(completion.tokens)
        self.version = completion.version if not self.count else self.version
        start = len(self.tokens)
        self.tokens += completion.tokens
        self.logprobs += completion.logprobs
        self.count += 1
        self.messages.append({"role": "assistant", "content": text})
        self.turns.append(Turn(role="assistant", text=text, chosen=True, span=(start, len(self.tokens))))
        return text

    def answered(self, step: Step) -> None:
        """For the record: reward and calls are those of the turn that was answered."""
        self.turns[-1] = replace(
            self.turns[-1],
            reward=step.reward,
            terminated=step.terminated,
            truncated=step.truncated,
            calls=tuple(step.calls),
        )
        self.turns += [Turn(role=message["role"], text=message["content"]) for message in step.messages]

    def hear(self, messages: Sequence[Mapping[str, Any]], ids: Sequence[int]) -> None:
        """The last that were said."""
        span = (len(self.tokens), len(self.tokens) + len(ids))
        self.turns[-len(messages)] = replace(self.turns[-len(messages)], span=span)
        self.given.append(span)
        self.tokens += ids
        self.logprobs += [0.0] * len(ids)

    def trajectory(self, stop: StopReason, failures: Mapping[str, str]) -> Trajectory:
        prompt = self.request.prompt
        if self.prompt:
            prompt = replace(prompt, tokens=self.prompt, text=self.shown, messages=tuple(self.messages[: self.opening]))
        last = max((turn.span[1] for turn in self.turns if turn.chosen and turn.span), default=0)
        return Trajectory(
            prompt=prompt,
            group=self.request.group,
            sample=self.request.sample,
            completion=Completion(
                tokens=tuple(self.tokens),
                logprobs=tuple(self.logprobs),
                stop=stop,
                version=self.version,
                given=tuple(self.given),
            ),
            text=self.language.decode(self.tokens[:last]),
            reward=Reward(value=None, failures=failures),
            turns=tuple(self.turns),
        )


class _Playing:
    """One call of `Episodes`: a clock that counts steps of the drawing, and never seconds."""

    def __init__(self, episodes: Episodes, rows: Sequence[_Episode], turns: Turns, longest: int, ended: Ended) -> None:
        self._episodes, self._rows, self._turns, self._longest, self._ended = episodes, rows, turns, longest, ended
        self._due: deque[tuple[int, int]] = deque()  # (when its environment is waited for, number), in order
        groups = groupby(range(len(rows)), key=lambda number: rows[number].request.group)
        self._left = deque(list(members) for _, members in groups)  # those that have no environment yet
        self._begun = 0
        self._clock = 0
        self.over: dict[int, Trajectory] = {}
        self.waited = 0.0
        """Seconds in which nothing was drawn because environments were waited for."""

    def run(self) -> None:
        self._start()
        while self._turns.running or self._due:
            if self._turns.running:
                self._clock += 1
                for number, completion in self._turns.step():
                    self._turn(number, completion)
            else:  # nobody can go on: the first that ended is waited for
                self._clock = max(self._clock, self._due[0][0])
            self._hear()
            self._start()

    def _start(self) -> None:
        """Environments of further groups, as others are over: of whole groups, whose prompt is then read once."""
        while self._left and (self._begun == len(self.over) or self._fits(len(self._left[0]))):
            for number in self._left.popleft():
                row = self._rows[number]
                row.answer = row.scene.reset(_data(row.request.prompt), row.seed())
                self._due.append((self._clock + self._turns.patience, number))
                self._begun += 1

    def _fits(self, more: int) -> bool:
        return self._begun - len(self.over) + more <= MOST_ALIVE

    def _turn(self, number: int, completion: Completion) -> None:
        row = self._rows[number]
        text = row.said(completion)
        if completion.stop is not StopReason.EOS:  # half a turn is nobody's to answer
            self._finish(number, completion.stop)
            return
        row.answer = row.scene.step(text)
        self._due.append((self._clock + self._turns.patience, number))

    def _hear(self) -> None:
        """Of all that are due."""
        start = perf_counter()
        answers: list[tuple[int, Step | EnvironmentFailed]] = []
        while self._due and self._due[0][0] <= self._clock:
            number = self._due.popleft()[1]
            answers.append((number, self._answer(number)))
        self.waited += perf_counter() - start
        for number, answer in answers:
            if isinstance(answer, EnvironmentFailed):
                self._failed(number, answer)
            elif not self._rows[number].prompt:
                self._begin(number, answer)
            else:
                self._go_on(number, answer)

    def _answer(self, number: int) -> Step | EnvironmentFailed:
        answer = self._rows[number].answer
        assert answer is not None
        try:
            return answer()
        except EnvironmentFailed as error:
            return error

    def _begin(self, number: int, step: Step) -> None:
        row = self._rows[number]
        row.begin(step)
        if row.length + self._longest > self._episodes.budget.tokens:
            self._too_long(number)
        else:
            self._turns.begin(number, row.prompt, row.seed())

    def _too_long(self, number: int) -> None:
        """Raises: ConfigError, where a failure ends the run."""
        row, episodes = self._rows[number], self._episodes
        what = (
            f"its first messages have {row.length} tokens, and with a turn of {self._longest} an episode may have "
            f"{episodes.budget.tokens}"
        )
        if episodes.on_error == "stop":
            raise ConfigError(
                f"environment {episodes.name}, row {row.request.prompt.id}: {what}. "
                "Fix: a lower --max-new-tokens, or a larger --max-episode-tokens"
            )
        row.prompt = ()  # its record is the row's own prompt: this one fits no model
        self._failed(number, EnvironmentFailed(what))

    def _go_on(self, number: int, step: Step) -> None:
        row, budget = self._rows[number], self._episodes.budget
        row.answered(step)
        if step.terminated:
            self._finish(number, StopReason.ENVIRONMENT)
            return
        given = self._reply(row, step) if step.messages else ()
        fits = row.length + len(given) <= budget.tokens
        if given and fits:
            # also where the episode is cut: its value is that of the state after the answer
            row.hear(step.messages, given)
        row.messages += step.messages
        if step.truncated or row.count >= budget.turns:
            self._finish(number, StopReason.TURNS)
        elif not fits or row.length + self._longest > budget.tokens:
            self._finish(number, StopReason.LENGTH)
        else:
            self._turns.go_on(number, given, row.seed())

    def _reply(self, row: _Episode, step: Step) -> Ids:
        try:
            return row.language.reply(row.messages, step.messages, row.scene.tools)
        except ConfigError as error:
            raise ConfigError(f"environment {self._episodes.name}: {error}") from error

    def _failed(self, number: int, error: EnvironmentFailed) -> None:
        row = self._rows[number]
        what = f"at row {row.request.prompt.id}, turn {row.count}: {error}"
        if self._episodes.on_error == "stop" or error.hopeless:
            raise EnvironmentFailed(f"environment {self._episodes.name} {what}") from error
        self._finish(number, StopReason.ERROR, {self._episodes.name: what}, begun=bool(row.prompt))

    def _finish(
        self, number: int, stop: StopReason, failures: Mapping[str, str] | None = None, *, begun: bool = True
    ) -> None:
        row = self._rows[number]
        if begun:
            self._turns.leave(number)
        row.scene.leave()
        self.over[number] = row.trajectory(stop, failures or {})
        self._ended(number, self.over[number])


def _data(prompt: Prompt) -> dict[str, Any]:
    """The row as the data has it."""
    return {"prompt": prompt.text if prompt.messages is None else list(prompt.messages), **prompt.columns}
