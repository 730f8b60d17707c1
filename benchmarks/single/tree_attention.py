"""What tree attention saves where short answers share a prefix: one layer, forward and backward, both ways.

`apart` takes the prompts in one call and what continues them in another; `tree` takes each prompt with all that
continues it in one call. 256 answers, 4 heads of 32, one thread, float32, in turn.
"""

from __future__ import annotations

import sys
from pathlib import Path
from statistics import median
from time import perf_counter

sys.path.insert(0, str(Path(__file__).parents[1]))

import torch
from processes.measured import emit

from oneloop.batch import Batch
from oneloop.forward import segments
from oneloop.forward.attention import Heads
from oneloop.forward.packed import Packed, packed

SIZES = ((5, 4, 4), (5, 4, 16), (30, 3, 8), (60, 3, 16), (8, 6, 8), (10, 8, 4), (8, 8, 16), (16, 16, 8))
"""Tokens of the prompt, tokens of an answer, answers to a prompt."""
ANSWERS, HEADS, WIDTH, ROUNDS = 256, 4, 32, 15


def sequence(prompt: int, answer: int, group: int, *, tree: bool) -> Packed:
    before = segments.TREE_TOKENS, segments.MEAN_CONTINUATION
    segments.TREE_TOKENS = segments.MEAN_CONTINUATION = 10**9 if tree else 0
    rows, length = ANSWERS, prompt + answer
    mask = (torch.arange(length) >= prompt).expand(rows, -1)
    try:
        return packed(
            Batch(
                tokens=torch.zeros(rows, length, dtype=torch.int64),
                mask=mask,
                group=torch.arange(rows) // group,
                rewards=torch.zeros(rows, length),
                truncated=torch.zeros(rows, dtype=torch.bool),
            )
        )
    finally:
        segments.TREE_TOKENS, segments.MEAN_CONTINUATION = before


def milliseconds(prompt: int, answer: int, group: int) -> dict[str, float]:
    sequences = {name: sequence(prompt, answer, group, tree=name == "tree") for name in ("apart", "tree")}
    tokens = sequences["apart"].tokens.shape[1]
    query, key, value = (torch.randn(1, tokens, HEADS, WIDTH, requires_grad=True) for _ in range(3))
    seconds: dict[str, list[float]] = {name: [] for name in sequences}
    for _ in range(ROUNDS):
        for name, layout in sequences.items():
            start = perf_counter()
            q, k, v = (x.transpose(1, 2) for x in (query, key, value))
            layout.attend(Heads(0, q, k, v, None, None)).sum().backward()
            seconds[name].append(perf_counter() - start)
    found = {name: round(1000 * median(times), 2) for name, times in seconds.items()}
    return found | {"ratio": round(found["tree"] / found["apart"], 2)}


def main() -> None:
    torch.set_num_threads(1)
    emit({f"{prompt} + {group} x {answer}": milliseconds(prompt, answer, group) for prompt, answer, group in SIZES})


if __name__ == "__main__":
    main()
