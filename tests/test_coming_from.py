"""docs/coming-from.md: files in the form of other libraries, taken from the page, train by the page's commands."""

import re
import runpy
import shlex
from pathlib import Path

from oneloop.cli.main import run
from oneloop.record.reader import read_run

PAGE = (Path(__file__).parents[1] / "docs" / "coming-from.md").read_text(encoding="utf-8")
TEMPLATE = "{% for m in messages %}{{ m.role }}: {{ m.content }}\n{% endfor %}"
SMALL = ["--steps", "2", "--prompts-per-step", "2", "--group-size", "2", "--chat-template", "chat.jinja"]


def test_files_and_rewards_of_other_libraries_train(tmp_path: Path, monkeypatch, capsys) -> None:
    monkeypatch.chdir(tmp_path)
    Path("chat.jinja").write_text(TEMPLATE, encoding="utf-8")
    for name, text in re.findall(r"```\w+ file=(\S+)\n(.*?)```", PAGE, re.DOTALL):
        Path(name).write_text(text, encoding="utf-8")
    runpy.run_path("make_parquet.py")
    blocks = re.findall(r"```bash\n(.*?)```", PAGE, re.DOTALL)
    commands = [shlex.split(line) for block in blocks for line in block.splitlines()]
    for tool, verb, *words in commands:
        assert tool == "oneloop"
        words = ["scratch:tiny" if word == "M" else word for word in words]
        assert run([verb, *words, "--max-new-tokens", "4", *(SMALL if verb == "train" else [])]) == 0
    for name in ("verl", "trl", "openrlhf", "reasoning-gym"):
        assert len(read_run(Path("runs") / name).metrics) == 2
    logged = {name: read_run(Path("runs") / name).metrics[0] for name in ("verl", "trl", "openrlhf")}
    assert logged["verl"]["rewards/compute_score/characters"] > 0
    assert logged["trl"]["rewards/right/characters"] > 0
    assert "rewards/reward_func/found" in logged["openrlhf"]
    said = capsys.readouterr().out
    for seen in (
        "the layout 'verl' (messages)",
        "in verl's form",
        "the layout 'OpenRLHF' (text)",
        "in OpenRLHF's form",
    ):
        assert seen in said
