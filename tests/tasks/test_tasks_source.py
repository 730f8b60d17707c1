"""Data files: every row is checked before it is used, and a bad one is named by file, line and column."""

import json
from pathlib import Path

import pytest

from oneloop.errors import ConfigError, DataError
from oneloop.tasks import TASKS
from oneloop.tasks.source import COLUMNS, EXAMPLES, fingerprint, load_rows

P, D, C = "prompts", "demonstrations", "preferences"
GOOD = b'{"prompt": "1+1=", "completion": "2", "chosen": "2", "rejected": "3"}\n'


def bad(line: str | bytes, kind: str, *said: str):
    return pytest.param(line.encode() if isinstance(line, str) else line, kind, said, id=f"{kind}-{str(line)[:40]}")


BAD_ROWS = [
    bad("{not json", P, "not JSON", "column 2", "{not json"),
    bad('{"prompt": "1+1="', P, "not JSON"),  # a torn last line
    bad("<!DOCTYPE html><html>", P, "not JSON", "<!DOCTYPE html>"),
    bad("{'prompt': '1+1='}", P, "not JSON"),
    bad('{"prompt": "a\tb"}', P, "not JSON", "control character"),
    bad('["1+1="]', P, "a list", "wanted an object", '{"prompt": "2+3='),
    bad('"1+1="', P, "a str", "wanted an object"),
    bad("null", P, "a NoneType", "wanted an object"),
    bad("3", P, "a int", "wanted an object"),
    bad("{}", P, "columns []", "no 'prompt'"),
    bad('{"question": "1+1=", "answer": 2}', P, "columns ['answer', 'question']", "no 'prompt'", '{"prompt": "2+3='),
    bad('{"prompt": "1+1="}', D, "no 'completion'", '"completion": "5"'),
    bad('{"prompt": "1+1=", "chosen": "2"}', C, "no 'rejected'", '"rejected": "6"'),
    bad('{"completion": "2"}', D, "no 'prompt'"),
    bad('{"prompt": null}', P, "prompt is None", "NoneType", "wanted text, or a list of messages"),
    bad('{"prompt": 12}', P, "prompt is 12 of type int"),
    bad('{"prompt": true}', P, "of type bool"),
    bad('{"prompt": {"role": "user", "content": "hi"}}', P, "of type dict", "list of messages"),
    bad('{"prompt": ""}', P, "prompt is empty"),
    bad('{"prompt": " \\n\\t"}', P, "prompt is empty"),
    bad('{"prompt": "\\u2003\\u00a0"}', P, "prompt is empty"),
    bad('{"prompt": "1+1=", "completion": 2}', D, "completion is 2 of type int", "wanted text"),
    bad('{"prompt": "1+1=", "completion": [{"role": "assistant"}]}', D, "completion[0]", "wanted"),
    bad('{"prompt": "1+1=", "completion": ""}', D, "completion is empty"),
    bad('{"prompt": "1+1=", "chosen": "2", "rejected": " "}', C, "rejected is empty"),
    bad('{"prompt": "1+1=", "chosen": "2", "rejected": "2"}', C, "chosen and rejected are the same", "'2'"),
    bad('{"prompt": []}', P, "empty list of messages"),
    bad('{"prompt": ["hi"]}', P, "prompt[0] is 'hi'", '"role": "user"'),
    bad('{"prompt": [{"role": "user"}]}', P, "prompt[0]", "wanted"),
    bad('{"prompt": [{"content": "hi"}]}', P, "prompt[0]", "wanted"),
    bad('{"prompt": [{"role": "user", "content": "hi"}, {"role": 1, "content": "x"}]}', P, "prompt[1]"),
    bad('{"prompt": [{"role": "user", "content": null}]}', P, "prompt[0]"),
    bad('{"prompt": [{"role": "user", "content": " "}]}', P, "no message has content"),
    bad('{"prompt": [{"role": "user", "content": "a\\u0000b"}]}', P, "prompt[0]: content contains a NUL"),
    bad('{"prompt": "a\\u0000b"}', P, "prompt contains a NUL"),
    bad(b'{"prompt": "a\x00b"}', P, "not JSON"),
    bad('{"prompt": "a", "answer": "\\u0000"}', P, "answer contains a NUL"),
    bad('{"prompt": "a \\ud83d b"}', P, "prompt contains half of a surrogate pair"),
    bad('{"prompt": "a", "info": {"note": ["\\udc00"]}}', P, "info: note[0] contains half"),
    bad('{"prompt": "a", "\\ud800": 1}', P, "the name of a column contains half"),
    bad('{"prompt": "a", "answer": NaN}', P, "NaN is not a number in JSON"),
    bad('{"prompt": "a", "answer": -Infinity}', P, "-Infinity is not a number"),
    bad('{"prompt": "a", "answer": 1e999}', P, "1e999 is too large"),
    bad('{"prompt": "a", "answer": ' + "9" * 5000 + "}", P, "digits", "Fix"),
    bad('{"prompt": ' + "[" * 100_000 + "]" * 100_000 + "}", P, "nested too deep"),
    bad(b'{"prompt": "caf\xe9"}', P, "is not UTF-8", "Fix: save the file as UTF-8"),
    bad(b"\x1f\x8b\x08\x00compressed", P, "is not UTF-8"),
]


@pytest.mark.parametrize(("line", "kind", "said"), BAD_ROWS)
def test_a_bad_row_is_named(tmp_path: Path, line: bytes, kind, said: tuple[str, ...]) -> None:
    path = tmp_path / "rows.jsonl"
    path.write_bytes(GOOD + b"\n" + line + b"\n" + GOOD)
    with pytest.raises(DataError) as caught:
        load_rows(str(path), kind)
    message = str(caught.value)
    assert message.startswith(f"{path}:3: ")
    assert all(part in message for part in said), message
    assert len(message) < 400 + len(str(path)), "a message that fits a terminal"
    message.encode()


GOOD_FILES = [
    pytest.param(GOOD, 1, id="plain"),
    pytest.param(GOOD.rstrip(), 1, id="no newline at the end"),
    pytest.param(b"\xef\xbb\xbf" + GOOD, 1, id="byte order mark"),
    pytest.param((GOOD * 2).replace(b"\n", b"\r\n"), 2, id="CRLF"),
    pytest.param(b"\n \n" + GOOD + b"\n\t\n" + GOOD + b"\n\n", 2, id="blank lines"),
    pytest.param(GOOD.replace(b"1+1=", "a\u2028b\x85é".encode()), 1, id="U+2028"),
]  # fmt: skip


@pytest.mark.parametrize("kind", [P, D, C])
@pytest.mark.parametrize(("content", "count"), GOOD_FILES)
def test_good_files_are_read(tmp_path: Path, content: bytes, count: int, kind) -> None:
    path = tmp_path / "rows.jsonl"
    path.write_bytes(content)
    rows = load_rows(str(path), kind, size=1, seed=5)
    assert len(rows) == count
    assert set(COLUMNS[kind]) <= set(rows[0])


def test_columns_are_kept_as_they_are(tmp_path: Path) -> None:
    row = {
        "prompt": [{"role": "system", "content": ""}, {"role": "user", "content": "1+1=", "name": "ann"}],
        "answer": 2, "share": 0.5, "info": {"tags": ["a", None, True]}, "extra": None,
    }  # fmt: skip
    path = tmp_path / "rows.jsonl"
    path.write_text(json.dumps(row), encoding="utf-8")
    assert load_rows(str(path), P) == [row]


@pytest.mark.parametrize("kind", [P, D, C])
def test_the_example_lines_are_valid(tmp_path: Path, kind) -> None:
    path = tmp_path / "rows.jsonl"
    path.write_text(EXAMPLES[kind], encoding="utf-8")
    assert load_rows(str(path), kind) == [json.loads(EXAMPLES[kind])]


@pytest.mark.parametrize("content", [b"", b"\n", b" \r\n\t\n", b"\xef\xbb\xbf"])
def test_a_file_without_rows_is_refused(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "rows.jsonl"
    path.write_bytes(content)
    with pytest.raises(DataError, match=r"has no rows\. Wanted lines such as \{"):
        load_rows(str(path), P)


def test_a_missing_file_is_refused_with_its_neighbours(tmp_path: Path) -> None:
    for name in ("train.jsonl", "other.jsonl", "notes.txt"):
        (tmp_path / name).write_bytes(GOOD)
    with pytest.raises(DataError, match=r"trian\.jsonl: no such file .*There is: train\.jsonl"):
        load_rows(str(tmp_path / "trian.jsonl"), P)
    with pytest.raises(DataError, match=r"There is: other\.jsonl, train\.jsonl\."):
        load_rows(str(tmp_path / "zzz"), P)
    with pytest.raises(DataError, match=r"There is no folder .*nowhere either"):
        load_rows(str(tmp_path / "nowhere" / "train.jsonl"), P)


@pytest.mark.parametrize("spec", [".", "a\0b", "x" * 300])
def test_paths_that_are_no_file(spec: str) -> None:
    with pytest.raises(DataError, match=r"is a folder|cannot be read"):
        load_rows(spec, P)


def test_a_task_named_like_a_path_is_pointed_out() -> None:
    with pytest.raises(DataError, match="Fix: --data task:addition"):
        load_rows("addition", P)


@pytest.mark.parametrize(("name", "near"), [("adition", "addition"), ("chainsum", "chain_sum"), ("", "")])
def test_an_unknown_task_is_refused_with_the_nearest_name(name: str, near: str) -> None:
    with pytest.raises(ConfigError, match=rf"--data task:{name}: .*Did you mean task:{near}"):
        load_rows(f"task:{name}", P)


@pytest.mark.parametrize("kind", [P, D, C])
@pytest.mark.parametrize("name", TASKS)
def test_rows_of_a_task_pass_the_checks_of_a_file(tmp_path: Path, name: str, kind) -> None:
    rows = load_rows(f"task:{name}", kind, split="test", size=30, seed=1)
    path = tmp_path / "rows.jsonl"
    path.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    assert load_rows(str(path), kind) == rows == getattr(TASKS[name], kind)(30, 1, "test")


def test_a_fingerprint_sees_values_types_and_order_but_not_the_order_of_columns() -> None:
    rows = [{"prompt": "1+1=", "answer": 2}, {"prompt": "é", "answer": None}]
    same = [dict(reversed(row.items())) for row in rows]
    assert fingerprint(rows) == fingerprint(same)
    others = [rows[::-1], rows[:1], [*rows, rows[0]], [{**rows[0], "answer": "2"}, rows[1]], []]
    assert len({fingerprint(rows), *map(fingerprint, others)}) == 6
    # the formula itself: a folder of runs must stay resumable
    assert fingerprint([]) == "4f53cda18c2baa0c0354bb5f9a3ecbe5ed12ab4d8e11ba873c2f11161202b945"
