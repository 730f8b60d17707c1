"""What a run's settings refuse, and which of them may change when it is resumed."""

from dataclasses import replace
from pathlib import Path

import pytest

from oneloop.config import Run
from oneloop.errors import ConfigError
from oneloop.recipes.resume import check_same

RUN = Run(schedule="cosine")


@pytest.mark.parametrize(
    "change",
    [{"seed": 1}, {"learning_rate": 1.0}, {"group_size": 4}, {"prompts_per_step": 8}, {"minibatch": 2}, {"epochs": 2},
     {"temperature": 0.5}, {"max_new_tokens": 8}, {"data": "task:addition"}, {"set": ("kl=none",)}, {"warmup": 3},
     {"eval_samples": 2, "eval_temperature": 1.0}, {"dtype": "bfloat16"}, {"weight_decay": 0.1},
     {"optimizer": "adafactor"}, {"steps": 200}],
    ids=lambda change: next(iter(change)),
)  # fmt: skip
def test_what_changes_the_result_may_not_change_on_resume(change: dict) -> None:
    with pytest.raises(ConfigError, match="--resume"):
        check_same(replace(RUN, **change), RUN, Path("run"))


def test_what_does_not_change_the_result_may() -> None:
    other = replace(RUN, out="elsewhere", save_every=3, keep_checkpoints=1, max_tokens=64, resume=True)
    for one in (other, replace(RUN, offload_idle=True), replace(RUN, ranks=2, shard="full", cpu_offload=True)):
        check_same(one, RUN, Path("run"))
    check_same(replace(RUN, schedule="constant", steps=200), replace(RUN, schedule="constant"), Path("run"))


def test_a_minibatch_is_at_most_the_batch() -> None:
    assert [Run(prompts_per_step=8, minibatch=size).groups_per_update for size in (0, 3, 8, 99)] == [8, 3, 8, 8]


def test_two_greedy_samples_would_be_one() -> None:
    with pytest.raises(ConfigError, match="--eval-samples 2"):
        Run(eval_samples=2)
    assert Run(eval_samples=2, eval_temperature=0.5).eval_samples == 2


def test_gpus_that_a_server_cannot_have_are_refused() -> None:
    for changes, says in {
        "engine": (dict(engine="builtin", device="cuda"), "--vllm-devices 6 7 with --engine builtin"),
        "device": (dict(device="cpu"), "--vllm-devices 6 7 with --device cpu: vLLM for a CPU has no GPUs"),
        "twice": (dict(vllm_devices=(6, 6)), "--vllm-devices 6 6 names a GPU twice"),
        "negative": (dict(vllm_devices=(-1,)), "--vllm-devices is -1; wanted numbers of GPUs, from 0"),
    }.values():
        with pytest.raises(ConfigError, match=says):
            Run(**{"engine": "vllm", "device": "cuda", "vllm_devices": (6, 7)} | changes)


def test_what_cannot_be_shared_out_is_refused() -> None:
    with pytest.raises(ConfigError, match=r"--offload-idle with --shard full.*--cpu-offload"):
        Run(offload_idle=True, shard="full")
    for optimizer in ("adamw-8bit", "adafactor"):
        with pytest.raises(ConfigError, match=f"--optimizer {optimizer} with --shard grad: its state is of whole"):
            Run(optimizer=optimizer, shard="grad")
    with pytest.raises(ConfigError, match="--compile with --shard full"):
        Run(compile=True, shard="full")
    with pytest.raises(ConfigError, match="--cpu-offload without --shard"):
        Run(cpu_offload=True)
