"""/learn/groups, operated as a reader does."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

PHONE = {"viewport": {"width": 390, "height": 844}, "has_touch": True}


@pytest.fixture
def at(lab: Any, page: Any) -> Any:
    """`at("/learn/groups")` opens a page of the lab."""
    address = lab(Path(__file__).parent).rstrip("/")
    return lambda path: page.goto(address + path)


def value(page: Any, name: str) -> str:
    return page.locator(f"#{name} .value").inner_text()


def column(page: Any, rule: str) -> list[str]:
    return page.locator(f'td[data-rule="{rule}"]').all_inner_texts()


def choose(page: Any, legend: str, text: str) -> None:
    page.get_by_role("group", name=legend, exact=True).get_by_text(text, exact=True).click()


def test_the_documents_numbers(page: Any, at: Any) -> None:
    at("/learn/groups")
    assert [value(page, name) for name in ("mean", "std")] == ["0.60", "0.32"]
    assert page.locator("#advantages text.number").all_text_contents() == ["+1.26", "+0.63", "−0.63", "−1.26"]
    assert column(page, "GRPO") == ["+1.265", "+0.632", "−0.632", "−1.265"]
    assert column(page, "GRPO, ddof 1") == ["+1.095", "+0.548", "−0.548", "−1.095"]
    assert column(page, "Dr. GRPO") == ["+0.400", "+0.200", "−0.200", "−0.400"]
    assert column(page, "RLOO") == ["+0.533", "+0.267", "−0.267", "−0.533"]


def test_scale_and_ddof(page: Any, at: Any) -> None:
    at("/learn/groups")
    page.get_by_role("button", name="1, 0, 0, 1").click()
    assert value(page, "advantage-values") == "[+1.000, −1.000, −1.000, +1.000]"
    choose(page, "ddof", "1")
    assert value(page, "advantage-values") == "[+0.866, −0.866, −0.866, +0.866]"
    choose(page, "Scale", "none")
    assert value(page, "advantage-values") == "[+0.500, −0.500, −0.500, +0.500]"
    choose(page, "Scale", "batch")
    choose(page, "ddof", "0")
    # 16 rewards: 1001 0000 1111 1000, mean 7/16, std √(7·9)/16 = 0.4961; 0.5/0.4961
    assert value(page, "advantage-values") == "[+1.008, −1.008, −1.008, +1.008]"
    page.reload()
    assert value(page, "advantage-values") == "[+1.008, −1.008, −1.008, +1.008]"


def test_a_dead_group_is_grey_and_says_its_cost(page: Any, at: Any) -> None:
    at("/learn/groups?groups=1,0,0")
    assert value(page, "status") == "alive: 3 samples, 3 with a gradient"
    page.get_by_label("reward of o1").fill("0")
    assert value(page, "status") == "dead: 0 gradient, 3 samples spent"
    assert page.locator("#advantages g.dead").count() == 3
    assert value(page, "advantage-values") == "[0, 0, 0]"
    assert "dead: 0 gradient, 3 samples spent" in page.get_by_role("button", name="group 1").inner_text()
    page.get_by_label("reward of o2").fill("0.1")
    assert value(page, "advantage-values") == "[−0.707, +1.414, −0.707]"
    page.get_by_role("slider", name="G, answers").press("ArrowRight")
    assert page.get_by_label("reward of o4").input_value() == "0"


def test_dynamic_sampling_refills_dead_groups(page: Any, at: Any) -> None:
    at("/learn/groups")
    assert page.inner_text("#spent").startswith("2 of 4 groups have a gradient; 16 samples drawn.")
    page.get_by_role("button", name="Resample dead groups").click()
    assert page.inner_text("#spent").startswith("4 of 4 groups have a gradient;")
    assert int(page.inner_text("#spent").split(";")[1].split()[0]) >= 24
    page.get_by_role("button", name="group 2").click()
    assert page.inner_text("#dropped").startswith("[0, 0, 0, 0] ✕")
    assert "alive" in value(page, "status")
    # p⁴ + (1 − p)⁴ at p = 0.2 is 0.0016 + 0.4096
    assert "41.1 %" in page.inner_text("#spent")
    page.get_by_role("slider", name="p, a fresh answer").press("Home")
    assert "Given up after 10 tries" in page.inner_text("#spent")


@pytest.mark.parametrize("page", [PHONE], indirect=True)
def test_on_a_phone(page: Any, at: Any) -> None:
    at("/learn/groups?groups=1,0,1,0,1,0,0,1,0,0,0,0,1,0,0,0.5")
    assert page.evaluate("document.documentElement.scrollWidth <= innerWidth")
    # each reward stands under its bar
    bars, boxes = page.locator("#rewards rect").all(), page.get_by_role("spinbutton").all()
    assert len(bars) == len(boxes) == 16
    for bar, box in zip(bars, boxes, strict=True):
        bar, box = bar.bounding_box(), box.bounding_box()
        assert abs(bar["x"] + bar["width"] / 2 - box["x"] - box["width"] / 2) < 4


def offer(page: Any) -> None:
    """A run of two groups: one dead and one whose answers part at their third token."""
    name = "mine"
    line = {
        "id": name, "name": name, "path": name, "kind": "oneloop", "status": "finished", "words": "finished",
        "algorithm": "grpo", "steps_done": 1, "steps_total": 1, "alerts": 0, "spark": [],
    }  # fmt: skip
    one = {"count": 1, "first": 0, "last": 0, "stride": 1}
    tables = {"rollouts": one, "ratios": one, "tokens": one, "pairs": {**one, "count": 0}}
    texts = [["<b>", "7", "=1"], ["<b>", "7", "=2"], ["<b>", "7"]]
    rewards = {0: [0.0, 0.0, 0.0], 1: [1.0, 0.0, 0.0]}
    rows = [
        {
            "row": 3 * group + i,
            "group": group,
            "sample": i,
            "prompt": "<img src=x onerror=alert(1)>",
            "completion": "".join(texts[i]) if group else "same words",
            "cut": False,
            "rewards": {},
            "reward": reward,
            "advantage": 0.25 if group else 0.0,
            "length": 3,
            "stop": "eos",
            "kept": True,
            "answer": None,
            "target": None,
            "extras": {},
        }
        for group, group_rewards in rewards.items()
        for i, reward in enumerate(group_rewards)
    ]
    tokens = [{"group": 1, "sample": i, "kind": "rollout", "prompt": "", "text": text} for i, text in enumerate(texts)]
    place = {"step": 0, "previous": None, "next": None}
    explain = {"scale": "std", "ddof": 1}
    page.route("**/api/runs", lambda route: route.fulfill(json={"runs": [line]}))
    page.route(f"**/api/runs/{name}", lambda route: route.fulfill(json={**line, "tables": tables, "explain": explain}))
    page.route(
        f"**/api/runs/{name}/rollouts*", lambda route: route.fulfill(json={**place, "columns": [], "rows": rows})
    )
    page.route(f"**/api/runs/{name}/tokens*", lambda route: route.fulfill(json={**place, "rows": tokens}))


def test_a_group_of_a_run(page: Any, at: Any) -> None:
    offer(page)
    at("/learn/groups")
    page.get_by_label("Show").select_option("mine")
    page.locator("#texts").wait_for()
    # the first group with a gradient, with the run's ddof
    assert page.inner_text("#texts") == "The answers of group 2"
    assert value(page, "advantage-values") == "[+1.155, −0.577, −0.577]"
    assert column(page, "the run's") == ["+0.250", "+0.250", "+0.250"]
    page.get_by_text("the first token that differs, number 3").wait_for()
    assert page.locator("mark").all_inner_texts() == ["=1", "=2", "⏹ end"]
    assert page.locator("blockquote").inner_text() == "<img src=x onerror=alert(1)>"
    page.get_by_role("button", name="group 1").click()
    assert value(page, "status") == "dead: 0 gradient, 3 samples spent"
    assert "the same from beginning to end" in page.inner_text("main")
    assert "words are compared" in page.inner_text("main")
    assert page.locator("#rewards input, .inputs").count() == 0


def test_the_page_explains_itself(page: Any, at: Any) -> None:
    at("/learn/groups")
    page.locator("figure pre").nth(1).wait_for()
    for code in page.locator("figure pre").all_inner_texts():
        assert len(code.splitlines()) <= 14
    assert page.locator("math").count() == 1
    assert page.locator("#try + ol > li").count() == 3
    assert "TRL and verl" in page.inner_text("main")
    assert page.locator("#mean").bounding_box()["y"] < 720
