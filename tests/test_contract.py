"""The public contract: names, signatures and meanings that outside code relies on.

Every call gives the printed arguments and no more. `test_contract_runs.py` has the command line and the files.
"""

import inspect
import re
from ast import literal_eval
from dataclasses import replace
from importlib import import_module
from math import inf, log, nan
from pathlib import Path

import pytest
import torch

import oneloop
from oneloop import algorithms
from oneloop.algorithms import ALGORITHMS, DPO, GRPO, IPO, PPO, REINFORCE, Preference
from oneloop.batch import Batch, PolicyOutput, Size
from oneloop.objective.advantage import GAE, BatchWhitened, Credit, GroupRelative, LeaveOneOut, NoBaseline
from oneloop.objective.aggregate import FixedLength, SequenceMean, TokenMean
from oneloop.objective.correction import TruncatedImportance
from oneloop.objective.critic import explained_variance, value_loss
from oneloop.objective.divergence import KL, AdaptiveKL, exact_kl, kl_estimate
from oneloop.objective.logprobs import token_logprobs
from oneloop.objective.preference import Hinge, ImplicitReward, LogSigmoid, RewardHead, SquaredMargin
from oneloop.objective.select import MixedOutcome
from oneloop.objective.shaping import OverlongPenalty
from oneloop.objective.surrogate import ClippedRatio, ClippedWeight, ScoreFunction
from oneloop.ports import Models

ADVANTAGE = "(rewards[B,T], values[B,T] | None, mask[B,T], group[B], *, bootstrap[B] | None = None)"
SURROGATE = "(logprobs, old_logprobs, advantages, mask)"
# Module, what it holds, and how that is called in turn: as the page prints them, in the order of the page. A default
# of alternatives is one of them, `=...` is any default, `...` is more arguments that all have one.
PRINTED = [
    ("batch", "Size(tokens, sequences)", ""),
    (
        "batch",
        "Batch(tokens[B,T], mask[B,T] bool, group[B] int, rewards[B,T], truncated[B] bool, "
        "rollout_logprobs[B,T] | None, ...)",
        ".shuffle(rng) .split(groups) .microbatches(max_tokens)",
    ),
    ("batch", "PolicyOutput(logprobs[B,T], entropy[B,T], values[B,T] | None, scores[B] | None)", ""),
    ("batch", "Loss(value, stats)", ""),
    ("ports", "Models", ".policy(batch) .reference(batch) .step()"),
    ("objective.advantage", "GAE(gamma=1.0, lam=0.95, whiten=True)", ADVANTAGE),
    ("objective.advantage", 'GroupRelative(scale="std" | "none", ddof=0, eps=1e-6)', ADVANTAGE),
    ("objective.advantage", "LeaveOneOut()", ADVANTAGE),
    ("objective.advantage", "BatchWhitened(gamma=1.0)", ADVANTAGE),
    ("objective.advantage", "NoBaseline()", ADVANTAGE),
    ("objective.surrogate", "ScoreFunction()", SURROGATE),
    ("objective.surrogate", 'ClippedRatio(low=0.2, high=0.2, level="token" | "sequence", dual=None)', SURROGATE),
    ("objective.surrogate", "ClippedWeight(low=None, high=...)", SURROGATE),
    ("objective.aggregate", "TokenMean()", "(mask[B,T], size: Size)"),
    ("objective.aggregate", "SequenceMean()", "(mask[B,T], size: Size)"),
    ("objective.aggregate", "FixedLength(tokens)", "(mask[B,T], size: Size)"),
    ("objective.divergence", 'kl_estimate(log_ratio, estimator="k1" | "k2" | "k3")', ""),
    ("objective.divergence", "exact_kl(logits, ref_logits)", ""),
    ("objective.divergence", 'KL(coef, at="reward" | "loss", estimator=..., adaptive=None)', ""),
    ("objective.divergence", "AdaptiveKL(target, horizon, clip=0.2)", ".update(coef, kl, n)"),
    ("objective.preference", "ImplicitReward(beta, length_normalized=False)", "(out, batch)"),
    ("objective.preference", "RewardHead()", "(out, batch)"),
    ("objective.preference", "LogSigmoid(label_smoothing=0.0)", "(margin[P], beta)"),
    ("objective.preference", "SquaredMargin()", "(margin[P], beta)"),
    ("objective.preference", "Hinge()", "(margin[P], beta)"),
    ("objective.critic", "value_loss(values, old_values, returns, *, clip=None, huber=None)", ""),
    ("objective.critic", "explained_variance(values, returns, mask)", ""),
    ("objective.shaping", "OverlongPenalty(max_length, margin)", "(rewards[B], lengths[B])"),
    ("objective.select", "MixedOutcome()", "(rewards of one group)"),
    ("objective.correction", "TruncatedImportance(cap)", "(old_logprobs, rollout_logprobs)"),
    ("objective.logprobs", "token_logprobs(hidden[N,H], weight[V,H], targets[N], *, temperature=1.0)", ""),
]
KEYS = "ppo grpo dapo dr_grpo rloo reinforce reinforce_pp gspo cispo sft dpo ipo reward_model"


def keeps(function, printed):
    """`function` takes what is printed: those names in that order, with those defaults, and needs nothing more."""
    taken = [p for p in inspect.signature(function).parameters.values() if p.name != "self"]
    keyword_only = False
    for part in re.split(r",\s*(?![^\[]*\])", printed) if printed else []:
        if part == "*":
            keyword_only = True
        elif part != "...":
            name, default = re.fullmatch(r"(\w+)[^=]*(?:=\s*(.+))?", part).groups()
            found = next((p for p in taken if p.name == name), None)
            assert found is not None and found.kind in (found.POSITIONAL_OR_KEYWORD, found.KEYWORD_ONLY)
            assert keyword_only or (found is taken[0] and found.kind is not found.KEYWORD_ONLY)
            if default == "...":
                assert found.default is not found.empty
            elif default is not None:
                assert found.default in [literal_eval(choice) for choice in default.split(" | ")]
            taken.remove(found)
    assert all(p.default is not p.empty for p in taken)


@pytest.mark.parametrize(("module", "printed", "calls"), PRINTED, ids=lambda text: text.partition("(")[0])
def test_the_printed_signature_is_kept(module, printed, calls):
    name, _, inside = printed.removesuffix(")").partition("(")
    value = getattr(import_module(f"oneloop.{module}"), name)
    if inside or printed.endswith(")"):
        keeps(value, inside)
    for method, arguments in re.findall(r"(?:\.(\w+))?\(([^()]*)\)", calls):
        keeps(getattr(value, method or "__call__"), arguments)


def test_a_changed_signature_would_show():
    """The mutants."""
    printed = "values[B,T] | None, mask, *, clip=None"
    keeps(lambda values, mask, more=1, *, clip=None, least=0: None, printed)
    for mutant in [
        lambda values, *, clip=None: None,  # another name
        lambda mask, values, *, clip=None: None,  # another order
        lambda values, mask, *, clip=0.2: None,  # another default
        lambda values, mask, *, clip: None,  # no default
        lambda values, *, mask, clip=None: None,  # no longer positional
        lambda values, mask, more, *, clip=None: None,  # more is needed
    ]:
        with pytest.raises(AssertionError):
            keeps(mutant, printed)


# two rows of one group; the middle slot is a tool's, and what stands there is nobody's business
MASK, GROUP = torch.tensor([[True, False, True]] * 2), torch.tensor([0, 0])


def rows(*values):
    """[B, T] from the actions of each row."""
    return torch.tensor([[first, nan, last] for first, last in values], dtype=torch.float64)


def actions(values):
    """The actions of each row, end to end."""
    return values[:, [0, 2]].flatten().tolist()


REWARDS = rows((0.0, 1.0), (0.0, 0.0))
VALUES = rows((0.5, 0.25), (0.5, 0.25))


def small_batch():
    """A group of two rows with two actions each; the rewards at their ends are 1 and 0."""
    tokens, truncated = torch.tensor([[3, 4, 5]] * 2), torch.tensor([False, False])
    return Batch(tokens, MASK, GROUP, REWARDS, truncated, None)


def test_a_size_of_two_numbers():
    assert Size(10, 2) == Size(tokens=10, sequences=2) == tuple(torch.tensor(Size(10, 2)).tolist())
    # over ranks each count is added up
    assert Size(*(sum(column) for column in zip(Size(3, 1), Size(4, 2), strict=True))) == Size(7, 3)
    # two rows of two actions; the whole step has 10 tokens, so that a sum of 4 ones is 0.4 in loss and log alike
    ones = torch.ones(2, 3, dtype=torch.float64)
    loss = REINFORCE.loss(PolicyOutput(-ones, ones), replace(small_batch(), advantages=ones), Size(10, 2))
    assert loss.value.item() == pytest.approx(0.4) and loss.stats["entropy"].item() == pytest.approx(0.4)


def test_a_batch():
    batch = small_batch()
    prepared = ("old_logprobs", "ref_logprobs", "values", "advantages", "returns")
    assert all(getattr(batch, name) is None for name in ("rollout_logprobs", *prepared))
    assert batch.size == Size(4, 2)  # the two masked slots are no actions
    # groups 0, 1, 2 of 2, 3 and 1 rows with one action each; the token tells the row
    group, zeros = torch.tensor([0, 0, 1, 1, 1, 2]), torch.zeros(6, 1)
    many = Batch(torch.arange(6)[:, None], zeros == 0, group, zeros, group < 0, zeros)
    shuffled = many.shuffle(torch.Generator().manual_seed(1))
    order = shuffled.group.unique_consecutive().tolist()
    assert sorted(order) == [0, 1, 2] and order != [0, 1, 2]  # moved, and each group in one piece
    assert [mini.group.tolist() for mini in many.split(2)] == [[0, 0, 1, 1, 1], [2]]
    # one token a microbatch: rows go alone, a pair stays whole; ten tokens: all rows in one
    assert sorted(len(micro) for micro in many.microbatches(1)) == [1, 1, 1, 1, 2]
    assert [sorted(micro.tokens[:, 0].tolist()) for micro in many.microbatches(10)] == [[0, 1, 2, 3, 4, 5]]


class Given:
    """Models of somebody's own: log-probs −1 (reference −2), entropy 0.5, values 0.25, scores 3 and 1."""

    def __init__(self):
        self.logprobs = torch.full((2, 3), -1.0, dtype=torch.float64, requires_grad=True)
        self.scores = torch.tensor([3.0, 1.0], dtype=torch.float64, requires_grad=True)

    def policy(self, batch):
        flat = torch.ones_like(self.logprobs)
        return PolicyOutput(self.logprobs * 1, 0.5 * flat, 0.25 * flat, self.scores * 1)

    def reference(self, batch):
        return torch.full((2, 3), -2.0, dtype=torch.float64)

    def step(self):
        return {"grad_norm": 0.0}


@pytest.mark.parametrize("name", KEYS.split())
def test_every_algorithm_runs_on_models_of_the_printed_kind(name):
    algorithm, models = ALGORITHMS[name], Given()
    assert isinstance(models, Models)
    assert algorithm is getattr(algorithms, name.upper()) and algorithm.name == name
    batch = algorithm.prepare(small_batch(), models)
    filled = [field for field in ("ref_logprobs", "values", "returns") if getattr(batch, field) is not None]
    reference, critic = name in ("ppo", "grpo", "rloo", "reinforce_pp", "dpo", "ipo"), name == "ppo"
    assert filled == ["ref_logprobs"] * reference + ["values", "returns"] * critic
    assert (batch.advantages is None) == isinstance(algorithm, Preference)
    loss = algorithm.loss(models.policy(batch), batch, batch.size)
    loss.value.backward()
    assert loss.value.isfinite() and all(stat.isfinite() for stat in loss.stats.values())
    learned = models.scores if name == "reward_model" else models.logprobs
    assert learned.grad.isfinite().all() and learned.grad.any()
    assert name == "reward_model" or not learned.grad[~MASK].any()


def test_the_named_values():
    assert list(ALGORITHMS)[:13] == KEYS.split() and {"simpo", "orpo", "kto", "distill"} < set(ALGORITHMS)
    assert all(isinstance(a, algorithms.Algorithm) for a in ALGORITHMS.values())
    assert PPO.kl.at == "reward" and GRPO.kl.at == "loss"


@pytest.mark.parametrize(
    ("estimator", "advantages", "returns"),
    [
        # δ₂ = 1 − 0.25 = 0.75, δ₁ = 0.25 − 0.5 = −0.25, Â₁ = −0.25 + 0.95·0.75 = 0.4625 (no 0.95² for the tool's slot)
        # second row: −0.25 and −0.25 − 0.95·0.25 = −0.4875; returns add the values
        (GAE(whiten=False), [0.4625, 0.75, -0.4875, -0.25], [0.9625, 1.0, 0.0125, 0.0]),
        # mean 0.11875, squared errors 0.118164, 0.398477, 0.367539, 0.135977: variance 0.255039, std 0.505014
        (GAE(), [0.680674, 1.249965, -1.200462, -0.730178], [0.9625, 1.0, 0.0125, 0.0]),
        (GroupRelative(), [0.999998, 0.999998, -0.999998, -0.999998], None),  # 0.5/(0.5 + 1e-6)
        (GroupRelative(scale="none"), [0.5, 0.5, -0.5, -0.5], None),
        (GroupRelative(scale="std", ddof=1, eps=0.0), [0.7071068, 0.7071068, -0.7071068, -0.7071068], None),  # 0.5/√0.5
        (LeaveOneOut(), [1.0, 1.0, -1.0, -1.0], None),  # 1 − 0 and 0 − 1
        (BatchWhitened(), [1.0, 1.0, -1.0, -1.0], None),  # returns 1, 1, 0, 0: mean 0.5, std 0.5
        # returns 0.5, 1, 0, 0: mean 0.375, variance 1.25/4 − 0.140625 = 0.171875, std 0.4145781
        (BatchWhitened(gamma=0.5), [0.3015113, 1.5075567, -0.9045340, -0.9045340], None),
        (NoBaseline(), [1.0, 1.0, 0.0, 0.0], None),
    ],
    ids=repr,
)
def test_advantages(estimator, advantages, returns):
    credit = estimator(REWARDS, VALUES, MASK, GROUP)
    assert isinstance(credit, Credit) and credit._fields == ("advantages", "returns")
    assert actions(credit.advantages) == pytest.approx(advantages, abs=1e-6)
    assert credit.advantages[~MASK].tolist() == [0.0, 0.0]
    assert (None if credit.returns is None else actions(credit.returns)) == pytest.approx(returns, abs=1e-12)
    # 0 is what a terminated row bootstraps from
    again = estimator(REWARDS, VALUES, MASK, GROUP, bootstrap=torch.zeros(2, dtype=torch.float64))
    assert torch.equal(again.advantages, credit.advantages)
    assert estimator.__dataclass_params__.frozen


def test_a_truncated_row_goes_on_with_its_value():
    # V = 2 after the last action: δ₂ = 0 + 2 − 0.25 = 1.75, Â₁ = −0.25 + 0.95·1.75 = 1.4125
    bootstrap = torch.tensor([0.0, 2.0], dtype=torch.float64)
    credit = GAE(whiten=False)(REWARDS, VALUES, MASK, GROUP, bootstrap=bootstrap)
    assert actions(credit.advantages) == pytest.approx([0.4625, 0.75, 1.4125, 1.75])


@pytest.mark.parametrize("estimator", [GroupRelative(), GroupRelative("none"), GroupRelative(ddof=1), LeaveOneOut()])
@pytest.mark.parametrize("group", [[0, 0, 0], [0, 1, 2], [0, 0, 7]])
def test_ties_and_groups_of_one_give_exactly_zero(estimator, group):
    rewards, mask = torch.full((3, 1), 0.1), torch.ones(3, 1, dtype=torch.bool)  # 3 · 0.1 is not 0.3 in float32
    assert estimator(rewards, None, mask, torch.tensor(group)).advantages.tolist() == [[0.0]] * 3


# log π_old = −1, so that log π_θ = log ρ − 1
@pytest.mark.parametrize(
    ("surrogate", "ratio", "advantage", "loss", "flat"),
    [
        (ScoreFunction(), 2.0, 3.0, -3 * (log(2) - 1), False),
        (ClippedRatio(), 1.5, 1.0, -1.2, True),
        (ClippedRatio(), 1.5, -1.0, 1.5, False),
        (ClippedRatio(), 0.5, 1.0, -0.5, False),
        (ClippedRatio(), 0.5, -1.0, 0.8, True),
        (ClippedRatio(), 1.5, 0.0, 0.0, False),  # Â = 0 has no gradient, clip or no clip
        (ClippedRatio(low=0.2, high=0.28), 1.25, 1.0, -1.25, False),
        (ClippedRatio(level="sequence"), 1.5, 1.0, -1.2, True),  # both actions: so is their geometric mean
        (ClippedRatio(dual=3.0), 5.0, -1.0, 3.0, True),  # max(−5, 3·−1)
        (ClippedWeight(high=4.0), 10.0, 1.0, -5 * (log(10) - 1), False),
        (ClippedWeight(low=0.5, high=4.0), 0.1, 1.0, -0.5 * (log(0.1) - 1), False),
        (ClippedWeight(low=None, high=4.0), 0.1, 1.0, -0.1 * (log(0.1) - 1), False),
        (ClippedWeight(low=None, high=None), 10.0, 1.0, -10 * (log(10) - 1), False),
    ],
    ids=str,
)
@pytest.mark.parametrize("rubbish", [nan, inf, -inf])
def test_surrogates(surrogate, ratio, advantage, loss, flat, rubbish):
    def filled(value):
        return torch.where(MASK, value, rubbish).double()

    logprobs = filled(log(ratio) - 1).requires_grad_()
    per_token, gradient_zero = surrogate(logprobs, filled(-1.0), filled(advantage), MASK)
    per_token.sum().backward()
    assert actions(per_token) == pytest.approx([loss] * 4, rel=1e-6, abs=1e-12)
    assert per_token.isfinite().all() and logprobs.grad.isfinite().all()
    assert gradient_zero.dtype == torch.bool and torch.equal(gradient_zero, MASK & flat)
    assert torch.equal(logprobs.grad == 0, ~MASK | flat | (advantage == 0))


def test_a_sequence_has_one_ratio():
    # ρ = 2 and 0.5: their geometric mean is 1, inside the band, where each alone is outside; then 2.25 and 1: 1.5
    new = torch.tensor([[2.0, 0.5], [2.25, 1.0]], dtype=torch.float64).log()
    ones = torch.ones_like(new)
    loss, flat = ClippedRatio(0.2, 0.2, level="sequence")(new, 0 * ones, ones, ones > 0)
    assert loss.flatten().tolist() == pytest.approx([-1.0, -1.0, -1.2, -1.2])
    assert flat.tolist() == [[False, False], [True, True]]


def test_aggregates():
    # rows with 1 and 2 actions of a step with 6 tokens in 3 sequences
    mask, size = torch.tensor([[True, False], [True, True]]), Size(6, 3)
    for aggregate, weights in [
        (TokenMean(), [1 / 6, 0, 1 / 6, 1 / 6]),
        (SequenceMean(), [1 / 3, 0, 1 / 6, 1 / 6]),  # 1/(3·1), 1/(3·2)
        (FixedLength(8), [1 / 24, 0, 1 / 24, 1 / 24]),  # 1/(3·8)
    ]:
        assert aggregate(mask, size).flatten().tolist() == pytest.approx(weights), aggregate


def test_divergences():
    # π_θ/π_ref = 2: x = 0.6931, x²/2 = 0.2402, 1/2 − 1 + x = 0.1931
    x = torch.tensor([[log(2.0)]])
    for estimator, wanted in [("k1", 0.693147), ("k2", 0.240227), ("k3", 0.193147)]:
        assert kl_estimate(x, estimator=estimator).item() == pytest.approx(wanted, abs=1e-6)
    # 0.75·ln(0.75/0.5) + 0.25·ln(0.25/0.5) = 0.304099 − 0.173287; logits are log-probs but for a constant
    p, q = torch.tensor([[0.75, 0.25]]), torch.tensor([[0.5, 0.5]])
    assert exact_kl(p.log() + 3, q.log()).tolist() == pytest.approx([0.130812], abs=1e-6)


def test_where_the_kl_enters():
    # log π_old − log π_ref is 1 at each action: at the reward, with β = 0.1, to go 0.2 and 0.1
    assert (KL(0.1).at, KL(0.1).adaptive) == ("reward", None)
    for kl, wanted in [(KL(0.1), [0.8, 0.9, -0.2, -0.1]), (KL(0.1, at="loss", estimator="k2"), [1, 1, 0, 0])]:
        algorithm = replace(REINFORCE, kl=kl)
        batch = algorithm.prepare(small_batch(), Given())
        assert actions(batch.advantages) == pytest.approx(wanted)
        # −(−1)·1 at two of four tokens is 0.5 either way; at the loss k2 adds 0.1·1²/2 at each token
        assert kl.at == "reward" or algorithm.loss(Given().policy(batch), batch, batch.size).value.item() == 0.55


def test_the_adaptive_coefficient():
    # twice the target: the error is cut to 0.2; 10 of 100 sequences: 0.5·(1 + 0.2·0.1). Half the target: the other way
    controller = AdaptiveKL(0.05, 100)
    assert controller.update(0.5, 0.1, 10) == controller.update(0.5, 0.1, 10) == pytest.approx(0.51)
    assert controller.update(0.5, 0.025, 10) == pytest.approx(0.49)


def test_links():
    for link, margin, loss in [
        (LogSigmoid(), 0.0, log(2)),
        (LogSigmoid(), 2.0, 0.126928),  # ln(1 + e⁻²)
        (LogSigmoid(label_smoothing=0.1), 2.0, 0.326928),  # 0.9·0.126928 + 0.1·2.126928
        (SquaredMargin(), 2.0, 9.0),  # (2/0.5 − 1/(2·0.5))²
        (Hinge(), 0.25, 0.75),
        (Hinge(), 2.0, 0.0),
    ]:
        assert link(torch.tensor([margin]), 0.5).tolist() == pytest.approx([loss], abs=1e-6), link


def test_rewards_of_pairs():
    # log π_θ − log π_ref of 2 actions each: 1 + 2 = 3 and 0.5 + 0.5 = 1
    batch = replace(small_batch(), ref_logprobs=rows((-3.0, -3.0), (-3.0, -3.0)))
    out = PolicyOutput(rows((-2.0, -1.0), (-2.5, -2.5)), rows((0, 0), (0, 0)), None, torch.tensor([7.0, 8.0]))
    assert ImplicitReward(0.1)(out, batch).tolist() == pytest.approx([0.3, 0.1])
    assert ImplicitReward(0.1, length_normalized=True)(out, batch).tolist() == pytest.approx([0.15, 0.05])
    assert RewardHead()(out, batch).tolist() == [7.0, 8.0]
    # β = 0.1: DPO −log σ(0.2); IPO (2 − 1/0.2)² = 9 on the summed log-ratios
    for algorithm, wanted in [(DPO, 0.598139), (IPO, 9.0)]:
        loss = algorithm.loss(out, batch, batch.size)
        assert loss.value.item() == pytest.approx(wanted, abs=1e-6)
        assert loss.stats["rewards/margins"].item() == pytest.approx(0.2) and loss.stats["rewards/accuracies"] == 1
        # a mean over pairs: the same pair twice weighs no more
        twice = replace(batch.rows(torch.tensor([0, 1, 0, 1])), group=torch.tensor([0, 0, 1, 1]))
        doubled = PolicyOutput(*(None if x is None else torch.cat([x, x]) for x in out))
        assert algorithm.loss(doubled, twice, twice.size).value.item() == pytest.approx(wanted, abs=1e-6)


def test_the_critic():
    # V 1, V_old 0, R̂ 1 → ½·0²; clipped to 0.2: ½·0.8² = 0.32 is the larger. V 4: ½·3² = 4.5; Huber, δ 1: 3 − ½ = 2.5
    values, old, returns = torch.tensor([[1.0, 4.0]]), torch.zeros(1, 2), torch.ones(1, 2)
    assert value_loss(values, old, returns).tolist() == [[0.0, 4.5]]
    assert value_loss(values, old, returns, clip=0.2)[0].tolist() == pytest.approx([0.32, 4.5])
    assert value_loss(values, old, returns, huber=1.0).tolist() == [[0.0, 2.5]]
    # returns 1 and 3 have variance 1, the errors 0 and 1 have 0.25
    returns, values = torch.tensor([[1.0, nan, 3.0]]), torch.tensor([[1.0, nan, 2.0]])
    assert explained_variance(values, returns, MASK[:1]).item() == pytest.approx(0.75)


def test_shaping_select_and_correction():
    # 0 up to 10 − 4 = 6 tokens, −2/4 at 8, −1 at 10 and beyond
    rewards, lengths = torch.ones(5), torch.tensor([1, 6, 8, 10, 50])
    assert OverlongPenalty(10, 4)(rewards, lengths).tolist() == [1.0, 1.0, 0.5, 0.0, 0.0]
    for group, kept in [([1.0, 0.0], True), ([1.0, 1.0], False), ([1.0], False), ([0.0, None, 0.0], False)]:
        assert MixedOutcome()(group) is kept
        assert MixedOutcome()(torch.tensor([nan if reward is None else reward for reward in group])) is kept
    old, rollout = torch.tensor([[1.0, 1.5, 4.0]]).log(), torch.zeros(1, 3)
    assert TruncatedImportance(2.0)(old, rollout)[0].tolist() == pytest.approx([1.0, 1.5, 2.0])


def test_token_logprobs():
    # logits (ln 3, 0): probabilities 3/4 and 1/4, entropy 0.562335; at temperature ½ (ln 9, 0): 9/10 and 1/10, 0.325083
    hidden, weight, targets = torch.tensor([[1.0, 2.0]] * 2), torch.tensor([[log(3), 0], [0, 0]]), torch.tensor([0, 1])
    for options, probabilities, spread in [({}, [0.75, 0.25], 0.562335), ({"temperature": 0.5}, [0.9, 0.1], 0.325083)]:
        logprobs, entropy = token_logprobs(hidden, weight, targets, **options)
        assert logprobs.exp().tolist() == pytest.approx(probabilities)
        assert entropy.tolist() == pytest.approx([spread] * 2, abs=1e-6)


def test_no_exported_name_is_a_modules_too() -> None:
    """Importing a submodule puts it on the package: `oneloop.train` would be the function or the module, by chance."""
    folder = Path(oneloop.__file__).parent
    modules = {path.stem for path in folder.iterdir()}
    assert not modules & set(oneloop.__all__)
