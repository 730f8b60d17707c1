"""What a confined process can reach, and what it has, in each tier."""

import os
import resource
import socket
import subprocess
import sys
import zoneinfo

import pytest
from confined_text import confined

from oneloop.sandbox.confined import begin
from oneloop.sandbox.launch import Starter
from oneloop.sandbox.limits import Limits
from oneloop.sandbox.probe import escapes
from oneloop.sandbox.tiers import Tier


def test_nothing_gets_out(starter: Starter) -> None:
    assert escapes(starter) == []


def test_without_walls_the_same_attempts_succeed() -> None:
    """So that a probe that tries nothing would be seen."""
    starter = Starter(Tier.UNSAFE)
    try:
        found = escapes(starter)
    finally:
        starter.close()
    assert {
        "reads a file outside", "writes a file outside", "connects over TCP", "connects to an abstract socket",
        "connects to a socket by path", "signals the caller", "starts a process", "changes a file outside",
        "lists processes", "may call memfd_create", "may call getpriority", "pairs datagram sockets",
    } <= set(found)  # fmt: skip
    assert not [name for name in found if name.startswith("cannot ")]


def test_what_it_sees_of_itself(starter: Starter) -> None:
    ran = confined(
        starter,
        """
        import os, sys
        say([dict(os.environ), os.getcwd(), os.listdir(), sys.version_info[:3], sys.flags.no_site,
             [n for n in range(256) if not error(os.fstat, n)], os.umask(0),
             sorted(m for m in sys.modules if "oneloop" in m),
             error(__import__, "oneloop"), error(__import__, "torch"), sys.stdin.read(), os.getuid(), os.getgroups()])
        """,
    )
    environment, folder, files, version, no_site, descriptors, umask, modules, oneloop, torch, *rest = ran.answer
    assert environment == {"PATH": "/usr/bin:/bin", "HOME": folder, "TMPDIR": folder, "LANG": "C.UTF-8"}
    assert files == [] and umask == 0o077 and modules == []
    assert tuple(version) == sys.version_info[:3] and no_site
    assert [each for each in descriptors if each < 40] == [0, 1, 2, 3]
    assert oneloop == torch == "ImportError"
    stdin, user, groups = rest
    assert stdin == "" and user != 0
    if os.geteuid() == 0:
        assert groups == []


def test_the_hash_seed_is_0(starter: Starter) -> None:
    asked = [sys.executable, "-c", "print(hash('a'))"]
    expected = subprocess.run(asked, env={"PYTHONHASHSEED": "0"}, capture_output=True, check=True).stdout
    assert confined(starter, "say(hash('a'))").answer == int(expected)


@pytest.mark.parametrize("module", ["site-packages", "dist-packages"])
def test_other_packages_cannot_be_read(starter: Starter, module: str) -> None:
    ran = confined(
        starter,
        f"""
        import os, sys
        found = []
        for path in list(sys.path):
            folder = path + "/{module}"
            if os.path.isdir(folder):
                try:
                    for name in os.listdir(folder):
                        if os.path.isfile(folder + "/" + name):
                            open(folder + "/" + name).read()
                            found.append(name)
                except OSError:
                    pass
        say(found)
        """,
    )
    assert ran.answer == []


def test_no_second_process(starter: Starter) -> None:
    ran = confined(
        starter,
        """
        import concurrent.futures, multiprocessing, os, subprocess
        say([error(os.fork), error(os.system, "true"), error(os.popen, "true"), error(subprocess.run, ["true"]),
             error(os.execv, "/bin/true", ["true"]), error(os.posix_spawn, "/bin/true", ["true"], {}),
             error(multiprocessing.get_context("fork").Process(target=print).start),
             error(multiprocessing.get_context("spawn").Process(target=print).start), error(os.forkpty)])
        """,
    )
    assert ran.answer == ["OSError"] * 9


def test_no_sockets_but_pairs_of_streams(starter: Starter) -> None:
    ran = confined(
        starter,
        """
        import asyncio, os, socket
        a, b = socket.socketpair()
        a.sendall(b"text")
        async def both():
            reader, writer = await asyncio.open_connection(sock=a)
            b.sendall(b"line\\n")
            return (await reader.readline()).decode()
        kinds = [(f, k) for f in (socket.AF_INET, socket.AF_INET6, socket.AF_UNIX, socket.AF_NETLINK)
                 for k in (socket.SOCK_STREAM, socket.SOCK_DGRAM)]
        c, d = socket.socketpair()
        say([b.recv(9).decode(), asyncio.run(both()), [error(socket.socket, *kind) for kind in kinds],
             error(socket.socketpair, socket.AF_UNIX, socket.SOCK_DGRAM),
             error(c.sendto, b"x", "/run/x"), error(socket.send_fds, c, [b"x"], [0]), error(c.bind, "x")])
        """,
    )
    text, line, kinds, *others = ran.answer
    assert (text, line, set(kinds), set(others)) == ("text", "line\n", {"OSError"}, {"OSError"})


def test_other_processes_cannot_be_asked_about(starter: Starter) -> None:
    ran = confined(
        starter,
        f"""
        import os, resource, signal, time
        other = {os.getpid()}
        say([error(os.kill, other, 0), error(os.kill, -1, 0), error(os.killpg, other, 0), error(os.getsid, other),
             error(os.getpgid, other), error(os.sched_getaffinity, other), error(os.sched_setaffinity, 0, [0]),
             error(resource.prlimit, other, resource.RLIMIT_CPU), error(time.clock_gettime, ~other << 3 | 2),
             error(os.nice, 1), error(os.listdir, "/proc"), error(open, "/proc/1/environ"),
             error(open, "/proc/{os.getpid()}/status"), error(os.readlink, "/proc/{os.getpid()}/exe")])
        """,
    )
    assert ran.answer == ["OSError"] * 14


def test_it_may_signal_and_ask_about_itself(starter: Starter) -> None:
    ran = confined(
        starter,
        """
        import os, resource, signal, threading, time
        seen = []
        signal.signal(signal.SIGUSR1, lambda number, frame: seen.append(number))
        os.kill(os.getpid(), signal.SIGUSR1)
        signal.raise_signal(signal.SIGUSR1)
        signal.setitimer(signal.ITIMER_REAL, 0.01)
        signal.signal(signal.SIGALRM, lambda number, frame: seen.append(number))
        time.sleep(0.05)
        resource.setrlimit(resource.RLIMIT_NOFILE, (20, 20))
        limit = resource.getrlimit(resource.RLIMIT_NOFILE)
        say([seen, len(os.sched_getaffinity(0)) > 0, limit, time.process_time() > 0])
        """,
    )
    assert ran.answer == [[10, 10, 14], True, [20, 20], True]


def test_its_folder_is_an_ordinary_one(starter: Starter) -> None:
    ran = confined(
        starter,
        """
        import os, shutil, tempfile, pathlib
        pathlib.Path("a").write_text("é")
        os.makedirs("b/c")
        shutil.copy2("a", "b/c/d")
        shutil.move("b/c/d", "e")
        os.symlink("a", "f")
        os.link("a", "g")
        with tempfile.TemporaryDirectory() as folder, tempfile.NamedTemporaryFile("w+") as file:
            file.write("x"), file.flush(), file.truncate(0)
        shutil.rmtree("b")
        say([sorted(os.listdir()), open("e").read(), os.path.abspath("a") == os.path.join(os.environ["HOME"], "a")])
        """,
    )
    assert ran.answer == [["a", "e", "f", "g"], "é", True]


def test_nothing_else_can_be_written_or_changed(starter: Starter) -> None:
    ran = confined(
        starter,
        """
        import os, sys
        library = os.path.dirname(os.__file__)
        places = ("/", "/tmp", "/dev", "/dev/shm/..", "/etc", "..", library)
        tried = [error(open, place + "/new", "w") for place in places]
        tried += [error(open, os.__file__, "a"), error(os.unlink, os.__file__), error(os.rename, os.__file__, "x"),
                  error(os.mkdir, library + "/new"), error(os.mkdir, "/new"), error(os.rmdir, library)]
        say([tried, error(os.mknod, "node"), error(os.chroot, "."), error(os.chown, ".", 0, 0)])
        """,
    )
    tried, *others = ran.answer
    assert set(tried) == {"OSError"} and set(others) == {"OSError"}


def test_files_outside_keep_their_mode_and_time(starter: Starter, tmp_path_factory: pytest.TempPathFactory) -> None:
    """Landlock alone does not look at these; for a process of the same user that is what counts."""
    path = tmp_path_factory.mktemp("outside") / "file"
    path.write_text("text")
    before = path.stat()
    confined(
        starter,
        f"""
        import os
        for attempt in (lambda p: os.chmod(p, 0), lambda p: os.utime(p, (0, 0)), lambda p: os.truncate(p, 0),
                        lambda p: os.setxattr(p, "user.x", b"y")):
            error(attempt, {str(path)!r})
        """,
    )
    after = path.stat()
    assert (after.st_mode, after.st_mtime, after.st_size) == (before.st_mode, before.st_mtime, before.st_size)
    assert os.listxattr(path) == []


def test_stdin_is_a_file_that_nobody_can_change(starter: Starter) -> None:
    ran = confined(
        starter,
        """
        import os, sys
        say([sys.stdin.readline(), os.lseek(0, 0, 0), os.read(0, 99).decode(), open("/dev/stdin").read(),
             error(os.write, 0, b"x"), error(os.ftruncate, 0, 0)])
        """,
        stdin=b"1\n2\n",
    )
    assert ran.answer == ["1\n", 0, "1\n2\n", "1\n2\n", "OSError", "OSError"]


def test_two_runs_do_not_meet(starter: Starter) -> None:
    """One waits while the other looks for it and leaves what it can."""
    with begin(starter, "oneloop.sandbox.inside.text", Limits(), None) as first:
        first.channel.sendall(
            b"import os; open('mine', 'w'); channel.sendall(b'%d' % os.getpid()); import time; time.sleep(60)"
        )
        first.channel.shutdown(socket.SHUT_WR)
        pid = int(first.channel.recv(99))
        ran = confined(
            starter,
            f"""
            import os
            say([os.listdir(), error(os.listdir, ".."), None if os.getpid() == {pid} else error(os.kill, {pid}, 0)])
            """,
        )
    files, above, kill = ran.answer
    assert files == [] and above in (None, "OSError") and kill in (None, "OSError")
    if above is None:  # a mount of its own: the folder above holds its scratch folder alone
        assert kill is None


def test_the_caller_is_left_as_it_was(starter: Starter) -> None:
    def state() -> list[object]:
        umask = os.umask(0)
        os.umask(umask)
        limits = [resource.getrlimit(getattr(resource, name)) for name in dir(resource) if name.startswith("RLIMIT_")]
        return [umask, limits, os.getpriority(os.PRIO_PROCESS, 0), dict(os.environ), os.getcwd()]

    before = state()
    confined(starter, "say(1)")
    assert state() == before


def test_time_and_types_of_files_are_the_same_everywhere(starter: Starter) -> None:
    ran = confined(
        starter,
        """
        import datetime, mimetypes, time, zoneinfo
        say([time.tzname, str(datetime.datetime.fromtimestamp(0)), mimetypes.guess_type("a.png")[0],
             error(zoneinfo.ZoneInfo, "Europe/Paris")])
        """,
    )
    *rest, zone = ran.answer
    assert rest == [["UTC", "UTC"], "1970-01-01 00:00:00", "image/png"]
    assert zone is None or not any(map(os.path.isdir, zoneinfo.TZPATH))
