"""A disk that is full, fails, or is taken away: what was trained stays, and the run says what it does."""

import json
import os
import shutil
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import pytest

from oneloop.config import Run, default_run
from oneloop.errors import CheckpointError, ConfigError, DiskError
from oneloop.recipes import parts, saver
from oneloop.recipes.execute import execute
from oneloop.record import checkpoints
from oneloop.record.atomic import verify
from oneloop.record.checkpoints import thin_out
from oneloop.record.lines import Lines
from oneloop.record.reader import read_run
from oneloop.record.writer import RunFolder
from toy_models import Silent


def small(out: Path, **changes) -> Run:
    run = replace(default_run("sft"), out=str(out), steps=5, prompts_per_step=2, learning_rate=1e-3, data_size=8)
    return replace(run, eval_size=4, save_every=1, **changes)


def names(folder: Path) -> list[str]:
    return sorted(entry.name for entry in folder.iterdir())


def free(monkeypatch, size: float) -> None:
    monkeypatch.setattr(checkpoints.os, "statvfs", lambda path: SimpleNamespace(f_bavail=size, f_frsize=1))


def refusing(monkeypatch, calls: set[int], error: Exception) -> list[int]:
    """Saves of those numbers fail when half of their files are there."""
    write, seen = parts.save_policy, []

    def save(folder: Path, *rest) -> None:
        seen.append(len(seen))
        write(folder, *rest)
        if seen[-1] in calls:
            raise error

    monkeypatch.setattr(parts, "save_policy", save)
    return seen


def test_without_room_nothing_is_trained_and_the_folder_blocks_nobody(tmp_path, monkeypatch) -> None:
    with monkeypatch.context() as patch:
        free(patch, 1000)
        with pytest.raises(DiskError, match=r"a checkpoint of .* GB wants .* free\. Fix: make room, or --out"):
            execute(small(tmp_path / "run"), Silent())
    assert read_run(tmp_path / "run").metrics == []
    assert (read_run(tmp_path / "run").info["status"], DiskError.exit_code) == ("failed", 1)
    execute(small(tmp_path / "run", learning_rate=2e-3, steps=1), Silent())
    assert read_run(tmp_path / "run").info["status"] == "finished"


REFUSALS = [
    OSError(28, "No space left on device"),
    OSError(5, "Input/output error"),
    OSError(122, "Disk quota exceeded"),
    RuntimeError("Error while serializing: I/O error: No space left on device (os error 28)"),
]


@pytest.mark.parametrize("error", REFUSALS, ids=lambda error: str(error)[:12])
def test_a_save_that_fails_is_tried_again_when_the_next_is_due(tmp_path, monkeypatch, error) -> None:
    refusing(monkeypatch, {1, 2}, error)
    watcher = Silent()
    execute(small(tmp_path / "run", keep_checkpoints=9), watcher)
    record = read_run(tmp_path / "run")
    assert record.info["status"] == "finished" and len(record.metrics) == 5
    assert [(event["code"], event["step"]) for event in record.events if event["code"] == "A_SAVE"] == [
        ("A_SAVE", 1), ("A_SAVE", 2),
    ]  # fmt: skip
    assert any("A_SAVE step 2" in line and str(error) in line for line in watcher.lines)
    assert names(tmp_path / "run" / "checkpoints") == ["step_000001", "step_000004", "step_000005"]


def test_three_in_a_row_end_the_run_and_the_old_checkpoint_stands(tmp_path, monkeypatch) -> None:
    with monkeypatch.context() as patch:
        refusing(patch, {1, 2, 3, 4}, REFUSALS[0])
        with pytest.raises(DiskError, match=r"4 finished steps .*\(3 in a row\)\. Fix: make room, .*--resume") as error:
            execute(small(tmp_path / "run"), Silent())
    assert error.value.exit_code == 1
    assert names(tmp_path / "run" / "checkpoints") == ["step_000001"]
    verify(tmp_path / "run" / "checkpoints" / "step_000001")
    assert read_run(tmp_path / "run").info["status"] == "failed"
    execute(small(tmp_path / "run", resume=True), Silent())
    assert [row["step"] for row in read_run(tmp_path / "run").metrics] == list(range(5))


def test_what_is_no_fault_of_the_disk_ends_the_run(tmp_path, monkeypatch) -> None:
    refusing(monkeypatch, {1}, ValueError("a bug"))
    with pytest.raises(ValueError, match="a bug"):
        execute(small(tmp_path / "run"), Silent())


def test_room_that_is_gone_before_a_save_costs_no_old_checkpoint(tmp_path, monkeypatch) -> None:
    remember = saver.Saver._remember

    def filling(self, done, algorithm) -> None:
        remember(self, done, algorithm)
        if done == 2:
            free(monkeypatch, 1000)

    monkeypatch.setattr(saver.Saver, "_remember", filling)
    with pytest.raises(DiskError, match="4 finished steps could not be saved"):
        execute(small(tmp_path / "run"), Silent())
    assert names(tmp_path / "run" / "checkpoints") == ["step_000001"]


@pytest.mark.parametrize("full", ["metrics.jsonl", "events.jsonl", "memory.jsonl", "run.json"])
def test_full_between_saves(tmp_path, monkeypatch, full) -> None:
    """The record is the run: without its line a step is not done. The rest is said and missed."""
    append, step = Lines.append, [0]

    def refused(self, row) -> None:
        if self.path.name == full and row.get("step", 0) >= 2:
            raise DiskError(f"{self.path} cannot be written: No space left on device")
        append(self, row)

    monkeypatch.setattr(Lines, "append", refused)
    if full == "run.json":
        write = RunFolder._write_info
        monkeypatch.setattr("oneloop.record.writer.HEARTBEAT_SECONDS", -1.0)

        def beat(self) -> None:
            step[0] += 1
            if step[0] == 3:
                raise OSError(28, "No space left on device")
            write(self)

        monkeypatch.setattr(RunFolder, "_write_info", beat)
    run = small(tmp_path / "run")
    if full == "metrics.jsonl":
        with pytest.raises(DiskError, match=r"metrics\.jsonl cannot be written") as error:
            execute(run, Silent())
        assert "are in" in "".join(getattr(error.value, "__notes__", []))
        assert read_run(tmp_path / "run").info["status"] == "failed"
    else:
        execute(run, Silent())
        record = read_run(tmp_path / "run")
        assert record.info["status"] == "finished" and len(record.metrics) == 5
        assert full == "events.jsonl" or any(event["code"] in ("A_MEMORY", "A_HEARTBEAT") for event in record.events)


class At:
    """An observer that does something to the folder after a step."""

    def __init__(self, step: int, deed) -> None:
        self._step, self._deed, self.lines = step, deed, []

    def say(self, text: str) -> None:
        self.lines.append(text)

    def step(self, step: int, values) -> None:
        if step == self._step:
            self._deed()


@pytest.mark.parametrize("when", [2, 4], ids=["amid", "after the last step"])
def test_a_folder_that_is_taken_away_ends_the_run_and_keeps_its_weights(tmp_path, when) -> None:
    out = tmp_path / "run"
    with pytest.raises(DiskError, match=r"run folder \S+run is gone") as error:
        execute(small(out), At(when, lambda: out.rename(tmp_path / "moved")))
    assert f"--model {out}.rescued starts from them" in "".join(error.value.__notes__)
    verify(tmp_path / "run.rescued")
    assert names(tmp_path) == ["moved", "run.rescued"]


@pytest.mark.parametrize("when", [2, 4], ids=["amid", "after the last step"])
def test_metrics_that_are_taken_away_end_the_run(tmp_path, when) -> None:
    out = tmp_path / "run"
    watcher = At(when, (out / "metrics.jsonl").unlink)
    with pytest.raises(DiskError, match=r"metrics\.jsonl is gone"):
        execute(small(out), watcher)
    assert read_run(out).info["status"] == "failed" and not any("saved" in line for line in watcher.lines)
    with pytest.raises(Exception, match="--accept-loss"):
        execute(small(out, resume=True), Silent())
    execute(small(out, resume=True, accept_loss=True), Silent())
    assert read_run(out).info["status"] == "finished"
    assert any(event["code"] == "A_RECORD" for event in read_run(out).events)


def test_the_model_at_the_end_does_not_fit(tmp_path, monkeypatch) -> None:
    def full(self, folder) -> None:
        (folder / "half").write_text("x")
        raise OSError(28, "No space left on device")

    with monkeypatch.context() as patch:
        patch.setattr(parts.Parts, "write_model", full)
        with pytest.raises(DiskError, match=r"final could not be saved: .*All 5 steps are in a checkpoint\. Fix: make"):
            execute(small(tmp_path / "run"), Silent())
    assert "final" not in names(tmp_path / "run") and not list((tmp_path / "run").glob(".tmp-*"))
    execute(small(tmp_path / "run", resume=True), Silent())
    verify(tmp_path / "run" / "final")


def test_the_best_model_does_not_fit(tmp_path, monkeypatch) -> None:
    write, calls = parts.Parts.write_model, []

    def full(self, folder) -> None:
        calls.append(folder)
        if len(calls) == 2:
            raise OSError(28, "No space left on device")
        write(self, folder)

    monkeypatch.setattr(parts.Parts, "write_model", full)
    out = tmp_path / "run"
    execute(small(out, keep_best=True, eval_every=1, learning_rate=1e-2), Silent())
    record = read_run(out)
    assert [event["code"] for event in record.events].count("A_SAVE") == 1
    best = json.loads((out / "best" / "best.json").read_text())
    assert best["value"] == min(row["eval/loss"] for row in record.evaluations)
    (out / "best" / "best.json").write_text("{}")
    shutil.rmtree(out / "final")
    with pytest.raises(ConfigError, match=r"best is damaged.*Fix: put it back, or rm -r"):
        execute(small(out, keep_best=True, eval_every=1, learning_rate=1e-2, resume=True), Silent())


def test_what_is_kept(tmp_path) -> None:
    """Two whole, two more as weights; a damaged one with a higher number is not counted."""
    out = tmp_path / "run"
    execute(small(out, keep_checkpoints=2, keep_weights=2), Silent())
    kept = {name: names(out / "checkpoints" / name) for name in names(out / "checkpoints")}
    whole, weights = ["manifest.json", "policy", "resume"], ["manifest.json", "policy"]
    assert list(kept.items()) == [
        ("step_000002", weights), ("step_000003", weights), ("step_000004", whole), ("step_000005", whole),
    ]  # fmt: skip
    for name in kept:
        verify(out / "checkpoints" / name)
    thin_out(out, 4, 1, 0)
    assert names(out / "checkpoints") == ["step_000004", "step_000005"]
    assert os.listdir(out / "checkpoints") and not list((out / "checkpoints").glob(".*"))
    policy = out / "checkpoints" / "step_000004" / "policy" / "config.json"
    policy.write_text("{}")  # damaged: making it smaller must not make it whole
    thin_out(out, 5, 1, 1)
    with pytest.raises(CheckpointError, match=r"config\.json"):
        verify(out / "checkpoints" / "step_000004")
    (out / "checkpoints" / "step_000005").rename(out / "checkpoints" / "step_000005.bak")
    (out / "checkpoints" / "step_1000000").mkdir()
    assert [done for done, _ in checkpoints.checkpoints(out)] == [4, 1_000_000]


def test_without_save_every_a_run_saves_by_the_clock(tmp_path, monkeypatch) -> None:
    """A step takes 400 seconds of this clock, and saving two a call: every third step is past 900."""
    clock = [0.0]

    def passing() -> float:
        clock[0] += 1.0
        return clock[0]

    remember = saver.Saver._remember

    def slow(self, done, algorithm) -> None:
        remember(self, done, algorithm)
        clock[0] += 400.0

    monkeypatch.setattr(saver, "monotonic", passing)
    monkeypatch.setattr(saver.Saver, "_remember", slow)
    execute(replace(small(tmp_path / "run", steps=7, keep_checkpoints=9), save_every=0), Silent())
    assert names(tmp_path / "run" / "checkpoints") == ["step_000002", "step_000005", "step_000007"]
    told = read_run(tmp_path / "run").info["saving"]
    assert (told["tries"], told["seconds"]) == (3, 3.0) and told["of"] > 0
