"""Each limit, in each tier: what passes it is gone, and soon."""

import signal
import socket
from dataclasses import replace
from textwrap import dedent

import pytest
from confined_text import ROLE, confined

from oneloop.sandbox.confined import Exit, begin
from oneloop.sandbox.launch import Starter
from oneloop.sandbox.limits import Limits

SMALL = Limits(seconds=0.3, memory_mb=128, output_mb=1, scratch_mb=4, files=50, threads=8)


def killed(exit: Exit, limit: str) -> bool:
    return (exit.status, exit.signal, exit.limit_hit) == (None, signal.SIGKILL, limit)


@pytest.mark.parametrize(
    "text",
    [
        "while True: pass",
        "10 ** 10 ** 9",
        "import re; re.match('(a+)+$', 'a' * 40 + 'b')",
        """
        import signal, resource
        for number in signal.valid_signals() - {signal.SIGKILL, signal.SIGSTOP}:
            signal.signal(number, lambda *_: None)
        while True:
            try:
                while True: pass
            except BaseException: pass
        """,
        """
        import threading
        def spin():
            while True: pass
        for _ in range(4): threading.Thread(target=spin).start()
        """,
    ],
    ids=["loop", "power", "regex", "handlers", "threads"],
)
def test_processor_time(starter: Starter, text: str) -> None:
    ran = confined(starter, text, SMALL)
    assert killed(ran.exit, "cpu")
    assert 0.3 <= ran.exit.cpu_seconds <= 1.3


@pytest.mark.parametrize(
    "text",
    [
        "import time; time.sleep(60)",
        "channel.recv(1); import signal; signal.pause()",
        "import signal, os; signal.pthread_sigmask(signal.SIG_BLOCK, signal.valid_signals()); signal.pause()",
        "import os, signal; os.kill(os.getpid(), signal.SIGSTOP); signal.pause()",
        "import threading, time; threading.Thread(target=time.sleep, args=(60,)).start()",
        "import atexit, time; atexit.register(time.sleep, 60)",
    ],
    ids=["sleep", "pause", "blocked", "stopped", "thread", "atexit"],
)
def test_the_deadline(starter: Starter, text: str) -> None:
    ran = confined(starter, text, SMALL, seconds=0.3)
    assert killed(ran.exit, "wall")
    assert ran.seconds < 1.3


def test_memory(starter: Starter) -> None:
    ran = confined(starter, "say([error(bytearray, 1 << 28), len(bytearray(1 << 25))])", SMALL)
    assert ran.answer == ["MemoryError", 1 << 25]
    ran = confined(
        starter,
        """
        import mmap
        say(error(mmap.mmap, -1, 1 << 28))
        """,
        SMALL,
    )
    assert ran.answer == "OSError"


def test_a_limit_cannot_be_raised(starter: Starter) -> None:
    ran = confined(
        starter,
        """
        import resource
        kinds = [getattr(resource, "RLIMIT_" + name) for name in ("AS", "CPU", "FSIZE", "NOFILE", "CORE")]
        say([error(resource.setrlimit, kind, (1 << 50, 1 << 50)) for kind in kinds])
        """,
    )
    assert ran.answer == ["ValueError"] * 5


@pytest.mark.parametrize("stream", ["stdout", "stderr"])
def test_output(starter: Starter, stream: str) -> None:
    text = f"import sys\nwhile True: sys.{stream}.write('x' * 100000)"
    ran = confined(starter, text, replace(SMALL, seconds=5.0))
    assert killed(ran.exit, "output") or (ran.exit.status, ran.exit.limit_hit) == (1, "output")
    assert len(ran.stdout) <= 1 << 20 and ran.seconds < 4.0


def test_output_of_both_streams_counts_together(starter: Starter) -> None:
    text = "import sys; sys.stdout.write('o' * 600000); sys.stderr.write('e' * {})"
    within = confined(starter, text.format(400_000), SMALL).exit
    assert (within.status, within.limit_hit) == (0, None)
    assert confined(starter, text.format(600_000), SMALL).exit.limit_hit == "output"


def test_as_much_output_as_is_allowed_whatever_the_scratch_folder_holds(starter: Starter) -> None:
    text = "import sys; sys.stdout.write('o' * ({} << 20))"
    small = replace(SMALL, scratch_mb=1, output_mb=2)
    assert len(confined(starter, text.format(2), small).stdout) == 2 << 20
    assert confined(starter, text.format(3), small).exit.limit_hit == "output"


def test_a_process_that_has_ended_within_its_limit_left_it_so(starter: Starter) -> None:
    ran = confined(starter, "print('text'); import sys; sys.exit(3)", SMALL)
    assert (ran.exit.status, ran.exit.signal, ran.exit.limit_hit, ran.stdout) == (3, None, None, "text\n")


@pytest.mark.parametrize(
    "text",
    [
        "[open(str(n), 'w').write('x' * (1 << 20)) for n in range(9)]",
        "import os; f = os.open('f', os.O_CREAT | os.O_RDWR); os.posix_fallocate(f, 0, 9 << 20)",
        "[open(str(n), 'w').close() for n in range(99)]",
        """
        import os
        for n in range(99):
            os.mkdir("a" * 200); os.chdir("a" * 200)
        """,
        "import os; [os.symlink('x', str(n)) for n in range(99)]",
    ],
    ids=["bytes", "reserved", "files", "deep", "links"],
)
def test_scratch(starter: Starter, text: str) -> None:
    """An error where the folder is a file system of its own, the end where it is on the disk."""
    text = "import time\ntry:\n" + indented(text) + "\nexcept OSError: say('full')\ntime.sleep(0.5)"
    ran = confined(starter, text, SMALL)
    assert ran.answer == "full" or killed(ran.exit, "scratch")


def test_what_is_in_the_scratch_folder_at_the_end(starter: Starter) -> None:
    """However short the time was: a look comes at the end too."""
    ran = confined(starter, "try:\n [open(str(n), 'w').close() for n in range(99)]\nexcept OSError: say('full')", SMALL)
    assert ran.answer == "full" or ran.exit.limit_hit == "scratch"


def test_scratch_folder_of_the_allowed_size(starter: Starter) -> None:
    text = "[open(str(n), 'w').write('x' * 60000) for n in range(49)]; import time; time.sleep(0.2); say('done')"
    assert confined(starter, text, SMALL).answer == "done"


def test_threads(starter: Starter) -> None:
    """An error where the kernel counts them, the end where the starter does."""
    text = """
    import threading, time
    started = 1
    try:
        while started < 30:
            threading.Thread(target=time.sleep, args=(0.5,)).start()
            started += 1
    except RuntimeError:
        say(started)
    time.sleep(1)
    """
    ran = confined(starter, text, SMALL)
    assert ran.answer == 8 or killed(ran.exit, "threads")


def test_threads_that_are_there_when_it_is_wanted_no_more(starter: Starter) -> None:
    text = """
    import threading, time
    try:
        for _ in range(30):
            threading.Thread(target=time.sleep, args=(9,)).start()
        channel.sendall(b"all")
    except RuntimeError:
        channel.sendall(b"refused")
    time.sleep(9)
    """
    with begin(starter, ROLE, SMALL, None) as run:
        run.channel.sendall(dedent(text).encode())
        run.channel.shutdown(socket.SHUT_WR)
        answer = run.channel.recv(99)
        assert answer == b"refused" or run.wait(0.0).limit_hit == "threads"


def test_as_many_threads_as_are_allowed_fit(starter: Starter) -> None:
    text = """
    import threading
    gate = threading.Barrier(64)
    threads = [threading.Thread(target=gate.wait) for _ in range(63)]
    for thread in threads: thread.start()
    gate.wait(), [thread.join() for thread in threads]
    say("met")
    """
    assert confined(starter, text).answer == "met"


def test_descriptors(starter: Starter) -> None:
    ran = confined(starter, "import os\nwhile not error(os.dup, 0): pass\nsay('out of them')")
    assert ran.answer == "out of them"


def test_a_crash_is_a_signal(starter: Starter) -> None:
    ran = confined(starter, "import ctypes; ctypes.string_at(0)")
    assert (ran.exit.signal, ran.exit.limit_hit) == (signal.SIGSEGV, None)


def indented(text: str) -> str:
    return "\n".join("    " + line for line in text.replace("\n        ", "\n").splitlines())
