"""A damaged run folder ends `oneloop report` in a page or in one message, never in a traceback."""

import shutil
from pathlib import Path

import pytest
from asking import make_run
from test_server_damage import DAMAGES, FILES, a_folder, a_link, a_pipe

from oneloop.cli.main import run as command
from oneloop.record.reader import read_run

NAMES = [*FILES, "rollouts", "tokens"]


def a_file(folder: Path) -> None:
    shutil.rmtree(folder)
    folder.write_text("not a folder")


@pytest.mark.parametrize("damage", DAMAGES, ids=lambda damage: damage.__name__)
def test_every_file_in_every_state(tmp_path, damage, capsys):
    whole = make_run(tmp_path / "whole")
    for place, name in enumerate(NAMES):
        run = tmp_path / f"at{place}" / "run"
        shutil.copytree(whole, run)
        (a_file if (run / name).is_dir() else damage)(run / name)
        code = command(["report", str(run)])
        said = capsys.readouterr()
        if code and (name in ("run.json", "config.toml") or damage in (a_folder, a_pipe, a_link)):
            assert code == 2 and said.err.count("\n") == 1 and "Fix:" in said.err, (name, said.err)
        else:
            assert code == 0 and (run / "report.html").is_file(), (name, said.err)


def test_lines_that_cannot_be_read_are_counted_on_the_page(tmp_path, capsys):
    run = make_run(tmp_path / "run")
    lines = (run / "metrics.jsonl").read_bytes().splitlines(keepends=True)
    (run / "metrics.jsonl").write_bytes(lines[0] + b"{torn\n" + b"".join(lines[1:]) + b'{"step": 99, "re')
    assert command(["report", str(run)]) == 0
    assert "1 lines of metrics.jsonl cannot be read (first: 2)" in (run / "report.html").read_text()
    assert [row["step"] for row in read_run(run).metrics] == list(range(len(lines)))


@pytest.mark.parametrize("place", ["missing", "a file", "empty"])
def test_what_is_no_run_folder(tmp_path, place, capsys):
    path = tmp_path / "run"
    if place == "a file":
        path.write_text("x")
    elif place == "empty":
        path.mkdir()
    assert command(["report", str(path)]) == 2
    assert "not a run folder" in capsys.readouterr().err
