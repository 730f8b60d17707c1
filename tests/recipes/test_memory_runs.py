"""Whole runs that hold less: a reference in half precision, idle models away, other optimizers."""

import json
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

from oneloop.config import Run, default_run
from oneloop.errors import ConfigError
from oneloop.model import learner as learners
from oneloop.recipes import build, models
from oneloop.recipes.execute import execute
from poisoned import Poisoned
from toy_models import Silent

REWARD = """
def share(completions, **columns):
    return [sum(character.isdigit() for character in text) / 5 for text in completions]
"""


@pytest.fixture(scope="module")
def start(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A policy, and a reward model made of it."""
    out = tmp_path_factory.mktemp("start")
    sft = replace(default_run("sft"), out=str(out / "sft"), steps=2, prompts_per_step=8, learning_rate=1e-3)
    execute(replace(sft, data="task:addition", data_size=20, eval_size=8), Silent())
    judge = replace(default_run("reward_model"), model=str(out / "sft" / "final"), out=str(out / "judge"), steps=1)
    execute(replace(judge, data="task:addition", prompts_per_step=4, data_size=8, eval_size=4), Silent())
    (out / "digits.py").write_text(REWARD)
    return out


def small(algorithm: str, start: Path, out: Path, **changes) -> Run:
    run = replace(default_run(algorithm), model=str(start / "sft" / "final"), data="task:addition", out=str(out))
    run = replace(run, reward=(f"{start / 'digits.py'}:share",), steps=2, prompts_per_step=4, minibatch=2, epochs=1)
    return replace(run, max_new_tokens=5, learning_rate=1e-3, data_size=10, eval_size=8, eval_every=1, **changes)


def results(out: Path) -> tuple[list[dict[str, float]], bytes]:
    rows = [json.loads(line) for line in (out / "metrics.jsonl").read_text().splitlines()]
    kept = [{k: v for k, v in row.items() if not k.startswith(("time", "tokens_per_second"))} for row in rows]
    return kept, (out / "final" / "model.safetensors").read_bytes()


def test_a_reference_in_half_precision_is_the_start(start, tmp_path, monkeypatch) -> None:
    held = []
    original = models.hold_in
    monkeypatch.setattr(models, "hold_in", lambda *given: held.append(original(*given)) or held[-1])
    watcher = Silent()
    judged = {"reward_model": str(start / "judge" / "final"), "group_size": 3}
    run = small("grpo", start, tmp_path / "run", dtype="bfloat16", **judged)
    execute(replace(run, minibatch=0), watcher)
    assert [{p.dtype for p in model.model.layers.parameters() if p.dim() > 1} for model in held] == 2 * [
        {torch.bfloat16}
    ]
    (checks,) = (line for line in watcher.lines if line.startswith("step 0 checks"))
    assert "log π_θ − log π_ref = 0" in checks
    assert {value.dtype for value in load_file(tmp_path / "run" / "final" / "model.safetensors").values()} == {
        torch.float32
    }
    assert results(tmp_path / "run")[0][0]["kl"] == 0, "before the first update"


def test_a_run_whose_idle_models_are_away_is_the_same_run(start, tmp_path, monkeypatch) -> None:
    """Reference, reward model and critic with its moments: not numbers, whenever nobody may need them."""
    changes = {"critic": "separate", "reward_model": str(start / "judge" / "final"), "save_every": 1}
    watcher = Silent()
    plain = small("ppo", start, tmp_path / "plain", offload_idle=True, **changes)
    execute(plain, watcher)
    assert "--offload-idle changes nothing with --device cpu: models are in its memory already" in watcher.lines
    for place in (build, learners):
        monkeypatch.setattr(place, "Guest", Poisoned)
    for place in (build, models):
        monkeypatch.setattr(place, "offloads", lambda run: True)
    # a checkpoint reads weights wherever they are; these are nowhere while they are away, as evaluation has the critic
    monkeypatch.setattr(learners, "WITHOUT_CRITIC", ("rollout",))
    Poisoned.moves.clear()
    execute(replace(plain, out=str(tmp_path / "away")), Silent())
    assert results(tmp_path / "away") == results(tmp_path / "plain")
    assert Poisoned.moves["come"] > 6 and Poisoned.moves["go"] >= Poisoned.moves["come"]
    critics = [tmp_path / name / "checkpoints" / "step_000002" / "critic" for name in ("plain", "away")]
    assert len({(critic / "model.safetensors").read_bytes() for critic in critics}) == 1


def test_adafactor_trains_and_says_what_its_rate_means(start, tmp_path) -> None:
    watcher = Silent()
    out = execute(replace(small("sft", start, tmp_path / "run", optimizer="adafactor"), reward=()), watcher)
    assert any(
        line.startswith("--optimizer adafactor: a matrix moves by the learning rate times") for line in watcher.lines
    )
    kept = load_file(out / "checkpoints" / "step_000002" / "resume" / "optimizer.safetensors")
    assert {name.rsplit("|", 1)[1] for name in kept} == {"step", "row_var", "col_var", "variance"}
    moments = sum(x.nbytes for x in kept.values())
    assert moments < 0.05 * (out / "final" / "model.safetensors").stat().st_size


def test_without_bitsandbytes_nothing_is_loaded(start, tmp_path, monkeypatch) -> None:
    monkeypatch.setattr("oneloop.model.optimizer.find_spec", lambda name: None)
    with pytest.raises(ConfigError, match="--optimizer adamw-8bit needs bitsandbytes, which is not installed"):
        execute(replace(small("sft", start, tmp_path / "run", optimizer="adamw-8bit"), reward=()), Silent())
    assert not (tmp_path / "run").exists()
