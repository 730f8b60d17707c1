"""A user's mistake ends in one message and the right exit code, never in a traceback."""

import json
from pathlib import Path

import pytest

from oneloop.cli.main import run

QUICK = ["--model", "scratch:tiny", "--steps", "1", "--prompts-per-step", "2", "--max-new-tokens", "4"]


def outcome(words: list[str], capsys) -> tuple[int, str]:
    try:
        code = run(words)
    except SystemExit as end:
        code = int(str(end.code))
    captured = capsys.readouterr()
    # tyro frames its messages on either stream
    return code, captured.err + captured.out


@pytest.fixture
def files(tmp_path: Path, monkeypatch) -> Path:
    monkeypatch.chdir(tmp_path)
    good = [{"prompt": f"{n}+1=", "answer": str(n + 1)} for n in range(4)]
    (tmp_path / "train.jsonl").write_text("\n".join(map(json.dumps, good)))
    (tmp_path / "noprompt.jsonl").write_text("\n".join([json.dumps(good[0]), '{"question": "2+2="}']))
    (tmp_path / "broken.jsonl").write_text('{"prompt": "1+1="}\n{"prompt": "1+')
    (tmp_path / "rewards.py").write_text(
        "def short(completions, **columns):\n    return [1.0]\n"
        "def none(completions, **columns):\n    return None\n"
        "def nan(completions, **columns):\n    return [float('nan')] * len(completions)\n"
        "def raising(completions, **columns):\n    raise KeyError('answer')\n"
        "exact = 3\n"
    )
    (tmp_path / "typo.toml").write_text('algorithm = "grpo"\ngroup_sise = 4\n')
    (tmp_path / "type.toml").write_text('algorithm = "grpo"\nsteps = "ten"\n')
    (tmp_path / "taken").mkdir()
    (tmp_path / "taken" / "run.json").write_text("{}")
    return tmp_path


def train(*words: str) -> list[str]:
    return ["train", *words, *QUICK]


BAD_USAGE = {
    "unknown command": (["trian"], "oneloop train"),
    "plan of a name that is too long": (["plan", "grpo", "--model", "a" * 300], "no policy can be planned"),
    "unknown flag": (["train", "grpo", "--stepz", "3"], "--steps"),
    "bad value": (["train", "grpo", "--steps", "three"], "three"),
    "no algorithm": (["train"], "which algorithm"),
    "unknown algorithm": (train("dappo"), "Did you mean 'dapo'"),
    "swapped letters": (train("gpro"), "Did you mean 'grpo'"),
    "stray word": (["train", "grpo", "rows.jsonl"], "'rows.jsonl' after grpo belongs to no flag"),
    "switch with a value": (train("grpo", "--gradient_checkpointing", "True"), "Fix: --gradient_checkpointing"),
    "switch off": (train("grpo", "--score-early=false"), "Fix: --no-score-early"),
    "missing data": (train("grpo", "--data", "trian.jsonl", "--reward", "rewards.py:short"), "trian.jsonl"),
    "row without prompt": (train("grpo", "--data", "noprompt.jsonl", "--reward", "rewards.py:nan"), "noprompt.jsonl:2"),
    "broken row": (train("grpo", "--data", "broken.jsonl", "--reward", "rewards.py:nan"), "broken.jsonl:2"),
    "wrong columns": (train("dpo", "--data", "train.jsonl"), "chosen"),
    "no reward": (train("grpo", "--data", "train.jsonl"), "--reward file.py:function"),
    "needless reward": (train("sft", "--reward", "rewards.py:nan"), "never calls a reward"),
    "no such reward": (train("grpo", "--reward", "rewards.py:shrt"), "Did you mean 'short'"),
    "no reward file": (train("grpo", "--reward", "reward.py:short"), "no file reward.py"),
    "not a function": (train("grpo", "--reward", "rewards.py:exact"), "is a int"),
    "weights": (train("grpo", "--reward", "rewards.py:nan", "--reward-weights", "1", "2"), "2 values for 1"),
    "group of one": (train("grpo", "--group-size", "1"), "--group-size 8"),
    "pairs of three": (train("dpo", "--group-size", "3"), "--group-size 2"),
    "truncated sampling": (train("grpo", "--top-p", "0.8"), "biased"),
    "top k": (train("ppo", "--top-k", "20"), "truncated distribution"),
    "out is taken": (train("grpo", "--out", "taken"), "--resume"),
    "no such model": (["train", "grpo", "--model", "./nothing"], "no such folder"),
    "no such scratch": (["train", "grpo", "--model", "scratch:huge"], "scratch:"),
    "unknown task": (train("grpo", "--data", "task:chainsum"), "task:chain_sum"),
    "recipe typo": (["train", "--recipe", "typo.toml"], "'group_size'"),
    "recipe type": (["train", "--recipe", "type.toml"], "wanted int"),
    "no recipe": (["train", "--recipe", "none.toml"], "none.toml"),
    "greedy twice": (train("grpo", "--eval-samples", "2"), "--eval-temperature 1"),
    "device": (train("grpo", "--device", "warp"), "--device warp"),
    "zero steps": (["train", "grpo", "--steps", "0"], "--steps is 0"),
    "set": (train("grpo", "--set", "kl.coeff=1"), "'coef'"),
    "inert set": (train("grpo", "--set", "kl.estimator=k1"), "zero expected gradient"),
    "no critic": (train("grpo", "--set", "advantage=GAE()"), "needs a critic"),
    "explain": (["explain", "ppoo"], "'ppo'"),
    "diff": (["diff", "ppo"], "two algorithms"),
    "report": (["report", "nowhere"], "not a run folder"),
}


@pytest.mark.parametrize("case", BAD_USAGE)
def test_bad_usage_is_exit_code_2(case: str, files: Path, capsys) -> None:
    words, wanted = BAD_USAGE[case]
    code, message = outcome(words, capsys)
    assert code == 2
    assert wanted in message
    assert "Traceback" not in message


FAILURES = {
    "short": "1 values for 8 completions",
    "none": "NoneType",
    "nan": "nan",
    "raising": "rewards.py:8",
}


@pytest.mark.parametrize("name", FAILURES)
def test_a_broken_reward_is_exit_code_1(name: str, files: Path, capsys) -> None:
    words = train("grpo", "--data", "train.jsonl", "--reward", f"rewards.py:{name}", "--out", "run")
    code, message = outcome(words, capsys)
    assert code == 1
    assert FAILURES[name] in message and name in message
    assert "Traceback" not in message
    assert json.loads((files / "run" / "run.json").read_text())["status"] == "failed"


def test_a_failed_gate_is_exit_code_3(capsys) -> None:
    words = ["eval", "--model", "scratch:tiny", "--data", "task:addition", "--size", "4", "--max-new-tokens", "3"]
    assert outcome(words, capsys)[0] == 0
    code, message = outcome([*words, "--fail-under", "0.5"], capsys)
    assert code == 3 and "--fail-under 0.5" in message


def test_the_traceback_is_there_for_those_who_ask(monkeypatch) -> None:
    from oneloop.errors import ConfigError

    monkeypatch.setenv("ONELOOP_TRACEBACK", "1")
    with pytest.raises(ConfigError):
        run(["explain", "ppoo"])
