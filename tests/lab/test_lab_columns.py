"""Charts of many points: what is read, what is kept, what is remembered."""

import json
import random
from math import isfinite, nan

import numpy
import pytest

from oneloop.lab.answers import encoded
from oneloop.lab.columns import Columns, Index, _parsed_block, columns_of
from oneloop.lab.downsample import kept
from oneloop.lab.folders import Folder
from oneloop.lab.lines import sampled, tail


@pytest.mark.parametrize("n", [0, 1, 3, 4, 5, 99, 100, 101, 999, 1000, 1001, 12345])
@pytest.mark.parametrize("points", [4, 5, 100, 1000, 2000])
def test_extremes_are_kept(n, points):
    """The slow oracle: of each stretch of equal length, the least and the greatest value are among the points."""
    draw = random.Random(n * 7 + points)
    values = numpy.array([draw.gauss(0, 1) for _ in range(n)], numpy.float32)
    places = kept(values, points)
    assert len(places) <= max(points, 0) and list(places) == sorted(set(places.tolist()))
    if n <= points:
        assert places.tolist() == list(range(n))
        return
    assert places[0] == 0 and places[-1] == n - 1
    shown = values[places]
    assert shown.min() == values.min() and shown.max() == values.max()
    width = -(-n // ((points - 2) // 2))
    for start in range(0, n, width):
        stretch = values[start : start + width].tolist()
        inside = [values[place] for place in places.tolist() if start <= place < start + width]
        assert min(stretch) in inside and max(stretch) in inside


def test_one_spike_in_a_million_is_drawn():
    values = numpy.zeros(1_000_000, numpy.float32)
    values[123_457], values[876_543] = 9.0, -9.0
    places = set(kept(values, 2000).tolist())
    assert {123_457, 876_543} <= places and len(places) <= 2000


LINES = [
    {"step": 0, "time": 1.5e9, "reward": 0.5},
    {"step": 1, "time": 1.5e9 + 1e-3, "reward": None, "kl": 2},
    {"step": 2, "time": 1.5e9 + 2e-3, "word": "x", "flag": True, "kl": 3.5, "late": -1},
    {"step": 3, "time": 1.5e9 + 3e-3, "reward": 1, "num_tokens": 123456789},
]


@pytest.mark.parametrize("block", [40, 100, 10**6])
def test_what_is_read_is_what_stands_there(tmp_path, monkeypatch, block):
    """Whatever the size of a block: integers, missing values, words, columns that come late, lines that are damaged."""
    monkeypatch.setattr("oneloop.lab.columns.BLOCK", block)
    text = [json.dumps(row) for row in LINES]
    text.insert(2, '{"step": broken')
    (tmp_path / "metrics.jsonl").write_text("\n".join(text) + '\n{"step": 4, "rew')
    index = Index(Folder(tmp_path))
    index.refresh(10.0)
    columns = index.columns
    assert columns.rows == 4 and index.ready == 1.0
    for name in ("step", "time", "reward", "kl", "late", "num_tokens"):
        want = [row.get(name) if isinstance(row.get(name), int | float) else nan for row in LINES]
        got = columns.get(name)
        assert got is not None and got.tolist() == pytest.approx(want, nan_ok=True, rel=1e-7), name
    assert columns.get("time").tolist() == [row["time"] for row in LINES]
    assert columns.get("num_tokens").tolist()[3] == 123456789  # more than float32 has digits for
    assert columns.get("absent") is None
    assert all(not isfinite(value) for value in (columns.get("word") if columns.get("word") is not None else [nan]))


@pytest.mark.parametrize("seed", range(30))
def test_both_ways_of_reading_agree(seed):
    draw = random.Random(seed)
    names = ["step", "a", "b/c", "ü", "x y"]
    value = [
        lambda: draw.randint(-9, 9),
        lambda: draw.gauss(0, 1e3),
        lambda: None,
        lambda: 1e300,
        lambda: "w",
        lambda: True,
    ]
    rows = [{name: draw.choice(value)() for name in names if draw.random() < 0.8} for _ in range(draw.randint(0, 40))]
    content = "".join(json.dumps(row) + "\n" for row in rows).encode()
    fast, count = _parsed_block(content, draw.sample(names, 2))
    slow = columns_of(rows)
    assert count == len(rows)
    for name, column in slow.items():
        want = numpy.isfinite(column)
        got = fast.get(name, numpy.full(count, nan))
        assert numpy.array_equal(numpy.isfinite(got), want) and numpy.allclose(got[want], column[want], rtol=1e-12), (
            name
        )


def test_columns_grow_widen_and_have_gaps():
    columns = Columns()
    for start in range(0, 5000, 1000):
        columns.append({"x": numpy.arange(start, start + 1000, dtype=float)}, 1000)
    early = columns.get("x")
    columns.append({"y": numpy.ones(10)}, 10)
    columns.append({"x": numpy.array([3.0**20]), "y": numpy.array([2.0])}, 1)
    assert columns.get("x")[:5000].tolist() == list(range(5000)) and numpy.isnan(columns.get("x")[5000:5010]).all()
    assert columns.get("x")[5010] == 3.0**20  # float32 would not hold it
    assert numpy.isnan(columns.get("y")[:5000]).all() and columns.get("y")[5000:].tolist() == [1.0] * 10 + [2.0]
    assert early.tolist() == list(range(5000))  # what was handed out stays as it was


def test_an_index_goes_on_where_it_was(tmp_path, monkeypatch):
    file, read = tmp_path / "metrics.jsonl", []
    file.write_text('{"step": 0, "reward": 1}\n')
    index = Index(Folder(tmp_path))
    index.refresh(10.0)
    real = _parsed_block
    monkeypatch.setattr(
        "oneloop.lab.columns._parsed_block", lambda content, known: read.append(content) or real(content, known)
    )
    with file.open("a") as more:
        more.write('{"step": 1, "reward": 2}\n')
    index.refresh(10.0)
    index.refresh(10.0)
    assert read == [b'{"step": 1, "reward": 2}\n'] and index.columns.rows == 2


def test_an_index_sees_that_its_file_was_cut_and_grew_again(tmp_path):
    file = tmp_path / "metrics.jsonl"
    file.write_text("".join(f'{{"step": {step}, "reward": 1}}\n' for step in range(5)))
    index = Index(Folder(tmp_path))
    index.refresh(10.0)
    with file.open("r+") as same:  # the same file, as long as before
        same.write("".join(f'{{"step": {step}, "reward": 2}}\n' for step in range(5)))
    index.refresh(10.0)
    assert index.columns.rows == 5 and index.columns.get("reward").tolist() == [2.0] * 5


def test_a_chart_is_made_once_until_there_is_more(tmp_path):
    file = tmp_path / "metrics.jsonl"
    file.write_text('{"step": 0}\n')
    index, made = Index(Folder(tmp_path)), []
    index.refresh(10.0)
    for _ in range(3):
        index.chart("key", lambda columns: made.append(columns.rows))
    with file.open("a") as more:
        more.write('{"step": 1}\n')
    index.refresh(10.0)
    index.chart("key", lambda columns: made.append(columns.rows))
    assert made == [1, 2]


def test_the_small_picture_reads_little_of_a_large_file(tmp_path):
    file = tmp_path / "metrics.jsonl"
    file.write_text("".join(f'{{"step": {step}, "reward": {step}}}\n' for step in range(50_000)))
    with file.open("rb") as stream:
        rows = sampled(stream, 60)
        steps = [row["step"] for row in rows]
        assert tail(stream) == {"step": 49_999, "reward": 49_999}
    assert len(steps) == 60 and steps == sorted(steps) and steps[0] == 0 and steps[-1] > 49_000


def test_answers_are_json_whatever_they_hold():
    text = encoded({"a": nan, "b": [float("inf"), 1.5, {"c": -float("inf")}], "d": "\ud800é"})
    assert json.loads(text) == {"a": None, "b": [None, 1.5, {"c": None}], "d": "\ud800é"}
