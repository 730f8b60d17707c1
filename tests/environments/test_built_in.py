"""The environments that come with oneloop, by hand; and their tasks, whose demonstrations were had with them."""

from random import Random

import pytest

from oneloop.environments import Call
from oneloop.environments.calculator import Calculator
from oneloop.environments.guess import Guess
from oneloop.environments.lookup import NOTHING, Lookup, found, text
from oneloop.errors import ConfigError
from oneloop.tasks import PLAYED
from oneloop.tasks.lookup import read


def played(environment, row, *moves):
    """What each move was answered with: text, reward, whether it is over."""
    environment.reset(row)
    steps = [environment.step(move) for move in moves]
    return [("".join(m["content"] for m in step.messages), step.reward, step.terminated) for step in steps]


def test_the_calculator() -> None:
    row = {"prompt": "37*4+1=", "answer": 149}
    assert played(Calculator(), row, "[37*4+1]", "149") == [("149;", 0.0, False), ("", 1.0, True)]
    assert played(Calculator(), row, "148") == [("", 0.0, True)]
    answered = Calculator()
    answered.reset(row)
    assert list(answered.step("so [37*4]").calls) == [Call(name="calculator", arguments="37*4", answer="148;")]
    assert not answered.step("149").calls
    calls = ["think [1] then [7/2] ", "[1/0]", "[__import__('os')]", "[]", "[[2]]"]
    answers = [answer for answer, *_ in played(Calculator(), row, *calls[:3])]
    assert answers == ["7/2;", "error;", "error;"], "text is never run, and fractions are exact"
    assert [played(Calculator(), row, call)[0][2] for call in calls[3:]] == [True, True], "no call: an answer"


def test_guessing() -> None:
    """40 to 54 are 15 numbers: whoever halves them needs four guesses at worst."""
    row = {"prompt": "40-54:", "answer": "43"}
    assert played(Guess(), row, "47", "43") == [("lower;", 0.0, False), ("right;", 1.0, True)]
    lost = played(Guess(), row, "40", "41", "X", "50")
    assert lost == [("higher;", 0, False), ("higher;", 0, False), ("what?;", 0, False), ("lower;", 0, True)]
    for secret in range(40, 55):
        game, least, most = Guess(), 40, 54
        game.reset({"prompt": "40-54:", "answer": secret})
        while True:
            step = game.step(str((least + most) // 2))
            if step.terminated:
                break
            middle = (least + most) // 2
            least, most = (middle + 1, most) if step.messages[0]["content"] == "higher;" else (least, middle - 1)
        assert step.reward == 1.0, "the middle always wins"
    assert played(Guess(), {"prompt": "C-Q:", "answer": "D"}, "J", "C", "D")[::2] == [
        ("lower;", 0.0, False), ("right;", 1.0, True),
    ]  # fmt: skip
    assert played(Guess(), {"prompt": "c-q:", "answer": "d"}, "D", "d") == [
        ("what?;", 0.0, False), ("right;", 1.0, True),
    ]  # fmt: skip
    with pytest.raises(ValueError, match="wanted a range"):
        Guess().reset({"prompt": "how many?", "answer": 1})


def test_looking_up() -> None:
    assert found("bab") == "bab hue black home nest pal gib;"
    assert found("where has BAB its home").startswith("bab "), "any words, of which the line's own count"
    assert found("unicorn") == NOTHING
    asked = Lookup()
    asked.reset({"prompt": "unicorn home?", "answer": "x"})
    assert list(asked.step("[unicorn]").calls) == [Call(name="lookup", arguments="unicorn", answer=NOTHING)]
    friend = read(found("bab"), "pal")
    home = read(found(friend), "home")
    row = {"prompt": "bab pal home?", "answer": home}
    assert played(Lookup(), row, "[bab]", f"[{friend}]", home)[-1] == ("", 1.0, True)
    assert all(len(line.split()) == 7 for line in text()) and len({line.split()[0] for line in text()}) == len(text())


@pytest.mark.parametrize("make", [Calculator, Guess, Lookup])
def test_a_row_without_an_answer_cannot_be_played(make) -> None:
    with pytest.raises(ValueError, match="no column answer"):
        make().reset({"prompt": "40-54:", "answer": None})


@pytest.mark.parametrize("name", PLAYED)
def test_demonstrations_are_conversations_with_the_environment(name) -> None:
    """Replayed, the environment says the same; some are won and some are lost, so that there is something to learn."""
    task, won = PLAYED[name], []
    for row, shown in zip(task.prompts(60, 3, "train"), task.demonstrations(60, 3, "train"), strict=True):
        messages, environment = shown["messages"], task.make()
        assert messages[:1] == environment.reset(row) and shown["answer"] == row["answer"]
        assert [m["role"] == "assistant" for m in messages] == [n % 2 == 1 for n in range(len(messages))]
        for place in range(1, len(messages), 2):
            step = environment.step(messages[place]["content"])
            assert step.terminated == (place == len(messages) - 1)
            assert step.terminated or list(step.messages) == messages[place + 1 : place + 2]
        won.append(step.reward)
    assert 0.2 < sum(won) / len(won) < 0.9


@pytest.mark.parametrize("name", PLAYED)
def test_splits_never_meet(name) -> None:
    splits = [{row["prompt"] for row in PLAYED[name].prompts(200, 0, split)} for split in ("train", "test")]
    assert splits[0] and splits[1] and not splits[0] & splits[1]


def test_what_a_task_of_turns_has_not() -> None:
    with pytest.raises(ConfigError, match="--environment guess"):
        PLAYED["guess"].reward(["m"])
    with pytest.raises(ConfigError, match="no pairs"):
        PLAYED["guess"].preferences(1, 0, "train")


def test_a_conversation_ends_with_the_last_move() -> None:
    row = {"prompt": "C-Q:", "answer": "F"}
    for seed in range(20):
        messages = PLAYED["guess"].conversation(row, Random(seed))
        assert messages[-1]["role"] == "assistant" and len(messages) <= 8
