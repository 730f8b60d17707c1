"""`oneloop check` finds what training would refuse, shows what is trained, and needs no weights."""

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from rich.text import Text as Line

from chat_models import STYLES, save_chat_model
from oneloop.cli import checked
from oneloop.cli.checked import marked, one_line, report
from oneloop.cli.main import run as command
from oneloop.config import Run, default_run
from oneloop.errors import ConfigError, DataError, RewardError
from oneloop.model.load import load_described, load_policy, load_tokenizer
from oneloop.model.text import Text, end_ids
from oneloop.recipes import seen
from oneloop.recipes.check import Checked, check
from oneloop.recipes.execute import execute
from oneloop.recipes.seen import View
from oneloop.types import Tokens
from toy_models import Silent

REWARDS = """
import time
def right(completions, answer, **columns):
    return [float(text == wanted) for text, wanted in zip(completions, answer)]
def raising(completions, answer, **columns):
    return [float(text[0] == wanted) for text, wanted in zip(completions, answer)]
def kind(completions, **columns):
    return [1.0] * len(completions)
def blind(completions, **columns):
    return [None] * len(completions)
def deaf(completions, **columns):
    return [0.0] * len(completions)
def needy(completions, solution):
    return [0.0] * len(completions)
def compute_score(data_source, solution_str, ground_truth, extra_info=None):
    time.sleep(0.2)
    return float(solution_str == ground_truth)
"""
USER, SAYS = {"role": "user", "content": "1+1="}, {"role": "assistant", "content": "2"}
ASKED = [{"prompt": f"{n}+1=", "answer": str(n + 1), "ground_truth": str(n + 1)} for n in range(3)]
SHOWN = [{"prompt": f"{n}+1=", "completion": str(n + 1)} for n in range(3)]
PAIR = {"prompt": "1+1=", "chosen": "2", "rejected": "3"}
JINJA = "{% for m in messages %}{{ m.content }}{% if m.role == 'assistant' %}{{ eos_token }}{% endif %}{% endfor %}"


@pytest.fixture
def place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "my.py").write_text(REWARDS)
    (tmp_path / "chat.jinja").write_text(JINJA)
    (tmp_path / "broken.jinja").write_text("{% for")
    return tmp_path


def written(rows: list[dict[str, Any]]) -> str:
    Path("rows.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    return "rows.jsonl"


def run_of(algorithm: str, rows: list[dict[str, Any]], **changes: Any) -> Run:
    run = replace(default_run(algorithm), model="scratch:tiny", data=written(rows), out="run")
    return replace(run, **changes)


PROBLEMS: dict[str, tuple[str, list[dict[str, Any]], dict[str, Any], str]] = {
    "missing column": ("dpo", [{"prompt": "a", "chosen": "b"}], {}, "dpo needs"),
    "missing in one row": ("sft", [*SHOWN, {"prompt": "a"}], {}, "rows.jsonl:4: columns ['prompt'], but no"),
    "no template": ("sft", [{"messages": [USER, SAYS]}] * 2, {}, "--chat-template FILE.jinja with one"),
    "broken template": ("sft", SHOWN, {"chat_template": "broken.jinja"}, "broken.jinja:1: not Jinja"),
    "all too long": ("grpo", ASKED, {"reward": ("my.py:right",), "max_new_tokens": 600}, "Fix: --long-prompts skip"),
    "all too long and left out": (
        "grpo", ASKED, {"reward": ("my.py:right",), "max_new_tokens": 600, "long_prompts": "skip"}, "all 3 rows",
    ),
    "raising on an empty completion": (
        "grpo", ASKED, {"reward": ("my.py:raising",)}, "IndexError: string index out of range at",
    ),
    "no such reward": ("grpo", ASKED, {"reward": ("my.py:rigth",)}, "Did you mean 'right'?"),
    "no reward": ("grpo", ASKED, {}, "Fix: --reward file.py:function"),
    "column of a reward": ("grpo", ASKED, {"reward": ("my.py:needy",)}, "--columns ground_truth=solution"),
    "needless reward": ("sft", SHOWN, {"reward": ("my.py:kind",)}, "never calls a reward"),
    "equal answers": ("dpo", [PAIR, PAIR | {"rejected": "2"}], {}, "rows.jsonl:2: chosen and rejected are the same"),
    "nothing trained": (
        "sft", [{"messages": [SAYS, USER]}] * 2, {"chat_template": "chat.jinja"}, "none of the 2 rows has a word",
    ),
    "truncated sampling": ("grpo", ASKED, {"reward": ("my.py:right",), "top_p": 0.8}, "Fix: --top-k 0 --top-p 1"),
    "group of one": ("grpo", ASKED, {"reward": ("my.py:right",), "group_size": 1}, "Fix: --group-size 8"),
    "reward model from nothing": ("reward_model", [PAIR], {}, "Fix: --model runs/sft/final"),
    "no model": ("sft", SHOWN, {"model": "./none"}, "no such folder"),
    "no teacher": ("distill", ASKED, {}, "Fix: --teacher FOLDER"),
    "device": ("sft", SHOWN, {"device": "warp"}, "wanted cpu, cuda or cuda:N"),
}  # fmt: skip


@pytest.mark.parametrize("case", PROBLEMS)
def test_what_training_refuses_is_found_with_its_fix(case: str, place: Path) -> None:
    algorithm, rows, changes, wanted = PROBLEMS[case]
    run = run_of(algorithm, rows, **changes)
    found = check(run)
    texts = [finding.text for finding in found.findings if finding.stops]
    assert found.refused and any(wanted in text for text in texts), texts
    assert all("Fix:" in text or "Did you mean" in text or "wanted" in text for text in texts)
    if case == "raising on an empty completion":
        return  # training stops once it draws one
    with pytest.raises((ConfigError, DataError, RewardError)) as refusal:
        execute(run, Silent())
    assert str(refusal.value) in texts or any(text.startswith(str(refusal.value)) for text in texts)


def test_it_does_not_stop_at_the_first_problem(place: Path) -> None:
    rows = [{"prompt": [USER], "answer": "2"}, {"prompt": "", "answer": "2"}]
    run = run_of("grpo", rows, reward=("my.py:rigth",), group_size=1, keep_best=True, eval_every=1)
    texts = "\n".join(finding.text for finding in check(run).findings)
    for wanted in ("--group-size 8", "rows.jsonl:2: prompt is empty", "1 of 2 rows are bad", "Did you mean 'right'",
                   "rows.jsonl:1: the row is a list of messages, but the tokenizer has no chat template"):  # fmt: skip
        assert wanted in texts


WARNINGS: dict[str, tuple[str, list[dict[str, Any]], dict[str, Any], str]] = {
    "generous to nothing": ("grpo", ASKED, {"reward": ("my.py:kind",)}, "an empty completion gets 1"),
    "generous to what is wrong": ("grpo", ASKED, {"reward": ("my.py:kind",)}, "a wrong answer ('2') gets 1"),
    "scores nothing": ("grpo", ASKED, {"reward": ("my.py:blind",)}, "scored none of 7 completions"),
    "blind to the right answer": ("grpo", ASKED, {"reward": ("my.py:deaf",)}, "the right answer, '1' (column"),
    "failing, and that is allowed": (
        "grpo", ASKED, {"reward": ("my.py:raising",), "on_reward_error": "unscored"}, "trained without it",
    ),
    "slow": (
        "grpo", ASKED, {"reward": ("my.py:compute_score",), "reward_timeout": 10.0, "group_size": 64},
        "--reward-workers",
    ),
    "answers that would be cut": (
        "grpo", ASKED, {"reward": ("my.py:right",), "max_new_tokens": 1}, "Fix: --max-new-tokens 2",
    ),
    "long rows left out": (
        "sft", [*SHOWN, {"prompt": "1" * 600, "completion": "2"}], {"long_prompts": "skip"}, "1 of 4 rows skipped",
    ),
    "long rows cut": (
        "sft", [*SHOWN, {"prompt": "1" * 600, "completion": "2"}], {"long_prompts": "truncate-left"}, "cut at the left",
    ),
    "a row without trained tokens": (
        "sft", [{"messages": [SAYS, USER]}, {"messages": [USER, SAYS]}], {"chat_template": "chat.jinja"},
        "1 of 2 rows (50 %; rows.jsonl:1) have no token to train",
    ),
    "unknown characters": ("sft", [{"prompt": "é", "completion": "e"}], {}, "does not know (<unk>)"),
}  # fmt: skip


@pytest.mark.parametrize("case", WARNINGS)
def test_what_training_takes_and_nobody_wants_is_a_warning(case: str, place: Path) -> None:
    algorithm, rows, changes, wanted = WARNINGS[case]
    found = check(run_of(algorithm, rows, **changes))
    texts = [finding.text for finding in found.findings]
    assert not found.refused and any(wanted in text and "Fix:" in text for text in texts), texts


def test_answers_that_become_one_once_they_are_tokens(place: Path) -> None:
    """The template trims what is said."""
    folder = save_chat_model(place / "model", "llama3")
    row = {"prompt": [USER], "chosen": [SAYS], "rejected": [SAYS | {"content": " 2"}]}
    found = check(replace(run_of("dpo", [row]), model=str(folder)))
    assert not found.refused and any("one answer twice" in finding.text for finding in found.findings)


def brackets(line: Line, text: Text) -> list[str]:
    """What stands in brackets, token for token."""
    inside = [part.split(checked.END)[0] for part in line.plain.split(checked.BEGIN)[1:]]
    return [token for part in inside for token in part.replace("\n  ", checked.BORDER).split(checked.BORDER) if token]


@pytest.mark.parametrize("style", STYLES)
def test_the_trained_tokens_are_marked_exactly(style: str, place: Path) -> None:
    folder = save_chat_model(place / "model", style)
    turns = [USER, SAYS, {"role": "user", "content": "2+2="}, {"role": "assistant", "content": "4"}]
    found = check(replace(run_of("sft", [{"messages": turns}]), model=str(folder)))
    assert found.findings == () and found.text is not None
    tokenizer = load_tokenizer(folder)
    text = Text(tokenizer, end_ids(load_policy(folder), tokenizer))
    assert found.text.end_ids == text.end_ids  # without weights as with them
    wanted = text.demonstrations({"messages": turns})
    assert [view.tokens for row in found.shown for view in row.views] == wanted
    for view in (view for row in found.shown for view in row.views):
        line = marked(view, found.text)
        said = [one_line(seen.spelled(text, number)) for number in view.trained]
        assert brackets(line, text) == said and len(said) > 1
        green = {line.plain[span.start : span.end] for span in line.spans if span.style == "green"}
        assert green == set(said)


def test_a_clean_case_ends_with_0(place: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert command(["check", "--data", written(SHOWN)]) == 0
    said = capsys.readouterr().out
    assert "checked as sft" in said and "because of prompt, completion" in said and "no problem found" in said
    assert "  0│+│1│=⟦1│<eos>⟧\n" in said and "2 of them trained, the end token included" in said


def test_a_refusal_ends_with_2(place: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert command(["check", "--data", written([PAIR | {"rejected": "2"}])]) == 2
    said = capsys.readouterr().out
    assert "checked as dpo" in said and "refused: " in said and "training would begin" not in said
    assert command(["check", "--data", written(ASKED), "--reward", "my.py:kind"]) == 0
    assert "training would begin" in capsys.readouterr().out


KINDS = [
    ({"prompt": "a", "answer": "b"}, "grpo"),
    ({"prompt": [USER], "reward_model": {"ground_truth": "2"}}, "grpo"),
    ({"messages": [USER]}, "grpo"),
    ({"messages": [USER, SAYS]}, "sft"),
    ({"text": "a"}, "sft"),
    ({"question": "a", "answer": "b"}, "sft"),
    (PAIR, "dpo"),
    ({"chosen": "a b", "rejected": "a c"}, "dpo"),
    ({"prompt": "a", "completion": "b", "label": True}, "kto"),
]


@pytest.mark.parametrize(("row", "name"), KINDS, ids=lambda value: "-".join(value))
def test_the_method_is_told_from_the_columns(row: dict[str, Any], name: str, place: Path, capsys) -> None:
    command(["check", "--data", written([row])])
    assert capsys.readouterr().out.startswith(f"checked as {name}: ")


def test_columns_are_renamed_before_the_method_is_told(place: Path, capsys) -> None:
    assert command(["check", "--data", written([{"instruction": "a", "reply": "b"}]),
                    "--columns", "instruction=prompt", "reply=completion"]) == 0  # fmt: skip
    assert "checked as sft: " in capsys.readouterr().out


def test_control_characters_are_shown_and_not_obeyed(place: Path, capsys) -> None:
    rows = [{"prompt": "1\r\x0b=", "completion": "\x0c2\n"}]
    assert command(["check", "--data", written(rows)]) == 0
    said = capsys.readouterr().out
    assert r"  1│\x0d│\x0b│=⟦\x0c│2│\n" in said
    assert not set(said) & {"\r", "\x0b", "\x0c"}
    hostile = [{"prompt": "1+1=", "answer": "2\x1b]0;title\x07", "\x1b[2J": 1}]
    command(["check", "--data", written(hostile), "--reward", "my.py:kind"])
    assert "\x1b" not in capsys.readouterr().out


def test_no_weights_are_needed(place: Path) -> None:
    folder = save_chat_model(place / "model", "gemma3")
    ends = end_ids(load_described(folder), load_tokenizer(folder))
    for file in folder.glob("*.safetensors"):
        file.unlink()
    found = check(replace(run_of("sft", [{"messages": [USER, SAYS]}]), model=str(folder)))
    assert found.findings == () and found.text is not None and found.text.end_ids == ends
    assert found.model is not None and found.model.context == 512


def trial(found: Checked) -> list[tuple[int, str, float | None]]:
    assert found.trial is not None
    return [(call.row + 1, call.what, call.total) for call in found.trial.calls]


def test_rewards_are_called_on_right_and_hostile_completions(place: Path) -> None:
    found = check(run_of("grpo", ASKED, reward=("my.py:right", "my.py:kind"), reward_weights=(2.0, 0.5)), 2, 2)
    assert trial(found) == [
        (2, "right", 2.5), (2, "empty", 0.5), (2, "wrong", 0.5), (2, "very long", 0.5), (2, "a power", 0.5),
        (3, "right", 2.5),
    ]  # fmt: skip
    assert found.trial is not None and len(found.trial.calls[3].text) == 64  # --max-new-tokens
    assert [row.place for row in found.shown] == ["rows.jsonl:2", "rows.jsonl:3"]
    said = "\n".join(line.plain for line in report(found))
    assert "reward right, weight 2: native form" in said and "right answers: column answer" in said


def test_a_task_knows_its_right_and_wrong_answers() -> None:
    found = check(replace(default_run("grpo"), data_size=8), 1, 1)
    assert [total for _, what, total in trial(found) if what in ("right", "wrong")] == [1.0, 0.0]
    assert found.findings == ()


@pytest.mark.parametrize(("first", "count"), [(0, 1), (4, 1)])
def test_a_row_that_is_not_there(first: int, count: int, place: Path) -> None:
    with pytest.raises(ConfigError, match="has the rows 1 to 3"):
        check(run_of("sft", SHOWN), first, count)


@pytest.mark.parametrize("words", [["--row", "0"], ["--rows", "many"]])
def test_bad_numbers_of_rows(words: list[str], capsys) -> None:
    assert command(["check", *words]) == 2
    assert "positive whole number" in capsys.readouterr().err


def test_of_many_rows_some_are_drawn_by_the_seed(place: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(seen, "SAMPLED", 4)
    rows = [{"prompt": "1" * n, "completion": "2"} for n in range(1, 40)]
    first, again, other = (check(run_of("sft", rows, seed=seed)) for seed in (0, 0, 1))
    lengths = [[row.prompt for row in found.looked.seen] for found in (first, again, other) if found.looked]
    assert lengths[0] == lengths[1] != lengths[2] and len(lengths[0]) == 4
    assert "tokens of 4 of 39 rows, drawn by --seed 0" in "\n".join(line.plain for line in report(first))


def test_lengths_and_limits(place: Path) -> None:
    rows = [{"prompt": "1" * n, "completion": "2" * 3} for n in (1, 2, 3, 600)]
    lines = [line.plain for line in report(check(run_of("sft", rows, long_prompts="skip")))]
    assert ["prompt", "1", "2.5", "600", "600"] in [line.split() for line in lines]
    assert ["answer", "4", "4", "4", "4"] in [line.split() for line in lines]
    assert "prompt and answer beyond the context of 512: 1 of 4 (25 %) left out" in lines


def test_a_long_row_is_shown_with_its_two_ends() -> None:
    tokenizer = load_tokenizer("scratch:tiny")
    text = Text(tokenizer, (1,))
    ids = tuple(tokenizer("7" * 1000)["input_ids"])
    line = marked(View("", Tokens(ids, (False,) * 900 + (True,) * 100)), text).plain
    assert line.count("7") == 400 and "600 tokens" in line and line.endswith("7⟧") and line.count("⟦") == 1


def test_a_place_that_is_named_is_looked_at(place: Path) -> None:
    (place / "run").mkdir()
    (place / "run" / "notes.txt").touch()
    run = run_of("sft", SHOWN)
    assert any("holds files, but no run" in finding.text for finding in check(run).findings)
    assert check(replace(run, out=default_run("sft").out)).findings == ()
