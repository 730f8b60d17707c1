"""Runs that are killed, deleted, replaced, half written or damaged: words, never a failure of the server."""

import json
import logging
import os
import shutil
from pathlib import Path

import pytest
from asking import Lab, make_run

from oneloop.lab.status import Status, status_of

ROUTES = ["", "/curves?names=reward", "/metrics?offset=0", "/events", "/evaluations", "/health", "/rollouts",
          "/rollouts/0", "/prompt?row=0", "/ratios", "/ratios?tokens=1", "/tokens", "/pairs", "/memory"]  # fmt: skip


def everything(lab: Lab, run: str = "run") -> dict[str, int]:
    """The status of every route, each of which must be an answer in words."""
    found = {}
    for route in ROUTES:
        answer = lab.get(f"/api/runs/{run}{route}")
        assert answer.status in (200, 404, 410), (route, answer)
        assert answer.status == 200 or answer.json()["error"], route
        found[route] = answer.status
    assert lab.get("/api/runs").status == 200
    assert lab.get(f"/api/compare?runs={run},{run}").status in (200, 410)
    return found


def truncated(file: Path) -> None:
    file.write_bytes(file.read_bytes()[: file.stat().st_size // 2])


def random_bytes(file: Path) -> None:
    file.write_bytes(bytes(range(256)) * 4)


def emptied(file: Path) -> None:
    file.write_bytes(b"")


def deleted(file: Path) -> None:
    file.unlink()


def a_folder(file: Path) -> None:
    file.unlink()
    file.mkdir()


def a_pipe(file: Path) -> None:
    file.unlink()
    os.mkfifo(file)


def a_link(file: Path) -> None:
    moved = file.with_name("elsewhere")
    file.rename(moved)
    file.symlink_to(moved)


def other_json(file: Path) -> None:
    file.write_bytes(
        b'["a", {"step": "x", "code": [], "reward": {}}]\n{"step": "three", "code": 7}\n{"step": null}\n\xff\n'
    )


def deep(file: Path) -> None:
    file.write_bytes(b"[" * 100_000 + b"\n" + b'{"a":' * 50_000 + b"\n")


FILES = ["run.json", "config.toml", "metrics.jsonl", "events.jsonl", "eval.jsonl", "memory.jsonl", "ratios.jsonl",
         "objective.txt", "rollouts/step_000003.parquet", "ratios/step_000003.parquet", "tokens/step_000003.parquet",
         "pairs/step_000003.parquet"]  # fmt: skip
DAMAGES = [truncated, random_bytes, emptied, deleted, a_folder, a_pipe, a_link, other_json, deep]


@pytest.mark.parametrize("damage", DAMAGES, ids=lambda damage: damage.__name__)
def test_every_file_in_every_state(tmp_path, damage, caplog):
    whole = make_run(tmp_path / "whole")
    for place, file in enumerate(FILES):
        run = tmp_path / f"at{place}" / "run"
        shutil.copytree(whole, run)
        lab = Lab(run)
        lab.get("/api/runs/run/curves?names=reward")  # it was whole when it was first looked at
        damage(run / file)
        found = everything(lab)
        if file != "run.json":
            assert found[""] in (200, 410)
    # an answer that was not foreseen is logged with its traceback: there is none
    assert [record.getMessage() for record in caplog.records if record.levelno >= logging.ERROR] == []


def test_a_link_is_not_followed(tmp_path):
    run = make_run(tmp_path / "run")
    (tmp_path / "outside.jsonl").write_text('{"step": 0, "reward": 12345.5}\n')
    (run / "metrics.jsonl").unlink()
    (run / "metrics.jsonl").symlink_to(tmp_path / "outside.jsonl")
    lab = Lab(run)
    for route in ROUTES:
        assert b"12345" not in lab.get(f"/api/runs/run{route}").body
    shutil.move(run / "tokens", tmp_path / "moved")
    (run / "tokens").symlink_to(tmp_path / "moved")
    answer = lab.get("/api/runs/run/tokens")
    assert answer.status == 410 and "link" in answer.json()["error"]


def test_a_run_that_is_gone_stays_and_says_so(tmp_path):
    make_run(tmp_path / "runs" / "run")
    lab = Lab(tmp_path / "runs")
    assert lab.api("/runs")["runs"][0]["status"] == "finished"
    shutil.rmtree(tmp_path / "runs" / "run")
    (run,) = lab.api("/runs")["runs"]
    assert run["status"] == "gone" and "not there any more" in run["words"]
    assert set(everything(lab).values()) == {410}
    make_run(tmp_path / "runs" / "run", steps=2, seed=99)
    assert lab.api("/runs/run")["seed"] == 99 and lab.api("/runs/run")["steps_done"] == 2


def test_a_run_that_is_replaced_by_a_link_is_gone(tmp_path):
    run, other = make_run(tmp_path / "runs" / "run"), make_run(tmp_path / "elsewhere", seed=1234567)
    lab = Lab(tmp_path / "runs")
    assert lab.api("/runs/run")["seed"] == 7
    shutil.rmtree(run)
    run.symlink_to(other)
    assert set(everything(lab).values()) == {410}
    assert b"1234567" not in lab.get("/api/runs").body


def test_a_replaced_run_is_read_anew(tmp_path):
    path = make_run(tmp_path / "run", steps=4)
    lab = Lab(path)
    assert lab.api("/runs/run/curves?names=reward")["series"][0]["n"] == 4
    page = lab.api("/runs/run/metrics?offset=0")
    shutil.rmtree(path)
    make_run(path, steps=6)
    assert lab.api("/runs/run/curves?names=reward")["series"][0]["n"] == 6
    assert lab.api(f"/runs/run/metrics?offset={page['offset']}&mark={page['mark']}")["reset"]


def test_damaged_lines_are_counted_and_the_others_shown(tmp_path):
    path = make_run(tmp_path / "run")
    file = path / "metrics.jsonl"
    lines = file.read_bytes().splitlines(keepends=True)
    file.write_bytes(lines[0] + b"{torn\n" + lines[1] + b"[1]\n" + lines[2] + b'{"step": 9, "reward": 1e999}\n')
    page = Lab(path).api("/runs/run/metrics?offset=0")
    assert [row["step"] for row in page["rows"]] == [0, 1, 2, 9] and page["damaged"] == 2
    assert page["rows"][-1]["reward"] is None
    assert Lab(path).api("/runs/run/curves?names=reward")["series"][0]["x"] == [0, 1, 2]


HOSTILE = "</script><script>alert(1)</script>\x00\x1b[31m\u202e\ud800 ' \" & ../../etc"


def test_hostile_words_come_back_as_json_and_nothing_else(tmp_path):
    run = make_run(tmp_path / "run", failure=HOSTILE, status="failed", model=HOSTILE)
    with (run / "metrics.jsonl").open("ab") as file:
        file.write(json.dumps({"step": 4, HOSTILE: 1.0, "reward": 1}).encode() + b"\n")
    lab = Lab(run)
    everything(lab)
    for route in ("/runs", "/runs/run", f"/runs/run/curves?names={HOSTILE.encode('utf-8', 'replace').hex()}"):
        answer = lab.get(f"/api{route}")
        assert answer.headers["content-type"] == "application/json"
        answer.json()
    assert HOSTILE in lab.api("/runs/run")["metrics"]
    assert lab.api("/runs/run")["model"] == HOSTILE


@pytest.mark.parametrize("name", ["a b", "日本", "-x", "x" * 200, "%2e%2e", "<b>", ".hidden", "a\nb", "~"])
def test_names_of_folders_that_no_address_could_hold(tmp_path, name):
    make_run(tmp_path / "runs" / "made").rename(tmp_path / "runs" / name)
    runs = Lab(tmp_path / "runs").api("/runs")["runs"]
    if name.startswith("."):
        assert runs == []
        return
    (run,) = runs
    assert run["name"] == name and run["id"] == "run-1"
    assert Lab(tmp_path / "runs").api("/runs/run-1")["seed"] == 7


HERE = os.uname().nodename
NOW = 1_000_000.0


def info(**facts):
    return {"status": "running", "host": HERE, "pid": 1, "started": NOW - 9, "heartbeat": NOW - 5, **facts}


@pytest.mark.parametrize(
    ("facts", "alive", "status", "words"),
    [
        ({}, True, "running", "running"),
        ({"status": "starting"}, True, "starting", "starting"),
        ({"heartbeat": NOW - 1200}, True, "running", "last heard of 20 minutes ago"),
        ({}, False, "killed", "process 1 is gone"),
        ({"host": "elsewhere"}, None, "running", "running on elsewhere, last heard of 5 seconds ago"),
        ({"host": "elsewhere", "heartbeat": NOW - 3 * 86400}, None, "killed", "probably killed"),
        ({"heartbeat": NOW + 3600}, True, "running", "running"),  # a clock that was set back
        ({"status": "finished"}, None, "finished", "finished"),
        ({"status": "failed", "failure": "boom"}, None, "failed", "failed: boom"),
        ({"status": "stopped"}, None, "stopped", "stopped"),
        ({"status": "weird"}, None, "unreadable", "weird"),
        ({"heartbeat": None, "started": None}, False, "killed", "at an unknown time"),
    ],
)
def test_status(facts, alive, status, words):
    found = status_of(info(**facts), NOW, alive=alive)
    assert found.status == status and words in found.words


def test_a_process_of_the_same_number_is_not_the_run():
    mine = {"status": "running", "host": HERE, "pid": os.getpid(), "started": 1000.0, "heartbeat": 2000.0}
    assert status_of(mine, NOW).status == "killed"  # this process began long after
    assert status_of(mine | {"pid": -1}, NOW).status == status_of(mine | {"pid": "x"}, NOW).status == "killed"
    assert isinstance(status_of({}, NOW), Status)
