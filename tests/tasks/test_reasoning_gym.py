"""Tasks of reasoning-gym: its questions, its scorers, no pay for brevity, and no scorer that runs a model's text."""

import pytest

from oneloop.errors import ConfigError
from oneloop.tasks import Task
from oneloop.tasks.reasoning_gym import ReasoningGym, reasoning_gym_task


def task(spec: str) -> ReasoningGym:
    return reasoning_gym_task(f"reasoning-gym:{spec}")


def reward(of: ReasoningGym, rows: list[dict], texts: list[str]) -> list[float | None]:
    return of.reward(texts, **{name: [row[name] for row in rows] for name in rows[0] if name != "prompt"})


def test_it_is_a_task() -> None:
    assert isinstance(task("chain_sum"), Task)


def test_rows_depend_on_seed_and_split_and_the_splits_share_no_prompt() -> None:
    gym = task("chain_sum?size=200&seed=1")
    train, test = gym.prompts(1, 0, "train"), gym.prompts(1, 0, "test")
    assert len(train) + len(test) == 200  # `size` counts both
    assert {row["prompt"] for row in train}.isdisjoint(row["prompt"] for row in test)
    assert train == task("chain_sum?size=200&seed=1").prompts(1, 5, "train") or [row["prompt"] for row in train] == [
        row["prompt"] for row in task("chain_sum?size=200&seed=1").prompts(1, 5, "train")
    ]
    assert [row["prompt"] for row in train] != [
        row["prompt"] for row in task("chain_sum?size=200").prompts(1, 0, "train")
    ]


def test_without_a_size_there_are_as_many_rows_as_are_asked_for() -> None:
    assert len(task("lcm").prompts(30, 0, "train")) == len(task("lcm").prompts(30, 0, "test")) == 30


@pytest.mark.parametrize("name", ["chain_sum", "lcm", "letter_counting", "spell_backward", "sudoku"])
def test_the_right_answer_is_paid_and_others_are_not(name: str) -> None:
    gym = task(name)
    rows = gym.prompts(6, 3, "train")
    assert reward(gym, rows, [row["answer"] for row in rows]) == [1.0] * 6
    assert reward(gym, rows, [f"<think>?</think><answer> {row['answer']} </answer>" for row in rows]) == [1.0] * 6
    twice = [f"<answer>x</answer> no: <answer>{row['answer']}</answer>" for row in rows]
    assert reward(gym, rows, twice) == [1.0] * 6, "the last answer counts"
    assert all(value is not None and value < 0.5 for value in reward(gym, rows, ["x"] * 6))


def test_a_generator_without_a_scorer_pays_nothing_for_a_short_text_around_the_answer() -> None:
    gym = task("lcm")
    rows = gym.prompts(1, 0, "train")
    assert gym.scorer == "equality with the answer"
    # the package's own scorer would pay len(answer) / len(text)
    assert gym._dataset(0).score_answer(rows[0]["answer"] + "!", {"answer": rows[0]["answer"]}) > 0.4
    assert reward(gym, rows, [rows[0]["answer"] + "!"]) == [0.0]


def test_another_process_scores_by_the_row_alone() -> None:
    rows = task("chain_sum").prompts(4, 7, "test")
    assert reward(task("chain_sum"), rows, [row["answer"] for row in rows]) == [1.0] * 4


def test_text_that_a_scorer_cannot_read_is_not_scored() -> None:
    gym = task("chain_sum")
    rows = gym.prompts(1, 0, "train")
    gym._dataset(0).score_answer = lambda answer, entry: 1 / 0
    assert reward(gym, rows, ["x"]) == [None]


@pytest.mark.parametrize("name", ["countdown", "binary_matrix", "n_queens", "simple_integration", "string_insertion"])
def test_a_scorer_that_runs_the_text_of_a_model_is_refused(name: str) -> None:
    with pytest.raises(ConfigError, match=r"(eval|parse_expr)\(\), which runs it as Python.*Fix"):
        task(name)


@pytest.mark.parametrize(("spec", "message"), [
    ("chain_summ", "Did you mean reasoning-gym:chain_sum"),
    ("chain_sum?colour=red", "takes .*min_terms"),
    ("chain_sum?size", "takes .*min_terms"),
    ("chain_sum?min_terms=5&max_terms=2", "reasoning-gym:chain_sum"),
    ("chain_sum?size=1", "no test question among 1"),
])  # fmt: skip
def test_bad_specs(spec: str, message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        task(spec).prompts(1, 0, "test")


def test_there_are_no_pairs() -> None:
    with pytest.raises(ConfigError, match="no worse ones"):
        task("lcm").preferences(1, 0, "train")
