"""Files and folders that are whole or not there, whatever happens while they are written."""

import json
import os
from contextlib import suppress
from pathlib import Path

import pytest

from oneloop.errors import CheckpointError
from oneloop.record import atomic
from oneloop.record.atomic import MANIFEST, clean_temporaries, new_folder, verify, write_text
from toy_models import on_ranks


def fill(path: Path, text: str = "weights") -> Path:
    with new_folder(path) as folder:
        (folder / "policy").mkdir()
        (folder / "policy" / "model.bin").write_text(text)
        (folder / "state.json").write_text("{}")
    return path


def names(folder: Path) -> list[str]:
    return sorted(entry.name for entry in folder.iterdir())


def test_text_replaces_and_leaves_nothing_else(tmp_path):
    write_text(tmp_path / "run.json", "old")
    write_text(tmp_path / "run.json", "new: π")
    assert (tmp_path / "run.json").read_text(encoding="utf-8") == "new: π"
    assert names(tmp_path) == ["run.json"]


def test_text_that_cannot_be_written_keeps_the_old_one(tmp_path, monkeypatch):
    def full(_: int) -> None:
        raise OSError(28, "No space left on device")

    write_text(tmp_path / "run.json", "old")
    monkeypatch.setattr(atomic.os, "fsync", full)
    with pytest.raises(OSError, match="No space"):
        write_text(tmp_path / "run.json", "new")
    assert (tmp_path / "run.json").read_text() == "old"
    assert names(tmp_path) == ["run.json"]


def test_folder_appears_whole_with_its_manifest(tmp_path):
    step = tmp_path / "step_000010"
    with new_folder(step) as folder:
        assert folder.parent == tmp_path and folder.name == f".tmp-step_000010-{os.getpid()}"
        (folder / "a").write_text("1")
        assert not step.exists()
    verify(step)
    assert json.loads((step / MANIFEST).read_text())["a"]["bytes"] == 1
    assert names(tmp_path) == ["step_000010"]


def test_folder_replaces_an_older_one(tmp_path):
    fill(tmp_path / "final", "old")
    fill(tmp_path / "final", "new")
    assert (tmp_path / "final" / "policy" / "model.bin").read_text() == "new"
    assert names(tmp_path) == ["final"]
    verify(tmp_path / "final")


@pytest.mark.parametrize("error", [RuntimeError, KeyboardInterrupt])
def test_exception_leaves_the_old_folder(tmp_path, error):
    final = fill(tmp_path / "final", "old")
    with pytest.raises(error), new_folder(final) as folder:
        (folder / "half").write_text("x")
        raise error
    verify(final)
    assert names(tmp_path) == ["final"] and names(final) == [MANIFEST, "policy", "state.json"]


def test_failing_second_rename_brings_the_old_folder_back(tmp_path, monkeypatch):
    final = fill(tmp_path / "final", "old")
    rename, calls = os.rename, []

    def second_fails(source, target):
        calls.append(source)
        if len(calls) == 2:
            raise OSError(5, "Input/output error")
        rename(source, target)

    monkeypatch.setattr(atomic.os, "rename", second_fails)
    with pytest.raises(OSError, match="Input/output"):
        fill(final, "new")
    assert (final / "policy" / "model.bin").read_text() == "old"
    assert names(tmp_path) == ["final"]


class Killed(BaseException):
    """Stands for SIGKILL: after it nothing more may happen on the disk."""


@pytest.mark.parametrize("moment", range(1, 40))
def test_kill_at_any_moment_leaves_the_old_or_the_new_folder(tmp_path, monkeypatch, moment):
    """Stop the world at the k-th call that reaches the disk, then tidy up as the next process would."""
    final = fill(tmp_path / "final", "old")
    calls = 0

    def mortal(real):
        def call(*arguments, **named):
            nonlocal calls
            calls += 1
            if calls >= moment:
                raise Killed
            return real(*arguments, **named)

        return call

    with monkeypatch.context() as patch:
        for name in ("fsync", "rename", "replace"):
            patch.setattr(atomic.os, name, mortal(getattr(os, name)))
        patch.setattr(atomic.shutil, "rmtree", mortal(atomic.shutil.rmtree))
        patch.setattr(Path, "unlink", mortal(Path.unlink))
        with suppress(Killed):
            fill(final, "new")
    clean_temporaries(tmp_path)
    verify(final)
    assert (final / "policy" / "model.bin").read_text() in ("old", "new")
    assert names(tmp_path) == ["final"]


@pytest.fixture
def disk(monkeypatch):
    """What is asked of the disk, in order: ("fsync", inode, bytes so far), ("rename", name), ("rmtree", name)."""
    asked: list[tuple] = []
    fsync, rmtree = os.fsync, atomic.shutil.rmtree

    def synced(handle):
        facts = os.fstat(handle)
        asked.append(("fsync", facts.st_ino, facts.st_size))
        fsync(handle)

    def watched(rename):
        def renamed(source, target):
            rename(source, target)
            asked.append(("rename", Path(target).name))

        return renamed

    def removed(path, **options):
        asked.append(("rmtree", Path(path).name))
        rmtree(path, **options)

    monkeypatch.setattr(atomic.os, "fsync", synced)
    for name in ("rename", "replace"):
        monkeypatch.setattr(atomic.os, name, watched(getattr(os, name)))
    monkeypatch.setattr(atomic.shutil, "rmtree", removed)
    return asked


def synced(asked, path: Path) -> bool:
    """Whether the file, with all that is in it, or the folder was flushed."""
    facts = path.stat()
    return any(entry[:2] == ("fsync", facts.st_ino) and (path.is_dir() or entry[2] == facts.st_size) for entry in asked)


def test_text_is_on_the_disk_before_its_name_and_then_its_name(tmp_path, disk):
    write_text(tmp_path / "run.json", "whole")
    place = disk.index(("rename", "run.json"))
    assert synced(disk[:place], tmp_path / "run.json"), "a name over nothing"
    assert synced(disk[place:], tmp_path), "no name"


def test_a_folder_is_on_the_disk_before_its_name_and_its_name_before_the_old_one_goes(tmp_path, disk):
    fill(tmp_path / "final", "old")
    disk.clear()
    final = fill(tmp_path / "final", "new")
    place = disk.index(("rename", "final"))
    for path in (final, *final.rglob("*")):
        assert synced(disk[:place], path), path
    gone = disk.index(("rmtree", f".replaced-final-{os.getpid()}"))
    assert gone > place and synced(disk[place:gone], tmp_path)


def test_leftovers_of_a_killed_run_go_and_the_rest_stays(tmp_path):
    good = fill(tmp_path / "checkpoints" / "step_000010")
    for leftover in (tmp_path / "checkpoints" / ".tmp-step_000020-4711", tmp_path / ".tmp-final-4711"):
        leftover.mkdir()
        (leftover / "half.bin").write_bytes(b"\0")
    (tmp_path / ".tmp-run.json-4711").write_text("{")
    clean_temporaries(tmp_path)
    assert names(tmp_path) == ["checkpoints"] and names(tmp_path / "checkpoints") == ["step_000010"]
    verify(good)


def test_every_bit_flip_is_found(tmp_path):
    folder = fill(tmp_path / "step", "weights!")
    file = folder / "policy" / "model.bin"
    whole = file.read_bytes()
    for bit in range(len(whole) * 8):
        flipped = bytearray(whole)
        flipped[bit // 8] ^= 1 << bit % 8
        file.write_bytes(flipped)
        with pytest.raises(CheckpointError, match=r"model\.bin is not as it was written"):
            verify(folder)
    file.write_bytes(whole)
    verify(folder)


def test_missing_short_and_unlisted(tmp_path):
    folder = fill(tmp_path / "step")
    (folder / "policy" / "model.bin").write_text("weight")
    with pytest.raises(CheckpointError, match=r"model\.bin has 6 bytes; manifest\.json says 7"):
        verify(folder)
    (folder / "policy" / "model.bin").unlink()
    with pytest.raises(CheckpointError, match=r"model\.bin is missing"):
        verify(folder)
    (folder / MANIFEST).unlink()
    with pytest.raises(CheckpointError, match=r"manifest\.json cannot be read"):
        verify(folder)


def test_what_the_manifest_leaves_out_is_no_part_of_a_checkpoint(tmp_path):
    folder = fill(tmp_path / "step")
    manifest = json.loads((folder / MANIFEST).read_text())
    del manifest["state.json"]
    (folder / MANIFEST).write_text(json.dumps(manifest))
    with pytest.raises(CheckpointError, match=r"state\.json is not in manifest\.json"):
        verify(folder)
    (folder / "state.json").unlink()
    verify(folder)
    with pytest.raises(CheckpointError, match=r"manifest\.json lists no \*\.json, which is needed"):
        verify(folder, ("*.json",))
    (folder / ".DS_Store").touch()
    verify(folder)
    (tmp_path / "elsewhere").write_text("x")
    (folder / "linked").symlink_to(tmp_path / "elsewhere")
    with pytest.raises(CheckpointError, match="linked is a link"):
        verify(folder)


def test_damaged_manifest_is_always_a_checkpoint_error(tmp_path):
    """Any flipped bit of it is refused with a typed error, unless only a blank between its words changed."""
    folder = fill(tmp_path / "step")
    manifest = folder / MANIFEST
    whole = manifest.read_bytes()
    said = json.loads(whole)
    for bit in range(len(whole) * 8):
        flipped = bytearray(whole)
        flipped[bit // 8] ^= 1 << bit % 8
        manifest.write_bytes(flipped)
        try:
            verify(folder)
        except CheckpointError:
            continue
        assert json.loads(manifest.read_bytes()) == said


@pytest.mark.parametrize("text", ["[]", "3", '{"a": 1}', '{"../x": {"bytes": 1, "sha256": ""}}', "", "{}"])
def test_manifest_of_another_shape(tmp_path, text):
    (tmp_path / MANIFEST).write_text(text)
    with pytest.raises(CheckpointError, match="cannot be read"):
        verify(tmp_path)


def written_by(count: int, path: Path, failing: int | None = None) -> list[str]:
    """A folder that so many writers fill together; what each has to say of it."""

    def work(rank: int, world) -> str:
        try:
            with new_folder(path, world) as folder:
                (folder / f"part-{rank}").mkdir()
                (folder / f"part-{rank}" / "model.bin").write_text(str(rank))
                if rank == failing:
                    raise OSError(28, "No space left on device")
        except Exception as error:
            return f"{type(error).__name__}: {error}"
        return "stands" if path.is_dir() else "is not there"

    return on_ranks(count, work)


def test_several_writers_fill_one_folder(tmp_path):
    assert written_by(3, tmp_path / "step") == ["stands"] * 3
    verify(tmp_path / "step")
    assert sorted(json.loads((tmp_path / "step" / MANIFEST).read_text())) == [f"part-{n}/model.bin" for n in range(3)]
    assert names(tmp_path) == ["step"]


def test_a_writer_that_fails_fails_for_all(tmp_path):
    fill(tmp_path / "step", "old")
    said = written_by(3, tmp_path / "step", failing=1)
    assert said[1] == "OSError: [Errno 28] No space left on device"
    assert said[0] == said[2] == f"OneloopError: rank 1: {said[1]}"
    verify(tmp_path / "step")
    assert names(tmp_path) == ["step"] and (tmp_path / "step" / "policy" / "model.bin").read_text() == "old"
