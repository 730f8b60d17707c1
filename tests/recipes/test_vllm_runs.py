"""Whole runs whose completions a server draws: here a stand-in that samples the same language model over HTTP."""

import json
import sys
from dataclasses import replace
from pathlib import Path

import pytest

from oneloop.algorithms import GRPO, RLOO
from oneloop.cli.main import run as command
from oneloop.config import Run, default_run
from oneloop.errors import ConfigError, EngineError
from oneloop.experience import rollouts
from oneloop.objective.correction import TruncatedImportance
from oneloop.recipes.execute import execute
from oneloop.recipes.preflight import place_checks
from oneloop.recipes.resolve import resolved
from oneloop.recipes.sampler import probe_of
from oneloop.record.reader import read_run
from oneloop.seeds import named_seed
from toy_models import Silent
from vllm_stand import fake_python


def small(out: Path, **changes) -> Run:
    run = replace(default_run("grpo"), model="scratch:tiny", data="task:addition", out=str(out), steps=2)
    run = replace(run, prompts_per_step=2, group_size=3, data_size=12, eval_size=4, learning_rate=1e-2)
    return replace(run, max_new_tokens=4, **{"engine": "vllm", **changes})


@pytest.fixture
def python(tmp_path, monkeypatch) -> str:
    monkeypatch.setenv("FAKE_MODEL", "whole")
    return fake_python(tmp_path)


def test_a_run_learns_from_a_server_that_follows_its_weights(python, tmp_path, monkeypatch) -> None:
    """Weights move far in a step here, and yet the server's log-probs are the trainer's: they arrived."""
    monkeypatch.chdir(tmp_path)  # the server runs elsewhere
    (tmp_path / "codes.py").write_text("def codes(completions, **rest): return [sum(map(ord, c)) for c in completions]")
    run = small(tmp_path / "run", vllm_python="./python", save_every=1, reward=(f"{tmp_path}/codes.py:codes",))
    out = execute(replace(run, eval_every=2), Silent())
    text = (out / "objective.txt").read_text(encoding="utf-8")
    assert "correction     × min(π_old(aₜ|sₜ)/μ(aₜ|sₜ), 2)" in text and "sampler        vLLM with a copy" in text
    execute(replace(run, eval_every=2, steps=3, resume=True), Silent())  # gives its server the checkpoint's weights
    steps = read_run(out).metrics
    assert len(steps) == 3 and all(step["grad_norm"] > 0.1 for step in steps)
    assert all(0 < step["rollout/logprob_gap/max"] < 1e-4 for step in steps)


def test_a_server_that_fails_for_good_ends_the_run_with_its_error(tmp_path, monkeypatch) -> None:
    monkeypatch.setenv("FAKE_FAULT", "/health:die:0:")
    with pytest.raises(EngineError, match="exit code 9"):
        execute(small(tmp_path / "run", vllm_python=fake_python(tmp_path)), Silent())
    events = [json.loads(line) for line in (tmp_path / "run" / "events.jsonl").read_text().splitlines()]
    assert [event["code"] for event in events] == ["A_ENGINE"] and "It is started again" in events[0]["text"]
    assert json.loads((tmp_path / "run" / "run.json").read_text())["status"] == "failed"


def test_a_server_draws_the_next_step_while_this_one_is_trained_on(python, tmp_path) -> None:
    """Drained before each update: every completion is of the weights of one step before."""
    out = execute(small(tmp_path / "run", vllm_python=python, staleness=1, steps=3), Silent())
    record = read_run(out)
    assert [{row["version"] for row in record.rollouts(step)} for step in range(3)] == [{0}, {0}, {1}]
    assert [step["rollout/staleness"] for step in record.metrics] == [0, 1, 1]
    text = (out / "objective.txt").read_text(encoding="utf-8")
    assert (
        "sampler        vLLM with a copy" in text and "; beside the training, from weights at most 1 steps old" in text
    )


def test_completions_go_on_across_an_update(python, tmp_path, monkeypatch) -> None:
    """Each of a later step waits after its first token for the update that its step begins with."""

    def seed(run: int, step: int, *parts) -> int:
        return named_seed(run, step, *parts) // 10**8 * 10**7 + 9_999_990 + step

    monkeypatch.setattr(rollouts, "named_seed", seed)
    monkeypatch.setenv("FAKE_HOLD", "9999991,9999992")
    run = small(tmp_path / "run", vllm_python=python, staleness=1, steps=3, in_flight="continue")
    out = execute(run, Silent())
    record = read_run(out)
    for step in range(3):
        rows = record.rollouts(step)
        assert len(rows) == 6 and {row["version"] for row in rows} == {max(step - 1, 0)}
        assert {row["changes"] for row in rows if row["length"] > 1} == {f"1:{step}" if step else ""}
    assert [step["rollout/staleness/max"] for step in record.metrics] == [0, 1, 1]
    assert all(0 < step["rollout/staleness"] < 0.5 for step in record.metrics[1:]), "all but the first tokens are new"
    assert not (out / "arrivals").exists(), "nothing there could be done again"
    text = (out / "objective.txt").read_text(encoding="utf-8")
    assert "sampler        vLLM with a copy" in text and "go on with the new weights" in text


def test_what_cannot_sample_is_refused_before_anything_is_loaded(tmp_path, capsys) -> None:
    flags = ["--model", "scratch:tiny", "--data", "task:addition", "--out", str(tmp_path / "run")]
    wrong = {
        "grpo --engine vllm --vllm-python /nowhere": "--vllm-python /nowhere cannot be run",
        f"grpo --engine vllm --vllm-python {sys.executable}": "vLLM is not installed there. Fix:",
        "sft --engine vllm": "--engine vllm: sft draws no samples. Fix: leave it out",
    }
    for words, says in wrong.items():
        assert command(["train", *words.split(), *flags]) == 2
        assert says in capsys.readouterr().err
    assert not (tmp_path / "run").exists()
    with pytest.raises(ConfigError, match="--engine sglang: wanted builtin, vllm or http://HOST:PORT"):
        small(tmp_path, engine="sglang")
    with pytest.raises(ConfigError, match=r"--vllm-python x with --engine builtin\. Fix: --engine vllm"):
        small(tmp_path, engine="builtin", vllm_python="x")


def test_a_server_of_one_machine_is_refused_to_ranks_of_several(python, tmp_path, monkeypatch) -> None:
    for name, value in {"WORLD_SIZE": "4", "RANK": "3", "LOCAL_RANK": "1"}.items():
        monkeypatch.setenv(name, value)
    ours, theirs = (small(tmp_path, engine=engine) for engine in ("vllm", "http://node0:8000"))
    ours = replace(ours, vllm_python=python)
    for here, run in (("2", theirs), ("4", ours)):
        monkeypatch.setenv("LOCAL_WORLD_SIZE", here)
        for check in place_checks(run, "prompts"):
            check()
    monkeypatch.setenv("LOCAL_WORLD_SIZE", "2")
    with pytest.raises(ConfigError, match=r"ranks on several machines.*Fix: start one that all of them reach, and"):
        for check in place_checks(ours, "prompts"):
            check()


def test_the_correction_comes_with_a_sampler_that_is_not_the_trainer() -> None:
    run = default_run("grpo")
    assert resolved(run) == GRPO, "the same modules in float32: nothing to correct"
    for changes in ({"engine": "vllm"}, {"engine": "http://localhost:8000"}, {"dtype": "bfloat16"}):
        assert resolved(replace(run, **changes)) == replace(GRPO, correction=TruncatedImportance(2.0))
    rloo = resolved(replace(default_run("rloo"), engine="vllm"))
    assert rloo == replace(RLOO, correction=TruncatedImportance(2.0))
    assert resolved(replace(run, engine="vllm", set=("correction=none",))).correction is None
    mine = replace(GRPO, correction=TruncatedImportance(1.5))
    assert resolved(replace(run, engine="vllm"), mine).correction == TruncatedImportance(1.5)
    assert resolved(replace(default_run("sft"), dtype="bfloat16")).correction is None, "nothing is sampled"


def test_explain_tells_of_a_recipe_what_samples(tmp_path, capsys) -> None:
    recipe = tmp_path / "run.toml"
    for engine, says in (("vllm", "vLLM with a copy of the weights"), ("http://h:1", "http://h:1: weights are sent")):
        recipe.write_text(f'algorithm = "grpo"\nengine = "{engine}"\n', encoding="utf-8")
        assert command(["explain", str(recipe)]) == 0
        text = capsys.readouterr().out
        assert f"sampler        {says}" in text and "correction     × min(" in text


def test_the_probe_is_longer_than_a_block_of_the_cache_and_fits() -> None:
    assert len(probe_of([5, 6, 7], 512)) == 160 and probe_of([5, 6, 7], 512)[:4] == [5, 6, 7, 5]
    assert len(probe_of([5, 6, 7], None)) == 160 and len(probe_of([5, 6, 7], 64)) == 48
