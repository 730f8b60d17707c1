"""Landlock: which files a process and what it starts may open, whoever it is. See landlock(7)."""

from __future__ import annotations

import os
import stat
import struct
from collections.abc import Mapping

from oneloop.sandbox.inside import kernel

_WRITE_FILE, _READ_FILE, _READ_DIR = 1 << 1, 1 << 2, 1 << 3
_TRUNCATE, _IOCTL_DEV, _EXECUTE, _REFER = 1 << 14, 1 << 15, 1 << 0, 1 << 13
_MAKE = sum(1 << bit for bit in (4, 5, 7, 8, 10, 12))
"""REMOVE_DIR, REMOVE_FILE, MAKE_DIR, MAKE_REG, MAKE_FIFO, MAKE_SYM: no devices and no sockets."""
_HANDLED = {1: 0x1FFF, 2: 0x3FFF, 3: 0x7FFF, 4: 0x7FFF, 5: 0xFFFF}
"""Bits of LANDLOCK_ACCESS_FS by the version of the interface; from 5 on the same."""
_NET, _SCOPED = 3, 3
"""Binding and connecting of TCP sockets, from 4 on; abstract unix sockets and signals, from 6 on."""

LIST = _READ_DIR
READ = _READ_FILE | _READ_DIR
CHANGE = READ | _WRITE_FILE | _MAKE | _REFER | _TRUNCATE
USE = _READ_FILE | _WRITE_FILE | _TRUNCATE
"""A device."""
_ANY = 0xFFFF
_FILE = _EXECUTE | _WRITE_FILE | _READ_FILE | _TRUNCATE | _IOCTL_DEV


def version() -> int:
    """0 where the kernel has none, or has it switched off."""
    try:
        return kernel.syscall("landlock_create_ruleset", kernel.LANDLOCK_CREATE_RULESET, None, 0, 1)
    except OSError:
        return 0


def ruleset(rules: Mapping[str, int]) -> int:
    """A set of rules, as a descriptor: what may be done at and below a path; and nothing else."""
    abi = version()
    handled = _HANDLED[min(abi, max(_HANDLED))]
    head = struct.pack("=QQQ", handled, _NET if abi >= 4 else 0, _SCOPED if abi >= 6 else 0)
    made = kernel.syscall("landlock_create_ruleset", kernel.LANDLOCK_CREATE_RULESET, head, len(head), 0)
    for path, access in rules.items():
        descriptor = os.open(path, os.O_PATH | os.O_CLOEXEC)
        at_most = _ANY if stat.S_ISDIR(os.fstat(descriptor).st_mode) else _FILE
        rule = struct.pack("=Qi", access & handled & at_most, descriptor)
        kernel.syscall("landlock_add_rule", kernel.LANDLOCK_ADD_RULE, made, 1, rule, 0)
        os.close(descriptor)
    return made


def restrict(made: int) -> None:
    """Hold this process to the rules, for good, and close them. It must have given up new privileges."""
    kernel.syscall("landlock_restrict_self", kernel.LANDLOCK_RESTRICT_SELF, made, 0)
    os.close(made)
