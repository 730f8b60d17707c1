"""/learn/loop, operated as a reader does."""

from __future__ import annotations

import math
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import recorded_runs as runs
from reader import PHONE, fits

from oneloop.record.reader import read_run


@pytest.fixture(scope="session")
def recorded(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """A PPO run of two steps with two epochs, and a GRPO run with one update a batch."""
    folder = tmp_path_factory.mktemp("runs")
    return {
        "ppo": runs.record(folder / "ppo", "ppo", steps=2),
        "grpo": runs.record(folder / "grpo", "grpo", steps=1, epochs=1, group_size=2),
    }


@pytest.fixture
def at(lab: Any, page: Any, recorded: dict[str, Path]) -> Callable[[str], Any]:
    address = lab(*recorded.values())
    return lambda path: page.goto(address + path)


def fact(page: Any, box: str, name: str) -> str:
    term = page.locator(f"#box-{box} dl div", has=page.get_by_text(name, exact=True))
    return term.locator("dd").inner_text()


def row(page: Any, name: str) -> list[float]:
    """A row of the table of tokens; an en dash is NaN."""
    cells = page.locator("#tokens tr", has=page.get_by_role("rowheader", name=name)).locator("td").all_inner_texts()
    numbers = [re.sub(r" ✂", "", cell).replace("−", "-").replace("–", "nan") for cell in cells]
    return [float(number) for number in numbers]


def step(page: Any, times: int) -> None:
    for _ in range(times):
        page.locator("button.step").click()


def test_one_turn_fills_the_boxes_one_after_the_other(page: Any, at: Any) -> None:
    at("/learn/loop")
    expected = ["sample", "score", "values", "gae", *["update"] * 4, "sync"]
    for box in expected:
        step(page, 1)
        assert page.locator("section[aria-current=step]").get_attribute("id") == f"box-{box}"
        if box == "sample":
            assert fact(page, "sample", "answers") == "32"
            assert fact(page, "score", "mean score") == "–"
        if box == "score":
            assert page.locator("li.used strong").all_inner_texts() == ["reference", "reward model"]
            assert fact(page, "score", "KL of an answer") == "0.000 nats"  # still the reference itself
    assert fact(page, "sync", "loops") == "1"
    assert fact(page, "update", "update") == "4 of 4"
    assert page.locator("li.frozen strong").all_inner_texts() == ["reference", "reward model"]
    # GAE with γ = 1 by hand, from the rewards and values shown
    rewards, values, advantages = row(page, "reward r"), row(page, "value V"), row(page, "advantage Â")
    carry = 0.0
    for t in (2, 1, 0):
        delta = rewards[t] + (values[t + 1] if t < 2 else 0) - values[t]
        carry = delta + 0.95 * carry
        assert advantages[t] == pytest.approx(carry, abs=0.003)


def test_one_update_a_batch_has_ratio_1_and_the_page_says_why(page: Any, at: Any) -> None:
    at("/learn/loop")
    assert not page.locator("#once").inner_text()
    page.get_by_role("slider", name="K epochs").press("Home")
    assert "exactly 1 at every token, the clip never fires" in page.locator("#once").inner_text()
    step(page, 5)
    assert fact(page, "update", "ρ") == "1.000"
    assert fact(page, "update", "gradient 0") == "0 %"
    assert row(page, "ratio ρ") == [1, 1, 1]
    assert page.locator("#box-update rect.bar").count() == 1  # one spike
    page.get_by_text("4", exact=True).click()  # minibatches
    assert "first optimizer step of each batch only" in page.locator("#once").inner_text()


def test_it_really_learns(page: Any, at: Any) -> None:
    at("/learn/loop")
    for _ in range(30):
        page.get_by_role("button", name="Loop", exact=True).click()
    objective, best = re.findall(r"0\.\d+", page.locator("#objective .value").inner_text())
    assert float(objective) > 0.95 * float(best)
    assert fact(page, "sync", "loops") == "30"
    page.get_by_role("slider", name="β").press("Home")
    assert "best 1.000" in page.locator("#objective .value").inner_text().replace("\xa0", " ")
    page.get_by_role("button", name="Reset").click()
    assert fact(page, "sync", "loops") == "0"


@pytest.mark.parametrize("page", [PHONE, {"color_scheme": "dark"}], indirect=True)
def test_it_plays_and_pauses(page: Any, at: Any) -> None:
    at("/learn/loop")
    page.get_by_text("200", exact=True).click()
    page.get_by_role("button", name="Play").click()
    page.locator("#loops .value").filter(has_text=re.compile(r"^\d{2}")).wait_for()
    page.get_by_role("button", name="Pause").click()
    assert page.locator("button.step").is_enabled()
    assert fits(page)


def test_a_clip_of_width_0_takes_gradients(page: Any, at: Any) -> None:
    at("/learn/loop?eps=0&lr=4")
    step(page, 6)
    assert fact(page, "update", "gradient 0") != "0 %"


def test_the_boxes_hold_a_batch_of_a_run(page: Any, at: Any, recorded: dict[str, Path]) -> None:
    at("/learn/loop")
    page.get_by_label("Show").select_option("ppo")
    run = read_run(recorded["ppo"])
    token = run.rows("tokens", 1)[0]
    page.locator("#tokens").wait_for()
    assert row(page, "log π_old") == pytest.approx(token["lp_old"], abs=6e-4)
    assert row(page, "value V") == pytest.approx(token["value"], abs=6e-4)
    assert row(page, "return R̂") == pytest.approx(token["return"], abs=6e-4)
    ratios = [math.exp(new - old) for new, old in zip(token["lp_new"][-1], token["lp_old"], strict=True)]
    assert row(page, "ratio ρ") == pytest.approx(ratios, abs=6e-4)
    # r − β·KL and V give δ, and δ gives Â: what is shown holds together
    rewards, values, deltas = row(page, "reward r"), row(page, "value V"), row(page, "surprise δ")
    for t in range(len(deltas) - 1):
        assert deltas[t] == pytest.approx(rewards[t] + values[t + 1] - values[t], abs=0.003)
    assert float(fact(page, "sample", "tokens")) == run.metrics[1]["num_tokens"]
    assert float(fact(page, "score", "KL to reference")) == pytest.approx(run.metrics[1]["kl"], abs=6e-5)
    page.get_by_role("slider", name="Optimizer step").press("Home")
    assert fact(page, "update", "update") == "1 of 2"
    assert row(page, "ratio ρ") == pytest.approx([1] * len(ratios), abs=1e-3)


def test_a_run_with_one_update_a_batch_and_without_critic(page: Any, at: Any) -> None:
    at("/learn/loop?run=grpo")
    assert "exactly 1 at every token" in page.locator("#once").inner_text()
    assert page.locator("li.absent strong").all_inner_texts() == ["critic", "reward model"]
    assert all(math.isnan(value) for value in row(page, "value V"))
