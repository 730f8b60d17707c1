"""Models that leave the device while nobody needs them. A copy keeps every bit, so no number depends on it."""

from __future__ import annotations

from collections.abc import Callable

import torch

Move = Callable[[torch.device], object]
"""Puts weights, and whatever belongs to them, on a device."""
AWAY = torch.device("cpu")


class Guest:
    """Weights that are on the device while they are used: `with guest: ...`, or from `come` to `go`.

    Args:
        move: puts them on a device.
        device: where they are used.
        here: they are there already.
    """

    def __init__(self, move: Move, device: torch.device, *, here: bool = False) -> None:
        self._move, self._device, self._here = move, device, here

    def come(self) -> None:
        if not self._here:
            self._move(self._device)
            self._here = True

    def go(self) -> None:
        if self._here:
            self._move(AWAY)
            self._here = False

    def __enter__(self) -> None:
        self.come()

    def __exit__(self, *_: object) -> None:
        self.go()
