"""Three hundred steps hold what a hundred did: objects, file descriptors, threads. `make soak` measures bytes."""

import json
from pathlib import Path

from forked import Forked

STEPS, WARM = 300, 100
MOST = 100
"""More objects of one type, after two hundred steps. (Files of tables and their footers come and go.)"""
# in a process of its own: what checks types in tests keeps something of every call
COUNTS = """
import gc, json, os, sys, threading
from collections import Counter
from dataclasses import replace
from oneloop.config import default_run
from oneloop.recipes.execute import execute
from oneloop.recipes.watched import Silent

steps, warm = int(sys.argv[1]), int(sys.argv[2])

class Counts(Silent):
    seen = []

    def step(self, step, values):
        if step in (warm, steps - 1):
            gc.collect()
            files = len(os.listdir("/proc/self/fd")) if sys.platform == "linux" else 0
            types = Counter(type(thing).__name__ for thing in gc.get_objects())
            self.seen.append((types, files, threading.active_count()))

run = replace(
    default_run("grpo"), data="task:addition", out="run", steps=steps, prompts_per_step=1,
    group_size=2, max_new_tokens=1, learning_rate=1e-4, data_size=16, eval_size=2,
)
execute(run, Counts())
print(json.dumps(Counts.seen))
"""


def test_nothing_is_left_by_a_step(tmp_path: Path) -> None:
    out, said = Forked(["-c", COUNTS, str(STEPS), str(WARM)], tmp_path).communicate(300)
    assert out, said
    (before, files, threads), (after, files_after, threads_after) = json.loads(out)
    grown = {name: count - before.get(name, 0) for name, count in after.items() if count - before.get(name, 0) > MOST}
    assert not grown and files_after <= files and threads_after <= threads
    lines = [len(line) for line in (tmp_path / "run" / "metrics.jsonl").read_text().splitlines()]
    assert len(lines) == STEPS  # the last one has the evaluation, too
    assert max(lines[WARM:-1]) < 1.1 * max(lines[:WARM]), "a step's line stays as long as it is"
