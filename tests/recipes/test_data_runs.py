"""Files of every layout train two steps under the method that fits them; what was left out is in the metrics."""

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from oneloop.config import Run, default_run
from oneloop.errors import ConfigError, DataError
from oneloop.recipes.execute import execute
from oneloop.recipes.inputs import read_inputs
from oneloop.recipes.resolve import kind_of, resolved
from oneloop.record.reader import read_run
from toy_models import Silent

USER, RIGHT, WRONG = [{"role": role, "content": text} for role, text in (("user", "1+1="), ("assistant", "2"),
                                                                         ("assistant", "3"))]  # fmt: skip
TEMPLATE = "{% for m in messages %}{{ m.content }}{% if m.role == 'assistant' %}{{ eos_token }}{% endif %}{% endfor %}"
FILES = [
    ("sft", {"text": "1+1=2"}),
    ("sft", {"messages": [USER, RIGHT, USER, RIGHT]}),
    ("sft", {"prompt": [USER], "completion": [RIGHT]}),
    ("sft", {"question": "1+1=", "answer": "2"}),
    ("grpo", {"question": "1+1=", "answer": "2", "metadata": {"n": 2}}),
    ("grpo", {"prompt": [USER], "data_source": "x", "reward_model": {"ground_truth": "2"}, "answer": "2"}),
    ("dpo", {"prompt": [USER], "chosen": [RIGHT], "rejected": [WRONG]}),
    ("dpo", {"chosen": "1+1= 2", "rejected": "1+1= 3"}),
]


def small(algorithm: str, tmp_path: Path, rows: list[dict[str, Any]], **changes: Any) -> Run:
    (tmp_path / "chat.jinja").write_text(TEMPLATE, encoding="utf-8")
    data = tmp_path / "rows.jsonl"
    data.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    reward = ("oneloop.rewards.functions:exact_match",) if algorithm == "grpo" else ()
    run = replace(default_run(algorithm), model="scratch:tiny", data=str(data), out=str(tmp_path / "run"), steps=2)
    run = replace(run, chat_template=str(tmp_path / "chat.jinja"), reward=reward, prompts_per_step=2)
    return replace(run, max_new_tokens=3, group_size=min(run.group_size, 2), **changes)


@pytest.mark.parametrize(("algorithm", "row"), FILES, ids=[f"{name}-{'-'.join(row)}" for name, row in FILES])
def test_a_file_of_each_layout_trains(tmp_path: Path, algorithm: str, row: dict[str, Any]) -> None:
    out = execute(small(algorithm, tmp_path, [row] * 3), observer := Silent())
    assert len(read_run(out).metrics) == 2
    told = [line for line in observer.lines if "in the layout" in line]
    assert len(told) == 1, "what the rows were taken for is said, and once"


def test_rows_that_were_left_out_are_counted_with_every_step(tmp_path: Path) -> None:
    good = {"prompt": "1+1=", "completion": "2"}
    rows = [good, {"prompt": "", "completion": "2"}, good, {"prompt": "1" * 5000, "completion": "2"}]
    run = small("sft", tmp_path, rows, on_bad_row="skip", long_prompts="skip")
    record = read_run(execute(run, Silent()))
    assert record.series("data/skipped_rows")[1] == [1.0, 1.0]
    assert record.series("data/long_skipped")[1] == [1.0, 1.0]
    with pytest.raises(DataError, match=r"rows\.jsonl:4: prompt and completion exceed the model's context"):
        execute(replace(run, long_prompts="error", out=str(tmp_path / "other")), Silent())


def test_held_out_rows_come_from_the_data(tmp_path: Path) -> None:
    rows = [{"prompt": f"{number}+1=", "completion": str(number + 1)} for number in range(9)]
    run = small("sft", tmp_path, rows, eval_split="30%")
    inputs = read_inputs(run, kind_of(resolved(run)))
    assert inputs.eval_rows is not None and len(inputs.eval_rows) == 3 and len(inputs.rows) == 6
    assert not {row["prompt"] for row in inputs.rows} & {row["prompt"] for row in inputs.eval_rows}
    for other in (replace(run, eval_data=run.data), replace(run, data="task:addition")):
        with pytest.raises(ConfigError, match="--eval-split 30% beside"):
            read_inputs(other, kind_of(resolved(other)))
