"""A reward that hangs on its third call, through the command line: the run ends or goes on, and nothing is left."""

import json
from pathlib import Path

import pytest

from forked import Forked
from oneloop.record.reader import read_run

HANGING = """
import os, time
calls = 0

def third(completions, answer):
    global calls
    calls += 1
    with open("pids", "a") as file:
        print(os.getpid(), file=file)
    if calls == 3:
        while True:
            time.sleep(1)
    return [float(len(text) % 2) for text in completions]
"""
WORDS = [
    "train", "grpo", "--model", "scratch:tiny", "--data", "train.jsonl", "--reward", "hanging.py:third", "--steps", "3",
    "--prompts-per-step", "2", "--group-size", "4", "--max-new-tokens", "4", "--reward-timeout", "3", "--out", "run",
]  # fmt: skip


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    rows = [{"prompt": f"{number}+1=", "answer": str(number + 1)} for number in range(4)]
    (tmp_path / "train.jsonl").write_text("\n".join(map(json.dumps, rows)))
    (tmp_path / "hanging.py").write_text(HANGING)
    return tmp_path


def train(folder: Path, *more: str) -> tuple[int | None, str]:
    """Exit code, and what was said."""
    process = Forked(["-m", "oneloop", *WORDS, *more], folder)
    _, said = process.communicate(timeout=300)
    return process.returncode, said


def left(folder: Path) -> set[int]:
    """Processes of the reward that still run."""
    pids = {int(line) for line in (folder / "pids").read_text().split()}
    assert pids
    return {pid for pid in pids if Path(f"/proc/{pid}").exists() and "Z" not in _state(pid)}


def _state(pid: int) -> str:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()[0]
    except OSError:
        return "Z"


def test_the_run_stops_with_one_message(folder: Path) -> None:
    code, said = train(folder)
    assert code == 1
    message = [line for line in said.splitlines() if line.startswith("oneloop train: ")]
    assert len(message) == 1
    assert "reward third was not done after 3 s, at " in message[0] and "hanging.py:" in message[0]
    assert "--reward-timeout" in message[0] and "Traceback" not in said
    assert json.loads((folder / "run" / "run.json").read_text())["status"] == "failed"
    assert left(folder) == set()


def test_or_goes_on_without_those_samples(folder: Path) -> None:
    """Two calls a step: the third and fourth are step 1's; the new process hangs on its own third, in step 2."""
    code, said = train(folder, "--on-reward-error", "unscored", "--no-score-early", "--steps", "5")
    assert code == 0, said
    run = read_run(folder / "run")
    steps, failed = run.series("rewards/third/failed")
    assert (list(steps), list(failed)) == ([2], [8.0])
    assert run.series("rewards/unscored")[1] == [0.0, 0.0, 8.0, 0.0, 0.0]
    events = [json.loads(line) for line in (folder / "run" / "events.jsonl").read_text().splitlines()]
    alerts = [event for event in events if event["code"] == "A_REWARD"]
    assert [event["step"] for event in alerts] == [2]
    assert "a reward failed on 8 of 8 samples" in alerts[0]["text"] and "hanging.py:" in alerts[0]["text"]
    assert {row["reward"] for row in read_run(folder / "run").rollouts(2)} == {None}
    assert left(folder) == set()
