"""Every column layout of docs/data.md, from real files: detected, said, and turned into one form."""

import json
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest
from pyarrow import parquet

from oneloop.data import Reading, from_rows, open_data
from oneloop.errors import ConfigError, DataError

P, D, C, U = "prompts", "demonstrations", "preferences", "unpaired"
USER, ASSISTANT = {"role": "user", "content": "1+1="}, {"role": "assistant", "content": "2"}
WRONG = {"role": "assistant", "content": "3"}
TOOL = {"type": "function", "function": {"name": "add", "parameters": {"a": {"type": "number"}}}}


def layout(name: str, kind: str, row: dict[str, Any], wanted: dict[str, Any], said: str):
    return pytest.param(kind, row, wanted, said, id=name)


def same(name: str, kind: str, row: dict[str, Any], said: str):
    return layout(name, kind, row, row, said)


VERL = {
    "data_source": "gsm8k", "prompt": [USER], "ability": "math",
    "reward_model": {"style": "rule", "ground_truth": "2"}, "extra_info": {"split": "train", "index": 0},
}  # fmt: skip
LAYOUTS = [
    same("text", D, {"text": "1+1=2"}, "'text' (text), because of text"),
    same("messages", D, {"messages": [USER, ASSISTANT]}, "'conversations' (messages), because of messages"),
    layout(
        "messages with tools as JSON", D, {"messages": [USER, ASSISTANT], "tools": json.dumps([TOOL])},
        {"messages": [USER, ASSISTANT], "tools": [TOOL]}, "because of messages",
    ),
    same("prompt-completion", D, {"prompt": "1+1=", "completion": "2"}, "because of prompt, completion"),
    same("prompt-completion, messages", D, {"prompt": [USER], "completion": [ASSISTANT]}, "(messages)"),
    layout("query-response", D, {"query": "1+1=", "response": "2"}, {"prompt": "1+1=", "completion": "2"}, "query"),
    layout("OpenRLHF SFT", D, {"input": "1+1=", "output": "2"}, {"prompt": "1+1=", "completion": "2"}, "'OpenRLHF'"),
    layout(
        "question-answer", D, {"question": "1+1=", "answer": "2"}, {"prompt": "1+1=", "completion": "2"},
        "answer is read as completion",
    ),
    same("prompt-only", P, {"prompt": "1+1=", "answer": 2}, "because of prompt; other columns: answer"),
    same("prompt-only, messages", P, {"prompt": [USER], "answer": 2}, "(messages)"),
    layout("verl", P, VERL, {**VERL, "ground_truth": "2"}, "'verl' (messages), because of prompt, reward_model"),
    layout("OpenRLHF input", P, {"input": "1+1=", "label": "2"}, {"prompt": "1+1=", "label": "2"}, "'OpenRLHF'"),
    same("OpenRLHF prompt", P, {"prompt": "1+1=", "label": "2"}, "other columns: label"),
    layout(
        "verifiers", P, {"question": "1+1=", "answer": "2", "info": '{"level": 1}'},
        {"prompt": "1+1=", "answer": "2", "info": {"level": 1}}, "question is read as prompt",
    ),
    layout(
        "reasoning-gym", P, {"question": "1+1=", "answer": "2", "metadata": {"n": 2}},
        {"prompt": "1+1=", "answer": "2", "metadata": {"n": 2}}, "'verifiers and reasoning-gym'",
    ),
    same("preference", C, {"prompt": "1+1=", "chosen": "2", "rejected": "3"}, "because of prompt, chosen, rejected"),
    same("preference, messages", C, {"prompt": [USER], "chosen": [ASSISTANT], "rejected": [WRONG]}, "(messages)"),
    layout(
        "preference, prompt inside, messages", C, {"chosen": [USER, ASSISTANT], "rejected": [USER, WRONG]},
        {"prompt": [USER], "chosen": [ASSISTANT], "rejected": [WRONG]}, "the prompt is what both answers begin with",
    ),
    layout(
        "preference, prompt inside, text", C, {"chosen": "What is 1+1? It is 2", "rejected": "What is 1+1? It is 3"},
        {"prompt": "What is 1+1? It is", "chosen": " 2", "rejected": " 3"}, "the prompt is what both",
    ),
    layout(
        "preference, answers that begin with the same letters", C,
        {"chosen": "Grass is green", "rejected": "Grass is grey"},
        {"prompt": "Grass is", "chosen": " green", "rejected": " grey"}, "the prompt is what both",
    ),
    layout(
        "hh-rlhf", C,
        {"chosen": "\n\nHuman: 1+1?\n\nAssistant: It is 2", "rejected": "\n\nHuman: 1+1?\n\nAssistant: It is 3"},
        {"prompt": "\n\nHuman: 1+1?\n\nAssistant:", "chosen": " It is 2", "rejected": " It is 3"}, "the prompt is",
    ),
    layout(
        "ultrafeedback_binarized", C, {"prompt": "1+1=", "chosen": [USER, ASSISTANT], "rejected": [USER, WRONG]},
        {"prompt": [USER], "chosen": [ASSISTANT], "rejected": [WRONG]}, "because of prompt, chosen, rejected",
    ),
    same("unpaired", U, {"prompt": "1+1=", "completion": "2", "label": True}, "because of prompt, completion, label"),
    layout(
        "unpaired, 1 and 0", U, {"prompt": "1+1=", "completion": "2", "label": 0},
        {"prompt": "1+1=", "completion": "2", "label": False}, "'unpaired'",
    ),
    layout(
        "unpaired, labels as text", U, {"prompt": "1+1=", "completion": "2", "label": "False"},
        {"prompt": "1+1=", "completion": "2", "label": False}, "'unpaired'",
    ),
]  # fmt: skip


@pytest.fixture(autouse=True)
def cache(tmp_path: Path, monkeypatch) -> None:
    monkeypatch.setenv("HF_DATASETS_CACHE", str(tmp_path / "cache"))


@pytest.mark.parametrize(("kind", "row", "wanted", "said"), LAYOUTS)
def test_a_layout_is_told_from_its_columns(tmp_path: Path, kind: Any, row, wanted, said: str) -> None:
    path = tmp_path / "rows.jsonl"
    path.write_text(json.dumps(row) + "\n" + json.dumps(row), encoding="utf-8")
    data = open_data(str(path), kind)
    assert list(data.rows) == [wanted] * 2 and data.kind == kind
    assert data.notes[0].startswith(f"{path}: {kind} in the layout '") and said in data.notes[0]
    assert data.conversational == any(isinstance(value, list) for name, value in wanted.items() if name != "tools")


@pytest.mark.parametrize(("kind", "row", "wanted", "said"), LAYOUTS)
def test_the_same_from_parquet_and_from_python(tmp_path: Path, kind: Any, row, wanted, said: str) -> None:
    assert list(from_rows([row], kind).rows) == [wanted]
    path = tmp_path / "rows.parquet"
    parquet.write_table(pa.Table.from_pylist([row]), path)
    data = open_data(str(path), kind)
    assert list(data.rows) == [wanted] and data.where(0) == f"{path} row 1"


def test_columns_of_one_kind_do_not_pass_for_another() -> None:
    """Conversations beside a prompt, as in ultrachat: one of them is taken, and that is said."""
    row = {"prompt": "1+1=", "completion": "2", "messages": [USER, ASSISTANT], "id": 1}
    data = from_rows([row], D)
    assert list(data.rows) == [{"messages": [USER, ASSISTANT], "id": 1}]
    assert "prompt, completion would fit too" in data.notes[0]


def test_nulls_that_columns_put_into_messages_are_taken_out(tmp_path: Path) -> None:
    """parquet gives every message the keys of all others."""
    call = {"role": "assistant", "content": None, "tool_calls": [{"name": "add", "arguments": {"a": 1}}]}
    other = {"role": "assistant", "content": None, "tool_calls": [{"name": "sin", "arguments": {"x": 2}}]}
    rows = [{"messages": [USER, call]}, {"messages": [USER, other]}]
    path = tmp_path / "rows.parquet"
    parquet.write_table(pa.Table.from_pylist(rows), path)
    assert list(open_data(str(path), D).rows) == [
        {"messages": [USER, {**call, "content": ""}]}, {"messages": [USER, {**other, "content": ""}]}
    ]  # fmt: skip


@pytest.mark.parametrize(
    ("row", "kind", "method", "said"),
    [
        ({"instruction": "1+1=", "answer": "2"}, P, "grpo", 'has the columns instruction, answer; grpo needs prompt'),
        ({"instruction": "1+1="}, P, "grpo", "Fix: --columns instruction=prompt"),
        ({"instruction": "1", "output": "2"}, D, "sft", "Fix: --columns instruction=prompt output=completion"),
        ({"prompt": "1", "answer": "2"}, D, "sft", "--columns answer=completion, or a method that learns from prompts"),
        ({"prompt": "1", "chosen": "2", "rejected": "3"}, D, "sft", "or a method that learns from prompts"),
        ({"messages": [USER, ASSISTANT]}, C, "dpo", "needs prompt + chosen + rejected or chosen + rejected. Fix"),
        ({"text": "1"}, P, "", "learning from prompts needs prompt"),
        ({"text": "1"}, P, "", "Fix: a method that learns from demonstrations: sft"),
        ({"a": 1}, P, "ppo", "Fix: --columns OLD=NEW, or another file"),
        ({}, P, "ppo", "no columns"),
    ],
)  # fmt: skip
def test_a_layout_that_does_not_fit_is_refused_in_one_message(row, kind: Any, method: str, said: str) -> None:
    with pytest.raises(DataError) as caught:
        from_rows([row], kind, reading=Reading(method=method))
    assert said in str(caught.value) and "\n" not in str(caught.value)


def test_columns_are_renamed_before_anything_else() -> None:
    rows = [{"q": "1+1=", "good": "2", "bad": "3", "prompt": "kept out"}]
    reading = Reading(columns=("q=prompt", "good=chosen", "bad=rejected"))
    assert list(from_rows(rows, C, reading=reading).rows) == [{"prompt": "1+1=", "chosen": "2", "rejected": "3"}]
    swapped = from_rows([{"prompt": "1", "chosen": "3", "rejected": "2"}], C,
                        reading=Reading(columns=("chosen=rejected", "rejected=chosen")))  # fmt: skip
    assert list(swapped.rows) == [{"prompt": "1", "chosen": "2", "rejected": "3"}]
    with pytest.raises(DataError, match=r"data\[1\]: q is empty"):
        from_rows([*rows, {**rows[0], "q": ""}], P, reading=Reading(columns=("q=prompt",)))


@pytest.mark.parametrize(
    ("columns", "said"),
    [
        (("question",), "--columns question: wanted old=new"),
        (("=prompt",), "wanted old=new"),
        (("a=prompt", "b=prompt"), "two columns would have one name"),
        (("nothing=prompt",), r"--columns nothing=prompt: data has no column 'nothing'; .* question"),
    ],
)
def test_renamings_that_cannot_be_done(columns: tuple[str, ...], said: str) -> None:
    with pytest.raises(ConfigError, match=said):
        from_rows([{"question": "1", "a": "1", "b": "2"}], P, reading=Reading(columns=columns))


def test_a_single_odd_row_does_not_decide() -> None:
    rows = [{"answer": "2"}, {"prompt": "1", "answer": "2"}, {"prompt": "3", "answer": "4"}]
    with pytest.raises(DataError, match=r"data\[0\]: columns \['answer'\], but no 'prompt'"):
        from_rows(rows, P)


def test_columns_say_which_rows_lack_one(tmp_path: Path) -> None:
    """What a reward asks before a model is loaded."""
    path = tmp_path / "rows.jsonl"
    path.write_text('{"prompt": "1", "answer": 1}\n{"prompt": "2"}\n', encoding="utf-8")
    data = open_data(str(path), P)
    assert data.columns == {"prompt"} and data.partial == {"answer"}
    assert data.lacking(["answer"]) == f"{path}:2" and data.lacking(["prompt", "x"]) is None
    assert data.lacking(["solution"]) == f"{path}:1"
