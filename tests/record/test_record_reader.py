"""A run folder as others see it."""

import json

import pytest

from oneloop.errors import ConfigError, DataError
from oneloop.record.reader import read_run


@pytest.fixture
def run(tmp_path):
    (tmp_path / "run.json").write_text(json.dumps({"status": "running"}))
    return tmp_path


def test_only_run_json_is_needed(run):
    record = read_run(run)
    assert (record.info, record.config, record.metrics, record.events) == ({"status": "running"}, {}, [], [])
    assert record.rollout_steps() == [] and record.series("reward") == ([], [])


@pytest.mark.parametrize("tail", ['{"step": 2, "re', '{"step": 2}', "\xff"])
def test_torn_last_line_is_dropped(run, tail):
    whole = '{"step": 0, "reward": 1.0}\n{"step": 1, "reward": null, "π": 2}\n'
    (run / "metrics.jsonl").write_bytes(whole.encode() + tail.encode("latin-1"))
    record = read_run(run)
    assert [row["step"] for row in record.metrics] == [0, 1]
    assert record.series("reward") == ([0], [1.0])
    assert record.series("π") == ([1], [2.0])


def test_a_whole_line_that_is_not_json_is_named(run):
    (run / "events.jsonl").write_text('{"step": 0}\nhello\n{"step": 1}\n')
    with pytest.raises(DataError, match=r"events\.jsonl:2 is not JSON"):
        read_run(run)


def test_not_a_run(tmp_path):
    with pytest.raises(ConfigError, match=r"not a run folder \(no run\.json\)\. Fix"):
        read_run(tmp_path / "nowhere")


@pytest.mark.parametrize(("name", "text"), [("run.json", "{"), ("config.toml", "a = ")])
def test_damaged_files_are_named(run, name, text):
    (run / name).write_text(text)
    with pytest.raises(ConfigError, match=f"{name} cannot be read"):
        read_run(run)


def test_completions_that_are_not_there_or_not_readable(run):
    with pytest.raises(ConfigError, match="no completions of step 4; the run has none"):
        read_run(run).rollouts(4)
    (run / "rollouts").mkdir()
    (run / "rollouts" / "step_000003.parquet").write_bytes(b"PAR1")
    with pytest.raises(ConfigError, match="from 3 to 3"):
        read_run(run).rollouts(4)
    with pytest.raises(DataError, match=r"step_000003\.parquet cannot be read"):
        read_run(run).rollouts(3)
