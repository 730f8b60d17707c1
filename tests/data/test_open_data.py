"""Where rows come from: files packed and plain, several of them, folders, saved data sets, the hub, Python."""

import csv
import gzip
import json
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest
import zstandard
from pyarrow import parquet

from oneloop.data import Reading, from_rows, open_data
from oneloop.errors import ConfigError, DataError

P = "prompts"
ROWS = [{"prompt": f"{number}+é=", "answer": str(number)} for number in range(7)]


@pytest.fixture(autouse=True)
def cache(tmp_path_factory, monkeypatch) -> None:
    monkeypatch.setenv("HF_DATASETS_CACHE", str(tmp_path_factory.mktemp("cache")))


def write_jsonl(path: Path, rows: list[dict[str, Any]]) -> None:
    path.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")


def write_json(path: Path, rows: list[dict[str, Any]]) -> None:
    path.write_text(json.dumps(rows, ensure_ascii=False, indent=1), encoding="utf-8")


def write_csv(path: Path, rows: list[dict[str, Any]]) -> None:
    with path.open("w", newline="", encoding="utf-8") as file:
        writer = csv.DictWriter(file, rows[0])
        writer.writeheader()
        writer.writerows(rows)


def write_parquet(path: Path, rows: list[dict[str, Any]]) -> None:
    parquet.write_table(pa.Table.from_pylist(rows), path)


WRITE: dict[str, Callable[[Path, list[dict[str, Any]]], None]] = {
    "jsonl": write_jsonl, "json": write_json, "csv": write_csv, "parquet": write_parquet,
}  # fmt: skip
PACK: dict[str, Callable[[bytes], bytes]] = {"": bytes, ".gz": gzip.compress, ".zst": zstandard.compress}


@pytest.mark.parametrize("packed", PACK)
@pytest.mark.parametrize("ending", WRITE)
def test_every_format_packed_or_not_gives_the_same_rows(tmp_path: Path, ending: str, packed: str) -> None:
    plain, path = tmp_path / f"plain.{ending}", tmp_path / f"rows.{ending}{packed}"
    WRITE[ending](plain, ROWS)
    path.write_bytes(PACK[packed](plain.read_bytes()))
    data = open_data(str(path), P)
    assert list(data.rows) == ROWS and [data.rows[place] for place in (6, -1, 0)] == [ROWS[6], ROWS[6], ROWS[0]]
    assert list(data.rows[2:4]) == ROWS[2:4]
    assert data.fingerprint == from_rows(ROWS, P).fingerprint
    WRITE[ending](plain, ROWS[:3])  # the name stays, what is in it changes: no cache may give the old rows
    path.write_bytes(PACK[packed](plain.read_bytes()))
    assert list(open_data(str(path), P).rows) == ROWS[:3]


def test_a_file_packed_in_pieces_is_read_to_its_end(tmp_path: Path) -> None:
    line = json.dumps(ROWS[0]).encode() + b"\n"
    for ending, pack in (("gz", gzip.compress), ("zst", zstandard.compress)):
        path = tmp_path / f"rows.jsonl.{ending}"
        path.write_bytes(pack(line) + pack(line * 2))
        assert list(open_data(str(path), P).rows) == ROWS[:1] * 3


@pytest.mark.parametrize("size", [3, 7, 64, 1 << 20])
def test_a_json_array_is_found_item_by_item_whatever_the_window(tmp_path: Path, size: int) -> None:
    from oneloop.data.files import _Window, array_table

    rows = [*ROWS, {"prompt": 'a ] , [ { " \\ }', "info": [[], {}, [1e5, None, True]]}, {"prompt": "x" * 500}]
    for text in (json.dumps(rows), json.dumps(rows, indent=3, ensure_ascii=False), f"\ufeff \n{json.dumps(rows)}\r\n"):
        path = tmp_path / "rows.json"
        path.write_text(text, encoding="utf-8")
        with path.open("rb") as file, pytest.MonkeyPatch.context() as patch:
            patch.setattr(_Window.__init__, "__defaults__", (size,))
            table = array_table("rows.json", file)
        assert list(table.every()) == rows and table.where(7) == "rows.json[7]"


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ('[{"prompt": "1"}, {"prompt": "2"', r"rows.json\[1\]: not JSON"),
        ('[{"prompt": "1"}, {"prompt": "2"}', "wanted ',' .*the end of the file: it is cut off"),
        ('[{"prompt": "1"} {"prompt": "2"}]', "wanted ',' at byte 17, found '{'"),
        ('[{"prompt": "1"}] []', "something stands after the array"),
        ("[]", "has no rows"),
        ('[{"prompt": "1"}, 3]', r"rows.json\[1\]: a int, wanted an object"),
        ('{\n "prompt": "1"\n}', "rows.json:1: not JSON"),
    ],
)
def test_broken_arrays_are_named(tmp_path: Path, text: str, said: str) -> None:
    path = tmp_path / "rows.json"
    path.write_text(text, encoding="utf-8")
    with pytest.raises(DataError, match=said):
        open_data(str(path), P)


def test_csv_values_stay_text_and_rows_keep_their_lines(tmp_path: Path) -> None:
    path = tmp_path / "rows.csv"
    path.write_text('\ufeffprompt,answer\r\n"a\n""b"", c",007\r\n\r\nd,NA\r\n', encoding="utf-8", newline="")
    data = open_data(str(path), P)
    assert list(data.rows) == [{"prompt": 'a\n"b", c', "answer": "007"}, {"prompt": "d", "answer": "NA"}]
    assert [data.where(place) for place in range(2)] == [f"{path}:2", f"{path}:5"]
    path.write_text("prompt,answer\na,1\nb\nc,2,3\n", encoding="utf-8")
    with pytest.raises(DataError, match=r"rows\.csv:3: 1 values for the 2 columns"):
        open_data(str(path), P)
    assert open_data(str(path), P, reading=Reading(on_bad_row="skip")).skipped == 2
    path.write_text("prompt,prompt\na,1\n", encoding="utf-8")
    with pytest.raises(DataError, match=r"rows\.csv:1: the names of the columns are"):
        open_data(str(path), P)


def test_several_files_are_one_data_set_with_its_places(tmp_path: Path) -> None:
    for name in ("b.jsonl", "a.jsonl", "c.json", "d.parquet", "e.parquet"):
        WRITE[name.split(".")[1]](tmp_path / name, [{"prompt": f"{name}-{n}"} for n in range(2)])
    spec = f"{tmp_path}/b.jsonl,{tmp_path}/[ac].json*,{tmp_path}/*.parquet"
    data = open_data(spec, P)
    names = ("b.jsonl", "a.jsonl", "c.json", "d.parquet", "e.parquet")
    assert [row["prompt"] for row in data.rows] == [f"{name}-{n}" for name in names for n in range(2)]
    assert [data.rows[place]["prompt"] for place in range(10)] == [row["prompt"] for row in data.rows]
    places = [f"{tmp_path}/{name}" for name in ("b.jsonl:1", "c.json[1]", "d.parquet row 1", "e.parquet row 2")]
    assert [data.where(place) for place in (0, 5, 6, 9)] == places
    with pytest.raises(DataError, match=r"nothing\*: no file fits the pattern"):
        open_data(f"{tmp_path}/nothing*", P)
    odd = tmp_path / "a,b.jsonl"
    write_jsonl(odd, ROWS)
    assert list(open_data(str(odd), P).rows) == ROWS, "a name with a comma is a name"


def test_a_folder_of_shards_and_one_of_splits(tmp_path: Path) -> None:
    for number in range(3):
        write_jsonl(tmp_path / f"part-{number}.jsonl", ROWS[2 * number : 2 * number + 2])
    (tmp_path / "notes.txt").write_text("no data")
    (tmp_path / ".hidden.jsonl").write_text("no data")
    assert list(open_data(str(tmp_path), P).rows) == ROWS[:6]
    with pytest.raises(ConfigError, match=r"--split test: no file name in .* tells a split"):
        open_data(str(tmp_path), P, reading=Reading(split="test"))
    splits = tmp_path / "splits"
    (splits / "data").mkdir(parents=True)
    write_jsonl(splits / "data" / "train-0001.jsonl", ROWS[:4])
    write_jsonl(splits / "data" / "train-0002.jsonl", ROWS[4:6])
    write_jsonl(splits / "data" / "test-0001.jsonl", ROWS[6:])
    data = open_data(str(splits), P)
    assert list(data.rows) == ROWS[:6]
    assert data.notes[0] == f"{splits}: split 'train', 2 files; left alone: test"
    assert list(open_data(str(splits), P, reading=Reading(split="test")).rows) == ROWS[6:]
    assert list(open_data(str(splits), P, part="test").rows) == ROWS[6:]
    with pytest.raises(ConfigError, match=r"--split dev: .* has the splits test, train\. Fix: --split test"):
        open_data(str(splits), P, reading=Reading(split="dev"))
    (tmp_path / "empty").mkdir()
    with pytest.raises(DataError, match="is a folder without data files"):
        open_data(str(tmp_path / "empty"), P)


def test_a_folder_of_save_to_disk_and_data_sets_from_python(tmp_path: Path) -> None:
    from datasets import Dataset, DatasetDict

    whole = Dataset.from_list(ROWS)
    both = DatasetDict({"train": whole.select(range(4)), "validation": whole.select(range(4, 7))})
    whole.save_to_disk(str(tmp_path / "one"))
    both.save_to_disk(str(tmp_path / "both"))
    one = open_data(str(tmp_path / "one"), P)
    assert list(one.rows) == ROWS and one.where(3) == f"{tmp_path}/one row 4"
    assert list(open_data(str(tmp_path / "both"), P).rows) == ROWS[:4]
    assert list(open_data(str(tmp_path / "both"), P, part="test").rows) == ROWS[4:]
    from_python = from_rows(both, P, reading=Reading(split="validation"))
    assert list(from_python.rows) == ROWS[4:] and from_python.where(0) == "data[0]"
    assert from_rows(whole, P).fingerprint == one.fingerprint == from_rows(ROWS, P).fingerprint
    with pytest.raises(DataError, match="a stream of rows"):
        from_rows(whole.to_iterable_dataset(), P)


@pytest.mark.parametrize("data", [{"prompt": ["1"]}, "rows", 3, iter(ROWS)])
def test_python_values_that_are_no_rows(data: Any) -> None:
    with pytest.raises(DataError, match=r"data is a .*; wanted "):
        from_rows(data, P)


def test_the_hub_out_of_reach_is_one_quick_message() -> None:
    began = time.monotonic()
    with pytest.raises(DataError) as caught:
        open_data("some-org/some-data:main@v1.0", P)
    assert time.monotonic() - began < 60, "no minutes of retries"
    assert "the hub cannot be reached, and the cache has no copy. Fix: " in str(caught.value)
    assert "\n" not in str(caught.value)


def test_a_data_set_of_the_hub_is_read_with_its_config_revision_and_split(monkeypatch) -> None:
    """The library's answers are put in place of the hub's."""
    import datasets

    asked: list[tuple[Any, ...]] = []

    def load(name, config, *, revision, split, cache_dir):
        asked.append((name, config, revision, split))
        found = datasets.DatasetDict({"train": datasets.Dataset.from_list(ROWS[:4])})
        return found if split is None else found[split]

    monkeypatch.setattr(datasets, "load_dataset", load)
    data = open_data("org/name:config@main", P)
    assert list(data.rows) == ROWS[:4] and data.where(1) == "org/name:config@main row 2"
    assert data.notes[0] == "org/name:config@main: split 'train'"
    open_data("org/name", P, reading=Reading(split="train"))
    assert asked == [("org/name", "config", "main", None), ("org/name", None, None, "train")]


def test_a_split_of_a_file_is_refused(tmp_path: Path) -> None:
    write_jsonl(tmp_path / "rows.jsonl", ROWS)
    with pytest.raises(ConfigError, match=r"--split test: .* names files, which have no splits"):
        open_data(str(tmp_path / "rows.jsonl"), P, reading=Reading(split="test"))


def test_a_file_that_changes_under_the_run_is_noticed(tmp_path: Path) -> None:
    import os

    path = tmp_path / "rows.jsonl"
    write_jsonl(path, ROWS)
    data = open_data(str(path), P)
    write_jsonl(path, ROWS[::-1])
    os.utime(path, ns=(1, 1))
    with pytest.raises(DataError, match=r"rows\.jsonl was changed while it is read"):
        data.rows[0]


@pytest.mark.parametrize(("share", "count"), [("50%", 4), ("3", 3), ("1%", 1)])
def test_held_out_rows_are_disjoint_and_named_by_the_seed(share: str, count: int) -> None:
    whole = from_rows(ROWS, P, prompts=True)
    train, held = whole.divided(share, 0)
    prompts = [[row["prompt"] for row in part.rows] for part in (train, held)]
    assert len(prompts[1]) == count and sorted(prompts[0] + prompts[1]) == [row["prompt"] for row in ROWS]
    again = from_rows(ROWS, P, prompts=True).divided(share, 0)[1]
    assert list(again.rows) == list(held.rows)
    others = [[row["prompt"] for row in whole.divided(share, seed)[1].rows] for seed in range(5)]
    assert any(other != prompts[1] for other in others)
    assert f"{count} of 7 rows held out by --eval-split {share}" in train.notes[-1]
    assert [held.where(place) for place in range(count)] == [f"data[{ROWS.index(row)}]" for row in held.rows]


def test_rows_with_one_prompt_are_held_out_together() -> None:
    rows = [{"prompt": f"{number // 4}", "answer": number} for number in range(20)]
    train, held = from_rows(rows, P, prompts=True).divided("2", 0)
    assert not {row["prompt"] for row in train.rows} & {row["prompt"] for row in held.rows}
    assert len(held.rows) in (4, 8) and "because they share a prompt" in train.notes[-1]


@pytest.mark.parametrize("share", ["0%", "100%", "0", "-3", "5 percent", "x%", "7", "nan%"])
def test_shares_that_leave_nothing(share: str) -> None:
    with pytest.raises(ConfigError, match="--eval-split"):
        from_rows(ROWS, P, prompts=True).divided(share, 0)


def test_text_files_need_neither_pyarrow_nor_datasets(tmp_path: Path) -> None:
    """They take seconds to load."""
    import subprocess

    write_jsonl(tmp_path / "rows.jsonl", ROWS)
    code = (
        "import sys; from oneloop.data import open_data; "
        f"open_data({str(tmp_path / 'rows.jsonl')!r}, 'prompts'); print(*sys.modules)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, timeout=120)
    assert not {"datasets", "pyarrow", "torch", "transformers"} & set(done.stdout.split())
