"""The public contract of runs: what a run folder holds, what the command line takes, how rewards are written."""

import json
import signal
import tomllib
from dataclasses import replace

import pytest
from pyarrow import parquet
from transformers import AutoModelForCausalLM

from oneloop.cli.main import COMMANDS, run
from oneloop.cli.parse import parse_run
from oneloop.config import default_run
from oneloop.errors import ConfigError, DataError, GateError, RewardError, Stopped
from oneloop.recipes.execute import execute
from toy_models import Silent

GRADERS = """
def first(completions, **columns):
    return [0.75, 0.5] * (len(completions) // 2)

async def second(completions, answer, **columns):
    return [None, 0.25] * (len(answer) // 2)
"""


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """A run of one step: PPO with rewards of somebody's own, which add up to 0.75 for every answer."""
    home = tmp_path_factory.mktemp("contract")
    (home / "graders.py").write_text(GRADERS)
    (home / "data.jsonl").write_text('{"prompt": "1+1=", "answer": 2}\n{"prompt": "2+1=", "answer": 3}\n')
    reward = (f"{home}/graders.py:first", f"{home}/graders.py:second", "oneloop.rewards.functions:exact_match")
    settings = replace(default_run("ppo"), data=f"{home}/data.jsonl", reward=reward, reward_weights=(1.0, 1.0, 0.0))
    settings = replace(settings, out=f"{home}/run", steps=1, prompts_per_step=2, group_size=2, max_new_tokens=3)
    return execute(settings, Silent())


def test_the_run_folder(folder):
    info = json.loads((folder / "run.json").read_text())
    assert {"status", "versions", "seed", "pid", "heartbeat"} <= set(info) and info["status"] == "finished"
    assert tomllib.loads((folder / "config.toml").read_text())["learning_rate"] == 1e-6  # a default, resolved
    (row,) = [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]
    names = """step time reward reward_std frac_reward_zero_std kl entropy completions/mean_length
        completions/clipped_ratio rewards/first/mean rewards/second/mean rewards/exact_match/mean grad_norm
        learning_rate clip/outside_band clip/gradient_zero ratio/max approx_kl value_loss explained_variance
        time/rollout time/reward time/prepare time/update tokens_per_second"""
    assert not set(names.split()) - set(row)
    assert (row["step"], row["reward"], row["frac_reward_zero_std"]) == (0, 0.75, 1.0)
    assert row["rewards/second/mean"] == 0.25  # of what could be scored: None is not 0
    events = [json.loads(line) for line in (folder / "events.jsonl").read_text().splitlines()]
    assert "A_DEAD" in {event["code"] for event in events} and all(e["text"] and e["fix"] for e in events)
    table = parquet.read_table(folder / "rollouts" / "step_000000.parquet").to_pydict()
    columns = "step prompt completion first second exact_match reward advantage group sample length stop kept"
    assert not set(columns.split()) - set(table) and table["second"] == [None, 0.25, None, 0.25]
    for place in (folder / "final", folder / "checkpoints" / "step_000001" / "policy"):
        assert AutoModelForCausalLM.from_pretrained(place).num_parameters() > 0
    assert list((folder / "checkpoints" / "step_000001" / "critic").iterdir())


def test_the_flags_of_train(tmp_path):
    (tmp_path / "R.toml").write_text("steps = 9\nwarmup = 7\n")
    wanted = dict(
        model="M", data="D", reward=("F.py:f",), eval_data="E", steps=3, out="O", resume=True, prompts_per_step=8,
        group_size=2, minibatch=4, epochs=2, max_new_tokens=5, temperature=0.7, learning_rate=0.1, seed=1,
        save_every=2, eval_every=3, dtype="bfloat16", device="cuda",
    )  # fmt: skip
    flags = {f"--{name.replace('_', '-')}": value for name, value in wanted.items()} | {"--reward": "F.py:f"}
    words = [word for flag, value in flags.items() for word in ([flag] if value is True else [flag, str(value)])]
    parsed = parse_run(["grpo", "--recipe", str(tmp_path / "R.toml"), *words], "")
    assert parsed == replace(default_run("grpo"), warmup=7, **wanted)  # flags over recipe over defaults


def test_the_commands(folder, capsys):
    assert not {"demo", "train", "eval", "sample", "plan", "explain", "diff", "report"} - set(COMMANDS)
    home, model = folder.parent, str(folder / "final")
    for words, said in [
        (["explain", "grpo"], ["ddof 0", "1e-06", "k3", "arXiv:2402.03300"]),
        (["diff", "ppo", "grpo"], ["critic", "GroupRelative"]),
        (
            ["eval", "--model", model, "--data", f"{home}/data.jsonl", "--reward", f"{home}/graders.py:first"],
            ["0.6250"],
        ),
        (["report", str(folder)], ["report.html"]),
    ]:
        assert run(words) == 0, words
        heard = capsys.readouterr().out
        assert all(word in heard for word in said), (words, heard)
    assert run(["sample", "--model", model, "1+1="]) == 0
    assert run(["explain", "grop"]) == run(["nothing"]) == 2


def test_exit_codes():
    assert [kind.exit_code for kind in (RewardError, ConfigError, DataError, GateError)] == [1, 2, 2, 3]
    assert [Stopped("", number).exit_code for number in (signal.SIGINT, signal.SIGTERM)] == [130, 143]
