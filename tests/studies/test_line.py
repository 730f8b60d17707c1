"""The walk's own equations are right, and its shaped rewards are what they are called."""

import numpy as np
import pytest
import torch

from oneloop.studies import critic, sparse
from oneloop.studies.line import GOAL, LONGEST, STARTS, Walker, Walks, advantages, drawn, success, values, walk_of


def some_logits(seed: int = 0):
    return torch.randn(GOAL, 3, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def some_walk(count: int = 64, seed: int = 0):
    prompt = torch.arange(len(STARTS)).repeat(count // len(STARTS))
    return drawn(some_logits(seed).softmax(-1), prompt, torch.Generator().manual_seed(seed))


def test_the_chance_to_arrive_is_that_of_the_places_pushed_forward() -> None:
    """Where the walk is after each token, as a vector that a matrix moves."""
    chances = some_logits().softmax(-1).numpy()
    matrix = np.zeros((GOAL + 1, GOAL + 1))
    matrix[GOAL, GOAL] = 1
    for place in range(GOAL):
        for action in range(3):
            matrix[place, min(max(place + action - 1, 0), GOAL)] += chances[place, action]
    for time in (0, 5):
        arrived = np.linalg.matrix_power(matrix, LONGEST - time)[:, GOAL]
        assert np.allclose(values(some_logits().softmax(-1))[time], arrived, atol=1e-12)


def test_exact_advantages_add_up_to_what_came_less_what_was_expected() -> None:
    """Σ A = R − V(start) in every row; and under the policy A has mean 0, token by token."""
    chances, walk = some_logits().softmax(-1), some_walk(4000)
    found, table = advantages(chances, walk), values(chances)
    came = (walk.end == GOAL).double()
    assert torch.allclose(found.sum(1), came - table[0, walk.places[:, 0]], atol=1e-12)
    assert abs(float(found[walk.live].mean())) < 0.01
    assert bool((found[~walk.live] == 0).all()) and bool((~walk.live).any())


def test_the_true_gradient_is_that_of_the_chance_to_arrive() -> None:
    logits, step = some_logits(), 1e-6
    slope = critic.true_gradient(logits)
    for place, action in ((0, 2), (3, 1), (7, 0)):
        moved = torch.zeros_like(logits)
        moved[place, action] = step
        up, down = (float(success(logits + sign * moved)) for sign in (1, -1))
        assert float(slope[place, action]) == pytest.approx((up - down) / (2 * step), abs=1e-8)


def test_a_batch_with_exact_advantages_points_along_the_true_gradient() -> None:
    """Many walks, so that little of the angle is chance; with advantages turned round it points away."""
    models = Walker(0.1, begin=0.6)
    walks = Walks(models, 0, sparse.sparse, groups=500, group_size=8)
    batch, logits = walks.batch(0), models.table()
    walk = walk_of(batch)
    exact = advantages(logits.softmax(-1), walk)[walk.live]
    aside = critic.angle(critic._gradient(logits, batch, exact), critic.true_gradient(logits))
    assert aside < 3
    assert critic.angle(critic._gradient(logits, batch, -exact), critic.true_gradient(logits)) > 177
    assert critic.correlation(exact, 3 * exact + 1) == pytest.approx(1)


def test_walks_have_the_log_probs_and_the_rewards_of_what_was_drawn() -> None:
    models = Walker(0.1, begin=0.6)
    batch = Walks(models, 0, sparse.sparse, groups=2, group_size=4).batch(0)
    walk, table = walk_of(batch), models.table().log_softmax(-1)
    logprobs = models.policy(batch).logprobs.detach()
    for row in range(len(batch)):
        place = STARTS[int(batch.tokens[row, 0])]
        for time in range(int(walk.live[row].sum())):
            action = int(batch.tokens[row, 1 + time])
            assert float(logprobs[row, 1 + time]) == pytest.approx(float(table[place, action]))
            place = min(max(place + action - 1, 0), GOAL)
        assert float(batch.rewards[row].sum()) == float(place == GOAL)


@pytest.mark.parametrize("name", list(sparse.REWARDS))
def test_a_rows_reward_is_the_sum_of_its_tokens(name: str) -> None:
    """What the search for the best policy adds up is what the walks are given."""
    walk = some_walk()
    given = sparse.REWARDS[name](walk).sum(1)
    for row in range(len(given)):
        places, actions, count = walk.places[row].tolist(), walk.actions[row].tolist(), int(walk.live[row].sum())
        worth = (sparse.step_worth(name, time, actions[time])[places[time]] for time in range(count))
        assert float(sum(worth)) == pytest.approx(float(given[row]))


def test_a_potential_gives_every_answer_of_a_prompt_the_same() -> None:
    walk = some_walk()
    given = sparse.difference(walk).sum(1)
    assert torch.allclose(given, -walk.places[:, 0].double() / GOAL)


def test_the_best_policy_arrives_unless_it_is_paid_to_stay() -> None:
    assert {name: sparse._best(name) for name in sparse.REWARDS} == {
        sparse.SPARSE: 1.0, sparse.GRADED: 1.0, sparse.POTENTIAL: 1.0, sparse.BONUS: 0.0,
    }  # fmt: skip


def test_to_stay_to_the_end_earns_more_than_to_arrive_from_every_start() -> None:
    """To arrive takes at least a token a place; what is left of the walk may be stayed."""
    assert all((LONGEST - (GOAL - start)) * sparse.TALK + 1 + 1e-9 < LONGEST * sparse.TALK for start in STARTS)
