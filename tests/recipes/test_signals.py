"""The first signal is answered at once, the second ends the run, and run.json never says "running" afterwards."""

import json
import platform
import signal
from pathlib import Path

import pytest

from forked import Forked

SLOW = """
import time
def slow(completions, **columns):
    time.sleep(1.0)
    return [float(len(text)) for text in completions]
"""
STUCK = """
import ctypes, sys
from pathlib import Path
from oneloop.record.writer import RunFolder
from oneloop.recipes.signals import stop_request

with RunFolder.open(Path(sys.argv[1]), resume=False, config_text="", facts={}) as folder:
    with stop_request(lambda signum: folder.finish("stopped", f"signal {signum}")):
        print("ready", flush=True)
        mutex = ctypes.create_string_buffer(64)
        ctypes.CDLL(None).pthread_mutex_lock(mutex)
        ctypes.CDLL(None).pthread_mutex_lock(mutex)  # waits for itself, and no signal wakes it
"""


def training(folder: Path) -> Forked:
    (folder / "rewards.py").write_text(SLOW)
    words = "train grpo --model scratch:tiny --data task:addition --reward rewards.py:slow --steps 500"
    words += " --prompts-per-step 2 --group-size 2 --max-new-tokens 3 --eval-size 2 --save-every 1 --out run"
    process = Forked(["-m", "oneloop", *words.split()], folder)
    for line in process.stdout:
        if line.startswith("step 1/"):
            return process
    raise AssertionError(process.stderr.read())


def state(folder: Path) -> dict[str, str]:
    return json.loads((folder / "run" / "run.json").read_text())


@pytest.mark.parametrize("signum", [signal.SIGINT, signal.SIGTERM])
def test_one_signal_saves_and_two_stop(signum: signal.Signals, tmp_path: Path) -> None:
    process = training(tmp_path)
    process.send_signal(signum)
    assert process.stderr.readline() == "\n"
    assert process.stderr.readline().startswith("stopping after this step")
    process.send_signal(signum)
    _, said = process.communicate(timeout=120)
    assert process.returncode == 128 + signum and "Traceback" not in said
    assert state(tmp_path)["status"] == "stopped"


def test_after_one_signal_the_step_is_saved(tmp_path: Path) -> None:
    process = training(tmp_path)
    process.send_signal(signal.SIGINT)
    _, said = process.communicate(timeout=120)
    assert process.returncode == 130 and "--resume" in said
    assert state(tmp_path)["status"] == "stopped" and list((tmp_path / "run" / "checkpoints").iterdir())


@pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="a mutex of glibc")
def test_a_main_thread_that_does_not_come_back_is_ended(tmp_path: Path) -> None:
    """A backward pass of minutes is one call into C: no handler of Python's runs before it returns."""
    process = Forked(["-c", STUCK, str(tmp_path / "run")], tmp_path)
    assert process.stdout.readline() == "ready\n"
    process.send_signal(signal.SIGTERM)
    assert process.stderr.readline() == "\n"
    assert process.stderr.readline().startswith("stopping after this step")
    process.send_signal(signal.SIGTERM)
    process.communicate(timeout=120)
    assert process.returncode == 143
    assert state(tmp_path) | {"status": "stopped", "failure": "signal 15"} == state(tmp_path)
