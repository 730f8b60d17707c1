"""Whole runs with adapters: they learn, everything they save loads, and nothing else has moved."""

from dataclasses import replace
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file
from transformers import AutoModelForCausalLM

from oneloop.cli.main import run as command
from oneloop.config import Run, default_run
from oneloop.errors import ConfigError
from oneloop.model.load import load_policy
from oneloop.recipes.evaluate import Exam, evaluate
from oneloop.recipes.execute import execute
from oneloop.record.reader import read_run
from toy_models import Silent

REWARD = """
def share(completions, **columns):
    return [text.count("7") / 5 for text in completions]
"""


@pytest.fixture(scope="module")
def start(tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("start") / "sft"
    run = replace(default_run("sft"), out=str(out), steps=40, prompts_per_step=16, learning_rate=3e-3, data_size=64)
    execute(replace(run, data="task:addition", eval_size=8), Silent())
    (out / "sevens.py").write_text(REWARD)
    return out


def small(start: Path, out: Path, **changes) -> Run:
    run = replace(default_run("grpo"), model=str(start / "final"), data="task:addition", out=str(out), lora=4)
    run = replace(run, reward=(f"{start / 'sevens.py'}:share",), steps=25, prompts_per_step=8, max_new_tokens=5)
    return replace(run, learning_rate=1e-2, data_size=32, eval_size=16, **changes)


def test_grpo_with_adapters_learns_beside_frozen_weights(start, tmp_path) -> None:
    run, watcher = small(start, tmp_path / "run"), Silent()
    out = execute(run, watcher)
    rewards = read_run(out).series("reward")[1]
    assert sum(rewards[-5:]) / 5 > sum(rewards[:5]) / 5 + 0.3
    assert "models in memory: policy" in watcher.lines
    (note,) = (line for line in watcher.lines if line.startswith("LoRA: "))
    # 3 layers: q, k, v, o 4·4·(96 + 96); gate, up, down 3·4·(96 + 288)
    assert "rank 4, alpha 32; 23,040 of " in note and "the reference is the policy with its adapters off" in note
    assert any("log π_θ − log π_ref = 0" in line for line in watcher.lines)
    # the KL is one to the start: 0 until the first update, and then it grows
    drift = read_run(out).series("kl")[1]
    assert drift[0] == 0 and max(drift) > 0.01
    # what is merged differs from the start in the matrices that have adapters, and nowhere else
    before, after = (load_file(folder / "final" / "model.safetensors") for folder in (start, out))
    assert before.keys() == after.keys()
    moved = {name for name, value in after.items() if not torch.equal(value, before[name])}
    assert moved == {name for name in after if name.endswith("_proj.weight")}


def test_the_merged_model_and_the_adapters_say_the_same(start, tmp_path) -> None:
    out = execute(small(start, tmp_path / "run", steps=4), Silent())
    tokens = torch.tensor([[5, 6, 7, 8]])
    folders = ("final", "adapter", "checkpoints/step_000004/policy")
    with torch.no_grad():
        said = [load_policy(out / name).eval()(input_ids=tokens).logits for name in folders]
        said.append(AutoModelForCausalLM.from_pretrained(out / "final")(input_ids=tokens).logits)
    for other in said[1:]:
        torch.testing.assert_close(other, said[0], rtol=1e-4, atol=1e-4)
    exam = Exam(data="task:addition", size=16, max_new_tokens=5)
    scores = [evaluate(str(out / name), exam).scores for name in ("final", "adapter")]
    assert str(scores[0]) == str(scores[1])
    bytes_of = [sum(path.stat().st_size for path in (out / name).glob("*.safetensors")) for name in folders]
    assert bytes_of[1] == bytes_of[2] < bytes_of[0] / 5


def test_half_precision_runs_and_saves_float32(start, tmp_path) -> None:
    out = execute(small(start, tmp_path / "run", steps=2, dtype="bfloat16"), Silent())
    assert {value.dtype for value in load_file(out / "final" / "model.safetensors").values()} == {torch.float32}


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--lora", "-1"], "--lora is -1; wanted 0 or more"),
        (["--lora", "4", "--lora-alpha", "0"], "--lora-alpha is 0.0; wanted a positive number"),
        (["--lora", "4"], "--lora 4 with --model scratch:tiny: random weights that stay as they are"),
        (["--lora-targets", "q_proj"], "--lora-targets q_proj without --lora. Fix: --lora 16"),
    ],
)
def test_what_cannot_be_is_refused_before_anything_is_loaded(arguments, message, tmp_path, capsys) -> None:
    with pytest.raises(SystemExit, match="2"):
        command(["train", "grpo", "--out", str(tmp_path / "run"), *arguments])
    assert message in " ".join(capsys.readouterr().err.split())
    assert not (tmp_path / "run").exists()


def test_without_peft_nothing_is_loaded(start, tmp_path, monkeypatch) -> None:
    monkeypatch.setattr("oneloop.model.lora.find_spec", lambda name: None)
    with pytest.raises(ConfigError, match="--lora 4 needs peft, which is not installed"):
        execute(small(start, tmp_path / "run"), Silent())
    assert not (tmp_path / "run").exists()


def test_a_wrong_target_is_named_with_those_there_are(start, tmp_path) -> None:
    with pytest.raises(ConfigError, match="--lora-targets query: LlamaForCausalLM has no such linear layer"):
        execute(small(start, tmp_path / "run", lora_targets=("query",)), Silent())
