"""Three hundred steps hold what a hundred did: objects, file descriptors, threads. `make soak` measures bytes."""

import gc
import os
import sys
import threading
from collections import Counter
from dataclasses import replace
from pathlib import Path

from oneloop.config import default_run
from oneloop.recipes.execute import execute
from toy_models import Silent

STEPS, WARM = 300, 100
MOST = 100
"""More objects of one type, after two hundred steps. (Files of tables and their footers come and go.)"""


class Counts(Silent):
    def __init__(self) -> None:
        super().__init__()
        self.seen: list[tuple[Counter[str], int, int]] = []

    def step(self, step, values) -> None:
        if step in (WARM, STEPS - 1):
            gc.collect()
            files = len(os.listdir("/proc/self/fd")) if sys.platform == "linux" else 0
            types = Counter(type(thing).__name__ for thing in gc.get_objects())
            self.seen.append((types, files, threading.active_count()))


def test_nothing_is_left_by_a_step(tmp_path: Path) -> None:
    watcher = Counts()
    run = replace(
        default_run("grpo"), data="task:addition", out=str(tmp_path / "run"), steps=STEPS, prompts_per_step=1,
        group_size=2, max_new_tokens=1, learning_rate=1e-4, data_size=16, eval_size=2,
    )  # fmt: skip
    execute(run, watcher)
    (before, files, threads), (after, files_after, threads_after) = watcher.seen
    grown = {name: count - before[name] for name, count in after.items() if count - before[name] > MOST}
    assert not grown and files_after <= files and threads_after <= threads
    lines = [len(line) for line in (tmp_path / "run" / "metrics.jsonl").read_text().splitlines()]
    assert len(lines) == STEPS and max(lines[WARM:]) < 1.1 * max(lines[:WARM]), "a step's line stays as long as it is"
