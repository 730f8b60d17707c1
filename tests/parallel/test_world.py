"""Real processes over gloo: what is dealt, told and added up; every method trains what one process trains."""

import sys
from itertools import zip_longest
from pathlib import Path

import pyarrow.parquet as parquet
import pytest
import torch
from safetensors.torch import load_file

from oneloop.record.reader import read_run
from spawned import once, together

sys.path.insert(0, str(Path(__file__).parent))

import ranked

CASES = [(ranks, name) for ranks in (2, 4) for name in ranked.methods(ranks)]


@pytest.fixture(scope="module")
def folder(tmp_path_factory) -> Path:
    def make(place: Path) -> None:
        ranked.models(place)
        for ranks in (2, 4):
            together(ranks, ranked.every_method, ranks, str(place))

    return once(tmp_path_factory, "ranked", make)


@pytest.fixture(params=[2, 4])
def found(folder, request) -> list[dict]:
    return [torch.load(folder / f"found{request.param}_{rank}.pt") for rank in range(request.param)]


def test_what_is_shared_comes_back_in_order(found) -> None:
    ranks = len(found)
    counts = (0, 1, ranks, ranks + 1)
    for place, count in enumerate(counts):
        dealt = [mine["share"][place] for mine in found]
        assert len({len(mine) for mine in dealt}) == 1, "every rank goes through as many rounds"
        order = [item for row in zip_longest(*dealt) for item in row]
        assert order == [*range(count), *[None] * (-count % ranks)]
        assert all(mine["collect"][place] == [{"é": item / 3} for item in range(count)] for mine in found)


def test_sums_and_words_are_the_same_on_all(found) -> None:
    ranks = len(found)
    for mine in found:
        assert torch.equal(mine["add"], torch.full((2, 3), sum(range(ranks + 1), 0.0)))
        assert mine["sum"] == {"a": sum(rank + 0.1 for rank in range(ranks)), "b/max": ranks - 1.0, "own": 1.0}
        assert mine["nan"] == {"x/max": pytest.approx(torch.nan, nan_ok=True), "y": float("inf")}
        assert f"rank {ranks - 1} begins with other weights" in mine["odd"]
        assert mine["agree"] == {"rank": 0, "words": ["ü", None, 0.1]}


def test_a_bad_gradient_on_one_rank_stops_every_rank(found) -> None:
    """No rank steps, weights and moments stay as they were, and the third time in a row ends the run."""
    for mine in found:
        broken = mine["broken"]
        assert broken["outcomes"] == [1, 1, "stopped"]
        assert broken["unchanged"] and broken["moments"] == 0


def test_a_gradient_that_one_rank_has_is_everybodys(found) -> None:
    """And a parameter that no rank reached is left alone by the optimizer, as in one process."""
    for mine in found:
        assert mine["broken"]["moved"] == 1 and mine["broken"]["first"]


def weights(run: Path) -> torch.Tensor:
    return torch.cat([value.flatten() for _, value in sorted(load_file(run / "final" / "model.safetensors").items())])


@pytest.mark.parametrize("ranks, name", CASES)
def test_ranks_train_what_one_process_trains(folder, ranks, name) -> None:
    """The whole run: sampling, refills, passes, evaluation, minibatches with fewer passes than ranks."""
    together, alone = folder / f"{name}{ranks}", folder / f"{name}{ranks}_alone"
    apart = (weights(together) - weights(alone)).abs()
    # Adam divides by √v: where a gradient is its own rounding, so is the update
    assert apart.mean() <= 2e-8 and (apart > 2e-6).float().mean() <= 1e-4
    for row, wanted in zip(read_run(together).metrics, read_run(alone).metrics, strict=True):
        assert row.keys() == wanted.keys()
        for key in (key for key in row if not key.startswith(("time", "tokens_per_second"))):
            # a number that is rounding alone has no digits that could agree
            assert row[key] == pytest.approx(wanted[key], rel=2e-4, abs=2e-5, nan_ok=True), key


@pytest.mark.parametrize("ranks, name", CASES)
def test_tables_are_those_of_one_process(folder, ranks, name) -> None:
    """Completions by group and sample, to the letter; and every row of the trace, whichever rank computed it."""
    together, alone = folder / f"{name}{ranks}", folder / f"{name}{ranks}_alone"
    tables = sorted(path.relative_to(alone) for path in alone.rglob("*.parquet"))
    assert tables and tables == sorted(path.relative_to(together) for path in together.rglob("*.parquet"))
    for table in tables:
        rows = (parquet.read_table(run / table).to_pylist() for run in (together, alone))
        for row, wanted in zip(*rows, strict=True):
            assert _alike(row, wanted), (table, row, wanted)


def test_the_runs_are_worth_comparing(folder) -> None:
    """Weights moved, DAPO drew again, and one of its steps on four ranks had no group to keep."""
    start = torch.cat([v.flatten() for _, v in sorted(load_file(folder / "model" / "model.safetensors").items())])
    for name in ("sft", "grpo", "ppo", "dpo", "distill"):
        assert (weights(folder / f"{name}2") - start).abs().max() > 1e-3
    assert max(row["num_groups"] for row in read_run(folder / "dapo2").metrics) > 5
    assert min(row["frac_groups_kept"] for row in read_run(folder / "dapo4").metrics) < 1


def test_a_resumed_run_is_the_uninterrupted_one(folder) -> None:
    """Bit for bit by as many ranks; by another number but for the order in which sums are taken, which is told."""
    assert torch.equal(weights(folder / "half2"), weights(folder / "grpo2"))
    apart = (weights(folder / "half4") - weights(folder / "grpo2")).abs()
    assert 0 < apart.mean() <= 2e-8 and (apart > 2e-6).float().mean() <= 1e-4
    codes = [(event["code"], "ranks 2 → 4" in event["text"]) for event in read_run(folder / "half4").events]
    assert ("A_MACHINE", True) in codes
    assert "A_MACHINE" not in [event["code"] for event in read_run(folder / "half2").events]


def test_the_first_rank_keeps_the_run(folder) -> None:
    info = read_run(folder / "grpo2").info
    assert info["machine"]["ranks"] == 2 and info["exit_code"] == 0 and info["status"] == "finished"
    (line, *_) = (folder / "grpo2" / "memory.jsonl").read_text().splitlines()
    assert '"most_peak_rss"' in line and '"ranks = 2"' not in line
    assert "ranks = 2" in (folder / "grpo2" / "config.toml").read_text()


def _alike(value: object, wanted: object) -> bool:
    """Equal, and numbers nearly so: a log-prob's last digits are those of its sum."""
    if isinstance(value, dict) and isinstance(wanted, dict):
        return value.keys() == wanted.keys() and all(_alike(value[key], wanted[key]) for key in value)
    if isinstance(value, list) and isinstance(wanted, list):
        return len(value) == len(wanted) and all(map(_alike, value, wanted))
    if isinstance(value, float) and isinstance(wanted, float):
        return value == pytest.approx(wanted, rel=1e-2, abs=1e-3, nan_ok=True)
    return value == wanted
