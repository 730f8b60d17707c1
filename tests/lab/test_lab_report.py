"""The report: whole, self-contained, and deaf to what a run says. How it looks: tests/web/test_report.py."""

import base64
import hashlib
import json
import re
from html.parser import HTMLParser
from pathlib import Path
from time import sleep
from typing import Any

import pytest

from oneloop.errors import ConfigError
from oneloop.lab import held
from oneloop.lab.about import spread
from oneloop.lab.columns import Index
from oneloop.lab.curves import metric_lines
from oneloop.lab.report import Table, report_run, write_report
from oneloop.lab.sendable import without_folders
from oneloop.record.reader import read_run
from oneloop.record.writer import RunFolder
from oneloop.types import Completion, Prompt, Reward, StopReason, Trajectory

HOSTILE = "</script><script>alert(1)</script><!--<script><img src=x onerror=alert(2)> & \x1b[31m \u202e \ud800 数"


def trajectory(reward: float | None, text: str, sample: int = 0) -> Trajectory:
    return Trajectory(
        prompt=Prompt(id="0", text=HOSTILE, tokens=(1,)),
        group=0,
        sample=sample,
        completion=Completion(tokens=(2,), logprobs=(-0.1,), stop=StopReason.LENGTH),
        text=text,
        reward=Reward(value=reward),
    )


def make_run(path: Path, *, steps: int = 3, hostile: bool = False) -> Path:
    with RunFolder.open(path, resume=False, config_text="", facts={"algorithm": "grpo", "steps": steps}) as folder:
        for step in range(steps):
            values = {"reward": step / 2, "kl": float("nan") if step == 1 else 0.1, "completions/mean_length": 9.0}
            if hostile:
                values["rewards/" + HOSTILE + "/mean"] = 1.0
            folder.scalars(step, values)
            folder.trajectories(step, [trajectory(i / 10, f"answer {step}.{i}", i) for i in range(6)])
        if hostile:
            folder.trajectories(steps - 1, [trajectory(1.0, HOSTILE), trajectory(None, "unscored")])
            folder.event(0, HOSTILE, HOSTILE, HOSTILE)
        folder.finish("failed" if hostile else "finished", HOSTILE if hostile else None)
    return path


class Page(HTMLParser):
    """Tags and attributes of a page."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.tags: list[str] = []
        self.attributes: list[tuple[str, str | None]] = []
        self.feed(text)

    def handle_starttag(self, tag, attrs):
        self.tags.append(tag)
        self.attributes += attrs


def answers(path: Path) -> dict[str, Any]:
    """What the file holds, as its script reads it."""
    text = path.read_text(encoding="utf-8")
    (data,) = re.findall(r'<script type="application/json" id="report">(.*?)</script>', text)
    return json.loads(data)["answers"]


def test_a_single_run(tmp_path):
    out = report_run(make_run(tmp_path / "first"))
    assert out == tmp_path / "first" / "report.html"
    text = out.read_text(encoding="utf-8")
    assert "<title>Run first</title>" in text and '<meta charset="utf-8">' in text
    found = answers(out)
    run, facts = found["/api/runs/first"], found["/api/report"]
    assert (run["steps_done"], run["steps_total"], run["words"]) == (3, 3, "finished")
    assert facts["title"] == "Run first" and facts["runs"][0]["missing"] == {"kl": 1}
    names = [one["name"] for one in found["/api/runs/first/curves"]["series"]]
    assert {"reward", "kl", "completions/mean_length"} <= set(names)
    assert [sample["step"] for sample in facts["runs"][0]["samples"]] == [0, 1, 2]


def test_a_file_that_takes_long_to_read_is_waited_for(tmp_path, monkeypatch):
    """Its first block may take seconds: pyarrow is loaded for it."""
    begun = Index._read_on
    monkeypatch.setattr(Index, "_read_on", lambda self: (sleep(0.8), begun(self)))
    found = answers(report_run(make_run(tmp_path / "run")))
    assert len(found["/api/runs/run/curves"]["series"]) == 4


def test_the_browser_runs_this_script_and_no_other(tmp_path):
    text = report_run(make_run(tmp_path / "run", hostile=True)).read_text(encoding="utf-8")
    page = Page(text)
    assert page.tags.count("script") == 2 and page.tags.count("style") == 1
    assert not {"img", "iframe", "object"} & set(page.tags)
    assert not [key for key, _ in page.attributes if key.startswith("on") or key == "src"]
    (policy,) = [value or "" for key, value in page.attributes if key == "content" and "default-src" in (value or "")]
    assert policy.startswith("default-src 'none'; ") and "unsafe" not in policy and "http" not in policy
    for tag, kind in (("script", "module"), ("style", "")):
        (inside,) = re.findall(rf"<{tag}{f' type=.{kind}.' if kind else ''}>(.*?)</{tag}>", text, re.DOTALL)
        digest = base64.b64encode(hashlib.sha256(inside.encode()).digest()).decode()
        assert f"{tag}-src 'sha256-{digest}'" in policy


def test_hostile_words_stay_words(tmp_path):
    run = make_run(tmp_path / "run", hostile=True)
    table = Table((HOSTILE,), [(HOSTILE,)], HOSTILE)
    out = write_report([(HOSTILE, run)], tmp_path / "r.html", title=HOSTILE, tables=[table], notes=[HOSTILE])
    text = out.read_text(encoding="utf-8")
    assert "alert(1)</script>" not in text and "<img" not in text and "<!--" not in text and "\x1b" not in text
    found = answers(out)
    whole = HOSTILE  # nothing of it is lost
    assert found["/api/report"]["notes"] == [whole] and found["/api/report"]["runs"][0]["name"] == whole
    rows = found["/api/runs/run/rollouts?step=2"]["rows"]
    assert rows[0]["completion"].startswith("</script><script>")
    assert found["/api/report"]["runs"][0]["samples"][-1] == {"step": 2, "count": 2, "unscored": 1, "error": None}


def test_it_says_nothing_of_the_machine_and_whoever_ran_it(tmp_path):
    run = make_run(tmp_path / "run")
    info = json.loads((run / "run.json").read_text())
    argv = ["/home/alice/venv/bin/oneloop", "train", "--out=/home/alice/runs/x", "--model", "/data/models/mine"]
    info |= {"host": "box7.lab", "pid": 424242, "status": "running", "heartbeat": 1.0, "argv": argv}
    (run / "run.json").write_text(json.dumps(info))
    (run / "config.toml").write_text('model = "/data/models/mine"\nreward = ["/home/alice/score.py:f"]\n')
    (run / "rollouts" / "step_000000.parquet").write_bytes(b"torn")
    event = {"step": 0, "level": "alert", "code": "A_TRACE", "text": "no room in /home/alice/runs", "fix": ""}
    (run / "events.jsonl").write_text(json.dumps(event) + "\n")
    out = report_run(run)
    text = out.read_text(encoding="utf-8")
    for word in ("alice", "/data/models", "box7", "424242", str(tmp_path)):
        assert word not in text
    facts = answers(out)["/api/runs/run"]
    assert facts["info"]["argv"] == ["…/oneloop", "train", "--out=…/x", "--model", "…/mine"]
    assert [row["value"] for row in facts["config"]] == ["…/mine", "…/score.py:f"]
    assert "on another machine" in facts["words"] and facts["path"] == "…/run"


@pytest.mark.parametrize(
    "text",
    ["runs/demo/ppo", "https://host/a/b.html", "org/model", "and/or", "../a/b", "hf://datasets/a/b", "ρ/π_old", "a / b",
     "</script><script>alert(1)</script>"],
)  # fmt: skip
def test_what_names_no_folder_of_the_machine_stays(text):
    assert without_folders(text) == text


def test_two_to_four_runs_are_laid_side_by_side(tmp_path):
    runs = [(name, make_run(tmp_path / name)) for name in ("a", "b")]
    found = answers(write_report(runs, tmp_path / "r.html", title="t"))["/api/report"]["compared"]
    assert [len(one["rows"]) for one in found["prompts"]] == [2] and found["evaluation"] is None  # of one prompt
    assert found["words"] == ["only the seed or nothing differs: what is seen is chance"]
    assert answers(report_run(tmp_path / "a"))["/api/report"]["compared"] is None


def test_runs_are_held_together(tmp_path):
    runs = [(name, make_run(tmp_path / name)) for name in ("ppo", "grpo")]
    tables = [Table(("method", "accuracy"), [("ppo", "50 % <b>")], "512 held-out prompts")]
    out = write_report(runs, tmp_path / "all" / "report.html", title="demo", tables=tables, notes=["n"])
    found = answers(out)
    facts = found["/api/report"]
    assert [run["id"] for run in found["/api/runs"]["runs"]] == ["ppo", "grpo"]
    assert [run["name"] for run in facts["runs"]] == ["ppo", "grpo"]
    assert facts["notes"] == ["n"] and facts["tables"][0]["rows"] == [["ppo", "50 % <b>"]]
    assert {"/api/runs/ppo/rollouts?step=0", "/api/runs/grpo/rollouts?step=0"} <= set(found)


def test_two_runs_of_one_folder_name_are_told_apart(tmp_path):
    runs = [(f"seed {seed}", make_run(tmp_path / str(seed) / "grpo", steps=seed + 1)) for seed in (0, 1)]
    found = answers(write_report(runs, tmp_path / "r.html", title="t"))
    named = [(run["id"], run["name"]) for run in found["/api/runs"]["runs"]]
    assert named == [("grpo", "seed 0"), ("grpo-2", "seed 1")]
    assert found["/api/runs/grpo-2"]["steps_done"] == 2


def test_a_long_run_holds_a_bounded_number_of_completions(tmp_path):
    path = make_run(tmp_path / "run", steps=40)
    with RunFolder.open(path, resume=True, config_text="", facts={"algorithm": "grpo"}) as folder:
        folder.trajectories(39, [trajectory(i / 100, f"many {i}", i) for i in range(100)])
    found = answers(report_run(path))
    steps = [int(key.rpartition("=")[2]) + 1 for key in found if "/rollouts?step=" in key]
    assert steps == [1, 8, 16, 24, 32, 40]
    last = found["/api/runs/run/rollouts?step=39"]
    assert [row["row"] for row in last["rows"]] == [*range(99, 91, -1), *range(7, -1, -1)]
    assert found["/api/runs/run"]["tables"]["rollouts"]["spans"] == [[0, 7, 7], [15, 39, 8]]
    assert "this file holds the rollouts of 6 of 40 steps; all of them: oneloop lab" in found["/api/runs/run"]["lacks"]


def test_what_there_is_no_room_for_is_said(tmp_path, monkeypatch):
    monkeypatch.setattr(held, "BUDGET", 4000)
    out = report_run(make_run(tmp_path / "run", steps=20))
    found = answers(out)
    assert found["/api/report"]["left"] and "rollouts" in found["/api/report"]["left"][0]
    assert len([key for key in found if "/rollouts?step=" in key]) < 6


def test_a_very_long_run_makes_no_larger_file(tmp_path):
    path = make_run(tmp_path / "run")
    values = [{f"m{i}": rest + i / 3 for i in range(20)} for rest in range(7)]
    rows = ({"step": step, "time": step * 1.0, **values[step % 7]} for step in range(20_000))
    (path / "metrics.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    out = report_run(path)
    series = answers(out)["/api/runs/run/curves"]["series"]
    assert len(series) == 20 and all(len(one["x"]) <= held.MOST_POINTS for one in series)
    assert out.stat().st_size < 10 * 2**20


def test_settings_and_objective(tmp_path):
    path = tmp_path / "run"
    facts = {"algorithm": "grpo", "changed": {"learning_rate": 1e-6, "reward": []}}
    config = f'algorithm = "grpo"\nsteps = 100\nlearning_rate = 0.01\nreward = ["a.py:f", {json.dumps("<b>" + "x")}]\n'
    with RunFolder.open(path, resume=False, config_text=config, facts=facts) as folder:
        folder.scalars(0, {"reward": 1.0})
    (path / "objective.txt").write_text("grpo: <i>objective</i>\n  loss   Σ\n", encoding="utf-8")
    run = answers(report_run(path))["/api/runs/run"]
    assert run["objective"] == "grpo: <i>objective</i>\n  loss   Σ\n"
    changed = [(row["name"], row["value"], row["default"]) for row in run["config"] if row["changed"]]
    assert changed == [("learning_rate", "0.01", "1e-06"), ("reward", "a.py:f <b>x", "")]


def test_long_completions_are_cut_with_a_word(tmp_path):
    run = make_run(tmp_path / "run")
    with RunFolder.open(run, resume=True, config_text="", facts={}) as folder:
        folder.trajectories(9, [trajectory(1.0, "x" * 4000)])
    (row,) = answers(report_run(run))["/api/runs/run/rollouts?step=9"]["rows"]
    assert row["completion"] == "x" * 1500 and row["rest"] == {"prompt": 0, "completion": 2500}


def test_an_unreadable_table_is_said_and_the_rest_held(tmp_path):
    run = make_run(tmp_path / "run")
    (run / "rollouts" / "step_000000.parquet").write_bytes(b"torn")
    found = answers(report_run(run))
    assert "step_000000.parquet cannot be read" in found["/api/report"]["runs"][0]["samples"][0]["error"]
    assert "/api/runs/run/rollouts?step=2" in found


def test_a_run_without_anything_and_a_killed_one(tmp_path):
    folder = tmp_path / "run"
    folder.mkdir()
    (folder / "run.json").write_text(json.dumps({"status": "running", "heartbeat": 1, "host": "elsewhere"}))
    found = answers(report_run(folder))
    assert found["/api/runs/run"]["status"] == "killed" and "last heard of" in found["/api/runs/run"]["words"]
    assert found["/api/runs/run/curves"]["series"] == []


def test_the_same_run_gives_the_same_page(tmp_path):
    run = make_run(tmp_path / "run")
    first = report_run(run).read_bytes()
    assert report_run(run).read_bytes() == first


def test_not_a_run(tmp_path):
    with pytest.raises(ConfigError, match="not a run folder"):
        report_run(tmp_path)


def test_steps_of_a_figure_are_counted_from_1_as_on_the_terminal(tmp_path):
    (line,) = metric_lines([("run", read_run(make_run(tmp_path / "run")))], "reward")
    assert line.steps == [1, 2, 3] and line.values == [0.0, 0.5, 1.0]


def test_the_start_of_a_figure_is_what_was_measured_before_training(tmp_path):
    path = make_run(tmp_path / "run")
    with RunFolder.open(path, resume=True, config_text="", facts={"algorithm": "grpo"}) as folder:
        folder.scalars(7, {"eval/reward": 0.75})
    lines = [{"done": 0, "time": 1.0, "eval/reward": 0.25}, {"done": 8, "time": 2.0, "eval/reward": 0.75}]
    (path / "eval.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
    (line,) = metric_lines([("run", read_run(path))], "eval/reward")
    assert (line.steps, line.values) == ([0, 8], [0.25, 0.75])
    assert [row["done"] for row in answers(report_run(path))["/api/runs/run/evaluations"]["rows"]] == [0, 8]


def test_spread():
    assert spread(range(100), 4) == [0, 33, 66, 99] and spread([3, 5], 4) == [3, 5]
