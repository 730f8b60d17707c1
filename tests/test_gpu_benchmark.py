"""benchmarks/gpu/measure.py on the CPU with a tiny model: its lines, the shape of its result, and what it counts."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

FOLDER = Path(__file__).parents[1] / "benchmarks"
ROLLOUTS = ("rollout", "rollout-ragged", "rollout-bfloat16", "rollout-ragged-bfloat16")


@pytest.fixture(scope="module")
def result(tmp_path_factory) -> dict:
    out = tmp_path_factory.mktemp("results")
    script = str(FOLDER / "gpu" / "measure.py")
    command = [sys.executable, script, "--device", "cpu", "--shape", "tiny", "--out", str(out)]
    environment = os.environ | {"OMP_NUM_THREADS": "1"}
    done = subprocess.run(command, capture_output=True, text=True, env=environment, timeout=60)
    assert done.returncode == 0, done.stderr
    (path,) = out.glob("gpu-tiny-cpu-*.json")
    return json.loads(path.read_text())


@pytest.fixture
def counted(monkeypatch):
    monkeypatch.syspath_prepend(str(FOLDER))
    from gpu import setups

    return setups


def test_a_case_has_numbers_or_a_message(result) -> None:
    failed = {name: values["error"] for name, values in result["cases"].items() if "error" in values}
    assert all(set(result["cases"][name]) == {"error"} for name in failed)
    # the kernel for the whole line has no backward pass on a CPU: here that is how a failure is told
    assert {name: message.split()[0] for name, message in failed.items()} == {
        "train-sft-256-one_kernel": "NotImplementedError:",
        "train-grpo-256-one_kernel": "NotImplementedError:",
    }


def test_the_machine_is_told(result) -> None:
    assert {"torch", "transformers"} <= set(result["versions"])
    assert result["machine"]["flops_per_second"] == max(result["machine"]["rates"].values()) > 0
    assert result["machine"]["bytes_per_second"] > 0


@pytest.mark.parametrize("name", ROLLOUTS)
def test_rollouts_alternate_and_are_compared(result, name: str) -> None:
    values = result["cases"][name]
    for engine in ("oneloop", "transformers"):
        assert len(values[engine]["seconds"]) == result["setup"]["decode"]["rounds"]
        assert 0 < values[engine]["share_of_bound"] < 1
        assert values[engine]["bound_every_row_tokens_per_second"] <= values[engine]["bound_tokens_per_second"]
        assert (values[engine]["mean_length"] < 12) == ("ragged" in name)
    assert values["ratio"] > 0


def test_a_run_s_own_cache_is_measured_alone(result) -> None:
    values = result["cases"]["rollout-default-cache"]
    assert set(values) == {"oneloop"} and len(values["oneloop"]["seconds"]) == 1


@pytest.mark.parametrize("name", ["train-sft-256-buckets", "train-grpo-256-buckets"])
def test_training_is_timed_by_phase(result, name: str) -> None:
    values = result["cases"][name]
    assert values["mfu"] > 0
    for phase in ("prepare_seconds", "forward_backward_seconds", "optimizer_seconds"):
        assert len(values[phase]) == result["setup"]["train"]["steps"]
    assert "peak_bytes" not in values  # nobody counts it on a CPU


def test_plans_stand_beside_it(result) -> None:
    assert {"rollout", "update"} <= set(result["cases"]["plan-grpo-256"]["planned_bytes"])
    assert "rollout" not in result["cases"]["plan-sft-256"]["planned_bytes"]


def test_one_kernel_says_what_buckets_say(result) -> None:
    values = result["cases"]["flex"]
    assert values["largest_difference"] < 0.02 * values["largest_state"]


def test_parameters_are_the_model_s(counted) -> None:
    import torch

    bench = counted.Bench(counted.SETUPS["tiny"], torch.device("cpu"), 1.0, 1.0)
    assert bench.setup.shape.parameters == counted.random_model(bench).num_parameters()
    sizes = {name: setup.shape.parameters for name, setup in counted.SETUPS.items()}
    assert round(sizes["0.6b"] / 1e9, 2) == 0.60 and round(sizes["4b"] / 1e9, 2) == 4.02


def test_flops_are_those_of_flops_py_where_no_head_is_shared(counted) -> None:
    from cases.flops import step_flops
    from cases.values import Shape

    grouped = counted.Grouped(
        hidden=64, layers=3, heads=4, kv_heads=4, head_dim=16, intermediate=96, vocabulary=128, context=64
    )
    plain = Shape("", vocabulary=128, hidden=64, layers=3, heads=4, intermediate=96)
    rows = [(5, 3), (5, 7), (4, 1), (4, 2)]
    for group in (1, 2):
        assert counted.step_flops(grouped, rows, group) == step_flops(plain, rows, group)["work_done"]


def test_bytes_of_decoding_by_hand(counted) -> None:
    shape = counted.SETUPS["tiny"].shape
    # 2 (keys, values) · 2 bytes · 2 layers · 2 heads · 16
    assert shape.cached == 256
    # rows of 3 and 2 tokens after a prompt of 10: two steps, in which row 1 has 1 and 2 tokens, row 2 has 1
    assert counted.decode_bytes(shape, [3, 2], 2, 10) == 2 * 2 * shape.parameters + 256 * (1 + 2 + 1 + 2 * 10)
    assert counted.decode_bytes(shape, [3, 2], 1, 10) == 2 * 2 * shape.parameters + 256 * (1 + 2 + 1 + 3 * 10)
