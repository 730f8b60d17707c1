"""What one rank alone would count wrongly."""

from dataclasses import replace

import pytest
import torch

from oneloop.algorithms import GRPO
from oneloop.loop import train
from oneloop.objective.divergence import KL, AdaptiveKL
from toy_models import Bigram, Fixed, Memory, on_ranks, ragged_batch


def test_the_adaptive_coefficient_counts_the_sequences_of_every_rank() -> None:
    """Far above its target the KL's error is cut to 0.2: 12 sequences of a horizon of 60 give 4 % a step, not 2 %."""
    algorithm = replace(GRPO, kl=KL(0.04, at="loss", adaptive=AdaptiveKL(target=1e-3, horizon=60.0)))
    batch = ragged_batch(0, 4, truncate=False)

    def work(rank, world):
        half = batch.rows(torch.arange(rank, 12, 2)).trimmed()
        models, recorder = Bigram(0, learning_rate=0.0, reference=Bigram(7)), Memory()
        settings = {"steps": 3, "minibatch": 3, "max_tokens": 40, "seed": 0, "world": world}
        last = train(algorithm, Fixed(lambda step: half), models, recorder, **settings)
        return last.kl.coef, recorder.column("kl_coef")

    for coef, logged in on_ranks(2, work):
        assert coef == pytest.approx(0.04 * 1.04**3)
        assert logged == pytest.approx([0.04 * 1.04**k for k in range(3)])
