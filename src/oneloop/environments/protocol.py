"""What an environment is: an object for each rollout that speaks messages, as Gymnasium's speak observations."""

from __future__ import annotations

from collections.abc import Awaitable, Mapping, Sequence
from typing import Any, Protocol, runtime_checkable

from oneloop.types import Step

Messages = Sequence[Mapping[str, Any]]


@runtime_checkable
class Environment(Protocol):
    """One episode's. A new object is made for every rollout, so that none can see another's state.

    Both methods may be `async`. Beside them there may be

        tools: Sequence[Mapping]        JSON schemas of functions, which the chat template is given
        def close(self) -> None         called when the episode is over, however it ended
    """

    def reset(self, row: Mapping[str, Any]) -> Messages | Awaitable[Messages]:
        """Begin the episode of a row of the data.

        Returns: the conversation that the policy is to go on with.

        With a second parameter `seed` it is also given a number that names the rollout: whatever is random has to come
        from it, so that a run can be repeated.
        """
        ...

    def step(self, completion: str) -> Step | Awaitable[Step]:
        """Answer what the policy said."""
        ...
