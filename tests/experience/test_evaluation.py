"""Evaluation: one mean over all rows, and a seed of its own for each sample."""

from dataclasses import replace

import pytest

from oneloop.algorithms import DPO, SFT
from oneloop.batch import added
from oneloop.experience.drawing import OneTurn
from oneloop.experience.evaluation import Every, Generation, loss_scalars
from oneloop.types import Completion, Prompt, Reward, Sampling, StopReason
from toy_models import Bigram, ragged_batch

PROMPTS = [Prompt(id=name, text=name, tokens=(5, place)) for place, name in enumerate("abc")]


@pytest.mark.parametrize(("algorithm", "group_size"), [(SFT, 1), (DPO, 2)], ids=["sft", "dpo"])
def test_the_mean_does_not_depend_on_microbatches(algorithm, group_size: int) -> None:
    batch, models = ragged_batch(0, group_size, truncate=False), Bigram(0, reference=Bigram(7))
    whole = loss_scalars(algorithm, models, batch)
    prepared, pieces = algorithm.prepare(batch, models), {}
    for micro in prepared.microbatches(14):
        pieces = added(pieces, algorithm.loss(models.policy(micro), micro, prepared.size).stats)
    assert {f"eval/{name}" for name in pieces} == whole.keys() and whole["eval/loss"] > 0
    for name, value in pieces.items():
        assert whole[f"eval/{name}"] == pytest.approx(float(value), rel=1e-6), name


class Engine:
    """Answers with its seed."""

    version, exact = 0, True

    def __init__(self) -> None:
        self.seeds: list[int] = []

    def update(self, version) -> None: ...

    def generate(self, prompts, sampling, seeds, finished=lambda place, completion: None):
        self.seeds += seeds
        return [Completion(tokens=(seed % 97,), logprobs=(-1.0,), stop=StopReason.EOS) for seed in seeds]


def scored(items, step=0, told=None):
    return [replace(item, reward=Reward(value=1.0)) for item in items]


def generation(engine: Engine, **changes) -> Generation:
    settings = {"samples": 4, "seed": 0} | changes
    draw = OneTurn(engine.generate, str)
    return Generation(draw=draw, prompts=PROMPTS, scorer=scored, sampling=Sampling(), **settings)


def test_each_sample_of_an_evaluation_has_a_seed_of_its_own() -> None:
    engine, other = Engine(), Engine()
    items = generation(engine)()
    assert [(item.group, item.sample) for item in items] == [(g, s) for g in range(3) for s in range(4)]
    assert len(set(engine.seeds)) == 12
    generation(engine)()
    assert engine.seeds[12:] == engine.seeds[:12], "every evaluation of a run draws alike"
    generation(other, seed=1)()
    assert not set(other.seeds) & set(engine.seeds)


def test_due_every_so_many_steps_and_at_the_last() -> None:
    often, once = (Every(period, 7, lambda: {"x": 1.0}) for period in (3, 0))
    assert [step for step in range(7) if often(step)] == [2, 5, 6]
    assert [step for step in range(7) if once(step)] == [6]
