"""Nothing that was trained is lost without a word: failures save, and --resume refuses what it cannot go on with."""

import json
import shutil
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from transformers import AutoModelForCausalLM

from oneloop.cli.main import run as command
from oneloop.config import Run, default_run
from oneloop.errors import ConfigError, DivergedError, OneloopError, RewardError
from oneloop.model.learner import Learner
from oneloop.recipes import machine
from oneloop.recipes.execute import execute
from oneloop.record.writer import RunFolder
from toy_models import Silent

REWARD = """
from pathlib import Path
def share(completions, **columns):
    if (Path(__file__).parent / "broken").exists() and len(list(Path({out!r}).glob("rollouts/*"))) == {step}:
        raise ZeroDivisionError("the grader's server is down")
    return [sum(c.isdigit() for c in text) / 5 for text in completions]
"""


def small(out: Path, **changes) -> Run:
    run = replace(default_run("grpo"), data="task:addition", out=str(out), steps=4, prompts_per_step=4, group_size=3,
                  max_new_tokens=5, learning_rate=1e-3, data_size=10, eval_size=4, schedule="cosine")  # fmt: skip
    return replace(run, **changes)


def metrics(out: Path) -> list[dict]:
    rows = [json.loads(line) for line in (out / "metrics.jsonl").read_text().splitlines()]
    return [{k: v for k, v in row.items() if not k.startswith(("time", "tokens_per_second"))} for row in rows]


def weights(out: Path) -> bytes:
    return (out / "final" / "model.safetensors").read_bytes()


def grader(tmp_path: Path, out: Path, step: int) -> str:
    """Fails in `step` for as long as a file "broken" lies beside it."""
    (tmp_path / "grader.py").write_text(REWARD.format(out=str(out), step=step))
    return f"{tmp_path / 'grader.py'}:share"


@pytest.mark.parametrize(
    "changes", [{}, {"minibatch": 2}, {"set": ("kl.adaptive=AdaptiveKL(target=0.01, horizon=9)",)}]
)
def test_a_reward_that_fails_in_the_last_step_loses_nothing(tmp_path, changes) -> None:
    """With the default --save-every 0; and the run that goes on is the one that never failed."""
    out = tmp_path / "run"
    run = small(out, reward=(grader(tmp_path, out, 3),), **changes)
    (tmp_path / "broken").touch()
    with pytest.raises(RewardError, match="server is down") as failure:
        execute(run, Silent())
    saved = out / "checkpoints" / "step_000003"
    assert f"3 finished steps are saved in {saved}" in failure.value.__notes__[0]
    info = json.loads((out / "run.json").read_text())
    assert info["status"] == "failed" and str(saved) in info["failure"] and info["checkpoint"] == 3
    (tmp_path / "broken").unlink()
    execute(replace(run, resume=True), Silent())
    whole = tmp_path / "whole"
    execute(replace(run, out=str(whole)), Silent())
    assert metrics(out) == metrics(whole) and weights(out) == weights(whole)


def test_the_command_says_where_it_is_and_ends_with_1(tmp_path, capsys) -> None:
    out = tmp_path / "run"
    (tmp_path / "broken").touch()
    line = ["train", "grpo", "--data", "task:addition", "--out", str(out), "--steps", "2", "--prompts-per-step", "2"]
    line += ["--max-new-tokens", "4", "--data-size", "8", "--eval-size", "4", "--reward", grader(tmp_path, out, 1)]
    assert command(line) == 1
    said = capsys.readouterr().err
    assert "server is down" in said and f"saved in {out / 'checkpoints' / 'step_000001'}" in said and "--resume" in said


def test_a_failure_amid_a_step_keeps_the_weights_as_a_model(tmp_path, monkeypatch) -> None:
    step, calls = Learner.step, []

    def failing(self):
        calls.append(self)
        if len(calls) == 4:  # two updates a step: the second of step 1
            raise RuntimeError("out of memory")
        return step(self)

    monkeypatch.setattr(Learner, "step", failing)
    with pytest.raises(RuntimeError, match="out of memory") as failure:
        execute(small(tmp_path / "run", minibatch=2), Silent())
    assert (
        f"the weights after 3 updates, amid step 1, are in {tmp_path / 'run' / 'unfinished'}"
        in failure.value.__notes__[0]
    )
    kept = AutoModelForCausalLM.from_pretrained(tmp_path / "run" / "unfinished").lm_head.weight
    assert torch.equal(kept, calls[0].model.lm_head.weight)
    assert not (tmp_path / "run" / "checkpoints").exists(), "no step ends with these weights"


def test_a_run_that_diverges_goes_on_from_before_the_first_bad_gradient(tmp_path, monkeypatch) -> None:
    forward, bad = Learner._forward, []

    def poisoned(self, batch, entropy):
        out = forward(self, batch, entropy)
        return out._replace(logprobs=out.logprobs * float("nan")) if bad else out

    monkeypatch.setattr(Learner, "_forward", poisoned)

    class Poisoner(Silent):
        def step(self, step, values):
            bad.append(step)

    with pytest.raises(DivergedError) as failure:
        execute(small(tmp_path / "run", steps=9, minibatch=1), Poisoner())
    assert "3 finished steps are saved" in failure.value.__notes__[-1], "two were skipped, and are over"
    state = json.loads((tmp_path / "run" / "checkpoints" / "step_000003" / "resume" / "state.json").read_text())
    assert state["learner"]["skipped_in_a_row"] == 2, "the count of a step that is done again"


def test_a_failure_before_anything_was_trained_saves_nothing(tmp_path) -> None:
    out = tmp_path / "run"
    (tmp_path / "broken").touch()
    with pytest.raises(RewardError) as failure:
        execute(small(out, reward=(grader(tmp_path, out, 0),)), Silent())
    assert not getattr(failure.value, "__notes__", ()) and not (out / "checkpoints").exists()


def test_what_failed_first_is_told_when_saving_fails_too(tmp_path, monkeypatch) -> None:
    out = tmp_path / "run"
    (tmp_path / "broken").touch()

    def full(*_):
        raise OSError("no space left")

    monkeypatch.setattr("oneloop.recipes.parts.save_policy", full)
    with pytest.raises(RewardError, match="server is down") as failure:
        execute(small(out, reward=(grader(tmp_path, out, 2),)), Silent())
    assert "could not be saved either: OSError: no space left" in failure.value.__notes__[0]


# ---- --resume


@pytest.fixture(scope="module")
def done(tmp_path_factory) -> Path:
    out = tmp_path_factory.mktemp("done") / "run"
    execute(small(out, save_every=1), Silent())
    return out


def broken(done: Path, tmp_path: Path) -> tuple[Path, Run]:
    out = tmp_path / "run"
    shutil.copytree(done, out)
    return out, small(out, save_every=1, resume=True)


def damage(checkpoint: Path) -> None:
    file = checkpoint / "policy" / "model.safetensors"
    file.write_bytes(b"\x00" + file.read_bytes()[1:])


def test_resume_without_a_usable_checkpoint_is_refused_and_nothing_is_cut(done, tmp_path) -> None:
    out, run = broken(done, tmp_path)
    for checkpoint in (out / "checkpoints").iterdir():
        damage(checkpoint)
    with pytest.raises(
        ConfigError, match=r"had saved step 4, and no checkpoint is whole .*SHA-256.*4 recorded.*--overw"
    ):
        execute(run, Silent())
    shutil.rmtree(out / "checkpoints")
    with pytest.raises(ConfigError, match=r"its checkpoints are gone.*4 recorded steps lost.*--overwrite"):
        execute(run, Silent())
    assert metrics(out) == metrics(done) and len(list((out / "rollouts").iterdir())) == 4
    watcher = Silent()
    execute(replace(run, accept_loss=True), watcher)
    assert any("4 recorded steps are lost" in line for line in watcher.lines) and len(metrics(out)) == 4


def test_resume_without_config_is_refused_whatever_the_seed(done, tmp_path) -> None:
    out, run = broken(done, tmp_path)
    (out / "config.toml").unlink()
    for seed in (0, 1):
        with pytest.raises(
            ConfigError, match=r"config\.toml is missing.*4 recorded steps and 2 checkpoints.*--overwrite"
        ):
            execute(replace(run, seed=seed), Silent())
    assert metrics(out) == metrics(done) and not (out / "config.toml").exists()


def test_overwrite_starts_afresh_and_only_on_a_run(done, tmp_path) -> None:
    out, run = broken(done, tmp_path)
    (out / "config.toml").unlink()
    execute(replace(run, resume=False, overwrite=True, seed=1, steps=2), Silent())
    assert len(metrics(out)) == 2 and sorted(p.name for p in (out / "checkpoints").iterdir())[-1] == "step_000002"
    assert "overwrite = false" in (out / "config.toml").read_text(), "a recipe that deletes nothing"
    other = tmp_path / "other"
    other.mkdir()
    (other / "thesis.txt").touch()
    with pytest.raises(ConfigError, match="holds files, but no run"):
        execute(small(other, overwrite=True), Silent())
    assert (other / "thesis.txt").exists()
    with pytest.raises(ConfigError, match="one of the two"):
        replace(run, overwrite=True)


def test_new_checkpoints_outlive_damaged_ones_with_a_higher_number(done, tmp_path) -> None:
    """What was passed over does not count among the newest that stay."""
    out, run = broken(done, tmp_path)
    execute(replace(run, steps=2, schedule="cosine", out=str(tmp_path / "two"), resume=False), Silent())
    shutil.copytree(out / "checkpoints" / "step_000003", tmp_path / "three")
    damage(out / "checkpoints" / "step_000004")
    shutil.copytree(out / "checkpoints" / "step_000004", out / "checkpoints" / "step_000009")
    watcher = Silent()
    execute(replace(run, keep_checkpoints=1), watcher)
    assert [line[:12] for line in watcher.lines if "falling back" in line] == ["A_CHECKPOINT"] * 2
    assert {p.name for p in (out / "checkpoints").iterdir()} == {"step_000004", "step_000009"}
    assert metrics(out) == metrics(done) and weights(out) == weights(done)


def test_no_more_checkpoints_go_than_are_too_many(tmp_path) -> None:
    out = tmp_path / "run"
    execute(small(out, save_every=1, keep_checkpoints=5), Silent())
    assert len(list((out / "checkpoints").iterdir())) == 4


def test_another_machine_is_told_and_goes_on(tmp_path, monkeypatch) -> None:
    out = tmp_path / "run"
    run = small(out, save_every=2)

    class Dies(Silent):
        def step(self, step, values):
            if step == 3:
                raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        execute(run, Dies())
    here = json.loads((out / "run.json").read_text())["machine"]
    assert here["cpu"] and here["cpu_capability"] == torch.backends.cpu.get_cpu_capability() and here["threads"] == 1
    monkeypatch.setattr(machine, "_cpu_model", lambda: "another CPU")
    watcher = Silent()
    execute(replace(run, resume=True), watcher)
    (told,) = [line for line in watcher.lines if "A_MACHINE" in line]
    assert (
        f"cpu {here['cpu']} → another CPU" in told and "may be others" in told and "threads" not in told.split(")")[0]
    )
    codes = [json.loads(line)["code"] for line in (out / "events.jsonl").read_text().splitlines()]
    assert codes.count("A_MACHINE") == 1
    again = Silent()
    execute(replace(run, resume=True), again)
    assert not any("A_MACHINE" in line for line in again.lines), "the same machine now"


def test_a_kill_before_the_first_checkpoint_says_what_is_lost(tmp_path) -> None:
    """And starts again where that is accepted."""

    class Dies(Silent):
        def step(self, step, values):
            if step == 1:
                raise KeyboardInterrupt

    run = small(tmp_path / "run")
    with pytest.raises(KeyboardInterrupt):
        execute(run, Dies())
    with pytest.raises(ConfigError, match=r"had finished 2 steps, and it was ended before.*2 recorded.*--accept-loss"):
        execute(replace(run, resume=True), Silent())
    watcher = Silent()
    execute(replace(run, resume=True, accept_loss=True), watcher)
    assert any("2 recorded steps are lost" in line for line in watcher.lines)
    assert len(metrics(tmp_path / "run")) == 4
    assert "accept_loss = false" in (tmp_path / "run" / "config.toml").read_text()


# ---- step 0


@pytest.mark.parametrize(("temperature", "dtype"), [(1.0, "float32"), (0.7, "float32"), (1.0, "bfloat16")])
def test_step_zero_compares_trainer_and_sampler(tmp_path, temperature, dtype) -> None:
    watcher = Silent()
    execute(small(tmp_path / "run", steps=1, temperature=temperature, dtype=dtype), watcher)
    (line,) = [line for line in watcher.lines if line.startswith("step 0 checks")]
    off = float(line.split("ratio − 1 = ")[1].split(",")[0])
    assert 0 < off < (1e-4 if dtype == "float32" else 0.5), "two ways to compute one number"


def test_step_zero_sees_a_sampler_with_other_weights(tmp_path, monkeypatch) -> None:
    from oneloop.rollout.engine import Engine

    generate = Engine.generate

    def other(self, prompts, sampling, seeds, finished=lambda index, completion: None):
        return generate(self, prompts, replace(sampling, temperature=0.5), seeds, finished)

    monkeypatch.setattr(Engine, "generate", other)
    with pytest.raises(OneloopError, match=r"step 0: ratio − 1 is .* and must be 0"):
        execute(small(tmp_path / "run", steps=1), Silent())


def test_step_zero_moves_nothing_in_the_run(tmp_path, monkeypatch) -> None:
    execute(small(tmp_path / "with", steps=2), Silent())
    monkeypatch.setattr("oneloop.recipes.execute.step_zero", lambda *_: "")
    execute(small(tmp_path / "without", steps=2), Silent())
    assert metrics(tmp_path / "with") == metrics(tmp_path / "without")
    assert weights(tmp_path / "with") == weights(tmp_path / "without")


def test_saved_is_in_run_json_before_older_checkpoints_go(tmp_path) -> None:
    out = tmp_path / "run"
    with RunFolder.open(out, resume=False, config_text="", facts={}) as folder:
        assert folder.checkpoint == 0
        folder.saved(7)
    with RunFolder.open(out, resume=True, config_text="", facts={}) as folder:
        assert folder.checkpoint == 7
