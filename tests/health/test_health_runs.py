"""Real runs of a few steps that are ill, and one that is not."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import pytest

from oneloop.config import Run, default_run
from oneloop.recipes.execute import execute
from oneloop.record.reader import read_run
from toy_models import Silent

REWARDS = """
def constant(completions, **columns):
    return [0.0] * len(completions)

def nothing(completions, **columns):
    return [None] * len(completions)

def varied(completions, **columns):
    return [len(set(text)) % 3 / 2 for text in completions]
"""


@pytest.fixture
def start(tmp_path: Path):
    (tmp_path / "rewards.py").write_text(REWARDS)

    def start(reward: str, **settings) -> Run:
        small = {"steps": 1, "prompts_per_step": 2, "group_size": 4, "max_new_tokens": 4, "eval_size": 4}
        run = replace(default_run("grpo"), data_size=8, reward=(f"{tmp_path}/rewards.py:{reward}",), **small)
        return replace(run, out=str(tmp_path / "run"), **settings)

    return start


def events(out: Path) -> list[tuple[int, str]]:
    return [(event["step"], event["code"]) for event in read_run(out).events]


def test_truncation_is_named_in_the_first_step(start) -> None:
    watcher = Silent()
    out = execute(start("varied"), watcher)
    (line,) = [line for line in watcher.lines if line.startswith("A_TRUNCATED")]
    assert line.startswith("A_TRUNCATED step 1: 8 of 8 completions hit --max-new-tokens 4 before an end token")
    assert (0, "A_TRUNCATED") in events(out), "files count from 0"


def test_equal_rewards_and_no_rewards(start) -> None:
    assert (0, "A_DEAD") in events(execute(start("constant"), Silent()))
    assert (0, "A_UNSCORED") in events(execute(start("nothing", overwrite=True), Silent()))


def test_steps_without_a_mixed_group_are_said_once_and_counted_each_time(start) -> None:
    out = execute(start("constant", algorithm="dapo", max_refills=1, steps=3), Silent())
    said = [code for _, code in events(out)]
    assert said.count("A_REFILL") == said.count("A_SKIPPED") == 1
    rows = read_run(out).metrics
    assert all(row["skipped_steps"] > 0 for row in rows)
    assert [row["frac_groups_kept"] * row["num_groups"] for row in rows] == [0.0] * 3


def test_a_loss_of_zero_is_explained_once(start) -> None:
    out = execute(start("varied", steps=3), Silent())
    found = [event for event in read_run(out).events if event["code"] == "I_LOSS_ZERO"]
    assert [event["level"] for event in found] == ["info"]
    assert {event["level"] for event in read_run(out).events} == {"info", "alert"}
    row = read_run(out).metrics[found[0]["step"]]
    assert abs(row["loss"]) < 1e-6 < row["grad_norm"]


def test_an_interrupted_run_gives_the_same_alerts(start) -> None:
    """Killed after a checkpoint, resumed: what was said is not said again, what comes later comes at its step."""
    whole = events(execute(start("constant", steps=6), Silent()))

    class Dies(Silent):
        def step(self, step, values):
            if step == 3:
                raise KeyboardInterrupt

    again = start("constant", steps=6, save_every=1, overwrite=True)
    with pytest.raises(KeyboardInterrupt):
        execute(again, Dies())
    out = execute(replace(again, overwrite=False, resume=True), Silent())
    assert events(out) == whole
    assert (0, "A_DEAD") in whole and (4, "A_FLAT") in whole and [code for _, code in whole].count("A_DEAD") == 1


def test_phases_are_told_in_order(start) -> None:
    class Listens(Silent):
        def phase(self, name, note=""):
            if f"phase {name}" != self.lines[-1]:
                self.lines.append(f"phase {name}")

    watcher = Listens()
    execute(start("varied", steps=2), watcher)
    told = [line.removeprefix("phase ") for line in watcher.lines if line.startswith("phase ")]
    assert told == ["rollout", "score", "prepare", "update", "evaluation", "saving"] * 2


def test_the_objective_stands_in_the_folder(start) -> None:
    out = execute(start("varied"), Silent())
    assert (out / "objective.txt").read_text().startswith("grpo: Group relative policy optimization")
    changed = json.loads((out / "run.json").read_text())["changed"]
    assert changed["group_size"] == 8 and changed["steps"] == 100, "the default of what is not the default"
    assert "learning_rate" not in changed and "overwrite" not in changed
