"""Tables by step: packed, cut, thinned, and read while all of that happens."""

import os
from pathlib import Path

import pyarrow as pa
import pytest

from oneloop.errors import DataError
from oneloop.record import steps as module
from oneloop.record.steps import PACKED, StepTables


def table(step: int, **columns) -> pa.Table:
    return pa.table({"step": pa.array([step, step], pa.int32()), "x": [[step, 1], []]} | columns)


def rows(step: int) -> list[dict]:
    return [{"step": step, "x": [step, 1]}, {"step": step, "x": []}]


def written(folder: Path, steps, budget: int | None = None) -> StepTables:
    tables = StepTables(folder, budget)
    for step in steps:
        tables.write(step, table(step))
    return tables


def names(folder: Path) -> list[str]:
    return sorted(entry.name for entry in folder.iterdir())


def contents(folder: Path) -> dict[str, bytes]:
    return {entry.name: entry.read_bytes() for entry in folder.iterdir()}


def test_two_hundred_steps_are_three_files_and_eight(tmp_path):
    written(tmp_path / "t", range(200))
    assert names(tmp_path / "t") == [
        *(f"step_{step:06d}.parquet" for step in range(192, 200)),
        "steps_000000-000063.parquet", "steps_000064-000127.parquet", "steps_000128-000191.parquet",
    ]  # fmt: skip
    again = StepTables(tmp_path / "t")
    assert again.steps() == list(range(200)) and again.stride == 1
    for step in (0, 63, 64, 150, 191, 192, 199):
        assert again.read(step) == rows(step)
        assert again.read(step, ["x"]) == [{"x": row["x"]} for row in rows(step)]
    with pytest.raises(KeyError):
        again.read(200)


def test_a_packed_file_has_a_row_group_for_each_step(tmp_path):
    from pyarrow import parquet

    written(tmp_path, range(PACKED))
    with parquet.ParquetFile(tmp_path / "steps_000000-000063.parquet") as file:
        assert file.num_row_groups == PACKED
        assert file.read_row_group(5).to_pylist() == rows(5)


def test_a_column_that_only_some_steps_have_stays_theirs(tmp_path):
    tables = StepTables(tmp_path)
    for step in range(PACKED):
        tables.write(step, table(step, extra=["a", "b"]) if step == 3 else table(step))
    assert names(tmp_path) == ["steps_000000-000063.parquet"]
    assert tables.read(2) == rows(2)
    assert [row["extra"] for row in tables.read(3)] == ["a", "b"]


def test_a_column_that_changes_its_type_keeps_its_steps_apart(tmp_path):
    tables = StepTables(tmp_path)
    for step in range(PACKED + 1):
        tables.write(step, table(step, extra=["a", "b"] if step == 3 else [0.5, 1.5]))
    assert len(names(tmp_path)) == PACKED + 1 and tables.steps() == list(range(PACKED + 1))
    assert tables.read(3)[0]["extra"] == "a" and tables.read(4)[0]["extra"] == 0.5


def test_killed_between_the_new_file_and_the_end_of_the_old_ones(tmp_path, monkeypatch):
    tables = written(tmp_path, range(PACKED - 1))
    with monkeypatch.context() as patch:
        patch.setattr(Path, "unlink", lambda *_, **__: (_ for _ in ()).throw(KeyboardInterrupt))
        with pytest.raises(KeyboardInterrupt):
            tables.write(PACKED - 1, table(PACKED - 1))
    for leftover in tmp_path.glob(".tmp-*"):  # as the start of a run does
        leftover.unlink()
    before = StepTables(tmp_path)
    both = len(names(tmp_path))
    assert before.steps() == list(range(both and PACKED)) and before.read(7) == rows(7)
    before.write(PACKED, table(PACKED))
    assert before.steps() == list(range(PACKED + 1))
    assert names(tmp_path) == ["step_000064.parquet", "steps_000000-000063.parquet"]


def test_a_reader_looks_again_when_a_step_has_moved(tmp_path, monkeypatch):
    """Between its look at the folder and its read, 64 files become one."""
    written(tmp_path, range(PACKED - 1))
    reader, real, moved = StepTables(tmp_path), module._read, []

    def read(path, *arguments):
        if not moved:
            moved.append(path)
            written(tmp_path, [PACKED - 1])
        return real(path, *arguments)

    monkeypatch.setattr(
        module, "_read", lambda *arguments: (monkeypatch.setattr(module, "_read", real), read(*arguments))[1]
    )
    assert reader.read(7) == rows(7) and moved == [tmp_path / "step_000007.parquet"] and not moved[0].exists()


@pytest.mark.parametrize("at", [0, 1, 63, 64, 65, 100, 127, 128, 140, 141])
def test_a_cut_leaves_what_had_been_there(tmp_path, at):
    """File by file and byte by byte, also inside a packed file; and what is written then is the uninterrupted run's."""
    written(tmp_path / "short", range(at))
    written(tmp_path / "whole", range(140))
    cut = written(tmp_path / "cut", range(140))
    cut = StepTables(tmp_path / "cut")
    cut.cut(at)
    (tmp_path / "short").mkdir(exist_ok=True)
    assert contents(tmp_path / "cut") == contents(tmp_path / "short" if at <= 140 else tmp_path / "whole")
    for step in range(at, 140):
        cut.write(step, table(step))
    assert contents(tmp_path / "cut") == contents(tmp_path / "whole")


def size(folder: Path) -> int:
    return sum(entry.stat().st_size for entry in folder.iterdir())


def test_the_budget_holds_at_every_step(tmp_path):
    budget = 60_000
    tables, strides = StepTables(tmp_path, budget), []
    for step in range(600):
        tables.write(step, table(step))
        assert size(tmp_path) <= budget
        strides.append(tables.stride)
    assert strides[0] == 1 and strides[-1] >= 4 and strides == sorted(strides)
    stride = StepTables(tmp_path).stride
    assert stride == strides[-1] and tables.steps() == list(range(0, 600, stride))
    assert all(tables.read(step) == rows(step) for step in tables.steps()[::7])


@pytest.mark.parametrize("at", [40, 130, 300, 599])
def test_a_thinned_folder_resumes_to_the_same_files(tmp_path, at):
    whole = written(tmp_path / "whole", range(600), 60_000)
    written(tmp_path / "cut", range(600), 60_000)
    cut = StepTables(tmp_path / "cut", 60_000)
    cut.cut(at)
    assert all(step < at for step in cut.steps())
    for step in range(at, 600):
        cut.write(step, table(step))
    assert cut.steps() == whole.steps()
    assert contents(tmp_path / "cut") == contents(tmp_path / "whole")


def test_killed_while_thinning(tmp_path, monkeypatch):
    """Both the old and the new files: every step that should be there is, and the next write goes on."""
    tables = StepTables(tmp_path, 60_000)
    real, step = StepTables._thin, 0

    def dies(self, at):
        with monkeypatch.context() as patch:
            patch.setattr(Path, "unlink", lambda *_, **__: (_ for _ in ()).throw(KeyboardInterrupt))
            real(self, at)

    monkeypatch.setattr(StepTables, "_thin", dies)
    with pytest.raises(KeyboardInterrupt):
        for step in range(600):
            tables.write(step, table(step))
    monkeypatch.setattr(StepTables, "_thin", real)
    for leftover in tmp_path.glob(".tmp-*"):
        leftover.unlink()
    again = StepTables(tmp_path, 60_000)
    for later in range(step + 1, step + 140):
        again.write(later, table(later))
    assert set(range(0, step + 140, again.stride)) <= set(again.steps()) and size(tmp_path) <= 60_000
    assert all(again.read(at) == rows(at) for at in again.steps()[::5])


def test_a_file_that_cannot_be_read_is_named_and_the_others_stay(tmp_path):
    tables = written(tmp_path, range(PACKED + 2))
    (tmp_path / "step_000065.parquet").write_bytes(b"PAR1")
    (tmp_path / "steps_000000-000063.parquet").write_bytes(b"torn")
    assert tables.steps() == list(range(PACKED + 2)) and tables.read(64) == rows(64)
    for step, name in ((65, "step_000065"), (5, "steps_000000-000063")):
        with pytest.raises(DataError, match=rf"{name}\.parquet cannot be read .* Fix: rm"):
            tables.read(step)


def test_other_files_are_left_alone(tmp_path):
    tables = written(tmp_path, range(3))
    (tmp_path / "notes.txt").touch()
    (tmp_path / f".tmp-step_000003.parquet-{os.getpid()}").touch()
    tables.cut(0)
    assert names(tmp_path) == [f".tmp-step_000003.parquet-{os.getpid()}", "notes.txt"] and tables.steps() == []
