"""What stands between verifiers and a policy, without the package: messages, rows, and what to install."""

import json
import subprocess
import sys
from types import SimpleNamespace

import pytest

from oneloop.environments import Call, load_environment
from oneloop.environments.verifiers.loaded import Loaded
from oneloop.environments.verifiers.wire import answer, begins, made, plain, same
from oneloop.errors import ConfigError


def user(text):
    return {"role": "user", "content": text}


def test_without_verifiers_it_says_what_to_install(monkeypatch) -> None:
    monkeypatch.setitem(sys.modules, "verifiers.v1", None)
    with pytest.raises(ConfigError, match=r'needs verifiers 0.4 .*Fix: pip install "oneloop\[verifiers\]"'):
        load_environment("verifiers:oneloop_sums?most=6")


# messages


CALL = '<tool_call>{"name": "add", "arguments": {"a": 1}}</tool_call>'


def test_calls_are_fields_there_and_text_here() -> None:
    said = answer(f"So. {CALL}{CALL}", tools=True, first=2)
    assert said["content"] == "So." and [call["id"] for call in said["tool_calls"]] == ["call_2", "call_3"]
    assert said["tool_calls"][0]["function"] == {"name": "add", "arguments": '{"a": 1}'}
    assert plain(said) == {"role": "assistant", "content": f"So.\n{CALL}\n{CALL}"}
    assert answer(CALL, tools=True, first=0)["content"] is None
    for text, tools in ((CALL, False), ("<tool_call>{</tool_call>", True), ("<tool_call>[1]</tool_call>", True)):
        assert answer(text, tools=tools, first=0) == {"role": "assistant", "content": text}


def test_texts_may_come_in_parts_and_pictures_may_not() -> None:
    assert plain({"role": "user", "content": [{"type": "text", "text": "a"}, {"type": "text", "text": "b"}]}) == (
        user("a\nb")
    )
    with pytest.raises(ValueError, match="a message has image_url; the policy reads texts alone"):
        plain({"role": "user", "content": [{"type": "image_url", "image_url": {"url": ""}}]})


def test_a_conversation_goes_on_from_what_is_known() -> None:
    said = answer(f"So. {CALL}", tools=True, first=0)
    spaced = json.loads(json.dumps(said).replace(": 1", ":  1"))
    assert same(said, {**spaced, "content": " So. "}) and not same(said, {**said, "tool_calls": []})
    known = [user("Go."), said]
    assert begins([*known, user("on")], known) and begins(known, known)
    assert not begins(known[:1], known) and not begins([user("Stop."), said], known)


@pytest.mark.parametrize(
    "said", ["<tool_call>" + "[" * 100_000 + "</tool_call>", "<tool_call>" + "[" * 1000 + "</tool_call>"]
)
def test_a_call_that_is_too_deep_is_text(said) -> None:
    assert answer(said, tools=True, first=0) == {"role": "assistant", "content": said}
    deep = "[" * 100_000
    message = {"role": "assistant", "tool_calls": [{"function": {"name": "add", "arguments": deep}}]}
    assert deep in plain(message)["content"]


def test_calls_are_recorded_with_what_answers_them() -> None:
    said = answer(f"{CALL}{CALL}{CALL}", tools=True, first=0)
    new = [
        {"role": "tool", "tool_call_id": "call_1", "content": [{"type": "text", "text": "two"}]},
        {"role": "tool", "tool_call_id": "call_0", "content": "one"},
        user("on"),
    ]
    assert [(call.name, call.arguments, call.answer) for call in made(said, new)] == [
        ("add", '{"a": 1}', answered) for answered in ("one", "two", "")
    ]
    assert made(answer("So.", tools=True, first=0), new) == ()
    assert all(isinstance(call, Call) for call in made(said, new))


def of_taskset(rows):
    return Loaded(SimpleNamespace(config=SimpleNamespace(env_id="somebody/sums"), taskset=rows))


def test_a_taskset_ends_where_it_ends() -> None:
    env = of_taskset([None, "b"])
    assert list(env.tasks()) == [(0, None), (1, "b")], "what a task is, is not ours to say"
    with pytest.raises(ConfigError, match=r"the taskset of sums has 2 tasks, and no number 2"):
        env.task(2)


def test_a_damaged_row_is_named_and_never_the_end_of_a_taskset() -> None:
    """JSON's error is a ValueError, as pydantic's is. An iterator that raised says next that it is at its end."""

    def rows():
        yield from map(json.loads, ("1", "2", "{", "4"))

    env = of_taskset(rows())
    for _ in range(2):
        seen = []
        with pytest.raises(ConfigError, match=r"^row 2 of the taskset of sums: JSONDecodeError: Expecting property"):
            seen.extend(number for number, _ in env.tasks())
    with pytest.raises(ConfigError, match=r"^row 2 of the taskset"):
        env.task(3)
    assert env.task(1) == 2


def test_nothing_but_its_endpoint_needs_a_server() -> None:
    code = (
        "import sys; sys.modules['aiohttp'] = None; "
        "from oneloop.environments.verifiers import episode, loaded, wire; print(episode.Refused is wire.Refused)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert (done.stdout.strip(), done.stderr) == ("True", "")
