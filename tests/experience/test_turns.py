"""Episodes of many turns: what becomes a row, what a turn is paid, and what ends an episode, by scripted players."""

from contextlib import contextmanager
from dataclasses import replace

import pytest
import torch

from oneloop.algorithms import ALGORITHMS, PPO, PolicyGradient
from oneloop.batch import PolicyOutput
from oneloop.errors import ConfigError, EnvironmentFailed
from oneloop.experience import turns
from oneloop.experience.episodes import Request, length_scalars, turn_scalars
from oneloop.experience.pack import Row, collate
from oneloop.experience.rollouts import Rollouts, _row
from oneloop.experience.turns import Budget, Episodes
from oneloop.experience.wire import heard, told
from oneloop.objective.advantage import GAE
from oneloop.rewards import NamedReward, RewardScorer
from oneloop.rewards.played import PlayedScorer
from oneloop.rollout.turns import Rounds
from oneloop.types import Completion, Prompt, Sampling, Step, StopReason
from toy_models import Bigram, Memory

END = 7


def user(text):
    return {"role": "user", "content": text}


class Digits:
    """A language whose words are digits: `12` is the ids 1, 2."""

    def prompt(self, prompt, tools=None):
        text = "".join(message["content"] for message in prompt)
        return tuple(map(int, text)), text

    def reply(self, before, new, tools=None):
        assert before[-1]["role"] == "assistant"
        return tuple(int(letter) for message in new for letter in message["content"])

    def decode(self, ids):
        return "".join(str(number) for number in ids if number != END)


class Scripted:
    """An environment that answers by a list of steps; an exception among them is raised."""

    tools = None

    def __init__(self, opening, steps, heard):
        self.opening, self.steps, self.heard = opening, list(steps), heard

    def reset(self, row, seed):
        self.row = row
        return lambda: self._said(self.opening)

    def step(self, completion):
        self.heard.append((self.row["prompt"], completion))
        return lambda: self._said(self.steps.pop(0))

    @staticmethod
    def _said(step):
        if isinstance(step, Exception):
            raise step
        return step

    def leave(self): ...


SEEDS = []


def generate(prompts, sampling, seeds, finished=None):
    """Says how many tokens stand before, mod 6, twice, and ends; or is cut."""
    SEEDS.extend(seeds)
    done = []
    for prompt in prompts:
        ids = (len(prompt) % 6, len(prompt) % 6, END)[: sampling.max_new_tokens]
        stop = StopReason.EOS if ids[-1] == END else StopReason.LENGTH
        done.append(Completion(tokens=ids, logprobs=(-0.5,) * len(ids), stop=stop, version=3))
    return done


def episodes(scripts, turns=4, tokens=40, heard=None, **options):
    """One for each script: what an environment opens with, and its steps."""
    waiting, heard = iter(scripts), [] if heard is None else heard

    @contextmanager
    def opened(sampling, most):
        yield Rounds(generate, sampling)

    return Episodes(
        name="game", scene=lambda: Scripted(*next(waiting), heard), opened=opened, language=Digits(),
        budget=Budget(turns=turns, tokens=tokens), **options,
    )  # fmt: skip


def requests(count):
    prompts = [
        Prompt(id=str(number), text=f"row {number}", tokens=(1,), columns={"answer": 3}) for number in range(count)
    ]
    return [Request(prompt, number, 0, number) for number, prompt in enumerate(prompts)]


def drawn(*scripts, longest=3, **options):
    draw = episodes(scripts, **options)
    return draw(requests(len(scripts)), Sampling(max_new_tokens=longest), lambda index, item: None).trajectories


OPENING = Step(messages=[user("12")])
THREE = (
    OPENING,
    [
        Step(messages=[user("4")], reward=0.25),
        Step(messages=[user("55"), user("6")], reward=-0.5),
        Step(reward=1.0, terminated=True),
    ],
)
"""Ids by hand: 12 | 2 2 END | 4 | 0 0 END | 5 5 6 | 0 0 END."""


OTHER = (OPENING, [Step(messages=[user("33")], reward=0.5), Step(messages=[user("1")], terminated=True)])


def scored(items, weight=1.0, functions=None):
    return PlayedScorer("game", weight, functions)(items)


def test_an_episode_by_hand() -> None:
    heard = []
    item = drawn(THREE, heard=heard)[0]
    assert item.prompt.tokens == (1, 2) and item.prompt.text == "12" and item.prompt.messages == (user("12"),)
    assert item.completion.tokens == (2, 2, END, 4, 0, 0, END, 5, 5, 6, 0, 0, END)
    assert item.completion.given == ((3, 4), (7, 10)) and item.completion.actions == (2, 2, END, 0, 0, END, 0, 0, END)
    assert item.completion.logprobs == (-0.5,) * 3 + (0.0,) + (-0.5,) * 3 + (0.0,) * 3 + (-0.5,) * 3
    assert (item.completion.stop, item.completion.version) == (StopReason.ENVIRONMENT, 3)
    assert heard == [("row 0", "22"), ("row 0", "00"), ("row 0", "00")]
    assert [(turn.role, turn.text, turn.reward) for turn in item.turns] == [
        ("assistant", "22", 0.25), ("user", "4", None), ("assistant", "00", -0.5), ("user", "55", None),
        ("user", "6", None), ("assistant", "00", 1.0),
    ]  # fmt: skip
    assert [turn.span for turn in item.turns] == [(0, 3), (3, 4), (4, 7), (7, 10), None, (10, 13)], "read together"
    assert [turn.chosen for turn in item.turns] == [True, False, True, False, False, True]
    assert [turn.terminated for turn in item.turns] == [False] * 5 + [True]
    assert item.text == "22400556" + "00"
    assert length_scalars([item])["completions/mean_length"] == 9, "of what the policy chose"
    assert turn_scalars([item]) == {"turns/mean": 3.0, "turns/max": 3.0, "tokens/environment": 4.0}


def test_each_turn_has_a_seed_of_its_own() -> None:
    """The first turn is drawn as a single answer would be; the others depend on the request and their number alone."""
    SEEDS.clear()
    drawn(THREE, THREE)
    assert len(set(SEEDS)) == 6 and SEEDS[:2] == [0, 1], "by rounds: the first turns of both"
    first = SEEDS[::2]
    SEEDS.clear()
    drawn(THREE)
    assert first == SEEDS


def test_rewards_stand_on_the_last_action_of_their_turn() -> None:
    item = scored(drawn(THREE), weight=2.0)[0]
    assert item.reward.value == 1.5 and item.reward.parts == {"game": 0.75}
    batch = collate([_row(item)])
    wanted = [0.0] * 15
    wanted[2 + 2], wanted[2 + 6], wanted[2 + 12] = 0.5, -1.0, 2.0
    assert batch.rewards[0].tolist() == wanted
    places = [2, 3, 4, 6, 7, 8, 12, 13, 14]
    assert batch.mask[0].nonzero()[:, 0].tolist() == places
    assert batch.rollout_logprobs[0, places].tolist() == [-0.5] * 9


def test_a_sum_does_not_depend_on_how_it_is_spread() -> None:
    """Rows of equal rewards are tied, to the last bit: a residue of rounding would become an advantage of ±1."""
    thirds, whole = [0.1, 0.2, 0.7], [0.0, 0.0, 0.1 + 0.2 + 0.7]
    rows = [
        Row(
            prompt=[1], actions=[2, 3, 4], group=0, reward=sum(spread), placed=list(enumerate(spread[:-1]))
        )
        for spread in (thirds, whole, [0.7, 0.1, 0.2], [1.1, -0.3, 0.2])
    ]  # fmt: skip
    batch = collate(rows)
    assert batch.rewards[0, 1:3].tolist() == pytest.approx([0.1, 0.2])
    assert batch.rewards.double().sum(1).float().unique().numel() == 1
    grpo = ALGORITHMS["grpo"].advantage(batch.rewards, None, batch.mask, batch.group)
    assert not grpo.advantages.any()


def test_functions_see_the_whole_text_and_lengths_of_actions() -> None:
    seen = []

    def long(completions, completion_ids, episode_ids, answer):
        seen.append((completions, completion_ids, answer, episode_ids))
        return [len(ids) / 10 for ids in completion_ids]

    functions = RewardScorer((NamedReward("long", long),))
    item = scored(drawn(THREE), functions=functions)[0]
    assert item.reward.value == pytest.approx(0.75 + 0.9) and item.reward.parts == {"game": 0.75, "long": 0.9}
    assert seen[0][0] == [[{"role": "assistant", "content": "2240055600"}]]
    assert seen[0][1] == [[2, 2, END, 0, 0, END, 0, 0, END]] and seen[0][2] == [3]
    assert seen[0][3] == [[2, 2, END, 4, 0, 0, END, 5, 5, 6, 0, 0, END]], "with what the environment said"
    rewards = collate([_row(item)]).rewards[0]
    assert rewards[[4, 8, 14]].tolist() == pytest.approx([0.25, -0.5, 1.9])


def test_a_sample_that_no_function_could_score_is_unscored() -> None:
    """The environment's own rewards, often 0, are no answer to a judge that gave none."""
    judge = RewardScorer((NamedReward("judge", lambda completions: [None] * len(completions)),))
    item = scored(drawn(THREE), functions=judge)[0]
    assert item.reward.value is None and item.reward.parts == {"game": 0.75, "judge": None}
    assert not _row(item).trained


def test_what_is_paid_stays_with_its_turn_where_a_later_one_is_cut() -> None:
    item = drawn(THREE)[0]
    cut = replace(item, turns=(*item.turns[:-1], replace(item.turns[-1], reward=None)))
    rewards = collate([_row(scored([cut])[0])]).rewards[0]
    assert rewards[[4, 8, 14]].tolist() == [0.25, -0.5, 0.0]


def test_turns_may_run_out() -> None:
    """Truncated, with what was said last behind the last action: the state that a critic's value is asked of."""
    item = scored(drawn(THREE, turns=2))[0]
    assert item.completion.stop is StopReason.TURNS and item.completion.stop.truncated
    assert item.completion.tokens == (2, 2, END, 4, 0, 0, END, 5, 5, 6) and item.completion.given == ((3, 4), (7, 10))
    batch = collate([_row(item)])
    assert bool(batch.truncated[0]) and batch.lengths.tolist() == [12]
    assert batch.mask[0].nonzero()[:, 0].tolist() == [2, 3, 4, 6, 7, 8]
    assert batch.rewards[0, [4, 8]].tolist() == [0.25, -0.5], "the last action is not the last token"


def test_tokens_may_run_out() -> None:
    """A turn begins only where three tokens fit: 2 + 3 + 1 + 3 + 3 = 12, and 3 more are 15."""
    fits, cut = drawn(THREE, tokens=15)[0], drawn(THREE, tokens=14)[0]
    assert fits.completion.stop is StopReason.ENVIRONMENT
    assert cut.completion.stop is StopReason.LENGTH and cut.completion.tokens[-3:] == (5, 5, 6)
    shorter = drawn(THREE, tokens=11)[0]
    assert shorter.completion.stop is StopReason.LENGTH and shorter.completion.tokens[-1] == END, "no room for 5 5 6"
    with pytest.raises(ConfigError, match="environment game, row 0: its first messages have 2 tokens"):
        drawn(THREE, tokens=4)


def test_a_turn_that_is_cut_is_not_answered() -> None:
    heard = []
    item = scored(drawn(THREE, longest=2, heard=heard))[0]
    assert item.completion.stop is StopReason.LENGTH and item.completion.tokens == (2, 2) and not heard
    assert item.reward.value == 0.0 and item.turns[0].reward is None


def test_an_environment_may_cut_its_episode() -> None:
    item = drawn((OPENING, [Step(messages=[user("4")], truncated=True)]))[0]
    assert item.completion.stop is StopReason.TURNS and item.completion.tokens == (2, 2, END, 4)
    assert [(turn.truncated, turn.span) for turn in item.turns] == [(True, (0, 3)), (False, (3, 4))]
    both = drawn((OPENING, [Step(messages=[user("4")], truncated=True, terminated=True)]))[0]
    assert both.completion.stop is StopReason.ENVIRONMENT and both.completion.tokens == (2, 2, END)


FAILED = EnvironmentFailed("step raised ValueError: no")


def test_a_failure_ends_the_run_or_leaves_its_sample_unscored() -> None:
    scripts = [THREE, (OPENING, [Step(messages=[user("4")], reward=5.0), FAILED]), (FAILED, [])]
    with pytest.raises(EnvironmentFailed, match="environment game at row 2, turn 0: step raised ValueError: no"):
        drawn(*scripts)
    items = scored(drawn(*scripts, on_error="unscored"))
    assert [item.reward.value for item in items] == [0.75, None, None]
    assert items[1].reward.failures == {"game": "at row 1, turn 2: step raised ValueError: no"}
    assert [item.completion.stop for item in items[1:]] == [StopReason.ERROR] * 2
    assert items[2].completion.tokens == () and items[2].prompt.tokens == (1,)
    batch = collate([_row(item) for item in items])
    assert batch.mask.any(1).tolist() == [True, False, False], "nothing is learned from it"


def test_first_messages_that_fit_no_model_are_a_failure_of_their_row() -> None:
    long = (Step(messages=[user("123456789")]), [])
    with pytest.raises(ConfigError, match="row 1: its first messages have 9 tokens, and with a turn of 3"):
        drawn(THREE, long, tokens=11, turns=1)
    fits, failed = scored(drawn(THREE, long, tokens=11, turns=1, on_error="unscored"))
    assert fits.reward.value == 0.25
    assert failed.reward.value is None and failed.completion.stop is StopReason.ERROR
    assert "row 1, turn 0: its first messages have 9 tokens" in failed.reward.failures["game"]
    assert failed.prompt.tokens == (1,), "the row's own prompt: a pass over the other would be beyond the context"


def test_environments_begin_when_others_are_over(monkeypatch) -> None:
    """By whole groups; what is drawn is the same, and in the same order."""
    alive, most = set(), []

    class Watched(Scripted):
        def reset(self, row, seed):
            alive.add(self)
            most.append(len(alive))
            return super().reset(row, seed)

        def leave(self):
            alive.discard(self)

    scripts = [THREE, OTHER, THREE, THREE, OTHER, OTHER, THREE, OTHER]
    asked = [replace(request, group=request.group // 2) for request in requests(len(scripts))]

    def played(limit):
        monkeypatch.setattr(turns, "MOST_ALIVE", limit)
        waiting, draw = iter(scripts), episodes(scripts)
        draw = replace(draw, scene=lambda: Watched(*next(waiting), []))
        return draw(asked, Sampling(max_new_tokens=3), lambda index, item: None).trajectories

    whole = played(100)
    assert max(most) == 8
    for limit, peak in ((4, 4), (1, 2)):
        most.clear()
        assert played(limit) == whole
        assert max(most) == peak and len(most) == 8


def test_a_hopeless_failure_ends_the_run_in_any_case() -> None:
    failed = EnvironmentFailed("17 threads hang")
    failed.hopeless = True
    with pytest.raises(EnvironmentFailed, match="17 threads"):
        drawn((OPENING, [failed]), on_error="unscored")


def test_ranks_tell_each_other_everything() -> None:
    for item in scored(drawn(THREE, (OPENING, [FAILED]), on_error="unscored")):
        request = requests(2)[item.group]
        assert heard(request, told(item)) == item


def rollouts(*groups):
    """One prompt for each group of scripts, all of one size."""
    draw = episodes([script for group in groups for script in group])

    class Engine:
        version, exact = 0, True

        def update(self, version): ...

        def generate(self, prompts, sampling, seeds, finished=None): ...

    return Rollouts(
        engine=Engine(), prompts=[request.prompt for request in requests(len(groups))], draw=draw,
        scorer=PlayedScorer("game"), sampling=Sampling(max_new_tokens=3), prompts_per_step=len(groups),
        group_size=len(groups[0]), seed=0, recorder=Memory(),
    )  # fmt: skip


def batch_of(*groups):
    return rollouts(*groups).batch(0)


def test_metrics_count_what_was_read_and_what_was_said() -> None:
    experience = rollouts([THREE, THREE])
    batch = experience.batch(0)
    scalars = experience.report(batch).scalars
    assert scalars["tokens/environment"] == 8 and scalars["num_tokens"] == 18 and scalars["turns/mean"] == 3
    assert scalars["tokens/prefilled"] == 2 * (2 + 6 + 12), "by rounds, all of it again at each turn"
    assert scalars["rewards/game/mean"] == 0.75 and scalars["completions/clipped_ratio"] == 0


def test_each_turn_is_told_the_mean_advantage_of_its_own_tokens() -> None:
    """The environment's have none, nor have turns of a sample that nothing is learned from."""
    experience = rollouts([THREE, THREE])
    batch = experience.batch(0)
    numbers = torch.arange(30.0).reshape(2, 15)
    mask = batch.mask.clone()
    mask[1] = False
    first, second = experience.report(replace(batch, advantages=numbers, mask=mask)).trajectories
    # behind a prompt of two: places 2 to 4, 6 to 8 and 12 to 14
    assert [turn.advantage for turn in first.turns] == [3.0, None, 7.0, None, None, 13.0]
    assert [turn.advantage for turn in second.turns] == [None] * 6
    assert [turn.advantage for turn in experience.report(batch).trajectories[0].turns] == [None] * 6, "not yet known"


ONLINE = [name for name, value in ALGORITHMS.items() if isinstance(value, PolicyGradient) and name != "sft"]


@pytest.mark.parametrize("name", ONLINE)
def test_the_gradient_of_environment_tokens_is_exactly_zero(name) -> None:
    """Of every method: what the environment said changes what comes after it, and has no loss, no KL and no entropy."""
    algorithm, models = replace(ALGORITHMS[name], entropy=0.01), Bigram(0, reference=Bigram(5), dtype=torch.float32)
    batch = algorithm.prepare(batch_of([THREE, OTHER]), models)
    out = models.policy(batch)
    leaves = PolicyOutput(*(None if x is None else x.detach().clone().requires_grad_() for x in out))
    algorithm.loss(leaves, batch, batch.size).value.backward()
    said = torch.zeros_like(batch.mask)
    said[0, [5, 9, 10, 11]] = said[1, [5, 6]] = True  # behind a prompt of two
    assert not (batch.mask & said).any()
    for leaf in (leaves.logprobs, leaves.entropy, leaves.values):
        if leaf is not None and leaf.grad is not None:
            assert not leaf.grad[said].any()
    assert leaves.logprobs.grad[~said].any()


@pytest.mark.parametrize("name", ONLINE)
def test_an_environment_token_that_counts_as_an_action_changes_the_loss(name) -> None:
    algorithm, models = ALGORITHMS[name], Bigram(0, reference=Bigram(5))
    right = batch_of([THREE, OTHER])
    mask = right.mask.clone()
    mask[0, 5] = True
    losses = []
    for batch in (right, replace(right, mask=mask)):
        out = models.policy(batch)
        prepared = algorithm.prepare(batch, models)
        gradient = torch.autograd.grad(algorithm.loss(out, prepared, prepared.size).value, models.head)[0]
        losses.append(gradient)
    assert not torch.allclose(*losses, rtol=1e-6, atol=0)


def test_advantages_are_not_decayed_through_what_was_said() -> None:
    """GAE of a row with environment tokens is that of the row without them, at its actions."""
    batch = batch_of([THREE, OTHER])
    batch = batch.rows(torch.tensor([0]))
    values = torch.randn(batch.mask.shape, generator=torch.Generator().manual_seed(0))
    long = GAE(gamma=0.9, lam=0.8, whiten=False)(batch.rewards, values, batch.mask, batch.group)
    count = int(batch.mask[0].sum())
    short = [x[batch.mask].view(len(batch), count) for x in (batch.rewards, values)]
    every = torch.ones(len(batch), count, dtype=torch.bool)
    wanted = GAE(gamma=0.9, lam=0.8, whiten=False)(*short, every, batch.group)
    assert torch.allclose(long.advantages[batch.mask], wanted.advantages[every])


def test_ppo_bootstraps_from_what_was_said_last_and_only_where_an_episode_was_cut() -> None:
    cut = (OPENING, [Step(messages=[user("456")], truncated=True)])
    over = (OPENING, [Step(messages=[user("456")], terminated=True)])
    batch = batch_of([cut, over], [over, cut])
    models, seen = Bigram(0, reference=Bigram(5)), []

    class Watching(GAE):
        def __call__(self, *arguments, bootstrap=None):
            seen.append(bootstrap)
            return super().__call__(*arguments, bootstrap=bootstrap)

    replace(PPO, advantage=Watching()).prepare(batch, models)
    out = models.policy(batch)
    rows = batch.truncated.nonzero()[:, 0].tolist()
    assert len(rows) == 2 and batch.lengths[rows].tolist() == [8, 8], "456 stands behind the last action"
    assert torch.allclose(seen[0][rows], out.final_values[rows])
    assert not seen[0][~batch.truncated].any()
