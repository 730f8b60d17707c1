"""Steps to the edge of a trust region, on a model of which every matrix can be written down."""

from copy import deepcopy
from dataclasses import replace
from math import nan, sqrt

import pytest
import torch

from oneloop.algorithms import A2C, NPG, PPO, REINFORCE, TRPO, VPG, TrustRegion, trust_region
from oneloop.errors import ConfigError
from oneloop.loop import train
from oneloop.objective.advantage import GAE, LeaveOneOut
from oneloop.objective.divergence import KL
from oneloop.objective.natural import Searched, flat
from oneloop.ports import SingleProcess, TwiceDifferentiable
from toy_models import Bigram, Fixed, Memory, gradient, ragged_batch

KEEN = TrustRegion(max_kl=0.02, damping=1e-3, cg_iterations=30)
"""With little damping and long steps, the quadratic model alone would go too far."""
MINI = {"minibatch": 100, "max_tokens": 10**6, "seed": 0}


def moved(method, models, batch=None, steps=1, **settings):
    """The record of some steps on a batch that stays."""
    batch, recorder = ragged_batch(0) if batch is None else batch, Memory()
    train(method, Fixed(lambda step: batch), models, recorder, steps=steps, **MINI | settings)
    return recorder


def policy_of(models):
    return flat([parameter.detach() for parameter in models.policy_parameters()]).clone()


def kl_of(before, after, batch) -> float:
    """Mean over actions of Σ_v π_old (log π_old − log π), in a loop over them."""
    with torch.no_grad():
        old, new = (torch.log_softmax(models.distribution(batch).logits, -1) for models in (before, after))
    each = [float((p.exp() * (p - q)).sum()) for p, q in zip(old, new, strict=True)]
    return sum(each) / len(each)


def fisher_of(models, batch):
    """1/A Σ over actions Σ_v π(v) ∇log π(v) ∇log π(v)ᵀ."""
    parameters = models.policy_parameters()
    table = torch.log_softmax(models.distribution(batch).logits, -1)
    n = sum(parameter.numel() for parameter in parameters)
    total = torch.zeros(n, n, dtype=torch.float64)
    for logprob in table.flatten():
        score = flat(torch.autograd.grad(logprob, parameters, retain_graph=True))
        total += logprob.detach().exp() * torch.outer(score, score)
    return total / len(table)


def steep(method, models, batch):
    """∇ of the loss in the policy's parameters alone."""
    prepared = method.prepare(batch, models)
    loss = method.loss(models.policy(prepared), prepared, prepared.size).value
    return flat(torch.autograd.grad(loss, models.policy_parameters()))


def test_the_models_are_of_the_kind_that_a_region_asks_for():
    assert isinstance(Bigram(0), TwiceDifferentiable)

    class Plain:
        def __init__(self, models):
            self.policy, self.reference, self.step = models.policy, models.reference, models.step

    with pytest.raises(ConfigError, match="Plain has not all that a trust region asks for"):
        moved(TRPO, Plain(Bigram(0)))


@pytest.mark.parametrize("max_kl", [1e-6, 1e-2])
def test_the_step_is_the_natural_gradient_at_the_length_of_the_region(max_kl):
    """Δθ = −√(2δ / gᵀx)·x with (F + c·1) x = g, by a solver that is given the whole matrix."""
    region = TrustRegion(max_kl=max_kl, damping=1e-2, cg_iterations=200, backtracks=None)
    method, models, batch = replace(NPG, region=region), Bigram(0, reference=Bigram(7)), ragged_batch(0)
    g, fisher = steep(method, deepcopy(models), batch), fisher_of(models, batch)
    x = torch.linalg.solve(fisher + 1e-2 * torch.eye(len(g), dtype=torch.float64), g)
    before = policy_of(models)
    recorder = moved(method, models, batch)
    step = policy_of(models) - before
    # conjugate gradient ends at a residual of 1e-5
    torch.testing.assert_close(step, -sqrt(2 * max_kl / float(g @ x)) * x, rtol=1e-3, atol=1e-4 * float(step.norm()))
    assert recorder.column("grad_norm") == pytest.approx([float(g.norm())], rel=1e-9)
    # of the damped quadratic, exactly δ; the true KL of a short step is that without the damping
    quadratic = float(step @ fisher @ step) / 2
    assert float(step @ step) * 1e-2 / 2 + quadratic == pytest.approx(max_kl, rel=1e-4)
    if max_kl < 1e-4:
        assert recorder.column("trust/kl") == pytest.approx([quadratic], rel=1e-2)
    # the mutant: the plain gradient at the same length points elsewhere
    assert float(step @ -g) / float(step.norm() * g.norm()) < 0.9


def test_every_step_that_is_taken_keeps_the_bound_and_improves():
    models, batch = Bigram(0, reference=Bigram(7)), ragged_batch(0)
    method, shortened = replace(TRPO, region=KEEN), 0
    for _ in range(8):
        before = deepcopy(models)
        (row,) = [values for _, values in moved(method, models, batch).rows]
        assert row["trust/accepted"] == 1
        assert kl_of(before, models, batch) == pytest.approx(row["trust/kl"], rel=1e-9)
        assert 0 < row["trust/kl"] <= KEEN.max_kl
        prepared = method.prepare(batch, before)
        with torch.no_grad():
            losses = [float(method.loss(m.policy(prepared), prepared, prepared.size).value) for m in (before, models)]
        assert losses[0] - losses[1] == pytest.approx(row["trust/gain"], rel=1e-9) and row["trust/gain"] > 0
        shortened += int(row["trust/backtracks"])
    assert shortened > 0, "else nothing here shows that the bound is hard"


def test_without_the_line_search_the_bound_is_only_meant():
    models, batch = Bigram(0, reference=Bigram(7)), ragged_batch(0)
    recorder = moved(replace(NPG, region=replace(KEEN, backtracks=None)), models, batch, steps=8)
    assert max(recorder.column("trust/kl")) > KEEN.max_kl and set(recorder.column("trust/accepted")) == {1.0}


def searching(condition):
    """A line search that takes the first step of which `condition` holds."""

    def search(attempt, *, max_kl, backtracks, shrink):
        for shortened in range(backtracks + 1):
            found = attempt(shrink**shortened)
            if condition(found, max_kl):
                return Searched(shortened, found)
        return Searched(backtracks, None)

    return search


def near(found, max_kl):
    return found.kl <= max_kl


def better(found, max_kl):
    return found.gain > 0


def both(found, max_kl):
    return near(found, max_kl) and better(found, max_kl)


PULL = replace(TRPO, kl=KL(5.0, at="loss"), region=replace(KEEN, max_kl=0.1))
"""Strongly bent: what it wants is near, and the edge of the region far behind it."""


@pytest.mark.parametrize(("condition", "holds"), [(both, True), (near, False), (better, False)])
def test_a_line_search_that_forgets_half_would_show(condition, holds, monkeypatch):
    """No KL check: steps beyond the bound. No check of improvement: steps that make it worse."""
    monkeypatch.setattr(trust_region, "line_search", searching(condition))
    teacher = Bigram(0)
    teacher.nudge(0.2)
    rows = [
        (method.region.max_kl, row)
        for method, reference in ((replace(TRPO, region=KEEN), Bigram(7)), (PULL, teacher))
        for _, row in moved(method, Bigram(0, reference=reference), steps=3).rows
        if row["trust/accepted"]
    ]
    assert len({bound for bound, _ in rows}) == 2
    assert all(row["trust/kl"] <= bound and row["trust/gain"] > 0 for bound, row in rows) == holds


def test_a_line_search_that_goes_the_wrong_way_would_show():
    """Steps that grow find none that is near enough where the first was too far."""
    wrong = replace(KEEN)
    object.__setattr__(wrong, "shrink", 1.25)
    for region in (KEEN, wrong):
        recorder = moved(replace(TRPO, region=region), Bigram(0, reference=Bigram(7)), steps=4)
        assert (0.0 in recorder.column("trust/accepted")) == (region is wrong)


def test_a_step_that_is_rejected_leaves_every_bit_of_the_policy_and_is_told():
    """The whole step goes beyond the bound, and may not be shortened. The critic is fitted all the same."""
    models, batch = Bigram(0, reference=Bigram(7)), ragged_batch(0)
    start, value_head = policy_of(models), models.value_head.detach().clone()
    far = replace(TRPO, region=TrustRegion(max_kl=3.0, damping=1e-6, backtracks=0))
    recorder = moved(far, models, batch, steps=2)
    assert recorder.column("trust/accepted") == [0.0, 0.0]
    assert recorder.column("trust/kl") == recorder.column("trust/gain") == [0.0, 0.0]
    assert torch.equal(policy_of(models), start) and not torch.equal(models.value_head, value_head)
    assert recorder.column("skipped_steps") == [0, 0] and models.steps == 20, "ten steps of the critic for each"


def test_no_advantage_no_step():
    models = Bigram(0)
    start, batch = policy_of(models), ragged_batch(0)
    method = replace(TRPO, advantage=LeaveOneOut(), critic=None, kl=None)
    recorder = moved(method, models, replace(batch, rewards=torch.zeros_like(batch.rewards)))
    assert torch.equal(policy_of(models), start)
    assert recorder.column("trust/accepted") == recorder.column("grad_norm") == recorder.column("trust/kl") == [0.0]


def test_the_critic_s_error_moves_nothing_of_the_policy():
    """They share the trunk. Under a huge critic the policy takes the same step."""
    found = []
    for coef in (1e-3, 1e3):
        models = Bigram(0, reference=Bigram(7))
        moved(replace(TRPO, critic=replace(TRPO.critic, coef=coef)), models)
        found.append(policy_of(models))
    assert torch.equal(*found) and not torch.equal(found[0], policy_of(Bigram(0)))


def test_rows_without_advantage_count_in_the_bound():
    """They have no gradient, and yet the policy moves there: a KL over the others would be another one."""
    method = replace(TRPO, region=KEEN, advantage=LeaveOneOut(), critic=None, kl=None)
    batch = ragged_batch(0)
    dead = torch.isin(batch.group, torch.tensor([0, 2]))
    batch = replace(batch, rewards=torch.where(dead[:, None], 0.0, batch.rewards))
    before, models = Bigram(0), Bigram(0)
    recorder = moved(method, models, batch)
    assert recorder.column("trust/kl") == pytest.approx([kl_of(before, models, batch)], rel=1e-9)
    others = batch.rows((~dead).nonzero()[:, 0])
    assert abs(kl_of(before, models, others) - recorder.column("trust/kl")[0]) > 1e-4


@pytest.mark.parametrize("method", [TRPO, replace(TRPO, advantage=LeaveOneOut(), critic=None)], ids=["critic", "group"])
def test_passes_do_not_change_the_step(method):
    """One graph that is kept, or many that are made again."""
    found = []
    for max_tokens in (1, 30, 10**6):
        models = Bigram(0, reference=Bigram(7))
        moved(method, models, max_tokens=max_tokens)
        found.append(models.weights())
    for weights in found[1:]:
        torch.testing.assert_close(weights, found[0], rtol=1e-8, atol=1e-10)


def test_minibatches_have_a_region_each():
    models = Bigram(0, reference=Bigram(7))
    recorder = moved(replace(TRPO, region=KEEN), models, minibatch=2)
    assert recorder.column("optimizer_steps") == [2] and 0 < recorder.column("trust/kl")[0] <= KEEN.max_kl


class Broken(Bigram):
    """What is differentiated twice is no number."""

    def distribution(self, batch):
        made = super().distribution(batch)
        return made._replace(logits=made.logits * nan) if torch.is_grad_enabled() else made


class Steep(Bigram):
    """Its gradient is no number."""

    def policy(self, batch):
        out = super().policy(batch)
        if torch.is_grad_enabled():
            out.logprobs.register_hook(lambda slope: slope * nan)
        return out


@pytest.mark.parametrize("kind", [Broken, Steep])
def test_a_step_of_numbers_that_are_none_is_skipped_and_told(kind):
    models, told = kind(0, reference=Bigram(7)), []
    start = models.weights()
    recorder = moved(TRPO, models, unsound=lambda found, batch: told.append(found.what))
    assert recorder.column("skipped_steps") == [1] and told == ["the gradient"]
    assert torch.equal(models.weights(), start) and "trust/accepted" not in recorder.rows[0][1]


def test_a_critic_that_breaks_stops_the_step_before_the_policy_s():
    class Odd(Bigram):
        def step(self):
            return self.skip() if self.steps == 3 else super().step()

    models = Odd(0, reference=Bigram(7))
    start = policy_of(models)
    recorder = moved(TRPO, models)
    assert recorder.column("skipped_steps") == [1] and torch.equal(policy_of(models), start)


def test_the_policy_has_no_moments():
    models = Bigram(0, reference=Bigram(7))
    moved(TRPO, models, steps=2)
    with_state = {id(parameter) for parameter, state in models.optimizer.state.items() if state}
    assert with_state == {id(models.value_head)}


def test_the_region_steps_from_what_the_gradient_was_of():
    """Without π_old in the batch the gradient is that of ratio 1, and so is the loss that must fall."""
    models, method = Bigram(0), replace(TRPO, advantage=LeaveOneOut(), critic=None, kl=None)
    batch = method.prepare(ragged_batch(0), models, one_update=True)
    assert batch.old_logprobs is None
    method.loss(models.policy(batch), batch, batch.size).value.backward()
    stats = method.step(models, batch, 60, SingleProcess())
    assert stats["trust/accepted"] == 1 and stats["trust/gain"] > 0 and "critic/grad_norm" not in stats


# ---- the other two


def test_a2c_is_ppo_in_its_only_epoch():
    """At ratio 1 no clip bites and no value has moved: the same gradient. After an update they part."""
    models, once = Bigram(0, reference=Bigram(7)), replace(PPO, epochs=1, target_kl=None)
    batch = A2C.prepare(ragged_batch(0), models)
    ours = gradient(A2C, models, [batch], batch.size)
    torch.testing.assert_close(ours, gradient(once, models, [batch], batch.size), rtol=1e-9, atol=1e-12)
    assert float(ours.norm()) > 0.1
    models.nudge()
    moved_on = [gradient(method, models, [batch], batch.size) for method in (A2C, once)]
    assert not torch.allclose(*moved_on, rtol=0.01)


def test_vpg_is_reinforce_with_the_value_as_its_baseline():
    models, batch = Bigram(0), ragged_batch(0, truncate=False)
    ours, plain = VPG.prepare(batch, models), REINFORCE.prepare(batch, models)
    torch.testing.assert_close(ours.advantages, torch.where(batch.mask, plain.advantages - ours.values, 0.0))
    torch.testing.assert_close(ours.returns[batch.mask], plain.advantages[batch.mask])
    mutant = replace(VPG, advantage=GAE(gamma=1.0, lam=0.9, whiten=False)).prepare(batch, models)
    assert not torch.allclose(mutant.advantages, ours.advantages, rtol=0.01)
