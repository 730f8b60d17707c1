"""A sample of `disk.py`, which `make chaos` carries out in full; and a disk that really is full."""

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from oneloop.record.atomic import verify
from oneloop.record.reader import read_run

ENVIRONMENT = os.environ | {"OMP_NUM_THREADS": "1"}


def attachable() -> str:
    """Why strace cannot be used here; "" where it can."""
    if shutil.which("strace") is None:
        return "strace is not installed"
    done = subprocess.run(["strace", "-o", "/dev/null", "true"], capture_output=True, text=True, check=False)
    return done.stderr.strip() if done.returncode else ""


WHY_NOT = attachable()


@pytest.mark.skipif(bool(WHY_NOT), reason=WHY_NOT)
def test_killed_or_refused_at_a_system_call_a_save_leaves_the_old_or_the_new_checkpoint() -> None:
    command = [sys.executable, str(Path(__file__).with_name("disk.py")), "--share", "12", "--flips", "300"]
    done = subprocess.run(command, capture_output=True, text=True, timeout=280, env=ENVIRONMENT, check=False)
    assert done.returncode == 0, done.stderr
    found = {what.strip(): int(count) for count, what in (line.split(maxsplit=1) for line in done.stdout.splitlines())}
    assert found.pop("damages found") == 300
    assert sum(found.values()) >= 15 and found["killed: old"] and found["refused: new"], found


SMALL_DISK = """
import os, sys
from types import SimpleNamespace
from oneloop.cli.main import run
flags = "train sft --data task:addition --prompts-per-step 2 --data-size 8 --eval-size 4".split()
flags += "--steps 40 --save-every 1 --keep-checkpoints 40 --out".split()
first = run([*flags, sys.argv[1]])
os.statvfs = lambda path: SimpleNamespace(f_bavail=1 << 40, f_frsize=1)
print([first, run([*flags, sys.argv[2]])], flush=True)
"""


def test_a_disk_that_fills_while_a_run_trains(tmp_path) -> None:
    """The first has no room for two checkpoints and says so before step 0; the second is told of more than there is."""
    tiny, small, copy = tmp_path / "tiny", tmp_path / "small", tmp_path / "copy"
    for folder in (tiny, small):
        folder.mkdir()
    script = (
        f"mount -t tmpfs -o size=64k none {tiny} && mount -t tmpfs -o size=24m none {small} && "
        f'"$0" -c "$1" {tiny}/run {small}/run; cp -r {small} {copy}; ls -A {tiny}/run > {tmp_path}/listed'
    )
    inside = ["unshare", "--user", "--map-root-user", "--mount", "sh", "-c", script, sys.executable, SMALL_DISK]
    done = subprocess.run(inside, capture_output=True, text=True, timeout=280, env=ENVIRONMENT, check=False)
    if "unshare: " in done.stderr or "mount: " in done.stderr:
        pytest.skip(done.stderr.strip())
    assert done.stdout.endswith("[1, 1]\n"), done.stdout + done.stderr
    assert "Traceback" not in done.stderr and done.stderr.count("Fix: make room") == 2
    assert "checkpoints" not in (tmp_path / "listed").read_text().split()
    run = copy / "run"
    record = read_run(run)
    assert record.info["status"] == "failed" and "3 in a row" in record.info["failure"]
    kept = sorted((run / "checkpoints").iterdir())
    assert len(kept) >= 2 and [path.name for path in kept] == [f"step_{n + 1:06d}" for n in range(len(kept))]
    for path in kept:
        verify(path)
    assert len(record.metrics) == len(kept) + 3
    refused = [event for event in record.events if event["code"] == "A_SAVE"]
    assert [event["step"] for event in refused] == [len(kept), len(kept) + 1]
