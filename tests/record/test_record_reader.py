"""A run folder as others see it."""

import json
import tracemalloc

import pytest

from oneloop.errors import ConfigError, DataError
from oneloop.record import lines
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


def test_a_broken_line_is_left_out_and_counted(run):
    broken = b'{"step": 0}\nhello\n{"step": 1, "text": "\xff"}\n[2]\n{"step": true}\n\0\0\0{"step": 2}\n{"ste'
    (run / "events.jsonl").write_bytes(broken)
    lines = read_run(run).lines("events.jsonl")
    assert [row["step"] for row in lines] == [0, 1, 2]
    assert (lines.damaged, lines.first) == (3, 2), "what is not whole yet is no line"


def test_order_is_that_of_steps_and_a_step_counts_once(run):
    rows = [{"step": 1, "x": 1.0}, {"step": 0, "x": 0.0}, {"step": 1, "x": 3.0}, {"step": 3, "x": True}]
    text = "\n".join(map(json.dumps, rows)) + '\n{"step": 2, "x": NaN}\n{"step": 4, "x": 1e999}\n'
    (run / "metrics.jsonl").write_text(text + f'{{"step": 5, "x": {10**400}}}\n')
    record = read_run(run)
    assert [row["step"] for row in record.metrics] == [0, 1, 2, 3, 4, 5]
    assert record.series("x") == ([0, 1], [0.0, 3.0])


def test_a_file_larger_than_memory_is_read_in_little(run, monkeypatch):
    """A stand-in for 10 GB: 200 MB of lines through blocks of 64 KiB, one of them longer than any line may be."""
    monkeypatch.setattr(lines, "BLOCK", 1 << 16)
    monkeypatch.setattr(lines, "LONGEST", 1 << 20)
    with (run / "metrics.jsonl").open("wb") as file:
        file.write(b'{"step": 0}\n{"step": 1, "text": "')
        file.seek(200_000_000)  # a hole: zero bytes that take no room
        file.write(b'"}\n{"step": 2}\n')
    tracemalloc.start()
    found = read_run(run).lines("metrics.jsonl")
    steps = [row["step"] for row in found]
    file = lines.Lines(run / "metrics.jsonl")
    last = file.last_step()
    file.close()
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert (steps, found.damaged, last) == ([0, 2], 1, 2)
    assert peak < 16 << 20


def test_torn_at_every_byte_at_most_one_line_is_missing(run):
    whole = b"".join(json.dumps({"step": n, "π": "é\n"}, ensure_ascii=False).encode() + b"\n" for n in range(4))
    for size in range(len(whole)):
        for tail in (b"", b"\0" * 7, b"\0\n"):
            (run / "metrics.jsonl").write_bytes(whole[:size] + tail)
            steps = [row["step"] for row in read_run(run).metrics]
            assert steps == list(range(len(steps))) and len(steps) >= whole[:size].count(b"\n")


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
