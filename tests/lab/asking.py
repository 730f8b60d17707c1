"""Asking the lab's server without a socket, and runs to ask about."""

from __future__ import annotations

import asyncio
import atexit
import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import unquote

import pyarrow

from oneloop.lab.app import app
from oneloop.lab.catalog import Catalog
from oneloop.lab.guard import Door
from oneloop.record.writer import RunFolder
from oneloop.types import Completion, Prompt, Reward, StopReason, Trajectory

HOST = "127.0.0.1:8765"
DOOR = Door(frozenset({HOST, "localhost:8765"}))
_runner = asyncio.Runner()  # one loop for all: its threads need not start anew for each request
atexit.register(_runner.close)


@dataclass(frozen=True)
class Answer:
    status: int
    headers: dict[str, str]
    body: bytes

    def json(self) -> Any:
        return json.loads(self.body)


class Lab:
    """The application around some folders, asked as a browser would."""

    def __init__(self, *roots: Path, door: Door = DOOR, demo: Path | None = None) -> None:
        self.catalog = Catalog(roots)
        self._app = app(self.catalog, door, demo)

    def get(self, target: str, method: str = "GET", headers: Sequence[tuple[str, str]] = (("host", HOST),)) -> Answer:
        """`target`: a path with its query, as it stands in a request line."""
        path, _, query = target.partition("?")
        scope = {
            "type": "http", "http_version": "1.1", "method": method, "scheme": "http", "root_path": "",
            "path": unquote(path), "raw_path": path.encode("utf-8", "surrogateescape"),
            "query_string": query.encode("utf-8", "surrogateescape"),
            "headers": [(key.encode("latin-1"), value.encode("latin-1")) for key, value in headers],
        }  # fmt: skip
        sent: list[Any] = []

        async def receive() -> Any:
            return {"type": "http.request", "body": b"", "more_body": False}

        async def send(message: Any) -> None:
            sent.append(message)

        _runner.run(self._app(scope, receive, send))
        start, *bodies = sent
        given = {key.decode("latin-1"): value.decode("latin-1") for key, value in start["headers"]}
        return Answer(start["status"], given, b"".join(message.get("body", b"") for message in bodies))

    def api(self, path: str) -> Any:
        """The answer of a route that must have one."""
        answer = self.get(f"/api{path}")
        assert answer.status == 200, (path, answer)
        return answer.json()


def trajectory(group: int, sample: int, text: str, reward: float | None, prompt: str = "") -> Trajectory:
    return Trajectory(
        prompt=Prompt(id=str(group), text=prompt or f"prompt {group}", tokens=(1,)),
        group=group,
        sample=sample,
        completion=Completion(tokens=(2, 3), logprobs=(-0.1, -0.2), stop=StopReason.EOS),
        text=text,
        reward=Reward(value=reward, parts={"exact": reward, "format": 1.0}, extras={"answer": text[:3], "note": None}),
        advantage=0.5,
    )


def ratio_tables(step: int) -> dict[str, pyarrow.Table]:
    """One row of each table that a run's updates leave."""
    half = pyarrow.list_(pyarrow.float16())
    import numpy

    log_ratio = [[numpy.float16(0.125), numpy.float16(-0.1)]]
    ratios = pyarrow.table(
        {
            "step": pyarrow.array([step], pyarrow.int32()), "group": [0], "sample": pyarrow.array([0], pyarrow.int32()),
            "truncated": [False], "update": pyarrow.array([[0]], pyarrow.list_(pyarrow.int32())),
            "advantage": pyarrow.array([[1.0, 1.0]], pyarrow.list_(pyarrow.float32())),
            "log_ratio": pyarrow.array([log_ratio], pyarrow.list_(half)),
            "ref_gap": pyarrow.array([None], half), "mismatch": pyarrow.array([None], half),
        }
    )  # fmt: skip
    tokens = pyarrow.table({"step": [step], "group": [0], "text": [["a", "<b>"]], "lp_old": [[-0.5, float("nan")]]})
    pairs = pyarrow.table({"step": [step], "pair": [0], "prompt": ["p"], "chosen": ["c"], "margin": [0.25]})
    return {"ratios": ratios, "tokens": tokens, "pairs": pairs}


def make_run(
    path: Path,
    *,
    steps: int = 4,
    status: str | None = "finished",
    failure: str | None = None,
    lift: float = 0.0,
    **facts: Any,
) -> Path:
    """A small run folder with every file that a run can have.

    Args:
        status: None leaves it running.
        lift: added to every reward.
    """
    facts = {"algorithm": "grpo", "model": "scratch:tiny", "seed": 7, "steps": steps, **facts}
    config = facts.pop("config", 'algorithm = "grpo"\ngroup_size = 2\nepochs = 1\nsteps = 4\n')
    with RunFolder.open(path, resume=False, config_text=config, facts=facts) as folder:
        (path / "objective.txt").write_text("ρ·Â\n", encoding="utf-8")
        for step in range(steps):
            write_step(folder, step, lift)
        if status is not None:
            folder.finish(status, failure)
    return path


def write_step(folder: RunFolder, step: int, lift: float = 0.0) -> None:
    folder.scalars(
        step,
        {"reward": step / 4, "reward_std": 0.5, "kl": float("nan"), "num_tokens": 100.0 * (step + 1),
         "frac_reward_zero_std": 0.75, "eval/reward": step / 8},
    )  # fmt: skip
    folder.memory(step, {"rss": 1000 + step, "peak_rss": 2000 + step})
    rows = [trajectory(group, sample, f"answer {step}.{group}.{sample} " + "x" * 400 * sample, sample + lift)
            for group in range(2) for sample in range(2)]  # fmt: skip
    folder.trajectories(step, rows)
    line = {"updates": 1, "epsilon": [0.2, 0.28], "positive": [{"51": 2}], "negative": [{}], "zero": [{"0": 1}]}
    folder.traced(step, ratio_tables(step), line)
    if step == 1:
        folder.event(1, "A_DEAD", "2 of 2 groups have equal rewards", "easier prompts")
        folder.event(1, "I_LOSS_ZERO", "expected", "")
