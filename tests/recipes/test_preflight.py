"""What is wrong is told before torch is loaded, and a place is left as it was."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

from oneloop.algorithms import ALGORITHMS
from oneloop.errors import ConfigError
from oneloop.methods import LEARNS_FROM, check_name
from oneloop.model import source
from oneloop.model.source import check_source
from oneloop.recipes.resolve import kind_of

SRC = Path(source.__file__).parents[2]
HEAVY = {"torch", "transformers", "peft", "pandas", "scipy", "matplotlib"}
SCRIPT = """
import sys
from oneloop.cli.main import run
try:
    code = run(sys.argv[1:])
except SystemExit as end:
    code = end.code
print(code, *sys.modules, file=sys.stderr)
"""


def carried_out(words: str, folder: Path, **environment: str) -> tuple[int, str, set[str]]:
    """The exit code, what was said, and the modules that were loaded for it."""
    clean = {name: value for name, value in os.environ.items() if name not in ("WORLD_SIZE", "RANK", "LOCAL_RANK")}
    done = subprocess.run(
        [sys.executable, "-c", SCRIPT, *words.split()], capture_output=True, text=True, cwd=folder, timeout=300,
        env=clean | {"HF_HUB_OFFLINE": "1", "PYTHONPATH": str(SRC)} | environment,
    )  # fmt: skip
    *said, last = done.stderr.splitlines()
    code, *modules = last.split()
    return int(code), "\n".join([done.stdout, *said]), set(modules)


def test_names_and_kinds_are_those_of_the_values() -> None:
    assert {name: kind_of(value) for name, value in ALGORITHMS.items()} == LEARNS_FROM
    assert list(LEARNS_FROM) == list(ALGORITHMS)


@pytest.mark.parametrize("name", ["dr-grpo", "DR-GRPO", "dr_grppo"])
def test_a_name_that_is_nearly_right(name: str) -> None:
    with pytest.raises(ConfigError, match="Did you mean 'dr_grpo'"):
        check_name(name)


BAD = {
    "grpo --lr 3": "--learning-rate 3",
    "grpo --steps three": "three",
    "--recipe none.toml": "none.toml",
    "dappo": "Did you mean 'dapo'",
    "grpo --data none.jsonl": "none.jsonl",
    "grpo --data task:none": "there is no task",
    "grpo --data broken.jsonl --reward r.py:f": "broken.jsonl:2",
    "grpo --reward none.py:f": "no file none.py",
    "grpo --reward r.py:g": "has no 'g'",
    "grpo --model ./none": "no such folder",
    "grpo --model nobody/nothing": "HF_HUB_OFFLINE=1 is set",
    "grpo --model empty": "no config.json",
    "grpo --out empty/file": "is a file",
    "grpo --out taken": "holds files, but no run",
    "grpo --device warp": "wanted cpu, cuda or cuda:N",
}


@pytest.mark.parametrize("words", BAD)
def test_it_is_told_without_torch(words: str, tmp_path: Path) -> None:
    (tmp_path / "broken.jsonl").write_text('{"prompt": "1+1="}\n{"prompt": "1+')
    (tmp_path / "r.py").write_text("def f(completions, **columns):\n    return [0.0] * len(completions)\n")
    for name in ("empty", "taken"):
        (tmp_path / name).mkdir()
        (tmp_path / name / "file").touch()
    before = sorted(tmp_path.rglob("*"))
    code, said, modules = carried_out(f"train {words}", tmp_path)
    assert code == 2 and BAD[words] in said and "Traceback" not in said
    assert not modules & HEAVY
    assert sorted(tmp_path.rglob("*")) == before


@pytest.mark.parametrize("words", ["diff ppo grpo", "explain dapo", "explain grpo --set kl=none"])
def test_what_explains_loads_torch_and_no_more(words: str, tmp_path: Path) -> None:
    code, _, modules = carried_out(words, tmp_path)
    assert code == 0 and modules & HEAVY == {"torch"}


@pytest.mark.parametrize(
    "words, said",
    [
        ("train grpo --out run", "but LOCAL_RANK is ''"),
        ("demo --out run", "oneloop demo is one process"),
        ("train grpo --out run --ranks 3", "ranks = 3, and there are 2"),
    ],
)
def test_an_environment_that_does_not_fit(words: str, said: str, tmp_path: Path) -> None:
    local = {"LOCAL_RANK": "1"} if "ranks" in words or "demo" in words else {}
    code, told, modules = carried_out(words, tmp_path, WORLD_SIZE="2", RANK="0", **local)
    assert code == 2 and said in told
    assert not modules & HEAVY and list(tmp_path.iterdir()) == []


def test_a_hub_that_does_not_answer_is_asked_once_and_for_a_moment(tmp_path: Path, monkeypatch) -> None:
    import huggingface_hub.constants as hub

    monkeypatch.setattr(hub, "HF_HUB_OFFLINE", False)
    monkeypatch.setattr(hub, "ENDPOINT", "http://127.0.0.1:9")  # the port that discards: nobody listens
    monkeypatch.setattr(hub, "HF_HUB_CACHE", str(tmp_path))
    (tmp_path / "models--someone--small-model").mkdir()
    monkeypatch.setattr(source, "_cached", lambda name: name == "in/cache")
    source.reachable.cache_clear()
    with pytest.raises(ConfigError, match=r"127.0.0.1:9 cannot be reached.*Nearest local: someone/small-model\."):
        check_source("someone/small-modell")
    check_source("in/cache")
    assert hub.HF_HUB_OFFLINE  # nothing else waits for it in this process
    source.reachable.cache_clear()


def test_a_run_folder_is_not_a_model_and_says_where_it_is(tmp_path: Path) -> None:
    run = tmp_path / "run"
    (run / "final").mkdir(parents=True)
    (run / "run.json").write_text("{}")
    with pytest.raises(ConfigError, match="did not finish"):
        check_source(run)
    (run / "final" / "config.json").write_text("{}")
    with pytest.raises(ConfigError, match=f"Fix: --model {run / 'final'}"):
        check_source(run)
    check_source(run / "final")
    with pytest.raises(ConfigError, match=r"There is: .*run"):
        check_source(tmp_path / "runn")
