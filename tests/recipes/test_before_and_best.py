"""Held-out data before the first step, and the best model by it."""

import json
from dataclasses import replace
from pathlib import Path

import pytest
from transformers import AutoModelForCausalLM

from oneloop.config import Run, default_run
from oneloop.errors import ConfigError
from oneloop.recipes.best import METRIC, Best
from oneloop.recipes.execute import execute
from oneloop.recipes.inputs import read_inputs
from oneloop.recipes.resolve import kind_of, resolved
from oneloop.record.atomic import verify
from oneloop.record.reader import read_run
from oneloop.record.writer import RunFolder
from toy_models import Memory, Silent


def small(algorithm: str, out: Path, **changes) -> Run:
    run = replace(default_run(algorithm), model="scratch:tiny", data="task:addition", steps=3, out=str(out))
    return replace(run, prompts_per_step=4, data_size=32, eval_size=8, max_new_tokens=4, **changes)


def weights(folder: Path) -> bytes:
    return (folder / "model.safetensors").read_bytes()


@pytest.mark.parametrize("name", ["grpo", "sft", "dpo"])
def test_curves_have_a_start_and_training_does_not_notice(name: str, tmp_path: Path) -> None:
    measured, plain = (
        execute(small(name, tmp_path / str(every), eval_every=every, learning_rate=1e-3), Silent()) for every in (2, 0)
    )
    record = read_run(measured)
    assert [row["done"] for row in record.evaluations] == [0, 2, 3]
    # the same values as in the lines of their steps
    assert record.series(METRIC[KINDS[name]])[0] == [1, 2]
    assert [row[METRIC[KINDS[name]]] for row in record.evaluations[1:]] == record.series(METRIC[KINDS[name]])[1]
    assert record.evaluations[0].keys() == record.evaluations[1].keys()
    assert weights(measured / "final") == weights(plain / "final")
    assert [row["done"] for row in read_run(plain).evaluations] == [3], "0 evaluates only at the end"


KINDS = {"grpo": "prompts", "sft": "demonstrations", "dpo": "preferences"}


def test_resume_does_not_measure_the_start_again(tmp_path: Path) -> None:
    run = small("sft", tmp_path / "run", eval_every=1, save_every=1)
    execute(replace(run, steps=2), Silent())
    execute(replace(run, resume=True), Silent())
    assert [row["done"] for row in read_run(tmp_path / "run").evaluations] == [0, 1, 2, 3]


def test_the_best_is_the_one_that_held_out_data_prefers(tmp_path: Path) -> None:
    """At this learning rate the loss falls at first and then explodes: the last model is not the best."""
    run = small("sft", tmp_path / "run", eval_every=1, keep_best=True, learning_rate=0.05, max_grad_norm=1e9)
    out = execute(replace(run, steps=6), Silent())
    losses = {row["done"]: row["eval/loss"] for row in read_run(out).evaluations}
    wanted = min(losses, key=losses.__getitem__)
    assert wanted not in (0, 6), losses
    best = json.loads((out / "best" / "best.json").read_text(encoding="utf-8"))
    assert best == {"metric": "eval/loss", "value": losses[wanted], "done": wanted}
    verify(out / "best")
    AutoModelForCausalLM.from_pretrained(out / "best")
    # the weights are those of that step, not of another
    shorter = execute(replace(run, steps=wanted, out=str(tmp_path / "shorter"), keep_best=False), Silent())
    assert weights(out / "best") == weights(shorter / "final")


class Measuring:
    """A run folder that measures what it is told, and a `Best` that notes after which steps it would have kept."""

    def __init__(self, path: Path, metric: str) -> None:
        self.folder = RunFolder.open(path, resume=True, config_text="", facts={})
        self.recorder, self.metric = Memory(), metric
        self.best = Best(metric, self.folder, self.recorder, lambda folder: (folder / "weights").write_text("x"))

    def __call__(self, done: int, **values: float) -> list[int]:
        self.folder.evaluation(done, values)
        self.best.before() if done == 0 else self.best(done - 1, None)
        kept = self.folder.path / "best" / "best.json"
        return (
            [json.loads(kept.read_text(encoding="utf-8"))[name] for name in ("done", "value")] if kept.exists() else []
        )

    def __enter__(self) -> "Measuring":
        return self

    def __exit__(self, *exception: object) -> None:
        self.folder.close()


@pytest.mark.parametrize(
    ("metric", "values", "kept"),
    [
        ("eval/reward", [0.2, 0.1, 0.5, 0.5, 0.4], [0, 0, 2, 2, 2]),
        ("eval/loss", [3.0, 3.5, 2.0, 2.0, 2.5], [0, 0, 2, 2, 2]),
        ("eval/completions/clipped_ratio", [0.5, 0.7, 0.1], [0, 0, 2]),
        ("eval/rewards/accuracies", [0.5, 0.4, 0.6], [0, 0, 2]),
    ],
)
def test_more_is_better_unless_it_is_a_loss(metric: str, values: list, kept: list, tmp_path: Path) -> None:
    with Measuring(tmp_path / "run", metric) as measure:
        assert [measure(done, **{metric: value})[0] for done, value in enumerate(values)] == kept
        verify(tmp_path / "run" / "best")


def test_an_evaluation_without_the_metric_is_an_alert(tmp_path: Path) -> None:
    with Measuring(tmp_path / "run", "eval/reward") as measure:
        measure(0, **{"eval/reward": 0.5})
        measure(1, **{"eval/rewards/unscored": 8.0})
        assert measure(2, **{"eval/reward": float("nan")}) == [0, 0.5]
        assert measure.recorder.events == [(0, "A_BEST"), (1, "A_BEST")]


def test_a_resumed_run_must_beat_what_it_had(tmp_path: Path) -> None:
    with Measuring(tmp_path / "run", "eval/reward") as measure:
        measure(5, **{"eval/reward": 0.4})
    with Measuring(tmp_path / "run", "eval/reward") as measure:
        assert measure(6, **{"eval/reward": 0.3}) == [5, 0.4]
        assert measure(7, **{"eval/reward": 0.45}) == [7, 0.45]
    with Measuring(
        tmp_path / "run", "eval/pass@4"
    ) as measure:  # the best by another metric says nothing about this one
        assert measure(8, **{"eval/pass@4": 0.1}) == [8, 0.1]


def test_a_metric_that_is_not_measured_is_found_before_training(tmp_path: Path) -> None:
    run = small("sft", tmp_path / "run", eval_every=1, keep_best=True, keep_best_by="eval/los")
    with pytest.raises(ConfigError, match=r"Fix: --keep-best-by eval/loss"):
        execute(run, Silent())
    assert read_run(tmp_path / "run").metrics == []


BAD = {
    "no evaluations": ({"keep_best": True}, "--eval-every 10"),
    "by training": ({"keep_best": True, "eval_every": 1, "keep_best_by": "reward"}, "--keep-best-by eval/reward"),
    "by without best": ({"keep_best_by": "eval/reward"}, "--keep-best --keep-best-by eval/reward"),
    "logger": ({"report_to": ("wandbb",)}, "Did you mean wandb"),
    "top p": ({"eval_top_p": 0.0}, "eval-top-p"),
    "top k": ({"eval_top_k": -1}, "eval-top-k"),
}


@pytest.mark.parametrize("case", BAD)
def test_settings_that_cannot_work(case: str, tmp_path: Path) -> None:
    changes, wanted = BAD[case]
    with pytest.raises(ConfigError, match=wanted):
        small("grpo", tmp_path, **changes)


def test_the_best_needs_held_out_data(tmp_path: Path) -> None:
    (tmp_path / "d.jsonl").write_text('{"prompt": "1+1=", "completion": "2"}\n')
    run = small("sft", tmp_path / "run", keep_best=True, eval_every=1)
    with pytest.raises(ConfigError, match="--eval-data"):
        read_inputs(replace(run, data=str(tmp_path / "d.jsonl")), kind_of(resolved(run)))


def test_an_evaluation_has_its_own_sampling(tmp_path: Path) -> None:
    run = small("grpo", tmp_path / "run", eval_temperature=1.0, eval_samples=4)
    run = replace(run, steps=1, eval_max_new_tokens=2, eval_top_k=1)
    (row,) = read_run(execute(run, Silent())).evaluations
    assert row["eval/completions/max_length"] <= 2
    # from the one most likely token, all four samples of a prompt are alike
    assert row["eval/pass@4"] == row["eval/reward"]
