"""What a Python program needs to read: the folders of the standard library. The C libraries are loaded beforehand."""

from __future__ import annotations

import ctypes
import os
import sys
import time
import zoneinfo
from contextlib import suppress
from pathlib import Path

OTHERS = ("site-packages", "dist-packages")
"""Names of folders within a library that hold what is not standard."""
_SCREENS = ("_tkinter", "_test", "_xx")
"""Extension modules that are of no use here, and would load the libraries of a window system."""

_M_ARENA_MAX = -8
_LC_ALL_MASK = 0x1FBF
"""Every category of locale.h that the C library knows."""
_STACK = 6 << 20
"""Bytes of address space for the stack of a thread; 8 MiB is usual."""
_libc = ctypes.CDLL(None)


def library() -> list[str]:
    """Folders of the standard library, none within another."""
    found = [path for path in sys.path if os.path.isdir(path)]
    return [path for path in found if not any(path.startswith(other + "/") for other in found)]


def time_zones() -> list[str]:
    """Folders of the data that `zoneinfo` reads, where the machine has them."""
    return [path for path in zoneinfo.TZPATH if os.path.isdir(path)]


def be_in_utc() -> None:
    """The time zone of the machine, read when the interpreter began, is forgotten."""
    os.environ["TZ"] = "UTC0"
    time.tzset()
    del os.environ["TZ"]
    time.tzset()


def load_libraries() -> None:
    """Load each C library that an extension module of Python asks for, so that none need be found later.

    The modules themselves are loaded in a child that ends: it only tells which libraries came with them.
    """
    reading, writing = os.pipe()
    pid = os.fork()
    if pid == 0:
        try:
            before = _mapped()
            for path in sys.path:
                for module in sorted(Path(path).glob("*.so")):
                    if not module.name.startswith(_SCREENS):
                        with suppress(OSError):
                            ctypes.CDLL(str(module))
            with suppress(OSError):
                ctypes.CDLL("libgcc_s.so.1")  # the C library loads it where a thread ends
            new = [path for path in _mapped() - before if not path.startswith(tuple(sys.path))]
            os.write(writing, "\n".join(sorted(new)).encode())
        finally:
            os._exit(0)
    os.close(writing)
    with open(reading, encoding="utf-8") as answer:
        names = answer.read().splitlines()
    os.waitpid(pid, 0)
    for name in names:
        with suppress(OSError):
            ctypes.CDLL(name)


def load_locale() -> None:
    """Keep the files of the locale that runs are told of, for nothing inside can read them; it is not set here."""
    _libc.newlocale.restype = ctypes.c_void_p
    _libc.newlocale(_LC_ALL_MASK, b"C.UTF-8", None)


def become(user: int) -> None:
    os.setgroups([])
    os.setresgid(user, user, user)
    os.setresuid(user, user, user)


def make_threads_small() -> None:
    """So that as many as are allowed fit in the address space that is."""
    _libc.mallopt(_M_ARENA_MAX, 1)
    attributes = ctypes.create_string_buffer(128)
    _libc.pthread_attr_init(attributes)
    _libc.pthread_attr_setstacksize(attributes, ctypes.c_size_t(_STACK))
    _libc.pthread_setattr_default_np(attributes)


def _mapped() -> set[str]:
    with open("/proc/self/maps", encoding="utf-8", errors="surrogateescape") as lines:
        return {line.rstrip("\n").split(maxsplit=5)[5] for line in lines if ".so" in line and "/" in line}
