"""An environment may raise, hang or answer nonsense: each is said in words, and none is read as a reward."""

import asyncio
import os
import threading
import time

import pytest

from oneloop.environments import NamedEnvironment, Stage, Step, closing, load_environment, stage
from oneloop.environments.closing import Closings
from oneloop.errors import ConfigError, EnvironmentFailed

HELLO = [{"role": "user", "content": "hello"}]


class Echo:
    """Says again what it hears."""

    def reset(self, row):
        self.row = row
        return HELLO

    def step(self, completion):
        return Step(messages=[{"role": "user", "content": completion}], reward=len(completion))


def scene(make, timeout=20.0):
    return Stage(NamedEnvironment("mine", make), timeout).scene()


def answering(answer):
    """A scene whose environment has begun, and that answers by `answer`."""

    class Answering(Echo):
        def step(self, completion):
            return answer(completion)

    made = scene(Answering)
    made.reset({}, 0)()
    return made


def test_what_an_environment_says_arrives() -> None:
    made = scene(Echo)
    assert made.reset({"prompt": "2+3"}, 0)().messages == tuple(HELLO)
    step = made.step("abc")()
    assert (step.messages[0]["content"], step.reward, step.terminated, step.truncated) == ("abc", 3.0, False, False)
    made.leave()


def test_asking_returns_at_once_and_many_wait_together() -> None:
    """Sixteen environments that all have to be in `step` before one of them may answer."""
    everyone = threading.Barrier(16)

    class Together(Echo):
        def step(self, completion):
            everyone.wait(20)
            return super().step(completion)

    scenes = [scene(Together) for _ in range(16)]
    for one in scenes:
        one.reset({}, 0)()
    waiting = [one.step(str(number)) for number, one in enumerate(scenes)]
    assert [wait().messages[0]["content"] for wait in waiting] == [str(number) for number in range(16)]


def test_async_methods_share_one_loop() -> None:
    """What `reset` opens is there for `step`."""

    class Later(Echo):
        async def reset(self, row):
            self.event = asyncio.Event()
            return HELLO

        async def step(self, completion):
            asyncio.get_running_loop().call_later(0.01, self.event.set)
            await self.event.wait()
            return Step(reward=1.0, terminated=True)

    made = scene(Later)
    made.reset({}, 0)()
    assert made.step("x")().reward == 1.0


def test_a_seed_is_given_to_whoever_asks_for_it() -> None:
    class Seeded(Echo):
        def reset(self, row, seed):
            return [{"role": "user", "content": str(seed)}]

    assert scene(Seeded).reset({}, 17)().messages[0]["content"] == "17"


def bent(name, value):
    """A step as it would be where nobody checks types."""
    step = Step(terminated=True)
    object.__setattr__(step, name, value)
    return step


def raises(completion):
    raise ValueError("no such tool")


NONSENSE = [
    (raises, r"step raised ValueError: no such tool at .*test_stage.py:\d+"),
    (lambda said: None, "step returned None of type NoneType; wanted a Step"),
    (lambda said: (HELLO, 1.0, True), "wanted a Step"),
    (lambda said: bent("messages", "hello"), "step returned the messages 'hello'; wanted a list of messages"),
    (lambda said: Step(messages=[{"role": "user"}]), "wanted a list of messages"),
    (lambda said: bent("messages", 7), "wanted a list of messages"),
    (lambda said: bent("calls", 7), "step returned the call 7; wanted oneloop.environments.Call"),
    (lambda said: bent("calls", [{"name": "a"}]), "wanted oneloop.environments.Call"),
    (lambda said: Step(reward=float("nan"), terminated=True), "step returned the reward nan; wanted a finite number"),
    (lambda said: bent("reward", "1"), "step returned the reward '1'; wanted a finite number"),
    (lambda said: Step(), "step neither said anything nor ended the episode"),
    (lambda said: os._exit(3), "SharedProcess"),
    (lambda said: (_ for _ in ()).throw(SystemExit(3)), "SystemExit"),
    (lambda said: (_ for _ in ()).throw(KeyboardInterrupt()), "KeyboardInterrupt"),
]


@pytest.mark.parametrize(("answer", "words"), NONSENSE, ids=lambda value: value[:40] if isinstance(value, str) else "")
def test_nonsense_is_no_step(answer, words) -> None:
    made = answering(answer)
    with pytest.raises(EnvironmentFailed, match=words):
        made.step("x")()


def test_what_would_end_the_process_in_a_coroutine_ends_that_call_alone() -> None:
    """`asyncio` lets SystemExit out of its loop, which would then answer nobody."""

    class Leaves(Echo):
        async def step(self, completion):
            await asyncio.sleep(0)
            if completion == "exit":
                raise SystemExit(3)
            if completion == "_exit":
                os._exit(3)
            return Step(reward=1.0, terminated=True)

    place = Stage(NamedEnvironment("mine", Leaves), 20.0)
    for said, words in (
        ("exit", r"step raised RuntimeError: SystemExit: 3 at .*test_stage.py"),
        ("_exit", "SharedProcess"),
    ):
        made = place.scene()
        made.reset({}, 0)()
        with pytest.raises(EnvironmentFailed, match=words):
            made.step(said)()
    made = place.scene()
    made.reset({}, 0)()
    assert made.step("x")().reward == 1.0
    place.close()


def test_episodes_of_one_row_share_nothing() -> None:
    class Deals(Echo):
        def reset(self, row):
            self.deck = row["deck"]
            return HELLO

        def step(self, completion):
            return Step(reward=self.deck.pop(), terminated=True)

    row = {"deck": [1, 2, 3]}
    scenes = [scene(Deals) for _ in range(2)]
    for one in scenes:
        one.reset(row, 0)()
    assert [one.step("x")().reward for one in scenes] == [3, 3] and row == {"deck": [1, 2, 3]}


def test_an_environment_may_say_that_it_has_no_tools() -> None:
    class Bare(Echo):
        tools = None

    made = scene(Bare)
    made.reset({}, 0)()
    assert made.tools is None


@pytest.mark.parametrize(("opening", "words"), [(None, "reset returned None"), ([], "reset returned no messages")])
def test_an_episode_begins_with_messages(opening, words) -> None:
    class Silent(Echo):
        def reset(self, row):
            return opening

    with pytest.raises(EnvironmentFailed, match=words):
        scene(Silent).reset({}, 0)()


def test_a_function_may_make_what_is_no_environment() -> None:
    with pytest.raises(EnvironmentFailed, match="reset raised TypeError: mine made None; wanted an object with reset"):
        scene(lambda: None).reset({}, 0)()


def test_a_constructor_may_fail_too() -> None:
    with pytest.raises(EnvironmentFailed, match="reset raised ZeroDivisionError"):
        scene(lambda: 1 / 0).reset({}, 0)()


def endless(completion):
    while True:
        pass


async def sleeping(completion):
    await asyncio.sleep(3600)


@pytest.mark.parametrize("answer", [endless, sleeping])
def test_a_hang_ends_after_its_time_and_leaves_no_thread(answer) -> None:
    made = answering(answer)
    made._stage.timeout, thread = 0.1, made._caller._thread
    with pytest.raises(EnvironmentFailed, match=r"^step was not done after 0.1 s.*--reward-timeout"):
        made.step("x")()
    assert not thread.is_alive()


def test_a_hang_that_nothing_can_end_is_left_behind_and_too_many_end_the_run(monkeypatch) -> None:
    monkeypatch.setattr("oneloop.rewards.guarded.TRIES", 2)
    monkeypatch.setattr(stage, "MOST_ABANDONED", 2)
    free = threading.Event()

    class Blocked(Echo):
        def step(self, completion):
            free.wait(60)

    place, hopeless = Stage(NamedEnvironment("mine", Blocked), 0.05), []
    try:
        for _ in range(3):
            made = place.scene()
            made.reset({}, 0)()
            with pytest.raises(EnvironmentFailed) as caught:
                made.step("x")()
            hopeless.append(caught.value.hopeless)
        assert hopeless == [False, False, True]
        assert "3 threads hang in it now" in str(caught.value)
    finally:
        free.set()


class Closing(Echo):
    """Tells `closed` of the thread that closes it."""

    def __init__(self, closed):
        self.closed = closed

    def close(self):
        self.closed.append(threading.get_ident())


def test_closing_is_called_once_in_the_environments_thread_and_waited_for() -> None:
    closed, threads = [], []

    class Slow(Closing):
        def reset(self, row):
            threads.append(threading.get_ident())
            return HELLO

        def close(self):
            time.sleep(0.2)
            super().close()
            raise ValueError("nobody hears this")

    place = Stage(NamedEnvironment("mine", lambda: Slow(closed)), 20.0)
    for made in (place.scene(), place.scene()):
        made.reset({}, 0)()
        made.leave()
        made.leave()
    place.close()
    assert sorted(closed) == sorted(threads) and len(set(threads)) == 2


def test_closing_may_be_async() -> None:
    closed = []

    class Later(Closing):
        async def close(self):
            await asyncio.sleep(0.05)
            super().close()

    place = Stage(NamedEnvironment("mine", lambda: Later(closed)), 20.0)
    made = place.scene()
    made.reset({}, 0)()
    made.leave()
    place.close()
    assert len(closed) == 1


@pytest.mark.parametrize("answer", [endless, sleeping])
def test_what_was_over_its_time_is_closed_too(answer) -> None:
    closed = []

    class Hangs(Closing):
        def step(self, completion):
            return answer(completion)

    place = Stage(NamedEnvironment("mine", lambda: Hangs(closed)), 0.2)
    made = place.scene()
    made.reset({}, 0)()
    with pytest.raises(EnvironmentFailed, match="was not done"):
        made.step("x")()
    place.closings = Closings(20.0)
    made.leave()
    place.close()
    assert len(closed) == 1


def test_closing_is_not_waited_for_longer_than_a_call_may_take() -> None:
    """And what hangs in it leaves no thread."""

    class Hangs(Echo):
        def close(self):
            endless("")

    place = Stage(NamedEnvironment("mine", Hangs), 0.3)
    scenes = [place.scene() for _ in range(3)]
    for made in scenes:
        made.reset({}, 0)()
    threads = [made._caller._thread for made in scenes]
    for made in scenes:
        made.leave()
    place.close()
    assert not any(thread.is_alive() for thread in threads)


def hasty(make, seconds):
    """Closing alone has so little time: others' calls may take longer on a machine that is busy."""
    place = Stage(NamedEnvironment("mine", make), 20.0)
    place.closings = Closings(seconds, place._stuck)
    return place


def blocked(free):
    """Waits where Python ends nothing."""
    free.wait(60)


@pytest.mark.parametrize("stuck", [False, True], ids=["async", "in C"])
def test_closings_that_hang_take_nobodys_turn(stuck, monkeypatch) -> None:
    """More of them than calls that may be carried out at once, and the next episode still begins."""
    monkeypatch.setattr("oneloop.rewards.guarded.TRIES", 1)
    monkeypatch.setattr(stage, "AT_ONCE", 3)
    monkeypatch.setattr(closing, "MOST_CLOSING", 3)
    free = threading.Event()

    class Hangs(Echo):
        def close(self):
            return blocked(free) if stuck else asyncio.sleep(3600)

    place, heard = hasty(Hangs, 0.1), []

    def play():
        for _ in range(8):
            made = place.scene()
            made.reset({}, 0)()
            made.leave()
        heard.append(place.scene().reset({}, 0)())
        place.close()
        heard.append("closed")

    thread = threading.Thread(target=play, daemon=True)
    thread.start()
    thread.join(20)
    free.set()
    assert [type(each).__name__ for each in heard] == ["Step", "str"]
    assert all(place.free.acquire(timeout=20) for _ in range(3)), "every slot comes back"


def test_eighty_episodes_whose_async_close_hangs_all_end() -> None:
    closed = []

    class Hangs(Closing):
        async def close(self):
            try:
                await asyncio.sleep(3600)
            finally:
                super().close()

    place = hasty(lambda: Hangs(closed), 0.3)
    scenes = [place.scene() for _ in range(80)]
    for made in scenes:
        made.reset({}, 0)()
    thread = threading.Thread(target=lambda: [*(made.leave() for made in scenes), place.close()], daemon=True)
    thread.start()
    thread.join(60)
    assert not thread.is_alive() and closed
    assert all(place.free.acquire(timeout=20) for _ in range(stage.AT_ONCE)), "every slot comes back"


def test_too_many_that_hang_in_closing_end_the_run(monkeypatch) -> None:
    monkeypatch.setattr("oneloop.rewards.guarded.TRIES", 1)
    monkeypatch.setattr(stage, "MOST_ABANDONED", 1)
    monkeypatch.setattr(closing, "MOST_CLOSING", 0)
    free = threading.Event()

    class Hangs(Echo):
        def close(self):
            blocked(free)

    place = hasty(Hangs, 0.5)
    try:
        for _ in range(2):
            made = place.scene()
            made.reset({}, 0)()
            made.leave()
        with pytest.raises(EnvironmentFailed, match=r"close was not done.* 2 threads hang in it now") as caught:
            place.scene().reset({}, 0)()
        assert caught.value.hopeless
    finally:
        free.set()


def test_many_that_close_wait_for_the_oldest(monkeypatch) -> None:
    monkeypatch.setattr(closing, "MOST_CLOSING", 1)
    closed, free = [], threading.Event()

    class Waits(Closing):
        def close(self):
            free.wait(20)
            super().close()

    place = Stage(NamedEnvironment("mine", lambda: Waits(closed)), 20.0)
    scenes = [place.scene() for _ in range(2)]
    for made in scenes:
        made.reset({}, 0)()
    scenes[0].leave()
    assert not closed, "the first returns at once"
    threading.Timer(0.2, free.set).start()
    scenes[1].leave()
    assert closed, "the second waits until the first is done"
    place.close()
    assert len(closed) == 2


def test_a_scene_has_no_thread_before_it_is_asked() -> None:
    before = threading.active_count()
    scenes = [scene(Echo) for _ in range(200)]
    assert threading.active_count() == before
    scenes[0].reset({}, 0)()
    assert threading.active_count() == before + 1
    for made in scenes:
        made.leave()


WRONG = [
    ("calclator", "Did you mean calculator?"),
    ("mine.py", "that is a file; wanted a class in it. Fix: --environment mine.py:Class"),
    ("mine.py:", "wanted file.py:Class or package.module:Class"),
    ("gone.py:Mine", "no file gone.py"),
    ("mine.py:Mime", "Did you mean 'Mine'?"),
    ("mine.py:Lacks", "Lacks has no method 'step'"),
    ("mine.py:SEVEN", "SEVEN is a int; wanted a class"),
    ("mine.py:Board", "Board is made without arguments: missing a required argument: 'size'. Fix: defaults for them"),
    ("mine.py:Odd", "Odd.reset is given the row: too many positional arguments. Fix: def reset(self, row), or"),
    ("oneloop.nothing:Mine", "--environment oneloop.nothing:Mine: importing oneloop.nothing raised"),
]


@pytest.mark.parametrize(("spec", "words"), WRONG)
def test_a_wrong_name_says_what_is_wrong(spec, words, tmp_path, monkeypatch) -> None:
    monkeypatch.chdir(tmp_path)
    text = "class Mine:\n    def reset(self, row): ...\n    def step(self, completion): ...\n"
    text += "class Board(Mine):\n    def __init__(self, size): ...\nclass Odd(Mine):\n    def reset(self): ...\n"
    (tmp_path / "mine.py").write_text(text + "class Lacks:\n    def reset(self, row): ...\nSEVEN = 7\n")
    assert load_environment("mine.py:Mine").name == "Mine"
    with pytest.raises(ConfigError) as caught:
        load_environment(spec)
    assert words in str(caught.value)
