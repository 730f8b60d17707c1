"""Source lines of the package, read and never run: the pages show the code that computes what they show."""

from __future__ import annotations

import ast
import threading
from functools import lru_cache
from pathlib import Path
from typing import Any

from oneloop.lab.answers import Refusal

PACKAGE = Path(__file__).parents[1]
NAMES = {
    "clip": ("objective/surrogate.py", "ClippedRatio.__call__"),
    "score_function": ("objective/surrogate.py", "ScoreFunction.__call__"),
    "clipped_weight": ("objective/surrogate.py", "ClippedWeight.__call__"),
    "gae": ("objective/advantage.py", "GAE.__call__"),
    "group_advantage": ("objective/advantage.py", "GroupRelative.__call__"),
    "leave_one_out": ("objective/advantage.py", "LeaveOneOut.__call__"),
    "whiten": ("objective/advantage.py", "whiten"),
    "dpo": ("objective/preference.py", "LogSigmoid.__call__"),
    "implicit_reward": ("objective/preference.py", "ImplicitReward.__call__"),
    "ipo": ("objective/preference.py", "SquaredMargin.__call__"),
    "kl": ("objective/divergence.py", "kl_estimate"),
    "adaptive_kl": ("objective/divergence.py", "AdaptiveKL.update"),
    "aggregate": ("objective/aggregate.py", "TokenMean.__call__"),
    "token_mean": ("objective/aggregate.py", "TokenMean.__call__"),
    "sequence_mean": ("objective/aggregate.py", "SequenceMean.__call__"),
    "fixed_length": ("objective/aggregate.py", "FixedLength.__call__"),
    "value_loss": ("objective/critic.py", "value_loss"),
    "explained_variance": ("objective/critic.py", "explained_variance"),
    "overlong": ("objective/shaping.py", "OverlongPenalty.__call__"),
    "mixed_outcome": ("objective/select.py", "MixedOutcome.__call__"),
    "truncated_importance": ("objective/correction.py", "TruncatedImportance.__call__"),
    "value_ppo": ("algorithms/__init__.py", "PPO"),
    "value_grpo": ("algorithms/__init__.py", "GRPO"),
    "value_dapo": ("algorithms/__init__.py", "DAPO"),
    "value_dr_grpo": ("algorithms/__init__.py", "DR_GRPO"),
    "loss": ("algorithms/policy_gradient.py", "PolicyGradient.loss"),
    "prepare": ("algorithms/policy_gradient.py", "PolicyGradient.prepare"),
    "loop": ("loop.py", "train"),
}
"""What may be asked for: a file of the package, and a function or a value in it. No path is made of a request."""

_parsing = threading.Lock()
"""Python 3.11 counts the depth of a tree for all threads together: two that parse at once may both fail."""


@lru_cache
def code(name: str) -> dict[str, Any]:
    """The lines of a value; of a function without its docstring; of a method the body alone. Raises: Refusal."""
    if name not in NAMES:
        raise Refusal(404, "there is no code of that name", f"one of {', '.join(NAMES)}")
    file, path = NAMES[name]
    text = (PACKAGE / file).read_text(encoding="utf-8")
    with _parsing:
        tree = ast.parse(text)
    node = _inside(tree, path.split("."))
    lines = text.splitlines()
    if isinstance(node, ast.Assign):
        shown = "\n".join(lines[node.lineno - 1 : node.end_lineno])
        return {"name": path, "file": f"src/oneloop/{file}", "line": node.lineno, "text": shown}
    body = node.body[1:] if ast.get_docstring(node) is not None else node.body
    start = body[0].lineno - 1
    while lines[start - 1].lstrip().startswith("#"):  # a comment before a statement belongs to it
        start -= 1
    chosen, indent, line = lines[start : node.end_lineno], body[0].col_offset, start + 1
    if "." not in path:
        chosen, indent, line = [*lines[node.lineno - 1 : node.body[0].lineno - 1], *chosen], 0, node.lineno
    shown = "\n".join(text[indent:] for text in chosen)
    return {"name": path, "file": f"src/oneloop/{file}", "line": line, "text": shown}


def _inside(tree: ast.AST, path: list[str]) -> ast.FunctionDef | ast.Assign:
    for name in path:
        tree = next(node for node in ast.iter_child_nodes(tree) if _name(node) == name)
    assert isinstance(tree, ast.FunctionDef | ast.Assign)
    return tree


def _name(node: ast.AST) -> str | None:
    if isinstance(node, ast.ClassDef | ast.FunctionDef):
        return node.name
    if isinstance(node, ast.Assign) and isinstance(node.targets[0], ast.Name):
        return node.targets[0].id
    return None
