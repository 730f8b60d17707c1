"""The optimizer's part of a run's settings."""

from __future__ import annotations

from oneloop.config import Run
from oneloop.model.optimizer import Optimization
from oneloop.recipes.explain import Algorithm
from oneloop.recipes.region import critic_steps


def optimization(run: Run, algorithm: Algorithm, groups: int) -> Optimization:
    """Rates, schedule and kind of optimizer.

    Args:
        groups: of one step of the loop; an agent's are its environment steps.
    """
    per_epoch = -(-groups // run.groups_per_update)
    return Optimization(
        learning_rate=run.learning_rate,
        critic_learning_rate=run.critic_learning_rate,
        total_updates=run.steps * per_epoch * algorithm.epochs * critic_steps(algorithm),
        warmup_updates=run.warmup,
        schedule=run.schedule,
        weight_decay=run.weight_decay,
        max_grad_norm=run.max_grad_norm,
        optimizer=run.optimizer,
    )
