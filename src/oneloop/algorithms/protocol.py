"""What the loop calls: the side that every algorithm shows."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Literal, Protocol, runtime_checkable

from oneloop.batch import Batch, Loss, PolicyOutput, Size
from oneloop.ports import Models, World

Need = Literal["reference", "values"]


def knowing_reference(batch: Batch, models: Models, needs: frozenset[Need]) -> Batch:
    """With π_ref where it is needed, unless the batch brings it: for fixed data it can be known beforehand."""
    known = "reference" not in needs or batch.ref_logprobs is not None
    return batch if known else replace(batch, ref_logprobs=models.reference(batch))


@runtime_checkable
class Algorithm(Protocol):
    """What the loop calls."""

    @property
    def name(self) -> str: ...

    @property
    def epochs(self) -> int: ...

    @property
    def needs(self) -> frozenset[Need]:
        """Models beside the policy, derived from the pieces, so that no unused one is ever loaded."""
        ...

    def prepare(self, batch: Batch, models: Models, *, one_update: bool = False) -> Batch:
        """Fill what stays fixed during the step: π_old, π_ref, V, advantages. No gradient.

        Args:
            one_update: the batch gets a single optimizer step, so that π_old is the policy of its own forward pass.
        """
        ...

    def loss(self, out: PolicyOutput, batch: Batch, size: Size) -> Loss:
        """Pure. The values of a step's microbatches add up to the step's loss."""
        ...

    def step(self, models: Models, mini: Batch, max_tokens: int, world: World) -> Mapping[str, float]:
        """Apply the gradient that was added up over the minibatch; returns what to log. As a rule `models.step()`."""
        ...

    def observe(self, batch: Batch) -> dict[str, float]:
        """What a prepared batch tells, for the log."""
        ...

    def too_far(self, stats: dict[str, float]) -> bool:
        """Whether the last optimizer step moved the policy so far that the rest of the epochs must be dropped."""
        ...

    def adapted(self, kl: float | None, sequences: int) -> Algorithm:
        """The value for the next step: its KL coefficient may have moved."""
        ...
