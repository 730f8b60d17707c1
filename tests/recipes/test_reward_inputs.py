"""What is known of rewards before a model is loaded: their columns, their form, and that their processes end."""

import json
from dataclasses import replace
from pathlib import Path

import pytest

from oneloop.config import Run, default_run
from oneloop.data import from_rows, open_data
from oneloop.errors import ConfigError, DataError
from oneloop.recipes.execute import execute
from oneloop.recipes.graders import check_columns
from oneloop.recipes.inputs import read_inputs
from oneloop.recipes.resolve import kind_of, resolved
from oneloop.record.reader import read_run
from oneloop.rewards import NamedReward
from toy_models import Silent

SOURCE = """
import asyncio
def compute_score(data_source, solution_str, ground_truth, extra_info=None):
    return {"score": float(len(solution_str)), "shown": solution_str[:1]}
def reward_func(queries, prompts, labels):
    return {"rewards": [0.5] * len(queries), "scores": [0.25] * len(queries)}
async def judge(completion, answer):
    await asyncio.sleep(0)
    return float(len(completion) % 2)
def native(completions, answer, trainer_state, log_metric):
    log_metric("step", trainer_state.global_step)
    return [float(text == value) for text, value in zip(completions, answer)]
class Gym:
    def score_answer(self, answer, entry):
        return float(answer == entry["answer"])
gym = Gym()
"""


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    rows = [
        {"prompt": f"{n}+1=", "answer": str(n), "ground_truth": str(n), "label": str(n), "data_source": "x"}
        for n in range(4)
    ]
    (tmp_path / "train.jsonl").write_text("\n".join(map(json.dumps, rows)))
    (tmp_path / "mine.py").write_text(SOURCE)
    return tmp_path


def run_of(*rewards: str, **changes) -> Run:
    run = replace(default_run("grpo"), model="scratch:tiny", data="train.jsonl", reward=rewards, steps=2)
    return replace(run, prompts_per_step=2, group_size=2, max_new_tokens=4, **changes)


def test_every_form_trains_together(folder: Path) -> None:
    said: list[str] = []

    class Watcher(Silent):
        def say(self, text: str) -> None:
            said.append(text)

    names = ("compute_score", "reward_func", "judge", "native", "gym")
    execute(run_of(*(f"mine.py:{name}" for name in names), eval_data="train.jsonl", reward_workers=2), Watcher())
    run = read_run(Path("runs/grpo"))
    assert set(names) <= {name.split("/")[1] for name in run.metrics[0] if name.endswith("/mean") and "/" in name}
    assert run.series("rewards/reward_func/mean")[1] == [0.5, 0.5]
    assert run.series("rewards/reward_func/scores")[1] == [0.25, 0.25]
    assert run.series("rewards/native/step")[1] == [0.0, 1.0]
    assert "shown" in read_run(Path("runs/grpo")).rollouts(0)[0]
    for form in ("verl", "OpenRLHF", "verifiers", "reasoning-gym"):
        assert sum(f"called in {form}'s form" in line for line in said) == 1


def test_training_and_evaluation_share_processes_and_close_ends_them(folder: Path) -> None:
    run = run_of("mine.py:native", eval_data="train.jsonl")
    inputs = read_inputs(run, kind_of(resolved(run)))
    assert inputs.rewards[0].grader is inputs.eval_rewards[0].grader
    worker = inputs.rewards[0].grader._workers[0]
    assert not worker.ended()
    inputs.close()
    assert worker._process.returncode is not None


def lines(*rows: dict) -> None:
    Path("train.jsonl").write_text("\n".join(map(json.dumps, rows)))


def test_a_column_that_no_row_has(folder: Path) -> None:
    lines({"prompt": "1+1=", "answer": "2"}, {"prompt": "2+1=", "answer": "3"})
    run = run_of("mine.py:compute_score")
    with pytest.raises(
        ConfigError, match=r"in verl's form, .* wants 'ground_truth'.*Fix: --columns answer=ground_truth"
    ):
        read_inputs(run, kind_of(resolved(run)))


def test_the_first_row_without_a_column_is_named(folder: Path) -> None:
    rows = [{"prompt": "1", "answer": None}, {"prompt": "2", "answer": "1"}, {"prompt": "3", "level": 3}]
    reward = NamedReward("mine", lambda completions, answer: [])
    check_columns([reward], from_rows(rows[:2], "prompts"))  # a null is there, and the reward's to judge
    lines(*rows)
    with pytest.raises(DataError, match=r"^train\.jsonl:3: reward mine wants 'answer', and this row has none"):
        check_columns([reward], open_data("train.jsonl", "prompts"))
    with pytest.raises(DataError, match=r"^data\[2\]: reward mine"):
        check_columns([reward], from_rows(rows, "prompts"))


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"reward_timeout": 0.0}, "--reward-timeout is 0.0; wanted a positive number of seconds"),
        ({"reward_timeout": float("nan")}, "--reward-timeout is nan"),
        ({"reward_workers": 0}, "--reward-workers is 0; wanted at least 1"),
    ],
)
def test_limits_are_checked(changes: dict, said: str) -> None:
    with pytest.raises(ConfigError, match=said):
        replace(Run(), **changes)


def test_rewards_that_come_with_oneloop_run_in_this_process(folder: Path) -> None:
    run = run_of("exact_match", "format?pattern=[0-9]+")
    inputs = read_inputs(run, kind_of(resolved(run)))
    assert [reward.name for reward in inputs.rewards] == ["exact_match", "format"]
    assert inputs.rewards[0].function(["3", "4"], answer=["3", "3"]) == [1.0, 0.0]


def test_held_out_prompts_without_a_grader_name_their_own_flag(folder: Path) -> None:
    """A learned reward scores training only: --reward would be trained on too."""
    run = run_of(reward_model="runs/rm/final", eval_data="train.jsonl")
    with pytest.raises(ConfigError, match=r"train\.jsonl has no grader of its own\. Fix: --eval-reward"):
        read_inputs(run, kind_of(resolved(run)))
