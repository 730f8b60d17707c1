"""Built-in tasks: rows come from the seed alone, splits never meet, and each grader agrees with its own rows."""

import pytest

from oneloop.errors import ConfigError
from oneloop.tasks import TASKS, Addition, ChainSum, Countdown, Task, TinyCode
from oneloop.tasks.task import draw_rows, in_test

KINDS = ("prompts", "demonstrations", "preferences")
FLAWLESS = [name for name in TASKS if not name.startswith("flawed")]
SMALL = {
    "addition_1": Addition(digits=1),
    "short": ChainSum(steps=(1, 1)),
    "long": ChainSum(steps=(9, 12), largest=9),
    "many": Countdown(count=(5, 6), largest=50, most=999),
    "longer": TinyCode(steps=(2, 4)),
}
EVERY = {**TASKS, **SMALL}


def many(task: Task) -> int:
    """Rows to grade: running a program takes a thousand times as long as reading a number."""
    return 24 if isinstance(task, TinyCode) else 400


def grades(task: Task, rows: list[dict], column: str) -> set[float | None]:
    return set(task.reward([row[column] for row in rows], **columns(rows)))


def columns(rows: list[dict]) -> dict[str, list]:
    """What a reward is called with beside the completions."""
    return {name: [row[name] for row in rows] for name in rows[0] if name != "prompt"}


@pytest.mark.parametrize("task", EVERY.values(), ids=list(EVERY))
def test_a_task_is_a_task(task: Task) -> None:
    assert isinstance(task, Task)


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("task", EVERY.values(), ids=list(EVERY))
def test_rows_depend_on_seed_and_split_only(task: Task, kind: str) -> None:
    make = getattr(task, kind)
    assert make(20, 3, "train") == make(20, 3, "train")
    assert make(20, 3, "train") != make(20, 4, "train")
    assert make(20, 3, "train") != make(20, 3, "test")
    assert make(10, 3, "train") == make(20, 3, "train")[:10]


@pytest.mark.parametrize("task", EVERY.values(), ids=list(EVERY))
def test_splits_never_share_a_prompt_whatever_the_seed(task: Task) -> None:
    seen = {
        split: {row["prompt"] for seed in range(3) for kind in KINDS for row in getattr(task, kind)(60, seed, split)}
        for split in ("train", "test")
    }
    assert seen["train"].isdisjoint(seen["test"])


def test_about_a_fifth_of_all_prompts_is_held_out() -> None:
    # 10,000 prompts at 1/5 (52 of 256 bytes, 0.203): five standard deviations are 0.02
    held_out = sum(in_test(f"{a}+{b}=") for a in range(100) for b in range(100)) / 10_000
    assert held_out == pytest.approx(52 / 256, abs=0.02)


@pytest.mark.parametrize("name", TASKS)
def test_prompts_are_distinct_while_new_ones_turn_up(name: str) -> None:
    prompts = [row["prompt"] for row in TASKS[name].prompts(300, 0, "train")]
    assert len(set(prompts)) == 300


def test_a_small_task_repeats_itself_and_still_gives_all_rows() -> None:
    prompts = [row["prompt"] for row in Addition(digits=1).prompts(300, 0, "train")]
    assert len(prompts) == 300
    assert len(set(prompts)) <= 100


@pytest.mark.parametrize("name", FLAWLESS)
def test_a_grader_pays_its_own_demonstrations_and_chosen_answers(name: str) -> None:
    task = TASKS[name]
    assert grades(task, task.demonstrations(many(task), 1, "train"), "completion") == {1.0}
    assert grades(task, task.preferences(many(task), 1, "train"), "chosen") == {1.0}


@pytest.mark.parametrize("task", EVERY.values(), ids=list(EVERY))
def test_a_grader_never_pays_a_rejected_answer(task: Task) -> None:
    rows = task.preferences(many(task), 1, "train")
    assert grades(task, rows, "rejected") == {0.0}
    assert all(row["chosen"] != row["rejected"] for row in rows)


@pytest.mark.parametrize("task", [task for task in EVERY.values() if isinstance(task, (Addition, ChainSum))])
def test_answers_are_right(task: Task) -> None:
    """An oracle of its own: the prompt, read sign by sign."""
    for row in task.prompts(200, 2, "test"):
        terms = row["prompt"].removesuffix("=").replace("-", "+-").split("+")
        assert int(row["answer"]) == sum(int(term) for term in terms)


@pytest.mark.parametrize("name", [name for name in TASKS if not isinstance(TASKS[name], TinyCode)])
def test_an_answer_from_a_data_file_may_be_a_number_or_missing(name: str) -> None:
    row = TASKS[name].preferences(1, 0, "train")[0]
    answers = [int(row["answer"]), row["answer"], f" {row['answer']}\n", None]
    given = columns([row] * 4) | {"answer": answers}
    assert TASKS[name].reward([row["chosen"]] * 4, **given) == [1.0, 1.0, 1.0, None]


@pytest.mark.parametrize("text", ["", " ", "x", "46\n", "046", "+46", "46.0", "４６", "46 46", "12+34=46"])
def test_addition_takes_nothing_but_the_number(text: str) -> None:
    assert Addition().reward([text], answer=["46"]) == [0.0]


CHAIN = [  # 5+3-4= : the text, well-formed, paid
    ("5+3=8,8-4=4;4", True, True),
    ("5+3=9,9-4=4;4", True, True),  # the statement is verified, the working only has to be there
    ("5+3=8,8-4=4;5", True, False),
    ("5+3=8,8-4=4", False, False),
    (";4", False, False),
    ("4", False, False),
    ("", False, False),
    ("5+3=8,8-4=4;4 ", False, False),
    ("5+3=8,8-4=4;4\n", False, False),
    ("5+3=8,8-4=4;;4", False, False),
    ("5+3=8,8-4=4;4;4", False, False),
    ("5+3=8;4,8-4=4;4", False, False),
    ("5+3=8,,8-4=4;4", False, False),
    (",5+3=8;4", False, False),
    ("5+3=8,8-4=4;04", True, False),
    ("5+3=8,8-4=4;-4", False, False),
    ("5+3=8,8-4=٤;4", False, False),
    ("5*3=8;4", False, False),
    ("__import__('os');4", False, False),
]


@pytest.mark.parametrize(("text", "formed", "paid"), CHAIN)
def test_chain_sum_pays_the_right_answer_in_the_right_format(text: str, formed: bool, paid: bool) -> None:
    task = ChainSum()
    assert task.format_reward([text], answer=["4"]) == [float(formed)]
    assert task.reward([text], answer=["4"], prompts=["5+3-4="]) == [float(paid)]


def test_chain_sum_shows_every_step() -> None:
    for row in ChainSum().demonstrations(100, 0, "train"):
        steps, _, answer = row["completion"].partition(";")
        results = [step.split("=")[1] for step in steps.split(",")]
        assert len(results) == row["prompt"].count("+") + row["prompt"].count("-")
        assert results[-1] == answer == row["answer"]


def test_chain_sum_is_written_in_fourteen_characters() -> None:
    rows = ChainSum(largest=9, flawed=1.0).demonstrations(400, 0, "train")
    assert set("".join(row["prompt"] + row["completion"] for row in rows)) <= set("0123456789+-=,;")


def test_rejected_workings_err_in_the_numbers_and_in_the_format() -> None:
    rejected = [row["rejected"] for row in ChainSum().preferences(300, 0, "train")]
    shares = [sum(kind) / 300 for kind in zip(*map(kind_of_flaw, rejected), strict=True)]
    assert all(share > 0.1 for share in shares)
    assert sum(shares) == pytest.approx(1.0)


def kind_of_flaw(text: str) -> tuple[bool, bool, bool]:
    """No result, no working, or both with a wrong number."""
    return ";" not in text, text.startswith(";"), "=" in text and ";" in text


@pytest.mark.parametrize(("flawed", "low", "high"), [(0.0, 1.0, 1.0), (0.5, 0.4, 0.6), (1.0, 0.0, 0.0)])
def test_the_share_of_flawed_demonstrations(flawed: float, low: float, high: float) -> None:
    task = ChainSum(flawed=flawed)
    rows = task.demonstrations(400, 0, "train")
    paid = sum(value or 0.0 for value in task.reward([r["completion"] for r in rows], [r["answer"] for r in rows]))
    assert low <= paid / 400 <= high


def test_flawed_and_flawless_tasks_ask_the_same_prompts() -> None:
    assert TASKS["flawed_chain_sum"].prompts(50, 0, "test") == TASKS["chain_sum"].prompts(50, 0, "test")


@pytest.mark.parametrize("make", [
    lambda: Addition(digits=0), lambda: ChainSum(steps=(0, 2)), lambda: ChainSum(steps=(3, 2)),
    lambda: ChainSum(largest=0), lambda: ChainSum(largest=10), lambda: ChainSum(flawed=1.5),
    lambda: TinyCode(steps=(0, 2)), lambda: TinyCode(steps=(2, 7)), lambda: TinyCode(flawed=-1),
])  # fmt: skip
def test_settings_that_cannot_work_are_refused_by_name_and_value(make) -> None:
    with pytest.raises(ConfigError, match=r"\((digits|steps|largest|flawed)=.*wanted"):
        make()


def test_an_empty_split_is_an_error_and_not_an_endless_search() -> None:
    prompt = next(f"{n}" for n in range(99) if not in_test(f"{n}"))
    with pytest.raises(ConfigError, match="no test prompt"):
        draw_rows(lambda rng: {"prompt": prompt}, 1, 0, "test")


def test_a_grader_refuses_answers_that_do_not_line_up() -> None:
    with pytest.raises(ValueError):
        Addition().reward(["1", "2"], answer=["1"])
