"""The three sources of experience: every row is seen, groups stay whole, nothing lands on another sample's row."""

import pytest
import torch

from oneloop.errors import ConfigError, DataError
from oneloop.experience.demonstrations import Demonstrations
from oneloop.experience.drawing import OneTurn
from oneloop.experience.episodes import dead_scalars
from oneloop.experience.pack import Row, collate
from oneloop.experience.pairs import Pair, Pairs
from oneloop.experience.ratings import Rated, Ratings
from oneloop.experience.rollouts import Rollouts
from oneloop.experience.stream import Stream
from oneloop.objective.select import MixedOutcome
from oneloop.types import Completion, Prompt, Reward, Sampling, StopReason, Tokens, Trajectory


def test_ten_items_in_batches_of_four() -> None:
    """Every epoch sees all ten once, the batch that crosses its end included; nothing is dropped."""
    stream = Stream(list(range(10)), seed=0)
    drawn = [item for _ in range(5) for item in stream.take(4)]
    assert sorted(drawn[:10]) == sorted(drawn[10:]) == list(range(10))
    assert drawn[:10] != drawn[10:], "each epoch has its own order"
    assert stream.epoch == 2.0
    resumed = Stream(list(range(10)), seed=0)
    resumed.drawn = 8
    assert resumed.take(12) == drawn[8:]
    assert Stream(list(range(10)), seed=1).take(10) != drawn[:10]
    with pytest.raises(DataError, match="no rows"):
        Stream([], seed=0)


def test_demonstrations_and_pairs() -> None:
    batch = Demonstrations([Tokens((5, 6, 7, 1), (False, False, True, True))], per_step=1, seed=0).batch(0)
    assert batch.mask.tolist() == [[False, False, True, True]], "the end token is trained, the prompt is not"
    assert batch.rewards.tolist() == [[0.0, 0.0, 0.0, 1.0]]
    pair = Pairs([Pair([5], [6, 1], [7, 8, 1])], per_step=1, seed=0).batch(0)
    assert pair.group.tolist() == [0, 0] and pair.rewards.sum(1).tolist() == [1.0, 0.0]
    assert pair.lengths.tolist() == [3, 4]
    rated = Ratings([Rated([5], [6, 1], True), Rated([5], [7, 1], False)], per_step=2, seed=0).batch(0)
    told = {row[1]: sum(reward) for row, reward in zip(rated.tokens.tolist(), rated.rewards.tolist(), strict=True)}
    assert told == {6: 1.0, 7: 0.0} and rated.group.unique().numel() == 2


def test_a_row_with_a_log_prob_too_few_is_refused() -> None:
    with pytest.raises(ValueError, match="1 values for 2 places: every action needs one"):
        collate([Row(prompt=[5], actions=[6, 7], group=0, reward=0.0, logprobs=[-0.5])])


class Engine:
    """Completions that say who asked: the prompt's first token, then digits of the seed."""

    def __init__(self, stop: StopReason = StopReason.EOS, exact: bool = False) -> None:
        self.version, self.stop, self.seeds, self.exact = 0, stop, [], exact

    def update(self, version):
        self.version = version

    def generate(self, prompts, sampling, seeds, finished=lambda place, completion: None):
        self.seeds += seeds
        completions = [
            Completion(tokens=(p[0], 2 + s % 7), logprobs=(-float(p[0]), -0.5), stop=self.stop)
            for p, s in zip(prompts, seeds, strict=True)
        ]
        for place in reversed(range(len(prompts))):  # the last request ends first
            finished(place, completions[place])
        return completions


class Notes:
    def __init__(self) -> None:
        self.codes: list[str] = []

    def scalars(self, step, values) -> None: ...

    def trajectories(self, step, items) -> None: ...

    def event(self, step, code, text, fix="") -> None:
        self.codes.append(code)


def by_prompt(rewards: dict[str, list[float | None]]):
    """A scorer: the reward of a prompt's samples by their number."""

    def score(items: list[Trajectory], step: int = 0, scored=None) -> list[Trajectory]:
        from dataclasses import replace

        return [
            replace(item, reward=Reward(value=rewards[item.prompt.id][item.sample], parts={"r": None}))
            for item in items
        ]

    return score


def rollouts(rewards, engine=None, keep=None, prompts_per_step=2, group_size=2, sampling=None, **options):
    notes, engine = Notes(), engine or Engine()
    source = Rollouts(
        engine=engine,
        prompts=[Prompt(id=name, text=name, tokens=(10 + place, 9)) for place, name in enumerate(rewards)],
        draw=OneTurn(engine.generate, lambda ids: str(list(ids))),
        scorer=by_prompt(rewards),
        sampling=sampling or Sampling(max_new_tokens=4),
        prompts_per_step=prompts_per_step,
        group_size=group_size,
        seed=0,
        recorder=notes,
        keep=keep,
        **options,
    )
    return source, notes


def test_each_completion_keeps_its_own_row() -> None:
    """Prompt, reward and log-probs travel together through dropping, shuffling, splitting and packing."""
    rewards = {"a": [0.0, 0.0], "b": [0.1, 0.2], "c": [0.3, 0.4], "d": [1.0, 1.0]}
    source, notes = rollouts(rewards, keep=MixedOutcome(), prompts_per_step=2, max_refills=10)
    batch = source.batch(0)
    wanted = {11: [0.1, 0.2], 12: [0.3, 0.4]}
    seen = []
    for mini in batch.shuffle(torch.Generator().manual_seed(1)).split(1):
        for micro in mini.microbatches(5):
            for row in range(len(micro)):
                first = int(micro.tokens[row, 0])
                assert round(float(micro.rewards[row].sum()), 3) in wanted[first]
                assert float(micro.rollout_logprobs[row].min()) == -first
                seen.append(round(float(micro.rewards[row].sum()), 3))
    assert sorted(seen) == [0.1, 0.2, 0.3, 0.4]
    assert notes.codes == []


def test_what_is_full_is_not_filled() -> None:
    """It would be told, and on ranks agreed on, for nothing."""
    told: dict[bool, list[str]] = {True: [], False: []}
    for keeps, names in told.items():
        keep = MixedOutcome() if keeps else None
        source, _ = rollouts(
            {"a": [0.1, 0.2]}, keep=keep, max_refills=9, phase=lambda name, note, names=names: names.append(name)
        )
        source.batch(0)
    assert told[True] == told[False] != []


def test_the_refill_is_bounded() -> None:
    rewards = {"a": [0.0, 0.0], "b": [0.1, 0.2], "c": [0.0, 0.0], "d": [1.0, 1.0]}
    source, _ = rollouts(rewards, keep=MixedOutcome(), prompts_per_step=3, max_refills=1)
    batch = source.batch(0)
    assert 1 <= batch.num_groups < 3 and batch.size.tokens > 0
    report = source.report(batch)
    assert report.scalars["frac_groups_kept"] < 1 and report.scalars["frac_reward_zero_std"] > 0
    assert {item.kept for item in report.trajectories} == {True, False}, "dropped groups are recorded too"


def test_a_refill_is_sampling_again() -> None:
    told: list[str] = []
    source, _ = rollouts(
        {"a": [1.0, 1.0], "b": [0.0, 0.0]},
        keep=MixedOutcome(),
        max_refills=1,
        phase=lambda name, note: told.append(name),
    )
    source.batch(0)
    assert [name for place, name in enumerate(told) if told[place - 1 : place] != [name]] == ["rollout", "score"] * 2


def test_nothing_kept_leaves_nothing_to_train() -> None:
    source, _ = rollouts({"a": [1.0, 1.0], "b": [0.0, 0.0]}, keep=MixedOutcome(), max_refills=2)
    batch = source.batch(0)
    assert not any(batch.size) and len(batch) > 0
    scalars = source.report(batch).scalars
    assert scalars["frac_reward_zero_std"] == 1 and scalars["frac_groups_all_wrong"] == 0.5
    assert scalars["frac_groups_all_right"] == 0.5


def test_a_sample_without_a_score_teaches_nothing() -> None:
    source, _ = rollouts({"a": [None, 1.0], "b": [0.0, 0.5]})
    batch = source.batch(0)
    assert batch.mask.any(1).sum() == 3
    scalars = source.report(batch).scalars
    assert scalars["rewards/unscored"] == 1
    assert scalars["reward"] == pytest.approx(0.5)


def test_a_prompt_that_comes_round_again_gets_other_seeds() -> None:
    engine = Engine()
    source, _ = rollouts({"a": [0.0, 1.0]}, engine=engine, prompts_per_step=3)
    source.batch(0)
    assert len(set(engine.seeds)) == 6
    again = Engine()
    rollouts({"a": [0.0, 1.0]}, engine=again, prompts_per_step=3)[0].batch(0)
    assert again.seeds == engine.seeds, "seeds have names: the same run draws the same"
    source.batch(1)
    assert not set(engine.seeds[6:]) & set(engine.seeds[:6]), "another step draws anew"


def test_a_refill_draws_a_dropped_prompt_anew() -> None:
    engine = Engine()
    source, _ = rollouts({"a": [0.0, 0.0]}, engine=engine, keep=MixedOutcome(), prompts_per_step=1, max_refills=3)
    source.batch(0)
    assert len(engine.seeds) == len(set(engine.seeds)) == 8, "the same answers would be dropped again"


def test_a_refill_takes_the_prompts_that_come_next() -> None:
    source, _ = rollouts({name: [0.0, 0.0] for name in "abcdef"}, keep=MixedOutcome(), max_refills=1)
    steps = [source.report(source.batch(step)).trajectories for step in range(3)]
    asked = [[item.prompt.id for item in items if item.sample == 0] for items in steps]
    assert list(map(len, asked)) == [4, 4, 4] and sorted(name for names in asked for name in names) == sorted(
        "abcdef" * 2
    )


def test_metrics_by_hand() -> None:
    """Rewards 0, 1, 1, 1: mean .75, std √(.1875); one of two groups is dead; two tokens each."""
    source, _ = rollouts({"a": [0.0, 1.0], "b": [1.0, 1.0]})
    scalars = source.report(source.batch(0)).scalars
    assert scalars["reward"] == 0.75 and scalars["reward_std"] == pytest.approx(0.1875**0.5)
    assert scalars["frac_reward_zero_std"] == 0.5
    assert scalars["completions/mean_length"] == 2 and scalars["completions/clipped_ratio"] == 0


def test_a_truncated_step_says_so() -> None:
    source, _ = rollouts({"a": [0.0, 1.0], "b": [1.0, 0.0]}, engine=Engine(StopReason.LENGTH))
    batch = source.batch(0)
    scalars = source.report(batch).scalars
    assert batch.truncated.all() and scalars["completions/clipped_ratio"] == 1
    assert "completions/max_terminated_length" not in scalars


@pytest.mark.parametrize(
    ("groups", "wanted"),
    [
        ([[0, 0], [0, 1], [1, 1], [0, 0]], (0.75, 0.5, 0.25)),
        ([[-1, -1], [0.5, 0.5], [2, 2], [0, 2]], (0.75, 0.25, 0.25)),  # 0.5 is neither wrong nor the best
        ([[None, None], [None, 0], [1, None]], (1.0, 1 / 3, 1 / 3)),  # an unscored group is dead, and of neither kind
        ([[0, 1], [1, 0]], (0.0, 0.0, 0.0)),
    ],
)
def test_dead_groups_by_kind(groups, wanted) -> None:
    scalars = dead_scalars(groups)
    assert tuple(scalars.values()) == pytest.approx(wanted)
    assert list(scalars) == ["frac_reward_zero_std", "frac_groups_all_wrong", "frac_groups_all_right"]


def test_advantages_come_back_to_their_records() -> None:
    from dataclasses import replace

    source, _ = rollouts({"a": [0.0, 1.0], "b": [1.0, 1.0]}, keep=MixedOutcome(), prompts_per_step=1, max_refills=5)
    batch = source.batch(0)
    marked = replace(batch, advantages=batch.rewards.sum(1, keepdim=True).expand_as(batch.rewards) * 2)
    for item in source.report(marked).trajectories:
        assert item.advantage == (2 * item.reward.value if item.kept else None)


def test_the_stream_goes_on_after_a_restore() -> None:
    rewards = {name: [0.0, 1.0] for name in "abcdefg"}
    source, _ = rollouts(rewards)
    source.batch(0)
    state, after = source.state(), source.batch(1).tokens
    other, _ = rollouts(rewards)
    other.restore(state)
    assert torch.equal(other.batch(1).tokens, after)


@pytest.mark.parametrize("sampling", [Sampling(top_p=0.8), Sampling(top_k=20), Sampling(temperature=0.0)])
def test_truncated_sampling_is_refused_in_training(sampling: Sampling) -> None:
    """The trainer's log-probs are of the full distribution."""
    with pytest.raises(ConfigError, match="biased"):
        rollouts({"a": [0.0, 1.0]}, sampling=sampling)
