"""Ranks as processes: signals, failures and kills end all of them, alike and with one message."""

import os
import signal
import subprocess
import sys
from pathlib import Path
from time import monotonic, sleep

import pytest
from started import ENVIRONMENT, LONGEST, REWARDS, WORDS, alive, ended, ranks, state, until_step

from oneloop.cli.main import run as command
from vllm_stand import fake_python

HANGING = """
import sys, time
from oneloop.errors import OneloopError
from oneloop.parallel.launch import joined
try:
    with joined(1, "cpu", 8.0) as ranks:
        ranks.last_words(lambda text: print("last words:", text, flush=True))
        for number in range(3):
            ranks.world.collect([number])
        ranks.phase("rollout" if ranks.world.rank else "update")
        if ranks.world.rank:
            time.sleep(600)
        ranks.world.sum({"x": 1.0})
except OneloopError as error:
    print(type(error).__name__, error, flush=True)
    sys.exit(error.exit_code)
"""


@pytest.fixture
def place(tmp_path) -> Path:
    (tmp_path / "rewards.py").write_text(REWARDS)
    return tmp_path


def test_a_signal_to_one_rank_stops_all_after_the_same_step(place, monkeypatch, capsys) -> None:
    """Under torchrun, whose own exit code would be 1; and the run goes on in one process."""
    process = subprocess.Popen(
        [sys.executable, "-m", "oneloop", *WORDS, "--ranks", "2"], cwd=place, text=True, env=ENVIRONMENT,
        stdout=subprocess.PIPE, stderr=subprocess.PIPE,
    )  # fmt: skip
    until_step(process)
    os.kill(int((place / "trainer1").read_text()), signal.SIGTERM)
    ((code, _, said),) = ended([process])
    assert code == 143 and said.count("stopped by signal 15 after step") == 1
    told = state(place)
    assert told["status"] == "stopped" and told["exit_code"] == 143 and told["machine"]["ranks"] == 2
    (checkpoint,) = (place / "run" / "checkpoints").iterdir()
    done = int(checkpoint.name.removeprefix("step_"))
    monkeypatch.chdir(place)
    changed = ["--resume", "--steps", str(done + 1)]
    assert command([*WORDS, *changed]) == 0
    assert f"resuming at step {done}" in (shown := capsys.readouterr().out) and "ranks 2 → 1" in shown
    assert len((place / "run" / "metrics.jsonl").read_text().splitlines()) == done + 1


@pytest.mark.parametrize("killed", [0, 1])
def test_a_rank_that_is_killed_ends_the_others(killed, place) -> None:
    """And the server that they share, whoever started it."""
    shared = ["--engine", "vllm", "--vllm-python", fake_python(place)]
    processes = ranks(["-m", "oneloop", *WORDS, *shared], place, FAKE_MODEL="whole")
    until_step(processes[0])
    begin = monotonic()
    processes[killed].kill()
    told = ended(processes, LONGEST)
    assert monotonic() - begin < LONGEST
    code, _, said = told[1 - killed]
    assert code == 1 and said.count(f"rank {killed} of 2 is gone") == 1 and "in phase" in said
    while left := alive(place):
        assert monotonic() - begin < LONGEST, left
        sleep(0.1)
    if killed:
        assert state(place)["status"] == "failed" and state(place)["exit_code"] == 1
        assert "rank 1 of 2" in state(place)["failure"] and "rank 1" in said
        assert (place / "run" / "checkpoints").exists() or (place / "run" / "unfinished").exists(), "nothing is lost"
    else:  # whoever reads it sees that its process is gone
        assert state(place)["status"] == "running"


def test_an_error_on_one_rank_is_everybodys_and_told_once(place) -> None:
    (place / "fail").touch()
    told = ended(ranks(["-m", "oneloop", *WORDS], place))
    assert [code for code, _, _ in told] == [1, 1]
    said = "".join(said for _, _, said in told)
    assert said.count("ZeroDivisionError: no answer") == 1 and "Traceback" not in said
    assert "RewardError" in state(place)["failure"] and state(place)["exit_code"] == 1
    (place / "run" / "final").mkdir()  # now there is something to lose
    told = ended(ranks(["-m", "oneloop", *WORDS], place))
    assert [code for code, _, _ in told] == [2, 2]
    assert [said.count("holds a run already") for _, _, said in told] == [1, 0]


def test_a_rank_that_hangs_is_found_and_ended(tmp_path) -> None:
    (code, out, _), (other, last, _) = ended(ranks(["-c", HANGING], tmp_path))
    assert code == 1 and "RankError rank 1 of 2 did not come" in out
    assert "within 8 s in phase rollout" in out
    assert other == 1 and "last words: rank 1 of 2 did not come" in last
