"""What is wrong is told before torch is loaded, and a place is left as it was."""

import json
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
import io, json, sys
from contextlib import redirect_stderr, redirect_stdout
from oneloop.cli.main import run
for words in sys.argv[1:]:
    said = io.StringIO()
    with redirect_stdout(said), redirect_stderr(said):
        try:
            code = run(words.split())
        except SystemExit as end:
            code = end.code
    print(json.dumps([code, said.getvalue(), [name for name in sys.modules if "." not in name]]))
"""


def carried_out(folder: Path, *commands: str, **environment: str) -> list[tuple[int, str, set[str]]]:
    """Of each command: the exit code, what was said, and the modules that were loaded for it and those before it."""
    clean = {name: value for name, value in os.environ.items() if name not in ("WORLD_SIZE", "RANK", "LOCAL_RANK")}
    done = subprocess.run(
        [sys.executable, "-c", SCRIPT, *commands], stdout=subprocess.PIPE, text=True, cwd=folder, timeout=300,
        env=clean | {"HF_HUB_OFFLINE": "1", "PYTHONPATH": str(SRC)} | environment,
    )  # fmt: skip
    told = [json.loads(line) for line in done.stdout.splitlines()]
    assert len(told) == len(commands)
    return [(code, said, set(modules)) for code, said, modules in told]


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


@pytest.fixture(scope="module")
def told(tmp_path_factory) -> dict[str, tuple[int, str, set[str]]]:
    folder = tmp_path_factory.mktemp("bad")
    (folder / "broken.jsonl").write_text('{"prompt": "1+1="}\n{"prompt": "1+')
    (folder / "r.py").write_text("def f(completions, **columns):\n    return [0.0] * len(completions)\n")
    for name in ("empty", "taken"):
        (folder / name).mkdir()
        (folder / name / "file").touch()
    before = sorted(folder.rglob("*"))
    found = carried_out(folder, *(f"train {words}" for words in BAD))
    assert sorted(folder.rglob("*")) == before
    return dict(zip(BAD, found, strict=True))


@pytest.mark.parametrize("words", BAD)
def test_it_is_told_without_torch(words: str, told) -> None:
    code, said, modules = told[words]
    assert code == 2 and BAD[words] in said and "Traceback" not in said
    assert not modules & HEAVY


def test_what_explains_loads_torch_and_no_more(tmp_path: Path) -> None:
    for code, _, modules in carried_out(tmp_path, "diff ppo grpo", "explain dapo", "explain grpo --set kl=none"):
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
    ((code, told, modules),) = carried_out(tmp_path, words, WORLD_SIZE="2", RANK="0", **local)
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
