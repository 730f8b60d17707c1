"""/learn/groups, operated as a reader does."""

from __future__ import annotations

from typing import Any

import pytest
from reader import PHONE, answer, choose, fits, offer, value

HOSTILE = "<img src=x onerror=alert(1)>"


def column(page: Any, rule: str) -> list[str]:
    return page.locator(f'td[data-rule="{rule}"]').all_inner_texts()


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
    assert fits(page)
    # each reward stands under its bar
    bars, boxes = page.locator("#rewards rect").all(), page.get_by_role("spinbutton").all()
    assert len(bars) == len(boxes) == 16
    for bar, box in zip(bars, boxes, strict=True):
        bar, box = bar.bounding_box(), box.bounding_box()
        assert abs(bar["x"] + bar["width"] / 2 - box["x"] - box["width"] / 2) < 4


def offer_groups(page: Any) -> None:
    """A run of two groups: one dead and one whose answers part at their third token."""
    texts = [["<b>", "7", "=1"], ["<b>", "7", "=2"], ["<b>", "7"]]
    rows = [answer(i, 0, i, 0.0, prompt=HOSTILE, completion="same words") for i in range(3)]
    rows += [
        answer(3 + i, 1, i, float(i == 0), prompt=HOSTILE, completion="".join(text), advantage=0.25)
        for i, text in enumerate(texts)
    ]
    tokens = [{"group": 1, "sample": i, "kind": "rollout", "prompt": "", "text": text} for i, text in enumerate(texts)]
    offer(page, rollouts=rows, tokens=tokens, explain={"scale": "std", "ddof": 1})


def test_a_group_of_a_run(page: Any, at: Any) -> None:
    offer_groups(page)
    at("/learn/groups")
    page.get_by_label("Show").select_option("mine")
    page.locator("#texts").wait_for()
    # the first group with a gradient, with the run's ddof
    assert page.inner_text("#texts") == "The answers of group 2"
    assert value(page, "advantage-values") == "[+1.155, −0.577, −0.577]"
    assert column(page, "the run's") == ["+0.250", "+0.250", "+0.250"]
    page.get_by_text("the first token that differs, number 3").wait_for()
    assert page.locator("mark").all_inner_texts() == ["=1", "=2", "⏹ end"]
    assert page.locator("blockquote").inner_text() == HOSTILE
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
