"""What a rank holds from step to step: weights, the optimizer's state, and what runs touch beside tensors."""

from __future__ import annotations

from typing import NamedTuple

from oneloop.config import Run
from oneloop.model.optimizer import state_bytes
from oneloop.plan.rehearsal import size_of
from oneloop.plan.shapes import Shapes, kind_of_device
from oneloop.plan.spread import Spread, copy_of
from oneloop.recipes.device import offloads
from oneloop.recipes.region import bounded
from oneloop.recipes.resolve import Algorithm

RUNTIME = {"cpu": 30 * 2**20, "cuda": 0}
"""What the first steps touch beside tensors: pages of libraries, buffers of products, objects of the run. It is what is
resident after steps of SFT with a model of 0.9 M parameters, less its tensors; torch's own count on a GPU has none."""
SAMPLING_RUNTIME = {"cpu": 45 * 2**20, "cuda": 0}
"""What runs that sample have on top, found in the same way: the library that writes tables of completions, objects."""
IDLE = {
    "rollout": ("reference", "teacher", "critic", "reward model"),
    "score": ("reference", "teacher", "critic"),
    "evaluate": ("reference", "teacher", "critic", "reward model"),
    "prepare": ("reward model",),
    "update": ("reference", "teacher", "reward model"),
}
"""Who is away from the device in which phase, where idle models leave it."""


class Held(NamedTuple):
    """Bytes of one model that stay from step to step, over all ranks."""

    weights: int
    moments: int = 0


class Standing:
    """What a rank holds in every phase, less what is away."""

    def __init__(self, run: Run, algorithm: Algorithm, shapes: Shapes, samples: bool) -> None:
        self.spread, kind, cast = Spread.of(run), run.optimizer, shapes.cast
        self._away = IDLE if offloads(run) else {}
        reward = shapes.reward.policy if shapes.reward else None
        held = {
            "policy": Held(shapes.policy.all, 0 if bounded(algorithm) else state_bytes(kind, cast.policy)),
            "critic": Held(shapes.critic.all, state_bytes(kind, shapes.critic_module)),
            "teacher" if run.teacher else "reference": Held(size_of(shapes.reference)),
            "reward model": Held(size_of(reward)),
        }
        self.held = {name: one for name, one in held.items() if one.weights}
        self._stays = {"policy", "critic"} if cast.critic is None else {"policy"}  # a head stays with its backbone
        self._runtime = RUNTIME[kind_of_device(run)] + (SAMPLING_RUNTIME[kind_of_device(run)] if samples else 0)
        copied = samples and self.spread.shares and run.engine == "builtin"
        self._copy = copy_of(cast.policy, cast.dtype) if copied else 0

    def __call__(self, phase: str) -> dict[str, int]:
        away = self._gone(phase)
        here = [one for name, one in self.held.items() if name not in away]
        parts = {
            "weights": self.spread.at_rest(sum(one.weights for one in here)),
            "optimizer": self.spread.at_rest(sum(one.moments for one in here)),
            "runtime": self._runtime,
        }
        return parts | ({"copy that samples": self._copy} if self._copy else {})

    def _gone(self, phase: str) -> set[str]:
        return set(self._away.get(phase, ())) & self.held.keys() - self._stays

    @property
    def host(self) -> int:
        """What is away at the most."""
        if self.spread.shares and self.spread.on_host:
            return self.spread.share(sum(one.weights + one.moments for one in self.held.values()))
        return max((sum(sum(self.held[name]) for name in self._gone(phase)) for phase in self._away), default=0)
