"""One agent trained by oneloop: a JSON line, with the seconds from the first step's beginning to the last one's end."""

from __future__ import annotations

import json
import sys
import tempfile
from collections.abc import Mapping
from dataclasses import replace
from importlib.metadata import version
from pathlib import Path
from time import perf_counter, process_time
from typing import Any

import torch

from oneloop.config import default_run
from oneloop.recipes.execute import execute


class Clock:
    """Implements `oneloop.recipes.watched.PhaseObserver`."""

    def __init__(self) -> None:
        self._begin: tuple[float, float] | None = None
        self.wall = self.cpu = 0.0
        self.every: list[dict[str, float]] = []

    def say(self, text: str) -> None: ...

    def phase(self, name: str, note: str = "") -> None:
        if name == "rollout" and self._begin is None:
            self._begin = perf_counter(), process_time()
        if name == "evaluation" and self._begin is not None:  # the last one comes after all training
            self.wall, self.cpu = perf_counter() - self._begin[0], process_time() - self._begin[1]

    def step(self, step: int, values: Mapping[str, float]) -> None:
        self.every.append(dict(values))


def main(text: str) -> None:
    given = json.loads(text)
    torch.set_num_threads(1)
    clock = Clock()
    with tempfile.TemporaryDirectory() as folder:
        run = default_run(given["algorithm"], given["env"])
        execute(replace(run, seed=given["seed"], steps=given["steps"], out=str(Path(folder) / "run")), clock)
    last = clock.every[-1]
    found: dict[str, Any] = {"wall": clock.wall, "cpu": clock.cpu}
    found |= {"greedy": last["eval/reward"], "sampled": last["eval/sampled/reward"]}
    if "region" in given:
        kls, bound = [values["trust/kl"] for values in clock.every], given["region"]["max_kl"]
        found["region"] = {
            "steps": len(kls),
            "rejected": sum(not values["trust/accepted"] for values in clock.every),
            "beyond": sum(kl > bound for kl in kls),
            "largest": max(kls),
        }
    names = ("oneloop", "gymnasium", "torch", "numpy")
    print(json.dumps(found | {"versions": {name: version(name) for name in names}}))


if __name__ == "__main__":
    main(sys.argv[1])
