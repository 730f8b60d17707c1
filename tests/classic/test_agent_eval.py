"""`oneloop eval --env`: an agent's returns, and what is refused."""

import json
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import toy_environments  # noqa: F401  # registers them
from pyarrow import parquet

from oneloop.classic.evaluation import IN_TRAINING, evaluation_scalars, played
from oneloop.classic.normalize import Observations
from oneloop.classic.save import Player, load_player, new_agent, save_player
from oneloop.classic.spaces import Spaces
from oneloop.cli.main import run as command
from oneloop.recipes.agent_exam import AgentExam, evaluate_agent
from oneloop.types import Trajectory

CORRIDOR = Spaces(features=2, one_hot=False, first=(0, 0), choices=3)


def corridor_agent(folder: Path, seed: int = 0) -> Path:
    agent = new_agent(CORRIDOR, (4,), critic=False, seed=seed)
    save_player(folder, Player("Corridor-v0", agent, CORRIDOR, Observations(2, False)), (4,))
    return folder


def returned(length: int) -> float:
    """Of a corridor: 1 + 0.0, 1 + 0.1, … whatever is done in it."""
    return sum(1 + taken / 10 for taken in range(length))


def test_returns_are_those_of_whole_episodes_with_an_interval(tmp_path: Path) -> None:
    """The environment's arithmetic says what each episode is worth; it ends by itself, or is cut after ten steps."""
    found = evaluate_agent(str(corridor_agent(tmp_path / "agent")), AgentExam(env="Corridor-v0", episodes=23))
    assert len(found.items) == 23
    for item in found.items:
        length = len(item.completion.actions)
        assert item.reward.value == pytest.approx(returned(length))
        assert str(item.completion.stop) == ("turns" if length == 10 else "environment")
        assert item.text.count(" ") == length - 1
    mean, drawn, length = found.scores
    assert mean.mean == pytest.approx(np.mean([item.reward.value for item in found.items]))
    assert mean.interval is not None and mean.interval.low < mean.mean < mean.interval.high
    assert drawn.mean == pytest.approx(mean.mean), "what is done in a corridor changes nothing"
    assert length.mean == pytest.approx(np.mean([len(item.completion.actions) for item in found.items]))


def test_two_agents_are_compared_episode_by_episode(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """The same seed, the same corridor: whoever plays, the difference is 0 in each."""
    one, other = corridor_agent(tmp_path / "one"), corridor_agent(tmp_path / "other", seed=1)
    out = tmp_path / "out"
    words = [
        "--model",
        str(one),
        "--against",
        str(other),
        "--env",
        "Corridor-v0",
        "--episodes",
        "12",
        "--out",
        str(out),
    ]
    assert command(["eval", *words]) == 0
    assert "higher on 0, equal on 12, lower on 0" in capsys.readouterr().out
    kept = json.loads((out / "results.json").read_text())
    assert kept["exam"] == {"env": "Corridor-v0", "episodes": 12, "seed": 0}
    assert [score["name"] for score in kept["models"][0]["scores"]] == ["return", "return, drawn", "length"]
    rows = parquet.read_table(out / "completions.parquet").to_pylist()
    assert [row["group"] for row in rows] == list(range(12))
    assert all(row["reward"] == pytest.approx(returned(row["length"])) for row in rows)


def seeds(items: Sequence[Trajectory]) -> set[str]:
    return {item.prompt.text.rpartition(" ")[2] for item in items}


def test_the_command_plays_episodes_that_no_run_has_chosen_by(tmp_path: Path) -> None:
    """`best/` is the best of several on a run's own evaluations: on the same episodes it looks better than it is."""
    player = load_player(corridor_agent(tmp_path / "agent"))
    found = evaluate_agent(str(tmp_path / "agent"), AgentExam(env="Corridor-v0", episodes=40, seed=5))
    in_training = played(player, 40, 5, stream=IN_TRAINING, sampled=False)
    scalars = evaluation_scalars(player, 40, 5)
    assert scalars["eval/reward"] == pytest.approx(np.mean([item.reward.value for item in in_training]))
    assert len(seeds(found.items)) == len(seeds(in_training)) == 40
    assert not seeds(found.items) & seeds(in_training)
    assert scalars["eval/reward"] != pytest.approx(found.scores[0].mean)
    first, again = (played(replace(player), 13, 5, stream="any", sampled=True) for _ in range(2))
    assert first == again


@pytest.mark.parametrize(
    "words", [("sample", "hello"), ("eval", "--data", "task:addition")], ids=lambda words: words[0]
)
def test_an_agent_asked_for_words_is_told_of_its_environment(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], words: tuple[str, ...]
) -> None:
    agent = corridor_agent(tmp_path / "agent")
    assert command([words[0], "--model", str(agent), *words[1:]]) == 2
    told = capsys.readouterr().err
    assert f"--model {agent} holds an agent of Corridor-v0" in told
    assert f"oneloop eval --model {agent} --env Corridor-v0" in told


@pytest.mark.parametrize(
    ("words", "said"),
    [
        ((), "on what? Fix: --data eval.jsonl or task:NAME, or for an agent --env CartPole-v1"),
        (("--env", "Corridor-v0", "--data", "task:addition"), "--data is for language models"),
        (("--env", "Corridor-v0", "--temperature", "1"), "--temperature is for language models"),
        (("--data", "task:addition", "--episodes", "5"), "--episodes is for agents"),
        (("--env", "Corridor-v0", "--episodes", "1"), "--episodes is 1; wanted at least 2"),
        (("--env", "Corridr-v0"), "Did you mean Corridor-v0"),
        (("--env", "Vector-v0"), "was trained in Corridor-v0, whose observations or actions are others"),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, tuple) else "",
)
def test_what_cannot_be_is_refused(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], words: tuple[str, ...], said: str
) -> None:
    agent = corridor_agent(tmp_path / "agent")
    assert command(["eval", "--model", str(agent), *words]) == 2
    assert said in capsys.readouterr().err


def test_a_folder_without_an_agent_is_named(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert command(["eval", "--model", str(tmp_path), "--env", "Corridor-v0"]) == 2
    assert f"--model {tmp_path} holds no agent. Fix: the final/ of a run" in capsys.readouterr().err


def test_a_gate_that_the_return_does_not_reach(tmp_path: Path) -> None:
    agent = corridor_agent(tmp_path / "agent")
    words = ["eval", "--model", str(agent), "--env", "Corridor-v0", "--episodes", "4", "--fail-under"]
    assert command([*words, "1000"]) == 3
    assert command([*words, "1"]) == 0
