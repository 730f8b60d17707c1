"""One panel over all stages of the demo, and its table at 80 columns."""

from __future__ import annotations

import io
from pathlib import Path

import pytest
from rich.console import Console

from oneloop.cli import stages as module
from oneloop.cli.demo import results_table
from oneloop.cli.stages import Stages
from oneloop.recipes.demo import CAPTION, EXPECTED_SECONDS, HEADER, Result, stages
from oneloop.recipes.evaluate import Score
from oneloop.record.statistics import Interval


def console(terminal: bool, width: int = 80) -> Console:
    return Console(file=io.StringIO(), width=width, force_terminal=terminal, color_system=None, highlight=False)


def test_every_stage_has_its_share() -> None:
    assert list(EXPECTED_SECONDS) == list(stages(Path("x"), 0))


def test_progress_over_all_stages_by_hand(monkeypatch) -> None:
    """30 of 100 expected seconds are past, and half of the 20 that come now: 40 %. 80 s so far, so 120 s are left."""
    clock = [0.0]
    monkeypatch.setattr(module, "monotonic", lambda: clock[0])
    panel = Stages({"a": 30.0, "b": 20.0, "c": 50.0}, console(True))
    assert panel.done() == 0 and panel.left(5.0) is None
    panel.begin("a", 3)
    assert panel.done() == 0
    watcher = panel.begin("b", 2)
    watcher.step(0, {"reward": 0.5})
    clock[0] = 80.0
    assert panel.done() == pytest.approx(0.4) and panel.left(80.0) == pytest.approx(120.0)


@pytest.mark.parametrize("width", [60, 80, 120])
def test_the_panel_of_the_demo_fits(width) -> None:
    screen = console(True, width)
    panel = Stages(EXPECTED_SECONDS, screen)
    watcher = panel.begin("reward_model", 60)
    watcher.phase("rollout")
    watcher.step(0, {"loss": 0.5, "grad_norm": 1234.5})
    screen.print(panel)
    lines = screen.file.getvalue().splitlines()
    assert all(len(line) <= width for line in lines) and len(lines) == 4
    assert "reward_model (2 of 7)" in lines[0] and "step 1/60" in lines[1]


def test_what_a_stage_came_to_stays() -> None:
    screen = console(True)
    panel = Stages({"a": 1.0, "b": 1.0}, screen)
    panel.begin("a", 2).step(0, {"reward": 0.5})
    panel.begin("b", 2)
    assert screen.file.getvalue() == "a: 1 steps; reward 0.500\n"


def test_lines_without_a_terminal() -> None:
    screen = console(False)
    watcher = Stages({"a": 1.0}, screen).begin("a", 20)
    for step in range(4):
        watcher.step(step, {"reward": 0.5})
    lines = screen.file.getvalue().splitlines()
    assert "─ a ─" in lines[0] and [line.split(" |")[0] for line in lines[1:]] == ["step 2/20", "step 4/20"]


def test_the_table_fits_80_columns_and_breaks_no_number() -> None:
    score = Score("reward", 1.0, Interval(0.9991, 1.0), 512, 0)
    models = "policy, reference, separate critic, reward model"
    results = [Result("reinforce_pp", models, score, score, None, 1234.0)]
    results += [Result("reward_model", "policy", None, None, (1.0, Interval(0.9991, 1.0)), 12.0)]
    screen = console(False)
    screen.print(results_table(CAPTION, HEADER, [result.cells() for result in results]))
    text = screen.file.getvalue()
    assert all(len(line) <= 80 for line in text.splitlines())
    assert text.count("100.0% [99.9, 100.0]") == 3
    assert "pairs ranked right" in text
    assert {"reinforce_pp", "policy,", "reference,", "separate", "critic,", "reward", "model"} <= set(text.split())
