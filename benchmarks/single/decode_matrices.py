"""Why decoding copies its matrices: rates of products with the few rows of a decoding step, by layout of the matrix.

`modules` is the order that modules keep, [out, in]; `turned` is [in, out]. The engine makes `decode_linear` of the head
and of what adds to the residual stream, and `blocks` of the rest. Several matrices follow each other, as in a step, so
that none waits in a small cache. One thread, float32.
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from statistics import median
from time import perf_counter

sys.path.insert(0, str(Path(__file__).parents[1]))

import torch
from processes.measured import emit
from torch import Tensor, nn

from oneloop.forward.fused import block_width, decode_linear, in_blocks

WIDTHS = ((384, 1152), (384, 384), (384, 2048), (1024, 384), (384, 4096))
"""in, out: 4096 and 2048 numbers between rows fall onto the same lines of a cache."""
MATRICES, ROUNDS = 6, 25
Product = Callable[[Tensor], Tensor]


def modules(linear: nn.Linear) -> Product:
    return linear


def turned(linear: nn.Linear) -> Product:
    matrix = linear.weight.t().contiguous()
    return lambda x: torch.mm(x, matrix)


def blocks(linear: nn.Linear) -> Product:
    cut = in_blocks(linear.weight, block_width([linear.out_features]))
    return lambda x: torch.bmm(x.expand(len(cut), -1, -1), cut)


def gflops(rows: int, width: tuple[int, int], layouts: Sequence[Callable[[nn.Linear], Product]]) -> dict[str, float]:
    """Of each layout in turn, medians of `ROUNDS`."""
    linears = [nn.Linear(*width, bias=False) for _ in range(MATRICES)]
    products = {layout.__name__: [layout(linear) for linear in linears] for layout in layouts}
    x = torch.randn(rows, width[0])
    seconds: dict[str, list[float]] = {name: [] for name in products}
    for _ in range(ROUNDS):
        for name, chain in products.items():
            start = perf_counter()
            for product in chain:
                product(x)
            seconds[name].append(perf_counter() - start)
    work = 2e-9 * rows * width[0] * width[1] * MATRICES
    return {name: round(work / median(times), 1) for name, times in seconds.items()}


@torch.no_grad()
def main() -> None:
    torch.set_num_threads(1)
    layouts = (modules, turned, decode_linear, blocks)
    emit({f"{rows}x{k}x{n}": gflops(rows, (k, n), layouts) for rows in (8, 16, 64, 128) for k, n in WIDTHS})


if __name__ == "__main__":
    main()
