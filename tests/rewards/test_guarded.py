"""A function from Python, in the trainer's process: it cannot hang, end, fork or bend the run."""

import os
import re
import sys
import threading
import time
from pathlib import Path

import pytest
from test_rewards_score import trajectories

from oneloop.errors import RewardError
from oneloop.rewards import NamedReward, RewardScorer, guarded
from oneloop.rewards.guarded import Guarded, undisturbed

HERE = re.escape(__file__)


def scored(function, *texts, timeout=30.0, on_error="unscored"):
    grader = Guarded(function, "mine", timeout)
    try:
        return RewardScorer((NamedReward("mine", grader),), on_error)(trajectories(*(texts or ("ab", "c"))))
    finally:
        grader.close()


def values(items) -> list[float | None]:
    return [item.reward.value for item in items]


def failures(items) -> set[str]:
    return {text for item in items for text in item.reward.failures.values()}


def test_it_shares_memory_with_whoever_gave_it() -> None:
    seen: list[str] = []

    def remembers(completions):
        seen.extend(completions)
        return [float(len(text)) for text in completions]

    assert values(scored(remembers)) == [2.0, 1.0] and seen == ["ab", "c"]


def raises_like_ctrl_c(completions):
    raise KeyboardInterrupt


def leaves(completions):
    sys.exit(0)


def ends_the_process(completions):
    try:
        os._exit(0)
    finally:
        pass


def ends_it_by_keyword(completions):
    os._exit(status=0)


def aborts(completions):
    os.abort()


def moves(completions):
    import torch

    torch.set_default_device("meta")


@pytest.mark.parametrize(
    ("function", "said"),
    [
        (raises_like_ctrl_c, "raised KeyboardInterrupt at"),
        (leaves, "raised SystemExit: 0 at"),
        (ends_the_process, "os._exit would hold for the trainer too"),
        (ends_it_by_keyword, "os._exit would hold for the trainer too"),
        (aborts, "os.abort would hold for the trainer too"),
        (moves, "torch.set_default_device would hold for the trainer too"),
    ],
)
def test_what_would_end_or_bend_the_trainer_is_a_failure(function, said: str) -> None:
    import torch

    real = os._exit, os.abort, torch.set_default_device
    items = scored(function)
    assert values(items) == [None, None] and all(said in text and f"{__file__}:" in text for text in failures(items))
    assert (os._exit, os.abort, torch.set_default_device) == real and torch.get_default_device().type == "cpu"
    with pytest.raises(RewardError, match=re.escape(said)):
        scored(function, on_error="stop")


def doubles(completions):
    """As loading a model does, but it never puts back what was."""
    import torch

    torch.set_default_dtype(torch.float32)
    torch.set_default_dtype(torch.float64)
    return [float(torch.tensor(0.1).double() == 0.1)] * len(completions)


def test_another_dtype_holds_while_nothing_else_is_computed() -> None:
    import torch

    real = torch.set_default_dtype
    assert values(scored(doubles)) == [1.0, 1.0]
    assert torch.get_default_dtype() == torch.float32 and torch.set_default_dtype is real
    found: list = []
    beside = threading.Thread(target=lambda: found.extend(scored(doubles)))
    beside.start()
    beside.join()
    (said,) = failures(found)
    assert "torch.set_default_dtype would hold for the trainer too" in said and "before training begins" in said
    assert torch.get_default_dtype() == torch.float32 and torch.set_default_dtype is real


def test_streams_and_folder_are_as_they_were(tmp_path: Path, capfd) -> None:
    streams, folder = (sys.stdout, sys.stderr), os.getcwd()

    def rude(completions):
        print("still heard")
        with sys.stdout:
            sys.stdout.close()
        sys.stderr.close()
        sys.stdout = sys.stderr = None
        os.chdir(tmp_path)
        return [1.0] * len(completions)

    assert values(scored(rude)) == [1.0, 1.0]
    assert (sys.stdout, sys.stderr) == streams and os.getcwd() == folder
    print("mine")
    assert capfd.readouterr().out == "still heard\nmine\n"


@pytest.mark.filterwarnings("ignore:This process .* is multi-threaded")
def test_a_fork_ends_where_the_function_does(tmp_path: Path) -> None:
    """For each completion by itself too: a copy must not go on with those that are left."""
    log = tmp_path / "log"

    def forks(completion):
        with log.open("a") as file:
            file.write(f"{os.getpid()}\n")
        if completion == "fork":
            os.fork()
        return 1.0

    assert values(scored(forks, "fork", "b", "c")) == [1.0, 1.0, 1.0]
    ended = (0, -1)
    for _ in range(200):  # a copy that goes on would never end
        if (ended := os.waitpid(-1, os.WNOHANG))[0]:
            break
        time.sleep(0.1)
    assert ended[0] and ended[1] == 0, "it ended by itself"
    assert log.read_text().split() == [str(os.getpid())] * 3


def sleeps(completions):
    while True:
        time.sleep(0.001)


def spins(completions):
    while True:
        pass


def stubborn(completions):
    for _ in range(3):
        try:
            while True:
                pass
        except BaseException:
            continue


@pytest.mark.parametrize("function", [sleeps, spins, stubborn])
def test_a_hang_in_python_costs_its_batch_alone(function) -> None:
    before = threading.active_count()
    items = scored(function, timeout=0.2)
    assert values(items) == [None, None] and threading.active_count() == before
    (said,) = failures(items)
    assert re.match(rf"was not done after 0.2 s, at {HERE}:\d+\. Fix: reward_timeout=", said)


def test_what_was_graded_before_the_hang_counts() -> None:
    def each(completion):
        while completion == "hang":
            pass
        return float(len(completion))

    assert values(scored(each, "ab", "hang", "c", timeout=0.5)) == [2.0, None, None]


def test_a_hang_that_nothing_can_end_ends_the_run_also_where_failures_are_let_pass(monkeypatch) -> None:
    """It would stay, and a thousand of them too."""
    monkeypatch.setattr(guarded, "TRIES", 3)
    free = threading.Event()

    def blocked(completions):
        free.wait(60)
        return [1.0]

    try:
        with pytest.raises(RewardError, match=r"mine was not done after 0.1 s, at .*, and cannot be ended.*'file.py:f"):
            scored(blocked, timeout=0.1)
    finally:
        free.set()


def test_many_hangs_leave_nothing() -> None:
    """`make soak` has a thousand."""
    grader = Guarded(sleeps, "mine", 0.002)
    score = RewardScorer((NamedReward("mine", grader),), "unscored")
    threads, descriptors = threading.active_count(), len(os.listdir("/proc/self/fd")) if sys.platform == "linux" else 0
    for _ in range(100):
        assert values(score(trajectories("a"))) == [None]
    grader.close()
    assert threading.active_count() <= threads
    if sys.platform == "linux":
        assert len(os.listdir("/proc/self/fd")) == descriptors


def test_the_users_own_ctrl_c_is_not_swallowed(monkeypatch) -> None:
    class Interrupted(guarded.Event):
        def wait(self, timeout=None):
            raise KeyboardInterrupt

    monkeypatch.setattr(guarded, "Event", Interrupted)
    with pytest.raises(KeyboardInterrupt):
        scored(lambda completions: [1.0] * len(completions))


def test_of_several_at_once_the_last_puts_back_what_the_first_found() -> None:
    streams, folder = (sys.stdout, sys.stderr), os.getcwd()
    entered, leave = threading.Event(), threading.Event()

    def first() -> None:
        with undisturbed(1):
            entered.set()
            leave.wait(30)

    thread = threading.Thread(target=first)
    thread.start()
    entered.wait(30)
    with undisturbed(2):
        leave.set()
        thread.join()
        assert sys.stdout is not streams[0]
        os.chdir("/")
    assert (sys.stdout, sys.stderr) == streams and os.getcwd() == folder
