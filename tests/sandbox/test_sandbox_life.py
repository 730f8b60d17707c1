"""Starters and their runs begin, end, and leave nothing, whatever happens to their caller."""

import fcntl
import os
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from confined_text import ROLE, confined

from oneloop.errors import ConfigError, SandboxError
from oneloop.sandbox import tiers
from oneloop.sandbox.confined import Confined, begin
from oneloop.sandbox.inside.host import remove, sweep
from oneloop.sandbox.launch import Starter
from oneloop.sandbox.limits import Limits
from oneloop.sandbox.process import start
from oneloop.sandbox.tiers import Tier

SLEEP = b"channel.sendall(b'.'); import time; time.sleep(600)"
ENDS = [
    "say(1)",
    "1 / 0",
    "import os; os._exit(0)",
    "import os; os.abort()",
    "while True: pass",
    "open('x', 'w').write('y')",
]


@pytest.fixture
def fresh(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """No tier has been chosen yet."""
    tiers.close()
    monkeypatch.setattr(tiers, "_tier", None)
    yield
    tiers.close()


def sleeping(starter: Starter) -> Confined:
    run = begin(starter, ROLE, Limits(), None)
    run.channel.sendall(SLEEP)
    run.channel.shutdown(socket.SHUT_WR)
    assert run.channel.recv(1) == b"."
    return run


def below(pid: int) -> set[int]:
    """Processes that descend from one, and are no zombies."""
    parents = {}
    for folder in Path("/proc").glob("[0-9]*"):
        try:
            state, parent = (folder / "stat").read_bytes().rpartition(b")")[2].split()[:2]
        except OSError:
            continue
        if state != b"Z":
            parents[int(folder.name)] = int(parent)
    found: set[int] = set()
    while more := {child for child, parent in parents.items() if parent in found | {pid}} - found:
        found |= more
    return found


def _runs(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_bytes().rpartition(b")")[2].split()[0] not in (b"Z", b"X")
    except OSError:
        return False


def soon(done: Callable[[], bool], seconds: float = 5.0) -> bool:
    deadline = time.monotonic() + seconds
    while not done() and time.monotonic() < deadline:
        time.sleep(0.02)
    return done()


def holdings(starter: Starter) -> dict[str, object]:
    """What could be left behind."""
    processes = {starter._process.pid, *below(starter._process.pid)}
    return {
        "processes": len(processes),
        "descriptors": len(os.listdir("/proc/self/fd")),
        "of the starter": sorted(len(os.listdir(f"/proc/{pid}/fd")) for pid in processes),
        "mounts": {pid: Path(f"/proc/{pid}/mounts").read_text() for pid in processes},
        "mounts here": Path("/proc/self/mounts").read_text(),
        "scratch folders": scratch_folders(processes),
        "threads": threading.active_count(),
    }


def scratch_folders(processes: set[int]) -> list[Path]:
    """Those of a starter, by the folder that it has locked."""
    opened = {os.readlink(link) for pid in processes for link in Path(f"/proc/{pid}/fd").iterdir()}
    return [path for folder in opened if "/oneloop-sandbox-" in folder for path in Path(folder).iterdir()]


def test_nothing_is_left(starter: Starter) -> None:
    confined(starter, "say(1)")
    time.sleep(0.1)
    before = holdings(starter)
    for _ in range(3):
        for text in ENDS:
            confined(starter, text, Limits(seconds=0.1))
        begin(starter, ROLE, Limits(), None).close()
        sleeping(starter).kill()
    soon(lambda: holdings(starter) == before)
    assert holdings(starter) == before


def test_each_run_has_namespaces_of_its_own(starter: Starter) -> None:
    if starter.tier is not Tier.NAMESPACES or os.geteuid() != 0:
        pytest.skip("only root may look, and only this tier has them")

    def spaces(pid: int | str) -> dict[str, str]:
        return {kind: os.readlink(f"/proc/{pid}/ns/{kind}") for kind in ("user", "pid", "net", "mnt", "ipc", "uts")}

    kept = below(starter._process.pid)
    runs = [sleeping(starter) for _ in range(2)]
    first, second = (spaces(pid) for pid in below(starter._process.pid) - kept)
    for run in runs:
        run.close()
    ours = spaces("self")
    assert not [kind for kind, space in ours.items() if space in (first[kind], second[kind])]
    assert {kind for kind in ours if first[kind] != second[kind]} == {"user", "pid", "mnt", "ipc"}


def test_a_run_that_is_let_go_of_is_killed(starter: Starter) -> None:
    before = below(starter._process.pid)
    run = sleeping(starter)
    assert below(starter._process.pid) > before
    del run
    assert soon(lambda: below(starter._process.pid) == before)


def test_hostile_folders_are_removed(tmp_path: Path) -> None:
    """Deeper than a path can be long, without permissions, with links and names that are no text."""
    here, outside = os.getcwd(), tmp_path / "outside"
    outside.mkdir()
    (outside / "file").touch()
    top = tmp_path / "top"
    top.mkdir()
    try:
        os.chdir(top)
        os.symlink(outside, "link")
        os.mkfifo("pipe")
        os.mkdir("wide")
        for number in range(50):
            os.mkdir(f"wide/{number}")
            os.close(os.open(b"wide/%d/\xff" % number, os.O_CREAT | os.O_WRONLY))
        for _ in range(50):
            os.mkdir("a" * 200)
            os.chdir("a" * 200)
        os.mkdir("no rights", 0)
        os.chdir("..")
        os.chmod("a" * 200, 0)
    finally:
        os.chdir(here)
    remove(str(top))
    assert not top.exists() and (outside / "file").exists()


def test_a_starter_sweeps_up_what_a_killed_one_left(tmp_path: Path) -> None:
    dead, alive = tmp_path / "oneloop-sandbox-dead", tmp_path / "oneloop-sandbox-alive"
    for folder in (dead, alive):
        (folder / "1").mkdir(parents=True)
        (folder / "1" / "file").touch()
    lock = os.open(alive, os.O_RDONLY)
    fcntl.flock(lock, fcntl.LOCK_EX)
    try:
        sweep(str(tmp_path))
    finally:
        os.close(lock)
    assert [path.name for path in tmp_path.iterdir()] == [alive.name]


def test_many_threads_at_once(starter: Starter) -> None:
    wrong: list[object] = []

    def work(number: int) -> None:
        for each in range(5):
            ran = confined(starter, f"print({number}); say([{number}, {each}])", stdin=b"%d" % number)
            if (ran.answer, ran.stdout) != ([number, each], f"{number}\n"):
                wrong.append(ran)

    threads = [threading.Thread(target=work, args=(number,)) for number in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert wrong == []


def test_a_failure_to_confine_is_none_of_the_program(starter: Starter) -> None:
    with begin(starter, ROLE, Limits(memory_mb=1 << 60), None) as run, pytest.raises(SandboxError, match="confined"):
        run.wait(time.monotonic() + 10)
    with begin(starter, "no.such.role", Limits(), None) as run, pytest.raises(SandboxError, match=r"no\.such\.role"):
        run.wait(time.monotonic() + 10)
    assert confined(starter, "say(1)").answer == 1


def test_a_starter_that_dies(fresh: None, isolating: None) -> None:
    """What it ran is an error of the machine and gone; the next run has a new one."""
    tiers.tier()
    first = tiers.starter()
    with start(ROLE, Limits()) as run:
        pids = {first._process.pid, *below(first._process.pid)}
        os.kill(first._process.pid, signal.SIGKILL)
        with pytest.raises(SandboxError, match="died"):
            run.wait(time.monotonic() + 10)
    assert soon(lambda: not any(map(_runs, pids)))
    with start(ROLE, Limits()) as run:
        run.channel.shutdown(socket.SHUT_WR)
        assert run.wait(time.monotonic() + 10).status == 0


CALLER = """
import os, socket, sys, time
from oneloop.sandbox.confined import begin
from oneloop.sandbox.launch import Starter
from oneloop.sandbox.limits import Limits
starter, runs = Starter(sys.argv[1]), []
for _ in range(3):
    run = begin(starter, "oneloop.sandbox.inside.text", Limits(), None)
    run.channel.sendall({sleep!r})
    run.channel.shutdown(socket.SHUT_WR)
    run.channel.recv(1)
    runs.append(run)
if os.fork() == 0:  # holds copies of all descriptors, as a data loader would
    time.sleep(600)
print("ready", flush=True)
time.sleep(600)
"""


@pytest.mark.parametrize("how", [signal.SIGKILL, signal.SIGTERM])
def test_all_is_gone_when_the_caller_is_killed(starter: Starter, how: signal.Signals, tmp_path: Path) -> None:
    tier = starter.tier
    environment = os.environ | {"TMPDIR": str(tmp_path)}
    asked = [sys.executable, "-c", CALLER.format(sleep=SLEEP), tier]
    with subprocess.Popen(asked, stdout=subprocess.PIPE, env=environment, start_new_session=True) as caller:
        assert caller.stdout is not None and caller.stdout.readline() == b"ready\n"
        pids = below(caller.pid)
        assert len(pids) >= 5
        os.kill(caller.pid, how)
        caller.wait()
        others = {pid for pid in pids if os.path.exists(f"/proc/{pid}") and os.getpgid(pid) != caller.pid}
        assert soon(lambda: not any(map(_runs, others)))
        os.killpg(caller.pid, signal.SIGKILL)
    assert soon(lambda: not list(tmp_path.iterdir()))


def test_a_fork_of_the_caller_has_a_starter_of_its_own(isolating: None) -> None:
    program = """
import os, socket, time
from oneloop.sandbox.process import start
from oneloop.sandbox.limits import Limits
def run():
    with start("oneloop.sandbox.inside.text", Limits()) as run:
        run.channel.sendall(b"channel.sendall(b'x')")
        run.channel.shutdown(socket.SHUT_WR)
        return run.channel.recv(1) == b"x" and run.wait(time.monotonic() + 10).status == 0
assert run()
pids = [os.fork() for _ in range(2)]
good = all(run() for _ in range(5))
if 0 in pids:
    os._exit(0 if good else 1)
assert good and [os.waitpid(pid, 0)[1] for pid in pids] == [0, 0]
"""
    subprocess.run([sys.executable, "-W", "error", "-c", program], check=True, timeout=120)


def test_the_best_tier_is_taken_and_kept(fresh: None, capfd: pytest.CaptureFixture[str], starter: Starter) -> None:
    """Also where running without one would be allowed."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv(tiers.UNSAFE_VARIABLE, "1")
        if starter.tier is Tier.LANDLOCK:
            patch.setattr(
                tiers, "escapes", lambda tried: ["reads a file outside"] if tried.tier is Tier.NAMESPACES else []
            )
        assert tiers.tier() is starter.tier
        patch.setattr(tiers, "escapes", lambda tried: pytest.fail("a second look"))
        assert tiers.tier() is starter.tier
    assert "unsafe" not in capfd.readouterr().err


@pytest.mark.parametrize("value", [None, "", "0", "true", "11"])
def test_without_walls_nothing_runs(fresh: None, value: str | None, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tiers, "escapes", lambda starter: ["reads a file outside"])
    if value is None:
        monkeypatch.delenv(tiers.UNSAFE_VARIABLE, raising=False)
    else:
        monkeypatch.setenv(tiers.UNSAFE_VARIABLE, value)
    before = below(os.getpid())
    for _ in range(2):
        with pytest.raises(ConfigError, match=r"(?s)namespaces: .*landlock: .*lsm=.*ONELOOP_UNSAFE"):
            start(ROLE, Limits())
    assert below(os.getpid()) == before


def test_unsafe_is_said_at_every_start(
    fresh: None, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(tiers, "escapes", lambda starter: ["reads a file outside"])
    monkeypatch.setenv(tiers.UNSAFE_VARIABLE, "1")
    assert tiers.tier() is Tier.UNSAFE
    assert capfd.readouterr().err.startswith("unsafe: ")
    assert confined(tiers.starter(), "say(1)").answer == 1
    tiers.close()
    assert confined(tiers.starter(), "say(1)").answer == 1
    assert capfd.readouterr().err.startswith("unsafe: ")


@pytest.mark.parametrize(("platform", "machine"), [("darwin", "x86_64"), ("linux", "riscv64")])
def test_another_system_is_refused_by_name(
    fresh: None, platform: str, machine: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    names = os.uname()
    monkeypatch.setattr(sys, "platform", platform)
    monkeypatch.setattr(os, "uname", lambda: os.uname_result((*names[:4], machine)))
    with pytest.raises(ConfigError, match="Linux on x86_64 or aarch64 only"):
        tiers.tier()
