"""Rows as items on disk, encoded together: the same as one row after another, in memory that does not grow."""

import tracemalloc
from pathlib import Path
from random import Random

import pytest
from tokenizers import Tokenizer, models
from transformers import PreTrainedTokenizerFast

from chat_models import STYLES, chat_tokenizer
from oneloop.errors import DataError
from oneloop.experience.pairs import Pair
from oneloop.experience.ratings import Rated
from oneloop.experience.stream import Stream
from oneloop.model import text as text_module
from oneloop.model.load import load_tokenizer
from oneloop.model.text import Text
from oneloop.recipes import items, stored
from oneloop.recipes.stored import Stored
from oneloop.seeds import named_seed
from oneloop.types import Prompt

MARKED = (
    "{% for m in messages %}[{{ m.role }}]{% if m.role == 'assistant' %}{% generation %}{{ m.content }}{{ eos_token }}"
    "{% endgeneration %}{% else %}{{ m.content }}{% endif %}{% endfor %}"
    "{% if add_generation_prompt %}[assistant]{% endif %}"
)
"""A template that says itself what is generated."""
COLUMNS = {"prompts": (), "unpaired": ("completion",), "preferences": ("chosen", "rejected")}


def merging() -> PreTrainedTokenizerFast:
    """Of single characters, and "1+" as one token: an answer may begin inside it."""
    vocabulary = {character: number for number, character in enumerate("0123456789+= <>")} | {"1+": 15, "<e>": 16}
    tokenizer = PreTrainedTokenizerFast(
        tokenizer_object=Tokenizer(models.BPE(vocabulary, [("1", "+")])), eos_token="<e>"
    )
    tokenizer.chat_template = MARKED.replace("[", "").replace("]", "=")
    return tokenizer


def text_of(name: str) -> Text:
    if name in STYLES:
        tokenizer = chat_tokenizer(name)
    elif name == "merging":
        tokenizer = merging()
    else:
        tokenizer = load_tokenizer("scratch:tiny")
        tokenizer.chat_template = MARKED
    return Text(tokenizer, (tokenizer.eos_token_id,))  # pyright: ignore[reportArgumentType]


def turns(*said: str) -> list[dict]:
    return [{"role": ("user", "assistant")[n % 2], "content": word} for n, word in enumerate(said)]


ASKED: list = ["1+1=", "2=1", turns("2+2=", "<think>9</think>4", "3+3="), turns("7"), "1+1="]
ANSWERED: list = [("2", "3"), ("+1", "1"), (turns("", "6")[1:], turns("", "66")[1:]), ("7", "8"), ("2", "4")]
ROWS = [
    {"prompt": asked, "completion": good, "chosen": good, "rejected": bad, "label": n % 2 == 0, "more": [n, {"x": 0.5}]}
    for n, (asked, (good, bad)) in enumerate(zip(ASKED, ANSWERED, strict=True))
]
SHOWN = [
    *({name: row[name] for name in ("prompt", "completion")} for row in ROWS),
    {"text": "1+2=3"},
    {"messages": turns("1+1=", "<think>1</think>2", "2+1=", "3")},
    {"messages": turns("5", "5", "6"), "tools": [{"name": "t"}]},
    {"messages": turns("5", "5", "6")},
]
TWICE = {"messages": [*turns("5", "5"), {"role": "assistant", "content": "6"}]}
"""An answer after an answer: the same turns are shown as a whole and with a turn that begins."""


def shown(text: Text) -> list[dict]:
    return SHOWN if "alternate" in str(text.tokenizer.chat_template) else [*SHOWN, TWICE]


def one_by_one(kind: str, text: Text) -> list:
    """What `items` gives where nothing is cut: each row by itself."""
    if kind == "demonstrations":
        return [turn for row in shown(text) for turn in text.demonstrations(row) if any(turn.trained)]
    found = []
    for number, row in enumerate(ROWS):
        ids, answers = text.answers(row, COLUMNS[kind])
        if kind == "preferences":
            found.append(Pair(ids, answers[0], answers[1]))
        elif kind == "unpaired":
            found.append(Rated(ids, answers[0], row["label"]))
        else:
            _, read = text.prompt(row["prompt"])
            columns = {name: value for name, value in row.items() if name != "prompt"}
            messages = None if isinstance(row["prompt"], str) else tuple(row["prompt"])
            found.append(Prompt(id=str(number), text=read, tokens=ids, columns=columns, messages=messages))
    return found


def together(kind: str, text: Text) -> Stored:
    if kind == "demonstrations":
        return items.demonstrations(shown(text), text, None)[0]
    if kind == "prompts":
        return items.prompts(ROWS, text, None, 5)[0]
    return (items.pairs if kind == "preferences" else items.unpaired)(ROWS, text, None)[0]


@pytest.mark.parametrize("kind", ["demonstrations", *COLUMNS])
@pytest.mark.parametrize("name", [*STYLES, "marked", "merging"])
def test_rows_encoded_together_are_rows_one_by_one(name: str, kind: str, monkeypatch) -> None:
    monkeypatch.setattr(text_module, "TOGETHER", 3)
    monkeypatch.setattr(stored, "IN_MEMORY", 400)
    apart, batched = text_of(name), text_of(name)
    kept = together(kind, batched)
    assert list(kept) == one_by_one(kind, apart) and len(kept) > 4
    assert batched.notes == apart.notes
    assert not batched.chat.written, "nothing is remembered behind the last row"
    if name == "merging" and kind != "prompts":
        assert any("begin inside a token" in note for note in batched.notes), "the case is there"


@pytest.mark.parametrize("kind", ["demonstrations", *COLUMNS])
@pytest.mark.parametrize("characters", [1_000_000, 40])
def test_every_text_is_foreseen(kind: str, characters: int, monkeypatch) -> None:
    """The tokenizer is asked for a list of texts; alone only for what a template has no end for."""
    monkeypatch.setattr(text_module, "CHARACTERS", characters)
    text, alone, lists = text_of("llama3"), [], []
    assert text.chat.turn_end and text.chat.bos is not None  # asked once, not of the rows
    asked = type(text.tokenizer)._encode_plus

    def counted(self, text, **settings):
        (lists if isinstance(text, list) else alone).append(text)
        return asked(self, text, **settings)

    monkeypatch.setattr(type(text.tokenizer), "_encode_plus", counted)
    together(kind, text)
    assert alone == [] and (len(lists) <= 2 if characters > 40 else len(lists) > 2)


def test_a_row_that_cannot_be_encoded_is_named_and_the_first_one_is() -> None:
    """As in a loop over the rows, also where a later row of the same batch is refused for another reason."""
    rows = [{"prompt": "1" * n, "completion": "2"} for n in (3, 30, 4)] + [{"prompt": turns("1"), "completion": "2"}]
    text = Text(load_tokenizer("scratch:tiny"), (1,))
    with pytest.raises(DataError, match=r"row 4: the row is a list of messages, but the tokenizer has no chat"):
        items.demonstrations(rows, text, 10, "skip")
    with pytest.raises(DataError, match=r"row 2: prompt and completion exceed the model's context of 10 tokens"):
        items.demonstrations(rows, text, 10)


def test_rows_that_were_left_out_are_counted_and_the_first_five_named() -> None:
    rows = [{"prompt": "1" * 30, "completion": "2"}] * 7 + [{"prompt": "1", "completion": "2"}]
    kept, long = items.demonstrations(rows, Text(load_tokenizer("scratch:tiny"), (1,)), 10, "skip")
    assert len(kept) == 1
    assert str(long).startswith("7 of 8 rows skipped (row 1, row 2, row 3, row 4, row 5, …): prompt and completion")


def test_items_move_to_a_nameless_file_and_stay_what_they_were(tmp_path: Path, monkeypatch) -> None:
    monkeypatch.setenv("HF_DATASETS_CACHE", str(tmp_path))
    monkeypatch.setattr(stored, "IN_MEMORY", 5_000)
    kept: Stored[tuple[int, ...]] = Stored(list, tuple)
    wanted = [tuple(range(n % 300)) for n in range(200)]
    for number, item in enumerate(wanted):
        kept.add(item)
        assert kept[number] == item and kept[0] == wanted[0], "what is there can be read while more is added"
    assert list(kept) == wanted and kept[-1] == wanted[-1] and kept[3:6] == wanted[3:6] and len(kept) == 200
    with pytest.raises(IndexError):
        kept[200]
    assert not list(tmp_path.iterdir()), "no name, so nothing stays behind"


def test_an_item_takes_eight_bytes_of_memory(monkeypatch) -> None:
    """tracemalloc counts blocks of Python: 3000 rows of 40 tokens are 2.5 MB as tuples of ids and flags."""
    monkeypatch.setattr(stored, "IN_MEMORY", 0)
    rows = [{"prompt": f"{n}+" * 8, "completion": f"{n}"} for n in range(3000)]
    text = Text(load_tokenizer("scratch:tiny"), (1,))
    items.demonstrations(rows[:2], text, None)
    tracemalloc.start()
    kept, _ = items.demonstrations(rows, text, None)
    size, _ = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert len(kept) == 3000 and size < 3000 * 24 + 500_000, "the rest is one batch's"


def test_the_order_of_an_epoch_takes_eight_bytes_a_row_and_is_that_of_a_shuffled_list() -> None:
    count = 50_000
    wanted = list(range(count))
    Random(named_seed(3, "order", 0)).shuffle(wanted)
    tracemalloc.start()
    stream = Stream(range(count), seed=3)
    stream.take(1)
    size, _ = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert size < 12 * count
    assert [wanted[0], *stream.take(count - 1)] == wanted


def test_without_room_the_folder_and_a_way_out_are_named(tmp_path: Path, monkeypatch) -> None:
    monkeypatch.setattr(stored, "IN_MEMORY", 10)
    monkeypatch.setattr(stored, "scratch", lambda: str(tmp_path / "missing"))
    rows = [{"prompt": "1", "completion": "2"}]
    with pytest.raises(DataError, match=r"row 1: .*missing: No such file.*Fix: make room, or set HF_DATASETS_CACHE"):
        items.demonstrations(rows, Text(load_tokenizer("scratch:tiny"), (1,)), None)


def test_a_value_that_cannot_be_written_down_names_its_row() -> None:
    rows = [{"prompt": "1", "kind": "one"}, {"prompt": "1", "kind": {"one"}}]
    with pytest.raises(DataError, match=r"row 2: a value cannot be kept on disk .*set.*Fix: plain text or numbers"):
        items.prompts(rows, Text(load_tokenizer("scratch:tiny"), (1,)), None, 5)
