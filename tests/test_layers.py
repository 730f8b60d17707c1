"""The import borders of the design: what each room may know."""

import ast
from pathlib import Path

import pytest

SRC = Path(__file__).parents[1] / "src" / "oneloop"

PLAIN = {"types", "errors", "finite", "seeds", "methods", "secrets", "together", "pipes", "arithmetic"}
ADAPTERS = {"forward", "model", "rollout", "parallel", "environments", "rewards", "tasks", "data", "record"}
MAY_IMPORT = {
    "types": {"errors"},
    "errors": set(),
    "seeds": set(),
    "secrets": set(),
    "pipes": set(),
    "arithmetic": set(),
    "together": {"errors"},
    "room": set(),
    "batch": PLAIN,
    "objective": {"batch", "errors"},
    "ports": {"batch", "objective", *PLAIN},
    "algorithms": {"batch", "objective", "ports", "errors"},
    "sound": {"batch", "ports", "errors"},
    "loop": {"batch", "algorithms", "ports", "room", "sound", *PLAIN},
    "experience": {"batch", "objective", "algorithms", "ports", "together", *PLAIN},
    "forward": {"batch", "objective", "ports", *PLAIN},
    "model": {"batch", "objective", "ports", "forward", "room", *PLAIN},
    "rollout": {"batch", "objective", "ports", "forward", *PLAIN},
    "parallel": {"batch", "ports", "together", "forward", "model", *PLAIN},
    "classic": {"batch", "objective", "ports", "model", *PLAIN},
    "trace": {"batch", "objective", "algorithms", "ports", *PLAIN},
    "environments": {"rewards", *PLAIN},
    "sandbox": {"errors"},
    "rewards": {"sandbox", *PLAIN},
    "tasks": {"environments", "rewards", *PLAIN},
    "data": {"tasks", *PLAIN},
    "record": PLAIN,
    "health": PLAIN,
    "finite": {"errors"},
    "config": {"classic", "combinations", "errors", "finite"},
    "combinations": {"config", "errors"},
    "methods": {"config", "errors"},
    "toml": {"config", "errors"},
    "lab": {"record", "health", *PLAIN},
    "recipes": {
        "batch",
        "objective",
        "algorithms",
        "ports",
        "loop",
        "room",
        "sound",
        "together",
        "experience",
        "combinations",
        "config",
        "toml",
        "health",
        "lab",
        "classic",
        "trace",
        *ADAPTERS,
        *PLAIN,
    },
    "plan": {"algorithms", "batch", "config", "experience", "objective", "recipes", *(ADAPTERS - {"parallel"}), *PLAIN},
    "studies": {
        "algorithms",
        "batch",
        "config",
        "lab",
        "loop",
        "model",
        "objective",
        "plan",
        "ports",
        "recipes",
        "record",
        "tasks",
        *PLAIN,
    },
    "cli": {
        "algorithms",
        "classic",
        "combinations",
        "config",
        "toml",
        "health",
        "recipes",
        "plan",
        "studies",
        "lab",
        "model",
        "rollout",
        "record",
        "parallel",
        *PLAIN,
    },
    "notebook": {"cli", *PLAIN},
    "fitting": {
        "algorithms",
        "classic",
        "cli",
        "config",
        "data",
        "model",
        "notebook",
        "parallel",
        "recipes",
        "toml",
        *PLAIN,
    },
    "__init__": set(),
    "__main__": {"cli"},
}
NO_TORCH = (
    "types", "errors", "seeds", "methods", "secrets", "together", "pipes", "arithmetic", "sandbox", "rewards",
    "environments", "tasks", "data", "record", "health", "lab", "config", "combinations", "toml", "finite",
)  # fmt: skip
OBJECTIVE_MAY_USE = {"torch", "jaxtyping", "oneloop", "collections", "dataclasses", "math", "typing"}


def imports(path: Path) -> set[str]:
    """Dotted names of everything a file imports, blocks for type checkers included."""
    found = set()
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path}: relative import"
            found.add(node.module or "")
    return found


def room(path: Path) -> str:
    return path.relative_to(SRC).parts[0].removesuffix(".py")


def ours(names: set[str]) -> set[str]:
    return {name.split(".")[1] for name in names if name.startswith("oneloop.")}


FILES = sorted(SRC.rglob("*.py"))


@pytest.mark.parametrize("path", FILES, ids=lambda path: str(path.relative_to(SRC)))
def test_a_file_imports_only_what_its_room_may_know(path: Path) -> None:
    allowed = MAY_IMPORT[room(path)] | {room(path)}
    assert ours(imports(path)) <= allowed, f"{path} may import only {sorted(allowed)}"


@pytest.mark.parametrize("path", [p for p in FILES if room(p) in NO_TORCH], ids=lambda path: str(path.relative_to(SRC)))
def test_plain_rooms_never_import_torch(path: Path) -> None:
    assert not {name.split(".")[0] for name in imports(path)} & {"torch", "transformers"}


@pytest.mark.parametrize("path", [p for p in FILES if room(p) == "objective"], ids=lambda path: path.name)
def test_the_mathematics_needs_torch_and_nothing_else(path: Path) -> None:
    assert {name.split(".")[0] for name in imports(path)} <= OBJECTIVE_MAY_USE


def test_a_forbidden_import_would_be_seen(tmp_path: Path) -> None:
    """The mutant: a file of `objective` that asks for a model."""
    bad = tmp_path / "bad.py"
    bad.write_text("def f():\n    from oneloop.model.load import load_policy\n", encoding="utf-8")
    assert not ours(imports(bad)) <= MAY_IMPORT["objective"] | {"objective"}


@pytest.mark.parametrize("path", FILES, ids=lambda path: str(path.relative_to(SRC)))
def test_no_file_outgrows_one_idea(path: Path) -> None:
    assert len(path.read_text(encoding="utf-8").splitlines()) <= 400
