"""Trackio. Its own environment variables decide where it writes: TRACKIO_DIR, TRACKIO_PROJECT, TRACKIO_SPACE_ID, ..."""

from __future__ import annotations

import os
from collections.abc import Mapping
from typing import Any

import trackio

from oneloop.record.sinks import Opening


class Trackio:
    """Implements `oneloop.record.sinks.Sink`.

    Args:
        done: steps that the logger has already; it would show a repeated one twice.
    """

    def __init__(self, run: Any, done: int) -> None:
        self._run, self._done = run, done

    def scalars(self, done: int, values: Mapping[str, float]) -> None:
        if done > self._done:
            self._run.log(dict(values), step=done)
            self._done = done

    def event(self, done: int, code: str, text: str) -> None:
        self._run.alert(title=code, text=text, step=done)

    def close(self, *, failed: bool) -> None:
        trackio.finish()  # and so its atexit function has nothing to do


def open_sink(opening: Opening) -> Trackio:
    run = trackio.init(
        # the variable that transformers reads
        project=os.environ.get("TRACKIO_PROJECT") or opening.project,
        name=opening.name,
        config=dict(opening.config),
        resume="allow" if opening.done else "never",
        embed=False,
        auto_log_gpu=False,
        auto_log_cpu=False,
    )
    return Trackio(run, getattr(run, "_next_step", 0) - 1)
