"""Programs that want more of the machine than they may have."""

from attack import CALLING, Attack, breakout

MANY_FILES = ("landlock",)
"""What fills a disk by files that the kernel does not count."""

RESOURCES: list[Attack] = [
    breakout("fork", "import os\ndef escaped():\n    if os.fork() == 0:\n        os._exit(0)\n    return True\n"),
    breakout(
        "fork bomb",
        """
import os
def escaped():
    born = 0
    for _ in range(200):
        try:
            if os.fork() == 0:
                while True: pass
            born += 1
        except OSError:
            break
    return born > 0
""",
    ),
    breakout(
        "fork by system call",
        CALLING
        + """
def escaped():
    for x86, arm, arguments in ((57, -1, ()), (58, -1, ()), (56, 220, (17, 0, 0, 0, 0)), (435, 435, (zeros, 88))):
        zeros[32:40] = (17).to_bytes(8, "little")
        pid = call(x86, arm, *arguments)
        if pid == 0:
            os._exit(0)
        if pid > 0:
            return True
    return False
""",
    ),
    breakout(
        "multiprocessing",
        """
import multiprocessing
def escaped():
    child = multiprocessing.get_context("fork").Process(target=int)
    child.start()
    child.join()
    return True
""",
    ),
    breakout(
        "memory in children",
        """
import os
def escaped():
    pipes = 0
    for _ in range(8):
        if os.fork() == 0:
            hoard = bytearray(400 << 20)
            os._exit(len(hoard) == 0)
        pipes += 1
    return pipes == 8
""",
    ),
    breakout("a gibibyte of memory", "def escaped():\n    return len(bytearray(1 << 30)) == 1 << 30\n"),
    breakout(
        "a gibibyte in pieces",
        """
def escaped():
    pieces = []
    for _ in range(1024):
        pieces.append(bytearray(b"x") * (1 << 20))
    return len(pieces) == 1024
""",
    ),
    breakout(
        "a gibibyte of mapped memory",
        """
import mmap
def escaped():
    memory = mmap.mmap(-1, 1 << 30)
    for place in range(0, 1 << 30, 4096):
        memory[place] = 1
    return True
""",
    ),
    breakout(
        "memory in nameless files",
        CALLING
        + """
def escaped():
    block, held = b"x" * (1 << 20), 0
    for _ in range(40):
        descriptor = call(319, 279, b"m", 0)
        if descriptor < 0:
            return False
        for _ in range(32):
            held += os.write(descriptor, block)
    return held > 1 << 30
""",
    ),
    breakout(
        "memory in pipes",
        """
import fcntl, os
def escaped():
    held, block = 0, b"x" * (1 << 20)
    for _ in range(2000):
        try:
            reading, writing = os.pipe()
            os.set_blocking(writing, False)
            try:
                fcntl.fcntl(writing, 1031, 1 << 20)
            except OSError:
                pass
            held += os.write(writing, block)
        except OSError:
            break
    return held > 256 << 20
""",
    ),
    breakout(
        "memory in sockets",
        """
import socket
def escaped():
    held, pairs = 0, []
    for _ in range(2000):
        try:
            pairs.append(socket.socketpair())
            pairs[-1][0].setblocking(False)
            while True:
                held += pairs[-1][0].send(b"x" * 65536)
        except BlockingIOError:
            pass
        except OSError:
            break
    return held > 256 << 20
""",
    ),
    breakout(
        "memory in pages that a socket holds",
        """
import os, socket
def escaped():
    descriptor = os.open("pages", os.O_CREAT | os.O_RDWR)
    size, place, held, pairs = 60 << 20, 60 << 20, 0, []
    try:
        while held * 4096 < 128 << 20:
            pairs.append(socket.socketpair())
            for one in pairs[-1]:
                one.setblocking(False)
                try:
                    while True:
                        if place == size:
                            os.ftruncate(descriptor, 0)
                            os.lseek(descriptor, 0, os.SEEK_SET)
                            for _ in range(60):
                                os.write(descriptor, b"x" * (1 << 20))
                            place = 0
                        held += os.sendfile(one.fileno(), descriptor, place, 1)
                        place += 4096
                except BlockingIOError:
                    pass
    except OSError:
        return False
    return True
""",
    ),
    breakout(
        "a shared memory segment",
        CALLING
        + """
def escaped():
    return call(29, 194, 0, 256 << 20, 0o1600) >= 0
""",
    ),
    breakout(
        "memory in /dev/shm",
        """
def escaped():
    with open("/dev/shm/hoard", "wb") as file:
        for _ in range(100):
            file.write(b"x" * (1 << 20))
    return True
""",
    ),
    breakout(
        "locked memory",
        CALLING
        + """
def escaped():
    memory = ctypes.create_string_buffer(1 << 20)
    return _libc.mlock(memory, 1 << 20) == 0 or call(151, 230, 3) == 0
""",
    ),
    breakout("an endless loop", "def escaped():\n    while True:\n        pass\n"),
    breakout("an endless loop at import", "while True:\n    pass\ndef escaped():\n    return True\n"),
    breakout("an endless sleep", "import time\ndef escaped():\n    time.sleep(3600)\n    return False\n"),
    breakout("an endless sum in C", "def escaped():\n    return len(str(9 ** 9 ** 9)) == 0\n"),
    breakout(
        "an expression that never matches",
        """
import re
def escaped():
    return re.match(r"(a|aa)+$", "a" * 200 + "b") is not None
""",
    ),
    breakout(
        "endless loops in threads",
        """
import threading, time
def escaped():
    def spin():
        while True: pass
    for _ in range(8):
        threading.Thread(target=spin).start()
    time.sleep(3600)
""",
    ),
    breakout(
        "deaf to every signal",
        """
import signal
def escaped():
    for number in signal.valid_signals():
        try:
            signal.signal(number, signal.SIG_IGN)
        except OSError:
            pass
    while True:
        pass
""",
    ),
    breakout(
        "every signal blocked",
        """
import signal, time
def escaped():
    signal.pthread_sigmask(signal.SIG_BLOCK, signal.valid_signals())
    while True:
        time.sleep(1000)
""",
    ),
    breakout(
        "stops itself",
        """
import os, signal, time
def escaped():
    os.kill(os.getpid(), signal.SIGSTOP)
    os.kill(0, signal.SIGSTOP)
    time.sleep(1000)
""",
    ),
    breakout(
        "raises its own limits",
        """
import resource
def escaped():
    raised = 0
    for name in ("AS", "CPU", "FSIZE", "NOFILE", "NPROC", "DATA", "STACK", "MEMLOCK", "CORE"):
        try:
            resource.setrlimit(getattr(resource, "RLIMIT_" + name), (resource.RLIM_INFINITY, resource.RLIM_INFINITY))
            raised += name in ("AS", "CPU", "FSIZE", "NOFILE", "MEMLOCK", "CORE")
        except (ValueError, OSError):
            pass
    return raised > 0
""",
    ),
    breakout(
        "more CPU time than allowed",
        """
import time
def escaped():
    while time.process_time() < 30:
        pass
    return True
""",
    ),
    breakout(
        "a timer that forgives",
        """
import signal
def escaped():
    signal.signal(signal.SIGXCPU, lambda *_: None)
    signal.signal(signal.SIGALRM, lambda *_: None)
    signal.alarm(0)
    signal.setitimer(signal.ITIMER_PROF, 0)
    count = 0
    while count < 10 ** 10:
        count += 1
    return True
""",
    ),
    breakout(
        "a large file",
        """
def escaped():
    with open("large", "wb") as file:
        for _ in range(100):
            file.write(b"x" * (1 << 20))
    return True
""",
    ),
    breakout(
        "large files",
        """
def escaped():
    for number in range(40):
        with open(f"large{number}", "wb") as file:
            for _ in range(8):
                file.write(b"x" * (1 << 20))
    return True
""",
        open_in=MANY_FILES,
    ),
    breakout(
        "files without names",
        """
import os
def escaped():
    held = []
    for number in range(40):
        held.append(open("nameless", "wb"))
        os.unlink("nameless")
        held[-1].write(b"x" * (8 << 20))
        held[-1].flush()
    return True
""",
        open_in=MANY_FILES,
    ),
    breakout(
        "room set aside for files without names",
        """
import mmap, os
def escaped():
    held = []
    for _ in range(20):
        descriptor = os.open("nameless", os.O_CREAT | os.O_RDWR)
        os.unlink("nameless")
        os.posix_fallocate(descriptor, 0, 60 << 20)
        held.append(mmap.mmap(descriptor, 4096))
        os.close(descriptor)
    return True
""",
        open_in=MANY_FILES,
    ),
    breakout(
        "many files",
        """
def escaped():
    for number in range(3000):
        open(str(number), "w").close()
    return True
""",
        open_in=MANY_FILES,
    ),
    breakout(
        "many folders",
        """
import os
def escaped():
    for number in range(3000):
        os.mkdir(str(number))
    return True
""",
        open_in=MANY_FILES,
    ),
    breakout(
        "room set aside for a file",
        """
import os
def escaped():
    descriptor = os.open("aside", os.O_CREAT | os.O_RDWR)
    os.posix_fallocate(descriptor, 0, 1 << 30)
    return True
""",
    ),
    breakout(
        "a folder a thousand deep",
        """
import os
def escaped():
    for _ in range(1000):
        os.mkdir("d")
        os.chdir("d")
    return True
""",
        open_in=MANY_FILES,
    ),
    breakout(
        "room set aside beyond the end of a file",
        CALLING
        + """
def escaped():
    descriptor = os.open("aside", os.O_CREAT | os.O_RDWR)
    call(285, 47, descriptor, 1, 0, 1 << 30)
    return os.fstat(descriptor).st_blocks * 512 > 128 << 20
""",
    ),
    breakout(
        "room set aside beyond the end of the output",
        CALLING
        + """
def escaped():
    for descriptor in (1, 2):
        call(285, 47, descriptor, 1, 0, 60 << 20)
    return sum(os.fstat(descriptor).st_blocks for descriptor in (1, 2)) * 512 > 32 << 20
""",
    ),
    breakout(
        "a flood of output",
        """
import os, sys
def escaped():
    for _ in range(200):
        os.write(1, b"x" * (1 << 20))
    return True
""",
    ),
    breakout(
        "a flood of errors",
        """
import os
def escaped():
    for _ in range(200):
        os.write(2, b"x" * (1 << 20))
    return True
""",
    ),
    breakout(
        "output that is larger than a file may be",
        """
import os
def escaped():
    os.ftruncate(1, 1 << 40)
    os.posix_fallocate(2, 0, 1 << 30)
    return True
""",
    ),
    breakout(
        "deep recursion",
        """
import sys
sys.setrecursionlimit(1 << 30)
def escaped():
    return escaped() or True
""",
    ),
    breakout(
        "deep recursion in C",
        """
import sys
def escaped():
    sys.setrecursionlimit(1 << 30)
    nested = []
    for _ in range(10 ** 6):
        nested = [nested]
    return len(repr(nested)) == 0
""",
    ),
    breakout(
        "ten thousand threads",
        """
import threading
def escaped():
    stop, count = threading.Event(), 0
    threading.stack_size(32768)
    for _ in range(10000):
        try:
            threading.Thread(target=stop.wait, daemon=True).start()
        except RuntimeError:
            break
        count += 1
    stop.set()
    return count > 64
""",
    ),
    breakout(
        "ten thousand descriptors",
        """
import os
def escaped():
    count = 0
    try:
        for _ in range(10000):
            os.dup(0)
            count += 1
    except OSError:
        pass
    return count > 5000
""",
    ),
    breakout(
        "a table of descriptors for each thread",
        CALLING
        + """
import threading
def escaped():
    counts = []
    gate = threading.Barrier(20)
    def hoard():
        call(436, 436, 4000, 4001, 2)
        gate.wait()
        count = 0
        try:
            while True:
                os.dup(0)
                count += 1
        except OSError:
            counts.append(count)
        gate.wait()
    threads = [threading.Thread(target=hoard) for _ in range(20)]
    for one in threads:
        one.start()
    for one in threads:
        one.join()
    return sum(counts) > 1024
""",
    ),
    breakout(
        "a thread that shares no descriptors",
        CALLING
        + """
def escaped():
    stack = ctypes.create_string_buffer(1 << 16)
    top = ctypes.c_void_p(ctypes.addressof(stack) + 65000 & ~15)
    wait = ctypes.cast(_libc.pause, ctypes.c_void_p)
    return _libc.clone(wait, top, 0x10000 | 0x800 | 0x100, None) > 0
""",
    ),
    breakout(
        "a higher priority",
        """
import os
def escaped():
    try:
        return os.nice(-5) < 0 or True
    except OSError:
        os.setpriority(os.PRIO_PROCESS, 0, -10)
        return True
""",
    ),
    breakout(
        "real-time scheduling",
        """
import os
def escaped():
    os.sched_setscheduler(0, os.SCHED_FIFO, os.sched_param(1))
    return True
""",
    ),
    breakout(
        "never first to be killed when memory is short",
        """
def escaped():
    with open("/proc/self/oom_score_adj", "w") as file:
        file.write("-1000")
    return True
""",
    ),
    breakout("a wide integer", "def escaped():\n    return (1 << (1 << 36)) > 0\n"),
    breakout(
        "a bomb of zeros",
        """
import zlib
def escaped():
    packed = zlib.compress(bytes(100 << 20), 9)
    return len(b"".join(zlib.decompress(packed) for _ in range(16))) > 1 << 30
""",
    ),
]
