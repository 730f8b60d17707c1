"""Runs whose rollouts do not wait: refused, explained, recorded, replayed and resumed as whole commands."""

from dataclasses import replace
from pathlib import Path

import pytest

from oneloop.algorithms import GRPO
from oneloop.cli.main import run as command
from oneloop.config import Run, default_run
from oneloop.errors import ConfigError
from oneloop.objective.correction import TruncatedImportance
from oneloop.recipes.execute import execute
from oneloop.recipes.resolve import resolved
from oneloop.record.reader import read_run
from toy_models import Silent

CLOCK = ("time", "tokens_per_second")


def small(out: Path, reward: Path, **changes) -> Run:
    run = replace(default_run("grpo"), model="scratch:tiny", data="task:addition", out=str(out), steps=4)
    run = replace(run, prompts_per_step=2, group_size=3, data_size=12, eval_size=4, learning_rate=1e-2)
    return replace(run, max_new_tokens=24, reward=(f"{reward}:share",), save_every=4, **changes)


def logged(out: Path):
    return [{name: value for name, value in row.items() if not name.startswith(CLOCK)} for row in read_run(out).metrics]


def test_a_run_ahead_is_recorded_replayed_and_resumed(tmp_path) -> None:
    reward = tmp_path / "digits.py"
    reward.write_text(
        "def share(completion):\n    return sum(c.isdigit() for c in completion) / (len(completion) + 1)\n",
        encoding="utf-8",
    )
    ahead = {"staleness": 1, "in_flight": "continue"}
    first = execute(small(tmp_path / "first", reward, **ahead), Silent())
    again = execute(small(tmp_path / "again", reward, **ahead, replay=str(first)), Silent())
    assert logged(again) == logged(first)
    assert [row["rollout/staleness/max"] for row in logged(first)] == [0, 1, 1, 1]
    rollouts = [read_run(out).rollouts(step) for out in (first, again) for step in range(4)]
    assert rollouts[:4] == rollouts[4:]
    for step, rows in enumerate(rollouts[:4]):
        assert {row["version"] for row in rows} <= {max(step - 1, 0), step}
    sampler = "sampler        a second process with a copy of the weights; beside the training, from weights at most 1"
    assert sampler in (first / "objective.txt").read_text(encoding="utf-8")

    with pytest.raises(ConfigError, match=r"config\.toml has group_size = 3, this command 2\. Fix: the same flags"):
        execute(replace(small(tmp_path / "third", reward, **ahead, replay=str(first)), group_size=2), Silent())
    with pytest.raises(ConfigError, match="repeated from its start"):
        execute(small(tmp_path / "third", reward, **ahead, replay=str(first), resume=True), Silent())
    longer = execute(small(tmp_path / "first", reward, **ahead, steps=6, resume=True), Silent())
    assert [row["step"] for row in logged(longer)] == list(range(6))
    assert {row["version"] for row in read_run(longer).rollouts(4)} == {4}, "drawn again, from the checkpoint's weights"
    prompts = [row["prompt"] for step in range(6) for row in read_run(longer).rollouts(step)[::3]]
    assert len(prompts) == 12 and len(set(prompts)) == 12, "each of the twelve rows once"
    with pytest.raises(ConfigError, match="was resumed"):
        execute(small(tmp_path / "third", reward, **ahead, replay=str(longer)), Silent())


def test_what_makes_no_sense_is_refused(tmp_path, capsys) -> None:
    flags = ["--model", "scratch:tiny", "--data", "task:addition", "--out", str(tmp_path / "run")]
    wrong = {
        "grpo --staleness 1 --set correction=none": "--staleness 1 with correction=none",
        "sft --staleness 1": "--staleness 1: sft draws no samples. Fix: leave it out",
        "grpo --staleness 1 --in-flight continue --replay /nowhere": "/nowhere/arrivals/0.jsonl cannot be read",
    }
    settings = [
        ({"in_flight": "continue"}, "--staleness 0 it meets no update. Fix: --staleness 1"),
        ({"staleness": 1, "replay": "runs/x"}, "comes out the same without. Fix: leave it out"),
        (
            {"staleness": 1, "engine": "vllm", "replay": "x"},
            "the server's to say. Fix: leave it out",
        ),
        ({"staleness": -1}, "--staleness is -1; wanted 0 or more"),
    ]
    for changes, says in settings:
        with pytest.raises(ConfigError, match=says):
            Run(**changes)
    for words, says in wrong.items():
        assert command(["train", *words.split(), *flags]) == 2
        assert says in capsys.readouterr().err


def test_the_correction_comes_with_staleness() -> None:
    run = replace(default_run("grpo"), staleness=2)
    assert resolved(run) == replace(GRPO, correction=TruncatedImportance(2.0))
    assert resolved(replace(run, staleness=0)) == GRPO


def test_explain_tells_what_becomes_of_completions_on_their_way(tmp_path, capsys) -> None:
    recipe = tmp_path / "run.toml"
    for switch, says in (("finish", "are finished under the old weights"), ("continue", "go on with the new weights")):
        recipe.write_text(f'algorithm = "grpo"\nstaleness = 2\nin_flight = "{switch}"\n', encoding="utf-8")
        assert command(["explain", str(recipe)]) == 0
        text = capsys.readouterr().out
        assert f"from weights at most 2 steps old; completions on their way at an update {says}" in text
        assert "correction     × min(" in text
