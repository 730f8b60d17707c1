"""DPO beside PPO: the pairs are what the page says, the two learn the same from them, and distances are exact."""

import numpy as np
import pytest
import torch

from oneloop.studies import dpo_ppo
from oneloop.studies.contexts import CONTEXTS
from oneloop.studies.dpo_ppo import LABELLED, Found

GIVEN = dpo_ppo.problem(0)


def test_pairs_are_two_answers_to_a_labelled_prompt() -> None:
    batch = dpo_ppo.pairs(GIVEN, 0, 400)
    prompts, answers = batch.tokens.view(-1, 2, 2).unbind(2)
    assert bool((prompts[:, 0] == prompts[:, 1]).all()) and set(prompts.flatten().tolist()) == set(range(LABELLED))
    assert bool((answers[:, 0] != answers[:, 1]).all())
    assert torch.equal(batch.rewards[:, 1], torch.tensor([1.0, 0.0], dtype=torch.float64).repeat(400))
    assert torch.equal(dpo_ppo.pairs(GIVEN, 0, 100).tokens, batch.tokens[:200])


def test_answers_are_drawn_from_the_reference_and_labels_by_bradley_terry() -> None:
    batch = dpo_ppo.pairs(GIVEN, 1, 20_000)
    prompts, answers = batch.tokens.view(-1, 2, 2).unbind(2)
    # one draw and another without it: p_a + Σ_(b ≠ a) p_b · p_a/(1 − p_b) is the chance of a to be in a pair
    chance = GIVEN.start[:LABELLED].exp().numpy()
    rest = (chance / (1 - chance)).sum(1, keepdims=True) - chance / (1 - chance)
    expected = (chance + chance * rest) * 20_000 / LABELLED
    seen = np.zeros_like(expected)
    np.add.at(seen, (prompts.flatten().numpy(), answers.flatten().numpy()), 1)
    assert float(((seen - expected) ** 2 / expected).mean()) < 1.5
    lead = GIVEN.gold[prompts[:, 0], answers[:, 0]] - GIVEN.gold[prompts[:, 1], answers[:, 1]]
    apart = lead.abs()
    right = (lead > 0).double()
    assert float(right.mean()) == pytest.approx(float(apart.sigmoid().mean()), abs=0.01)


@pytest.mark.parametrize("table", [True, False], ids=["table", "features"])
@pytest.mark.parametrize("beta", [0.5, 2.0])
def test_dpos_implicit_reward_is_what_a_reward_model_of_its_kind_learns(beta: float, table: bool) -> None:
    """β·log π/π_ref and the scores, both less their mean over the answers: the rest is log Z."""
    batch = dpo_ppo.pairs(GIVEN, 0, 50)
    logits = dpo_ppo.dpo(GIVEN, batch, beta, 5, table=table)
    implied = beta * (logits.log_softmax(-1) - GIVEN.start)
    scores = dpo_ppo.reward_model(GIVEN, batch, 5, table=table)
    assert float(scores.abs().max()) > 0.1
    apart = (implied - implied.mean(1, keepdim=True)) - (scores - scores.mean(1, keepdim=True))
    assert float(apart.abs().mean()) < 1e-3  # where a gradient is next to nothing, Adam's ε counts


def test_what_is_measured_is_exact() -> None:
    """The best policy under a KL, π_ref·exp(r/β)/Z: KL = E[r]/β − log Z."""
    beta = 0.7
    batch = dpo_ppo.pairs(GIVEN, 0, 100)
    found = dpo_ppo.measured(GIVEN, GIVEN.start + GIVEN.gold / beta, batch)
    start, gold = GIVEN.start.exp().numpy(), GIVEN.gold.numpy()
    partition = (start * np.exp(gold / beta)).sum(1, keepdims=True)
    policy = start * np.exp(gold / beta) / partition
    reward = (policy * gold).sum(1)
    assert found.kl == pytest.approx(float((reward / beta - np.log(partition[:, 0]))[:LABELLED].mean()))
    gained = reward - (start * gold).sum(1)
    assert found.gold == pytest.approx(float(gained[:LABELLED].mean()))
    assert found.other == pytest.approx(float(gained[LABELLED:].mean())) and LABELLED < CONTEXTS
    seen = {tuple(row) for row in batch.tokens.tolist()}
    places = [(p, a) for p in range(LABELLED) for a in range(dpo_ppo.ANSWERS) if (p, a) not in seen]
    ratio = sum(policy[place] for place in places) / sum(start[place] for place in places)
    assert found.unseen == pytest.approx(float(np.log(ratio)))


def test_rewards_by_kl_lie_between_the_betas() -> None:
    course = [Found(kl, gold, 0.0, 0.0) for kl, gold in ((2.0, 3.0), (1.0, 2.0))]
    assert [dpo_ppo.at_kl(course, kl) for kl in (0.0, 0.5, 1.5, 9.0)] == [0.0, 1.0, 2.5, 3.0]
