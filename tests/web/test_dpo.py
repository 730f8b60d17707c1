"""/learn/dpo, operated as a reader does."""

from __future__ import annotations

import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import recorded_runs as runs
from reader import PHONE, fits, value

from oneloop.record.reader import read_run

TARGETS = {0.1: 1.383, 0.5: 0.818, 1.0: 0.377, 2.0: 0.122}


@pytest.fixture(scope="session")
def recorded(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A DPO run of five steps; pairs are kept of the first and the fifth."""
    return runs.record(tmp_path_factory.mktemp("runs") / "pairs", "dpo", steps=5, learning_rate=1e-3)


@pytest.fixture
def at(lab: Any, page: Any, recorded: Path) -> Callable[[str], Any]:
    address = lab(recorded)
    return lambda path: page.goto(address + path)


def number(page: Any, name: str) -> float:
    found = re.search(r"−?[\d,.]+", value(page, name))
    assert found, value(page, name)
    return float(found[0].replace("−", "-").replace(",", ""))


def to(page: Any, beta: float) -> None:
    """Move the slider with the arrow keys."""
    slider = page.get_by_role("slider", name="β")
    slider.focus()
    while (now := float(slider.input_value())) != pytest.approx(beta):
        slider.press("ArrowRight" if now < beta else "ArrowLeft")


def test_with_drawn_labels_every_beta_ends_at_the_same_gap_and_at_its_own_kl(page: Any, at: Any) -> None:
    at("/learn/dpo")
    assert value(page, "status").startswith("at the reference")
    for beta, kl in TARGETS.items():
        to(page, beta)
        assert number(page, "pairs") == 0  # a new β starts again
        page.get_by_role("button", name="To the end").click()
        assert number(page, "pairs") == 100_000
        assert abs(number(page, "gap") - 2.8) <= 0.3
        assert abs(number(page, "kl") / kl - 1) <= 0.05
        assert value(page, "status").startswith("at the target")
    marks = page.locator("svg[aria-label^='Over β'] rect.dot")
    assert marks.count() == 4  # one for each β that was tried
    assert "does not" in page.locator("section", has_text="blows the gap up").inner_text()


def test_run_pause_and_reset(page: Any, at: Any) -> None:
    at("/learn/dpo?beta=0.5")
    page.get_by_role("button", name="Run").click()
    page.locator("#pairs .value").filter(has_text=re.compile(r"^[1-9]")).wait_for()
    page.get_by_role("button", name="Pause").click()
    seen = number(page, "pairs")
    assert 0 < seen < 100_000
    page.get_by_role("button", name="Step").click()
    assert number(page, "pairs") == seen + 1
    page.get_by_role("button", name="Reset").click()
    assert (number(page, "pairs"), number(page, "gap"), number(page, "kl")) == (0, 0, 0)


@pytest.mark.parametrize("page", [{}, PHONE], indirect=True)
def test_one_step_makes_the_preferred_answer_likelier(page: Any, at: Any) -> None:
    at("/learn/dpo?beta=1")
    page.get_by_role("button", name="Step").click()
    found = re.search(r"([A-D]) preferred to ([A-D])", page.locator("main").inner_text())
    assert found
    bars = page.get_by_role("img", name="Probability of each answer")
    chances = dict(re.findall(r"([A-D]) (0\.\d+)", bars.get_attribute("aria-label")))
    assert float(chances[found[1]]) > 0.25 > float(chances[found[2]])
    assert fits(page)


def test_labels_that_never_disagree_have_no_target(page: Any, at: Any) -> None:
    at("/learn/dpo?beta=2")
    page.get_by_text("deterministic", exact=True).click()
    assert value(page, "status") == "labels never disagree: gap has no finite target"
    assert "labels=deterministic" in page.url
    page.get_by_role("button", name="To the end").click()
    assert number(page, "gap") > 20
    assert value(page, "status") == "labels never disagree: gap has no finite target"
    assert page.locator("line.mark").count() == 0  # no target is drawn


def test_a_run_shows_its_own_pairs(page: Any, at: Any, recorded: Path) -> None:
    at("/learn/dpo")
    page.get_by_label("Show").select_option("pairs")
    rows = read_run(recorded).rows("pairs", 4)
    page.get_by_role("button", name=str(rows[1]["pair"] + 1), exact=True).click()
    assert page.locator(".texts .chosen").inner_text() == rows[1]["chosen"]
    assert page.locator(".texts .rejected").inner_text() == rows[1]["rejected"]
    assert number(page, "margin") == pytest.approx(rows[1]["margin"], abs=0.006)
    assert number(page, "weight") == pytest.approx(rows[1]["weight"], abs=0.006)
    words = page.locator("#likelihoods").inner_text()
    assert "The log-prob of chosen answers" in words and "nats" in words
    page.get_by_title("the earlier step (P)").click()
    assert page.get_by_label("step", exact=True).input_value() == "1"
    assert "step=0" in page.url


def test_by_keyboard_alone_in_the_dark(page: Any, at: Any) -> None:
    at("/learn/dpo")
    page.get_by_role("slider", name="β").press("End")
    assert "beta=2" in page.url
    page.get_by_role("radio", name="drawn").press("ArrowRight")
    assert "labels=deterministic" in page.url
    page.get_by_role("button", name="Step").press("Enter")
    assert number(page, "pairs") == 1
