"""Gymnasium's environments as messages: spaces of texts and of numbers with words, seeds, ends, and what is refused."""

import gymnasium
import numpy as np
import pytest
from gymnasium.spaces import Box, Discrete, Text

from oneloop.environments import NamedEnvironment, Stage, environment_of, load_environment
from oneloop.environments.gymnasium_text import GymnasiumText
from oneloop.errors import ConfigError, EnvironmentFailed


class Echo(gymnasium.Env):
    """Text both ways: pays for what it said before, and ends at `bye`."""

    observation_space = Text(max_length=20, charset="abcdefghijklmnopqrstuvwxyz 0123456789")
    action_space = Text(max_length=3, charset="abye")

    def reset(self, *, seed=None, options=None):
        super().reset(seed=seed)
        self.said, self.closed = f"{options['word']} {int(self.np_random.integers(100))}", False
        return self.said, {}

    def step(self, action):
        right, self.said = action in self.said, action
        return action, np.float32(right), action == "bye", action == "aaa", {"told": True}

    def close(self):
        self.closed = True


class Turns(gymnasium.Env):
    """Numbers both ways, of which the actions have words."""

    observation_space, action_space = Discrete(3), Discrete(2, start=5)
    action_words = ("left", "right")

    def reset(self, *, seed=None, options=None):
        return np.int64(1), {}

    def step(self, action):
        assert action in self.action_space
        return {5: 0, 6: 2}[action], 1.0, False, False, {}


class Pictures(Turns):
    observation_space = Box(0, 255, (4, 4), np.uint8)


def test_texts_are_messages_and_ends_are_gymnasiums() -> None:
    game = GymnasiumText(Echo())
    asked = game.reset({"prompt": "Say it.", "word": "bay"}, 3)
    assert asked[0]["role"] == "user" and asked[0]["content"].startswith("Say it.\nbay ")
    first = game.step("bay")
    assert first.messages == [{"role": "user", "content": "bay"}] and first.reward == 1.0 and first.info == {"told": 1}
    assert not first.terminated and not first.truncated
    assert game.step("bye").terminated and game.step("aaa").truncated


def test_an_episode_begins_from_the_rows_seed_or_from_the_rollouts() -> None:
    def begun(row, seed):
        return GymnasiumText(Echo()).reset({"prompt": "", "word": "x", **row}, seed)[0]["content"]

    assert begun({}, 1) == begun({}, 1) != begun({}, 2)
    assert begun({"seed": 7}, 1) == begun({"seed": 7}, 2) == begun({}, 7)
    assert begun({"seed": None}, 1) == begun({}, 1)


def test_a_conversation_goes_on_with_the_first_observation() -> None:
    def asked(prompt):
        return GymnasiumText(Turns()).reset({"prompt": prompt}, 0)

    system, hello = {"role": "system", "content": "Play."}, {"role": "user", "content": "Go."}
    assert asked([system]) == [system, {"role": "user", "content": "1"}]
    assert asked([system, hello]) == [system, {"role": "user", "content": "Go.\n1"}], "two of one role are one"
    assert asked("") == [{"role": "user", "content": "1"}]


def test_numbers_have_words() -> None:
    game = GymnasiumText(Turns(), observations=["here", "middle", "there"])
    assert game.reset({"prompt": "Where?"}, 0)[0]["content"] == "Where?\nmiddle"
    assert game.step("right").messages[0]["content"] == "there"
    assert game.step("I think so.\nleft \n").messages[0]["content"] == "here", "the last line counts"
    plain = GymnasiumText(Turns(), actions=["5", "6"])
    assert plain.reset({"prompt": "Where?"}, 0)[0]["content"] == "Where?\n1"


@pytest.mark.parametrize(("make", "said", "words"), [
    (Turns, "up", "error: wanted one of left, right"),
    (Turns, "", "error: wanted one of left, right"),
    (Echo, "abcd", "error: wanted 1 to 3 characters of 'abey'"),
])  # fmt: skip
def test_what_is_no_action_is_told_and_costs_the_turn(make, said, words) -> None:
    game = GymnasiumText(make())
    game.reset({"prompt": "", "word": "x"}, 0)
    step = game.step(said)
    assert step.messages == [{"role": "user", "content": words}]
    assert (step.reward, step.terminated, step.truncated) == (0.0, False, False)


WRONG = [
    (lambda: GymnasiumText(Pictures()), "Pictures: its observation space is Box.*Fix: a wrapper"),
    (lambda: GymnasiumText(Turns(), actions=["a"]), "its action space has 2 numbers; wanted as many words"),
    (lambda: GymnasiumText(Turns(), actions=["a", "a"]), "all different"),
    (lambda: GymnasiumText(Echo(), actions=["a", "b"]), "its action space is Text, whose texts need no words"),
]


@pytest.mark.parametrize(("make", "words"), WRONG, ids=["box", "few", "twice", "text"])
def test_other_spaces_are_refused(make, words) -> None:
    with pytest.raises(ConfigError, match=words):
        make()


def played(environment, row, *moves):
    scene = Stage(environment, 20.0).scene()
    said = [scene.reset(row, 0)().messages[-1]["content"]]
    steps = [scene.step(move)() for move in moves]
    scene.leave()
    return [*said, *(step.messages[-1]["content"] for step in steps)], steps[-1]


def test_a_registered_one_by_name() -> None:
    """Down, down, right, right, down, right is the way over the lake where it is not slippery."""
    lake = load_environment("gymnasium:FrozenLake-v1?is_slippery=false&actions=left,down,right,up")
    assert lake.name == "FrozenLake-v1"
    said, last = played(lake, {"prompt": "Cross."}, "down", "down", "right", "right", "down", "right")
    assert said == ["Cross.\n0", "4", "8", "9", "10", "14", "15"] and last.terminated and last.reward == 1.0
    _, cut = played(lake, {"prompt": "Cross."}, *["left"] * 100)
    assert cut.truncated and not cut.terminated, "its limit of 100 steps"


def test_classes_and_makers_in_a_file(tmp_path, monkeypatch) -> None:
    monkeypatch.chdir(tmp_path)
    text = (
        "import gymnasium\nfrom gymnasium.spaces import Box, Discrete\n"
        "class Two(gymnasium.Env):\n"
        "    observation_space, action_space = Discrete(2), Discrete(2)\n"
        "    def reset(self, *, seed=None, options=None):\n        return 0, {}\n"
        "    def step(self, action):\n        return 1, 0.5, True, False, {}\n"
        "class Boxed(Two):\n    observation_space = Box(0, 1)\n"
        "class Broken(Two):\n    def __init__(self):\n        raise OSError('no board')\n"
        "def two():\n    return Two()\n"
        "def boxed():\n    return Boxed()\n"
        "one = Two()\n"
    )
    (tmp_path / "games.py").write_text(text)
    for name in ("Two", "two"):
        assert played(load_environment(f"games.py:{name}"), {"prompt": "?"}, "1")[1].reward == 0.5
    for name, words in (
        ("Boxed", r"--environment games.py:Boxed: Boxed: its observation space is Box"),
        ("Broken", r"--environment games.py:Broken: making it raised OSError: no board at .*games.py:13"),
        ("one", "one is a Two; wanted a class"),
    ):
        with pytest.raises(ConfigError, match=words):
            load_environment(f"games.py:{name}")
    with pytest.raises(EnvironmentFailed, match="reset raised ConfigError: Boxed: its observation space is Box"):
        played(load_environment("games.py:boxed"), {"prompt": "?"})


NAMES = [
    ("gymnasium:FrozenLake", "gymnasium has no 'FrozenLake'. Did you mean gymnasium:FrozenLake"),
    ("gymnasium:FrozenLake-v1?slippery", "'slippery'; wanted setting=value"),
    ("gymnasium:FrozenLake-v1?sleepery=1", "--environment gymnasium:FrozenLake-v1?sleepery=1: making it raised TypeEr"),
    ("gymnasium:CartPole-v1", "CartPoleEnv: its observation space is Box"),
    ("gymnasium:no_such_module:Game-v0", "making it raised ModuleNotFoundError"),
]


@pytest.mark.parametrize(("spec", "words"), NAMES)
def test_wrong_names_say_what_is_wrong(spec, words) -> None:
    with pytest.raises(ConfigError) as caught:
        load_environment(spec)
    assert words in str(caught.value)


def test_without_gymnasium_it_says_what_to_install(monkeypatch) -> None:
    monkeypatch.setitem(__import__("sys").modules, "gymnasium", None)
    with pytest.raises(ConfigError, match=r'needs gymnasium. Fix: pip install "oneloop\[classic\]"'):
        load_environment("gymnasium:FrozenLake-v1")


def test_one_that_cannot_be_closed_is_refused_in_words() -> None:
    class Jams(Echo):
        def close(self):
            raise OSError(5, "no display")

    with pytest.raises(ConfigError, match=r"^--environment x: closing it raised OSError: .*no display"):
        environment_of(Jams, "Jams", "--environment x")


def test_it_is_closed() -> None:
    made = []

    def make():
        made.append(Echo())
        return GymnasiumText(made[-1])

    stage = Stage(NamedEnvironment("echo", make), 20.0)
    scene = stage.scene()
    scene.reset({"prompt": "", "word": "x"}, 0)()
    scene.leave()
    stage.close()
    assert made[0].closed
