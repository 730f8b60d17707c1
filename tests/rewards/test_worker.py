"""A reward function in a process of its own: the same numbers, and no hang, crash or trick of it outlives its batch."""

import json
import os
import signal
import subprocess
import sys
import time
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest
from test_rewards_score import trajectories

from oneloop.errors import ConfigError, RewardError
from oneloop.rewards import Limits, NamedReward, Pool, RewardScorer, load_reward
from oneloop.rewards import worker as worker_module
from oneloop.rewards.processes import kill_all, new_mark
from oneloop.rewards.worker import _Failed, _grades

PATIENT = Limits(timeout=60)
SOURCE = """
import os, signal, subprocess, sys, threading, time
from beside import third

calls = 0
sys.stdout.close()

def number(completions, answer, **columns):
    return [len(text) / 3 + 0.1 * float(value) for text, value in zip(completions, answer)]

def sibling(completions):
    from later import half  # while it is called, not while it is imported
    return [third(text) + half(text) for text in completions]

def loud(completions):
    os.write(1, b"{}" * 1000)
    sys.stderr.write("x" * 100_000)
    sys.stdout = sys.stderr = None
    os.close(1)
    return [1.0] * len(completions)

def each(completion):
    if completion == "hang":
        while True:
            pass
    if completion == "die":
        os._exit(7)
    return os.getpid() if completion == "pid" else float(len(completion))

def own(completion, answer):
    return float(answer)

def hang(completions):
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
    child = subprocess.Popen([sys.executable, "-c", "import time; time.sleep(1000)"])
    with open("child", "w") as file:
        file.write(str(child.pid))
    time.sleep(1000)

def sleep(completions):
    time.sleep(1000)

def escape(completions):
    for place, environment in enumerate([None, {}][: len(completions)]):
        child = subprocess.Popen(["sleep", "1000"], start_new_session=True, env=environment)
        with open(f"child{place}", "w") as file:
            file.write(str(child.pid))
    if completions[0] == "hang":
        time.sleep(1000)
    if completions[0] == "die":
        os._exit(7)
    return [1.0] * len(completions)

def pid(completions):
    return [float(os.getpid())] * len(completions)

def count(completions):
    global calls
    calls += 1
    return [float(calls)] * len(completions)

def fork(completions):
    os.fork()
    return [1.0] * len(completions)

def modules(completions):
    heavy = {"torch", "transformers", "numpy", "tyro"} & set(sys.modules)
    return [float(len(heavy)), float("__main__" in sys.modules and "pytest" in str(sys.modules["__main__"]))]

def threads(completions):
    assert threading.current_thread() is threading.main_thread()  # signal.alarm works
    return [1.0] * len(completions)
"""


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "mine.py").write_text(SOURCE)
    (tmp_path / "beside.py").write_text("def third(text): return len(text) / 3\n")
    (tmp_path / "later.py").write_text("def half(text): return len(text) / 2\n")
    return tmp_path


def scored(name: str, items, limits: Limits = PATIENT, on_error="stop"):
    pool = Pool(f"mine.py:{name}", limits)
    try:
        return RewardScorer((NamedReward(name, pool),), on_error)(items)
    finally:
        pool.close()


def values(name: str, items, limits: Limits = PATIENT, on_error="stop") -> list[float | None]:
    return [item.reward.value for item in scored(name, items, limits, on_error)]


def alive(pid: int) -> bool:
    """Zombies are not: where nobody waits for orphans they stay in the table."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()[0] != "Z"
    except OSError:
        return False


def gone(pid: int, seconds: float = 20.0) -> bool:
    end = time.monotonic() + seconds
    while alive(pid) and time.monotonic() < end:
        time.sleep(0.02)
    return not alive(pid)


def test_the_same_numbers_as_in_this_process(folder: Path) -> None:
    items = trajectories(*("x" * n for n in range(50)), answer=[n / 7 for n in range(50)])
    here = RewardScorer((NamedReward("number", lambda completions, answer: [
        len(text) / 3 + 0.1 * float(value) for text, value in zip(completions, answer, strict=True)
    ]),))(items)  # fmt: skip
    assert values("number", items) == [item.reward.value for item in here]
    assert values("each", items[:5], Limits(workers=3)) == [0.0, 1.0, 2.0, 3.0, 4.0]
    assert values("own", items[:5], Limits(workers=3)) == [n / 7 for n in range(5)]


def test_siblings_can_be_imported_at_any_time(folder: Path) -> None:
    assert values("sibling", trajectories("xxxxxx")) == [5.0]
    assert "beside" not in sys.modules


def test_siblings_in_this_process(folder: Path) -> None:
    path = list(sys.path)
    (folder / "small.py").write_text("from beside import third\ndef f(completions): return [third('xxx')]\n")
    try:
        assert load_reward("small.py:f").function([""]) == [1.0]
        assert sys.path == path
    finally:
        sys.modules.pop("beside", None)


def test_what_it_prints_or_closes_is_no_message(folder: Path) -> None:
    assert values("loud", trajectories("a", "b")) == [1.0, 1.0]


def test_it_loads_nothing_heavy_and_not_the_main_module(folder: Path) -> None:
    assert values("modules", trajectories("a", "b")) == [0.0, 0.0]


def test_it_is_called_in_a_main_thread(folder: Path) -> None:
    assert values("threads", trajectories("a")) == [1.0]


def test_a_hang_is_killed_with_what_it_started_and_told_by_its_line(folder: Path) -> None:
    line = SOURCE[: SOURCE.index("    time.sleep(1000)\n\ndef sleep")].count("\n") + 1
    start = time.monotonic()
    with pytest.raises(RewardError) as caught:
        scored("hang", trajectories("a"), Limits(timeout=3))
    assert time.monotonic() - start < 60
    assert f"was not done after 3 s, at {folder / 'mine.py'}:{line}, and its process was killed" in str(caught.value)
    assert "Fix: --reward-timeout" in str(caught.value)
    assert gone(int((folder / "child").read_text()))


@pytest.mark.skipif(sys.platform != "linux", reason="a session's processes are found in Linux's /proc")
@pytest.mark.parametrize("what", ["hang", "die", "return"])
def test_what_left_for_a_session_of_its_own_is_killed_too(folder: Path, what: str) -> None:
    """Beside a hang; when its parent is dead already; and at the end of a run in which nothing went wrong."""
    count = 1 if what == "die" else 2  # the second has cleared its environment: without a parent it is nobody's
    items = scored("escape", trajectories(*[what] * count), Limits(timeout=3), "unscored")
    assert [item.reward.value for item in items] == [1.0 if what == "return" else None] * count
    left = [pid for place in range(count) if not gone(pid := int((folder / f"child{place}").read_text()), 5)]
    for pid in left:
        os.kill(pid, signal.SIGKILL)
    assert not left


@pytest.mark.skipif(sys.platform != "linux", reason="the marks of processes are read in Linux's /proc")
def test_the_orphans_of_what_is_dead_are_known_by_their_mark(tmp_path: Path) -> None:
    mark, told = new_mark(), tmp_path / "child"
    start = "import subprocess, sys\nchild = subprocess.Popen(['sleep', '1000'], start_new_session=True)\n"
    script = f"{start}open(sys.argv[1], 'w').write(str(child.pid))"
    leader = subprocess.Popen([sys.executable, "-c", script, told], env={**os.environ, mark: ""})
    os.waitid(os.P_PID, leader.pid, os.WEXITED | os.WNOWAIT)
    orphan = int(told.read_text())
    assert alive(orphan)
    kill_all(leader.pid, mark)
    found = gone(orphan)
    with suppress(ProcessLookupError):
        os.kill(orphan, signal.SIGKILL)
    leader.wait()
    assert found


def test_state_lives_from_call_to_call_and_ends_with_the_process(folder: Path) -> None:
    pool = Pool("mine.py:count", PATIENT)
    score = RewardScorer((NamedReward("count", pool),))
    assert [score(trajectories("a"))[0].reward.value for _ in range(3)] == [1.0, 2.0, 3.0]
    os.killpg(pool._workers[0]._process.pid, signal.SIGKILL)
    os.waitid(os.P_PID, pool._workers[0]._process.pid, os.WEXITED | os.WNOWAIT)
    assert score(trajectories("a"))[0].reward.value == 1.0
    pool.close()


def test_one_hang_of_many_costs_one_completion(folder: Path) -> None:
    texts = ["a", "hang", "bb", "die", "ccc", "dddd"]
    items = scored("each", trajectories(*texts), Limits(timeout=4, workers=2), "unscored")
    assert [item.reward.value for item in items] == [1.0, None, 2.0, None, 3.0, 4.0]
    assert "was not done after 4 s" in items[1].reward.failures["each"]
    assert "--reward-workers" in items[1].reward.failures["each"]
    assert items[3].reward.failures["each"] == "ended its process by exit code 7"


def test_after_a_hang_the_next_batch_is_answered(folder: Path) -> None:
    """By a process of its own: the one that hung would never come to it."""
    pool = Pool("mine.py:each", Limits(timeout=5))
    score = RewardScorer((NamedReward("each", pool),), "unscored")
    assert [score(trajectories(text))[0].reward.value for text in ("hang", "bb")] == [None, 2.0]
    pool.close()


def test_one_worker_keeps_what_was_done_before_the_hang(folder: Path) -> None:
    items = scored("each", trajectories("a", "bb", "hang", "ccc"), Limits(timeout=2), "unscored")
    assert [item.reward.value for item in items] == [1.0, 2.0, None, None]


def test_workers_share_the_completions(folder: Path) -> None:
    pids = values("each", trajectories(*["pid"] * 64), Limits(workers=3))
    assert 2 <= len(set(pids)) <= 3


def test_a_hundred_hangs_leave_the_pool_as_it_was(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """And no process, no descriptor."""
    pids: list[int] = []

    class Counted(worker_module._Worker):
        def __init__(self, *arguments: Any) -> None:
            super().__init__(*arguments)
            pids.append(self._process.pid)

    monkeypatch.setattr(worker_module, "_Worker", Counted)
    before = len(os.listdir("/proc/self/fd")) if sys.platform == "linux" else 0
    pool = Pool("mine.py:each", Limits(timeout=0.05, workers=2))
    score = RewardScorer((NamedReward("each", pool),), "unscored")
    for _ in range(50):
        assert [item.reward.value for item in score(trajectories("hang", "hang"))] == [None, None]
        assert len(pool._workers) == 2
    pool.close()
    # on a busy machine the time of a batch may be over before the second worker was asked
    assert 50 <= len(pids) <= 102, "a hang ends a process"
    assert all(gone(pid) for pid in pids)
    if sys.platform == "linux":
        assert len(os.listdir("/proc/self/fd")) == before


def test_a_pool_that_nobody_holds_ends_its_processes(folder: Path) -> None:
    pool = Pool("mine.py:pid", PATIENT)
    pid = pool._workers[0]._process.pid
    assert alive(pid)
    del pool
    assert gone(pid)


@pytest.mark.skipif(sys.platform != "linux", reason="PR_SET_PDEATHSIG is Linux's")
@pytest.mark.parametrize("name", ["pid", "spin"])
def test_it_dies_with_its_parent_whatever_it_does(folder: Path, name: str) -> None:
    """The parent is killed while the function runs C code that lets no other thread in."""
    (folder / "spin.py").write_text(
        "import os, re\ndef pid(completions): ...\ndef spin(completions): re.match('(a+)+$', 'a' * 60 + 'b')\n"
    )
    script = (
        "import sys, threading, time\n"
        "from oneloop.rewards import *\n"
        "from oneloop.rewards.grading import Asked\n"
        f"pool = Pool('spin.py:{name}', Limits())\n"
        "asked = Asked(texts=['a'], prompts=[''], messages=[None], completion_ids=[()], prompt_ids=[()])\n"
        f"if '{name}' == 'spin': threading.Thread(target=pool.grade, args=(asked, print), daemon=True).start()\n"
        "time.sleep(0.5)\n"
        "print(pool._workers[0]._process.pid, flush=True)\n"
        "time.sleep(1000)\n"
    )
    paths = {**os.environ, "PYTHONPATH": str(Path(worker_module.__file__).parents[2])}
    with subprocess.Popen([sys.executable, "-c", script], stdout=subprocess.PIPE, text=True, env=paths) as parent:
        assert parent.stdout is not None
        try:
            pid = int(parent.stdout.readline())
            assert alive(pid)
        finally:
            parent.kill()
    assert gone(pid)


def test_a_fork_that_the_function_forgot_answers_once(folder: Path) -> None:
    pool = Pool("mine.py:fork", PATIENT)
    score = RewardScorer((NamedReward("fork", pool),), "unscored")
    assert [score(trajectories("a"))[0].reward.value for _ in range(2)] != []
    pool.close()


BAD_FILES = [
    ("raise KeyboardInterrupt", "raised KeyboardInterrupt at "),
    ("import os; os._exit(4)", "while it was imported, ended its process by exit code 4"),
    ("import nothing_such", "No module named 'nothing_such'"),
    ("x = 1", "has no 'f'"),
    ("class f: pass", "is a class"),
]


@pytest.mark.parametrize(("source", "said"), BAD_FILES)
def test_a_file_that_cannot_be_loaded(folder: Path, source: str, said: str) -> None:
    (folder / "bad.py").write_text(source)
    with pytest.raises(ConfigError) as caught:
        Pool("bad.py:f", PATIENT)
    assert said in str(caught.value) and str(caught.value).startswith("--reward bad.py:f: ")


def test_an_import_that_never_ends(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(worker_module, "LOAD_SECONDS", 2.0)
    (folder / "bad.py").write_text("import time\n\ntime.sleep(1000)\n")
    with pytest.raises(ConfigError, match=r"while it was imported, it was not done after 2 s at .*bad\.py:3"):
        Pool("bad.py:f", PATIENT)


def test_data_that_cannot_be_sent_is_said(folder: Path) -> None:
    with pytest.raises(RewardError, match="cannot be given this data in another process"):
        scored("number", trajectories("a", answer=[lambda: 0]))


BAD_ANSWERS = [
    {}, {"grades": 3}, {"grades": [[0, 1.0]]}, {"grades": [[9, 1.0, None, {}, {}]]},
    {"grades": [[0, "1.0", None, {}, {}]]}, {"grades": [[0, float("nan"), None, {}, {}]]},
    {"grades": [["x", 1.0, None, {}, {}]]}, {"grades": [[0, 1.0, None, {"m": "x"}, {}]]},
    {"grades": [[0, 1.0, None, [], {}]]}, {"grades": [None]},
]  # fmt: skip


@pytest.mark.parametrize("message", BAD_ANSWERS, ids=json.dumps)
def test_what_a_worker_sends_is_taken_for_nothing_else(message) -> None:
    with pytest.raises(_Failed, match="sent what is no answer"):
        _grades(message, 2)
