"""What a trace says, against slow oracles: the policy of every update, taken from its own weights, token by token."""

from dataclasses import replace
from math import exp, isnan

import pytest
import torch

from oneloop.algorithms import (
    ALGORITHMS,
    CISPO,
    DAPO,
    DPO,
    GRPO,
    GSPO,
    IPO,
    PPO,
    REINFORCE,
    REWARD_MODEL,
    SFT,
    Preference,
)
from oneloop.experience.pack import Row, collate
from oneloop.loop import minibatches, train
from oneloop.objective.surrogate import ClippedRatio
from oneloop.ports import Report, Untraced
from oneloop.record.steps import StepTables
from oneloop.trace import ratios as ratios_module
from oneloop.trace.passes import Passes
from oneloop.trace.ratios import EDGES
from oneloop.trace.tokens import sampled_rows, token_table
from oneloop.trace.traced import FIXED_EVERY, Traced
from oneloop.types import Completion, Prompt, Reward, StopReason, Trajectory
from toy_models import Bigram, Fixed, Memory, ragged_batch, rows_for

HALF, SINGLE = {"rel": 2e-3, "abs": 1e-6}, {"rel": 1e-6, "abs": 1e-7}


class Remembering(Bigram):
    """Keeps its weights of every update, as they were before it."""

    def __init__(self, *arguments, **options):
        super().__init__(*arguments, **options)
        self.past = []

    def step(self):
        copy = Bigram(0)
        copy.load_state_dict(self.state_dict())
        self.past.append(copy)
        return super().step()


class Kept:
    """What a trace hands over."""

    def __init__(self):
        self.tables, self.lines = {}, {}

    def __call__(self, step, tables, line):
        self.tables |= {(step, name): table.to_pylist() for name, table in tables.items()}
        self.lines[step] = line


def kind_of(algorithm):
    if isinstance(algorithm, Preference):
        return "preferences"
    return {"sft": "demonstrations", "kto": "unpaired"}.get(algorithm.name, "prompts")


def traced(algorithm, batch, *, steps=1, minibatch=2, max_tokens=40, report=None, models=None, recorder=None, **parts):
    """A run with a trace: what it kept, the models, and the batch as it was prepared."""
    kept, recorder = Kept(), recorder or Memory()
    trace = Traced(
        algorithm, kind_of(algorithm), recorder=recorder, seed=0,
        **({"keep": kept, "spell": lambda token: f"<{token}>", "decode": str} | parts),
    )  # fmt: skip
    models = models or Remembering(0, reference=Bigram(7), learning_rate=0.1)
    one = algorithm.epochs == 1 and batch.num_groups <= minibatch
    prepared = algorithm.prepare(batch, models, one_update=one)
    source = Fixed(lambda step: batch)
    if report is not None:
        source.report = lambda batch: report
    train(algorithm, source, models, recorder, steps=steps, minibatch=minibatch, max_tokens=max_tokens, seed=0,
          trace=trace)  # fmt: skip
    return kept, models, prepared, recorder


def seen_at(prepared, algorithm, minibatch):
    """For each row the updates that see it, by the loop's own order of minibatches."""
    updates = {row: [] for row in range(len(prepared))}
    for update, mini in enumerate(minibatches(prepared, algorithm.epochs, minibatch, 0, 0)):
        for micro in mini.microbatches(40):
            for row in micro.place.tolist():
                updates[row].append(update)
    return updates


CASES = [
    replace(PPO, epochs=3, target_kl=None),
    replace(GRPO, epochs=2),
    replace(DAPO, epochs=2),
    replace(ALGORITHMS["rloo"], epochs=2),
    replace(CISPO, epochs=2),
    replace(GSPO, epochs=2),
]


@pytest.mark.parametrize("algorithm", CASES, ids=lambda a: a.name)
def test_every_number_is_that_of_the_weights_of_its_update(algorithm):
    batch = ragged_batch(0, 3)
    kept, models, prepared, recorder = traced(algorithm, batch)
    assert not recorder.events and len(models.past) == 2 * algorithm.epochs
    passes = [model.policy(prepared) for model in models.past]
    ratios, tokens = kept.tables[0, "ratios"], kept.tables[0, "tokens"]
    assert len(ratios) == 12 and [(row["group"], row["sample"]) for row in ratios] == [
        (r // 3, r % 3) for r in range(12)
    ]
    wanted = seen_at(prepared, algorithm, 2)
    surrogate, clipped = algorithm.surrogate, 0
    for place, row in enumerate(ratios):
        acts = prepared.mask[place]
        old, ref = prepared.old_logprobs[place][acts], prepared.ref_logprobs
        assert row["update"] == wanted[place] and row["truncated"] == bool(batch.truncated[place])
        assert row["advantage"] == pytest.approx(prepared.advantages[place][acts].tolist(), **SINGLE)
        for update, found in zip(row["update"], row["log_ratio"], strict=True):
            assert found == pytest.approx((passes[update].logprobs[place][acts] - old).tolist(), **HALF)
        gap = None if ref is None else pytest.approx((old - ref[place][acts]).tolist(), **HALF)
        assert row["ref_gap"] == gap
        assert row["mismatch"] == pytest.approx((old - batch.rollout_logprobs[place][acts]).tolist(), **HALF)
    assert len(tokens) == 12  # four groups of three are all there are
    for place, row in enumerate(tokens):
        acts = prepared.mask[place]

        def of(values, place=place, acts=acts):
            return None if values is None else pytest.approx(values[place][acts].tolist(), **SINGLE)

        assert row["id"] == batch.tokens[place][acts].tolist() and row["text"] == [f"<{t}>" for t in row["id"]]
        start = int(acts.int().argmax()) if acts.any() else int(batch.lengths[place])
        assert row["prompt_tokens"] == [f"<{t}>" for t in batch.tokens[place][:start].tolist()]
        assert row["lp_sampler"] == of(batch.rollout_logprobs) and row["lp_old"] == of(prepared.old_logprobs)
        assert row["lp_ref"] == of(prepared.ref_logprobs) and row["value"] == of(prepared.values)
        assert row["return"] == of(prepared.returns) and row["advantage"] == of(prepared.advantages)
        assert row["entropy"] == (of(passes[row["update"][0]].entropy) if row["update"] else None)
        for visit, update in enumerate(row["update"]):
            assert row["lp_new"][visit] == of(passes[update].logprobs)
            if not surrogate.uses_old:
                continue
            log_ratio = passes[update].logprobs[place][acts] - prepared.old_logprobs[place][acts]
            oracle = outcome(surrogate, log_ratio.tolist(), prepared.advantages[place][acts].tolist())
            assert row["outcome"][visit] == oracle
            clipped += sum(one > 0 for one in oracle)
        assert surrogate.uses_old or row["outcome"] is None
    assert clipped > 3 or not surrogate.uses_old or algorithm.name == "cispo"


def outcome(surrogate, log_ratio, advantages):
    """The four cases of clipping as the paper's table has them, in plain Python."""
    if getattr(surrogate, "level", "token") == "sequence" and log_ratio:
        log_ratio = [sum(log_ratio) / len(log_ratio)] * len(log_ratio)
    found = []
    for one, advantage in zip(log_ratio, advantages, strict=True):
        rho = exp(one)
        below = surrogate.low is not None and rho < 1 - surrogate.low
        above = surrogate.high is not None and rho > 1 + surrogate.high
        flat = isinstance(surrogate, ClippedRatio) and ((above and advantage > 0) or (below and advantage < 0))
        found.append(2 if flat else int(below or above))
    return found


@pytest.mark.parametrize("algorithm", CASES, ids=lambda a: a.name)
def test_counts_are_those_of_the_tokens(algorithm):
    kept, models, prepared, _ = traced(algorithm, ragged_batch(0, 3))
    line, wanted = kept.lines[0], seen_at(prepared, algorithm, 2)
    assert line["updates"] == len(models.past) and len(EDGES) == 103
    for update, model in enumerate(models.past):
        counts = {"positive": {}, "negative": {}, "zero": {}}
        logprobs = model.policy(prepared).logprobs.detach()
        for place in range(12):
            if update not in wanted[place]:
                continue
            for at in prepared.mask[place].nonzero()[:, 0].tolist():
                rho = exp(float(logprobs[place, at] - prepared.old_logprobs[place, at]))
                advantage = float(prepared.advantages[place, at])
                sign = "positive" if advantage > 0 else "negative" if advantage < 0 else "zero"
                number = next(b for b in range(102) if EDGES[b] <= rho < EDGES[b + 1])
                # in the first update of several ρ is 1 but for rounding, on either side of the edge
                counts[sign][str(number)] = counts[sign].get(str(number), 0) + 1
        for sign, found in counts.items():
            same = line[sign][update] == found
            assert same or (update == 0 and sum(line[sign][0].values()) == sum(found.values()))
    whole = sum(sum(bins.values()) for sign in ("positive", "negative", "zero") for bins in line[sign])
    assert whole == sum(len(row["log_ratio"]) * len(row["advantage"]) for row in kept.tables[0, "ratios"])


@pytest.mark.parametrize(("algorithm", "epsilon"), [(PPO, [0.2, 0.2]), (DAPO, [0.2, 0.28]), (CISPO, [None, 4.0])])
def test_the_band_is_the_surrogate_s_own(algorithm, epsilon):
    assert traced(algorithm, ragged_batch(0, 3))[0].lines[0]["epsilon"] == epsilon


def test_one_update_has_ratio_one_exactly_and_a_dead_group_has_no_pass():
    batch = ragged_batch(0, 3)
    rewards = batch.rewards.clone()
    rewards[:3] = (rewards[:3] > 0).to(rewards.dtype)  # the first group's rewards are equal
    kept, models, prepared, _ = traced(replace(GRPO, kl=None), replace(batch, rewards=rewards), minibatch=4)
    assert prepared.old_logprobs is None and len(models.past) == 1
    rows = kept.tables[0, "ratios"]
    for row in rows[:3]:
        assert row["update"] == row["log_ratio"] == [] and set(row["advantage"]) == {0.0} and row["mismatch"] is None
    logprobs = models.past[0].policy(batch).logprobs
    for place, row in enumerate(rows[3:], 3):
        acts = batch.mask[place]
        assert row["update"] == [0] and set(row["log_ratio"][0]) <= {0.0} and row["ref_gap"] is None
        assert row["mismatch"] == pytest.approx((logprobs - batch.rollout_logprobs)[place][acts].tolist(), **HALF)
    for sign in ("positive", "negative", "zero"):
        assert set(kept.lines[0][sign][0]) <= {"51"} and EDGES[51] == 1.0
    for row in kept.tables[0, "tokens"]:
        assert row["lp_old"] == (row["lp_new"][0] if row["update"] else None)


def test_early_stop_leaves_the_later_updates_out():
    algorithm = replace(PPO, epochs=4, target_kl=1e-9)
    kept, models, _, _ = traced(algorithm, ragged_batch(0, 3))
    assert len(models.past) == kept.lines[0]["updates"] < 8
    assert {update for row in kept.tables[0, "ratios"] for update in row["update"]} == set(range(len(models.past)))


def test_rows_without_a_loss_stay_with_empty_lists():
    """DAPO's overlong filter takes the actions of truncated rows away."""
    kept, _, prepared, _ = traced(replace(DAPO, epochs=2), ragged_batch(0, 3))
    assert prepared.truncated.any()
    for place, row in enumerate(kept.tables[0, "ratios"]):
        if prepared.truncated[place]:
            assert row["truncated"] and row["advantage"] == row["update"] == row["log_ratio"] == []


def test_above_the_cap_only_the_counts_stay(monkeypatch):
    algorithm = replace(GRPO, epochs=2)
    whole, _, _, _ = traced(algorithm, ragged_batch(0, 3))
    numbers = sum(sum(bins.values()) for sign in ("positive", "negative", "zero") for bins in whole.lines[0][sign])
    monkeypatch.setattr(ratios_module, "MOST_NUMBERS", numbers - 1)
    capped, _, _, _ = traced(algorithm, ragged_batch(0, 3))
    assert capped.lines == whole.lines
    for row, full in zip(capped.tables[0, "ratios"], whole.tables[0, "ratios"], strict=True):
        left_out = dict.fromkeys(("advantage", "log_ratio", "ref_gap", "mismatch"))
        assert row == full | left_out and full["log_ratio"] is not None
    monkeypatch.setattr(ratios_module, "MOST_NUMBERS", numbers)
    assert traced(algorithm, ragged_batch(0, 3))[0].tables[0, "ratios"] == whole.tables[0, "ratios"]


def test_a_forward_pass_that_diverged_is_no_ratio():
    models = Remembering(0)
    with torch.no_grad():
        models.head[3] = torch.nan
    kept, _, _, _ = traced(replace(GRPO, kl=None), ragged_batch(0, 3), minibatch=4, models=models)
    assert sum(sum(bins.values()) for sign in ("positive", "negative", "zero") for bins in kept.lines[0][sign]) == 0
    assert any(isnan(one) for row in kept.tables[0, "ratios"] for numbers in row["log_ratio"] for one in numbers)


@pytest.mark.parametrize("algorithm", [DPO, IPO, ALGORITHMS["simpo"], REWARD_MODEL, replace(DPO, epochs=2)], ids=str)
def test_pairs_are_those_of_their_first_pass(algorithm):
    batch = rows_for(algorithm)
    kept, models, prepared, _ = traced(algorithm, batch)
    rows = kept.tables[0, "pairs"]
    assert [row["pair"] for row in rows] == list(range(6))
    wanted, beta = seen_at(prepared, algorithm, 2), algorithm.reward.beta
    for pair, row in enumerate(rows):
        with torch.no_grad():
            out = models.past[wanted[2 * pair][0]].policy(prepared)
        sums = [float(out.logprobs[r][batch.mask[r]].sum()) for r in (2 * pair, 2 * pair + 1)]
        lengths = [int(batch.mask[r].sum()) for r in (2 * pair, 2 * pair + 1)]
        assert [row["chosen_tokens"], row["rejected_tokens"]] == lengths
        if algorithm is REWARD_MODEL:
            assert row["logp_chosen"] is row["ref_chosen"] is None
            margin = float(out.scores[2 * pair] - out.scores[2 * pair + 1])
            weight = 1 / (1 + exp(margin))
        elif algorithm.name == "simpo":
            margin = beta * (sums[0] / lengths[0] - sums[1] / lengths[1])
            weight = 1 / (1 + exp(margin - algorithm.link.margin))
            assert row["ref_chosen"] is None
        else:
            refs = [float(prepared.ref_logprobs[r][batch.mask[r]].sum()) for r in (2 * pair, 2 * pair + 1)]
            assert [row["ref_chosen"], row["ref_rejected"]] == pytest.approx(refs)
            margin = beta * (sums[0] - refs[0] - sums[1] + refs[1])
            weight = 1 / (1 + exp(margin)) if algorithm.name == "dpo" else -2 / beta * (margin / beta - 1 / (2 * beta))
        if algorithm is not REWARD_MODEL:
            assert [row["logp_chosen"], row["logp_rejected"]] == pytest.approx(sums)
        assert (row["margin"], row["weight"]) == pytest.approx((margin, weight))
        assert row["chosen"] == str(batch.tokens[2 * pair][batch.mask[2 * pair]].tolist())
    kinds = {(row["kind"], row["reward"]) for row in kept.tables[0, "tokens"]}
    assert kinds == {("chosen", 1.0), ("rejected", 0.0)} and kept.lines[0] is None
    assert all((row["score"] is None) == (algorithm is not REWARD_MODEL) for row in kept.tables[0, "tokens"])
    assert all((row["lp_new"] is None) == (algorithm is REWARD_MODEL) for row in kept.tables[0, "tokens"])


@pytest.mark.parametrize("algorithm", [SFT, REINFORCE, ALGORITHMS["kto"]], ids=str)
def test_methods_without_an_old_policy_have_tokens_and_no_ratios(algorithm):
    kept, _, _, recorder = traced(algorithm, rows_for(algorithm), minibatch=12)
    assert list(kept.tables) == [(0, "tokens")] and kept.lines == {0: None} and not recorder.events
    kinds = {"sft": {"demonstration"}, "kto": {"rated"}}.get(algorithm.name, {"rollout"})
    assert {row["kind"] for row in kept.tables[0, "tokens"]} == kinds
    assert {row["lp_old"] for row in kept.tables[0, "tokens"]} == {None}


def test_fixed_data_is_kept_every_fourth_step():
    kept, _, _, _ = traced(DPO, rows_for(DPO), steps=10)
    assert sorted(kept.lines) == [0, 4, 8] and FIXED_EVERY == 4


def test_sampled_rows_are_of_the_widest_group_and_of_others_by_the_seed():
    group = torch.arange(100) // 10
    rewards = torch.zeros(100)
    rewards[37] = 1.0  # in group 3
    chosen = [sampled_rows(group, rewards, seed) for seed in range(20)]
    for rows in chosen:
        groups = (rows // 10).tolist()
        assert len(rows) == 32 and 3 in groups and len(set(groups)) == 4 and all(r % 10 < 8 for r in rows.tolist())
    assert len({tuple(rows.tolist()) for rows in chosen}) > 10
    assert torch.equal(chosen[0], sampled_rows(group, rewards, 0))
    assert sampled_rows(torch.zeros(2, dtype=torch.int64), torch.ones(2), 0).tolist() == [0, 1]


def test_a_row_leads_back_to_its_trajectory():
    """Group 1 was dropped by dynamic sampling, so the batch's rows are not the trajectories' numbers."""
    batch = ragged_batch(0, 3)
    batch = replace(batch, group=torch.tensor([0, 2, 3, 5])[batch.group])
    items = [
        Trajectory(
            prompt=Prompt(id=str(group), text=f"asked {group}", tokens=(0,)), group=group, sample=sample,
            completion=Completion(tokens=(1,), logprobs=(-1.0,), stop=StopReason.LENGTH), text="",
            reward=Reward(value=group + sample / 10), kept=group in (0, 2, 3, 5),
        )
        for group in range(6) for sample in range(3)
    ]  # fmt: skip
    kept, _, _, _ = traced(GRPO, batch, report=Report({}, items))
    rows = kept.tables[0, "tokens"]
    assert [(row["group"], row["sample"]) for row in rows] == [(g, s) for g in (0, 2, 3, 5) for s in range(3)]
    for row in rows:
        assert row["prompt"] == f"asked {row['group']}" and row["stop"] == "length"
        assert row["reward"] == row["group"] + row["sample"] / 10


def test_tables_survive_the_disk(tmp_path):
    kept, _, _, _ = traced(replace(PPO, epochs=2), ragged_batch(0, 3))
    folder = {name: StepTables(tmp_path / name) for name in ("ratios", "tokens")}
    traced(
        replace(PPO, epochs=2), ragged_batch(0, 3),
        keep=lambda step, tables, line: [folder[name].write(step, table) for name, table in tables.items()],
    )  # fmt: skip
    for name, tables in folder.items():
        assert tables.read(0) == kept.tables[0, name]


def test_who_looks_on_changes_nothing_and_ends_nothing():
    def run(trace):
        models, recorder = Bigram(0, reference=Bigram(7)), Memory()
        train(PPO, Fixed(lambda step: ragged_batch(step, 3)), models, recorder, steps=3, minibatch=2, max_tokens=40,
              seed=0, trace=trace(recorder))  # fmt: skip
        return models.weights(), recorder

    def failing(step, tables, line):
        raise RuntimeError("no")

    def watching(recorder):
        return Traced(PPO, "prompts", keep=failing, recorder=recorder, spell=str, decode=str, seed=0)

    (plain, silent), (seen, told) = run(lambda recorder: Untraced()), run(watching)
    assert torch.equal(plain, seen) and silent.events == []
    assert told.events == [(step, "A_TRACE") for step in range(3)]


def test_what_an_environment_said_stands_beside_the_actions() -> None:
    """Prompt 1, then 5 6 | 7 8 said | 9 | 3 said: behind two actions, and behind three."""
    chosen = [True, True, False, False, True, False]
    batch = collate([
        Row(prompt=[1], actions=[5, 6, 7, 8, 9, 3], group=0, reward=1.0, chosen=chosen),
        Row(prompt=[1, 2], actions=[4], group=1, reward=0.0),
    ])  # fmt: skip
    said = Completion(tokens=(5, 6, 7, 8, 9, 3), logprobs=(0.0,) * 6, stop=StopReason.TURNS, given=((2, 4), (5, 6)))
    alone = Completion(tokens=(4,), logprobs=(0.0,), stop=StopReason.EOS)
    drawn = {
        (group, 0): Trajectory(
            prompt=Prompt(id="", text="", tokens=tokens), group=group, sample=0, completion=completion, text="",
            reward=Reward(value=None),
        )
        for group, tokens, completion in ((0, (1,), said), (1, (1, 2), alone))
    }  # fmt: skip

    def rows(drawn):
        return token_table(
            0, batch, Passes.gathered([], batch), torch.zeros(2, dtype=torch.long), None, kinds=["rollout"] * 2,
            drawn=drawn, spell=lambda token: f"<{token}>", decode=str,
        ).to_pylist()  # fmt: skip

    first, second = rows(drawn)
    assert (first["id"], first["masked_at"], first["masked_id"]) == ([5, 6, 9], [2, 2, 3], [7, 8, 3])
    assert first["masked_text"] == ["<7>", "<8>", "<3>"] and second["masked_at"] == []
    assert "masked_at" not in rows({(1, 0): drawn[1, 0]})[0], "where nothing was said the table is as it was"
