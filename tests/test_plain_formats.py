"""Nothing that oneloop reads can run code: no pickle, no code that comes with a model."""

import ast
from pathlib import Path

import pytest

SRC = Path(__file__).parents[1] / "src" / "oneloop"
FILES = sorted(SRC.rglob("*.py"))
RUNS_CODE = {"pickle", "_pickle", "cloudpickle", "dill", "shelve", "marshal", "joblib"}
WANTED = {"trust_remote_code": False, "allow_pickle": False, "weights_only": True}
"""What these arguments must be, wherever they are given."""


def found(source: str) -> list[str]:
    """What of it would let a file run code."""
    bad = []
    for node in ast.walk(ast.parse(source)):
        names = []
        if isinstance(node, ast.Import):
            names = [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            names = [node.module or ""]
        bad += [name for name in names if name.partition(".")[0] in RUNS_CODE]
        if isinstance(node, ast.keyword) and node.arg in WANTED:
            value = node.value.value if isinstance(node.value, ast.Constant) else None
            bad += [f"{node.arg}={value}"] * (value is not WANTED[node.arg])
        if isinstance(node, ast.Call) and ast.unparse(node.func) in ("torch.load", "eval", "exec"):
            given = {keyword.arg for keyword in node.keywords}
            bad += [ast.unparse(node.func)] * ("weights_only" not in given)
    return bad


@pytest.mark.parametrize("path", FILES, ids=lambda path: str(path.relative_to(SRC)))
def test_no_file_of_the_package_reads_what_can_run_code(path: Path) -> None:
    """But in a sandbox, where a program is run on purpose."""
    confined = ["exec"] if path.parent.name == "inside" and path.parts[-3] in ("sandbox", "code") else []
    assert found(path.read_text(encoding="utf-8")) in ([], confined)


@pytest.mark.parametrize(
    "line",
    ["import pickle", "from pickle import loads", "import torch; torch.load(f)", "load(f, weights_only=False)",
     "load(m, trust_remote_code=True)", "load(m, trust_remote_code=asked)", "np.load(f, allow_pickle=True)", "eval(x)"],
)  # fmt: skip
def test_it_would_be_seen(line: str) -> None:
    assert found(line)
