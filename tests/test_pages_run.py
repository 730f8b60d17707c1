"""Every block of every page is carried out: in the page's order, in a folder of its own, at a size that learns nothing.

Models, data and reward files that a page only names stand there beforehand: `Qwen/Qwen3-0.6B` is a folder of that
name, for no test asks a hub. What needs hours, peers or a GPU (`make`, `benchmarks/`) is looked up and not run.
"""

import doctest
import json
import re
import runpy
import shutil
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any
from unittest.mock import patch

import pytest
from datasets import Dataset

import oneloop
from chat_models import save_chat_model
from oneloop.cli.main import run
from oneloop.cli.parse import parse_run
from oneloop.record.reader import read_run
from pages import PAGES, ROOT, Block, answers, blocks, commands, name_of
from spawned import once

SMALL = {
    "train": "--steps 1 --prompts-per-step 2 --minibatch 1 --data-size 6 --eval-size 2 --max-new-tokens 5 "
    "--max-refills 0 --device cpu",
    "eval": "--size 4 --max-new-tokens 4",
    "sample": "--max-new-tokens 4",
    "plan": "--prompts-per-step 2 --max-new-tokens 4",
    "train --env": "--steps 1 --envs 2 --steps-per-env 20 --minibatch 20 --eval-size 2",
    "eval --env": "--episodes 2",
}
"""Flags behind those that a page has; of a flag that is given twice the last one counts."""
AGENT_LIMITS = {"steps": 1, "envs": 2, "steps_per_env": 20, "eval_size": 2}
LIMITS = {"steps": 4, "prompts_per_step": 8, "data_size": 8, "eval_size": 2, "max_new_tokens": 4}
"""The same for `oneloop.fit`."""
NOT_RUN = {
    "text": "a drawing, a message, the output of hours or of another machine: no command stands in it",
    "console": "tests/test_docs.py runs it and compares what it prints",
    "slurm": "a cluster carries it out",
    "yaml": "a cluster carries it out",
    "py": "needs what is not installed here",
}
"""Languages that this file leaves alone."""
CARRIED_OUT = {"bash", "python", "toml", "json"}
SUMS = [(a, b) for a in range(4) for b in range(2)]


@pytest.fixture(scope="session")
def world(tmp_path_factory) -> Path:
    """What pages take for granted."""
    return once(tmp_path_factory, "world", furnished)


def furnished(home: Path) -> None:
    for name in ("M", "MODEL", "Qwen/Qwen3-0.6B"):
        save_chat_model(home / name, "qwen3")
    save_chat_model(home / "meta-llama" / "Llama-3.2-1B-Instruct", "llama3")
    _write(home, "rewards.py", "def exact(completions, answer, **columns):\n    return [0.0] * len(completions)\n")
    rows = [{"prompt": f"{a}+{b}=", "answer": str(a + b)} for a, b in SUMS]
    for name in ("train", "eval", "prompts"):
        _rows(home, name, rows)
    _rows(home, "demonstrations", [{"prompt": row["prompt"], "completion": row["answer"]} for row in rows])
    _rows(home, "pairs", [{"prompt": row["prompt"], "chosen": row["answer"], "rejected": "no"} for row in rows])
    asked = [{"role": "user", "content": "2+3"}]
    answered = [*asked, {"role": "assistant", "content": "5"}]
    _rows(home, "chats", [{"prompt": asked, "messages": answered, "answer": "5"}] * 4)
    graded = {"data_source": "sums", "prompt": asked, "reward_model": {"style": "rule", "ground_truth": "5"}}
    Dataset.from_list([graded] * 4).to_parquet(home / "train.parquet")
    for words in ("train sft --out {}/runs/sft", "train reward_model --model {0}/runs/sft/final --out {0}/runs/rm"):
        assert run([*words.format(home).split(), *SMALL["train"].split()]) == 0
    shutil.copytree(home / "runs" / "sft", home / "runs" / "ppo")


def _rows(folder: Path, name: str, rows: list[dict[str, Any]]) -> None:
    _write(folder, f"{name}.jsonl", "".join(json.dumps(row) + "\n" for row in rows))


def _write(folder: Path, name: str, text: str) -> None:
    with (folder / name).open("a", encoding="utf-8") as file:
        file.write(text)


def small_fit(algorithm, **settings):
    """`oneloop.fit`, no larger than `LIMITS`."""
    limits = AGENT_LIMITS if "env" in settings else LIMITS
    small = {name: min(settings.get(name, most), most) for name, most in limits.items()}
    return FIT(algorithm, **{**settings, **small})


FIT = oneloop.fit


def other_libraries(said: str) -> None:
    """docs/coming-from.md: the metrics of each library's reward are logged, and its form is named."""
    logged = {name: read_run(Path("runs") / name).metrics[0] for name in ("verl", "trl", "openrlhf", "reasoning-gym")}
    assert logged["verl"]["rewards/compute_score/characters"] > 0
    assert logged["trl"]["rewards/right/characters"] > 0
    assert "rewards/reward_func/found" in logged["openrlhf"]
    for form in ("the layout 'verl' (messages)", "the layout 'OpenRLHF' (text)"):
        assert form in said
    assert "in verl's form" in said and "in OpenRLHF's form" in said


AFTER: dict[str, Callable[[str], None]] = {"docs/coming-from.md": other_libraries}
"""What more a page's runs have to show, in their folder, by what was said."""


@pytest.mark.parametrize("page", [page for page in PAGES if blocks(page)], ids=name_of)
def test_every_block_is_carried_out(page: Path, request, tmp_path: Path, monkeypatch, capsys) -> None:
    found = blocks(page)
    unknown = [f"{block.line}: {block.language!r}" for block in found if block.language not in CARRIED_OUT | {*NOT_RUN}]
    assert not unknown, f"{page}: a test has to carry these out, or NOT_RUN has to say why not: {unknown}"
    if {block.language for block in found} <= {*NOT_RUN}:
        return
    shutil.copytree(request.getfixturevalue("world"), tmp_path, dirs_exist_ok=True)
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(str(tmp_path))
    for name in {block.file for block in found if block.file}:
        Path(name).unlink(missing_ok=True)
    for block in found:
        _file(block, page)
    for name in {block.file for block in found} & {"make_parquet.py"}:
        runpy.run_path(name)
    _shell([words for block in found if block.language == "bash" for words in commands(block.text)])
    _python([block.text for block in found if block.language == "python" and not block.file], page, monkeypatch)
    AFTER.get(name_of(page), str)(capsys.readouterr().out)
    if page.parent.name == "methods":
        _watched(page)


def _file(block: Block, page: Path) -> None:
    if block.language in ("toml", "json"):
        assert block.file, f"{page}:{block.line}: a file that no command reads; write {block.language} file=NAME"
    if block.file:
        _write(Path(), block.file, block.text)
        read = [b.text for b in blocks(page) if b is not block and b.language in ("bash", "python")]
        assert any(Path(block.file).stem in text for text in read) or block.file == "make_parquet.py"


def _shell(lines: list[list[str]]) -> None:
    made: set[str] = set()
    for tool, verb, *words in lines:
        if tool == "oneloop":
            _command(verb, words, made)
        elif tool == "torchrun":  # tests/parallel starts ranks; here it is asked whether the flags are there
            place = words.index("oneloop")
            assert words[place - 1] == "-m" and words[place + 1] == "train"
            parse_run(words[place + 2 :], "")
        elif tool == "make":
            assert re.search(rf"^{re.escape(verb)}:", (ROOT / "Makefile").read_text(encoding="utf-8"), re.MULTILINE)
        else:
            assert tool in (".venv/bin/python", "python"), f"{tool}: who runs this?"
            check_benchmark(verb, words)


def _command(verb: str, words: list[str], made: set[str]) -> None:
    if verb == "lab":  # it serves until it is stopped; tests/lab asks it, and tests/web opens it
        with patch("oneloop.lab.serve.serve") as serve:
            assert run([verb, *words]) == 0
        assert serve.call_count == 1
        return
    out = words[words.index("--out") + 1] if "--out" in words else ""
    assert not out or out not in made, f"two commands of the page write to {out}"
    made.add(out)
    if "--engine" in words:  # needs vLLM; tests/rollout drive one, and here it is asked whether the flags are there
        parse_run(words, "")
        return
    env = words[words.index("--env") + 1] if "--env" in words else ""
    folder = out or f"runs/{words[0]}{f'-{env}' if env else ''}"
    if verb == "train":
        shutil.rmtree(folder, ignore_errors=True)  # the page makes it itself; commands without --out are alternatives
    assert run([verb, *words, *SMALL.get(f"{verb} --env" if env else verb, "").split()]) == 0, words
    if verb == "train" and "--recipe" not in words:
        assert (Path(folder) / "final").is_dir()


def check_benchmark(script: str, words: list[str]) -> None:
    """The script is there, and so are its flags and cases: it takes minutes to hours, and some need a GPU."""
    text = (ROOT / script).read_text(encoding="utf-8")
    assert [word for word in words if word.startswith("--") and f'"{word}"' not in text] == []
    if script == "benchmarks/compare.py":
        cases = runpy.run_path(str(ROOT / "benchmarks/cases/values.py"))["CASES"]
        named = " ".join(words).partition("--case")[2].partition(" --")[0].split()
        assert [name for name in named if name not in cases] == []


def _python(texts: list[str], page: Path, monkeypatch) -> None:
    if any(text.startswith(">>>") for text in texts):
        failures, count = doctest.testfile(str(page), module_relative=False, encoding="utf-8")
        assert count and not failures
        return
    monkeypatch.setattr(oneloop, "fit", small_fit)
    Path("page.py").write_text("\n".join(texts), encoding="utf-8")
    runpy.run_path("page.py", run_name="__main__")
    assert all(Path(out, "final").is_dir() for text in texts for out in re.findall(r'out="(runs/\w+)"', text))
    sys.modules.pop("rewards", None)


def _watched(page: Path) -> None:
    """docs/methods: each metric that a page tells to watch is one that its recipes have logged."""
    table = page.read_text(encoding="utf-8").partition("## Watch")[2].partition("## ")[0]
    records = [read_run(folder.parent) for folder in Path("runs").glob("*/run.json")]
    logged = {name for record in records for row in record.metrics for name in row}
    missing = set(re.findall(r"^\| `([\w/]+)`", table, re.MULTILINE)) - logged
    if "entropy" not in logged:  # dynamic sampling found no group to learn from: no update, and nothing to say of one
        missing -= {"entropy", "clip/gradient_zero"}
    assert not missing


def test_commands_in_the_text_exist() -> None:
    """`python benchmarks/...` and `make ...` beside a number: what reproduces it is there."""
    lines = {line for page in PAGES for line in re.findall(r"`([^`\n]*)`", page.read_text(encoding="utf-8"))}
    scripts = [line.partition("python ")[2].split() for line in lines if re.search(r"(^|[ /])python benchmarks/", line)]
    assert len(scripts) > 10
    for script, *words in scripts:
        check_benchmark(script, words)
    _shell([line.split() for line in lines if re.fullmatch(r"make [a-z-]+", line)])


def test_a_text_block_hides_no_command() -> None:
    for page in PAGES:
        for block in blocks(page):
            if block.language == "text":
                assert not re.search(r"^(\$ |oneloop \w+ [\w-]|make |python )", block.text, re.MULTILINE), block.line


def test_what_consoles_show_is_compared() -> None:
    assert sum(len(answers(page)) for page in PAGES) > 10
