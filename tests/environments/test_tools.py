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


def test_a_docstring_tells_of_the_parameters() -> None:
    def weather(city: str, days: int = 1, where: dict[str, float] | None = None, days_or_word: int | str = 0) -> str:
        """Forecast of a city.

        For a week at most.

        Args:
            city: its name,
                in English.
            days (int): from today on.

        Returns:
            what: it will be.
        """
        return city

    function = schema_of(weather)["function"]
    assert function["description"] == "Forecast of a city.\n\nFor a week at most."
    assert function["parameters"]["properties"] == {
        "city": {"type": "string", "description": "its name, in English."},
        "days": {"type": "integer", "description": "from today on."},
        "where": {"type": "object"},
        "days_or_word": {"anyOf": [{"type": "integer"}, {"type": "string"}]},
    }


def test_methods_are_tools_too() -> None:
    class Shop:
        def price(self, item: str) -> str:
            """What it costs."""
            return f"{len(item)} coins"

    made = with_tools(Shop().price)()
    assert made.tools[0]["function"]["parameters"]["required"] == ["item"]
    assert made.step(call('{"name": "price", "arguments": {"item": "pen"}}')).messages[0]["content"] == "3 coins"


def test_calls_are_answered_one_by_one() -> None:
    first = '{"name": "multiply", "arguments": {"a": 3, "b": 4}}'
    second = '{"name": "later", "arguments": {"text": "x"}}'
    assert answers(call(first)) == ["12 m"]
    assert answers(f"let me see {call(first)}{call(second)}") == ["12 m", "X"]
    assert answers("it is 12") == [], "no call: the answer"
    every = '{"name": "multiply", "arguments": {"a": 3, "b": 4.5, "unit": "s", "tags": null}}'
    assert answers(call(every)) == ["13.5 s"], "null is what need not be given"


@pytest.mark.parametrize(
    ("words", "said"),
    [
        ('{"name": "divide"}', "error: there is no tool 'divide'; there are multiply, later, broken, never"),
        ('{"name": "never", "arguments": {"text": "x"}}', "error: ValueError: not today"),
        ('{"name": "multiply", "arguments": {"a": 3}}', "error: the argument 'b' is missing"),
        (
            '{"name": "multiply", "arguments": [3, 4]}',
            "error: the arguments are [3, 4]; wanted an object with a, b, unit",
        ),
        ('{"name": "multiply", "arguments": {"a": "3", "b": 4}}', "error: the argument 'a' is '3'; wanted integer"),
        ('{"name": "multiply", "arguments": {"a": true, "b": 4}}', "error: the argument 'a' is True; wanted integer"),
        ('{"name": "multiply", "arguments": {"a": 3, "b": null}}', "error: the argument 'b' is None; wanted number"),
        (
            '{"name": "multiply", "arguments": {"a": 3, "b": 4, "unit": "k"}}',
            "error: the argument 'unit' is 'k'; wanted o",
        ),
        (
            '{"name": "multiply", "arguments": {"a": 3, "b": 4, "tags": [1]}}',
            "error: the argument 'tags' is [1]; wanted ar",
        ),
        (
            '{"name": "multiply", "arguments": {"a": 3, "b": 4, "c": 5}}',
            "error: there is no argument 'c'; there are a, b",
        ),
        ('{"name": ["multiply"]}', "error: there is no tool ['multiply']; there are multiply"),
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

    def many(*a: int) -> str:
        """Takes as many as there are."""

    def pair(a: tuple[int, str]) -> str:
        """JSON has lists of one kind."""

    refused = [
        (silent, "no docstring"), (untyped, "'a' has the type None"), (strange, "class 'bytes'"),
        (many, r"parameter '\*a: .*' cannot be given by name"), (pair, "'a' has the type tuple"),
    ]  # fmt: skip
    for function, words in refused:
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
