"""Whole runs that meet a bad reward, a number that is none, a full memory: what is saved, said, and left as it was."""

import json
import os
import sys
from contextlib import suppress
from dataclasses import replace
from hashlib import sha256
from pathlib import Path

import pytest
import torch
from transformers import AutoModelForCausalLM

import oneloop
from oneloop.cli.main import run as command
from oneloop.config import Run, default_run
from oneloop.errors import ConfigError, DivergedError, OutOfMemory, RewardError
from oneloop.model.learner import Learner
from oneloop.plan.spare import advice
from oneloop.recipes.evaluate import Exam
from oneloop.recipes.execute import execute
from oneloop.recipes.overrides import overridden
from oneloop.record.writer import RunFolder
from toy_models import Silent

SMALL = {
    "model": "scratch:tiny", "data": "task:addition", "steps": 3, "prompts_per_step": 2, "group_size": 2,
    "max_new_tokens": 3, "learning_rate": 1e-3, "data_size": 8, "eval_size": 2, "trace": False,
}  # fmt: skip


def small(algorithm: str, out: Path, **changes) -> Run:
    settings = {name: value for name, value in SMALL.items() if algorithm == "grpo" or name != "group_size"}
    return replace(default_run(algorithm), out=str(out), **(settings | changes))


def digest(model) -> str:
    return sha256(b"".join(p.detach().numpy().tobytes() for p in model.parameters())).hexdigest()


def info(out: Path) -> dict:
    return json.loads((out / "run.json").read_text())


def events(out: Path) -> list[tuple[int, str]]:
    lines = [json.loads(line) for line in (out / "events.jsonl").read_text().splitlines()]
    return [(line["step"], line["code"]) for line in lines]


# ---- rewards


def half(completions, **columns):
    return [float(place % 2) for place in range(len(completions))]


def test_an_evaluation_that_fails_in_the_last_step_loses_nothing(tmp_path: Path) -> None:
    def judge(completions, **columns):
        raise ValueError("the judge is down")

    out = tmp_path / "run"
    with pytest.raises(RewardError, match="the judge is down") as caught:
        oneloop.fit("grpo", reward=half, eval_reward=judge, out=out, quiet=True, **SMALL)
    assert "the evaluation after 3 steps has no result" in caught.value.__notes__[0]
    assert f"3 finished steps are in {out / 'checkpoints' / 'step_000003'}" in caught.value.__notes__[1]
    assert info(out)["status"] == "failed" and len((out / "metrics.jsonl").read_text().splitlines()) == 3
    oneloop.fit("grpo", reward=half, eval_reward=judge, out=out, quiet=True, resume=True, **SMALL)
    assert info(out)["status"] == "finished" and (out / "final" / "model.safetensors").is_file()


@pytest.mark.filterwarnings("ignore:This process .* is multi-threaded")
@pytest.mark.parametrize("early", [True, False])
def test_a_reward_that_tries_to_end_the_trainer(tmp_path: Path, early: bool) -> None:
    calls = []

    def ends(completions, **columns):
        calls.append(os.fork() if len(calls) == 1 else 0)
        if len(calls) > 4:
            os._exit(0)
        return half(completions)

    out, pid = tmp_path / "run", os.getpid()
    with pytest.raises(RewardError, match=r"os\._exit would hold for the trainer too"):
        oneloop.fit(
            "grpo", reward=ends, eval_reward=half, out=out, quiet=True, score_early=early, **(SMALL | {"steps": 9})
        )
    assert os.getpid() == pid and os.waitpid(calls[1], 0)[1] == 0, "the fork has ended by itself"
    assert info(out)["status"] == "failed" and list((out / "checkpoints").iterdir())


@pytest.mark.filterwarnings("ignore:This process .* is multi-threaded")
@pytest.mark.skipif(sys.platform != "linux", reason="who holds a lock is seen by taking it")
def test_a_fork_does_not_keep_the_lock(tmp_path: Path) -> None:
    """As one that a reward function, or anything else, has left behind."""
    (reading, writing), (there, told) = os.pipe(), os.pipe()
    folder = RunFolder.open(tmp_path / "run", resume=False, config_text="", facts={})
    if not (child := os.fork()):
        os.close(writing)
        os.write(told, b"!")
        os.read(reading, 1)  # until the parent has looked
        os._exit(0)
    os.close(reading)
    os.read(there, 1)
    folder.close()
    RunFolder.open(tmp_path / "run", resume=True, config_text="", facts={}).close()
    for descriptor in (writing, there, told):
        os.close(descriptor)
    os.waitpid(child, 0)


def test_rewards_whose_sum_overflows(tmp_path: Path) -> None:
    """Neither fits into float32, so neither is a reward; and nothing is said in the words of a library."""
    out = tmp_path / "run"

    def huge(completions, **columns):
        return [1e308 if place % 2 else -1e308 for place in range(len(completions))]

    with pytest.raises(RewardError, match=r"returned -1e\+308 of type float at index 0; wanted a finite number"):
        oneloop.fit("grpo", reward=huge, out=out, quiet=True, **SMALL)
    with pytest.raises(RewardError, match="the weighted sum of rewards is"):
        oneloop.fit("grpo", reward=(half, 1e39), out=out, quiet=True, **SMALL)


# ---- numbers


def poisoned(monkeypatch, value: float, steps: set[int]) -> list[str]:
    """In those steps the pass has that in its log-probs; returns the weights' hash at the end of each step's passes."""
    forward, step, skip, hashes = Learner._forward, Learner.step, Learner.skip, list[str]()

    def bad(self, batch, entropy):
        out = forward(self, batch, entropy)
        return out._replace(logprobs=out.logprobs * value) if len(hashes) in steps and torch.is_grad_enabled() else out

    def seen(taken, self):
        hashes.append(digest(self.model))
        return taken(self)

    monkeypatch.setattr(Learner, "_forward", bad)
    monkeypatch.setattr(Learner, "step", lambda self: seen(step, self))
    monkeypatch.setattr(Learner, "skip", lambda self: seen(skip, self))
    return hashes


@pytest.mark.parametrize("algorithm", ["grpo", "sft", "dpo"])
def test_a_step_on_what_is_no_number_is_skipped(tmp_path: Path, monkeypatch, algorithm: str) -> None:
    hashes = poisoned(monkeypatch, torch.nan, {1})
    out = execute(small(algorithm, tmp_path / "run", **({"reward": ()} if algorithm != "grpo" else {})), Silent())
    assert hashes[1] == hashes[2]
    assert algorithm == "grpo" or hashes[0] != hashes[1], "equal rewards teach nothing"
    kept = json.loads((out / "skipped" / "step_000001.json").read_text())
    assert (kept["what"], kept["rank"]) == ("logprobs", 0) and kept["rows"][0]["row"] == kept["row"]
    assert kept["rows"][0]["completion"] and (1, "A_UNSOUND") in events(out)


def test_three_in_a_row_stop_it_with_the_weights_from_before(tmp_path: Path, monkeypatch) -> None:
    hashes = poisoned(monkeypatch, torch.inf, {1, 2, 3})
    out = tmp_path / "run"
    with pytest.raises(DivergedError, match="3 optimizer steps in a row") as caught:
        execute(small("sft", out, steps=9), Silent())
    assert "the last one: logprobs of row" in caught.value.__notes__[0] and len(set(hashes[1:])) == 1
    (checkpoint,) = (out / "checkpoints").iterdir()
    assert digest(AutoModelForCausalLM.from_pretrained(checkpoint / "policy")) == hashes[1]
    assert len(list((out / "skipped").iterdir())) == 3


def test_weights_that_the_optimizer_broke_are_not_saved(tmp_path: Path) -> None:
    out = tmp_path / "run"
    with pytest.raises(DivergedError) as caught:
        execute(small("sft", out, steps=9, learning_rate=1e38, optimizer="adamw", save_every=1), Silent())
    assert "holds numbers that are not finite, and is not saved" in str(caught.value) + str(caught.value.__notes__)
    for checkpoint in (out / "checkpoints").glob("*"):
        model = AutoModelForCausalLM.from_pretrained(checkpoint / "policy")
        assert all(bool(torch.isfinite(p).all()) for p in model.parameters())


def test_a_learning_rate_that_ends_learning_is_not_silent(tmp_path: Path) -> None:
    """Whether the gradient is 0 or infinite then depends on the last bits of the first updates."""
    out = tmp_path / "run"
    with suppress(DivergedError):
        execute(small("sft", out, steps=6, learning_rate=1e6), Silent())
        assert {"A_LOST", "A_STILL"} & {code for _, code in events(out)}


@pytest.mark.parametrize("value", ["inf", "nan", "-inf"])
def test_settings_are_numbers(tmp_path: Path, capsys, value: str) -> None:
    for flag in ("--learning-rate", "--temperature", "--weight-decay", "--reward-timeout", "--reward-weights"):
        words = ["train", "grpo", "--data", "task:addition", "--out", str(tmp_path / "run"), f"{flag}={value}"]
        with pytest.raises(SystemExit) as caught:
            command(words)
        assert caught.value.code == 2, flag
        assert f"{flag} is {value}; wanted a finite number" in capsys.readouterr().err
    for change in (f"kl.coef={value}", "kl.coef=1e999", f"surrogate=ClippedRatio(low={value})"):
        with pytest.raises(ConfigError, match="--set"):
            overridden(oneloop.GRPO, [change])
    with pytest.raises(ConfigError, match="--temperature is"):
        Exam(data="task:addition", temperature=float(value))


# ---- memory


def test_memory_that_runs_out_twice_is_told_with_three_settings(tmp_path: Path, monkeypatch, capsys) -> None:
    forward, calls = Learner._forward, []

    def full(self, batch, entropy):
        calls.append(batch)
        if torch.is_grad_enabled() and len(calls) > 4:
            raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 20 GiB.")
        return forward(self, batch, entropy)

    monkeypatch.setattr(Learner, "_forward", full)
    out = tmp_path / "run"
    with pytest.raises(OutOfMemory, match="memory ran out: CUDA out of memory"):
        execute(small("sft", out, steps=9), Silent())
    assert "A_ROOM" in {code for _, code in events(out)} and info(out)["exit_code"] == 1
    monkeypatch.setattr("oneloop.plan.spare.advice", lambda run: "three settings")
    words = f"train sft --data task:addition --data-size 8 --eval-size 2 --prompts-per-step 2 --steps 9 --out {out}2"
    assert command(words.split()) == 1 and "three settings" in capsys.readouterr().err


def test_advice_is_what_saves_most_by_the_plan() -> None:
    told = advice(replace(default_run("sft"), data="task:addition", data_size=8, prompts_per_step=4, max_tokens=64))
    settings = told.removeprefix("Fix, by `oneloop plan`: ").partition(";")[0].split(", or ")
    saved = [float(one.partition("−")[2].partition(" ")[0]) for one in settings if "−" in one]
    assert len(settings) == 3 and saved and saved == sorted(saved, reverse=True) and "--resume" in told


def test_the_same_run_with_half_the_tokens(tmp_path: Path, monkeypatch) -> None:
    whole = execute(small("sft", tmp_path / "whole", steps=1, prompts_per_step=8), Silent())
    forward, calls = Learner._forward, []

    def full(self, batch, entropy):
        calls.append(batch)
        if torch.is_grad_enabled() and calls[0] is not None:
            calls[0] = None
            raise torch.OutOfMemoryError("CUDA out of memory.")
        return forward(self, batch, entropy)

    monkeypatch.setattr(Learner, "_forward", full)
    halved = execute(small("sft", tmp_path / "halved", steps=1, prompts_per_step=8, max_tokens=60), Silent())
    one, two = (json.loads((out / "metrics.jsonl").read_text()) for out in (whole, halved))
    assert all(two[name] == pytest.approx(one[name], rel=1e-6) for name in ("loss", "grad_norm"))
    assert (0, "A_ROOM") in events(halved)


def test_advice_without_a_plan_names_the_usual(tmp_path: Path) -> None:
    told = advice(replace(Run(), model=str(tmp_path / "gone"), max_tokens=64))
    assert "--max-tokens 32, or --gradient-checkpointing, or --dtype bfloat16" in told
