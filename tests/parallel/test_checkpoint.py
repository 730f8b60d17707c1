"""What resume reads beside the weights: all of it comes back, or none of it is taken."""

from importlib.util import find_spec
from pathlib import Path

import pytest
import torch
from torch import nn

from oneloop.errors import CheckpointError
from oneloop.model.learner import Learner, Optimization
from oneloop.model.load import load_policy
from oneloop.parallel.checkpoint import read_state, write_state

needs_bitsandbytes = pytest.mark.skipif(find_spec("bitsandbytes") is None, reason="bitsandbytes is an extra")
KINDS = ["adamw", "adafactor", pytest.param("adamw-8bit", marks=needs_bitsandbytes)]


def learner(kind="adamw") -> Learner:
    plan = Optimization(learning_rate=1e-3, critic_learning_rate=1e-3, total_updates=10, optimizer=kind)
    return Learner(load_policy("scratch:tiny"), optimization=plan)


@pytest.fixture
def saved(tmp_path: Path) -> tuple[Path, Learner]:
    """After one good step and a bad one."""
    trained = learner()
    for value in (0.1, torch.nan):
        for parameter in trained.named_parameters().values():
            parameter.grad = torch.full_like(parameter, value)
        trained.step()
    write_state(tmp_path / "resume", trained, {"step": 7})
    return tmp_path / "resume", trained


def test_moments_and_counters_come_back(saved) -> None:
    folder, trained = saved
    again = learner()
    assert read_state(folder, again) == {"step": 7}
    assert (again.updates, again.skipped_in_a_row) == (trained.updates, trained.skipped_in_a_row) == (1, 1)
    for name, parameter in trained.named_parameters().items():
        ours, theirs = (of.optimizer.state[of.named_parameters()[name]] for of in (again, trained))
        assert ours.keys() == theirs.keys() and all(torch.equal(ours[key], theirs[key]) for key in ours)
        assert ours["exp_avg"].shape == parameter.shape


@pytest.mark.parametrize("kind", KINDS)
def test_the_next_step_is_that_of_a_run_that_never_stopped(kind, tmp_path) -> None:
    trained = learner(kind)
    step(trained, 1)
    write_state(tmp_path / "resume", trained, {})
    again = learner(kind)
    again.model.load_state_dict(trained.model.state_dict())
    read_state(tmp_path / "resume", again)
    for one in (trained, again):
        step(one, 2)
    assert all(torch.equal(a, b) for a, b in zip(trained.model.parameters(), again.model.parameters(), strict=True))


def step(of: Learner, seed: int) -> None:
    rng = torch.Generator().manual_seed(seed)
    for parameter in of.named_parameters().values():
        parameter.grad = torch.randn(parameter.shape, generator=rng)
    of.step()


def test_the_state_of_another_optimizer_is_refused(saved) -> None:
    folder, _ = saved
    with pytest.raises(CheckpointError, match=r"has exp_avg, exp_avg_sq, step, which is not the state of adafactor"):
        read_state(folder, learner("adafactor"))


def test_moments_of_another_model_are_refused(saved) -> None:
    folder, _ = saved
    other = learner()
    other.model.lm_head.weight = nn.Parameter(torch.zeros(5, 96))
    with pytest.raises(CheckpointError, match=r"lm_head\.weight has shape"):
        read_state(folder, other)
    other.model.lm_head.bias = nn.Parameter(torch.zeros(5))
    with pytest.raises(CheckpointError, match="in the checkpoint or in the model, not in both"):
        read_state(folder, other)
