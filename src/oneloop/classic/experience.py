"""Environment steps as the loop's experience."""

from __future__ import annotations

from collections import deque
from collections.abc import Mapping
from statistics import fmean
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor

from oneloop.batch import Batch
from oneloop.classic.environments import Environments, Step
from oneloop.classic.episodes import episode_scalars, episodes_of, trajectory
from oneloop.classic.normalize import Observations, Rewards
from oneloop.classic.policy import Agent
from oneloop.classic.transitions import Pieces
from oneloop.ports import Models, Report
from oneloop.seeds import named_seed
from oneloop.types import Trajectory

RECENT = 100
"""Episodes of the mean return that says whether a task is solved."""
MORE = 32
"""Steps of all environments at a time, while some episodes have yet to be finished."""


class Steps(NamedTuple):
    """What all environments went through in one step of the loop; T steps of N environments.

    Args:
        observations: s_t as the policy sees it.
        after: s_(t+1), filled where the row is cut: at a time limit, and at the last step.
        live: steps that count. Others only let an environment go along until the last episode is over.
    """

    observations: Tensor
    after: np.ndarray
    actions: np.ndarray
    rewards: np.ndarray
    terminated: np.ndarray
    truncated: np.ndarray
    live: np.ndarray


class Interaction:
    """Implements `oneloop.ports.Experience`: the policy acts for some steps in each of several environments.

    Episodes go on from one step of the loop to the next. What there is of them at its end is a truncated piece.

    Args:
        steps: in each environment, for one step of the loop.
        whole: steps go on until every episode is over, and the next ones begin anew: a return that no critic continues
            must not be cut.
        normalized, scaled: what the policy sees of observations, and what it learns from of rewards.
    """

    def __init__(
        self,
        environments: Environments,
        agent: Agent,
        *,
        steps: int,
        seed: int,
        normalized: Observations,
        scaled: Rewards,
        whole: bool = False,
    ) -> None:
        self._environments, self._agent, self._steps, self._seed = environments, agent, steps, seed
        self._normalized, self._scaled, self._whole = normalized, scaled, whole
        self._returns, self._lengths = np.zeros(environments.count), np.zeros(environments.count, dtype=np.int64)
        self._ended: list[Trajectory] = []
        # of each running episode: actions before, and the step of the loop whose policy acts from there on
        self._marks: list[list[tuple[int, int]]] = [[] for _ in range(environments.count)]
        self._recent: deque[float] = deque(maxlen=RECENT)
        self.lost: list[str] = []
        """What `restore` could not put back, in words."""

    def batch(self, step: int) -> Pieces:
        rng = np.random.default_rng(named_seed(self._seed, "actions", step))
        self._ended = []
        self._marks = [
            [*(marks if length else ()), (length, step)]
            for marks, length in zip(self._marks, self._lengths.tolist(), strict=True)
        ]
        live = np.ones(self._environments.count, dtype=bool)
        parts = [self._acted(rng, step, self._steps, live)]
        if self._whole:
            live &= ~(parts[0].terminated[-1] | parts[0].truncated[-1])
            while live.any():
                parts.append(self._acted(rng, step, MORE, live, until_over=True))
            self._environments.begin()
            self._forget(list(range(self._environments.count)))
        steps = Steps(
            torch.cat([part.observations for part in parts]),
            *map(np.concatenate, zip(*(part[1:] for part in parts), strict=True)),
        )
        self._recent.extend(episode.reward for episode in episodes_of(self._ended))
        scaled = self._scaled.scaled(steps.rewards, steps.terminated | steps.truncated)
        return pieces(steps._replace(rewards=scaled), continuous=not self._environments.spaces.choices)

    def _acted(
        self, rng: np.random.Generator, step: int, count: int, live: np.ndarray, until_over: bool = False
    ) -> Steps:
        """So many steps of all environments.

        Args:
            step: of the loop.
            live: environments whose steps count; with `until_over`, those that are over are taken out of it.
        """
        steps = self._empty(count)
        seen, noise = steps.observations.numpy(), self._agent.head.noise(rng, *steps.rewards.shape)
        for t in range(count):
            seen[t] = self._normalized.seen(self._environments.observations)
            steps.actions[t] = self._agent.act(steps.observations[t], noise[t])
            result = self._environments.step(steps.actions[t])
            steps.rewards[t], steps.terminated[t], steps.truncated[t] = result[1:4]
            steps.live[t] = live
            if t == count - 1 or steps.truncated[t].any():
                steps.after[t] = self._normalized(result.observations)
            self._count(step, result, live)
            if until_over:
                live &= ~(result.terminated | result.truncated)
        return steps

    def _empty(self, count: int) -> Steps:
        spaces, shape = self._environments.spaces, (count, self._environments.count)
        vector = (*shape, spaces.features)
        return Steps(
            torch.empty(vector),  # torch's memory is aligned alike in every process, and so are the sums over it
            np.zeros(vector, dtype=np.float32),
            np.zeros(shape, np.int64) if spaces.choices else np.zeros((*shape, spaces.numbers), np.float32),
            np.zeros(shape),
            np.zeros(shape, dtype=bool),
            np.zeros(shape, dtype=bool),
            np.ones(shape, dtype=bool),
        )

    def _count(self, step: int, result: Step, live: np.ndarray) -> None:
        self._returns += result.rewards
        self._lengths += 1
        for played in result.ended:
            place = played.place
            if live[place]:
                told = (len(self._ended), played, float(self._returns[place]), self._marks[place])
                self._ended.append(trajectory(self._environments.env, *told))
            self._returns[place] = self._lengths[place] = 0
            self._marks[place] = [(0, step)]

    def _forget(self, environments: list[int]) -> None:
        """Their episodes are others."""
        self._returns[environments] = 0.0
        self._lengths[environments] = 0
        self._scaled.forget(environments)

    def update(self, models: Models, step: int) -> None:
        """The policy acts with the weights that are trained."""

    def report(self, batch: Batch) -> Report:
        scalars = {"environment_steps": float(batch.lengths.sum())}
        if self._ended:
            scalars |= episode_scalars(episodes_of(self._ended))
        if self._recent:
            scalars["episode_return/last_100"] = fmean(self._recent)
        return Report(scalars, self._ended)

    def state(self) -> dict[str, Any]:
        return {
            "environments": self._environments.state(),
            "returns": self._returns.tolist(),
            "lengths": self._lengths.tolist(),
            "marks": self._marks,
            "recent": list(self._recent),
            "observations": self._normalized.state(),
            "rewards": self._scaled.state(),
        }

    def restore(self, state: Mapping[str, Any]) -> None:
        self._returns = np.array(state["returns"], dtype=np.float64)
        self._lengths = np.array(state["lengths"], dtype=np.int64)
        # a checkpoint from before there were marks: those of the episodes that run begin at the next step
        marks = state.get("marks", [()] * self._environments.count)
        self._marks = [[(before, step) for before, step in one] for one in marks]
        self._recent = deque(state["recent"], RECENT)
        self._normalized.restore(state["observations"])
        self._scaled.restore(state["rewards"])
        if other := self._environments.restore(state["environments"]):
            self._forget(other)
            self.lost.append(
                f"{len(other)} of {self._environments.count} episodes came out otherwise when they were replayed from "
                "their seeds and actions, and begin anew: the run goes on, with other numbers than without the stop"
            )


def pieces(steps: Steps, *, continuous: bool) -> Pieces:
    """Cut into rows where an episode ends, and at the last step."""
    cut = steps.terminated | steps.truncated
    cut[-1] = True
    cut &= steps.live
    environment, end = cut.T.nonzero()
    begin = np.where(np.r_[True, environment[1:] != environment[:-1]], 0, np.r_[0, end[:-1] + 1])
    lengths = end - begin + 1
    within = np.arange(lengths.max())
    time = np.minimum(begin[:, None] + within, len(cut) - 1)
    place = (time, environment[:, None])
    mask = within < lengths[:, None]
    rows, chosen = len(lengths), torch.from_numpy(steps.actions[place])
    return Pieces(
        tokens=torch.zeros(mask.shape, dtype=torch.int64) if continuous else chosen,
        mask=torch.from_numpy(mask),
        group=torch.arange(rows),
        rewards=torch.from_numpy(np.where(mask, steps.rewards[place], 0.0).astype(np.float32)),
        truncated=torch.from_numpy(~steps.terminated[end, environment]),
        lengths=torch.from_numpy(lengths),
        place=torch.arange(rows),
        observations=steps.observations[torch.from_numpy(time), torch.from_numpy(environment)[:, None]],
        last=torch.from_numpy(steps.after[end, environment]),
        actions=chosen if continuous else None,
    )
