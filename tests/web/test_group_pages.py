"""/run/ID/groups, length and diff, operated as a reader does: answers with known numbers, and the runs that ship."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from reader import PHONE, answer, choose, fits, offer, value

import oneloop.lab

RECORDED = Path(oneloop.lab.__file__).parent / "recorded"
HOSTILE = "<img src=x onerror=alert(1)>"


@pytest.fixture
def at(lab: Any, page: Any) -> Any:
    """`at("/run/grpo/groups")` opens a page of the runs that ship."""
    address = lab(*(RECORDED / name for name in ("grpo", "ppo", "dpo"))).rstrip("/")
    return lambda path: page.goto(address + path)


def offer_step(page: Any, rows: list[dict[str, Any]], ratios: dict[str, Any] | None = None, **facts: Any) -> None:
    """A run called mine: one step with these completions, and their ratios."""
    hostile = [row | {"prompt": HOSTILE} for row in rows]
    offer(page, rollouts=hostile, ratios=ratios, **{"explain": {"max_new_tokens": 10}, **facts})


def cells(page: Any, row: str) -> list[str]:
    return page.locator(f"{row} td").all_inner_texts()


def test_the_dead_group_meter(page: Any, at: Any) -> None:
    # 1 right of 10 in each of four groups, as if p were 0.1 for all
    offer_step(page, [answer(10 * g + i, g, i, float(i == 0)) for g in range(4) for i in range(10)])
    at("/run/mine/groups")
    assert value(page, "pass-rate") == "0.100"
    assert value(page, "observed").startswith("0.0 %")
    assert value(page, "expected") == "34.9 %"  # 0.1¹⁰ + 0.9¹⁰
    box = page.get_by_role("spinbutton", name="What if G")
    for size, chance, share in (("4", "0.656", "65.6 %"), ("8", "0.430", "43.0 %"), ("16", "0.185", "18.5 %")):
        box.fill(size)
        words = page.inner_text("#what-if")
        assert f"at G = {size}: {share}" in words and chance in words
    assert "for 1.6 × the samples" in page.inner_text("#what-if")
    page.get_by_role("slider", name="What if G").press("ArrowRight")
    assert "at G = 17" in page.inner_text("#what-if")


def test_groups_side_by_side(page: Any, at: Any) -> None:
    rewards = [[0, 0, 0], [1, 0, 0], [1, 1, 1], [1, 0.9, 0.8]]
    offer_step(
        page, [answer(3 * g + i, g, i, r, length=g + 1) for g, group in enumerate(rewards) for i, r in enumerate(group)]
    )
    at("/run/mine/groups")
    assert page.inner_text("#chosen").startswith("Group 2 ")
    assert page.locator("mark").all_inner_texts() == [" 0", " 1", " 2"]
    assert "They part at word 2" in page.inner_text("#parts")
    assert page.locator("blockquote").inner_text() == HOSTILE
    assert cells(page, "#fate-all-wrong") == ["✗ all wrong", "1", "25 %", "3 (10 %)"]
    assert cells(page, "#fate-all-right") == ["✓ all right", "1", "25 %", "9 (30 %)"]
    names = page.locator(".list button .number:first-child")
    assert names.all_inner_texts() == ["≠ group 2", "≠ group 4", "✗ group 1", "✓ group 3"]
    page.keyboard.press("n")
    assert page.inner_text("#chosen").startswith("Group 4 std 0.08")
    choose(page, "Sorted by", "number")
    assert names.all_inner_texts() == ["✗ group 1", "≠ group 2", "✓ group 3", "≠ group 4"]
    assert "all wrong: 0 gradient from its rewards, 3 tokens spent" in page.inner_text("#chosen")
    page.get_by_role("spinbutton", name="right: reward above").fill("1")
    assert names.all_inner_texts()[2] == "✗ group 3"
    page.reload()
    page.locator("#chosen").wait_for()
    assert names.all_inner_texts()[2] == "✗ group 3"


def test_a_step_without_a_right_answer(page: Any, at: Any) -> None:
    offer_step(page, [answer(i, i // 5, i % 5, 0.0) for i in range(30)])
    at("/run/mine/groups")
    assert "below about 0.10" in page.inner_text("#alike")  # 3/30
    assert value(page, "expected") == "100.0 %"


def test_length_and_what_a_token_weighs(page: Any, at: Any) -> None:
    lengths, rewards = [2, 3, 5, 10], [1.0, 1.0, 0.0, 0.0]
    rows = [
        answer(i, 0, i, r, length=n, stop="length" if n == 10 else "eos")
        for i, (n, r) in enumerate(zip(lengths, rewards, strict=True))
    ]
    offer_step(page, [*rows, answer(4, 0, 4, None, length=7), answer(5, 1, 0, 1.0, length=9, kept=False)])
    at("/run/mine/length")
    page.locator("#rule-token").wait_for()
    # Σ len = 20, N = 4, L = 10; the longest is chosen at first
    assert cells(page, "#rule-sequence")[1:] == ["0.025", "25.00 %", "1"]
    assert cells(page, "#rule-token")[1:] == ["0.05", "50.00 %", "1"]
    assert cells(page, "#rule-fixed")[1:] == ["0.025", "25.00 %", "0.5"]
    page.get_by_role("button", name="completion 1: 2 tokens, right").hover()
    assert [cells(page, f"#rule-{rule}")[1] for rule in ("sequence", "token", "fixed")] == ["0.125", "0.05", "0.025"]
    page.mouse.move(0, 0)
    page.get_by_role("button", name="completion 2: 3 tokens, right").focus()
    assert cells(page, "#rule-sequence")[1] == "0.0833"
    page.keyboard.press("Tab")
    assert cells(page, "#rule-sequence")[1] == "0.05"
    # r = −5/√38 = −0.811, atanh −1.130 ± 1.96/√1
    assert value(page, "correlation") == "r = −0.81 [−1.00, +0.68], n = 4"
    assert value(page, "truncated") == "17 %"
    # over the steps every scored answer counts, trained on or not
    page.get_by_text("At step 1: right 4.67 tokens, wrong 7.5 tokens.").wait_for()


def stepped(rows: list[dict[str, Any]] | None, updates: int = 2) -> dict[str, Any]:
    return {
        "step": 0,
        "updates": updates,
        "epsilon": [0.2, 0.2],
        "edges": [],
        "positive": [],
        "negative": [],
        "zero": [],
        "rows": rows,
    }


def ratio(sample: int, log_ratio: list[list[float]], advantage: float, truncated: bool = False) -> dict[str, Any]:
    tokens = len(log_ratio[0])
    return {
        "group": 0, "sample": sample, "truncated": truncated, "update": list(range(len(log_ratio))),
        "advantage": [advantage] * tokens, "log_ratio": log_ratio, "ref_gap": [0.0] * tokens, "mismatch": None,
    }  # fmt: skip


def added(page: Any, completion: str) -> list[str]:
    """What one completion adds under both objectives, in thousandths."""
    row = page.locator("#contributions tbody tr").filter(has_text=completion)
    return [row.locator("td").nth(i).inner_text() for i in (4, 6)]


def test_one_batch_under_four_objectives(page: Any, at: Any) -> None:
    # rewards 1 and 0: advantages ±1; log 1.25 = 0.2231 is outside 1.2 and inside 1.28
    rows = [ratio(0, [[0.0], [0.22314355]], 0.5), ratio(1, [[0.0] * 3, [0.0] * 3], -0.5, truncated=True)]
    offer_step(page, [answer(0, 0, 0, 1.0), answer(1, 0, 1, 0.0)], stepped(rows))
    at("/run/mine/diff")
    note = page.get_by_role("note").inner_text()
    assert "re-scores recorded tokens; it says nothing about the run that would have followed" in note
    # GRPO: 1/(2·1) and 3·1/(2·3), the first clipped but for its KL: −0.04·(1 − 1/1.25)/2
    # DAPO: Σ len without the truncated one is 1
    assert added(page, "1.1") == ["−4.0", "+1250.0"]
    assert added(page, "1.2 ✂") == ["−500.0", "0.0"]
    differs = page.locator("#formula-diff tr.differs th").all_inner_texts()
    assert differs == ["clip", "KL", "weight", "mask"]
    page.get_by_role("slider", name="β").press("Home")
    assert added(page, "1.1")[0] == "0.0"
    page.get_by_role("spinbutton", name="ε high").fill("0.28")
    assert added(page, "1.1")[0] == "+625.0"
    choose(page, "Divide by", "Σ len")
    assert added(page, "1.2 ✂")[0] == "−750.0"
    page.get_by_role("button", name="Mask truncated").click()
    assert added(page, "1.2 ✂")[0] == "0.0"
    assert page.locator("#formula-diff tr.differs").count() == 0
    column = page.locator("#cosines tbody tr").last.locator("td").all_inner_texts()
    assert column[2] == "1.000"  # what GRPO was changed into is DAPO
    choose(page, "Advantage, scale", "recorded")
    assert added(page, "1.1")[0] == "+625.0"
    page.reload()
    assert added(page, "1.1")[0] == "+625.0"
    page.get_by_role("slider", name="pass").press("Home")
    assert added(page, "1.1")[0] == "+500.0"
    page.get_by_role("button", name="As published").click()
    assert added(page, "1.1") == ["+500.0", "+1000.0"]
    assert "GRPO = replace(" in page.locator("figure pre").first.inner_text()


def test_cosines(page: Any, at: Any) -> None:
    # token (1, −1, −1, −1)/4, sequence (1/2, −1/6, −1/6, −1/6): cosine (1/2 + 3/6)/(2·√(1/3))
    rows = [ratio(0, [[0.0]], 1.0), ratio(1, [[0.0] * 3], -1.0)]
    offer_step(page, [answer(0, 0, 0, 1.0), answer(1, 0, 1, 0.0)], stepped(rows, updates=1))
    at("/run/mine/diff")
    page.locator("#cosines").wait_for()
    grid = [row.locator("td").all_inner_texts() for row in page.locator("#cosines tbody tr").all()]
    assert grid[0] == ["1.000", "0.866", "1.000", "1.000"]
    assert grid[1] == ["0.866", "1.000", "0.866", "0.866"]
    assert "One update a step: every ratio is exactly 1" in page.inner_text("#notes")
    assert "had no critic" in page.inner_text("#notes")


def test_a_step_above_the_cap(page: Any, at: Any) -> None:
    rows = [{**ratio(0, [[0.0]], 1.0), "advantage": None, "log_ratio": None, "ref_gap": None}]
    for table in (None, rows):
        page.unroute_all()
        offer_step(page, [answer(0, 0, 0, 1.0)], stepped(table))
        at("/run/mine/diff")
        page.get_by_text("only the histogram of its ratios was recorded").wait_for()


def test_another_librarys_run_without_lengths(page: Any, at: Any) -> None:
    rows = [answer(i, i // 2, i % 2, float(i == 3), length=None, stop=None, advantage=None) for i in range(4)]
    offer_step(page, rows, kind="verl", algorithm=None, explain={})
    at("/run/mine/groups")
    page.locator("#what-if").wait_for()
    assert cells(page, "#fate-all-wrong") == ["✗ all wrong", "1", "50 %", "–"]
    assert "advantage –" in page.locator(".answer").first.inner_text()
    at("/run/mine/length")
    page.locator(".empty").get_by_text(
        "lengths of this run's completions were not recorded: verl writes none"
    ).wait_for()
    assert value(page, "truncated") == "–"
    assert page.locator("#over").count() == 0
    at("/run/mine/diff")
    page.locator(".empty").get_by_text("No ratios of tokens were recorded").wait_for()


@pytest.mark.parametrize(
    ("tab", "words"), [("groups", "has no groups"), ("length", "wrote no completions"), ("diff", "no sampled tokens")]
)
def test_a_run_without_groups(page: Any, at: Any, tab: str, words: str) -> None:
    at(f"/run/dpo/{tab}")
    page.locator(".empty").get_by_text(words).wait_for()
    assert "oneloop train grpo" in page.locator(".empty pre").inner_text()


def test_a_run_with_one_answer_a_prompt(page: Any, at: Any) -> None:
    at("/run/ppo/groups")
    page.locator(".empty").get_by_text("no groups to compare").wait_for()
    at("/run/ppo/diff")
    page.locator("#notes").wait_for()
    assert "one answer here" in page.inner_text("#notes")


def test_steps_that_lie_unevenly_are_gone_through_one_by_one(page: Any, at: Any) -> None:
    at("/run/grpo/rollouts?step=0")  # 0, 4, 9, 14, 19 and 24 were kept
    page.get_by_role("slider", name="step").press("ArrowRight")
    page.locator("[aria-valuetext='5 of 25']").wait_for()
    page.keyboard.press("N")
    page.locator("[aria-valuetext='10 of 25']").wait_for()
    page.get_by_role("spinbutton", name="step").fill("23")
    page.keyboard.press("Enter")
    page.locator("[aria-valuetext='25 of 25']").wait_for()
    assert "step=24" in page.url


@pytest.mark.parametrize("page", [PHONE, {"color_scheme": "dark"}], indirect=True)
def test_the_run_that_ships(page: Any, at: Any) -> None:
    for tab, sign in (("groups", "#what-if"), ("length", "#rule-token"), ("diff", "#contributions tbody tr")):
        at(f"/run/grpo/{tab}")
        page.locator(sign).first.wait_for()
        assert page.get_by_role("link", name=tab, exact=True).last.get_attribute("aria-current") == "page"
        assert fits(page)
