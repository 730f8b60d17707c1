"""/learn/clip, operated as a reader does."""

from __future__ import annotations

import re
from typing import Any

import pytest
from reader import PHONE, fits, offer, value

EDGES = [0, *(round(0.5 + i / 100, 2) for i in range(101)), None]


def test_the_readouts_of_the_papers_band(page: Any, at: Any) -> None:
    at("/learn/clip")
    assert value(page, "region") == "[0.80, 1.20]"
    assert value(page, "active") == "ρ > 1.20"
    assert value(page, "clipped") == "0"
    assert value(page, "objective") == "min(1.35, 1.20) = 1.20"
    assert value(page, "gradient") == "0"
    page.get_by_text("A < 0", exact=True).first.click()
    assert value(page, "active") == "ρ < 0.80"
    assert value(page, "objective") == "min(−1.35, −1.20) = −1.35"
    assert value(page, "gradient") == "−1"


def test_bands_linked_apart_none_and_huge(page: Any, at: Any) -> None:
    at("/learn/clip")
    page.get_by_role("button", name="DAPO .20/.28").click()
    assert value(page, "region") == "[0.80, 1.28]"
    assert value(page, "active") == "ρ > 1.28"
    low, high = page.get_by_role("slider", name="ε_low"), page.get_by_role("slider", name="ε_high")
    low.press("ArrowRight")  # not linked
    assert value(page, "region") == "[0.79, 1.28]"
    page.get_by_label("ε_low = ε_high").check()
    high.press("ArrowRight")
    assert value(page, "region") == "[0.71, 1.29]"
    page.get_by_role("button", name="0", exact=True).click()
    assert value(page, "region") == "[1.00, 1.00]"
    assert value(page, "active") == "ρ > 1.00"
    page.get_by_role("spinbutton", name="ε_high, as a number").fill("1000")
    assert value(page, "region") == "[0.00, 1001.00]"
    page.get_by_text("A < 0", exact=True).first.click()
    assert value(page, "active") == "no ρ: it is never below 0"
    assert value(page, "gradient") == "−1"


@pytest.mark.parametrize("page", [{}, PHONE], indirect=True)
def test_dragging_the_ratio_lights_its_case(page: Any, at: Any) -> None:
    at("/learn/clip")
    lit = page.locator("#cases td[aria-current]")
    assert lit.get_attribute("data-case") == "good-above"
    handle = page.get_by_role("slider", name="ratio ρ")
    box = handle.bounding_box()
    x, y = box["x"] + box["width"] / 2, box["y"] + box["height"] / 2
    page.mouse.move(x, y)
    page.mouse.down()
    page.mouse.move(10, y, steps=3)
    page.mouse.up()
    assert handle.get_attribute("aria-valuenow") == "0.01"
    assert lit.get_attribute("data-case") == "good-below"
    assert value(page, "gradient") == "+1"
    for _ in range(8):
        handle.press("PageUp")
    assert lit.get_attribute("data-case") == "good-inside"
    page.get_by_text("A < 0", exact=True).first.click()
    handle.press("ArrowLeft")
    handle.press("ArrowLeft")  # 0.79
    assert lit.get_attribute("data-case") == "bad-below"
    assert value(page, "gradient") == "0"
    # the address holds all of it
    page.reload()
    assert lit.get_attribute("data-case") == "bad-below"
    assert fits(page)


def test_the_page_explains_itself(page: Any, at: Any) -> None:
    at("/learn/clip")
    page.locator("figure pre").wait_for()
    code = page.locator("figure pre").inner_text()
    assert "torch.minimum" in code and len(code.splitlines()) <= 14
    assert page.locator("math").count() == 1
    assert page.locator("#try + ol > li").count() == 3
    assert "1707.06347" in page.inner_text("main")
    # the thing itself is seen without scrolling
    assert page.locator("#gradient").bounding_box()["y"] < 720


def counts(**bins: int) -> list[int]:
    """`counts(**{"1.25": 4})`: 4 ratios in the bin that begins there."""
    return [bins.get(str(edge), 0) for edge in EDGES[:-1]]


def offer_ratios(page: Any, updates: int) -> None:
    """A run of three steps whose record is known: 100 tokens an update, none moved at the first one."""

    def ratios(route: Any) -> None:
        found = re.search(r"step=(\d+)", route.request.url)
        step = int(found[1]) if found else 2
        # the clipped tokens of step s: 5 + s
        good, bad = (
            {"0.75": 10, "1.0": 30, "1.25": 3, "1.4": 5 + step, "1.5": 2 - step},
            {"0.7": 8, "1.1": 20, "1.3": 12},
        )
        moved = [counts(**good), counts(**bad), counts(**{"1.0": 10})]
        still = [counts(**{"1.0": sum(one)}) for one in moved]
        columns = [[first, *[later] * (updates - 1)] for first, later in zip(still, moved, strict=True)]
        signs = dict(zip(("positive", "negative", "zero"), columns, strict=True))
        band = {"epsilon": [0.2, 0.28], "edges": EDGES}
        route.fulfill(json={"step": step, "updates": updates, "rows": None, **band, **signs})

    explain = {"surrogate": "ClippedRatio", "level": "token", "dual": None}
    offer(page, ratios=ratios, done=3, algorithm="dapo", explain=explain)


def masses(page: Any) -> dict[str, str]:
    cells = page.locator("#cases td[data-case]").all()
    return {str(cell.get_attribute("data-case")): cell.locator(".mass").inner_text() for cell in cells}


def test_a_run_behind_the_curve(page: Any, at: Any) -> None:
    offer_ratios(page, updates=3)
    at("/learn/clip")
    page.get_by_label("Show").select_option("mine")
    page.locator("#ratios-why").wait_for()
    # its own band, and nothing moved yet
    assert value(page, "region") == "[0.80, 1.28]"
    assert "all mass is at ρ = 1" in page.inner_text("#ratios-why")
    assert masses(page)["good-inside"] == "50.00 %" and masses(page)["bad-inside"] == "40.00 %"
    page.get_by_role("slider", name="inner update").press("End")
    expected = {
        "good-below": "10.00 %", "good-inside": "33.00 %", "good-above": "7.00 %",
        "bad-below": "8.00 %", "bad-inside": "20.00 %", "bad-above": "12.00 %",
    }  # fmt: skip
    assert masses(page) == expected
    assert "After 2 updates" in page.inner_text("#ratios-why")
    assert page.locator("svg rect.above").count() == 4 and page.locator("svg rect.below").count() == 3
    # ε moves the masses
    page.get_by_role("button", name="PPO .20").click()
    assert masses(page)["good-above"] == "10.00 %"
    page.get_by_role("slider", name="step").press("Home")
    page.wait_for_function("document.querySelector('main').innerText.includes('1 of 3')")
    assert "10 tokens have A = 0" in page.inner_text("main")
    assert page.get_by_role("link", name="This run's pages").get_attribute("href") == "/run/mine"


def test_one_update_never_clips_and_the_page_says_why(page: Any, at: Any) -> None:
    offer_ratios(page, updates=1)
    at("/learn/clip?run=mine")
    page.locator("#ratios-why").wait_for()
    assert "K = 1" in page.inner_text("#ratios-why") and "all mass is at ρ = 1" in page.inner_text("#ratios-why")
    assert {case for case, share in masses(page).items() if share != "0.00 %"} == {"good-inside", "bad-inside"}
    # a region of one point holds them still
    page.get_by_role("button", name="0", exact=True).click()
    assert {case for case, share in masses(page).items() if share != "0.00 %"} == {"good-inside", "bad-inside"}
