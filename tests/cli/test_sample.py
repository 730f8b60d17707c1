"""`oneloop sample` in a terminal: a conversation, and how it ends."""

import builtins
import sys
from collections.abc import Callable

import pytest

from chat_models import save_chat_model
from oneloop.cli.main import run
from oneloop.model.text import Text
from oneloop.rollout.engine import Engine

Ask = Callable[..., int]


@pytest.fixture(scope="module")
def chat(tmp_path_factory: pytest.TempPathFactory) -> str:
    return str(save_chat_model(tmp_path_factory.mktemp("chat"), "llama3"))


@pytest.fixture
def ask(monkeypatch: pytest.MonkeyPatch) -> Ask:
    """Types lines, or presses Ctrl-D or Ctrl-C, in what looks like a terminal; returns the exit code."""

    def ask(model: str, *typed: str | type[BaseException], flags: tuple[str, ...] = ()) -> int:
        left = iter(typed)

        def line(prompt: str) -> str:
            pressed = next(left)
            if isinstance(pressed, str):
                return pressed
            raise pressed

        monkeypatch.setattr(builtins, "input", line)
        monkeypatch.setattr(sys.stdin, "isatty", lambda: True, raising=False)
        code = run(["sample", "--model", model, "--max-new-tokens", "4", *flags])
        assert next(left, None) is None, "everything was asked for"
        return code

    return ask


@pytest.fixture
def read(monkeypatch: pytest.MonkeyPatch) -> list[list[str]]:
    """What the model was given at each turn, a list of equal texts for each of --count."""
    seen: list[list[str]] = []
    prompt, generate = Text.prompt, Engine.generate
    shown: list[str] = []

    def spied_prompt(self, *arguments):
        ids, text = prompt(self, *arguments)
        shown.append(text)
        return ids, text

    def spied(self, prompts, *others):
        seen.append([shown[-1]] * len(prompts))
        return generate(self, prompts, *others)

    monkeypatch.setattr(Text, "prompt", spied_prompt)
    monkeypatch.setattr(Engine, "generate", spied)
    return seen


def fixed(monkeypatch: pytest.MonkeyPatch, *answers: str) -> None:
    left = iter(answers)
    monkeypatch.setattr(Text, "decode", lambda self, ids: next(left))


def test_each_turn_reads_what_was_said_before(chat: str, ask: Ask, read, monkeypatch, capsys) -> None:
    fixed(monkeypatch, "two", "three", "four")
    assert ask(chat, "1+1?", " and one more? ", "/reset", "2+2?", "") == 0
    printed = capsys.readouterr().out
    assert printed.startswith("the conversation is kept, /reset forgets it; an empty line or Ctrl-D ends\n")
    assert all(word in printed for word in ("two", "three", "four"))
    first, second, third = (turn for (turn,) in read)
    question, opened = "<|start_header_id|>user<|end_header_id|>\n\n{}<|eot_id|>", "<|start_header_id|>assistant"
    said = f"{opened}<|end_header_id|>\n\n{{}}<|eot_id|>"
    bos, begun = "<|begin_of_text|>", f"{opened}<|end_header_id|>\n\n"
    assert first == bos + question.format("1+1?") + begun
    assert second == bos + question.format("1+1?") + said.format("two") + question.format("and one more?") + begun
    assert third == bos + question.format("2+2?") + begun, "/reset forgets"


def test_of_several_answers_the_first_is_what_was_said(chat: str, ask: Ask, read, monkeypatch) -> None:
    fixed(monkeypatch, "two", "deux", "three", "trois")
    assert ask(chat, "1+1?", "and one?", "", flags=("--count", "2")) == 0
    assert [len(turn) for turn in read] == [2, 2]
    assert "two" in read[1][0] and "deux" not in read[1][0]


def test_a_turn_draws_anew_and_a_conversation_can_be_repeated(chat: str, ask: Ask, capsys) -> None:
    printed = []
    for _ in range(2):
        assert ask(chat, "1+1?", "/reset", "1+1?", "") == 0
        printed.append(capsys.readouterr().out.splitlines()[1:])
    assert printed[0] == printed[1], "by --seed"
    assert printed[0][0] != printed[0][1], "the same question has another seed at its next turn"


@pytest.mark.parametrize("end", ["", "   ", EOFError, KeyboardInterrupt], ids=["empty", "blank", "Ctrl-D", "Ctrl-C"])
def test_how_it_ends(end, chat: str, ask: Ask, capsys) -> None:
    assert ask(chat, "1+1?", end) == 0
    assert capsys.readouterr().err == ""


def test_an_interrupt_amid_an_answer_ends_the_command(chat: str, ask: Ask, monkeypatch, capsys) -> None:
    def pressed(*arguments):
        raise KeyboardInterrupt

    monkeypatch.setattr(Engine, "generate", pressed)
    assert ask(chat, "1+1?") == 130
    assert capsys.readouterr().err == "oneloop sample: interrupted\n"


@pytest.mark.parametrize("raw", [False, True], ids=["no template", "--raw"])
def test_without_a_template_each_line_is_a_prompt_alone(raw: bool, chat: str, ask: Ask, read, capsys) -> None:
    assert ask(*([chat] if raw else ["scratch:tiny"]), "1+1=", "2+2=", "", flags=("--raw",) if raw else ()) == 0
    assert capsys.readouterr().out.startswith("no chat template: each line is a prompt alone; an empty line")
    assert read == [["1+1="], ["2+2="]]


def test_a_conversation_that_is_too_long_says_so_and_can_go_on(chat: str, ask: Ask, read, capsys) -> None:
    """512 tokens are the model's context, a character each; the question that was refused is forgotten."""
    assert ask(chat, "1" * 300, "2" * 300, "3", "/reset", "4" * 600, "5", "") == 0
    refused = [line for line in capsys.readouterr().out.splitlines() if "exceed the model's context" in line]
    assert [line.partition("Fix: ")[2] for line in refused] == ["shorter prompts, or /reset", "shorter prompts"]
    assert len(read) == 5 and "2" * 300 not in read[2][0] and "1" * 300 in read[2][0]


def test_a_question_that_leaves_too_little_room(chat: str, ask: Ask, capsys) -> None:
    assert ask(chat, "1" * 300, "", flags=("--max-new-tokens", "400")) == 0
    line = next(line for line in capsys.readouterr().out.splitlines() if "exceed" in line)
    room = int(line.partition("Fix: --max-new-tokens ")[2].partition(",")[0])
    assert ask(chat, "1" * 300, "", flags=("--max-new-tokens", str(room))) == 0
    assert "exceed" not in capsys.readouterr().out


def test_what_the_model_says_moves_no_cursor(chat: str, ask: Ask, monkeypatch, capsys) -> None:
    fixed(monkeypatch, "a\x1b[2Jb\x07\rc")
    assert ask(chat, "1+1?", "") == 0
    printed = capsys.readouterr().out
    assert "a\\x1b[2Jb\\x07\\x0dc" in printed and "\x1b" not in printed
