"""Run as a program, by any user and with any leave: says as JSON what a confined process is held by, and how well.

Arguments: "refused" or "allowed": whether the kernel gives out namespaces.
"""

import ctypes
import json
import os
import socket
import struct
import sys
from pathlib import Path

from confined_text import ROLE, confined

from oneloop.sandbox import tiers
from oneloop.sandbox.confined import begin
from oneloop.sandbox.inside import kernel
from oneloop.sandbox.limits import Limits
from oneloop.sandbox.probe import escapes

UNSHARE, MOUNT, CLONE = ((272, 165, 56), (97, 40, 220))[kernel.MACHINES.index(os.uname().machine)]
EPERM, ALLOW = 0x50001, 0x7FFF0000


def refuse_namespaces() -> None:
    """As the filter of a container does it: unshare, mount, and clone with a flag of a namespace end in EPERM."""
    code = [(0x20, 0, 0, 0)]
    for number in (UNSHARE, MOUNT):
        code += [(0x15, 0, 1, number), (0x06, 0, 0, EPERM)]
    code += [(0x15, 0, 3, CLONE), (0x20, 0, 0, 16), (0x45, 0, 1, 0x7E020000), (0x06, 0, 0, EPERM), (0x06, 0, 0, ALLOW)]
    buffer = ctypes.create_string_buffer(b"".join(struct.pack("=HBBI", *each) for each in code))
    kernel.prctl(kernel.NO_NEW_PRIVS, 1)
    kernel.syscall("seccomp", kernel.SECCOMP, 1, 0, struct.pack("@HP", len(code), ctypes.addressof(buffer)))


def main() -> None:
    if sys.argv[1] == "refused":
        refuse_namespaces()
    tier = tiers.tier()
    starter = tiers.starter()
    found = escapes(starter)
    ids = confined(starter, "import os; say([os.getresuid(), os.getresgid(), len(os.listdir())])").answer
    loop = confined(starter, "while True: pass", Limits(seconds=0.3)).exit.limit_hit
    threads = confined(
        starter,
        "import threading, time\ntry:\n  for n in range(40): threading.Thread(target=time.sleep, args=(0.5,)).start()\n"
        "except RuntimeError: say('refused')",
        Limits(threads=9),
    )
    with begin(starter, ROLE, Limits(), None) as first:
        first.channel.sendall(
            b"import os, time; open('mine', 'w'); channel.sendall(os.getcwd().encode()); time.sleep(60)"
        )
        first.channel.shutdown(socket.SHUT_WR)
        sibling = first.channel.recv(999).decode() + "/mine"
        meeting = confined(starter, f"say([error(open, {sibling!r}), error(open, {sibling!r}, 'w')])", Limits()).answer
    folder = Path(confined(starter, "import os; open('file', 'w'); say(os.getcwd())").answer)
    tiers.close()
    answer = {
        "tier": tier,
        "escapes": found,
        "ids": ids,
        "meeting": meeting,
        "loop": loop,
        "threads": threads.answer or threads.exit.limit_hit,
        "folder": folder.exists(),
        "children": Path("/proc/self/task", str(os.getpid()), "children").read_text(),
    }
    print(json.dumps(answer))


if __name__ == "__main__":
    main()
