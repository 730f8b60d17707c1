"""Optimizers are their libraries' own, their state is what the bill and the checkpoint take it for."""

import importlib.util
from math import sqrt

import pytest
import torch
from torch import nn

from oneloop.errors import ConfigError
from oneloop.model import optimizer
from oneloop.model.learner import Learner, Optimization
from oneloop.model.load import load_policy
from oneloop.model.optimizer import as_tensors, check_optimizer, from_tensors, layout, optimizer_of, state_bytes

needs_bitsandbytes = pytest.mark.skipif(
    importlib.util.find_spec("bitsandbytes") is None, reason="bitsandbytes is an extra"
)
KINDS = ["adamw", "adafactor", pytest.param("adamw-8bit", marks=needs_bitsandbytes)]
CPU = torch.device("cpu")


def modules() -> nn.Module:
    """A matrix with blocks, one too small for them, one that leaves a part of a block, and a vector."""
    torch.manual_seed(0)
    shapes = [(32, 256), (8, 8), (4097, 1), (6,)]
    return nn.ParameterList([nn.Parameter(torch.randn(shape)) for shape in shapes])


def group(parameters, rate=0.1, decay=0.0):
    return {"params": list(parameters), "lr": rate, "rate": rate, "weight_decay": decay}


def stepped(made, parameters, seed=1) -> None:
    rng = torch.Generator().manual_seed(seed)
    for parameter in parameters:
        parameter.grad = torch.randn(parameter.shape, generator=rng)
    made.step()


@pytest.mark.parametrize("kind", KINDS)
def test_state_is_laid_out_as_the_bill_and_the_checkpoint_say(kind) -> None:
    model = modules()
    made = optimizer_of(kind, [group(model.parameters())], CPU)
    stepped(made, model.parameters())
    total = 0
    for parameter in model.parameters():
        pieces = as_tensors(made.state[parameter])
        assert pieces.pop("step") == 1
        assert {key: (tuple(x.shape), x.dtype) for key, x in pieces.items()} == layout(kind, parameter.shape)
        total += sum(x.nbytes for x in pieces.values())
    assert state_bytes(kind, model) == total


def test_bytes_of_a_matrix_by_hand() -> None:
    """32 · 256 = 8192 numbers, 32 blocks of 256."""
    model = nn.ParameterList([nn.Parameter(torch.zeros(32, 256))])
    assert state_bytes("adamw", model) == 2 * 4 * 8192
    assert state_bytes("adamw-8bit", model) == 2 * (8192 + 4 * 32 + 4 * 256)
    assert state_bytes("adafactor", model) == 4 * (32 + 256)
    assert state_bytes("adamw", model, None, model.requires_grad_(False)) == 0, "frozen ones have none"


@pytest.mark.parametrize("kind", KINDS)
def test_a_state_from_tensors_goes_on_bit_for_bit(kind) -> None:
    one, other = modules(), modules()
    whole, again = (optimizer_of(kind, [group(model.parameters())], CPU) for model in (one, other))
    stepped(whole, one.parameters())
    for a, b in zip(one.parameters(), other.parameters(), strict=True):
        b.data.copy_(a)
        pieces = {key: value.clone() for key, value in as_tensors(whole.state[a]).items()}
        again.state[b] = from_tensors(kind, pieces, CPU)
    for made, model in ((whole, one), (again, other)):
        made.param_groups[0]["lr"] = 0.05
        stepped(made, model.parameters(), seed=2)
    assert all(torch.equal(a, b) for a, b in zip(one.parameters(), other.parameters(), strict=True))


def test_adamw_is_torchs_own_bit_for_bit() -> None:
    learner = Learner(
        load_policy("scratch:tiny"),
        optimization=Optimization(learning_rate=1e-3, critic_learning_rate=1.0, total_updates=9, max_grad_norm=1e9),
    )
    model = load_policy("scratch:tiny")
    plain = torch.optim.AdamW(model.parameters(), lr=1e-3, weight_decay=0.0, fused=True)
    for seed in (1, 2):
        rng = torch.Generator().manual_seed(seed)
        for a, b in zip(learner.model.parameters(), model.parameters(), strict=True):
            a.grad = torch.randn(a.shape, generator=rng)
            b.grad = a.grad.clone()
        learner.step()
        plain.step()
    assert all(torch.equal(a, b) for a, b in zip(learner.model.parameters(), model.parameters(), strict=True))


def test_adafactor_moves_by_a_share_of_the_parameters_own_size() -> None:
    """θ = (3, 4): RMS √12.5. The first step's V is g², so each number moves by lr · RMS · sign(g)."""
    theta = nn.Parameter(torch.tensor([3.0, 4.0]))
    made = optimizer_of("adafactor", [group([theta])], CPU)
    theta.grad = torch.tensor([0.2, -7.0])
    made.step()
    moved = 0.1 * sqrt(12.5)
    torch.testing.assert_close(theta.detach(), torch.tensor([3 - moved, 4 + moved]))


@needs_bitsandbytes
def test_eight_bits_follow_adamw() -> None:
    """Moments of 8 bits move the weights where float32 moments do, up to their rounding."""
    wide, narrow = modules(), modules()
    start = [p.detach().clone() for p in wide.parameters()]
    optimizers = [
        optimizer_of(kind, [group(model.parameters(), 1e-2, 0.1)], CPU)
        for kind, model in (("adamw", wide), ("adamw-8bit", narrow))
    ]
    for seed in range(5):
        stepped(optimizers[0], wide.parameters(), seed)
        stepped(optimizers[1], narrow.parameters(), seed)
    for a, b, before in zip(wide.parameters(), narrow.parameters(), start, strict=True):
        assert (a - b).norm() < 0.05 * (a - before).norm()
    assert not all(torch.equal(a, b) for a, b in zip(wide.parameters(), narrow.parameters(), strict=True))


@pytest.mark.parametrize("kind", KINDS)
def test_the_schedule_reaches_the_step(kind) -> None:
    """A rate of 0 moves nothing, whatever the optimizer keeps its rate in."""
    plan = Optimization(
        learning_rate=1e-2, critic_learning_rate=1.0, total_updates=1, schedule="linear", optimizer=kind
    )
    learner = Learner(load_policy("scratch:tiny"), optimization=plan)
    for moves in (True, False):  # the decay ends after the first update
        before = [p.detach().clone() for p in learner.model.parameters()]
        for parameter in learner.model.parameters():
            parameter.grad = torch.ones_like(parameter)
        learner.step()
        same = all(torch.equal(a, b) for a, b in zip(before, learner.model.parameters(), strict=True))
        assert same != moves


def test_what_is_missing_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(optimizer, "find_spec", lambda name: None)
    with pytest.raises(ConfigError, match=r"--optimizer adamw-8bit needs bitsandbytes.*pip install 'oneloop\[8bit\]'"):
        check_optimizer("adamw-8bit", "cpu")
    check_optimizer("adafactor", "cuda")


@needs_bitsandbytes
def test_a_step_that_fails_is_named_before_anything_is_loaded(monkeypatch: pytest.MonkeyPatch) -> None:
    check_optimizer("adamw-8bit", "cpu")

    def broken(*given, **named):
        raise RuntimeError("no kernel for this device\nand a long trace")

    monkeypatch.setattr("bitsandbytes.optim.AdamW8bit.step", broken)
    wanted = r"--optimizer adamw-8bit: bitsandbytes cannot be used on cpu here: no kernel for this device\. Fix"
    with pytest.raises(ConfigError, match=wanted):
        check_optimizer("adamw-8bit", "cpu")
