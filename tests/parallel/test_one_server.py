"""Two ranks that are sampled by one server, with and without shares of a model: the run of one process."""

import json
from pathlib import Path

import pytest
from safetensors.torch import load_file

from oneloop.model.load import load_policy, load_tokenizer
from oneloop.model.save import save_policy
from oneloop.record.reader import read_run
from sharded_cases import write_models
from spawned import on_processes, once
from vllm_jobs import RUNS, WRITTEN, two


def models(folder: Path) -> None:
    write_models(folder)
    save_policy(folder / "tiny", load_policy("scratch:tiny", seed=1), load_tokenizer("scratch:tiny"))


@pytest.fixture(scope="module")
def served(tmp_path_factory) -> Path:
    return once(tmp_path_factory, "served", models)


@pytest.fixture(scope="module")
def found(served, tmp_path_factory) -> list[dict]:
    return on_processes(2, two, served, tmp_path_factory)


@pytest.mark.parametrize("name", RUNS)
def test_a_run_is_that_of_one_process(name, found, served) -> None:
    assert all(one[name] == "" for one in found)
    alone = read_run(served / ("ahead alone" if name == "ahead" else "alone"))
    together = read_run(served / name)
    for step in range(2):
        drawn, wanted = (
            [(row["group"], row["sample"], row["completion"], row["version"]) for row in record.rollouts(step)]
            for record in (together, alone)
        )
        assert drawn == wanted and len(drawn) == 9
    for row, expected in zip(together.metrics, alone.metrics, strict=True):
        assert (row["rollout/logprob_gap/max"] < 1e-4 or name == "ahead") and row["grad_norm"] > 0.1
        for key in (key for key in expected if not key.startswith(("time", "tokens_per_second", "rollout/logprob"))):
            assert row[key] == pytest.approx(expected[key], rel=1e-3, abs=1e-4, nan_ok=True), key
    ours, theirs = (
        {name: value for file in record.glob("final/*.safetensors") for name, value in load_file(file).items()}
        for record in (served / name, served / alone.path.name)
    )
    assert ours.keys() == theirs.keys() and ours
    assert max(float((ours[key] - theirs[key]).abs().max()) for key in ours) < 1e-4


@pytest.mark.parametrize(("how", "files"), [("replicas", 1), ("shares", 2)])
def test_every_tensor_is_written_once_and_rounded(how: str, files: int, found) -> None:
    """By rank 0, or a file a rank; of tied ones the first name."""
    for name, rank, _ in WRITTEN:
        tied = ["lm_head.weight"] if name == "qwen3" else []
        for one in found:
            assert one["written"][f"{name} {rank} {how}"] == (files, [], tied), (name, rank)


def test_weights_that_the_server_refuses_end_both_ranks_with_one_error(found, served) -> None:
    one, other = (each["broken"] for each in found)
    assert one == other and "/collective_rpc answered 400" in one and "It was started again before" in one
    assert json.loads((served / "broken" / "run.json").read_text())["status"] == "failed"
    events = [json.loads(line) for line in (served / "broken" / "events.jsonl").read_text().splitlines()]
    assert [event["code"] for event in events] == ["A_ENGINE"], "told by rank 0, once"
