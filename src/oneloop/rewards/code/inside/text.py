"""The text of tests: what of it counts, which names are the program's, and that its asserts are counted."""

from __future__ import annotations
import __future__

import ast
import builtins
import symtable
import warnings
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from importlib import import_module
from types import CodeType
from typing import ClassVar

_CHECK, _CANDIDATE = "check", "candidate"
_ENTRY = "<entry point>"
"""A name that no text can define."""
_OF_MODULES = frozenset(("__name__", "__doc__", "__builtins__", "__annotations__", "__debug__", "__class__"))
_SCOPES = (ast.FunctionDef, ast.AsyncFunctionDef, ast.Lambda)


class Ungradable(Exception):
    """Why no program could pass."""


@dataclass(frozen=True)
class Step:
    """Statements that are run together."""

    code: CodeType
    unit: bool
    """They count by themselves."""


@dataclass(frozen=True)
class Text:
    COUNTED: ClassVar[str] = "<assert>"
    """The name, which no program can write, of what counts asserts."""
    steps: tuple[Step, ...]
    program: dict[str, str]
    """Names that are the program's, and what they are called there."""

    @property
    def units(self) -> int:
        return sum(step.unit for step in self.steps)


def parsed(text: str, entry_point: str | None, alone: bool) -> Text:
    """
    Args:
        alone: its asserts count by themselves; else it counts as a whole.

    Raises: Ungradable.
    """
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            tree, table = ast.parse(text), symtable.symtable(text, "tests.py", "exec")
            return _text(tree, table, entry_point, alone)
    except (SyntaxError, ValueError, RecursionError, MemoryError) as error:
        raise Ungradable(f"the tests are no Python that can be read ({type(error).__name__})") from None


def _text(tree: ast.Module, table: symtable.SymbolTable, entry_point: str | None, alone: bool) -> Text:
    free, defined = _names(tree, table)
    has_check = _CHECK in defined
    if not has_check and not any(isinstance(node, ast.Assert) for node in ast.walk(tree)):
        raise Ungradable("the tests hold no assert and no check")
    body = list(tree.body)
    if has_check and not any(map(_calls_check, body)):
        if entry_point is None:
            raise Ungradable("the tests define check and never call it, which needs the column entry_point")
        body.append(_call_of_check())
    program = _of_the_program(free, entry_point)
    _count_asserts(body)
    features = _features(tree)
    steps = _steps(body, has_check) if alone else [(body, True)]
    if not any(unit for _, unit in steps):
        steps = [(body, True)]
    return Text(tuple(Step(_compiled(part, features), unit) for part, unit in steps), program)


def _call_of_check() -> ast.stmt:
    call = ast.Call(ast.Name(_CHECK, ast.Load()), [ast.Name(_ENTRY, ast.Load())], [])
    return ast.fix_missing_locations(ast.Expr(call))


def _of_the_program(free: set[str], entry_point: str | None) -> dict[str, str]:
    if entry_point is None:
        return {name: name for name in free if not hasattr(builtins, name)}
    unknown = sorted(name for name in free - {entry_point, _CANDIDATE} if not hasattr(builtins, name))
    if unknown:
        raise Ungradable(
            f"the tests use the name {unknown[0]!r}, which they do not define and which is not entry_point"
        )
    return {name: entry_point for name in (entry_point, _CANDIDATE, _ENTRY)}


# names


def _names(tree: ast.Module, table: symtable.SymbolTable) -> tuple[set[str], set[str]]:
    """Those that are looked up and nowhere defined, and those that are defined for the whole text."""
    used, defined = set[str](), set[str]()
    for scope in _tables(table):
        for symbol in scope.get_symbols():
            binds = symbol.is_assigned() or symbol.is_imported() or symbol.is_namespace()
            top = scope is table or symbol.is_declared_global()
            if binds and top:
                defined.add(symbol.get_name())
            if symbol.is_referenced() and (top or symbol.is_global()):
                used.add(symbol.get_name())
    for node in ast.walk(tree):
        if isinstance(node, ast.ImportFrom) and node.names[0].name == "*":
            defined |= _public(node.module or "")
    return used - defined - _OF_MODULES, defined


def _tables(table: symtable.SymbolTable) -> Iterator[symtable.SymbolTable]:
    yield table
    for child in table.get_children():
        yield from _tables(child)


def _public(module: str) -> set[str]:
    """What `from module import *` defines."""
    try:
        found = import_module(module)
    except Exception:  # which the text will meet too
        return set()
    return set(getattr(found, "__all__", [name for name in vars(found) if not name.startswith("_")]))


# units


def _steps(body: Sequence[ast.stmt], has_check: bool) -> list[tuple[list[ast.stmt], bool]]:
    """Statements between units go together."""
    steps: list[tuple[list[ast.stmt], bool]] = []
    for statement in body:
        unit = isinstance(statement, ast.Assert) or (has_check and _is_call_of_check(statement))
        if not unit and steps and not steps[-1][1]:
            steps[-1][0].append(statement)
        else:
            steps.append(([statement], unit))
    return steps


def _is_call_of_check(node: ast.AST) -> bool:
    return isinstance(node, ast.Expr) and _is_check(node.value)


def _is_check(node: ast.AST) -> bool:
    return isinstance(node, ast.Call) and isinstance(node.func, ast.Name) and node.func.id == _CHECK


def _calls_check(statement: ast.AST) -> bool:
    """Outside of functions."""
    left: list[ast.AST] = [statement]
    while left:
        node = left.pop()
        if _is_check(node):
            return True
        if not isinstance(node, _SCOPES):
            left += ast.iter_child_nodes(node)
    return False


# code


def _count_asserts(body: Sequence[ast.stmt]) -> None:
    """Every assert hands the value that it looks at through the counter."""
    for statement in body:
        for node in ast.walk(statement):
            if isinstance(node, ast.Assert):
                counted = ast.Call(ast.Name(Text.COUNTED, ast.Load()), [node.test], [])
                ast.copy_location(counted, node.test)
                ast.copy_location(counted.func, node.test)
                node.test = counted


def _features(tree: ast.Module) -> int:
    """What `from __future__ import` asks for, which holds for all of the text."""
    flags = 0
    for node in tree.body:
        if isinstance(node, ast.ImportFrom) and node.module == "__future__":
            for alias in node.names:
                flags |= getattr(getattr(__future__, alias.name, None), "compiler_flag", 0)
    return flags


def _compiled(body: list[ast.stmt], flags: int) -> CodeType:
    return compile(ast.Module(body, []), "tests.py", "exec", flags=flags, dont_inherit=True)
