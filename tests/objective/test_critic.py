"""The critic's loss and explained variance, as loops and by hand."""

from math import isnan

import pytest
import torch
from torch.nn import functional as F

from oneloop.objective.critic import explained_variance, value_loss


def slow_value_loss(value, old, target, clip, huber):
    def error(v):
        if huber is None:
            return 0.5 * (v - target) ** 2
        gap = abs(v - target)
        return 0.5 * gap**2 if gap <= huber else huber * (gap - 0.5 * huber)

    if clip is None:
        return error(value)
    return max(error(value), error(min(max(value, old - clip), old + clip)))


@pytest.mark.parametrize("clip", [None, 0.2, 1.0])
@pytest.mark.parametrize("huber", [None, 0.5, 2.0])
def test_value_loss_is_the_formula_token_by_token(clip, huber):
    values, old, returns = torch.randn(3, 4, 6, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    loss = value_loss(values, old, returns, clip=clip, huber=huber)
    for i in range(4):
        for t in range(6):
            wanted = slow_value_loss(float(values[i, t]), float(old[i, t]), float(returns[i, t]), clip, huber)
            assert float(loss[i, t]) == pytest.approx(wanted, rel=1e-12)


def test_value_loss_by_hand():
    # V 1.5, V_old 1, R 3, clip 0.2: ½·1.5² = 1.125 against ½·(1.2 − 3)² = 1.62: the larger counts, and its
    # gradient is 0 because the clipped branch is constant
    value = torch.tensor([1.5], requires_grad=True)
    loss = value_loss(value, torch.tensor([1.0]), torch.tensor([3.0]), clip=0.2)
    loss.sum().backward()
    assert loss.item() == pytest.approx(1.62) and value.grad.item() == 0.0
    assert value_loss(value, torch.tensor([1.0]), torch.tensor([3.0])).item() == pytest.approx(1.125)
    # Huber δ = 1: |1.5 − 3| = 1.5 > 1 → 1·(1.5 − 0.5) = 1.0
    assert value_loss(value, torch.tensor([1.0]), torch.tensor([3.0]), huber=1.0).item() == pytest.approx(1.0)


def test_huber_is_torch_s():
    values, returns = torch.randn(2, 20, generator=torch.Generator().manual_seed(1))
    wanted = F.huber_loss(values, returns, reduction="none", delta=0.7)
    assert torch.equal(value_loss(values, values, returns, huber=0.7), wanted)


def test_explained_variance_by_hand():
    # R = (1, 2, 3, 6): mean 3, variance (4 + 1 + 0 + 9)/4 = 3.5; R − V = (0, 1, 0, 1): variance ¼
    returns = torch.tensor([[1.0, 2.0, 99.0], [3.0, 6.0, 99.0]])
    values = torch.tensor([[1.0, 1.0, float("nan")], [3.0, 5.0, -1e6]])
    mask = torch.tensor([[True, True, False], [True, True, False]])
    assert explained_variance(values, returns, mask).item() == pytest.approx(1 - 0.25 / 3.5)
    assert explained_variance(returns, returns, mask).item() == 1.0
    # an offset does not change a variance: a critic that is 5 too high explains as much
    assert explained_variance(returns + 5, returns, mask).item() == pytest.approx(1.0)
    assert explained_variance(torch.zeros_like(returns), returns, mask).item() == 0.0
    # twice the return leaves R − V = −R: as much variance as there was, so 0 again; three times is worse than nothing
    assert explained_variance(3 * returns, returns, mask).item() == pytest.approx(1 - 4.0)


def test_nothing_to_explain_is_nan():
    mask = torch.ones(1, 3, dtype=torch.bool)
    assert isnan(explained_variance(torch.rand(1, 3), torch.full((1, 3), 0.5), mask).item())
    assert isnan(explained_variance(torch.rand(1, 3), torch.rand(1, 3), ~mask).item())
