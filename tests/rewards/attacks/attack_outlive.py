"""Programs that want to go on after their time, or to hold up who waits for them."""

from attack import CALLING, Attack, breakout, fake

_STAY = """
def stay():
    import socket, time
    for _ in range(20):
        time.sleep(0.2)
        try:
            open("@OUTSIDE@/new", "w").close()
        except OSError:
            pass
        try:
            socket.create_connection(("127.0.0.1", @TCP@), 1).sendall(b"x")
        except OSError:
            pass
"""

OUTLIVE: list[Attack] = [
    breakout(
        "a daemon",
        _STAY
        + """
import os
def escaped():
    if os.fork() == 0:
        os.setsid()
        if os.fork() == 0:
            stay()
        os._exit(0)
    return True
""",
    ),
    breakout(
        "a grandchild that holds the output",
        """
import os, time
def escaped():
    if os.fork() == 0:
        if os.fork() == 0:
            time.sleep(60)
        os._exit(0)
    return True
""",
    ),
    breakout(
        "a fork at the end",
        _STAY
        + """
import atexit, os
def leave():
    if os.fork() == 0:
        stay()
        os._exit(0)
atexit.register(leave)
def escaped():
    return False
""",
    ),
    breakout(
        "a fork from a thread at the end",
        _STAY
        + """
import os, threading, time
def leave():
    time.sleep(0.2)
    try:
        os.fork()
    except OSError:
        pass
    stay()
threading.Thread(target=leave).start()
def escaped():
    return False
""",
    ),
    breakout(
        "a thread that never ends",
        """
import threading, time
threading.Thread(target=lambda: time.sleep(3600)).start()
def escaped():
    return False
""",
    ),
    breakout(
        "another session",
        _STAY
        + """
import os
def escaped():
    left = 0
    for attempt in (os.setsid, lambda: os.setpgid(0, 0), lambda: os.setpgid(0, 1)):
        try:
            attempt()
            left += 1
        except OSError:
            pass
    stay()
    return False
""",
    ),
    breakout(
        "no death with the parent",
        _STAY
        + CALLING
        + """
def escaped():
    call(157, 167, 1, 0, 0, 0, 0)
    call(157, 167, 36, 1, 0, 0, 0)
    stay()
    return False
""",
    ),
    breakout(
        "an exit that never comes",
        """
import atexit, time
class Late:
    def __del__(self):
        time.sleep(3600)
late = Late()
atexit.register(time.sleep, 3600)
def escaped():
    return False
""",
    ),
    breakout(
        "the channel closed",
        """
import os
def escaped():
    for descriptor in range(256):
        try:
            os.close(descriptor)
        except OSError:
            pass
    return True
""",
    ),
    breakout(
        "the channel held and nothing said",
        """
import os, time
def escaped():
    for descriptor in range(3, 256):
        try:
            os.dup(descriptor)
        except OSError:
            pass
    time.sleep(3600)
""",
    ),
    breakout(
        "the channel shut in one direction",
        """
import os, socket, time
def escaped():
    for descriptor in range(3, 64):
        try:
            socket.socket(fileno=os.dup(descriptor)).shutdown(socket.SHUT_RD)
        except OSError:
            pass
    time.sleep(3600)
""",
    ),
    breakout(
        "a byte now and then",
        """
import os, time
def escaped():
    while True:
        for descriptor in range(3, 8):
            try:
                os.write(descriptor, b"\\0")
            except OSError:
                pass
        time.sleep(0.05)
""",
    ),
    breakout(
        "a frame that never ends",
        """
import os
def escaped():
    while True:
        for descriptor in range(3, 8):
            try:
                os.write(descriptor, b"\\0\\x7f\\xff\\xff" + b"x" * 65536)
            except OSError:
                pass
""",
    ),
    breakout(
        "a length of four gibibytes",
        """
import os, time
def escaped():
    for descriptor in range(3, 8):
        try:
            os.write(descriptor, b"\\xff" * 64)
        except OSError:
            pass
    time.sleep(3600)
""",
    ),
    breakout(
        "descriptors passed to the other side",
        """
import array, os, socket, time
def escaped():
    for descriptor in range(3, 8):
        try:
            one = socket.socket(fileno=os.dup(descriptor))
            socket.send_fds(one, [b"x"], [0, 1, 2] * 20)
        except OSError:
            pass
    time.sleep(3600)
""",
    ),
    breakout("a signal to itself", "import os, signal\ndef escaped():\n    os.kill(os.getpid(), signal.SIGKILL)\n"),
    breakout("a crash", "import ctypes\ndef escaped():\n    ctypes.string_at(0)\n"),
    breakout("an abort", "import os\ndef escaped():\n    os.abort()\n"),
    fake(
        "a value of endless items",
        """
import itertools
def f(a, b):
    return itertools.count()
""",
    ),
    fake(
        "a value that counts forever inside",
        """
class Endless(list):
    def __iter__(self):
        while True:
            yield 0
    def __len__(self):
        return 1 << 40
def f(a, b):
    return Endless()
""",
    ),
    fake("a value that is larger than memory", "def f(a, b):\n    return ' ' * (300 << 20)\n"),
    fake("a value that is larger than a message", "def f(a, b):\n    return [b'x' * (1 << 20)] * 64\n"),
    fake(
        "a value nested without end",
        """
def f(a, b):
    value = []
    value.append(value)
    return value
""",
    ),
    fake(
        "a value nested a million deep",
        """
def f(a, b):
    value = []
    for _ in range(10 ** 6):
        value = [value]
    return value
""",
    ),
    fake(
        "a value that is shared into a bomb",
        """
def f(a, b):
    value = ["x"] * 10
    for _ in range(12):
        value = [value] * 10
    return value
""",
    ),
    fake("an integer that takes a day to print", "def f(a, b):\n    return 1 << (1 << 30)\n"),
    breakout(
        "an error whose text is endless",
        """
class Odd(ValueError):
    def __str__(self):
        while True:
            pass
def escaped():
    raise Odd
""",
    ),
    breakout("an error whose text is large", "def escaped():\n    raise ValueError('x' * (200 << 20))\n"),
    breakout(
        "errors inside of errors",
        """
def escaped():
    error = ValueError("0")
    for number in range(100000):
        error = ExceptionGroup(str(number), [error])
    raise error
""",
    ),
    breakout(
        "breaks its own interpreter",
        """
import sys
def escaped():
    sys.modules.clear()
    import builtins
    for name in list(vars(builtins)):
        if not name.startswith("__"):
            delattr(builtins, name)
    return False
""",
    ),
    breakout(
        "no memory left for an answer",
        """
held = []
def escaped():
    size = 1 << 28
    while size > 16:
        try:
            held.append(bytearray(size))
        except MemoryError:
            size //= 2
    return False
""",
    ),
    breakout(
        "no descriptors left for an answer",
        """
import os
held = []
def escaped():
    try:
        while True:
            held.append(os.dup(0))
    except OSError:
        return None
""",
    ),
]
