"""Loggers beside the files: real packages offline, read back; and what a logger that fails may not do."""

import json
import os
import subprocess
import sys
from importlib.util import find_spec
from pathlib import Path

import pytest

from oneloop.errors import ConfigError
from oneloop.record import sinks
from oneloop.record.sinks import Opening, Sinks, check_installed

PACKAGES = [name for name in ("tensorboard", "wandb", "trackio") if find_spec(name)]

RUN = """
import socket, sys
from pathlib import Path

connect = socket.socket.connect

def local_only(self, address):
    if self.family != socket.AF_UNIX and address[0] not in ("127.0.0.1", "localhost", "::1"):
        print("NETWORK", address)
        raise OSError("no network in tests")
    return connect(self, address)

socket.socket.connect = local_only
from oneloop.record.sinks import Opening, Sinks

name, folder = sys.argv[1], Path(sys.argv[2])
folder.mkdir(exist_ok=True)
sinks = Sinks(lambda code, text, fix: print("ALERT", code, text, fix))

def steps(start, last):
    sinks.open([name], Opening(folder=folder, config={"algorithm": "grpo", "reward": ("a.py:f",)}, done=start))
    if not start:
        sinks.scalars(0, {"eval/reward": 0.25})
    for step in range(start, last):
        sinks.scalars(step + 1, {"reward": step / 2, "kl": float("nan")})
        sinks.event(step + 1, "A_DEAD", "all groups are equal")
    sinks.close(failed=False)

steps(0, 2)
steps(1, 3)  # resumed from the checkpoint after step 1: the second step is repeated
assert "torch" not in sys.modules
"""


def told(name: str, tmp_path: Path) -> Path:
    """A run of three steps with a resume in it, reported in a process of its own; returns its folder."""
    environment = {key: value for key, value in os.environ.items() if not key.startswith(("WANDB", "TRACKIO"))}
    environment |= {"WANDB_MODE": "offline", "TRACKIO_DIR": str(tmp_path / "trackio"), "HOME": str(tmp_path)}
    command = [sys.executable, "-c", RUN, name, str(tmp_path / "quick")]
    done = subprocess.run(command, capture_output=True, text=True, env=environment, timeout=300)
    assert done.returncode == 0, done.stderr
    assert "ALERT" not in done.stdout and "NETWORK" not in done.stdout, done.stdout
    return tmp_path / "quick"


@pytest.mark.skipif("tensorboard" not in PACKAGES, reason="tensorboard is not installed")
@pytest.mark.filterwarnings("ignore::DeprecationWarning")
def test_tensorboard_reads_what_it_was_told(tmp_path: Path) -> None:
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    events = EventAccumulator(str(told("tensorboard", tmp_path) / "tensorboard"))
    events.Reload()
    assert [(event.step, event.value) for event in events.Scalars("reward")] == [(1, 0.0), (2, 0.5), (3, 1.0)]
    assert [(event.step, event.value) for event in events.Scalars("eval/reward")] == [(0, 0.25)]
    assert "kl" not in events.Tags()["scalars"], "a value that is not finite is left to the files"
    assert {"config", "alerts/A_DEAD"} <= set(events.Tags()["tensors"])
    (config, _) = events.Tensors("config")
    assert b'"algorithm": "grpo"' in config.tensor_proto.string_val[0]


@pytest.mark.skipif("wandb" not in PACKAGES, reason="wandb is not installed")
def test_wandb_keeps_an_offline_run_with_one_id(tmp_path: Path) -> None:
    folder = told("wandb", tmp_path)
    identity = json.loads((folder / "wandb.json").read_text(encoding="utf-8"))["id"]
    files = sorted((folder / "wandb").glob(f"offline-run-*-{identity}*/run-{identity}*.wandb"))
    assert len(files) >= 1 and len(list((folder / "wandb").glob("offline-run-*/*.wandb"))) == len(files)
    # records of its own log: names and JSON values stand there as they are
    content = b"".join(file.read_bytes() for file in files)
    assert b"eval/reward" in content and b"0.25" in content
    assert b"A_DEAD" in content and b"grpo" in content and b"quick" in content


@pytest.mark.skipif("trackio" not in PACKAGES, reason="trackio is not installed")
def test_trackio_has_each_step_once(tmp_path: Path) -> None:
    told("trackio", tmp_path)
    read = (
        "import json; from trackio.sqlite_storage import SQLiteStorage as S; rows = S.get_logs('oneloop', 'quick');"
        "print('ROWS', json.dumps([[row['step'], row.get('reward'), row.get('eval/reward')] for row in rows]))"
    )
    environment = os.environ | {"TRACKIO_DIR": str(tmp_path / "trackio"), "HOME": str(tmp_path)}
    done = subprocess.run([sys.executable, "-c", read], capture_output=True, text=True, env=environment, timeout=300)
    rows = json.loads(done.stdout.partition("ROWS ")[2])
    assert rows == [[0, None, 0.25], [1, 0.0, None], [2, 0.5, None], [3, 1.0, None]]


class Logger:
    """Implements `oneloop.record.sinks.Sink`; fails at the call that is named."""

    def __init__(self, failing: str = "") -> None:
        self.failing, self.calls = failing, []

    def _called(self, name: str, *what: object) -> None:
        self.calls.append((name, *what))
        if name == self.failing:
            raise ConnectionError("the cable\nis cut")

    def scalars(self, done, values) -> None:
        self._called("scalars", done, dict(values))

    def event(self, done, code, text) -> None:
        self._called("event", done, code)

    def close(self, *, failed) -> None:
        self._called("close", failed)


def opened(monkeypatch, tmp_path: Path, alerts: list, **loggers: Logger) -> Sinks:
    class Module:
        def __init__(self, logger: Logger) -> None:
            self.open_sink = lambda opening: logger._called("open") or logger

    made = {f"oneloop.record.to_{name}": Module(logger) for name, logger in loggers.items()}
    monkeypatch.setattr(sinks, "import_module", made.__getitem__)
    told = Sinks(lambda code, text, fix: alerts.append((code, text, fix)))
    told.open(list(loggers), Opening(folder=tmp_path, config={}))
    return told


@pytest.mark.parametrize("failing", ["open", "scalars", "event", "close"])
def test_a_logger_fails_once_and_is_told_no_more(failing: str, tmp_path: Path, monkeypatch) -> None:
    alerts: list = []
    bad, good = Logger(failing), Logger()
    told = opened(monkeypatch, tmp_path, alerts, wandb=bad, tensorboard=good)
    for step in (1, 2):
        told.scalars(step, {"reward": 1.0, "kl": float("inf")})
        told.event(step, "A_DEAD", "text")
    told.close(failed=True)
    ((code, text, fix),) = alerts
    assert code == "A_LOGGER" and "wandb failed" in text and "the cable is cut" in text and "WANDB_MODE=offline" in fix
    assert [name for name, *_ in bad.calls].count(failing) == 1 and bad.calls[-1][0] == failing
    whole = [("scalars", 1, {"reward": 1.0}), ("event", 1, "A_DEAD"), ("scalars", 2, {"reward": 1.0})]
    assert good.calls == [("open",), *whole, ("event", 2, "A_DEAD"), ("close", True)]


def test_the_user_can_still_stop_a_run_that_hangs_in_a_logger(tmp_path: Path, monkeypatch) -> None:
    class Hanging(Logger):
        def scalars(self, done, values) -> None:
            raise KeyboardInterrupt

    told = opened(monkeypatch, tmp_path, [], wandb=Hanging())
    with pytest.raises(KeyboardInterrupt):
        told.scalars(1, {})


def test_a_missing_package_says_how_to_get_it(monkeypatch) -> None:
    monkeypatch.setattr(sinks, "find_spec", lambda name: None)
    with pytest.raises(ConfigError, match=r'Fix: pip install "oneloop\[wandb\]"'):
        check_installed(["wandb"])
    check_installed([])
