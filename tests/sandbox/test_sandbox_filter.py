"""The filter of system calls, by running its instructions here: so both machines are tested on either."""

import re
import struct
from pathlib import Path

import pytest

from oneloop.sandbox.inside import seccomp

ALLOW, KILL, EPERM, ENOSYS, ENOTTY = 0x7FFF0000, 0x80000000, 0x50001, 0x50026, 0x50019
EINVAL, EOPNOTSUPP = 0x50016, 0x5005F
ARCHITECTURES = {"x86_64": 0xC000003E, "aarch64": 0xC00000B7, "i386": 0x40000003, "arm": 0x40000028}
NAMES = (
    "read", "clone", "kill", "fcntl", "ioctl", "socketpair", "sendto", "prctl", "recvfrom", "getsockopt", "fallocate",
    "close_range",
)  # fmt: skip
CALLS = {
    "x86_64": (0, 56, 62, 72, 16, 53, 44, 157, 45, 55, 285, 436),
    "aarch64": (63, 220, 129, 25, 29, 199, 206, 167, 207, 209, 47, 436),
}
PID = 4711


def answer(
    machine: str, number: int, arguments: tuple[int, ...] = (), architecture: str = "", guarded: bool = True
) -> int:
    """What the kernel would do: a machine for the few instructions that the filter uses."""
    padded = (*arguments, 0, 0, 0, 0, 0, 0)[:6]
    data = struct.pack("<IIQ6Q", number, ARCHITECTURES[architecture or machine], 0, *padded)
    code, at, word = seccomp.program(machine, PID, guarded), 0, 0
    while True:
        what, yes, no, constant = code[at]
        assert yes < 256 and no < 256
        at += 1
        if what == 0x20:
            word = struct.unpack_from("<I", data, constant)[0]
        elif what == 0x54:
            word &= constant
        elif what == 0x06:
            return constant
        else:
            holds = {0x15: word == constant, 0x35: word >= constant, 0x45: bool(word & constant)}[what]
            at += yes if holds else no


@pytest.fixture(params=["x86_64", "aarch64"])
def machine(request: pytest.FixtureRequest) -> str:
    return request.param


def test_each_call_by_its_arguments(machine: str) -> None:
    thread, new_users = 0x3D0F00, 0x10000000
    tiocsti, fionbio, setown, getfl = 0x5412, 0x5421, 8, 3
    keep_size, unshare, cloexec = 1, 2, 4
    for name, arguments, expected in (
        ("read", (), ALLOW),
        ("clone", (thread,), ALLOW),
        ("clone", (thread & ~0x400,), EPERM),
        ("clone", (17,), EPERM),
        ("clone", (thread | new_users,), EPERM),
        ("clone", (0x1200011,), EPERM),
        ("kill", (PID, 9), ALLOW),
        ("kill", (0, 9), ALLOW),
        ("kill", (PID + 1, 0), EPERM),
        ("kill", (0xFFFFFFFF, 0), EPERM),
        ("kill", (0xFFFFFFFFFFFFFFFF, 0), EPERM),
        ("kill", (1, 0), EPERM),
        ("fcntl", (0, getfl), ALLOW),
        ("fcntl", (0, setown, 1), EPERM),
        ("ioctl", (0, fionbio), ALLOW),
        ("ioctl", (0, tiocsti), ENOTTY),
        ("ioctl", (0, tiocsti | 1 << 32), ENOTTY),
        ("socketpair", (1, 1 | 0o2000000), ALLOW),
        ("socketpair", (1, 2), EPERM),
        ("socketpair", (2, 1), EPERM),
        ("sendto", (4, 1, 1, 0, 0, 0), ALLOW),
        ("sendto", (4, 1, 1, 0, 0x7F00, 0), EPERM),
        ("sendto", (4, 1, 1, 0, 1 << 40, 0), EPERM),
        ("sendto", (4, 1, 1, 1, 0, 0), EPERM),
        ("recvfrom", (4, 1, 1, 0, 0, 0), ALLOW),
        ("recvfrom", (4, 1, 1, 1, 0, 0), EPERM),
        ("getsockopt", (4, 1, 3), ALLOW),
        ("getsockopt", (4, 1, 17), EPERM),
        ("fallocate", (3, 0, 0, 4096), ALLOW),
        ("fallocate", (3, keep_size, 0, 4096), EOPNOTSUPP),
        ("close_range", (3, 255, 0), ALLOW),
        ("close_range", (3, 255, cloexec), ALLOW),
        ("close_range", (3, 255, unshare), EINVAL),
        ("close_range", (3, 255, unshare | cloexec), EINVAL),
        ("prctl", (15,), ALLOW),
        ("prctl", (1,), EPERM),
        ("prctl", (4,), EPERM),
    ):
        assert answer(machine, CALLS[machine][NAMES.index(name)], arguments) == expected, (name, arguments)


def test_what_is_unknown_does_not_exist(machine: str) -> None:
    sendfile = {"x86_64": 40, "aarch64": 71}[machine]
    for number in (435, 425, 428, 442, 500, 1000, sendfile):
        assert answer(machine, number) == ENOSYS


@pytest.mark.parametrize("foreign", ARCHITECTURES)
def test_calls_of_another_machine_are_the_end(machine: str, foreign: str) -> None:
    for number in range(0, 460):
        assert (answer(machine, number, architecture=foreign) == KILL) == (foreign != machine)


def test_x32_is_the_end() -> None:
    assert {answer("x86_64", 0x40000000 + number) for number in range(600)} == {KILL}


def test_attributes_of_files_do_nothing_where_only_landlock_guards_them(machine: str) -> None:
    fchmodat, truncate = {"x86_64": (268, 76), "aarch64": (53, 45)}[machine]
    assert [answer(machine, number) for number in (fchmodat, truncate)] == [ALLOW, ALLOW]
    assert [answer(machine, number, guarded=False) for number in (fchmodat, truncate)] == [0x50000, EPERM]


def test_no_room_is_set_aside_on_a_disk(machine: str) -> None:
    fallocate = CALLS[machine][NAMES.index("fallocate")]
    assert answer(machine, fallocate, (3, 0, 0, 4096), guarded=False) == EOPNOTSUPP


@pytest.mark.parametrize("file", ["x86_64-linux-gnu/asm/unistd_64.h", "asm-generic/unistd.h"])
def test_the_numbers_are_those_of_the_headers(file: str) -> None:
    path = Path("/usr/include", file)
    if not path.exists():
        pytest.skip(f"no {path}: the package linux-libc-dev of this machine has it")
    told = re.findall(r"#define __NR(?:3264)?_(\w+)\s+(\d+)", path.read_text())
    numbers = {name: int(number) for name, number in told}
    numbers |= {"newfstatat": numbers.get("fstatat", 262)}
    tables = [value for value in vars(seccomp).values() if isinstance(value, str)] + list(seccomp._BY_ARGUMENT)
    checked = 0
    for table in tables:
        words = table.split()
        for name, x86, arm in zip(words[::3], words[1::3], words[2::3], strict=False):
            number = arm if "generic" in file else x86
            if name in numbers and number.isdigit():
                assert numbers[name] == int(number), name
                checked += 1
    assert checked > 100
