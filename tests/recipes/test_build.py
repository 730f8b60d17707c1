"""From a run to its parts: which rows, which temperature, and where the schedule ends."""

from dataclasses import replace
from pathlib import Path

import pytest
import torch

from oneloop.config import Run, default_run
from oneloop.objective.logprobs import logits_logprobs
from oneloop.recipes.build import Parts, assemble
from oneloop.recipes.execute import execute
from oneloop.recipes.inputs import read_inputs
from oneloop.recipes.resolve import kind_of, resolved
from oneloop.record.reader import read_run
from oneloop.tasks import TASKS
from toy_models import Memory, Silent

KINDS = {"grpo": "prompts", "sft": "demonstrations", "dpo": "preferences"}


def small(algorithm: str, **changes) -> Run:
    run = replace(default_run(algorithm), model="scratch:tiny", data="task:addition", steps=2, schedule="linear")
    return replace(run, prompts_per_step=4, data_size=32, eval_size=8, max_new_tokens=4, **changes)


def parts_of(run: Run) -> Parts:
    algorithm = resolved(run)
    return assemble(run, algorithm, read_inputs(run, kind_of(algorithm)), Memory())


@pytest.mark.parametrize("name", KINDS)
def test_training_and_evaluation_read_their_own_split(name: str) -> None:
    run = small(name)
    inputs = read_inputs(run, kind_of(resolved(run)))
    made = getattr(TASKS["addition"], KINDS[name])
    assert inputs.eval_rows is not None
    assert list(inputs.rows) == made(32, run.seed, "train")
    assert list(inputs.eval_rows) == made(8, run.seed, "test")
    assert not {row["prompt"] for row in inputs.rows} & {row["prompt"] for row in inputs.eval_rows}


def test_the_schedule_ends_with_the_last_epoch_of_the_last_step(tmp_path: Path) -> None:
    """Two steps of two epochs of one update: 1, ¾, ½, ¼ of the learning rate, logged as the means of each step."""
    execute(small("sft", epochs=2, learning_rate=1e-3, out=str(tmp_path / "run")), Silent())
    assert read_run(tmp_path / "run").series("learning_rate")[1] == pytest.approx([0.875e-3, 0.375e-3])
    # four prompts in threes: two updates an epoch, of which the second is small
    plan = parts_of(small("sft", epochs=3, minibatch=3)).learner.optimization
    assert plan.total_updates == 2 * 2 * 3


@pytest.mark.parametrize(("name", "temperature"), [("grpo", 0.5), ("sft", 1.0), ("dpo", 1.0)])
def test_only_what_is_sampled_is_tempered(name: str, temperature: float) -> None:
    parts = parts_of(small(name, temperature=0.5))
    batch = parts.experience.batch(0)
    with torch.no_grad():
        logits = parts.learner.model(batch.tokens).logits[:, :-1]
        wanted = logits_logprobs(logits.flatten(0, 1), batch.tokens[:, 1:].flatten(), temperature)[0]
        found = parts.learner.policy(batch).logprobs[:, 1:]
    inside = batch.mask[:, 1:]
    torch.testing.assert_close(found[inside], wanted.view_as(found)[inside], rtol=1e-4, atol=1e-4)


def test_the_newest_checkpoints_stay(tmp_path: Path) -> None:
    execute(small("sft", out=str(tmp_path / "run"), save_every=1, keep_checkpoints=1), Silent())
    assert [entry.name for entry in (tmp_path / "run" / "checkpoints").iterdir()] == ["step_000002"]
