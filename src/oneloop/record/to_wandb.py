"""Weights & Biases. Its own environment variables decide where and whether to send: WANDB_MODE, WANDB_PROJECT, ..."""

from __future__ import annotations

import json
import os
from collections.abc import Mapping
from pathlib import Path
from secrets import token_hex

import wandb

from oneloop.record.atomic import write_text
from oneloop.record.sinks import Opening

RUN_ID = "wandb.json"
"""In the run folder: under which id the run goes on after a resume."""


class Wandb:
    """Implements `oneloop.record.sinks.Sink`."""

    def __init__(self, run: wandb.Run) -> None:
        self._run = run

    def scalars(self, done: int, values: Mapping[str, float]) -> None:
        self._run.log(dict(values), step=done)

    def event(self, done: int, code: str, text: str) -> None:
        # an alert that comes at every step shall not be a message at every step
        self._run.alert(title=code, text=f"after step {done}: {text}", level="WARN", wait_duration=3600)

    def close(self, *, failed: bool) -> None:
        self._run.finish(exit_code=int(failed))


def open_sink(opening: Opening) -> Wandb:
    settings = wandb.Settings()
    if "WANDB_CONSOLE" not in os.environ:
        settings = wandb.Settings(console="off")  # the panel's frames are no log
    run = wandb.init(
        dir=None if "WANDB_DIR" in os.environ else str(opening.folder),
        project=None if "WANDB_PROJECT" in os.environ else opening.project,
        name=None if "WANDB_NAME" in os.environ else opening.name,
        id=None if "WANDB_RUN_ID" in os.environ else _run_id(opening.folder / RUN_ID),
        resume="allow",
        config=dict(opening.config),
        settings=settings,
    )
    return Wandb(run)


def _run_id(path: Path) -> str:
    if path.is_file():
        return str(json.loads(path.read_text(encoding="utf-8"))["id"])
    made = token_hex(4)
    write_text(path, json.dumps({"id": made}))
    return made
