"""A few of the kills of `make chaos`, and that its comparison can fail."""

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from same_run import differs

SCRIPT = Path(__file__).with_name("kills.py")
SOURCE = os.pathsep.join([str(SCRIPT.parents[2] / "src"), *os.environ.get("PYTHONPATH", "").split(os.pathsep)])


@pytest.fixture(scope="module")
def killed(tmp_path_factory) -> Path:
    """In a process of its own: sums in one order are settled before torch is loaded, and only one thread may fork."""
    folder = tmp_path_factory.mktemp("chaos") / "runs"
    line = [sys.executable, str(SCRIPT), "--fork", "--kills", "12", "--folder", str(folder)]
    environment = os.environ | {"PYTHONPATH": SOURCE}
    done = subprocess.run(line, capture_output=True, text=True, env=environment, timeout=600)
    assert done.returncode == 0, done.stdout + done.stderr
    assert "12 kills with seed 0" in done.stdout
    return folder


def test_killed_runs_end_as_the_one_that_nobody_killed(killed) -> None:
    """Twelve kills: six methods, with and without adapters."""
    assert len(list(killed.glob("*/whole"))) == 12
    assert all(json.loads(file.read_text())["status"] == "finished" for file in killed.glob("*/torn-*/run.json"))


def lost_line(out: Path) -> None:
    record = out / "metrics.jsonl"
    record.write_text("".join(record.read_text().splitlines(keepends=True)[:-1]))


def other_digit(out: Path) -> None:
    record = out / "metrics.jsonl"
    rows = [json.loads(line) for line in record.read_text().splitlines()]
    rows[2]["loss"] = rows[2]["loss"] * (1 + 1e-15) + 1e-300
    record.write_text("".join(json.dumps(row) + "\n" for row in rows))


def one_bit(file: str):
    def change(out: Path) -> None:
        (path,) = out.glob(file)
        content = bytearray(path.read_bytes())
        content[-1] ^= 1
        path.write_bytes(bytes(content))

    return change


CHANGES = {
    "metrics.jsonl: ": lost_line,
    "metrics.jsonl: {'step': 2": other_digit,
    "rollouts/": lambda out: min((out / "rollouts").iterdir()).unlink(),
    "ratios.jsonl is": lambda out: (out / "ratios.jsonl").unlink(),
    "final/model.safetensors has": one_bit("final/model.safetensors"),
    "checkpoints/step_000006/resume/optimizer": one_bit("checkpoints/step_000006/resume/optimizer.safetensors"),
    "checkpoints/step_000006/critic": one_bit("checkpoints/step_000006/critic/model.safetensors"),
}


@pytest.mark.parametrize("told", CHANGES)
def test_a_difference_would_show(killed, tmp_path, told) -> None:
    shutil.copytree(killed / "ppo" / "whole", tmp_path / "run")
    assert not differs(killed / "ppo" / "whole", tmp_path / "run")
    CHANGES[told](tmp_path / "run")
    assert told in differs(killed / "ppo" / "whole", tmp_path / "run")
