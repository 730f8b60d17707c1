"""The plain-Python half of the vocabulary: what an episode is before it becomes tensors. No torch here.

classical RL          here
state s_t             prompt + tokens so far
action a_t            the next token
trajectory τ          one full response
terminated            stopped by an end-of-sequence token or by the environment
truncated             cut by a limit of tokens or turns: never the same thing
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from enum import StrEnum
from math import isfinite
from typing import Any, TypedDict

from oneloop.errors import ConfigError


class Message(TypedDict):
    """One turn of a conversation, in the form that chat templates take."""

    role: str
    content: str


@dataclass(frozen=True, slots=True)
class Tokens:
    """A row to imitate, as the model reads it: token ids, and which of them are trained.

    Raises: ValueError when there is not one flag for each id.
    """

    ids: tuple[int, ...]
    trained: tuple[bool, ...]
    """True for what the assistant said, the end of each of its turns included."""

    def __post_init__(self) -> None:
        if len(self.ids) != len(self.trained):
            raise ValueError(f"{len(self.trained)} flags for {len(self.ids)} tokens: every token needs one")


class StopReason(StrEnum):
    """Why a completion ended, as the engine saw it; the only source of "truncated"."""

    EOS = "eos"
    LENGTH = "length"
    TURNS = "turns"
    """The limit of turns, or the environment's own, in the middle of an episode."""
    ENVIRONMENT = "environment"
    """The environment says that the episode is over."""
    ERROR = "error"
    """The environment failed: the sample cannot be scored."""

    @property
    def truncated(self) -> bool:
        return self in (StopReason.LENGTH, StopReason.TURNS)


@dataclass(frozen=True, slots=True, kw_only=True)
class Sampling:
    """How completions are drawn: one value, read by the sampler and by every log-prob of the trainer."""

    max_new_tokens: int = 64
    """Length limit of a completion in tokens, its end token included."""
    temperature: float = 1.0
    """Logits are divided by this; 0 takes the most likely token (evaluation only)."""
    top_k: int = 0
    """Keep the k most likely tokens; 0 keeps all."""
    top_p: float = 1.0
    """Keep the smallest set of tokens whose probability reaches this; 1 keeps all."""

    def __post_init__(self) -> None:
        if self.max_new_tokens < 1:
            raise ConfigError(f"max_new_tokens is {self.max_new_tokens}; a completion needs at least 1 token")
        if not (isfinite(self.temperature) and self.temperature >= 0):
            raise ConfigError(f"temperature is {self.temperature}; wanted 0 (greedy) or a positive number")
        if self.top_k < 0:
            raise ConfigError(f"top_k is {self.top_k}; wanted 0 (keep all) or a positive number of tokens")
        if not 0 < self.top_p <= 1:
            raise ConfigError(f"top_p is {self.top_p}; wanted a probability in (0, 1]")

    @property
    def truncated_support(self) -> bool:
        """Whether some tokens can never be drawn although the policy gives them probability."""
        return self.top_k > 0 or self.top_p < 1 or self.temperature == 0


@dataclass(frozen=True, slots=True, kw_only=True)
class Completion:
    """What a rollout engine returns for one request; or the turns of an episode, with what was said between them."""

    tokens: tuple[int, ...]
    """Sampled token ids; the end token, if one was drawn, is the last. Of an episode all that stands behind the prompt.
    """
    logprobs: tuple[float, ...]
    """log μ(token | prefix) in nats, at the sampling temperature, one per token."""
    stop: StopReason
    version: int = 0
    """Weight version that the tokens were drawn from; where `changes` are, the first of them."""
    changes: tuple[tuple[int, int], ...] = ()
    """Updates of the weights on the way: (place, version), from the token at that place on."""
    given: tuple[tuple[int, int], ...] = ()
    """Stretches (from, to) of `tokens` that an environment said: read by the policy, never chosen by it. Their
    log-probs are 0, and nothing reads those."""

    def __post_init__(self) -> None:
        if len(self.logprobs) != len(self.tokens):
            raise ValueError(f"engine returned {len(self.logprobs)} log-probs for {len(self.tokens)} tokens")
        bad = [value for value in self.logprobs if not (isfinite(value) and value <= 1e-4)]
        if bad:
            raise ValueError(f"engine returned the log-prob {bad[0]}; wanted finite values ≤ 0")

    @classmethod
    def of_words(cls, words: Mapping[str, Any]) -> Completion:
        """Again, from the JSON of `dataclasses.asdict`."""
        lists = {"tokens": tuple(words["tokens"]), "logprobs": tuple(words["logprobs"])}
        pairs = {name: tuple((one, other) for one, other in words[name]) for name in ("changes", "given")}
        return cls(**{**words, **lists, "stop": StopReason(words["stop"]), **pairs})

    @property
    def chosen(self) -> tuple[bool, ...] | None:
        """Of each token, whether the policy chose it; None: it chose all."""
        if not self.given:
            return None
        flags = [True] * len(self.tokens)
        for start, end in self.given:
            flags[start:end] = [False] * (end - start)
        return tuple(flags)

    @property
    def actions(self) -> tuple[int, ...]:
        """The tokens that the policy chose."""
        chosen = self.chosen
        if chosen is None:
            return self.tokens
        return tuple(token for token, ours in zip(self.tokens, chosen, strict=True) if ours)

    @property
    def versions(self) -> Iterator[tuple[int, int]]:
        """(version, how many tokens in a row were drawn from it)."""
        starts, versions = [0, *(place for place, _ in self.changes)], [self.version, *(new for _, new in self.changes)]
        for version, start, end in zip(versions, starts, [*starts[1:], len(self.tokens)], strict=True):
            yield version, end - start


@dataclass(frozen=True, slots=True, kw_only=True)
class Reward:
    """A score with its parts. `value` None: this sample could not be scored (never read as 0)."""

    value: float | None
    parts: Mapping[str, float | None] = field(default_factory=dict)
    failures: Mapping[str, str] = field(default_factory=dict)
    """Why a function has no value for this sample, where it failed."""
    measures: Mapping[str, float] = field(default_factory=dict)
    """Numbers that functions logged, by <function>/<name>: the run's metrics are their means."""
    extras: Mapping[str, str | None] = field(default_factory=dict)
    """Columns that functions add to the table of completions."""
    placed: tuple[tuple[int, float], ...] = ()
    """What of `value` belongs to earlier actions than the last: (place in the completion's tokens, reward)."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Prompt:
    """One row of the data: what the policy is asked, with the columns that rewards read."""

    id: str
    """Stable across runs: the row's place in its file. Equal ids form a group."""
    text: str
    """The prompt as a person reads it."""
    tokens: tuple[int, ...]
    columns: Mapping[str, Any] = field(default_factory=dict)
    messages: tuple[Mapping[str, Any], ...] | None = None
    """The prompt as the data has it, where it is a conversation."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Call:
    """A tool that a completion called, as the record and the lab show it; training does not read it."""

    name: str
    """"" where the call could not be read."""
    arguments: str
    """As they were written."""
    answer: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Step:
    """What an environment answers to a completion, with Gymnasium's words."""

    messages: Sequence[Mapping[str, Any]] = ()
    """What the policy reads next. Where the episode is over, for the record."""
    reward: float = 0.0
    """Of the completion that was answered; an episode's rewards add up."""
    terminated: bool = False
    """The episode is over: nothing that comes after it could count."""
    truncated: bool = False
    """It is cut here, although it could go on."""
    info: Mapping[str, Any] = field(default_factory=dict)
    """For whoever calls the environment by hand; training does not read it."""
    calls: Sequence[Call] = ()
    """Tools that the completion called, for the record."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Turn:
    """What one side said in an episode.

    `reward`, `terminated`, `truncated` and `calls` are the environment's answer to a turn of the policy.
    """

    role: str
    text: str
    chosen: bool = False
    """Whether the policy chose it. What an environment said is read, and never trained on."""
    span: tuple[int, int] | None = None
    """Its tokens (from, to) in the completion. Messages that are read together are one span, which the first of them
    has; None also where nobody reads it, because the episode is over."""
    reward: float | None = None
    """None where it is the environment's own, or was not answered."""
    terminated: bool = False
    truncated: bool = False
    calls: tuple[Call, ...] = ()
    advantage: float | None = None
    """Mean over the turn's tokens that were trained on, filled in once it is known."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Trajectory:
    """One episode from prompt to reward: an immutable record, so that nothing can land on another sample's row."""

    prompt: Prompt
    group: int
    """Number of the group inside its step."""
    sample: int
    """Number of the sample inside its group."""
    completion: Completion
    text: str
    """The completion as a person reads it, without its end token."""
    reward: Reward
    kept: bool = True
    """False when dynamic sampling dropped its group."""
    advantage: float | None = None
    """Mean advantage over the action tokens, filled in once it is known."""
    turns: tuple[Turn, ...] = ()
    """What was said behind the prompt, in an environment; () without one."""

    @property
    def tokens(self) -> Sequence[int]:
        return (*self.prompt.tokens, *self.completion.tokens)
