"""Real runs with and without a trace."""

import json
from dataclasses import replace
from pathlib import Path

import pytest

import oneloop
from oneloop.config import default_run
from oneloop.errors import ConfigError
from oneloop.recipes.execute import execute
from oneloop.recipes.result import open_run
from oneloop.record import writer
from oneloop.record.reader import read_run
from toy_models import Silent

TRACED = ("ratios", "tokens", "pairs", "ratios.jsonl")


def small(out: Path, algorithm: str = "grpo", **changes):
    run = replace(
        default_run(algorithm), out=str(out), data="task:addition", prompts_per_step=4, minibatch=2, max_new_tokens=4,
        data_size=8, eval_size=4, learning_rate=1e-3, **({"steps": 2, "group_size": 2} | changes),
    )  # fmt: skip
    execute(run, Silent())
    return run


@pytest.fixture(scope="module")
def traced(tmp_path_factory) -> Path:
    out = tmp_path_factory.mktemp("traced") / "run"
    small(out, "ppo", epochs=2, group_size=1)
    return out


def test_the_weights_are_the_same_bit_for_bit_and_no_trace_leaves_nothing(traced):
    out = traced.with_name("untraced")
    small(out, "ppo", epochs=2, group_size=1, trace=False)
    assert not any((out / name).exists() for name in TRACED) and all(
        (traced / n).exists() for n in TRACED if n != "pairs"
    )
    saved = sorted(path.relative_to(out) for path in out.rglob("*.safetensors"))
    assert len(saved) >= 3  # the policy, the critic, the optimizer's moments
    for weights in saved:
        assert (out / weights).read_bytes() == (traced / weights).read_bytes()


def test_what_python_reads(traced):
    run = open_run(traced)
    ratios, tokens = run.ratios(1), run.tokens()
    assert len(ratios) == 4 and set(ratios["step"]) == {1} and len(ratios["update"][0]) == 2
    drawn = run.rollouts(1)
    for row in range(4):
        place = list(zip(drawn["group"], drawn["sample"], strict=True)).index(
            (tokens["group"][row], tokens["sample"][row])
        )
        assert "".join(tokens["text"][row]).removesuffix("<eos>") == drawn["completion"][place]
        assert "".join(tokens["prompt_tokens"][row]) == drawn["prompt"][place] == tokens["prompt"][row]
        assert len(tokens["id"][row]) == drawn["length"][place] and tokens["stop"][row] == drawn["stop"][place]
    with pytest.raises(ConfigError, match="has no pairs of step 0; the run has none"):
        run.pairs()
    with pytest.raises(ConfigError, match="has no ratios of step 7; there are 2 steps from 0 to 1"):
        run.ratios(7)


def test_the_log_s_clip_fraction_is_that_of_the_counts(traced):
    """Two records of one thing: the metric is the mean over updates of the share outside [0.8, 1.2]."""
    lines = [json.loads(line) for line in (traced / "ratios.jsonl").read_text().splitlines()]
    for line, row in zip(lines, read_run(traced).metrics, strict=True):
        shares = []
        for update in range(line["updates"]):
            counts = {}
            for sign in ("positive", "negative", "zero"):
                for number, count in line[sign][update].items():
                    counts[int(number)] = counts.get(int(number), 0) + count
            outside = sum(count for number, count in counts.items() if number < 31 or number >= 71)
            shares.append(outside / sum(counts.values()))
        assert sum(shares) / len(shares) == pytest.approx(row["clip/outside_band"])


def test_a_trace_may_begin_and_end_on_resume(tmp_path):
    run = small(tmp_path / "run", steps=2, save_every=1, trace=False)
    execute(replace(run, steps=4, trace=True, resume=True), Silent())
    assert read_run(tmp_path / "run").tables("ratios").steps() == [2, 3]
    execute(replace(run, steps=6, trace=False, resume=True), Silent())
    assert read_run(tmp_path / "run").tables("ratios").steps() == [2, 3]
    assert [json.loads(line)["step"] for line in (tmp_path / "run" / "ratios.jsonl").read_text().splitlines()] == [2, 3]


def test_a_full_disk_ends_no_run(tmp_path, monkeypatch):
    def full(self, step, table):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(writer.StepTables, "write", full)
    small(tmp_path / "run")
    record = read_run(tmp_path / "run")
    assert record.info["status"] == "finished" and len(record.metrics) == 2
    found = [(event["step"], event["code"]) for event in record.events if event["code"] in ("A_TRACE", "A_ROLLOUTS")]
    assert found == [(step, code) for step in (0, 1) for code in ("A_ROLLOUTS", "A_TRACE")]
    assert all("No space" in event["text"] for event in record.events if event["code"] == "A_TRACE")


def test_fit_records_it_too(tmp_path):
    rows = [{"prompt": "1+1=", "chosen": "2", "rejected": "3"}, {"prompt": "2+1=", "chosen": "3", "rejected": "1"}]
    run = oneloop.fit("dpo", model="scratch:tiny", data=rows, out=str(tmp_path / "run"), steps=1, prompts_per_step=2)
    pairs = run.pairs(0)
    assert sorted(pairs["chosen"]) == ["2", "3"] and list(pairs["margin"]) == [0.0, 0.0]
    assert list(pairs["weight"]) == [0.5, 0.5]
    assert run.metrics()["logps/chosen"][0] == pytest.approx(sum(pairs["logp_chosen"]) / 2)
    assert run.metrics()["logps/rejected"][0] == pytest.approx(sum(pairs["logp_rejected"]) / 2)
