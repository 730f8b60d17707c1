"""Functions as tools: schemas from signatures, calls in the model's text, and errors that the model is told."""

import asyncio
import inspect
from typing import Literal

import pytest

from oneloop.environments import Call, with_tools
from oneloop.environments.tools import schema_of
from oneloop.errors import ConfigError


def multiply(a: int, b: float, unit: Literal["m", "s"] = "m", tags: list[str] | None = None) -> str:
    """Multiply two numbers."""
    return f"{a * b:g} {unit}"


async def later(text: str) -> str:
    """Say it later."""
    await asyncio.sleep(0)
    return text.upper()


def broken(options: dict) -> str:
    """Never works."""
    raise ValueError("no options")


async def never(text: str) -> str:
    """Fails later."""
    raise ValueError("not today")


async def finished(step):
    return await step


def answers(completion: str) -> list[str]:
    step = with_tools(multiply, later, broken, never)().step(completion)
    step = asyncio.run(finished(step)) if inspect.isawaitable(step) else step
    assert all(message["role"] == "tool" for message in step.messages)
    assert step.terminated == (not step.messages) and step.reward == 0
    return [message["content"] for message in step.messages]


def call(words: str) -> str:
    return f"<tool_call>\n{words}\n</tool_call>"


def test_a_schema_is_the_signature() -> None:
    assert schema_of(multiply) == {
        "type": "function",
        "function": {
            "name": "multiply",
            "description": "Multiply two numbers.",
            "parameters": {
                "type": "object",
                "properties": {
                    "a": {"type": "integer"},
                    "b": {"type": "number"},
                    "unit": {"enum": ["m", "s"]},
                    "tags": {"type": "array", "items": {"type": "string"}},
                },
                "required": ["a", "b"],
            },
        },
    }
    assert schema_of(broken)["function"]["parameters"]["properties"] == {"options": {"type": "object"}}
    assert [each["function"]["name"] for each in with_tools(multiply, later)().tools] == ["multiply", "later"]


def test_calls_are_answered_one_by_one() -> None:
    first = '{"name": "multiply", "arguments": {"a": 3, "b": 4}}'
    second = '{"name": "later", "arguments": {"text": "x"}}'
    assert answers(call(first)) == ["12 m"]
    assert answers(f"let me see {call(first)}{call(second)}") == ["12 m", "X"]
    assert answers("it is 12") == [], "no call: the answer"


@pytest.mark.parametrize(
    ("words", "said"),
    [
        ('{"name": "divide"}', "error: there is no tool 'divide'; there are multiply, later, broken, never"),
        ('{"name": "never", "arguments": {"text": "x"}}', "error: ValueError: not today"),
        ('{"name": "multiply", "arguments": {"a": 3}}', "error: TypeError: multiply() missing 1 required"),
        ('{"name": "broken", "arguments": {"options": {}}}', "error: ValueError: no options"),
        ('{"name": "multiply", ', "error: JSONDecodeError"),
        ("[1]", "error: TypeError"),
        ("{}", "error: KeyError"),
    ],
)
def test_what_is_wrong_with_a_call_is_told_to_the_model(words, said) -> None:
    (answer,) = answers(call(words))
    assert answer.startswith(said)


def test_an_episode_begins_with_the_rows_prompt() -> None:
    made = with_tools(multiply)()
    assert made.reset({"prompt": "3*4?"}) == [{"role": "user", "content": "3*4?"}]
    talk = [{"role": "system", "content": "be brief"}, {"role": "user", "content": "3*4?"}]
    assert made.reset({"prompt": talk}) == talk


def test_what_no_model_could_call_is_refused() -> None:
    def silent(a: int) -> str: ...

    def untyped(a) -> str:
        """Has no type."""

    def strange(a: bytes) -> str:
        """JSON has no bytes."""

    for function, words in ((silent, "no docstring"), (untyped, "'a' has the type None"), (strange, "class 'bytes'")):
        with pytest.raises(ConfigError, match=words):
            with_tools(function)
    with pytest.raises(ConfigError, match="a name of its own"):
        with_tools(multiply, multiply)
    with pytest.raises(ConfigError, match="wanted functions"):
        with_tools()


def test_calls_are_recorded_with_what_they_were_told() -> None:
    """What cannot be read stays as it was written; so does a call of a tool that there is not."""
    words = ['{"name": "multiply", "arguments": {"a": 2, "b": 3}}', "{", '{"name": "gone"}', '["a"]']
    step = with_tools(multiply)().step("".join(map(call, words)))
    told = [message["content"] for message in step.messages]
    named = [("multiply", '{"a": 2, "b": 3}'), ("", "{"), ("gone", "{}"), ("", '["a"]')]
    assert list(step.calls) == [
        Call(name=name, arguments=arguments, answer=answer)
        for (name, arguments), answer in zip(named, told, strict=True)
    ]
    asked = '{"name": "later", "arguments": {"text": "é"}}'
    later_on = asyncio.run(finished(with_tools(multiply, later)().step(call(asked))))
    assert list(later_on.calls) == [Call(name="later", arguments='{"text": "é"}', answer="É")]
    assert not with_tools(multiply)().step("six").calls
