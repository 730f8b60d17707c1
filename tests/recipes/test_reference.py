"""Of pairs, π_ref is asked once, before step 0: the numbers of a run that asks at every step, without the model."""

import gc
import weakref
from collections import Counter
from dataclasses import replace
from pathlib import Path

import pytest
import torch

from oneloop.algorithms import DPO
from oneloop.config import Run, default_run
from oneloop.experience.pairs import Pair, Pairs, pair_batch, with_reference
from oneloop.model.load import load_policy
from oneloop.recipes import build
from oneloop.recipes.build import assemble
from oneloop.recipes.execute import execute
from oneloop.recipes.inputs import read_inputs
from oneloop.recipes.resolve import kind_of, resolved
from oneloop.record.reader import read_run
from toy_models import Bigram, Memory, Silent

ITEMS = [Pair([1, 2], [3] * (1 + n % 3) + [n % 8], [4, n % 5]) for n in range(10)]
FIXED = {"per_step": 4, "seed": 3}


def said(batch):
    return Bigram(7).policy(batch).logprobs.detach().float()


def test_every_drawn_pair_brings_what_the_reference_says_of_its_batch() -> None:
    source = Pairs(with_reference(ITEMS, said, steps=6, **FIXED), **FIXED)
    for step in range(6):
        batch = source.batch(step)
        wanted = said(batch)
        torch.testing.assert_close(batch.ref_logprobs[batch.mask], wanted[batch.mask], rtol=1e-6, atol=1e-6)
        # the mutant: each pair's two answers exchanged
        other = wanted.view(-1, 2, wanted.shape[1]).flip(1).flatten(0, 1)
        assert not torch.allclose(batch.ref_logprobs[batch.mask], other[batch.mask], atol=1e-2)


def test_only_what_a_run_draws_is_asked_for_and_each_pair_once() -> None:
    asked: list[int] = []

    def counting(batch):
        asked.append(len(batch) // 2)
        return said(batch)

    known = with_reference(ITEMS, counting, steps=2, **FIXED)
    assert asked == [4, 4] and sum(pair.reference is not None for pair in known) == 8
    assert [replace(pair, reference=None) for pair in known] == ITEMS
    asked.clear()
    with_reference(ITEMS, counting, steps=100, **FIXED)
    assert asked == [4, 4, 4]  # the third batch has the last two pairs and two of the next epoch


def test_a_longer_run_begins_with_the_same_numbers() -> None:
    short, long = (with_reference(ITEMS, said, steps=steps, **FIXED) for steps in (1, 9))
    assert all(a.reference is None or a.reference == b.reference for a, b in zip(short, long, strict=True))


def test_a_batch_that_knows_is_not_asked_about() -> None:
    batch = pair_batch(with_reference(ITEMS, said, steps=3, **FIXED))

    class Deaf(Bigram):
        def reference(self, batch):
            raise AssertionError("asked")

    assert torch.equal(DPO.prepare(batch, Deaf(0)).ref_logprobs, batch.ref_logprobs)
    with pytest.raises(AssertionError, match="asked"):
        DPO.prepare(replace(batch, ref_logprobs=None), Deaf(0))


def small(out: Path, **changes) -> Run:
    run = replace(default_run("dpo"), model="scratch:tiny", data="task:addition", out=str(out), steps=5)
    run = replace(run, prompts_per_step=4, minibatch=2, learning_rate=1e-3, data_size=10, eval_size=8, eval_every=2)
    return replace(run, **changes)


def test_a_run_is_the_one_that_holds_the_reference(tmp_path, monkeypatch) -> None:
    ahead, held = (small(tmp_path / name) for name in ("ahead", "held"))
    watcher = Silent()
    execute(ahead, watcher)
    assert any("about each pair once, before step 0" in line for line in watcher.lines)
    assert any(line == "models in memory: policy" for line in watcher.lines)
    assert any("log π_θ − log π_ref = 0" in line for line in watcher.lines)
    monkeypatch.setattr(build, "reference_from", lambda run, algorithm: "model")
    execute(held, Silent())
    names = ("loss", "rewards/margins", "rewards/chosen", "grad_norm", "eval/rewards/margins")
    for name in names:
        ours, theirs = (read_run(Path(run.out)).series(name)[1] for run in (ahead, held))
        assert len(ours) >= 2 and ours == pytest.approx(theirs, rel=1e-4, abs=1e-5), name


def test_a_resumed_run_asks_the_model_it_started_from_and_lets_go_of_it(tmp_path, monkeypatch) -> None:
    run = small(tmp_path / "run", steps=2)
    execute(run, Silent())
    checkpoint = tmp_path / "run" / "checkpoints" / "step_000002"
    loaded: list[weakref.ref] = []

    def watched(source, **options):
        model = load_policy(source, **options)
        loaded.append(weakref.ref(model))
        return model

    monkeypatch.setattr(build, "load_policy", watched)
    algorithm = resolved(run)
    started = assemble(run, algorithm, read_inputs(run, kind_of(algorithm)), Memory())
    resumed = assemble(run, algorithm, read_inputs(run, kind_of(algorithm)), Memory(), checkpoint)
    gc.collect()
    assert Counter(ref() is not None for ref in loaded) == {True: 2, False: 1}
    first, again = (parts.experience.batch(0) for parts in (started, resumed))
    assert torch.equal(first.ref_logprobs, again.ref_logprobs)
    # the mutant: what was trained is not what it started from
    with torch.no_grad():
        moved = resumed.learner.policy(again).logprobs
    assert not torch.allclose(moved, again.ref_logprobs, atol=1e-4)
    assert set(resumed.measures[0].measure()) == set(started.measures[0].measure())
