"""What a confined process costs, and what it leaves: `python benchmarks/single/sandbox.py [gradings]`.

A grading is two processes at once, as where a judge runs the tests in a sandbox of its own; their programs do nothing,
so that all of the time is overhead. Prints gradings per second with 1, 2 and 4 threads, the middle and the 99th of 100
times from the start to the last of them gone, the processor's time of a process with its share of the starter, and what
there is more of afterwards: processes, descriptors, mounts, folders.
"""

from __future__ import annotations

import os
import resource
import socket
import sys
import tempfile
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from pathlib import Path
from time import monotonic, perf_counter

from oneloop.sandbox import tiers
from oneloop.sandbox.limits import Limits
from oneloop.sandbox.process import start

ROLE = "oneloop.sandbox.inside.text"
TEXT = b"channel.sendall(b'.')"


def grading() -> float:
    """Returns: seconds from the first start until both processes are gone."""
    began = perf_counter()
    with ExitStack() as stack:
        runs = [stack.enter_context(start(ROLE, Limits(), stdin=b"")) for _ in range(2)]
        for run in runs:
            run.channel.sendall(TEXT)
            run.channel.shutdown(socket.SHUT_WR)
        for run in runs:
            if run.channel.recv(1) != b"." or run.wait(monotonic() + 30).status != 0:
                raise SystemExit("a process that does nothing failed")
    return perf_counter() - began


def timed(threads: int, count: int) -> None:
    began = perf_counter()
    with ThreadPoolExecutor(threads) as pool:
        times = sorted(pool.map(lambda _: grading(), range(count)))
    rate = count / (perf_counter() - began)
    middle, last = (1e3 * times[int(share * (count - 1))] for share in (0.5, 0.99))
    print(f"{threads} threads: {rate:6.1f} gradings/s, {middle:5.1f} ms in the middle, {last:5.1f} ms the 99th of 100")


def processor(do: Callable[[], None], count: int) -> float:
    """Milliseconds for each of `count` processes; the starter's own count when it has ended."""
    tiers.close()

    def spent() -> float:
        usage = resource.getrusage(resource.RUSAGE_CHILDREN)
        return usage.ru_utime + usage.ru_stime

    before = spent()
    do()
    tiers.close()
    return (spent() - before) / count * 1e3


def holdings() -> dict[str, int]:
    folders = Path(tempfile.gettempdir())
    return {
        "processes": len(Path(f"/proc/self/task/{os.getpid()}/children").read_text().split()),
        "descriptors": len(os.listdir("/proc/self/fd")),
        "mounts": len(Path("/proc/self/mounts").read_text().splitlines()),
        "folders": len(list(folders.glob("oneloop-sandbox-*"))),
    }


def main() -> None:
    count = int(sys.argv[1]) if len(sys.argv) > 1 else 300
    print(f"tier: {tiers.tier()}")
    tiers.close()
    before = holdings()
    for threads in (1, 2, 4):
        timed(threads, count)
    each = processor(lambda: timed(1, count), 2 * count)
    print(f"{each:.1f} ms of processor time a process")
    left = {name: after - before[name] for name, after in holdings().items()}
    print(f"left after {8 * count} processes: {left}")


if __name__ == "__main__":
    main()
