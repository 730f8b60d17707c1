"""A stand-in for a device that a model can be away from: this machine has none."""

from collections import Counter
from typing import ClassVar

import torch
from torch import nn

from oneloop.model.idle import Guest


class Poisoned(Guest):
    """Away, its weights and moments are not numbers: whoever reads them there shows it."""

    moves: ClassVar[Counter[str]] = Counter()

    def __init__(self, move, device, *, here=False) -> None:
        owner = move.__self__
        self._of = owner if isinstance(owner, nn.Module) else owner.critic.backbone
        self._learner = None if isinstance(owner, nn.Module) else owner
        self._kept: list[torch.Tensor] = []
        super().__init__(lambda device: None, device, here=True)
        if not here:
            self.go()

    def _tensors(self):
        yield from (parameter.data for parameter in self._of.parameters())
        if self._learner is not None and hasattr(self._learner, "optimizer"):
            for parameter in self._of.parameters():
                yield from (x for key, x in self._learner.optimizer.state.get(parameter, {}).items() if key != "step")

    def go(self) -> None:
        if self._here:
            self._kept = [x.clone() for x in self._tensors()]
            for x in self._tensors():
                x.fill_(torch.nan)
            self.moves["go"] += 1
        super().go()

    def come(self) -> None:
        if not self._here:
            for x, kept in zip(self._tensors(), self._kept, strict=True):
                x.copy_(kept)
            self.moves["come"] += 1
        super().come()
