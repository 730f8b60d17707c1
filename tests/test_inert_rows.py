"""Rows that cannot move the weights cost no pass of the update, and leaving them out changes no gradient."""

from dataclasses import replace

import pytest
import torch

from oneloop.algorithms import ALGORITHMS, DAPO, DR_GRPO, GRPO, PPO, REINFORCE, Preference, Unpaired
from oneloop.loop import train
from oneloop.objective.select import OverlongFilter
from oneloop.objective.surrogate import ScoreFunction
from toy_models import Bigram, Fixed, Memory, gradient, ragged_batch, rows_for

FREE = replace(GRPO, name="grpo, no pull", kl=None)
VALUES = [FREE, replace(FREE, name="grpo, β = 0", kl=replace(GRPO.kl, coef=0.0)), DAPO, DR_GRPO, REINFORCE]
PULLED = [GRPO, PPO, replace(FREE, name="grpo, entropy bonus", entropy=0.01)]


def dead(batch, groups=(1, 3)):
    """The same batch, in which these groups have no reward at all."""
    rows = torch.isin(batch.group, torch.tensor(groups))
    return replace(batch, rewards=torch.where(rows[:, None], 0.0, batch.rewards))


class Moved(ScoreFunction):
    """A surrogate of somebody's own, which pulls every token, whatever its advantage."""

    proportional = False

    def __call__(self, logprobs, old_logprobs, advantages, mask):
        loss, flat = super().__call__(logprobs, old_logprobs, advantages, mask)
        return loss - 0.1 * torch.where(mask, logprobs, 0.0), flat


@pytest.mark.parametrize("algorithm", VALUES, ids=lambda a: a.name)
def test_rows_without_advantage_are_left_out_and_the_gradient_stays(algorithm):
    models = Bigram(0)
    batch = algorithm.prepare(dead(ragged_batch(0)), models, one_update=True)
    pieces = list(batch.microbatches(40))
    passed = sum(len(piece) for piece in pieces)
    assert passed < len(batch) and passed == len(batch) - int(batch.inert.sum())
    assert batch.size.seen == sum(int(piece.mask.sum()) for piece in pieces) < batch.size.tokens
    whole = gradient(algorithm, models, [batch], batch.size)
    ours = gradient(algorithm, models, pieces, batch.size)
    torch.testing.assert_close(ours, whole, rtol=1e-9, atol=1e-12)
    # the mutant: a mean over the rows that are left
    left = batch.rows((~batch.inert).nonzero()[:, 0])
    mutant = gradient(algorithm, models, pieces, left.size)
    assert float((mutant - whole).norm()) > 0.1 * float(whole.norm())


@pytest.mark.parametrize("algorithm", [*PULLED, replace(FREE, surrogate=Moved())], ids=lambda a: a.name)
def test_rows_that_another_term_reaches_stay(algorithm):
    models = Bigram(0, reference=Bigram(7))
    batch = algorithm.prepare(dead(ragged_batch(0)), models, one_update=True)
    assert not bool(batch.inert.any()) and batch.size.seen == batch.size.tokens
    # the mutant: left out all the same, they would be missed
    mutant = replace(batch, inert=torch.isin(batch.group, torch.tensor([1, 3])))
    whole = gradient(algorithm, models, [batch], batch.size)
    assert float((gradient(algorithm, models, mutant.microbatches(40), batch.size) - whole).norm()) > 1e-6


def test_later_updates_of_a_batch_see_every_row():
    """Their ratios move, and `approx_kl` speaks of all tokens."""
    batch = FREE.prepare(dead(ragged_batch(0)), Bigram(0), one_update=False)
    assert not bool(batch.inert.any())


def test_a_row_without_an_action_is_left_out_of_every_update():
    algorithm = replace(PPO, drop=OverlongFilter())
    batch = algorithm.prepare(ragged_batch(0), Bigram(0))
    assert bool(batch.truncated.any()) and torch.equal(batch.inert, batch.truncated)


@torch.no_grad()
def test_statistics_divide_by_what_the_passes_saw():
    models = Bigram(0)
    batch = FREE.prepare(dead(ragged_batch(0)), models, one_update=True)
    pieces = list(batch.microbatches(40))
    said = sum(float(FREE.loss(models.policy(piece), piece, batch.size).stats["entropy"]) for piece in pieces)
    live = batch.mask & ~batch.inert[:, None]
    assert said == pytest.approx(float(models.policy(batch).entropy[live].mean()), rel=1e-6)
    assert batch.size.seen < 0.9 * batch.size.tokens  # the divisor of the loss would show


def test_a_step_in_which_nothing_has_an_advantage_moves_the_weights_by_momentum_alone_as_before():
    models, notes, seen = Bigram(0), Memory(), []
    batches = [ragged_batch(0), dead(ragged_batch(1), groups=(0, 1, 2, 3))]
    forward = models.policy

    def policy(batch):
        seen.append(len(batch))
        return forward(batch)

    models.policy = policy
    train(FREE, Fixed(batches.__getitem__), models, notes, steps=2, minibatch=4, max_tokens=40, seed=0)
    said = notes.rows[-1][1]
    assert seen[-1] == 1 and said["optimizer_steps"] == 1 and said["grad_norm"] == 0
    assert seen[:-1] and sum(seen[:-1]) == 12
    # every row in the pass
    plain = Bigram(0)
    for batch in batches:
        whole = FREE.prepare(batch, plain)
        FREE.loss(plain.policy(whole), whole, whole.size).value.backward()
        plain.step()
    torch.testing.assert_close(models.weights(), plain.weights(), rtol=1e-9, atol=1e-12)


def test_pairs_and_rated_answers_are_never_inert():
    for algorithm in ALGORITHMS.values():
        if isinstance(algorithm, Preference | Unpaired):
            batch = algorithm.prepare(rows_for(algorithm), Bigram(0, reference=Bigram(7)), one_update=True)
            assert batch.inert is None and batch.size.seen == batch.size.tokens
