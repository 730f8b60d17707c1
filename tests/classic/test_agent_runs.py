"""Whole runs with --env: they learn, they resume to the bit, and what cannot be is refused before anything begins."""

import json
import shutil
import sys
import tomllib
from dataclasses import replace
from itertools import pairwise
from pathlib import Path

import gymnasium
import numpy as np
import pytest
import toy_environments  # noqa: F401  # registers them

import oneloop
from oneloop.algorithms import PPO, Critic
from oneloop.classic.presets import PRESETS, settings
from oneloop.classic.save import load_player
from oneloop.cli.main import run as command
from oneloop.config import default_run
from oneloop.errors import CheckpointError, ConfigError
from oneloop.lab.folders import Folder
from oneloop.lab.lights import health
from oneloop.lab.own import OwnRun
from oneloop.lab.tables import rollout, rollouts
from oneloop.objective.advantage import GAE
from oneloop.recipes.resolve import resolved
from oneloop.record.reader import read_run
from same_run import differs

SMALL = ("--steps", "6", "--envs", "2", "--steps-per-env", "40", "--minibatch", "20", "--epochs", "2", "--hidden", "8")
SMALL += ("--eval-size", "2", "--eval-every", "3", "--save-every", "2", "--keep-checkpoints", "5")


def train(*words: str) -> int:
    try:
        return command(["train", *words])
    except SystemExit as end:  # of the reader of flags
        return int(end.code or 0)


@pytest.mark.parametrize(
    "words",
    [
        ("ppo", "CartPole-v1"),
        ("ppo", "Pendulum-v1", "--normalize", "observations", "rewards"),
        ("reinforce", "CartPole-v1"),
        ("trpo", "Pendulum-v1", "--minibatch", "0", "--epochs", "1"),
    ],
    ids=lambda words: " ".join(words[:2]),
)
def test_a_run_that_goes_on_from_a_checkpoint_is_the_one_that_never_stopped(
    tmp_path: Path, words: tuple[str, ...]
) -> None:
    """Killed after its third step: the record of that one is cut off, and episodes go on where step 2 left them."""
    algorithm, env, *more = words
    whole, killed = tmp_path / "whole", tmp_path / "killed"
    asked = (algorithm, "--env", env, *SMALL, *more)
    assert train(*asked, "--out", str(whole)) == 0
    shutil.copytree(whole, killed)
    for late in ("step_000004", "step_000006"):
        shutil.rmtree(killed / "checkpoints" / late)
    shutil.rmtree(killed / "final")
    info = json.loads((killed / "run.json").read_text())
    (killed / "run.json").write_text(json.dumps(info | {"status": "running", "checkpoint": 2}))
    assert train(*asked, "--out", str(killed), "--resume") == 0
    assert differs(whole, killed) == ""
    assert "A_REPLAY" not in (killed / "events.jsonl").read_text()


def test_cartpole_is_learned(tmp_path: Path) -> None:
    """From about 20 steps upright to several times as many, in 15 of the preset's 100 steps."""
    assert (
        train("ppo", "--env", "CartPole-v1", "--steps", "15", "--eval-size", "10", "--out", str(tmp_path / "run")) == 0
    )
    rows = [json.loads(line) for line in (tmp_path / "run" / "metrics.jsonl").read_text().splitlines()]
    assert rows[0]["reward"] < 30 and rows[-1]["eval/reward"] > 100
    assert rows[0]["reward"] == rows[0]["episode_return/mean"] == rows[0]["episode_length/mean"]
    assert all(row["environment_steps"] == 1024 for row in rows)


def test_a_method_without_a_critic_makes_one_update_of_whole_episodes(tmp_path: Path) -> None:
    asked = ("--steps", "3", "--envs", "2", "--steps-per-env", "10", "--hidden", "8", "--eval-size", "2")
    assert train("reinforce", "--env", "CartPole-v1", *asked, "--out", str(tmp_path / "run")) == 0
    rows = [json.loads(line) for line in (tmp_path / "run" / "metrics.jsonl").read_text().splitlines()]
    assert all(row["environment_steps"] > 20 and row["optimizer_steps"] == 1 for row in rows)


def test_a_trust_region_holds_in_every_step_of_an_agent(tmp_path: Path) -> None:
    asked = ("trpo", "--env", "CartPole-v1", "--steps", "12", "--eval-size", "2")
    assert train(*asked, "--out", str(tmp_path / "run")) == 0
    rows = [json.loads(line) for line in (tmp_path / "run" / "metrics.jsonl").read_text().splitlines()]
    assert len(rows) == 12 and all(0 <= row["trust/kl"] <= 0.01 for row in rows)
    assert sum(row["trust/accepted"] for row in rows) > 6 and rows[-1]["reward"] > 1.2 * rows[0]["reward"]


def test_rollouts_are_the_episodes_that_ended_and_can_be_played_again(tmp_path: Path) -> None:
    """The seed and the actions of a row give its length, its return and its end once more."""
    out = tmp_path / "run"
    assert train("ppo", "--env", "CartPole-v1", *SMALL, "--out", str(out)) == 0
    record, env, count = read_run(out), gymnasium.make("CartPole-v1"), 0
    for step, row in enumerate(record.metrics):
        rows = record.rows("rollouts", step) if row.get("episodes") else []
        assert len(rows) == row.get("episodes", 0)
        count += len(rows)
        for number, one in enumerate(rows):
            env.reset(seed=int(one["prompt"].rpartition(" ")[2]))
            *before, last = [env.step(int(action)) for action in one["completion"].split()]
            assert one["reward"] == one["length"] == len(before) + 1
            assert not any(over or cut for _, _, over, cut, _ in before) and (last[2] or last[3])
            assert one["stop"] == ("environment" if last[2] else "turns")
            assert (one["group"], one["sample"], one["kept"]) == (number, 0, True)
            changes = [tuple(map(int, change.split(":"))) for change in one["changes"].split()]
            versions = [one["version"], *(version for _, version in changes)]
            assert versions == list(range(one["version"], step + 1)), "each step of the loop has a policy of its own"
            places = [place for place, _ in changes]
            assert all(later - place == 40 for place, later in pairwise(places)) and all(
                0 < at < 41 for at in places[:1]
            )
    assert count > 6


def test_an_episode_of_vectors_is_played_again_from_its_text(tmp_path: Path) -> None:
    """Pendulum tells rounded torques apart: with three digits the return is another."""
    out = tmp_path / "run"
    asked = ("--steps-per-env", "200", "--steps", "2", "--seed", "7")
    assert train("ppo", "--env", "Pendulum-v1", *SMALL, *asked, "--out", str(out)) == 0
    record, env = read_run(out), gymnasium.make("Pendulum-v1")
    rows = [one for step in range(2) for one in record.rows("rollouts", step)]
    assert len(rows) == 4

    def again(one: dict, digits: int = 9) -> float:
        env.reset(seed=int(one["prompt"].rpartition(" ")[2]))
        words = [np.array([f"{float(word[1:-1]):.{digits}g}"], np.float32) for word in one["completion"].split()]
        return sum(float(env.step(word)[1]) for word in words)

    for one in rows:
        assert one["length"] == len(one["completion"].split()) == 200
        assert again(one) == pytest.approx(one["reward"], rel=1e-6)
    assert any(again(one, 3) != pytest.approx(one["reward"], rel=1e-5) for one in rows), "else nothing is shown"


def test_the_lab_shows_an_agents_run(tmp_path: Path) -> None:
    out = tmp_path / "run"
    asked = ("trpo", "--env", "Pendulum-v1", *SMALL[2:], "--steps", "6", "--minibatch", "0", "--epochs", "1")
    assert train(*asked, "--steps-per-env", "100", "--out", str(out)) == 0
    run = OwnRun(Folder(out))
    assert run.line().model == "Pendulum-v1"
    lights = {light["name"]: light for light in health(run)["lights"]}
    assert 0 < lights["step size"]["value"] <= 0.01
    step = run.steps("rollouts")[0]
    (first, second) = rollouts(run, step)["rows"]
    assert first["length"] == second["length"] == 200 and first["stop"] == "turns"
    assert first["completion"].startswith("[") and first["prompt"].startswith("Pendulum-v1: environment 0, episode 0, ")
    assert rollout(run, step, 0)["completion"].count("[") == 200


def test_what_a_run_leaves_can_act(tmp_path: Path) -> None:
    """`final/` has the normalisation in it: a policy is worth nothing without what it sees."""
    out = tmp_path / "run"
    assert train("ppo", "--env", "Pendulum-v1", *SMALL, "--normalize", "observations", "--out", str(out)) == 0
    player = load_player(out / "final")
    env = gymnasium.make("Pendulum-v1")
    action = player.act(env.reset(seed=0)[0][None])
    assert env.action_space.contains(action[0])
    assert player.normalized.state()["count"] > 6 * 80
    config = tomllib.loads((out / "config.toml").read_text())
    assert config["normalize"] == ["observations"] and "advantage.gamma=0.9" in config["set"]
    assert command(["report", str(out)]) == 0 and (out / "report.html").stat().st_size > 0
    with pytest.raises(CheckpointError, match="holds no agent"):
        load_player(out / "checkpoints")


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (("ppo", "--env", "CartPol-v1"), "Did you mean CartPole-v1"),
        (("ppo", "--env", "CartPole-v9"), "Did you mean CartPole-v1"),
        (("ppo", "--env", "nowhere:CartPole-v1"), "--env nowhere:CartPole-v1"),
        (("ppo", "--env", "CartPole-v1", "--data", "task:addition"), "--data is for language"),
        (("ppo", "--env", "CartPole-v1", "--ranks", "2"), "--ranks is for language"),
        (("ppo", "--envs", "4"), "--envs is for agents"),
        (("grpo", "--env", "CartPole-v1"), "grpo compares several answers"),
        (("dpo", "--env", "CartPole-v1"), "dpo learns from preferences"),
        (("ppo", "--env", "CartPole-v1", "--hidden", "0"), "--hidden 0"),
        (
            ("reinforce", "--env", "CartPole-v1", "--minibatch", "8", "--schedule", "linear"),
            "--minibatch 8 --schedule linear",
        ),
        (("ppo", "--env", "CartPole-v1", "--set", "kl.coef=0.1"), "--set kl.coef=0.1"),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, tuple) else "",
)
def test_what_cannot_be_is_refused_with_a_way_out(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], words: tuple[str, ...], said: str
) -> None:
    assert train(*words, "--out", str(tmp_path / "run")) == 2
    assert said in capsys.readouterr().err
    assert not (tmp_path / "run" / "metrics.jsonl").exists() or not (tmp_path / "run" / "metrics.jsonl").read_text()


@pytest.mark.parametrize(
    ("env", "code", "said"),
    [
        ("Torn-v0", 2, "--env Torn-v0 failed in its constructor ("),
        ("Asleep-v0", 2, "--env Asleep-v0 failed in reset ("),
        ("Broken-v0", 1, "--env Broken-v0 gave the reward nan. Fix: in the environment, a finite number"),
        ("Stuck-v0", 1, "toy_environments.py"),
        ("Mixed-v0", 2, "--env Mixed-v0 shows Dict("),
        ("Pictures-v0", 2, "--env Pictures-v0 shows Box(0, 255, (8, 8, 3), uint8): a perceptron reads vectors"),
    ],
)
def test_an_environment_that_fails_is_one_message(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], env: str, code: int, said: str
) -> None:
    """What can be told before training is bad input; what happens in it ends the run."""
    assert train("ppo", "--env", env, *SMALL, "--out", str(tmp_path / "run")) == code
    told = capsys.readouterr().err
    assert said in told and "Traceback" not in told and "Fix: " in told
    assert not (tmp_path / "run" / "final").exists()


def test_without_gymnasium_the_extra_is_named(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "gymnasium", None)
    assert train("ppo", "--env", "CartPole-v1", "--out", str(tmp_path / "run")) == 2
    assert 'pip install "oneloop[classic]"' in capsys.readouterr().err


def test_other_commands_say_that_they_are_for_language_models(capsys: pytest.CaptureFixture[str]) -> None:
    assert command(["plan", "ppo", "--env", "CartPole-v1"]) == 2
    assert "oneloop plan is for language models" in capsys.readouterr().err


@pytest.mark.parametrize("algorithm", ["ppo", "reinforce", "reinforce_pp"])
@pytest.mark.parametrize("env", [*PRESETS, "Unknown-v0"])
def test_every_preset_makes_an_algorithm(env: str, algorithm: str) -> None:
    run = default_run(algorithm, env)
    value = resolved(run)
    assert value.kl is None and value.needs <= {"values"}
    assert value.advantage.gamma == PRESETS[env].gamma if env in PRESETS else value.advantage.gamma == 0.99


def test_pieces_that_were_chosen_win_over_the_environments() -> None:
    from oneloop.cli.parse import parse_run

    run = parse_run(["ppo", "--env", "CartPole-v1", "--set", "advantage.gamma=0.5", "--envs", "3"], "")
    value = resolved(run)
    assert value.advantage == GAE(0.5, 0.8) and run.envs == 3
    assert run.set[-1] == "advantage.gamma=0.5" and len(run.set) == len(settings("CartPole-v1", "ppo")["set"])


def test_a_value_in_python_keeps_its_pieces(tmp_path: Path) -> None:
    mine = replace(
        PPO, name="mine", kl=None, critic=Critic(1.0, None), target_kl=0.05, advantage=GAE(0.97, 0.9), epochs=2
    )
    small = {"steps": 2, "envs": 2, "steps_per_env": 30, "eval_size": 2, "hidden": (8,)}
    done = oneloop.fit(mine, env="CartPole-v1", out=tmp_path / "run", quiet=True, **small)
    assert done.status == "finished"
    assert "0.97·0.9" in (tmp_path / "run" / "objective.txt").read_text()
    anchored = replace(mine, kl=PPO.kl)
    rows = oneloop.fit(anchored, env="CartPole-v1", out=tmp_path / "anchored", quiet=True, **small).record.metrics
    assert rows[0]["kl"] == 0 and rows[1]["kl"] > 0, "π_ref is the policy at its start"
    with pytest.raises(ConfigError, match="holds an agent"):
        done.policy()
    with pytest.raises(ConfigError, match="no model, data or reward"):
        oneloop.fit(mine, env="CartPole-v1", data="task:addition")
    with pytest.raises(ConfigError, match="which model"):
        oneloop.fit("ppo", data="task:addition")


def test_evaluation_plays_as_many_episodes_in_each_environment(tmp_path: Path) -> None:
    """The first episodes to end would be the short ones. Greedy play of the same seeds comes out the same."""
    from oneloop.classic.evaluation import played

    out = tmp_path / "run"
    assert train("ppo", "--env", "CartPole-v1", *SMALL, "--out", str(out)) == 0
    player = load_player(out / "final")
    first, again = (played(player, 13, 0, stream="any", sampled=False) for _ in range(2))
    assert len(first) == 13 and first == again
    assert np.mean([one.reward.value for one in played(player, 13, 0, stream="any", sampled=True)]) > 0
