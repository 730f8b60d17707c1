"""Environments of verifiers, the package itself: turns, tools, users, rewards, ends, and what is refused."""

import json
import os
from pathlib import Path

import pytest

from oneloop.environments import Call, Stage, environment_of, load_environment
from oneloop.errors import ConfigError, EnvironmentFailed
from oneloop.tasks.named import is_played, is_task, named_task

pytest.importorskip("verifiers.v1", reason='needs verifiers 0.4: pip install "oneloop[verifiers]"')
pytestmark = pytest.mark.filterwarnings("ignore:The 'initial' parameter is deprecated:DeprecationWarning")
"""Of tenacity, which verifiers asks in the old way."""
TASKSETS = Path(__file__).parent / "tasksets"


@pytest.fixture(autouse=True)
def tasksets(monkeypatch):
    """Installed, as it were: tools run in processes that import them too."""
    monkeypatch.syspath_prepend(str(TASKSETS))
    monkeypatch.setenv("PYTHONPATH", str(TASKSETS), prepend=os.pathsep)


@pytest.fixture
def stage():
    """Stages that end."""
    made = []

    def of(spec, timeout=400.0):
        made.append(Stage(load_environment(spec), timeout))
        return made[-1]

    yield of
    for one in made:
        one.close()


def begun(place, number=3):
    scene = place.scene()
    return scene, scene.reset({"prompt": "", "task": number}, 0)().messages


def user(text):
    return {"role": "user", "content": text}


def test_its_tasks_are_rows_and_every_fifth_is_held_out() -> None:
    task = named_task("verifiers:oneloop_sums")
    assert is_task(task.spec) and is_played(task.spec)
    train, test = task.prompts(100, 0, "train"), task.prompts(3, 1, "test")
    assert [row["task"] for row in train] == [0, 1, 2, 3, 5, 6, 7, 8, 10, 11]
    assert test == [{"prompt": "4+4=", "task": 4}, {"prompt": "9+9=", "task": 9}]
    assert len(named_task("verifiers:oneloop_sums?most=3").prompts(9, 0, "train")) == 3
    with pytest.raises(ConfigError, match="the taskset has no test task, of which every fifth is one"):
        named_task("verifiers:oneloop_sums?most=3").prompts(9, 0, "test")
    for made in (task.demonstrations, task.preferences):
        with pytest.raises(ConfigError, match="--data verifiers:oneloop_sums: a taskset has no"):
            made(1, 0, "train")
    with pytest.raises(ConfigError, match="Fix: --environment verifiers:oneloop_sums"):
        task.reward(["4"])


def test_one_turn_is_judged_by_its_rewards(stage) -> None:
    place = stage("verifiers:oneloop_sums")
    assert place.name == "oneloop_sums"
    scenes = [begun(place, number) for number in (3, 5)]
    assert [said for _, said in scenes] == [({"role": "system", "content": "Add."}, user(f"{n}+{n}=")) for n in (3, 5)]
    waiting = [scene.step("6") for scene, _ in scenes]
    steps = [wait() for wait in waiting]
    assert [step.reward for step in steps] == [1.5, 0.5] and all(step.terminated for step in steps)
    assert scenes[0][0].tools is None


def test_tools_are_called_and_their_schemas_are_the_templates(stage) -> None:
    scene, said = begun(stage("verifiers:oneloop_shop"))
    assert said == (user("What does a pen cost?"),)
    (tool,) = scene.tools
    assert tool["function"]["name"] == "shop_price" and tool["function"]["description"] == "What an item costs."
    call = {"name": "shop_price", "arguments": {"item": "pen"}}
    unknown = {"name": "shop_sell", "arguments": {}}
    step = scene.step(f"<tool_call>{json.dumps(call)}</tool_call><tool_call>{json.dumps(unknown)}</tool_call>")()
    assert step.messages == (
        {"role": "tool", "content": "30"},
        {"role": "tool", "content": "error: unknown tool 'shop_sell'; there are shop_price"},
    )
    assert not step.terminated and step.reward == 0
    assert step.calls == (
        Call(name="shop_price", arguments='{"item": "pen"}', answer="30"),
        Call(name="shop_sell", arguments="{}", answer="error: unknown tool 'shop_sell'; there are shop_price"),
    )
    last = scene.step("30")()
    assert last.terminated and last.reward == 1.0 and not last.calls
    scene.leave()


def test_its_environment_plays_the_user(stage) -> None:
    place = stage("verifiers:oneloop_number")
    scene, said = begun(place, 7)
    assert said == (user("Guess."),)
    assert scene.step("3")().messages == (user("higher"),) and scene.step("8")().messages == (user("lower"),)
    last = scene.step("7")()
    assert last.terminated and last.reward == 1.0
    scene, _ = begun(place, 7)
    scene.step("1")(), scene.step("2")()
    cut = scene.step("4")()
    assert cut.truncated and not cut.terminated and cut.reward == 0.0, "its own limit of three turns"


@pytest.mark.parametrize(("asks", "words"), [
    ("untrained", "the seat 'other' is not trained, and has no model of its own. Fix: pin its model"),
    ("two", "the seat 'other' asks the policy too, in a conversation of its own"),
])  # fmt: skip
def test_an_episode_is_one_conversation(stage, asks, words) -> None:
    scene, _ = begun(stage(f"verifiers:oneloop_number?asks={asks}"), 7)
    with pytest.raises(EnvironmentFailed, match=f"step raised RuntimeError: {words}"):
        scene.step("7")()
    scene.leave()


def test_what_fails_in_it_is_no_reward(stage) -> None:
    place = stage("verifiers:oneloop_sums")
    scene, _ = begun(place)
    with pytest.raises(EnvironmentFailed, match=r"step raised RuntimeError: TaskError: .*no such answer"):
        scene.step("raise")()
    for row, words in (({}, "the row has no column task"), ({"task": 99}, "has 12 tasks, and no number 99")):
        with pytest.raises(EnvironmentFailed, match=words):
            place.scene().reset({"prompt": "", **row}, 0)()


def test_an_episode_may_be_left_in_its_middle(stage) -> None:
    """Cancelled, and its stage closes; another stage plays the same environment afterwards."""
    for _ in range(2):
        place = stage("verifiers:oneloop_number")
        scene, _ = begun(place, 7)
        scene.step("3")()
        scene.leave()
        place.close()


def test_one_that_python_made(stage, tmp_path, monkeypatch) -> None:
    monkeypatch.chdir(tmp_path)
    text = (
        "import verifiers.v1 as vf\n"
        "seat = {'harness': {'id': 'oneloop-chat'}, 'runtime': {'type': 'subprocess'}}\n"
        "config = vf.resolve_env_config({'taskset': {'id': 'oneloop_sums', 'most': 4}, 'agent': seat})\n"
        "env = vf.load_environment(config)\n"
        "def made():\n    return env\n"
        "seven = 7\n"
    )
    (tmp_path / "mine.py").write_text(text)
    load_environment("verifiers:oneloop_sums")  # the plugin oneloop-chat is known from now on
    for name in ("config", "env", "made"):
        scene, _ = begun(stage(f"verifiers:mine.py:{name}"), 2)
        assert scene.step("4")().reward == 1.5
    with pytest.raises(ConfigError, match="it is a int; wanted an Env or an EnvConfig of verifiers"):
        load_environment("verifiers:mine.py:seven")


def test_one_that_python_has(stage) -> None:
    env = load_environment("verifiers:oneloop_sums").make()._origin.env
    named = environment_of(env, "ignored", "environment = python:oneloop_sums")
    place = Stage(named, 400.0)
    scene, _ = begun(place, 2)
    assert named.name == "oneloop_sums" and scene.step("4")().reward == 1.5
    place.close()


NAMES = [
    ("verifiers:no-such-set", "No module named 'no_such_set'|taskset 'no-such-set' not found"),
    ("verifiers:oneloop_sums?most", "'most'; wanted setting=value"),
    ("verifiers:oneloop_sums?mots=3", "taskset.mots: Extra inputs are not permitted$"),
    ("verifiers:gone.py:env", "no file gone.py"),
]


@pytest.mark.parametrize(("spec", "words"), NAMES, ids=[spec for spec, _ in NAMES])
def test_wrong_names_say_what_is_wrong(spec, words) -> None:
    with pytest.raises(ConfigError, match=f"^--environment {spec.replace('?', '.')}: .*({words})"):
        load_environment(spec)
