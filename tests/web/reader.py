"""What a reader of the pages does and sees, and answers that stand in for the server's where numbers must be known."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

PHONE = {"viewport": {"width": 390, "height": 844}, "has_touch": True}
NONE = {"count": 0, "spans": []}


def value(page: Any, name: str) -> str:
    return page.locator(f"#{name} .value").inner_text().replace("\xa0", " ")


def choose(page: Any, legend: str, text: str) -> None:
    page.get_by_role("group", name=legend, exact=True).get_by_text(text, exact=True).click()


def fits(page: Any) -> bool:
    return page.evaluate("document.documentElement.scrollWidth <= innerWidth")


def steps(count: int) -> dict[str, Any]:
    """Facts of a table with the first so many steps."""
    return {"count": count, "spans": [[0, count - 1, 1]]}


def answer(row: int, group: int, sample: int, reward: float | None, **other: Any) -> dict[str, Any]:
    """A completion as the server answers it."""
    plain = {
        "prompt": f"prompt {group}", "completion": f"same {sample}", "cut": False, "rewards": {}, "advantage": 0.0,
        "length": 3, "stop": "eos", "kept": True, "answer": None, "target": None, "extras": {},
        "turns": None, "episode": None, "error": None,
    }  # fmt: skip
    return {"row": row, "group": group, "sample": sample, "reward": reward, **plain, **other}


def offer(
    page: Any,
    *,
    rollouts: Sequence[dict[str, Any]] | None = None,
    ratios: Any = None,
    tokens: Sequence[dict[str, Any]] | None = None,
    done: int = 1,
    **facts: Any,
) -> None:
    """A run called mine, which the lab then lists alone.

    Args:
        rollouts, tokens: rows of its first step.
        ratios: an answer, or what gives one for a route of Playwright.
        done: its steps.
    """
    given = {"rollouts": rollouts, "ratios": ratios, "tokens": tokens, "pairs": None}
    run = {
        "id": "mine", "name": "mine", "path": "mine", "kind": "oneloop", "status": "finished", "words": "finished",
        "algorithm": "grpo", "steps_done": done, "steps_total": done, "alerts": 0, "spark": [], "info": {},
        "config": [], "objective": None, "lacks": [], "metrics": [], "explain": {},
        "tables": {name: NONE if rows is None else steps(done) for name, rows in given.items()}, **facts,
    }  # fmt: skip
    answers = {
        "": run,
        "/rollouts*": {"step": 0, "columns": [], "rows": rollouts},
        "/tokens*": {"step": 0, "rows": tokens},
        "/ratios*": ratios,
    }
    page.route("**/api/runs", lambda route: route.fulfill(json={"runs": [run]}))
    for path, found in answers.items():
        page.route(f"**/api/runs/mine{path}", found if callable(found) else _fulfilled(found))


def _fulfilled(found: Any) -> Any:
    return lambda route: route.fulfill(json=found)
