"""SimPO, ORPO, KTO and the extra terms of pairs, against their papers' formulas as loops over numbers.

The oracles read log-probs as lists, and share no code with the library.
"""

from dataclasses import replace
from math import exp, log

import pytest
import torch

from oneloop.algorithms import ALGORITHMS, DPO, IPO, KTO, ORPO, REWARD_MODEL, SIMPO, Preference, Unpaired
from oneloop.batch import Batch, Size
from oneloop.errors import ConfigError
from oneloop.objective.preference import Hinge, ImplicitReward, LogOdds, LogSigmoid, RewardHead
from toy_models import Bigram, gradient, ragged_batch, rows_for


def sigmoid(x):
    return 1 / (1 + exp(-x))


def setting(algorithm, batch):
    """The prepared batch, after which the policy moved, and what it says."""
    models = Bigram(0, reference=Bigram(7))
    batch = algorithm.prepare(batch, models)
    models.nudge()
    return models, batch, models.policy(batch)


def emptied(batch, *rows):
    """The same batch, in which these rows have no action at all."""
    mask = batch.mask.clone()
    mask[list(rows)] = False
    return replace(batch, mask=mask)


def terms(out, batch, row, ref=None):
    """log π_θ (less log π_ref) of each action of a row."""
    return [
        out.logprobs[row, t].item() - (0.0 if ref is None else ref[row, t].item())
        for t in range(batch.mask.shape[1])
        if batch.mask[row, t]
    ]


def mean(values):
    return sum(values) / len(values) if values else 0.0


def slow_reward(reward, out, batch, row):
    if isinstance(reward, RewardHead):
        return out.scores[row].item()
    if isinstance(reward, LogOdds):
        likely = min(exp(mean(terms(out, batch, row))), 1 - exp(-20))
        return log(likely / (1 - likely))
    found = terms(out, batch, row, batch.ref_logprobs if reward.reference else None)
    return reward.beta * (mean(found) if reward.length_normalized else sum(found))


def slow_link(link, margin, beta):
    if isinstance(link, LogSigmoid):
        lead, s = margin - link.margin, link.label_smoothing
        return -(1 - s) * log(sigmoid(lead)) - s * log(sigmoid(-lead))
    return max(0.0, 1 - margin) if isinstance(link, Hinge) else (margin / beta - 1 / (2 * beta)) ** 2


def slow_pairs(algorithm, out, batch, winners):
    """`winners`: the preferred row of each pair of neighbours."""
    losses = []
    for first, winner in zip(range(0, len(batch), 2), winners, strict=True):
        loser = 2 * first + 1 - winner
        r_w, r_l = (slow_reward(algorithm.reward, out, batch, row) for row in (winner, loser))
        margin = 0.0 if batch.offset is None else batch.offset[winner].item() - batch.offset[loser].item()
        loss = algorithm.weight * slow_link(algorithm.link, r_w - r_l - margin, algorithm.reward.beta)
        if algorithm.sft:
            loss -= algorithm.sft * mean(terms(out, batch, winner))
        losses.append(loss + algorithm.center * (r_w + r_l) ** 2)
    return sum(losses) / len(losses)


PAIR_METHODS = [
    *(value for value in ALGORITHMS.values() if isinstance(value, Preference)),
    replace(DPO, name="dpo, smoothed", link=LogSigmoid(0.2)),
    replace(DPO, name="dpo, hinge", link=Hinge()),
    replace(DPO, name="dpo, by length", reward=ImplicitReward(0.7, length_normalized=True)),
    replace(DPO, name="dpo, sft", sft=0.3),
    replace(SIMPO, name="simpo, smoothed", link=LogSigmoid(0.1, margin=0.5)),
    replace(REWARD_MODEL, name="reward model, centred", center=0.2),
]
pair_method = pytest.mark.parametrize("algorithm", PAIR_METHODS, ids=lambda a: a.name)


def winners_of(batch):
    return [row for row in range(len(batch)) if float(batch.rewards[row].sum()) == 1]


@pytest.mark.parametrize("rows", [2, 6, 10])
@pair_method
def test_pairs_are_the_formula_in_batches_of_one_and_of_odd_size(algorithm, rows):
    _, batch, out = setting(algorithm, ragged_batch(3, 2, rows=rows))
    wanted = slow_pairs(algorithm, out, batch, winners_of(batch))
    assert algorithm.loss(out, batch, batch.size).value.item() == pytest.approx(wanted, rel=1e-9)


@pytest.mark.parametrize("empty", [[1], [0], [1, 2], [0, 3, 5]], ids=str)
@pair_method
def test_an_empty_answer_is_half_of_a_pair(algorithm, empty):
    """Rejected (odd rows) or chosen (even ones): the loss stays a mean over all pairs."""
    plain = ragged_batch(3, 2, rows=6)
    models, batch, out = setting(algorithm, emptied(plain, *empty))
    assert batch.size == Size(int(batch.mask.sum()), 6 - len(empty), halves=len(empty)) and batch.size.pairs == 3
    wanted = slow_pairs(algorithm, out, batch, [0, 2, 4])
    assert algorithm.loss(out, batch, batch.size).value.item() == pytest.approx(wanted, rel=1e-9)
    whole = gradient(algorithm, models, [batch], batch.size)
    assert bool(whole.isfinite().all())
    pieces = gradient(algorithm, models, batch.microbatches(8), batch.size)
    torch.testing.assert_close(pieces, whole, rtol=1e-9, atol=1e-12)
    # the mutant: a mean over rows that act
    mutant = gradient(algorithm, models, [batch], batch.size._replace(halves=0))
    assert float((mutant - whole).norm()) > 0.05 * float(whole.norm())


def test_a_pair_of_two_empty_answers_says_nothing():
    _, batch, out = setting(DPO, emptied(ragged_batch(3, 2, rows=4), 0, 1))
    with pytest.raises(ValueError, match="two equal rewards"):
        DPO.loss(out, batch, batch.size)


@pytest.mark.parametrize("algorithm", [REWARD_MODEL, DPO, IPO], ids=lambda a: a.name)
def test_each_pair_s_margin_travels_with_its_rows(algorithm):
    plain = ragged_batch(3, 2, rows=6)
    offset = torch.tensor([0.5, 0.0, 2.0, 0.0, -1.0, 0.0], dtype=torch.float64)
    models, batch, out = setting(algorithm, replace(plain, offset=offset))
    wanted = slow_pairs(algorithm, out, batch, [0, 2, 4])
    value = algorithm.loss(out, batch, batch.size)
    assert value.value.item() == pytest.approx(wanted, rel=1e-9)
    bare = algorithm.loss(out, replace(batch, offset=None), batch.size)
    assert value.stats["rewards/margins"] == bare.stats["rewards/margins"] and value.value != bare.value
    for sign in (1.0, -1.0):  # right is what ranks the answers right, however far it should lead
        far = algorithm.loss(out, replace(batch, offset=sign * 1e3 * batch.offset), batch.size)
        assert far.stats["rewards/accuracies"] == bare.stats["rewards/accuracies"]
    mixed = batch.shuffle(torch.Generator().manual_seed(1))
    pieces = [micro for mini in mixed.split(2) for micro in mini.microbatches(8)]
    again = sum(algorithm.loss(models.policy(piece), piece, batch.size).value.item() for piece in pieces)
    assert again == pytest.approx(wanted, rel=1e-9)


def test_by_hand():
    # SimPO: mean log-probs −0.5 and −1, β 2, γ 1: margin 1, −log σ(0) = ln 2
    # ORPO: P = e^−0.5 = 0.6065, odds 1.5415; P = e^−1 = 0.3679, odds 0.5820: log of their ratio 0.9741,
    #       −log σ(0.9741) = 0.3202; the SFT term is 0.5: 0.5 + 0.1·0.3202
    batch = ragged_batch(0, 2, rows=2, tools=False)
    logprobs = torch.where(batch.mask, torch.tensor([[-0.5], [-1.0]], dtype=torch.float64), 0.0)
    out = Bigram(0).policy(batch)._replace(logprobs=logprobs)
    assert SIMPO.loss(out, batch, batch.size).value.item() == pytest.approx(log(2))
    assert ORPO.loss(out, batch, batch.size).value.item() == pytest.approx(0.53202, abs=1e-5)
    # KTO: β Σ(log π_θ − log π_ref) = 0.1·2 for the one good row, z 0.3: 1 − σ(−0.1) = 0.52498
    row = replace(batch.rows(torch.tensor([0])), offset=torch.tensor([0.3], dtype=torch.float64))
    row = replace(row, ref_logprobs=logprobs[:1] - row.mask * 2 / row.mask.sum())
    assert KTO.loss(out._replace(logprobs=logprobs[:1]), row, row.size).value.item() == pytest.approx(
        0.524979, abs=1e-6
    )


def test_at_step_zero():
    """Where the policy is the reference: ln 2 for DPO, ½ for KTO whatever the labels, 1/(2β)² for IPO."""
    for algorithm, wanted in [(DPO, log(2)), (KTO, 0.5), (IPO, 25.0), (replace(DPO, link=Hinge()), 1.0)]:
        models = Bigram(0)
        batch = algorithm.prepare(rows_for(algorithm), models)
        assert algorithm.loss(models.policy(batch), batch, batch.size).value.item() == pytest.approx(wanted, rel=1e-9)
        models.nudge()
        assert algorithm.loss(models.policy(batch), batch, batch.size).value.item() != pytest.approx(wanted, rel=1e-3)


def test_log_odds_stay_finite_where_an_answer_is_certain():
    mean_logprobs = torch.tensor([0.0, -1e-12, -1e-3, -1.0, -90.0], dtype=torch.float32, requires_grad=True)
    batch = ragged_batch(0, 1, rows=5, dtype=torch.float32, tools=False, sort=True)
    out = Bigram(0, torch.float32).policy(batch)
    reward = LogOdds()(out._replace(logprobs=mean_logprobs[:, None] * batch.mask), batch)
    reward.sum().backward()
    wanted = [20.0, 20.0, log(exp(-1e-3) / (1 - exp(-1e-3))), log(exp(-1) / (1 - exp(-1))), -90.0]
    assert reward.tolist() == pytest.approx(wanted, rel=1e-4)
    assert mean_logprobs.grad.isfinite().all() and mean_logprobs.grad[:2].tolist() == [0.0, 0.0]


def test_refusals():
    for changes, message in [
        ({"sft": -1.0}, "sft is -1"),
        ({"weight": 0.0}, "nothing is learned"),
        ({"center": float("nan")}, "center is nan"),
        ({"epochs": 0}, "at least once"),
    ]:
        with pytest.raises(ConfigError, match=message):
            replace(DPO, **changes)
    with pytest.raises(ConfigError, match="has no log-probs"):
        replace(REWARD_MODEL, sft=1.0)
    for changes in ({"desirable": -1.0}, {"desirable": 0.0, "undesirable": 0.0}, {"epochs": 0}):
        with pytest.raises(ConfigError):
            replace(KTO, **changes)
    batch = rows_for(KTO)
    with pytest.raises(ValueError, match="call prepare"):
        KTO.loss(Bigram(0).policy(batch), batch, batch.size)


# ---- KTO


def slow_z(models, batch, beta):
    """Each prompt, in the order of groups, with the answer of the next row that has another prompt; as long as the
    longest row."""
    rows = []
    for i in sorted(range(len(batch)), key=lambda i: int(batch.group[i])):
        acted = batch.mask[i].tolist()
        if any(acted):
            start, stop = acted.index(True), int(batch.lengths[i])
            rows.append((batch.tokens[i, :start].tolist(), batch.tokens[i, start:stop].tolist(), acted[start:stop]))
    longest = int(batch.lengths.max())
    drifts = []
    for i, (prompt, _, _) in enumerate(rows):
        for step in range(1, len(rows)):
            other, answer, acted = rows[(i + step) % len(rows)]
            if other != prompt:
                tokens = torch.tensor([(prompt + answer)[:longest]])
                zeros = torch.zeros(tokens.shape, dtype=torch.float64)
                one = Batch(tokens, tokens >= 0, torch.tensor([0]), zeros, torch.tensor([False]))
                gap = (models.policy(one).logprobs - models.reference(one))[0].tolist()
                kept = ([False] * len(prompt) + acted)[:longest]
                drifts.append(beta * sum(x for x, is_action in zip(gap, kept, strict=True) if is_action))
                break
    return max(0.0, sum(drifts) / len(drifts)) if drifts else 0.0


@pytest.mark.parametrize("value", [KTO, Unpaired(ImplicitReward(0.5), desirable=0.6, undesirable=1.7)], ids=repr)
@pytest.mark.parametrize("rows", [1, 2, 3, 5, 12])
@pytest.mark.parametrize("seed", [0, 1, 2])
def test_kto_is_the_formula(value, rows, seed):
    plain = rows_for(value, seed, rows=rows)
    models = Bigram(0, reference=Bigram(7))
    with torch.no_grad():
        z = slow_z(models, plain, value.reward.beta)
    batch = value.prepare(plain, models)
    assert batch.offset.tolist() == pytest.approx([z] * rows, rel=1e-9, abs=1e-12) and not batch.offset.requires_grad
    models.nudge()
    out = models.policy(batch)
    losses = []
    for row in range(rows):
        r = value.reward.beta * sum(terms(out, batch, row, batch.ref_logprobs))
        good = float(plain.rewards[row].sum()) == 1
        losses.append(value.desirable * (1 - sigmoid(r - z)) if good else value.undesirable * (1 - sigmoid(z - r)))
    loss = value.loss(out, batch, batch.size)
    assert loss.value.item() == pytest.approx(sum(losses) / rows, rel=1e-9)
    assert value.observe(batch)["z_ref"] == pytest.approx(z / value.reward.beta)


def drifted():
    """A reference under which z is above 0, so that mistakes in it show."""
    for seed in range(20):
        reference = Bigram(seed + 7)
        if float(KTO.prepare(rows_for(KTO), Bigram(0, reference=reference)).offset[0]) > 0.1:
            return reference
    raise AssertionError("no reference with a z above 0")


def test_z_is_of_the_whole_step():
    reference, plain = drifted(), rows_for(KTO)
    z = float(KTO.prepare(plain, Bigram(0, reference=reference)).offset[0])
    # the mutants: of each microbatch, and of the rows with their own answers
    parts = [float(KTO.prepare(piece, Bigram(0, reference=reference)).offset[0]) for piece in plain.split(3)]
    assert max(parts) - min(parts) > 0.05 * z
    models = Bigram(0, reference=reference)
    with torch.no_grad():
        own = KTO.reward(models.policy(plain), replace(plain, ref_logprobs=models.reference(plain)))
    assert abs(float(own.mean().clamp(min=0)) - z) > 0.05 * z


def test_rows_of_one_prompt_have_nobody_to_compare_with():
    """z is then 0; and an answer without an action neither gives, takes nor counts."""
    plain = rows_for(KTO)
    same = replace(plain, tokens=plain.tokens.clone())
    starts = same.mask.long().argmax(1)
    rows = (starts == starts[0]).nonzero()[:, 0]
    same.tokens[rows, : int(starts[0])] = 3
    alike = same.rows(rows)
    assert len(rows) >= 2 and KTO.prepare(alike, Bigram(0, reference=Bigram(7))).offset.tolist() == [0.0] * len(rows)
    _, batch, out = setting(KTO, emptied(plain, 2, 5))
    others = torch.tensor([row for row in range(12) if row not in (2, 5)])
    _, alone, said = setting(KTO, plain.rows(others))
    assert float(batch.offset[0]) == pytest.approx(float(alone.offset[0]), rel=1e-9)
    ours, wanted = (KTO.loss(*x, x[1].size).value.item() for x in ((out, batch), (said, alone)))
    assert ours == pytest.approx(wanted, rel=1e-9)


def test_weights_tell_good_answers_from_bad_ones():
    _, batch, out = setting(KTO, rows_for(KTO))
    only_good = replace(KTO, undesirable=0.0)
    out.logprobs.retain_grad()
    only_good.loss(out, batch, batch.size).value.backward()
    pulled = out.logprobs.grad.abs().sum(1) > 0
    assert torch.equal(pulled, batch.rewards.sum(1) == 1)
    assert bool((out.logprobs.grad[batch.mask] <= 0).all())  # good answers become likelier


@pytest.mark.parametrize("algorithm", [SIMPO, ORPO], ids=lambda a: a.name)
def test_a_method_without_a_reference_reads_none_that_is_there(algorithm):
    _, batch, out = setting(algorithm, ragged_batch(3, 2, rows=4))
    beside = replace(batch, ref_logprobs=out.logprobs - 1.0)
    assert algorithm.loss(out, beside, batch.size).value == algorithm.loss(out, batch, batch.size).value
