"""What is said to a model between its turns: as the chat template writes it, and only behind what stands there."""

import pytest
from test_chat import said, shown, text_of

from chat_models import LLAMA3
from oneloop.errors import ConfigError, DataError
from oneloop.model.chat import conversing
from oneloop.model.load import load_tokenizer
from oneloop.model.text import Text

ASKED, CALL = said("user", "1+1"), said("assistant", "[1+1]")


def whole(text: Text, messages, tools=None) -> tuple[int, ...]:
    """Ids of a rendered conversation, with the beginning of the next turn."""
    return text.prompt(messages, tools)[0]


@pytest.mark.parametrize(
    ("name", "role"), [("llama3", "tool"), ("llama3", "user"), ("qwen3", "tool"), ("gemma3", "user")]
)
def test_prompt_turn_and_reply_are_the_rendered_conversation(name, role) -> None:
    text = text_of(name)
    answer = said("assistant", "<think>\nadd\n</think>\n\n[1+1]") if name == "qwen3" else CALL
    for new in ([said(role, "2")], [said(role, "2"), said("assistant", "so"), said(role, "go on")]):
        turn = text.completion(answer["content"], [ASKED])
        ids = (*whole(text, [ASKED]), *turn, *text.reply([ASKED, answer], new))
        assert ids == whole(text, [ASKED, answer, *new])
    again = text.reply([ASKED, answer, said(role, "2"), answer], [said(role, "3")])
    assert shown(text, again).count("3") == 1, "only what is new"


def test_a_turn_stays_as_it_was_drawn() -> None:
    """A template that trims changes how a turn would be shown, and not where the conversation goes on."""
    text = text_of("llama3")
    reply = text.reply([ASKED, said("assistant", " [1+1] \n")], [said("tool", "2")])
    assert reply == text.reply([ASKED, CALL], [said("tool", "2")])


def test_a_template_that_rewrites_earlier_turns_is_refused() -> None:
    """Qwen3's leaves thinking out of a turn once the user speaks again."""
    text = text_of("qwen3")
    thought = said("assistant", "<think>\nadd\n</think>\n\n2")
    with pytest.raises(ConfigError, match="writes earlier turns in another way") as caught:
        text.reply([ASKED, thought], [said("user", "and 3")])
    assert "<think>" in str(caught.value) and "--chat-template" in str(caught.value)
    assert text.reply([ASKED, thought], [said("tool", "2")]), "thinking stays behind a tool's answer"


def test_a_template_that_rewrites_the_question_is_refused() -> None:
    counted = "{{ messages | length }}" + LLAMA3
    with pytest.raises(ConfigError, match="and now writes"):
        text_of("llama3", chat_template=counted).reply([ASKED, CALL], [said("user", "2")])


def test_a_template_that_refuses_a_role_says_so() -> None:
    with pytest.raises(DataError, match="alternate"):
        text_of("gemma3").reply([ASKED, CALL], [said("tool", "2")])


def test_schemas_of_tools_are_rendered() -> None:
    text, tools = text_of("qwen3"), [{"name": "sum", "parameters": {}}]
    assert "sum" in shown(text, whole(text, [ASKED], tools))
    reply = text.reply([ASKED, CALL], [said("tool", "2")], tools)
    assert reply == text.reply([ASKED, CALL], [said("tool", "2")])


def test_without_a_template_conversations_are_plain() -> None:
    """Texts one behind the other; a turn ends with the end token; what others say in a row has lines of its own."""
    tokenizer = conversing(load_tokenizer("scratch:tiny"))
    text = Text(tokenizer, (tokenizer.eos_token_id,))
    assert text.prompt([ASKED])[0] == text.prompt("1+1")[0]
    assert shown(text, text.prompt([said("system", "add"), ASKED])[0]) == "add\n1+1"
    assert shown(text, text.reply([ASKED, CALL], [said("tool", "2;"), said("user", "on")])) == "2;\non"
    (row,) = text.demonstrations({"messages": [ASKED, CALL, said("tool", "2;"), said("assistant", "2")]})
    assert shown(text, row.ids) == "1+1[1+1]<eos>2;2<eos>"
    assert shown(text, [i for i, trained in zip(row.ids, row.trained, strict=True) if trained]) == "[1+1]<eos>2<eos>"
    templated = text_of("llama3").tokenizer
    assert conversing(templated) is templated, "a model's own template stays"
