"""TRPO as a run: the bound in every step, what it cannot go with, and what a checkpoint holds."""

from dataclasses import replace
from pathlib import Path

import pytest
from safetensors.torch import load_file

from oneloop.algorithms import TRPO
from oneloop.cli.main import run as command
from oneloop.config import Run, default_run
from oneloop.errors import ConfigError
from oneloop.plan.bill import Lengths, bill
from oneloop.recipes.execute import execute
from oneloop.recipes.resolve import resolved
from oneloop.record.reader import read_run
from toy_models import Silent

DIGITS = """
def share(completions, **columns):
    return [sum(character.isdigit() for character in text) / 4 for text in completions]
"""


def small(out: Path, algorithm: str = "trpo", **changes) -> Run:
    run = replace(default_run(algorithm), model="scratch:tiny", data="task:addition", out=str(out), steps=2)
    run = replace(run, prompts_per_step=12, data_size=24, eval_size=4, max_new_tokens=4, critic_learning_rate=1e-3)
    return replace(run, **changes)


def test_the_bound_holds_in_every_step_of_a_language_model(tmp_path) -> None:
    """Steps so long that the quadratic model goes too far: some must be shortened, and all keep the bound."""
    (tmp_path / "digits.py").write_text(DIGITS)
    run = small(tmp_path / "run", steps=15, reward=(f"{tmp_path / 'digits.py'}:share",), prompts_per_step=8)
    run = replace(run, set=("region.max_kl=0.1", "region.damping=0.001", "region.critic_steps=2", "kl=none"))
    execute(run, Silent())
    record = read_run(Path(run.out))
    names = ("kl", "accepted", "gain", "backtracks")
    kl, accepted, gain, backtracks = (record.series(f"trust/{name}")[1] for name in names)
    assert len(kl) == 15 and set(accepted) <= {0.0, 1.0}
    assert all((0 < far <= 0.1 and better > 0) if taken else far == better == 0
               for far, better, taken in zip(kl, gain, accepted, strict=True))  # fmt: skip
    assert sum(accepted) >= 10 and sum(backtracks) > 0


def test_the_policy_leaves_no_moments(tmp_path) -> None:
    """The critic's are in the checkpoint, and the bill knows it."""
    run = small(tmp_path / "run", steps=1)
    execute(run, Silent())
    (state,) = (tmp_path / "run").glob("checkpoints/*/resume/optimizer.safetensors")
    assert {name.partition("|")[0] for name in load_file(state)} == {"critic.weight", "critic.bias"}
    lengths = Lengths(prompt=5, answer=4)
    ours, ppo = bill(run, lengths), bill(small(tmp_path, "a2c", learning_rate=1e-3), lengths)
    assert ours.table["policy"]["optimizer"] == 0 < ppo.table["policy"]["optimizer"]
    assert ours.phases[-1].parts["gradients and activations"] > ppo.phases[-1].parts["gradients and activations"]


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"lora": 4, "model": "M"}, r"--lora 4: trpo differentiates the policy twice.* Fix: --lora 0, or ppo"),
        ({"dtype": "bfloat16"}, r"--dtype bfloat16: trpo differentiates .* Fix: --dtype float32"),
        ({"compile": True}, r"--compile: trpo differentiates .* Fix: leave it out"),
        ({"shard": "full"}, r"--shard full: trpo differentiates .* Fix: --shard none"),
        ({"learning_rate": 1e-3}, r"--learning-rate 0.001: trpo has none for the policy.* --set region.max_kl=0.02"),
        ({"epochs": 2}, "epochs is 2, and each would have a trust region of its own"),
    ],
)
def test_what_a_trust_region_cannot_follow_is_refused_before_anything_is_loaded(changes, message, tmp_path) -> None:
    with pytest.raises(ConfigError, match=message):
        resolved(small(tmp_path, **changes))
    assert resolved(small(tmp_path)) == TRPO


def test_a_policy_that_is_too_large_is_refused_with_the_limit(tmp_path) -> None:
    with pytest.raises(ConfigError, match=r"parameters: .* at most 1,000,000. Fix: --model scratch:tiny, or ppo"):
        execute(small(tmp_path / "run", model="scratch:small"), Silent())
    with pytest.raises(ConfigError, match=r"at most 1,000,000"):
        bill(small(tmp_path, model="scratch:small"), Lengths(prompt=4, answer=4))
    assert resolved(small(tmp_path, "a2c", learning_rate=1e-3)).region is None


@pytest.mark.parametrize("name", ["npg", "a2c", "vpg"])
def test_two_steps_from_the_command_line(name: str, tmp_path, capsys) -> None:
    flags = ["--steps", "2", "--prompts-per-step", "4", "--data-size", "8", "--eval-size", "4", "--max-new-tokens", "4"]
    assert command(["train", name, "--data", "task:addition", *flags, "--out", str(tmp_path / "run")]) == 0
    said = capsys.readouterr().out
    models = "policy, shared critic" if name == "vpg" else "policy, reference, shared critic"
    assert f"models in memory: {models}" in said
    record = read_run(tmp_path / "run")
    assert len(record.metrics) == 2 and ("trust/kl" in record.metrics[0]) == (name == "npg")
