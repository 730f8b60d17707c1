"""A run's trace: what the loop shows it, as tables in the run folder."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Any, Literal

import torch
from jaxtyping import Int
from torch import Tensor

from oneloop.algorithms import PolicyGradient, Preference
from oneloop.algorithms.protocol import Algorithm
from oneloop.batch import Batch, PolicyOutput
from oneloop.objective.advantage import row_rewards
from oneloop.objective.preference import RewardHead
from oneloop.ports import Recorder, SingleProcess, World
from oneloop.seeds import named_seed
from oneloop.trace.pairs import pair_table
from oneloop.trace.passes import Passes, Saw, everyones
from oneloop.trace.ratios import histogram, ratio_table
from oneloop.trace.tokens import Spell, sampled_rows, token_table
from oneloop.types import Trajectory

if TYPE_CHECKING:  # slow to load
    import pyarrow

Kind = Literal["prompts", "demonstrations", "preferences", "unpaired"]
Keep = Callable[[int, "Mapping[str, pyarrow.Table]", Mapping[str, Any] | None], None]
"""Told a step, its tables by folder, and its line of ratios.jsonl."""


FIXED_EVERY = 4
"""Steps on fixed data are short and many: one in four is kept."""


class Traced:
    """Implements `oneloop.ports.Trace`.

    Args:
        kind: of the run's data.
        keep: where the tables go.
        seed: names the choice of groups that are kept token by token.
        world: ranks that see a share of the passes each. Rank 0 keeps what all of them saw.
    """

    def __init__(
        self,
        algorithm: Algorithm,
        kind: Kind,
        *,
        keep: Keep,
        recorder: Recorder,
        spell: Spell,
        decode: Callable[[Sequence[int]], str],
        seed: int,
        world: World = SingleProcess(),  # noqa: B008
    ) -> None:
        self._algorithm, self._kind, self._keep, self._recorder = algorithm, kind, keep, recorder
        self._spell, self._decode, self._seed, self._world = spell, decode, seed, world
        self._saws: list[Saw] = []

    def saw(self, update: int, micro: Batch, out: PolicyOutput) -> None:
        self._saws.append(Saw.of(update, micro, out))

    @torch.no_grad()
    def close(self, step: int, batch: Batch, trajectories: Sequence[Trajectory]) -> None:
        saws, self._saws = self._saws, []
        if self._kind != "prompts" and step % FIXED_EVERY:
            return
        saws = everyones(saws, batch.rewards.dtype, self._world)
        if self._world.rank:
            return
        try:
            self._keep(step, *self._step(step, batch.to("cpu"), saws, trajectories))
        except Exception as error:  # who looks on must not end what it looks at
            self._recorder.event(
                step,
                "A_TRACE",
                f"ratios and tokens of this step were not written: {type(error).__name__}: {error}",
                "--no-trace, if this goes on",
            )

    def _step(
        self, step: int, batch: Batch, saws: Sequence[Saw], trajectories: Sequence[Trajectory]
    ) -> tuple[dict[str, pyarrow.Table], dict[str, Any] | None]:
        seen, samples = Passes.gathered(saws, batch), _samples(batch)
        if not _judges(self._algorithm):
            seen = replace(seen, scores=None)
        tables: dict[str, pyarrow.Table] = {}
        line = None
        surrogate = _surrogate(self._algorithm, batch)
        if surrogate is not None:
            tables["ratios"] = ratio_table(step, batch, seen, samples)
            line = histogram(batch, seen, surrogate)
        rewards = row_rewards(batch.rewards, batch.mask)
        rows = sampled_rows(batch.group, rewards, named_seed(self._seed, "trace", step))
        tables["tokens"] = token_table(
            step,
            batch.rows(rows),
            seen.rows(rows),
            samples[rows],
            surrogate,
            kinds=[self._row_kind(float(reward)) for reward in rewards[rows]],
            drawn={(item.group, item.sample): item for item in trajectories},
            spell=self._spell,
            decode=self._decode,
        )
        if isinstance(self._algorithm, Preference):
            pairs = pair_table(step, batch, seen, self._algorithm, self._decode)
            tables |= {} if pairs is None else {"pairs": pairs}
        return tables, line

    def _row_kind(self, reward: float) -> str:
        if self._kind == "preferences":
            return "chosen" if reward > 0 else "rejected"
        return {"prompts": "rollout", "demonstrations": "demonstration", "unpaired": "rated"}[self._kind]


def _judges(algorithm: Algorithm) -> bool:
    """Whether a reward model is trained: it has scores, and no log-probs."""
    return isinstance(algorithm, Preference) and isinstance(algorithm.reward, RewardHead)


def _surrogate(algorithm: Algorithm, batch: Batch) -> Any:
    """Of a method that knows a π_old to compare with; others have no ratio."""
    if not isinstance(algorithm, PolicyGradient):
        return None
    compares = algorithm.surrogate.uses_old or batch.old_logprobs is not None
    return algorithm.surrogate if compares else None


def _samples(batch: Batch) -> Int[Tensor, " B"]:
    """Each row's number within its group: groups are whole, and their rows in order."""
    counts: dict[int, int] = {}
    samples: list[int] = []
    for group in batch.group.tolist():
        samples.append(counts.get(group, 0))
        counts[group] = samples[-1] + 1
    return torch.tensor(samples)
