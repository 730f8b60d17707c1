"""The 30 kinds of malformed rows: each names file, row, field and reason, with a fix, or is legal on purpose."""

import gzip
import json
from datetime import datetime
from decimal import Decimal
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest
from pyarrow import parquet

from oneloop.data import Reading, from_rows, open_data
from oneloop.errors import DataError

P, D, C, U = "prompts", "demonstrations", "preferences", "unpaired"
GOOD = {
    P: {"prompt": "1+1=", "answer": "2"},
    D: {"prompt": "1+1=", "completion": "2"},
    C: {"prompt": "1+1=", "chosen": "2", "rejected": "3"},
    U: {"prompt": "1+1=", "completion": "2", "label": True},
}
USER, ASSISTANT = {"role": "user", "content": "1+1="}, {"role": "assistant", "content": "2"}
SYSTEM = {"role": "system", "content": "Be brief."}


def nested(depth: int) -> Any:
    return [nested(depth - 1)] if depth else 1


def bad(name: str, kind: str, row: Any, *said: str):
    """A row, or the bytes of its line, with what the message has to say beside the place and a fix."""
    return pytest.param(kind, row, said, id=name)


BAD = [
    bad("missing prompt", P, {"answer": "2"}, "columns ['answer']", "no 'prompt'", '{"prompt": "2+3='),
    bad("null", P, {"prompt": None}, "prompt is None", "NoneType"),
    bad("empty string", P, {"prompt": ""}, "prompt is empty"),
    bad("whitespace", D, {"prompt": "1+1=", "completion": " \n\t"}, "completion is empty"),
    bad("wrong type: int", P, {"prompt": 12}, "prompt is 12 of type int", "wanted text"),
    bad("wrong type: list", P, {"prompt": ["1+1="]}, "prompt[0] is '1+1='", '"role": "user"'),
    bad("wrong type: dict", P, {"prompt": USER}, "prompt is", "of type dict", "a list of messages"),
    bad("invalid UTF-8", P, b'{"prompt": "caf\xe9"}', "is not UTF-8", "Fix: save the file as UTF-8"),
    bad("lone surrogate", P, b'{"prompt": "a \\ud83d b"}', "prompt contains half of a surrogate pair"),
    bad("NUL byte", P, b'{"prompt": "a\\u0000b"}', "prompt contains a NUL"),
    bad("messages empty", D, {"messages": []}, "no 'prompt'"),
    bad("prompt of no messages", P, {"prompt": []}, "prompt is an empty list of messages"),
    bad("last message not user", P, {"prompt": [USER, ASSISTANT]}, "prompt ends with the assistant's turn", "or sft"),
    bad("two system messages", P, {"prompt": [SYSTEM, SYSTEM, USER]}, "prompt[1] is a system message"),
    bad("unknown role", P, {"prompt": [{"role": "human", "content": "1"}]}, "prompt[0]", "'human'", "write 'user'"),
    bad("content null", P, {"prompt": [{"role": "user", "content": None}]}, "prompt[0]: content is None"),
    bad(
        "content a list of parts", P, {"prompt": [{"role": "user", "content": [{"type": "text", "text": "1"}]}]},
        "prompt[0]: content is [", "only text is read",
    ),
    bad("answer NaN", P, b'{"prompt": "1", "answer": NaN}', "NaN is not a number", "Fix: write it as text, or null"),
    bad("answer inf", P, b'{"prompt": "1", "answer": 1e999}', "1e999 is too large"),
    bad("chosen says what rejected says", C, {"prompt": "1", "chosen": "a b c", "rejected": "a b c"}, "no preference"),
    bad("chosen is rejected", C, {"prompt": "1", "chosen": "2", "rejected": "2"}, "chosen and rejected are the same"),
    bad("missing rejected", C, {"prompt": "1", "chosen": "2"}, "no 'rejected'", '"rejected": "6"'),
    bad(
        "scores reversed", C, {**GOOD[C], "score_chosen": 1, "score_rejected": 2.5},
        "score_chosen is 1 and score_rejected is 2.5", "Fix: --columns chosen=rejected rejected=chosen",
    ),
    bad("label of another number", U, {"prompt": "1", "completion": "2", "label": 2}, "label is 2 of type int"),
    bad("label no bool", U, {"prompt": "1", "completion": "2", "label": "good"}, "label is 'good'", "true for a good"),
    bad("broken JSON line", P, b'{"prompt": "1+1=}', "not JSON", "at column"),
    bad("HTML page", P, b"<!DOCTYPE html><html>", "not JSON", "a web page", "Fix: download the file itself"),
    bad("no object", P, b'"1+1="', "a str, wanted an object"),
    bad("nested > 100 deep", P, {"prompt": "1", "info": nested(101)}, "info", "nested too deep"),
    bad("nested 100,000 deep", P, b'{"prompt": ' + b"[" * 100_000 + b"]" * 100_000 + b"}", "nested too deep"),
    bad("answers in two forms", D, {"prompt": "1", "completion": [ASSISTANT]}, "prompt is text", "as messages"),
    bad("no turn to learn", D, {"prompt": [USER], "completion": [USER]}, "completion[0]", "the assistant's turn"),
]  # fmt: skip


def line_of(row: Any) -> bytes:
    return (row if isinstance(row, bytes) else json.dumps(row).encode()) + b"\n"


@pytest.mark.parametrize(("kind", "row", "said"), BAD)
def test_a_bad_row_is_named_or_skipped_alone(tmp_path: Path, kind: Any, row: Any, said: tuple[str, ...]) -> None:
    path = tmp_path / "rows.jsonl"
    path.write_bytes(line_of(GOOD[kind]) + b"\n" + line_of(row) + line_of(GOOD[kind]) * 2)
    with pytest.raises(DataError) as caught:
        open_data(str(path), kind)
    message = str(caught.value)
    assert message.startswith(f"{path}:3: ") and "Fix: " in message
    assert all(part in message for part in said), message
    assert len(message) < 500 + len(str(path)), "a message that fits a terminal"
    data = open_data(str(path), kind, reading=Reading(on_bad_row="skip"))
    assert data.skipped == 1 and list(data.rows) == [GOOD[kind]] * 3
    assert [data.where(place) for place in range(3)] == [f"{path}:{line}" for line in (1, 4, 5)]
    assert f"1 of 4 rows skipped: {path}:3: " in data.notes[-1]


@pytest.mark.parametrize(("kind", "row", "said"), [item for item in BAD if not isinstance(item.values[1], bytes)])
def test_the_same_rows_from_python(kind: Any, row: Any, said: tuple[str, ...]) -> None:
    rows = [GOOD[kind], row, GOOD[kind]]
    with pytest.raises(DataError) as caught:
        from_rows(rows, kind)
    assert str(caught.value).startswith("data[1]: ") and all(part in str(caught.value) for part in said)
    assert list(from_rows(rows, kind, reading=Reading(on_bad_row="skip")).rows) == [GOOD[kind]] * 2


LEGAL = [
    pytest.param({**GOOD[P], "extra": {"a": [1, None]}}, id="extra keys"),
    pytest.param({"prompt": "1", "id": 7}, id="duplicate ids, and an answer missing"),
    pytest.param({"prompt": "1", "answer": 2}, id="answer as number beside answers as text"),
    pytest.param({"prompt": "x" * 10_000_000}, id="10 MB prompt"),
    pytest.param({"prompt": "<|im_end|><eos>"}, id="special tokens inside text"),
    pytest.param({"prompt": "1", "tests": "assert f(1) == 2"}, id="tests not a list: the reward's affair"),
    pytest.param({"prompt": [SYSTEM, USER, ASSISTANT, USER]}, id="a conversation"),
    pytest.param({"prompt": "1", "deep": nested(99)}, id="nested 99 deep"),
]


@pytest.mark.parametrize("row", LEGAL)
def test_legal_rows_stay_as_they_are(tmp_path: Path, row: dict[str, Any]) -> None:
    path = tmp_path / "rows.jsonl"
    wanted = [GOOD[P], {"prompt": "0", "id": 7, "answer": "2", "tests": []}, row]
    path.write_bytes(b"".join(map(line_of, wanted)))
    assert list(open_data(str(path), P).rows) == wanted


def test_byte_order_mark_and_crlf_are_legal(tmp_path: Path) -> None:
    path = tmp_path / "rows.jsonl"
    path.write_bytes(b"\xef\xbb\xbf" + (line_of(GOOD[P]) * 2).replace(b"\n", b"\r\n"))
    assert list(open_data(str(path), P).rows) == [GOOD[P]] * 2


@pytest.mark.parametrize(
    ("messages", "said"),
    [([], "messages is an empty list"), (USER, "messages is .* of type dict"), ([USER], "no turn of the assistant")],
)
def test_bad_conversations_are_named(messages: Any, said: str) -> None:
    good = {"messages": [USER, ASSISTANT]}
    with pytest.raises(DataError, match=rf"data\[1\]: .*{said}"):
        from_rows([good, {"messages": messages}, good], D)


def test_an_answer_need_not_repeat_the_prompt_but_without_one_both_begin_alike() -> None:
    assert from_rows([GOOD[C]], C).rows[0]["chosen"] == "2"
    rows = [{"chosen": "Q: 1+1? A: 2", "rejected": "Q: 1+1? A: 3"}, {"chosen": "2", "rejected": "3"}]
    with pytest.raises(DataError, match=r"data\[1\]: there is no prompt, and chosen \('2'\).*Fix: a column prompt"):
        from_rows(rows, C)


def test_a_truncated_last_line_is_named(tmp_path: Path) -> None:
    path = tmp_path / "rows.jsonl"
    path.write_bytes(line_of(GOOD[P]) + line_of(GOOD[P])[:12])
    with pytest.raises(DataError, match=r"rows\.jsonl:2: not JSON"):
        open_data(str(path), P)


@pytest.mark.parametrize("name", ["rows.jsonl.gz", "rows.jsonl.zst"])
def test_a_truncated_archive_is_named(tmp_path: Path, monkeypatch, name: str) -> None:
    import zstandard

    monkeypatch.setenv("HF_DATASETS_CACHE", str(tmp_path / "cache"))
    path = tmp_path / name
    content = b"".join(line_of({"prompt": f"{number}+{number * 7919 % 10007}="}) for number in range(5000))
    packed = gzip.compress(content) if name.endswith(".gz") else zstandard.compress(content)
    path.write_bytes(packed)
    assert len(open_data(str(path), P).rows) == 5000
    path.write_bytes(packed[: len(packed) // 2])
    with pytest.raises(DataError, match=rf"{name}:\d+: cannot be unpacked .* cut off or damaged. Fix: download"):
        open_data(str(path), P)
    path.write_bytes(b"no archive")
    with pytest.raises(DataError, match=rf"{name}:1: cannot be unpacked"):
        open_data(str(path), P)
    assert list((tmp_path / "cache").iterdir()) == []


def test_shards_of_another_schema_are_named(tmp_path: Path) -> None:
    paths = [tmp_path / f"{number}.parquet" for number in range(3)]
    for path, answer in zip(paths, ("2", 2, None), strict=True):
        parquet.write_table(
            pa.Table.from_pylist([{"prompt": "1", **({} if answer is None else {"answer": answer})}]), path
        )
    with pytest.raises(
        DataError, match=r"1\.parquet: the column 'answer' is int64, and in .*0\.parquet string.* Fix: "
    ):
        open_data(",".join(map(str, paths[:2])), P)
    with pytest.raises(DataError, match=r"2\.parquet: the column 'answer' is missing"):
        open_data(f"{paths[0]},{paths[2]}", P)
    paths[0].write_bytes(b"<html>")
    with pytest.raises(DataError, match=r"0\.parquet: not a parquet file"):
        open_data(str(paths[0]), P)


def test_no_row_left_is_an_error_and_one_row_is_enough(tmp_path: Path) -> None:
    path = tmp_path / "rows.jsonl"
    path.write_bytes(line_of({"prompt": ""}) * 3)
    with pytest.raises(DataError, match=r"no usable row: all 3 are bad. The first: .*rows\.jsonl:1: prompt is empty"):
        open_data(str(path), P, reading=Reading(on_bad_row="skip"))
    path.write_bytes(line_of(GOOD[P]))
    assert len(open_data(str(path), P).rows) == 1


def test_dates_and_decimals_become_text_and_other_objects_are_refused() -> None:
    row = {"prompt": "1", "when": datetime(2026, 1, 2, 3), "price": Decimal("1.50"), "all": [Decimal("2")]}
    wanted = {"prompt": "1", "when": "2026-01-02T03:00:00", "price": "1.50", "all": ["2"]}
    assert list(from_rows([row], P).rows) == [wanted]
    with pytest.raises(DataError, match=r"data\[0\]: image is b'x' of type bytes; wanted text, numbers"):
        from_rows([{"prompt": "1", "image": b"x"}], P)
    with pytest.raises(DataError, match=r"data\[0\]: share is nan, which is not a number"):
        from_rows([{"prompt": "1", "share": float("nan")}], P)


def test_all_skipped_rows_are_counted_and_five_named(tmp_path: Path) -> None:
    path = tmp_path / "rows.jsonl"
    path.write_bytes(line_of(GOOD[P]) + line_of({"prompt": ""}) * 40)
    data = open_data(str(path), P, reading=Reading(on_bad_row="skip"))
    assert data.skipped == 40 and data.notes[-1].count(str(path)) == 6 and data.notes[-1].endswith(", …")
