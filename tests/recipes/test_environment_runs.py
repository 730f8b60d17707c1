"""Training in environments, from the command's settings to the run folder: short runs, resumed ones, and refusals."""

import json
from dataclasses import replace
from pathlib import Path

import pytest
from test_resume import killed_after

from oneloop.cli.main import run as command
from oneloop.config import Run, default_run
from oneloop.errors import ConfigError, EnvironmentFailed
from oneloop.recipes.evaluate import Exam, evaluate
from oneloop.recipes.execute import execute
from oneloop.record.reader import read_run
from same_run import differs
from spawned import once
from toy_models import Silent

ENVIRONMENT = '''
from time import sleep

from oneloop.environments import Step


class Vowels:
    """Pays for vowels, three times; slower for long words."""

    def reset(self, row):
        self.left = 3
        return [{"role": "user", "content": row["prompt"]}]

    def step(self, completion):
        sleep(0.001 * len(completion))
        self.left -= 1
        share = sum(letter in "aeiou" for letter in completion.lower()) / 4
        answer = {"role": "user", "content": f"{len(completion)}?"}
        return Step(messages=[answer], reward=share, terminated=not self.left)


class Fails(Vowels):
    def step(self, completion):
        if "e" in completion.lower():
            raise ValueError("no e")
        return super().step(completion)


def digits(completions, **columns):
    return [float("3" in text) for text in completions]
'''


@pytest.fixture(scope="session")
def start(tmp_path_factory) -> Path:
    """A policy that ends its turns, and the file above."""
    return once(tmp_path_factory, "speaks", _spoken)


def _spoken(folder: Path) -> None:
    run = replace(default_run("sft"), out=str(folder / "sft"), data="task:guess", steps=40, prompts_per_step=16)
    execute(replace(run, learning_rate=3e-3, data_size=100, eval_size=4, trace=False), Silent())
    (folder / "mine.py").write_text(ENVIRONMENT)


def short(start: Path, out: Path, algorithm: str = "grpo", **changes) -> Run:
    run = replace(
        default_run(algorithm), model=str(start / "sft" / "final"), data="task:guess", environment="guess",
        out=str(out), steps=2, prompts_per_step=3, minibatch=0, group_size=3, max_new_tokens=4, max_turns=4,
        learning_rate=1e-3, data_size=12, eval_size=4,
    )  # fmt: skip
    return replace(run, **changes)


def in_order(row: dict) -> list[int]:
    """The ids of a row of tokens/, those that were masked among them."""
    heard = list(zip(row.get("masked_at") or [], row.get("masked_id") or [], strict=True))
    ids = []
    for place in range(len(row["id"]) + 1):
        ids += [id for at, id in heard if at == place] + row["id"][place : place + 1]
    return ids


@pytest.mark.parametrize("name", ["calculator", "guess", "lookup"])
def test_each_environment_trains_from_end_to_end(start, tmp_path, name) -> None:
    run = short(start, tmp_path / name, environment=name, data=f"task:{name}", max_new_tokens=6)
    execute(run, Silent())
    record = read_run(tmp_path / name)
    last = record.metrics[-1]
    assert last["turns/mean"] >= 1 and last["tokens/prefilled"] > 0 and f"rewards/{name}/mean" in last
    assert "eval/reward" in last and "eval/turns/mean" in last
    rows = record.rollouts(1)
    assert len(rows) == 9 and all(row["length"] <= 24 for row in rows)
    turns = [json.loads(row["turns"]) for row in rows]
    assert all(said[0]["role"] == "assistant" for said in turns)
    traced = {(row["group"], row["sample"]): row for row in record.rows("tokens", 1)}
    for said, row in zip(turns, rows, strict=True):
        ids = [id for turn in said for id in turn.get("ids", [])]
        assert in_order(traced[row["group"], row["sample"]]) == ids, "what was masked stands where it was said"
        assert sum(len(turn["ids"]) for turn in said if turn.get("chosen")) == row["length"]
    answered = [said[0]["reward"] for said in turns if "reward" in said[0]]
    assert answered and all(value in (0.0, 1.0) for value in answered)
    assert (tmp_path / name / "final" / "chat_template.jinja").is_file(), "whoever goes on with it speaks the same way"


CASES = [("ppo", {"group_size": 1, "epochs": 2, "minibatch": 2}), ("dapo", {"max_refills": 2})]


@pytest.mark.parametrize(("algorithm", "changes"), CASES, ids=lambda value: str(value)[:12])
def test_resumed_in_the_middle_it_is_the_same_run(start, tmp_path, monkeypatch, algorithm, changes) -> None:
    """Three turns that are paid for each, by environments that are never equally fast."""
    environment = f"{start / 'mine.py'}:Vowels"
    settings = {"environment": environment, "steps": 4, "save_every": 2, "eval_every": 2} | changes
    whole = short(start, tmp_path / "whole", algorithm, **settings)
    execute(whole, Silent())
    assert read_run(tmp_path / "whole").metrics[-1]["turns/mean"] > 1.5
    broken = replace(whole, out=str(tmp_path / "broken"), resume=True, accept_loss=True)
    for step in (0, 2):
        killed_after(broken, step, monkeypatch)
    execute(broken, Silent())
    assert differs(tmp_path / "whole", tmp_path / "broken") == ""


def test_drawn_ahead_of_training_it_comes_out_the_same_again(start, tmp_path) -> None:
    """Beside the trainer, by rounds; no update comes between two turns, however slow an environment is."""
    environment = f"{start / 'mine.py'}:Vowels"
    run = short(start, tmp_path / "one", environment=environment, staleness=1, steps=3, eval_size=2)
    execute(run, Silent())
    execute(replace(run, out=str(tmp_path / "other")), Silent())
    assert differs(tmp_path / "one", tmp_path / "other") == ""
    record = read_run(tmp_path / "one")
    assert [row["rollout/staleness"] for row in record.metrics] == [0.0, 1.0, 1.0], "whole episodes, one update old"
    assert all(row["turns/mean"] > 1 for row in record.metrics)


def test_failures_end_the_run_or_leave_samples_unscored(start, tmp_path, monkeypatch) -> None:
    monkeypatch.setattr("oneloop.experience.rollouts.MOST_FAILURES", 1.0)
    environment = f"{start / 'mine.py'}:Fails"
    run = short(start, tmp_path / "stop", environment=environment, prompts_per_step=8)
    with pytest.raises(
        EnvironmentFailed, match=r"environment Fails at row \d+, turn \d: step raised ValueError: no e at"
    ):
        execute(run, Silent())
    run = replace(run, out=str(tmp_path / "unscored"), on_reward_error="unscored", steps=1)
    execute(run, Silent())
    record = read_run(tmp_path / "unscored")
    rows = record.rollouts(0)
    failed = [row for row in rows if row["stop"] == "error"]
    assert failed and all(row["reward"] is None and row["Fails"] is None for row in failed)
    assert record.metrics[0]["rewards/unscored"] == len(failed) == record.metrics[0]["rewards/Fails/failed"]
    (alert,) = [event for event in record.events if event["code"] == "A_REWARD"]
    assert "ValueError: no e" in alert["text"]


def test_functions_may_judge_beside_the_environment(start, tmp_path) -> None:
    run = short(
        start, tmp_path / "both", environment=f"{start / 'mine.py'}:Vowels", reward=(f"{start / 'mine.py'}:digits",),
        reward_weights=(2.0, 0.5), steps=1,
    )  # fmt: skip
    execute(run, Silent())
    for row in read_run(tmp_path / "both").rollouts(0):
        assert row["reward"] == pytest.approx(2 * row["Vowels"] + 0.5 * row["digits"])


def test_a_learned_reward_reads_the_whole_conversation(start, tmp_path, monkeypatch) -> None:
    """Beside the environment's: of every episode the prompt and all that stands behind it, as ids."""
    from transformers import AutoModelForSequenceClassification

    from oneloop.model.load import load_policy, load_tokenizer
    from oneloop.model.reward import LearnedReward

    source, folder, seen = str(start / "sft" / "final"), tmp_path / "judge", []
    config = load_policy(source).config
    config.num_labels = 1
    config.pad_token_id = 0
    AutoModelForSequenceClassification.from_config(config).save_pretrained(folder)
    load_tokenizer(source).save_pretrained(folder)
    real = LearnedReward.__call__

    def watched(self, completions, prompt_ids, episode_ids, **columns):
        scores = real(self, completions, prompt_ids, episode_ids, **columns)
        seen.extend(zip(prompt_ids, episode_ids, scores, strict=True))
        return scores

    monkeypatch.setattr(LearnedReward, "__call__", watched)
    environment = f"{start / 'mine.py'}:Vowels"
    run = short(start, tmp_path / "out", environment=environment, reward_model=str(folder), reward_weights=(2.0, 0.5))
    execute(replace(run, steps=1), Silent())
    tokenizer = load_tokenizer(source)
    rows = read_run(tmp_path / "out").rollouts(0)
    assert len(seen) == len(rows) == 9
    for row, (_, ids, score) in zip(rows, seen, strict=True):
        assert tokenizer.decode(ids, skip_special_tokens=True).startswith(row["completion"])
        assert row["reward_model"] == pytest.approx(score)
        assert row["reward"] == pytest.approx(2 * row["Vowels"] + 0.5 * score)
    assert any("?" in row["completion"] for row in rows), "what the environment said is part of it"


def test_an_evaluation_plays_too(start, tmp_path, capsys) -> None:
    model = str(start / "sft" / "final")
    exam = Exam(data="task:guess", environment="guess", max_new_tokens=4, size=40, temperature=1.0)
    found = evaluate(model, exam)
    assert found.measured[0].name == "reward" and 0 < found.scores[0].mean < 1
    assert evaluate(model, exam).scores == found.scores
    assert max(len([turn for turn in item.turns if turn.chosen]) for item in found.items) > 1
    words = ["--model", model, "--data", "task:guess", "--environment", "guess", "--size", "6", "--max-new-tokens", "4"]
    assert command(["eval", *words, "--out", str(tmp_path / "result")]) == 0
    assert (tmp_path / "result" / "completions.parquet").is_file()


WRONG = [
    (["sft", "--data", "task:guess"], "sft learns from demonstrations and draws nothing that could be answered"),
    (
        ["grpo", "--data", "task:guess", "--staleness", "1", "--in-flight", "continue"],
        "when an environment answers would decide which weights draw the next turn. Fix: --in-flight finish",
    ),
    (
        ["grpo", "--data", "task:guess", "--staleness", "1", "--engine", "vllm"],
        "a server may be asked only where weights are sent and ranks meet. Fix: --staleness 0, or --engine builtin",
    ),
    (
        ["grpo", "--data", "task:guess", "--staleness", "1", "--engine", "http://h:1"],
        "--environment guess with --staleness 1 and --engine http://h:1: an episode's turns",
    ),
    (["grpo", "--data", "task:guess", "--environment", "gues"], "--environment gues: Did you mean guess?"),
    (["grpo", "--data", "task:guess", "--max-turns", "0"], "--max-turns is 0; wanted at least 1"),
    (["grpo", "--data", "task:guess", "--reward-weights", "1", "1"], "--reward-weights has 2 values for 1 rewards"),
]


def refusal(words: list[str], capsys) -> str:
    """What a command that is refused says, whoever breaks its lines."""
    try:
        code = command(words)
    except SystemExit as end:
        code = end.code
    assert code == 2
    captured = capsys.readouterr()
    return " ".join(word for word in (captured.err + captured.out).split() if word not in "│|")


@pytest.mark.parametrize(
    ("words", "said"), WRONG, ids=lambda value: value[:40] if isinstance(value, str) else "-".join(value)
)
def test_what_does_not_go_together_is_refused(words, said, capsys, tmp_path) -> None:
    flags = [] if "--environment" in words else ["--environment", "guess"]
    assert said in refusal(["train", *words, *flags, "--out", str(tmp_path / "out")], capsys)


def test_what_belongs_to_environments_is_refused_without_one(capsys, tmp_path) -> None:
    out = ["--out", str(tmp_path / "out")]
    for flag in ("--max-episode-tokens", "--max-turns"):
        assert f"{flag} 100 without --environment" in refusal(["train", "grpo", flag, "100", *out], capsys)
        asked = ["eval", "--model", "scratch:tiny", "--data", "task:addition", flag, "100"]
        assert f"{flag} 100 without --environment" in refusal(asked, capsys)
    negative = ["train", "grpo", "--environment", "guess", "--max-episode-tokens", "-5", *out]
    assert "--max-episode-tokens is -5" in refusal(negative, capsys)
    assert "Fix: --environment guess" in refusal(["train", "grpo", "--data", "task:guess", *out], capsys)


def test_a_reward_may_not_be_called_like_the_environment(start) -> None:
    run = short(start, Path("runs/never"), environment="guess", reward=("mine.py:guess",))
    from oneloop.recipes.inputs import check_parts
    from oneloop.rewards import NamedReward

    with pytest.raises(ConfigError, match="a function is named 'guess', as the environment is"):
        check_parts(run.environment, [NamedReward("guess", len)])


def test_python_may_hand_over_the_class(monkeypatch) -> None:
    """Its description stands in the run; without the class the run says what to hand over again."""
    from oneloop import fitting
    from oneloop.environments.guess import Guess
    from oneloop.recipes.given import NOTHING
    from oneloop.recipes.inputs import read_environment

    class Reached(Exception): ...

    seen = []

    def execute(run, watcher, given, ranks):
        seen.append((run, given))
        raise Reached

    monkeypatch.setattr(fitting, "execute", execute)
    with pytest.raises(Reached):
        fitting.fit("grpo", model="scratch:tiny", data="task:guess", environment=Guess, quiet=True)
    run, given = seen[0]
    assert run.environment == "python:oneloop.environments.guess.Guess" and given.environment is Guess
    stage = read_environment(run, "prompts", (), given.environment)
    assert stage.name == "Guess" and stage.make is Guess
    with pytest.raises(ConfigError, match=r"^environment = .* was handed over in Python"):
        NOTHING.check(run)
    with pytest.raises(ConfigError, match=r"^environment = python:.*: int is a int; wanted a class"):
        read_environment(replace(run, environment="python:int"), "prompts", (), 7)


def test_the_longest_answer_is_of_all_turns(start) -> None:
    """What DAPO punishes and Dr. GRPO divides by is the budget of an episode."""
    from oneloop.recipes.resolve import resolved

    run = short(start, Path("runs/never"), "dr_grpo", max_turns=5)
    assert run.longest == 20 and resolved(run).aggregate.tokens == 20
    assert replace(run, environment="", max_turns=8).longest == 4
    assert resolved(replace(run, algorithm="dapo")).shape.max_length == 20
