"""Runs for the pages' tests: recorded by oneloop, then changed where a test needs a certain number."""

from __future__ import annotations

import json
import os
import shutil
import socket
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pyarrow
from pyarrow import parquet

from oneloop.config import default_run
from oneloop.recipes.execute import execute

REWARD = '''
def letters(completions, log_extra, **columns):
    """Something that differs between answers of an untrained model."""
    log_extra("answer", [text[:1] for text in completions])
    return [sum(map(ord, text)) % 5 / 4 for text in completions]
'''
SMALL = {"data": "task:addition", "data_size": 32, "eval_size": 4, "max_new_tokens": 6, "prompts_per_step": 4}


class Quiet:
    def say(self, text: str) -> None: ...

    def step(self, step: int, values: Any) -> None: ...


def record(out: Path, algorithm: str, **settings: Any) -> Path:
    """Train a tiny model from nothing for a few steps."""
    common = SMALL | {"learning_rate": 1e-2}
    if algorithm != "dpo":
        reward = out.parent / "letters.py"
        reward.write_text(REWARD)
        common |= {"reward": (f"{reward}:letters",), "epochs": 2, "minibatch": 4}
    execute(replace(default_run(algorithm), out=str(out), **common | settings), Quiet())
    return out


def copy(run: Path, name: str, **info: Any) -> Path:
    """The same run under another name, with other words in its run.json."""
    new = run.parent / name
    shutil.copytree(run, new, ignore=shutil.ignore_patterns("checkpoints", "final"))
    change(new, **info)
    return new


def change(run: Path, **info: Any) -> None:
    file = run / "run.json"
    file.write_text(json.dumps(json.loads(file.read_text()) | info))


def alive(run: Path, **info: Any) -> None:
    """It goes on, as far as its folder says: its process is this one."""
    now = time.time()
    change(run, status="running", pid=os.getpid(), host=socket.gethostname(), started=now, heartbeat=now, **info)


def rewrite(folder: Path, changes: Callable[[dict[str, list[Any]]], dict[str, list[Any]]]) -> None:
    """Change the columns of every table in a folder; types stay as they are."""
    for file in folder.glob("*.parquet"):
        table = parquet.read_table(file)
        columns = changes(table.to_pydict())
        arrays = {name: pyarrow.array(values, table.schema.field(name).type) for name, values in columns.items()}
        parquet.write_table(pyarrow.table(arrays), file)
