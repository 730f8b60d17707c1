"""Whole runs with --compile: plain names in every file, resumed bit for bit, and refused where nothing can compile."""

from dataclasses import replace
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file
from torch._dynamo.utils import counters
from transformers import AutoModelForCausalLM

from oneloop.cli.main import run as command
from oneloop.config import Run, default_run
from oneloop.forward import compiled
from oneloop.model.load import load_policy
from oneloop.recipes import build, models
from oneloop.recipes.execute import execute
from oneloop.record.reader import read_run
from toy_models import Silent

# torch warns itself while it traces what it compiles; as errors, these would end the tracing
pytestmark = [pytest.mark.filterwarnings(f"ignore::{kind}") for kind in ("DeprecationWarning", "UserWarning")]

REWARD = """
def share(completions, **columns):
    return [sum(character.islower() for character in text) / 5 for text in completions]
"""


@pytest.fixture
def eager(monkeypatch: pytest.MonkeyPatch) -> None:
    """Traced like any other, run without a compiler of C++."""
    torch._dynamo.reset()
    monkeypatch.setattr(models, "INDUCTOR", "eager")
    monkeypatch.setattr(compiled, "INDUCTOR", "eager")


def small(out: Path, **changes) -> Run:
    (out.parent / "lower.py").write_text(REWARD)  # graded, so that weights move from the first step on
    run = replace(default_run("ppo"), data="task:addition", out=str(out), steps=4, prompts_per_step=4, group_size=2)
    run = replace(run, reward=(f"{out.parent / 'lower.py'}:share",))
    run = replace(run, compile=True, max_new_tokens=5, learning_rate=1e-3, data_size=12, eval_size=4, save_every=2)
    return replace(run, **changes)


def numbers(out: Path) -> list[dict[str, float]]:
    """Of training; a run is evaluated at its end, which differs here."""
    others = ("time", "tokens_per", "eval/")
    return [{name: x for name, x in row.items() if not name.startswith(others)} for row in read_run(out).metrics]


def test_a_run_is_that_without_and_resumes_bit_for_bit(eager: None, tmp_path: Path) -> None:
    watcher = Silent()
    before = counters["stats"]["unique_graphs"]
    whole = execute(small(tmp_path / "whole"), watcher)
    assert counters["stats"]["unique_graphs"] >= before + 1 + 8  # something small, and a layer's parts both ways
    assert any(line.startswith("--compile: layers tried out and compiled in ") for line in watcher.lines)
    assert any("ratio − 1 = " in line for line in watcher.lines)
    half = small(tmp_path / "half", steps=2)
    execute(half, Silent())
    execute(replace(half, steps=4, resume=True), Silent())
    ours, theirs = (load_file(out / "final" / "model.safetensors") for out in (tmp_path / "half", whole))
    assert numbers(tmp_path / "half") == numbers(whole) and len(numbers(whole)) == 4
    assert all(torch.equal(ours[name], theirs[name]) for name in theirs)
    # another execution of the same weights: the same tokens, and numbers within rounding
    plain = execute(small(tmp_path / "plain", compile=False), Silent())
    without = load_file(plain / "final" / "model.safetensors")
    start = load_policy("scratch:tiny").state_dict()
    assert theirs.keys() == without.keys() == start.keys()
    assert max(float((theirs[name] - value).abs().max()) for name, value in start.items()) > 1e-3
    for name, value in without.items():
        torch.testing.assert_close(theirs[name], value, rtol=1e-3, atol=1e-4)
    assert "compile = true" in (whole / "config.toml").read_text()
    model = AutoModelForCausalLM.from_pretrained(whole / "final")
    assert set(model.state_dict()) == without.keys()
    for file in whole.rglob("*.safetensors"):
        assert not any("_orig_mod" in name for name in load_file(file)), file


def test_it_may_change_on_resume(eager: None, tmp_path: Path) -> None:
    """As --device may, of which last bits depend too: a run goes on where there is no compiler."""
    run = small(tmp_path / "run", steps=2)
    execute(run, Silent())
    execute(replace(run, steps=3, resume=True, compile=False), Silent())
    assert len(numbers(tmp_path / "run")) == 3


def test_adapters_are_saved_under_the_names_of_peft(eager: None, tmp_path: Path) -> None:
    pytest.importorskip("peft")
    start = execute(replace(default_run("sft"), data="task:addition", out=str(tmp_path / "start"), steps=1,
                            prompts_per_step=4, data_size=8, eval_size=4), Silent())  # fmt: skip
    names = []
    for on in (False, True):
        out = tmp_path / str(on)
        run = replace(default_run("sft"), data="task:addition", steps=1, prompts_per_step=4, data_size=8, eval_size=4)
        execute(replace(run, model=str(start / "final"), out=str(out), lora=2, compile=on), Silent())
        names.append(load_file(out / "adapter" / "adapter_model.safetensors").keys())
    assert names[0] == names[1]
    assert all(name.startswith("base_model.model.model.layers.") for name in names[1])


@pytest.mark.parametrize("verb", ["train", "check"])
def test_no_compiler_is_told_before_anything_is_loaded(verb: str, tmp_path: Path, capsys, monkeypatch) -> None:
    import torch._inductor.config as inductor

    monkeypatch.setattr(build, "load_policy", None)
    with inductor.patch({"cpp.cxx": (None, "/nowhere/g++")}):
        code = command([verb, "sft", "--data", "task:addition", "--compile", "--out", str(tmp_path / "run")])
    told = capsys.readouterr()
    assert code == 2 and "Fix: install g++" in told.out + told.err
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize("verb", ["eval", "sample"])
def test_verbs_that_do_not_train_have_no_such_flag(verb: str, capsys) -> None:
    assert command([verb, "--compile"]) == 2
    assert "--compile" in capsys.readouterr().err


def test_a_model_without_layers_is_refused(monkeypatch, eager: None, tmp_path: Path) -> None:
    from oneloop.errors import ConfigError

    monkeypatch.setattr(models, "layers_of", lambda model: [])
    with pytest.raises(ConfigError, match="marks no layers in LlamaForCausalLM that could be compiled one by one"):
        execute(small(tmp_path / "run"), Silent())
