"""What resume reads beside the weights: all of it comes back, or none of it is taken."""

from pathlib import Path

import pytest
import torch
from torch import nn

from oneloop.errors import CheckpointError
from oneloop.model.learner import Learner, Optimization
from oneloop.model.load import load_policy
from oneloop.parallel.checkpoint import read_state, write_state


def learner() -> Learner:
    plan = Optimization(learning_rate=1e-3, critic_learning_rate=1e-3, total_updates=10)
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


def test_moments_of_another_model_are_refused(saved) -> None:
    folder, _ = saved
    other = learner()
    other.model.lm_head.weight = nn.Parameter(torch.zeros(5, 96))
    with pytest.raises(CheckpointError, match=r"lm_head\.weight has shape"):
        read_state(folder, other)
    other.model.lm_head.bias = nn.Parameter(torch.zeros(5))
    with pytest.raises(CheckpointError, match="in the checkpoint or in the model, not in both"):
        read_state(folder, other)
