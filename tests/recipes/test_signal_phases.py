"""SIGTERM and SIGINT in every phase of a run: it saves and ends within the step, and goes on as if nothing had been."""

import json
import os
import signal
from dataclasses import replace
from pathlib import Path
from time import sleep
from types import SimpleNamespace

import pytest

from oneloop.cli import train
from oneloop.cli.main import run as command
from oneloop.config import Run, default_run
from oneloop.errors import RewardError, Stopped
from oneloop.experience.evaluation import Every
from oneloop.recipes import signals
from oneloop.recipes.execute import execute
from oneloop.recipes.signals import Interrupted, StopRequest, stop_request
from toy_models import Silent

STEPS, AT = 3, 1


class Sends(Silent):
    """Signals to this process when the run comes to a phase of a step."""

    def __init__(self, phase: str, *signums: int) -> None:
        super().__init__()
        self.wanted, self.signums, self.done = phase, signums, 0

    def phase(self, name: str, note: str = "") -> None:
        if name == self.wanted and self.done == AT + (name == "saving"):  # a step's line stands before its checkpoint
            self._send()

    def say(self, text: str) -> None:
        super().say(text)
        if self.wanted == "start-up" and text.startswith("models in memory"):
            self._send()

    def step(self, step, values) -> None:
        self.done = step + 1

    def _send(self) -> None:
        signums, self.signums = self.signums, ()
        for signum in signums:
            os.kill(os.getpid(), signum)


def small(out: Path, **changes) -> Run:
    run = replace(
        default_run("grpo"), data="task:addition", out=str(out), steps=STEPS, prompts_per_step=2, group_size=2,
        max_new_tokens=3, learning_rate=1e-3, data_size=8, eval_size=2, eval_every=1, trace=False,
    )  # fmt: skip
    return replace(run, **changes)


def numbers(out: Path) -> list[dict]:
    rows = [json.loads(line) for line in (out / "metrics.jsonl").read_text().splitlines()]
    return [{k: v for k, v in row.items() if not k.startswith(("time", "tokens_per"))} for row in rows]


@pytest.fixture(scope="module")
def whole(tmp_path_factory) -> Path:
    return execute(small(tmp_path_factory.mktemp("whole") / "run"), Silent())


@pytest.mark.parametrize("signum", [signal.SIGTERM, signal.SIGINT])
@pytest.mark.parametrize("phase", ["rollout", "score", "prepare", "update", "evaluation", "saving"])
def test_it_saves_and_ends_with_the_step(whole: Path, tmp_path: Path, phase: str, signum: signal.Signals) -> None:
    run = small(tmp_path / "run")
    with pytest.raises(Stopped, match=f"signal {signum.value} after step {AT + 1}") as caught:
        execute(run, Sends(phase, signum))
    assert caught.value.exit_code == 128 + signum
    info = json.loads((tmp_path / "run" / "run.json").read_text())
    assert (info["status"], info["exit_code"], info["checkpoint"]) == ("stopped", 128 + signum, AT + 1)
    assert (tmp_path / "run" / "checkpoints" / f"step_{AT + 1:06d}").is_dir()
    if phase in ("update", "evaluation"):
        execute(replace(run, resume=True), Silent())
        assert numbers(tmp_path / "run") == numbers(whole)
        ended, wanted = (out / "final" / "model.safetensors" for out in (tmp_path / "run", whole))
        assert ended.read_bytes() == wanted.read_bytes()


@pytest.mark.parametrize("signum", [signal.SIGTERM, signal.SIGINT])
def test_before_the_first_step_nothing_is_trained(tmp_path: Path, signum: signal.Signals) -> None:
    run = small(tmp_path / "run")
    with pytest.raises(Stopped, match="before step 1, with nothing to save; the same command starts again") as caught:
        execute(run, Sends("start-up", signum))
    assert caught.value.exit_code == 128 + signum and not (tmp_path / "run" / "checkpoints").exists()
    assert json.loads((tmp_path / "run" / "run.json").read_text())["status"] == "stopped"
    execute(replace(run, steps=1), Silent())


@pytest.mark.parametrize(("signum", "code"), [(signal.SIGTERM, 143), (signal.SIGINT, 130)])
def test_before_there_is_a_run(tmp_path: Path, monkeypatch, capsys, signum: int, code: int) -> None:
    def asked(*_, **__):
        """Python may hear of a signal some lines after it was sent."""
        os.kill(os.getpid(), signum)
        return SimpleNamespace(close=lambda: None)

    monkeypatch.setattr(train, "preflight", asked)
    before = signal.getsignal(signal.SIGTERM)
    words = f"train sft --data task:addition --out {tmp_path / 'run'}"
    assert command(words.split()) == code and not (tmp_path / "run").exists()
    assert capsys.readouterr().err == "oneloop train: interrupted\n" and signal.getsignal(signal.SIGTERM) == before


@pytest.mark.parametrize("signums", [(signal.SIGTERM, signal.SIGINT), (signal.SIGINT, signal.SIGTERM)])
def test_one_of_each_kind_at_once_is_one_request(tmp_path: Path, signums) -> None:
    with pytest.raises(Stopped, match=f"after step {AT + 1}") as caught:
        execute(small(tmp_path / "run"), Sends("update", *signums))
    assert caught.value.exit_code in (130, 143)


def test_two_of_a_kind_are_two(tmp_path: Path) -> None:
    with pytest.raises(Interrupted):
        execute(small(tmp_path / "run"), Sends("update", signal.SIGTERM, signal.SIGTERM))
    assert json.loads((tmp_path / "run" / "run.json").read_text())["exit_code"] == 143


def test_which_one_is_the_second(monkeypatch) -> None:
    clock = SimpleNamespace(now=0.0)
    monkeypatch.setattr(signals, "monotonic", lambda: clock.now)
    request = StopRequest(lambda signum: None)
    request.receive(signal.SIGTERM, None)
    clock.now = 0.5
    request.receive(signal.SIGINT, None)
    assert request.signum == signal.SIGTERM
    clock.now = 5.0
    with pytest.raises(Interrupted):
        request.receive(signal.SIGINT, None)


def test_a_fork_hears_nothing_of_it_and_is_not_waited_for() -> None:
    """A pool of processes that a reward started ends as pools do: by SIGTERM."""
    with stop_request(lambda signum: None, says=False) as request:
        child = _sleeping_fork()
        os.kill(child, signal.SIGTERM)
        assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == -signal.SIGTERM
        other = _sleeping_fork()
    try:  # the listener has been waited for, although a fork is there
        assert os.waitpid(other, os.WNOHANG) == (0, 0) and not request.signum
    finally:
        os.kill(other, signal.SIGKILL)
        os.waitpid(other, 0)


def _sleeping_fork() -> int:
    reading, writing = os.pipe()
    child = os.fork()
    if child == 0:
        os.write(writing, b"!")
        sleep(60)
        os._exit(0)
    os.read(reading, 1)
    os.close(reading)
    os.close(writing)
    return child


def test_a_signal_does_not_hide_that_the_evaluation_failed(tmp_path: Path, monkeypatch) -> None:
    out = tmp_path / "run"
    monkeypatch.setattr(Every, "__call__", _fails)
    with pytest.raises(Stopped, match=f"after step {AT + 1}") as caught:
        execute(small(out), Sends("evaluation", signal.SIGTERM))
    assert caught.value.__notes__[0] == "RewardError: the judge is down"
    info = json.loads((out / "run.json").read_text())
    assert (info["status"], info["exit_code"], info["checkpoint"]) == ("stopped", 143, AT + 1)
    assert "the judge is down" in info["failure"]


def _fails(measure: Every, step: int) -> dict[str, float]:
    if step == AT:
        raise RewardError("the judge is down")
    return {}
