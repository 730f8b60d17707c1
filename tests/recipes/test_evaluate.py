"""`oneloop eval`: answers, pairs and demonstrations, alone and against another model."""

import json
import os
from dataclasses import replace
from math import exp, log
from pathlib import Path

import pytest
import torch
from pyarrow import parquet

from oneloop.cli.main import run as command
from oneloop.config import default_run
from oneloop.errors import ConfigError, DataError
from oneloop.model.load import load_policy, load_reward_model, load_tokenizer
from oneloop.model.save import save_policy
from oneloop.recipes.evaluate import Exam, evaluate, kind_of_exam
from oneloop.recipes.execute import execute
from oneloop.recipes.measured import Difference, Measured, Score, Value, perplexity
from oneloop.record.reader import read_run
from oneloop.record.statistics import Interval, mean_interval, ratio_interval, wilson
from oneloop.tasks import TASKS
from toy_models import Silent

TASK = {"data": "task:addition", "size": 6, "max_new_tokens": 4}


@pytest.fixture(scope="module")
def models(tmp_path_factory) -> Path:
    """A policy, and a reward model with a score head of random numbers."""
    folder = tmp_path_factory.mktemp("models")
    save_policy(folder / "policy", load_policy("scratch:tiny", seed=3), load_tokenizer("scratch:tiny"))
    scorer = load_reward_model(folder / "policy")
    torch.manual_seed(1)
    torch.nn.init.normal_(scorer.score.weight)
    save_policy(folder / "scorer", scorer, load_tokenizer("scratch:tiny"))
    return folder


def values(found, name: str) -> list:
    (measured,) = [measured for measured in found.measured if measured.name == name]
    return [value.total for value in measured.values]


def test_demonstrations_are_read_as_training_reads_them(models: Path, tmp_path: Path) -> None:
    """The loss of `oneloop eval` is eval/loss of a run that starts with this model, with the same rows."""
    found = evaluate(str(models / "policy"), Exam(**TASK, kind="demonstrations"))
    loss, power = found.scores
    run = replace(default_run("sft"), model=str(models / "policy"), data="task:addition", eval_size=6, eval_every=1)
    run = replace(run, steps=1, data_size=8, prompts_per_step=2, out=str(tmp_path / "run"))
    start = read_run(execute(run, Silent())).evaluations[0]
    assert loss.mean == pytest.approx(start["eval/loss"], rel=1e-5)
    assert power.mean == pytest.approx(exp(loss.mean)) and power.interval.low == pytest.approx(exp(loss.interval.low))


def test_a_reward_model_ranks_pairs_as_training_says(models: Path, tmp_path: Path) -> None:
    found = evaluate(str(models / "scorer"), Exam(**TASK))
    assert found.kind == "preferences", "seen by its architecture"
    run = replace(default_run("reward_model"), model=str(models / "scorer"), data="task:addition", eval_size=6)
    run = replace(run, steps=1, eval_every=1, data_size=8, prompts_per_step=2, out=str(tmp_path / "run"))
    start = read_run(execute(run, Silent())).evaluations[0]
    accuracy, margin = found.scores
    assert accuracy.mean == pytest.approx(start["eval/rewards/accuracies"])
    assert margin.mean == pytest.approx(start["eval/rewards/margins"], rel=1e-4)
    assert accuracy.interval == wilson(round(accuracy.mean * 6), 6)


def test_a_policy_ranks_pairs_by_its_log_probs(models: Path) -> None:
    alone = evaluate(str(models / "policy"), Exam(**TASK, kind="preferences"))
    beside = evaluate(str(models / "policy"), Exam(**TASK, kind="preferences", reference=str(models / "policy")))
    other = evaluate("scratch:tiny", Exam(**TASK, kind="preferences"))
    against = evaluate(str(models / "policy"), Exam(**TASK, kind="preferences", reference="scratch:tiny"))
    assert values(beside, "margin") == [0.0] * 6, "π = π_ref implies no reward"
    assert values(beside, "accuracy") == [0.0] * 6, "a tie is not right"
    differences = [a - b for a, b in zip(values(alone, "margin"), values(other, "margin"), strict=True)]
    assert values(against, "margin") == pytest.approx(differences, abs=1e-4)


def test_what_training_reads_can_be_evaluated(models: Path, tmp_path: Path, capsys) -> None:
    """A package's task with its own scorer; columns of other names."""
    policy = ["eval", "--model", str(models / "policy"), "--max-new-tokens", "4"]
    assert command([*policy, "--data", "reasoning-gym:chain_sum?size=40&seed=1"]) == 0
    assert "test questions; scored by reasoning_gym's scorer of chain_sum" in capsys.readouterr().out
    (tmp_path / "rows.jsonl").write_text('{"question": "1+1=", "solution": "2"}\n')
    rows = [*policy, "--data", str(tmp_path / "rows.jsonl"), "--reward", "exact_match"]
    assert command([*rows, "--columns", "question=prompt"]) == 2
    assert "Fix: --columns solution=answer" in capsys.readouterr().err
    assert command([*rows, "--columns", "question=prompt", "solution=answer"]) == 0


def test_answers_are_saved_and_compared_prompt_by_prompt(models: Path, tmp_path: Path, capsys) -> None:
    (tmp_path / "grade.py").write_text(
        "def even(completion_ids, **columns):\n    return [float(sum(ids) % 2 == 0) for ids in completion_ids]\n"
        "def short(completion_ids, **columns):\n    return [1 / len(ids) for ids in completion_ids]\n"
    )
    grade = f"{tmp_path / 'grade.py'}:even"
    words = ["eval", "--model", str(models / "policy"), "--against", "scratch:tiny", "--data", "task:addition"]
    words += ["--size", "6", "--samples", "3", "--temperature", "1", "--max-new-tokens", "4", "--pass-at", "1", "2"]
    assert command([*words, "--reward", grade, "--out", str(tmp_path / "out")]) == 0
    printed = capsys.readouterr().out
    results = json.loads((tmp_path / "out" / "results.json").read_text(encoding="utf-8"))
    first, second = (
        parquet.read_table(tmp_path / "out" / f"{name}.parquet").to_pylist() for name in ("completions", "against")
    )
    assert [row["prompt"] for row in first] == [row["prompt"] for row in second]
    assert {"step", "prompt", "completion", "even", "reward", "group", "sample", "length", "stop"} <= first[0].keys()
    differences = [a["reward"] - b["reward"] for a, b in zip(first, second, strict=True)]
    reward = results["differences"][0]
    assert reward["mean"] == pytest.approx(sum(differences) / 18)
    if any(differences):
        assert reward["interval"] == pytest.approx(list(mean_interval(differences, [row["group"] for row in first])))
    by_prompt = [sum(differences[3 * place : 3 * place + 3]) for place in range(6)]
    assert (reward["higher"], reward["lower"]) == (sum(d > 0 for d in by_prompt), sum(d < 0 for d in by_prompt))
    names = [score["name"] for score in results["models"][0]["scores"]]
    assert names == ["reward", "pass@1", "pass@2", "finished"]
    scores = {score["name"]: score["mean"] for score in results["models"][0]["scores"]}
    assert scores["pass@1"] == pytest.approx(scores["reward"]) and scores["pass@2"] >= scores["pass@1"]
    assert "n = 18 to 6 prompts" in printed and "minus scratch:tiny" in printed
    # the same answers once more, with a part of the reward for each function
    found = evaluate(str(models / "policy"), Exam(**TASK, reward=(grade, grade.replace("even", "short"))))
    assert [score.name for score in found.scores] == ["reward", "even", "short", "finished"]
    with pytest.raises(ConfigError, match="neither right nor wrong"):
        evaluate("scratch:tiny", Exam(**TASK, reward=(grade.replace("even", "short"),), pass_at=(1,)))


def test_a_fixed_seed_gives_the_same_answers_to_both(models: Path) -> None:
    exam = Exam(**TASK, samples=2, temperature=1.0)
    first, second = (evaluate("scratch:tiny", exam) for _ in range(2))
    assert [item.text for item in first.items] == [item.text for item in second.items]
    held_out = [row["prompt"] for row in TASKS["addition"].prompts(TASK["size"], exam.seed, "test")]
    assert list(dict.fromkeys(item.prompt.text for item in first.items)) == held_out
    reward = first.against(second)[0]
    assert reward.mean == 0 and reward.equal == 6 and not reward.told_apart
    assert reward.interval == (-wilson(0, 6).high, wilson(0, 6).high), "six prompts cannot rule out a difference"


def test_what_the_rows_are(models: Path, tmp_path: Path) -> None:
    row = {"prompt": "1+1="}
    kinds = {"preferences": {"chosen": "2", "rejected": "3"}, "demonstrations": {"completion": "2"}, "prompts": {}}
    for kind, more in kinds.items():
        (tmp_path / f"{kind}.jsonl").write_text(json.dumps(row | more))
        assert kind_of_exam("scratch:tiny", Exam(data=str(tmp_path / f"{kind}.jsonl"))) == kind
    with_completion = Exam(data=str(tmp_path / "demonstrations.jsonl"), reward=("a.py:f",))
    assert kind_of_exam("scratch:tiny", with_completion) == "prompts"
    assert kind_of_exam(str(models / "scorer"), Exam(data="task:addition")) == "preferences"


OWN_FLAGS = {
    "greedy twice": (["--samples", "4"], "--samples 4 with --temperature 0"),
    "pass at": (["--samples", "2", "--temperature", "1", "--pass-at", "4"], "Fix: --samples 4"),
    "no rows": (["--size", "0"], "--size is 0"),
    "reward for pairs": (["--kind", "preferences", "--reward", "a.py:f"], "--reward"),
    "out": (["--out", "{models}"], "is there already"),
    "top p": (["--top-p", "2"], "top_p is 2"),
}


@pytest.mark.parametrize("case", OWN_FLAGS)
def test_a_mistake_is_answered_with_flags_of_this_command(case: str, models: Path, capsys) -> None:
    words, wanted = OWN_FLAGS[case]
    words = [word.format(models=models) for word in words]
    assert command(["eval", "--model", "scratch:tiny", "--data", "task:addition", "--size", "4", *words]) == 2
    message = capsys.readouterr().err
    assert wanted in message and "--eval-" not in message


def test_gates_on_pairs_and_not_on_losses(models: Path, capsys) -> None:
    words = ["eval", "--model", str(models / "scorer"), "--data", "task:addition", "--size", "4"]
    assert command([*words, "--fail-under", "1.1"]) == 3
    assert "accuracy" in capsys.readouterr().err
    assert command([*words, "--fail-under", "0"]) == 0
    assert "nothing was saved; --out DIR" in capsys.readouterr().out
    words[2] = "scratch:tiny"
    assert command([*words, "--kind", "demonstrations", "--fail-under", "0"]) == 2
    assert "a loss is not one" in capsys.readouterr().err


def test_models_that_cannot_do_what_is_asked(models: Path, tmp_path: Path) -> None:
    for kind in ("prompts", "demonstrations"):
        with pytest.raises(
            ConfigError, match=f"--kind {kind}: --model .*scorer is a reward model and only ranks pairs"
        ):
            evaluate(str(models / "scorer"), Exam(**TASK, kind=kind))
    first = evaluate("scratch:tiny", Exam(**TASK, kind="demonstrations"))
    second = evaluate("scratch:tiny", Exam(**{**TASK, "size": 5}, kind="demonstrations"))
    with pytest.raises(DataError, match="one tokenizer"):
        first.against(second)


def test_a_reward_model_on_prompts_is_sent_to_what_works(models: Path, tmp_path: Path, capsys) -> None:
    """It can rank pairs and nothing else: no fix names a --kind or a reward."""
    (tmp_path / "rows.jsonl").write_text('{"prompt": "1+1=", "answer": "2"}\n')
    words = ["eval", "--model", str(models / "scorer"), "--data", str(tmp_path / "rows.jsonl")]
    assert command(words) == 2
    message = capsys.readouterr().err
    assert "a reward model needs prompt + chosen + rejected" in message
    assert message.endswith("Fix: --data with pairs, or a policy for --model\n")
    assert command([*words, "--reward", "exact_match"]) == 2
    assert capsys.readouterr().err.endswith("Fix: leave it out, or a policy for --model\n")
    (tmp_path / "pairs.jsonl").write_text('{"prompt": "1+1=", "chosen": "2", "rejected": "3"}\n')
    assert command([*words[:-1], str(tmp_path / "pairs.jsonl")]) == 0
    policy = ["eval", "--model", "scratch:tiny", "--max-new-tokens", "4", *words[3:], "--reward", "exact_match"]
    assert command(policy) == 0


def test_other_rows_than_the_kind_says_name_the_kind_that_fits(tmp_path: Path, capsys) -> None:
    (tmp_path / "rows.jsonl").write_text('{"prompt": "1+1=", "answer": "2"}\n')
    words = ["eval", "--model", "scratch:tiny", "--data", str(tmp_path / "rows.jsonl"), "--kind", "preferences"]
    assert command(words) == 2
    assert capsys.readouterr().err.endswith("Fix: --kind prompts\n")


def test_a_mean_over_tokens_has_rows_for_clusters() -> None:
    """Rows of 1, 3 and 2 tokens with losses 2, 3 and 1: mean 6/6 = 1, residuals 1, 0 and −1, so SE² = 3/2 · 2/36."""
    measured = Measured("loss", (Value("a", 2.0, 1), Value("b", 3.0, 3), Value("c", 1.0, 2)))
    score = measured.score()
    half = 1.959963984540054 * (3 / 36) ** 0.5
    assert score.mean == 1 and score.interval == pytest.approx((1 - half, 1 + half))
    assert ratio_interval([2.0, 3.0, 1.0], [1, 3, 2]) == score.interval
    assert perplexity(score).mean == pytest.approx(exp(1)) and log(perplexity(score).interval.low) < 1


def test_unscored_answers_are_left_out_of_both_sides() -> None:
    first = Measured("reward", (Value("a", 1.0), Value("b", None), Value("c", 0.0), Value("d", 1.0)))
    second = Measured("reward", (Value("a", 0.0), Value("b", 1.0), Value("c", None), Value("d", 0.0)))
    difference = first.minus(second)
    assert (difference.mean, difference.higher, difference.equal, difference.lower) == (1.0, 2, 0, 0)
    assert (first.score().answers, first.score().unscored, first.score().prompts) == (3, 1, 3)
    alone = Measured("reward", (Value("a", 1.0), *(Value(key, None) for key in "bcd")))
    assert alone.minus(first) is None
    assert str(alone.score()) == "reward          none of 3 answers could be scored" and alone.score().mean is None


def test_how_results_read() -> None:
    assert str(Score("reward", 0.5, Interval(0.25, 0.75), 8, 1, 4)) == (
        "reward          0.5000  95 % [0.2500, 0.7500]  n = 8 to 4 prompts, 1 unscored"
    )
    assert str(Difference("reward", 0.1, Interval(-0.1, 0.3), 3, 4, 1)) == (
        "reward          +0.1000  95 % [-0.1000, +0.3000]  higher on 3, equal on 4, lower on 1 of 8 prompts"
        "  (0 is inside: not told apart)"
    )


def test_a_bad_row_is_skipped_when_that_is_asked_for(tmp_path: Path, capsys) -> None:
    lines = ['{"q": "1+1=", "answer": "2"}', '{"q": null, "answer": "2"}', '{"q": "2+2=", "answer": "4"}']
    (tmp_path / "rows.jsonl").write_text("\n".join(lines))
    words = ["eval", "--model", "scratch:tiny", "--data", str(tmp_path / "rows.jsonl"), "--reward", "exact_match"]
    words += ["--columns", "q=prompt", "--max-new-tokens", "4"]
    assert command(words) == 2
    assert "rows.jsonl:2" in capsys.readouterr().err
    assert command([*words, "--on-bad-row", "skip"]) == 0
    assert "n = 2" in capsys.readouterr().out
    assert command([*words, "--on-bad-row", "skip", "--split", "validation"]) == 2
    assert "--split validation" in capsys.readouterr().err


def test_files_of_verl_are_evaluated_as_they_are(tmp_path: Path, capsys) -> None:
    import pyarrow as pa

    rows = [
        {
            "data_source": "sums",
            "prompt": [{"role": "user", "content": f"{n}+1="}],
            "reward_model": {"style": "rule", "ground_truth": str(n + 1)},
            "extra_info": {"index": n},
        }
        for n in range(3)
    ]
    parquet.write_table(pa.Table.from_pylist(rows), tmp_path / "test.parquet")
    (tmp_path / "score.py").write_text(
        "import os\n"
        "def compute_score(data_source, solution_str, ground_truth, extra_info=None):\n"
        f"    open({str(tmp_path / 'pid')!r}, 'w').write(str(os.getpid()))\n"
        "    assert data_source == 'sums' and extra_info['index'] == int(ground_truth) - 1\n"
        "    return {'score': 0.5, 'extra': 1}\n"
        "def hang(solution_str, extra_info):\n    import time\n    time.sleep(1000 * (extra_info['index'] == 1))\n"
        "    return 1.0\n"
    )
    template = tmp_path / "chat.jinja"
    template.write_text("{% for message in messages %}{{ message.content }}{% endfor %}")
    words = ["eval", "--model", "scratch:tiny", "--data", str(tmp_path / "test.parquet"), "--max-new-tokens", "4"]
    words += ["--chat-template", str(template), "--reward"]
    assert command([*words, f"{tmp_path / 'score.py'}:compute_score"]) == 0
    printed = capsys.readouterr().out
    assert "reward          0.5000" in printed and "verl's form" in printed
    with pytest.raises(ProcessLookupError):
        os.kill(int((tmp_path / "pid").read_text()), 0)
    words += [f"{tmp_path / 'score.py'}:hang", "--reward-timeout", "3", "--reward-workers", "3"]
    assert command(words) == 1
    assert "was not done after 3 s" in capsys.readouterr().err
    assert command([*words, "--on-reward-error", "unscored"]) == 0
    printed = capsys.readouterr().out
    assert "reward hang failed on 1 of 3 answers, which are unscored: 1 × was not done after 3 s" in printed
    assert "n = 2 to 2 prompts, 1 unscored" in printed or "n = 2, 1 unscored" in printed
