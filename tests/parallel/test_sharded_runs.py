"""Whole runs on two ranks with shares of one model, as the command line starts them: those of one process."""

import json
from pathlib import Path

import pyarrow.parquet as parquet
import pytest
import torch
from safetensors.torch import load_file

from oneloop.record.atomic import verify
from oneloop.record.reader import read_run
from sharded_jobs import RUNS, runs_alone
from spawned import once

every_run = pytest.mark.parametrize("name", RUNS)


@pytest.fixture(scope="module")
def runs(on_two, folder, tmp_path_factory) -> Path:
    once(tmp_path_factory, "runs-alone", lambda _: runs_alone(folder))
    return folder


def weights(model: Path) -> dict[str, torch.Tensor]:
    return {name: value for file in sorted(model.glob("*.safetensors")) for name, value in load_file(file).items()}


def apart(model: Path, other: Path) -> torch.Tensor:
    ours, theirs = weights(model), weights(other)
    assert ours.keys() == theirs.keys() and ours
    return torch.cat([(ours[name] - theirs[name]).abs().flatten() for name in ours])


@every_run
def test_a_run_is_that_of_one_process(runs, name: str) -> None:
    together, alone = runs / f"run {name}", runs / f"run {name} alone"
    for model in ("final", "best", *(["adapter"] if RUNS[name].get("lora") else [])):
        gaps = apart(together / model, alone / model)
        assert float(gaps.max()) <= 1e-4 and float(gaps.mean()) <= 2e-8
        verify(together / model)
    for row, wanted in zip(read_run(together).metrics, read_run(alone).metrics, strict=True):
        assert row.keys() == wanted.keys()
        for key in (key for key in row if not key.startswith(("time", "tokens_per_second"))):
            assert row[key] == pytest.approx(wanted[key], rel=1e-3, abs=1e-4, nan_ok=True), key


@every_run
def test_completions_are_those_of_one_process(runs, name: str) -> None:
    together, alone = runs / f"run {name}", runs / f"run {name} alone"
    tables = sorted(path.relative_to(alone) for path in alone.glob("rollouts/*.parquet"))
    assert bool(tables) == (name.split()[0] in ("dapo", "ppo"))
    for table in tables:
        ours, theirs = (
            parquet.read_table(run / table, columns=["completion"]).to_pylist() for run in (together, alone)
        )
        assert ours == theirs


def test_a_run_that_was_cut_short_is_the_one_that_was_not(runs) -> None:
    """To the bit on as many ranks; by one process, which holds all of the model, to rounding."""
    whole = runs / "run dapo"
    for model in ("final", "checkpoints/step_000002/resume", "checkpoints/step_000002/policy"):
        assert float(apart(runs / "run cut" / model, whole / model).max()) == 0
    gaps = apart(runs / "run cut alone" / "final", whole / "final")
    assert float(gaps.max()) <= 1e-4 and float(gaps.mean()) <= 2e-8
    events = [json.loads(line) for line in (runs / "run cut alone" / "events.jsonl").read_text().splitlines()]
    assert any(event["code"] == "A_MACHINE" and "ranks 2 → 1" in event["text"] for event in events), "it is said"


def test_a_failure_of_one_rank_saves_the_shares_of_all(runs, on_two) -> None:
    for rank, mine in enumerate(on_two):
        assert "no more" in mine["broken"], rank
        assert "1 finished steps are saved" in mine["broken"]
    checkpoint = runs / "run broken" / "checkpoints" / "step_000001"
    verify(checkpoint)
    assert float(apart(checkpoint / "policy", runs / "run dapo" / "checkpoints" / "step_000001" / "policy").max()) == 0
