"""Rows of environment steps: every transition once, none that is only a reset, and credit as a slow oracle has it."""

from collections.abc import Sequence
from dataclasses import replace

import numpy as np
import pytest
import torch
from toy_environments import Corridor, Vector

from oneloop.algorithms import PPO, REINFORCE, TRPO, Critic, PolicyGradient, trust_region
from oneloop.classic import environments
from oneloop.classic.environments import Environments
from oneloop.classic.episodes import spelled
from oneloop.classic.experience import Interaction, Steps, pieces
from oneloop.classic.learner import AgentLearner
from oneloop.classic.normalize import Observations, Rewards
from oneloop.classic.save import new_agent
from oneloop.classic.transitions import Pieces
from oneloop.errors import EnvironmentFailed
from oneloop.model.optimizer import Optimization
from oneloop.objective.advantage import GAE
from oneloop.ports import SingleProcess
from oneloop.seeds import named_seed

PLAIN = replace(PPO, kl=None, critic=Critic(1.0, None), target_kl=None, advantage=GAE(0.9, 0.8, whiten=False))


def setup(env: str, count: int = 3, steps: int = 25, whole: bool = False) -> tuple[Interaction, AgentLearner]:
    environments = Environments(env, count, 0, "training")
    agent = new_agent(environments.spaces, (8,), critic=not whole, seed=1)
    plan = Optimization(learning_rate=1e-2, critic_learning_rate=1e-2, total_updates=1)
    experience = Interaction(
        environments,
        agent,
        steps=steps,
        seed=0,
        normalized=Observations(2, False),
        scaled=Rewards(count, 0.9, False),
        whole=whole,
    )
    return experience, AgentLearner(agent, optimization=plan)


def rows_of(batch: Pieces) -> list[list[tuple[int, int]]]:
    """Length of the episode and steps so far, of every transition of every row."""
    both = zip(batch.observations.long().tolist(), batch.lengths.tolist(), strict=True)
    return [[tuple(state) for state in states[:length]] for states, length in both]


def test_every_step_of_the_environments_is_a_transition_and_nothing_else_is() -> None:
    """A toy that counts its own steps: rows are runs of one episode, and no row goes over a reset."""
    Corridor.calls.clear()
    experience, _ = setup("Corridor-v0")
    batches = [experience.batch(step) for step in range(3)]
    rows = [row for batch in batches for row in rows_of(batch)]
    assert sorted(state for row in rows for state in row) == sorted(Corridor.calls)
    assert len(Corridor.calls) == 3 * 3 * 25
    for row in rows:
        assert [taken for _, taken in row] == list(range(row[0][1], row[0][1] + len(row)))
        assert len({length for length, _ in row}) == 1
    for batch in batches:
        wanted = 1 + batch.observations[..., 1] / 10
        torch.testing.assert_close(batch.rewards[batch.mask], wanted[batch.mask])
        assert not batch.rewards[~batch.mask].any()


def test_a_row_is_truncated_where_its_episode_would_have_gone_on() -> None:
    """By the time limit of 10 steps, and by the end of the loop's step; there the next observation is kept."""
    experience, _ = setup("Corridor-v0")
    batch, kinds = experience.batch(0), set()
    for row, truncated, last in zip(rows_of(batch), batch.truncated.tolist(), batch.last.long().tolist(), strict=True):
        length, taken = row[-1]
        ends_itself, limit = taken + 1 >= length and length % 4 > 0, taken + 1 == 10
        assert truncated != ends_itself
        kinds.add("terminated" if ends_itself else "limit" if limit else "cut")
        if truncated:
            assert last == [length, taken + 1]
    assert kinds == {"terminated", "limit", "cut"}


def slow_gae(steps: Steps, learner: AgentLearner, gamma: float, lam: float) -> np.ndarray:
    """Environment by environment, backwards, from raw steps. A terminated step is followed by nothing; a truncated one
    by V of the observation that came after it."""
    with torch.no_grad():
        values = learner.model.values(steps.observations.flatten(0, 1)).view(steps.rewards.shape).numpy()
        after = learner.model.values(torch.from_numpy(steps.after).flatten(0, 1)).view(steps.rewards.shape).numpy()
    count, environments = steps.rewards.shape
    out = np.zeros(steps.rewards.shape)
    for n in range(environments):
        carry = 0.0
        for t in reversed(range(count)):
            if steps.terminated[t, n]:
                following, carry = 0.0, 0.0
            elif steps.truncated[t, n] or t == count - 1:
                following, carry = after[t, n], 0.0
            else:
                following = values[t + 1, n]
            delta = steps.rewards[t, n] + gamma * following - values[t, n]
            carry = delta + gamma * lam * carry
            out[t, n] = carry
    return out


def drawn_steps(rng: np.random.Generator, shape: tuple[int, int]) -> Steps:
    terminated = rng.random(shape) < 0.15
    return Steps(
        torch.from_numpy(rng.normal(size=(*shape, 2)).astype(np.float32)),
        rng.normal(size=(*shape, 2)).astype(np.float32),
        rng.integers(0, 3, shape),
        rng.normal(size=shape),
        terminated,
        (rng.random(shape) < 0.15) & ~terminated,
        np.ones(shape, dtype=bool),
    )


def ordered(batch: Pieces, values: torch.Tensor) -> list[float]:
    """Of its actions, environment after environment, as `pieces` cuts them."""
    return values[batch.mask].tolist()


@pytest.mark.parametrize("seed", range(5))
def test_credit_over_rows_is_the_slow_oracles_over_raw_steps(seed: int) -> None:
    _, learner = setup("Corridor-v0")
    steps = drawn_steps(np.random.default_rng(seed), (20, 3))
    batch = PLAIN.prepare(pieces(steps, continuous=False), learner)
    assert batch.advantages is not None
    wanted = slow_gae(steps, learner, 0.9, 0.8)
    np.testing.assert_allclose(ordered(batch, batch.advantages), wanted.T.ravel(), rtol=2e-4, atol=2e-5)


def test_to_bootstrap_where_an_episode_terminated_would_be_noticed() -> None:
    """The mutant: every row counts as truncated."""
    _, learner = setup("Corridor-v0")
    steps = drawn_steps(np.random.default_rng(0), (20, 3))
    batch = pieces(steps, continuous=False)
    wrong = PLAIN.prepare(replace(batch, truncated=torch.ones_like(batch.truncated)), learner)
    assert wrong.advantages is not None
    wanted = slow_gae(steps, learner, 0.9, 0.8)
    assert not np.allclose(ordered(wrong, wrong.advantages), wanted.T.ravel(), atol=1e-2)


def slow_loss(states: Sequence[int], batch: Pieces, learner: AgentLearner, value: PolicyGradient) -> torch.Tensor:
    """PPO's loss as a mean over transitions, one after the other."""
    picked = batch.transitions
    total = torch.zeros(())
    for n in states:
        logprob, entropy = learner.model.judge(
            picked.observations[n : n + 1],
            picked.tokens[n],
            None if picked.actions is None else picked.actions[n : n + 1],
        )
        ratio = (logprob - picked.old_logprobs[n]).exp()
        credit = picked.advantages[n]
        surrogate = torch.minimum(ratio * credit, ratio.clamp(0.8, 1.2) * credit)
        error = learner.model.values(picked.observations[n : n + 1]) - picked.returns[n]
        total = total + (-surrogate + value.critic.coef * 0.5 * error.square() - value.entropy * entropy).sum()
    return total / len(states)


@pytest.mark.parametrize("env", ["Corridor-v0", "Vector-v0"])
@pytest.mark.parametrize("max_tokens", [1000, 7], ids=["one pass", "passes of 7"])
def test_a_minibatch_is_so_many_transitions_and_its_gradient_their_mean(env: str, max_tokens: int) -> None:
    experience, learner = setup(env)
    value = replace(PLAIN, entropy=0.01, advantage=GAE(0.9, 0.8))
    batch = value.prepare(experience.batch(0), learner)
    for flat in learner.named_parameters().values():
        flat.data.add_(0.05)  # so that ratios are not 1
    mini = next(iter(batch.split(32)))
    assert mini.size.tokens == mini.num_groups == 32
    for micro in mini.microbatches(max_tokens):
        value.loss(learner.policy(micro), micro, mini.size).value.backward()
    got = [flat.grad.clone() for flat in learner.named_parameters().values()]
    learner.forget()
    slow_loss(range(32), batch, learner, value).backward()
    for ours, oracle in zip(got, learner.named_parameters().values(), strict=True):
        torch.testing.assert_close(ours, oracle.grad, atol=1e-6, rtol=1e-4)


def test_an_epoch_sees_each_transition_once_in_an_order_of_its_own() -> None:
    experience, learner = setup("Corridor-v0")
    batch = PLAIN.prepare(experience.batch(0), learner)
    rng = torch.Generator().manual_seed(0)
    epochs = [torch.cat([mini.returns for mini in batch.shuffle(rng).split(16)]) for _ in range(2)]
    assert batch.num_groups == 75 and all(len(epoch) == 75 for epoch in epochs)
    assert not torch.equal(*epochs)
    for epoch in epochs:
        assert sorted(epoch[:, 0].tolist()) == sorted(batch.returns[batch.mask].tolist())


def test_without_a_critic_rows_are_whole_episodes() -> None:
    """A return that nobody continues must not be cut: each environment plays its last episode to its end."""
    experience, learner = setup("Corridor-v0", whole=True)
    for step in range(2):
        batch = experience.batch(step)
        for row, truncated in zip(rows_of(batch), batch.truncated.tolist(), strict=True):
            length, taken = row[-1]
            assert row[0][1] == 0
            assert taken + 1 == (10 if truncated else length)
        assert batch.num_groups >= 75
        report = experience.report(batch)
        assert report.scalars["episodes"] == len(batch)
        assert report.scalars["environment_steps"] == batch.num_groups
    prepared = REINFORCE.prepare(batch, learner)
    to_go = batch.rewards.flip(1).cumsum(1).flip(1)
    torch.testing.assert_close(prepared.advantages[batch.mask], to_go[batch.mask])


def test_actions_beyond_the_bounds_are_cut_off_for_the_environment_alone() -> None:
    Vector.given.clear()
    experience, _ = setup("Vector-v0", count=1, steps=50)
    batch = experience.batch(0)
    drawn = batch.actions[batch.mask].numpy()
    assert np.abs(drawn).max() > 1, "standard deviation 1 at the start"
    np.testing.assert_array_equal(np.array(Vector.given), drawn.clip(-1, 1))


def test_a_reward_that_is_no_number_ends_the_run() -> None:
    experience, _ = setup("Broken-v0", count=1)
    with pytest.raises(EnvironmentFailed, match="--env Broken-v0 gave the reward nan"):
        experience.batch(0)


def test_an_observation_that_is_no_number_ends_the_run() -> None:
    """Before it is in the moments that observations are normalised by, which nothing would take it out of again."""
    experience, _ = setup("Blind-v0", count=1)
    with pytest.raises(EnvironmentFailed, match="--env Blind-v0 showed nan"):
        experience.batch(0)


def test_an_episode_without_a_limit_is_given_one(monkeypatch: pytest.MonkeyPatch) -> None:
    """An evaluation waits for whole episodes."""
    monkeypatch.setattr(environments, "LONGEST", 7)
    assert environments.endless("Endless-v0") and not environments.endless("Corridor-v0")
    one = Environments("Endless-v0", 1, 0, "training")
    cuts = [bool(one.step(np.zeros(1, np.int64)).truncated[0]) for _ in range(15)]
    assert cuts == [number in (6, 13) for number in range(15)]


def test_a_replayed_experience_goes_on_as_if_nobody_had_stopped() -> None:
    experience, _ = setup("Vector-v0")
    experience.batch(0)
    state = experience.state()
    wanted = experience.batch(1)
    again, _ = setup("Vector-v0")
    again.restore(state)
    assert again.lost == []
    got = again.batch(1)
    for name in ("observations", "actions", "rewards", "truncated", "last"):
        assert torch.equal(getattr(got, name), getattr(wanted, name))
    assert again.report(got) == experience.report(wanted)


def test_a_checkpoint_from_before_there_were_marks_is_gone_on_with() -> None:
    """What runs then is told as played by the next step's policy; everything else is as it was."""
    experience, _ = setup("Corridor-v0", count=1, steps=3)
    experience.batch(0)
    state = experience.state()
    assert state["lengths"] != [0], "an episode runs"
    wanted = experience.batch(1)
    again, _ = setup("Corridor-v0", count=1, steps=3)
    again.restore({name: value for name, value in state.items() if name != "marks"})
    got = again.batch(1)
    assert torch.equal(got.tokens, wanted.tokens) and torch.equal(got.rewards, wanted.rewards)
    told = list(again.report(got).trajectories)
    for step in range(2, 5):
        told += again.report(again.batch(step)).trajectories
    assert told and told[0].completion.version == 1


def test_a_regions_critic_is_fitted_without_the_policys_pass(monkeypatch: pytest.MonkeyPatch) -> None:
    """As many of those with ten steps of the critic as with one; and the weights are those of the pass with both."""
    value = replace(TRPO, kl=None, critic=Critic(1.0, None), advantage=GAE(0.9, 0.8))
    judged: list[int] = []

    def stepped(critic_steps: int) -> AgentLearner:
        experience, learner = setup("Vector-v0")
        real = learner.model.judge
        monkeypatch.setattr(learner.model, "judge", lambda *given: judged.append(1) or real(*given))
        batch = value.prepare(experience.batch(0), learner)
        (mini,) = batch.split(batch.num_groups)
        judged.clear()
        value.loss(learner.policy(mini), mini, mini.size).value.backward()
        region = replace(TRPO.region, critic_steps=critic_steps, backtracks=None)
        replace(value, region=region).step(learner, mini, 10**6, SingleProcess())
        return learner

    stepped(1)
    once = len(judged)
    with_values = stepped(10).named_parameters()
    assert len(judged) == once > 0
    monkeypatch.setattr(trust_region, "AskedForValues", ())
    for name, flat in stepped(10).named_parameters().items():
        assert torch.equal(flat, with_values[name])
    assert len(judged) == once + 10


def test_episodes_that_do_not_follow_their_seeds_begin_anew_and_are_told_of() -> None:
    experience, _ = setup("Restless-v0", steps=5)
    experience.batch(0)
    state = experience.state()
    again, _ = setup("Restless-v0", steps=5)
    again.restore(state)
    assert "3 of 3 episodes came out otherwise" in again.lost[0]
    assert {row[0][1] for row in rows_of(again.batch(1))} == {0}


def test_episodes_are_told_with_their_seed_and_the_steps_whose_policies_played_them() -> None:
    """An oracle beside: which step of the loop each action of an environment was taken in, in order."""
    experience, _ = setup("Corridor-v0", count=2, steps=7)
    told = [trajectory for step in range(4) for trajectory in experience.report(experience.batch(step)).trajectories]
    assert len(told) > 4 and any(item.completion.changes for item in told)
    for place in range(2):
        steps = iter([step for step in range(4) for _ in range(7)])
        mine = [item for item in told if item.prompt.text.startswith(f"Corridor-v0: environment {place}, ")]
        for number, item in enumerate(mine):
            assert item.prompt.text.endswith(f"episode {number}, seed {named_seed(0, 'training', place, number)}")
            length = len(item.completion.tokens)
            assert item.reward.value == pytest.approx(sum(1 + taken / 10 for taken in range(length)))
            acted = [next(steps) for _ in range(length)]
            policies = [version for version, count in item.completion.versions for _ in range(count)]
            assert policies == acted


def test_the_text_of_an_episode_has_every_action_to_the_bit() -> None:
    """However long it is; a vector's numbers in the fewest digits that are that float32 again."""
    assert spelled([1, 0]) == "1 0" and spelled([]) == ""
    assert spelled([3] * 5_000).split() == ["3"] * 5_000
    given = np.random.default_rng(0).normal(0, [1, 1e-6, 1e6], (3_000, 3)).astype(np.float32)
    words = spelled(given.tolist()).split()
    got = np.array([[float(number) for number in word[1:-1].split(",")] for word in words], np.float32)
    np.testing.assert_array_equal(got, given)
    assert spelled([[[float(np.float32(0.1))], [1.0]]]) == "[0.1,1.0]"


def test_what_an_environment_raises_is_named() -> None:
    experience, _ = setup("Stuck-v0", count=1)
    with pytest.raises(EnvironmentFailed, match=r"failed in step \(.*toy_environments.py:\d+\): KeyError"):
        experience.batch(0)
