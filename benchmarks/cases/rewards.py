"""Reward functions that every engine calls with the same arguments."""

from __future__ import annotations

from zlib import crc32


def spread(completions: list[str], **columns: object) -> list[float]:
    """A number in [0, 1] that differs between answers and costs nothing, so that no group is without a gradient."""
    return [crc32(text.strip().encode()) % 101 / 100 for text in completions]


def exact(completions: list[str], answer: list[str], **columns: object) -> list[float]:
    """1 where the answer is the wanted one."""
    return [float(text == wanted) for text, wanted in zip(completions, answer, strict=True)]
