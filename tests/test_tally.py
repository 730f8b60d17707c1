"""A step's statistics: sums over microbatches, means over optimizer steps, and maxima over both."""

import torch

from oneloop.loop import Tally
from oneloop.ports import SingleProcess


def test_sums_means_and_maxima() -> None:
    tally = Tally(SingleProcess())
    for update in ([(1.0, 3.0), (2.0, 7.0)], [(4.0, 5.0), (1.0, 2.0)]):
        for loss, ratio in update:
            tally.add({"loss": torch.tensor(loss), "ratio/max": torch.tensor(ratio)})
        tally.close({"grad_norm": 0.5})
    # losses 1 + 2 and 4 + 1: mean 4;  the largest ratios are 7 and 5, and 7 of the step
    wanted = {"loss": 4.0, "ratio/max": 7.0, "grad_norm": 0.5, "optimizer_steps": 2.0, "skipped_steps": 0.0}
    assert tally.mean() == wanted
