"""What goes out: without secrets and control characters, and no run ends because it cannot be written."""

import io
import json

import pytest
from rich.console import Console

from forked import Forked
from oneloop.cli import main as command_line
from oneloop.cli.output import Patient, safe
from oneloop.cli.terminal import Terminal

SECRET = "hf_C4n4ryC4n4ryC4n4ry"
REWARD = f"""
import os
def bad(completions, **columns):
    where = "https://me:{SECRET}@host, \\x1b[31mtoken={SECRET}\\x1b]52;c;aGk=\\x07 "
    raise RuntimeError("401 of " + where + os.environ["MY_KEY"])
"""
QUICK = ["--model", "scratch:tiny", "--data", "task:addition", "--data-size", "8", "--eval-size", "4", "--steps", "3",
         "--prompts-per-step", "2", "--max-new-tokens", "4"]  # fmt: skip


class Failing(io.StringIO):
    """A pipe whose reader has ended after a few writes."""

    def __init__(self, after: int) -> None:
        super().__init__()
        self.left = after

    def write(self, text: str) -> int:
        self.left -= 1
        if self.left < 0:
            raise BrokenPipeError(32, "Broken pipe")
        return super().write(text)


def test_a_stream_that_fails_ends_nothing_and_is_told_once(capsys) -> None:
    stream = Failing(after=1)
    terminal = Terminal(9, Console(file=Patient(stream), highlight=False))  # pyright: ignore[reportArgumentType]
    for number in range(5):
        terminal.say(f"line {number}")
    assert "line 0" in stream.getvalue() and "line 4" not in stream.getvalue()
    assert capsys.readouterr().err.count("nothing more is shown: standard output fails (Broken pipe)") == 1
    Terminal(9, Console(file=Patient(None))).say("without one")  # pyright: ignore[reportArgumentType]


def test_secrets_and_control_characters() -> None:
    assert safe(f"token={SECRET} \x1b[2J\rx\u202e") == "token=[hidden] \\x1b[2J\\x0dx\\x202e"


def test_what_nobody_foresaw_is_told_without_secrets(monkeypatch, capsys) -> None:
    def fails(arguments):
        raise ZeroDivisionError(f"with {SECRET}\x1b[2J")

    monkeypatch.setattr(command_line, "run", fails)
    with pytest.raises(SystemExit) as end:
        command_line.main(["explain", "grpo"])
    said = capsys.readouterr().err
    assert end.value.code == 1 and "Traceback" in said and "with [hidden]\\x1b[2J" in said


def test_a_run_into_a_closed_pipe_and_a_secret_in_a_failure(tmp_path) -> None:
    """One command goes on without its reader; the other ends, and its key stands nowhere."""
    (tmp_path / "reward.py").write_text(REWARD)
    ways = {"sft": [], "grpo": ["--reward", f"{tmp_path / 'reward.py'}:bad", "--group-size", "2"]}
    running = {}
    for name, words in ways.items():
        line = ["-m", "oneloop", "train", name, *QUICK, *words, "--out", str(tmp_path / name)]
        running[name] = Forked(line, tmp_path, {"MY_KEY": "plainwordsofmine"})
        if name == "sft":
            running[name].stdout.close()
    with running["sft"].stderr as stderr:
        told = stderr.read()
    assert running["sft"].wait(60) == 0 and "Broken pipe" in told and "Traceback" not in told
    assert json.loads((tmp_path / "sft" / "run.json").read_text())["status"] == "finished"
    out, told = running["grpo"].communicate(timeout=200)
    assert running["grpo"].returncode == 1 and "401 of" in told and "[hidden]" in told
    hidden = (SECRET.encode(), b"plainwordsofmine", b"\x1b]52")
    assert not [secret for secret in hidden if secret in (out + told).encode()]
    for file in (tmp_path / "grpo").rglob("*"):
        if file.is_file():
            assert not [secret for secret in hidden if secret in file.read_bytes()], file
    assert "[hidden]" in (tmp_path / "grpo" / "run.json").read_text()
