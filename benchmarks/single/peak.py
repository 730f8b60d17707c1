"""The best rate of float32 matrix products that this machine reaches on one thread: what shares of a peak refer to.

Every shape is multiplied many times; its rate is that of the median time; the peak is the best shape's rate. Taken as
measured, not from a data sheet: clocks under vector load and virtual machines are not in one.
"""

from __future__ import annotations

import sys
from pathlib import Path
from statistics import median
from time import perf_counter

sys.path.insert(0, str(Path(__file__).parents[1]))

import torch
from processes.measured import emit

SHAPES = (
    *((n, n, n) for n in (384, 512, 768, 1024, 1536, 2048)),
    *((4096, 384, n) for n in (384, 800, 1600, 4096)),
    *((1024, 768, n) for n in (768, 2048, 4096)),
)
"""m, k, n: squares, and those of the measured models."""


def rate(m: int, k: int, n: int, seconds: float = 1.0) -> float:
    """FLOP/s of one shape."""
    a, b, out = torch.randn(m, k), torch.randn(k, n), torch.empty(m, n)
    for _ in range(3):
        torch.mm(a, b, out=out)
    times: list[float] = []
    while sum(times) < seconds or len(times) < 5:
        start = perf_counter()
        torch.mm(a, b, out=out)
        times.append(perf_counter() - start)
    return 2 * m * k * n / median(times)


def main() -> None:
    torch.set_num_threads(1)
    rates = {f"{m}x{k}x{n}": rate(m, k, n) for m, k, n in SHAPES}
    best = max(rates, key=lambda shape: rates[shape])
    emit({"peak": rates[best], "at": best, "rates": rates})


if __name__ == "__main__":
    main()
