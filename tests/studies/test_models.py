"""The studies that train a small language model, and the table behind a trust region."""

import os
import signal
from dataclasses import replace
from functools import partial
from random import Random

import pytest

from oneloop.algorithms import DAPO, GRPO
from oneloop.errors import OutOfMemory
from oneloop.recipes.resolve import models_in_memory, resolved
from oneloop.studies import dapo, memory, trust
from oneloop.studies.contexts import CONTEXTS


def test_a_step_of_trpo_goes_as_far_as_it_may_and_no_farther() -> None:
    mean, worst, _, gain = trust._trained(trust.BOUNDED, 0, 1, CONTEXTS)
    assert mean == worst
    assert trust.TARGET / 2 < worst <= trust.TARGET
    assert gain > 0


def test_all_changes_together_are_dapo() -> None:
    whole = dapo.variants(quick=False)[dapo.ON_TOP, dapo.DYNAMIC]
    assert replace(whole, name=DAPO.name, shape=DAPO.shape) == DAPO
    assert whole.shape == dapo.CHANGES[dapo.SOFT]["shape"]


def test_each_change_alone_is_one_change() -> None:
    for (series, row), algorithm in dapo.variants(quick=False).items():
        if series == dapo.ALONE:
            assert algorithm == replace(GRPO, kl=None, **dapo.CHANGES[row])


def test_idle_steps_leave_a_right_answer_right_and_make_it_longer() -> None:
    rng, shown = Random(0), dapo.TASK.demonstrations(300, 0, "train")
    longer = [dapo.padded(row, rng) for row in shown]
    before, after = (
        dapo.TASK.reward([row["completion"] for row in rows], [row["answer"] for row in rows])
        for rows in (shown, longer)
    )
    right = [n for n, grade in enumerate(before) if grade == 1]
    assert all(after[n] == 1 for n in right) and len(right) > 150
    cut = [bool(dapo.is_cut([row["completion"]])[0]) for row in longer]
    assert 0.05 < sum(cut) / len(cut) < 0.5
    assert not any(dapo.is_cut([row["completion"]])[0] for row in shown)


def test_the_limit_counts_the_token_that_ends_an_answer() -> None:
    fits = "0+0=0," * 5 + "0"
    assert len(fits) + 1 == dapo.LIMIT
    assert dapo.is_cut([fits, fits + "0"]) == [0.0, 1.0]
    padded = "0+0=0," * 4 + "0+3=3;3"
    assert dapo.right_in_time([padded, "0+0=0," + padded, "0+3=3;4"], ["3", "3", "3"]) == [1.0, 0.0, 0.0]


def test_the_bill_of_models_counts_those_that_a_run_holds(tmp_path) -> None:
    weights = memory.made(tmp_path, memory.QUICK_SHAPE)
    assert weights > 0
    for name, times in memory.MODELS.items():
        run = memory.run_of(name, 0, tmp_path, 1)
        held = models_in_memory(run, resolved(run))
        trained = len({"policy", "separate critic"} & set(held))
        assert memory.TRAINED * trained + memory.FROZEN * (len(held) - trained) == times, (name, held)


def test_a_run_whose_process_is_killed_is_named() -> None:
    with pytest.raises(OutOfMemory, match=r"GRPO, seed 3 was killed"):
        memory.alone(partial(signal.raise_signal, signal.SIGKILL), "GRPO, seed 3")


def test_each_run_has_a_process_of_its_own() -> None:
    seen = [memory.alone(os.getpid, "nothing") for _ in range(2)]
    assert len({*seen, os.getpid()}) == 3
