"""The protocols that the loop needs. Structural: nothing has to inherit from them.

Everything that touches a model, a device, a file or a user's function stands behind one of these.
"""

from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import Future
from typing import Any, NamedTuple, Protocol, TypeVar, runtime_checkable

from jaxtyping import Float
from torch import Tensor

from oneloop.batch import Batch, PolicyOutput
from oneloop.objective.distributions import Distribution
from oneloop.types import Completion, Sampling, Trajectory

T = TypeVar("T")


@runtime_checkable
class Models(Protocol):
    """The policy that is trained, with whatever the algorithm needs beside it (reference, critic)."""

    def policy(self, batch: Batch) -> PolicyOutput:
        """One forward pass with gradient; without gradient, a batch of any size."""
        ...

    def reference(self, batch: Batch) -> Float[Tensor, "B T"]:
        """log π_ref, without gradient."""
        ...

    def step(self) -> Mapping[str, float]:
        """Check, clip and apply the accumulated gradient, then clear it; returns what to log.

        Raises: DivergedError after several non-finite gradients in a row.
        """
        ...


@runtime_checkable
class Careful(Protocol):
    """Models that can do without a gradient that was added up since the last step."""

    def forget(self) -> None:
        """Drop it: its passes are made again, smaller, because memory ran out in one."""
        ...

    def skip(self) -> Mapping[str, float]:
        """Drop it, in the place of `step`: something in its passes was not finite.

        Raises: DivergedError after several in a row.
        """
        ...


@runtime_checkable
class TwiceDifferentiable(Careful, Models, Protocol):
    """Models for a trust region, which moves the policy itself and measures how far."""

    def policy_parameters(self) -> Sequence[Tensor]:
        """All that π_θ depends on, in an order that stays; a trunk that a value head reads is among them."""
        ...

    def take_gradient(self) -> Float[Tensor, " n"]:
        """What was added up for the policy's parameters, end to end; it is theirs no more.

        A `step` after that leaves them as they are, and moves whatever else has a gradient: the critic.
        """
        ...

    def distribution(self, batch: Batch) -> Distribution:
        """π_θ(· | s) at each action of a batch, rows one after the other: what can be differentiated twice in θ."""
        ...


@runtime_checkable
class AskedForValues(Protocol):
    """Models that can be asked what their critic says, without the policy's pass where it needs none of that."""

    def critic_values(self, batch: Batch) -> Float[Tensor, "B T"] | None:
        """`policy(batch).values`, with gradient; None without a critic."""
        ...


@runtime_checkable
class World(Protocol):
    """The processes that train together. Every rank holds the whole step's batch; only passes and samples are dealt.

    Every rank runs the same loop and makes the same calls in the same order, whatever its share is. Values are JSON's:
    numbers, texts, lists and dicts with texts as keys; floats keep every bit.
    """

    rank: int
    ranks: int

    def share(self, items: Sequence[T]) -> list[T | None]:
        """This rank's items, round robin; None at the end where it has one fewer than another rank."""
        ...

    def collect(self, mine: Sequence[T]) -> list[T]:
        """Everybody's values, back in the order of what was shared."""
        ...

    def add(self, rows: Tensor) -> Tensor:
        """The sum over ranks, in place."""
        ...

    def sum(self, stats: Mapping[str, float]) -> dict[str, float]:
        """Statistics added up over ranks (`*/max`: the maximum). A rank need not have every name."""
        ...

    def agree(self, value: T) -> T:
        """Rank 0's value."""
        ...


class SingleProcess:
    """The world of one process: everything is its own."""

    rank, ranks = 0, 1

    def share(self, items: Sequence[T]) -> list[T | None]:
        return list(items)

    def collect(self, mine: Sequence[T]) -> list[T]:
        return list(mine)

    def add(self, rows: Tensor) -> Tensor:
        return rows

    def sum(self, stats: Mapping[str, float]) -> dict[str, float]:
        return dict(stats)

    def agree(self, value: T) -> T:
        return value


class Report(NamedTuple):
    """What experience has to say about the batch it gave."""

    scalars: Mapping[str, float]
    trajectories: Sequence[Trajectory]


@runtime_checkable
class Experience(Protocol):
    """Where batches come from: rollouts, preference pairs or demonstrations."""

    def batch(self, step: int) -> Batch:
        """The experience of one step, rows of a group together."""
        ...

    def update(self, models: Models, step: int) -> None:
        """μ ← π_θ. Nothing to do for fixed data, or where sampler and trainer share their weights."""
        ...

    def report(self, batch: Batch) -> Report:
        """Metrics and records behind `batch`, the last one given, now that its advantages are known."""
        ...

    def state(self) -> dict[str, Any]:
        """What resume needs, as JSON values."""
        ...

    def restore(self, state: Mapping[str, Any]) -> None: ...


Finished = Callable[[int, Completion], None]
"""Told a completion's index in the input, and the completion."""


@runtime_checkable
class RolloutEngine(Protocol):
    """Draws completions from the behaviour policy μ."""

    version: int
    """Of the weights."""
    exact: bool
    """Its log-probs are the trainer's, to 1e-4: the same weights, the same modules, float32."""

    def update(self, version: int) -> None:
        """μ ← π_θ: what is drawn from now on comes from the trainer's weights as they are, called `version`."""
        ...

    def generate(
        self,
        prompts: Sequence[Sequence[int]],
        sampling: Sampling,
        seeds: Sequence[int],
        finished: Finished = ...,
    ) -> list[Completion]:
        """One completion per prompt, in the order of the input. Each row's draw depends on its own seed only.

        `finished` hears of each completion as it ends.
        """
        ...


@runtime_checkable
class Turns(Protocol):
    """Rows that are drawn turn by turn."""

    @property
    def patience(self) -> int:
        """Steps of the others after which the answer to a turn is waited for."""
        ...

    @property
    def read(self) -> int:
        """Tokens that were read and not drawn: prompts, and what was said between turns."""
        ...

    @property
    def running(self) -> bool:
        """Whether a step would draw something: no row waits for others alone."""
        ...

    def begin(self, number: int, prompt: Sequence[int], seed: int) -> None:
        """A row's first turn."""
        ...

    def go_on(self, number: int, given: Sequence[int], seed: int) -> None:
        """The next turn of a row whose turn has ended, behind what was said to it."""
        ...

    def leave(self, number: int) -> None:
        """A row whose turn has ended has no other."""
        ...

    def step(self) -> list[tuple[int, Completion]]:
        """Go on drawing; the turns that have ended, by their rows' numbers."""
        ...


class Drawn(NamedTuple):
    """What was drawn for some requests."""

    trajectories: list[Trajectory]
    """In their order; not scored."""
    counts: Mapping[str, float] = {}
    """What adds up over draws and ranks, by its metric's name."""


Begun = Callable[[Finished], list[Completion]]
"""Waits for completions that were begun: `RolloutEngine.generate`, without what it was asked."""


@runtime_checkable
class BesideEngine(RolloutEngine, Protocol):
    """Draws completions while the trainer goes on, too. `generate` still answers with the newest weights."""

    def begin(self, prompts: Sequence[Sequence[int]], sampling: Sampling, seeds: Sequence[int]) -> Begun:
        """As `generate`, and returns at once.

        What is begun after an `update` is drawn from those weights. One that comes while completions are on their way
        waits for their end, or the rest of each is drawn from the new weights: `Completion.changes` says which token
        came from which.
        """
        ...

    def until(self, done: Future[T]) -> T:
        """What `done` has, once it has. Called by the thread that trains, which waits here for what was begun."""
        ...

    def close(self) -> None:
        """End what runs beside. Whoever waits hears an EngineError."""
        ...


@runtime_checkable
class Scorer(Protocol):
    """Scores the completions of some trajectories: a reward function behind its contract checks."""

    def __call__(
        self, trajectories: Sequence[Trajectory], step: int = ..., scored: Callable[[int], None] = ...
    ) -> list[Trajectory]:
        """The same trajectories, in order, with `reward` filled in.

        `scored` hears how many more samples have been scored, while others are.
        """
        ...


@runtime_checkable
class Recorder(Protocol):
    """Keeps what happened: append-only files first."""

    def scalars(self, step: int, values: Mapping[str, float]) -> None: ...

    def trajectories(self, step: int, items: Sequence[Trajectory]) -> None: ...

    def event(self, step: int, code: str, text: str, fix: str = "") -> None: ...


@runtime_checkable
class Trace(Protocol):
    """Looks on while a step is trained. It changes nothing, and its failures are its own."""

    def saw(self, update: int, micro: Batch, out: PolicyOutput) -> None:
        """A microbatch and its forward pass, after its gradient was taken and before it is applied.

        `update` counts the minibatches of the step; `micro.place` leads back to the rows of its batch.
        """
        ...

    def close(self, step: int, batch: Batch, trajectories: Sequence[Trajectory]) -> None:
        """The step is over; `batch` is what its passes were of, prepared."""
        ...


class Untraced:
    """Nobody looks."""

    def saw(self, update: int, micro: Batch, out: PolicyOutput) -> None: ...

    def close(self, step: int, batch: Batch, trajectories: Sequence[Trajectory]) -> None: ...


Measure = Callable[[int], Mapping[str, float]]
"""Called after each step; what it returns is logged with the step (evaluation)."""
