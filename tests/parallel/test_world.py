"""Two real processes over gloo: sizes, rows and gradients add up; a bad gradient on one rank stops both."""

from pathlib import Path

import pytest
import torch
import torch.distributed as dist
import torch.multiprocessing as mp
from torch import nn

from oneloop.algorithms import GRPO, PPO
from oneloop.batch import Batch, Size
from oneloop.errors import DivergedError
from oneloop.experience.pack import Row, collate
from oneloop.loop import train
from oneloop.model.learner import Learner, Optimization
from oneloop.model.load import load_policy
from oneloop.model.save import shared_critic
from oneloop.parallel.world import Distributed
from oneloop.ports import Report

RANKS = 2


def rows(step: int) -> list[Row]:
    """Four groups of three rows, lengths 1 to 12; the first two groups belong to rank 0."""
    rng = torch.Generator().manual_seed(step)
    out = []
    for number in range(12):
        tokens = torch.randint(3, 90, (number + 3,), generator=rng).tolist()
        reward = float(torch.rand((), generator=rng))
        out.append(Row(prompt=tokens[:2], actions=tokens[2:], group=number // 3, reward=reward, truncated=number == 5))
    return out


class Share:
    """Each rank gets its own groups; one process gets all."""

    def __init__(self, rank: int, ranks: int) -> None:
        self.mine = slice(rank * 12 // ranks, (rank + 1) * 12 // ranks)

    def batch(self, step: int) -> Batch:
        return collate(rows(step)[self.mine])

    def update(self, models, step: int) -> None: ...

    def report(self, batch: Batch) -> Report:
        return Report({}, [])

    def state(self):
        return {}

    def restore(self, state) -> None: ...


class Notes:
    def __init__(self) -> None:
        self.rows: list[dict] = []

    def scalars(self, step, values) -> None:
        self.rows.append(dict(values))

    def trajectories(self, step, items) -> None: ...

    def event(self, step, code, text, fix="") -> None: ...


def learner(algorithm, world: Distributed | None) -> Learner:
    policy, reference = load_policy("scratch:tiny", seed=1), load_policy("scratch:tiny", seed=2)
    return Learner(
        policy,
        reference=reference,
        critic=shared_critic(policy) if algorithm.critic else None,
        optimization=Optimization(learning_rate=1e-3, critic_learning_rate=1e-3, total_updates=9),
        sum_gradients=None if world is None else world.sum_gradients,
    )


def trained(algorithm, rank: int, ranks: int, world: Distributed | None) -> tuple[torch.Tensor, dict]:
    models, notes = learner(algorithm, world), Notes()
    options = {} if world is None else {"world": world}
    train(algorithm, Share(rank, ranks), models, notes, steps=2, minibatch=4 // ranks, max_tokens=30, seed=0, **options)
    return torch.cat([p.detach().flatten() for p in models.named_parameters().values()]), notes.rows[-1]


def work(rank: int, folder: str) -> None:
    torch.set_num_threads(1)
    dist.init_process_group("gloo", init_method=f"file://{folder}/meet", rank=rank, world_size=RANKS)
    world = Distributed()
    found = {
        "total": world.total(Size(3 + rank, 2, 1 + rank)),
        "gathered": world.gather(torch.full((1 + rank, 2 + rank), float(rank + 1))),
        "mine": world.mine(torch.arange(3.0)[:, None].expand(3, 3), torch.zeros(1 + rank, 2 + rank)),
        "sum": world.sum({"a": float(rank + 1), "b/max": float(rank + 1)}),
        "ppo": trained(PPO, rank, RANKS, world),
        "grpo": trained(GRPO, rank, RANKS, world),
    }
    found |= broken(rank, world)
    torch.save(found, Path(folder) / f"{rank}.pt")
    dist.destroy_process_group()


def broken(rank: int, world: Distributed) -> dict:
    """Rank 1's gradient is NaN."""
    models = learner(GRPO, world)
    before = [p.detach().clone() for p in models.named_parameters().values()]
    outcomes = []
    for _ in range(3):
        for parameter in models.named_parameters().values():
            parameter.grad = torch.full_like(parameter, torch.nan if rank == 1 else 1.0)
        try:
            outcomes.append(models.step()["skipped_steps"])
        except DivergedError:
            outcomes.append("stopped")
    same = all(torch.equal(a, b) for a, b in zip(before, models.named_parameters().values(), strict=True))
    return {"outcomes": outcomes, "unchanged": same, "moments": len(models.optimizer.state)}


@pytest.fixture(scope="module")
def found(tmp_path_factory) -> list[dict]:
    folder = tmp_path_factory.mktemp("ranks")
    mp.spawn(work, (str(folder),), nprocs=RANKS)
    return [torch.load(folder / f"{rank}.pt", weights_only=False) for rank in range(RANKS)]


def test_sizes_rows_and_statistics_add_up(found) -> None:
    for rank, mine in enumerate(found):
        assert mine["total"] == Size(7, 4, 3)
        assert mine["gathered"].tolist() == [[1.0, 1.0, 0.0], [2.0, 2.0, 2.0], [2.0, 2.0, 2.0]]
        assert mine["mine"][:, 0].tolist() == [[0.0], [1.0, 2.0]][rank]
        assert mine["mine"].shape == (1 + rank, 2 + rank)
        assert mine["sum"] == {"a": 3.0, "b/max": 2.0}


@pytest.mark.parametrize("name", ["ppo", "grpo"])
def test_two_ranks_learn_what_one_process_learns(found, name: str) -> None:
    """One gradient over real processes: whitening, groups and denominators span the ranks, gradients are summed."""
    torch.set_num_threads(1)
    alone, scalars = trained({"ppo": PPO, "grpo": GRPO}[name], 0, 1, None)
    for weights, row in (found[0][name], found[1][name]):
        # Adam divides by √v: where a gradient is almost 0, its rounding is a large share of the update
        assert (weights - alone).abs().max() < 2e-4
        assert (weights - alone).abs().mean() < 1e-6
        assert row["entropy"] == pytest.approx(scalars["entropy"], rel=1e-4)
    start = torch.cat([p.detach().flatten() for p in learner(PPO, None).named_parameters().values()])
    assert (alone[:10_000] - start[:10_000]).abs().mean() > 1e-4, "training moved the weights"


def test_a_bad_gradient_on_one_rank_stops_every_rank(found) -> None:
    """No rank steps, weights and moments stay as they were, and the third time in a row ends the run."""
    for mine in found:
        assert mine["outcomes"] == [1, 1, "stopped"]
        assert mine["unchanged"] and mine["moments"] == 0


def test_a_missing_gradient_is_a_zero() -> None:
    """A rank without rows has no gradient, and must still take part."""
    parameter = nn.Parameter(torch.ones(2))
    assert parameter.grad is None
    world = object.__new__(Distributed)
    calls: list[torch.Tensor] = []
    original, dist.all_reduce = dist.all_reduce, lambda tensor: calls.append(tensor)
    try:
        world.sum_gradients([parameter])
    finally:
        dist.all_reduce = original
    assert calls[0].tolist() == [0.0, 0.0]
