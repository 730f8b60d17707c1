"""Home and a run's first three pages, operated as a reader does."""

from __future__ import annotations

import json
import math
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pyarrow
import pytest
import recorded_runs as runs
from pyarrow import parquet
from reader import PHONE, fits

from oneloop.record.reader import read_run


@pytest.fixture(scope="session")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """GRPO and PPO, one that goes on, one with 10,000 completions, one that is ill, and runs of TRL and verl."""
    place = tmp_path_factory.mktemp("runs")
    grpo = runs.record(place / "grpo", "grpo", steps=3, group_size=4)
    runs.record(place / "ppo", "ppo", steps=2)
    live = runs.copy(grpo, "live")
    lines = (live / "metrics.jsonl").read_text().splitlines(keepends=True)
    (live / "metrics.jsonl").write_text(lines[0])
    (live / "rest.jsonl").write_text("".join(lines[1:]))
    many = runs.copy(grpo, "many")
    runs.rewrite(
        many / "rollouts", lambda columns: {k: [v[i % len(v)] for i in range(10_000)] for k, v in columns.items()}
    )
    ill = runs.copy(grpo, "ill")
    alert = {"step": 2, "level": "alert", "code": "A_DEAD", "text": "4 of 4 groups are dead", "fix": "easier prompts"}
    (ill / "events.jsonl").write_text(json.dumps(alert) + "\n")
    logged = [json.loads(line) | {"rewards/a,b/mean": 0.5} for line in (ill / "metrics.jsonl").read_text().splitlines()]
    (ill / "metrics.jsonl").write_text("".join(json.dumps(line) + "\n" for line in logged))
    trl(place / "of-trl")
    verl(place / "of-verl")
    return place


def trl(run: Path) -> None:
    (run / "completions").mkdir(parents=True)
    rows = {
        "step": [1, 1],
        "prompt": ["2+2=", "2+2="],
        "completion": ["4", "5"],
        "exact": [1.0, 0.0],
        "advantage": [1.0, -1.0],
    }
    parquet.write_table(pyarrow.table(rows), run / "completions" / "completions_00001.parquet")
    history = [{"step": 1, "reward": 0.5, "kl": 0.01, "loss": 0.1}]
    (run / "trainer_state.json").write_text(json.dumps({"global_step": 1, "max_steps": 1, "log_history": history}))


def verl(run: Path) -> None:
    run.mkdir()
    rows = [
        {"input": "2+2=", "output": text, "gts": "4", "score": score, "step": 1}
        for text, score in (("4", 1.0), ("5", 0.0))
    ]
    (run / "1.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))


@pytest.fixture
def at(lab: Any, page: Any, folder: Path) -> Callable[[str], Any]:
    address = lab(folder)
    return lambda path: page.goto(address + path)


# Home


@pytest.mark.parametrize("page", [{}, PHONE], indirect=True)
def test_home_names_the_lessons_and_the_runs(page: Any, at: Any) -> None:
    at("/")
    assert page.get_by_role("list", name="Learn").get_by_role("link").count() == 4
    row = page.locator("tr[data-run=grpo]")
    row.wait_for()
    assert "finished" in row.inner_text() and "3 of 3" in row.inner_text() and "scratch:tiny" in row.inner_text()
    assert row.get_by_role("img", name="course of reward").count() == 1
    assert "(trl)" in page.locator("tr[data-run=of-trl]").inner_text()
    assert fits(page)


def test_two_ticked_runs_are_compared(page: Any, at: Any) -> None:
    at("/")
    page.get_by_role("checkbox", name="compare grpo").check()
    assert page.get_by_role("link", name=re.compile("Compare")).count() == 0
    for name in ("ppo", "live", "many"):
        page.get_by_role("checkbox", name=f"compare {name}").check()
    assert page.get_by_role("checkbox", name="compare of-trl").is_disabled()
    link = page.get_by_role("link", name="Compare 4 runs")
    assert link.get_attribute("href") == "/compare?runs=grpo%2Cppo%2Clive%2Cmany"


# Overview


@pytest.mark.parametrize("page", [{}, PHONE | {"color_scheme": "dark"}], indirect=True)
def test_the_overview_says_how_a_run_is_in_words(page: Any, at: Any, folder: Path) -> None:
    at("/run/grpo")
    page.locator("[data-light=reward]").wait_for()
    assert page.get_by_role("navigation", name="Pages of this run").get_by_role("link").count() == 8
    assert page.locator("[data-status=finished]").inner_text().endswith("finished")
    assert "on average, last 5 steps" in page.locator("[data-light=reward]").inner_text()
    assert page.locator("[data-chart]").count() == 8
    last = read_run(folder / "grpo").metrics[-1]["reward"]
    assert page.locator("[data-chart=reward] .key").inner_text() == f"now {last:.3g}"
    assert "no pairs" in page.locator("#lacks + ul").inner_text()
    assert fits(page)


def test_a_point_of_a_chart_opens_its_steps_completions(page: Any, at: Any) -> None:
    at("/run/grpo")
    plot = page.locator("[data-chart=reward]").get_by_role("slider")
    page.locator("[data-chart=reward] .key").wait_for()
    plot.press("Home")
    plot.press("ArrowRight")
    plot.press("Enter")
    page.wait_for_url("**/run/grpo/rollouts?step=1")
    assert page.get_by_label("step", exact=True).first.input_value() == "2"
    page.go_back()
    page.locator("[data-chart=reward] .key").wait_for()
    page.locator("[data-chart=reward] .u-over").click(position={"x": 2, "y": 20})  # once it stands still
    page.wait_for_url("**/run/grpo/rollouts?step=0")


def test_all_metrics_are_found_by_a_pattern(page: Any, at: Any) -> None:
    at("/run/grpo")
    page.locator("summary", has_text="All").click()
    page.get_by_role("searchbox").fill("^(KL|entropy)$")
    page.get_by_text(re.compile(r"^2 of \d+")).wait_for()
    page.wait_for_function("document.querySelectorAll('details [data-chart]').length === 2")
    assert "all=yes" in page.url and "filter=" in page.url


def test_a_metric_with_a_comma_in_its_name_is_drawn(page: Any, at: Any) -> None:
    at("/run/ill?all=yes&filter=a%2Cb")
    page.locator("details [data-chart='rewards/a,b/mean'] .key", has_text="now 0.5").wait_for()


def test_a_red_light_leads_to_what_it_means_and_to_where_it_shows(page: Any, at: Any) -> None:
    at("/run/ill")
    page.locator("[data-why='dead groups']").get_by_role("link", name="A_DEAD").click()
    page.wait_for_url("**/explain/A_DEAD?run=ill")
    page.get_by_text("groups of equal rewards: no sample is better than its siblings").wait_for()
    assert page.locator("code", has_text="frac_reward_zero_std").count() == 1
    page.get_by_role("link", name="Its groups").click()
    page.wait_for_url("**/run/ill/groups")


def test_a_run_that_goes_on_is_followed(page: Any, at: Any, folder: Path) -> None:
    live = folder / "live"
    runs.alive(live)
    asked: list[str] = []
    page.on("request", lambda request: asked.append(request.url))
    at("/run/live")
    page.locator("[data-status=running]").wait_for()
    metrics = live / "metrics.jsonl"
    first, rest = metrics.read_text(), (live / "rest.jsonl").read_text()
    now = page.locator("[data-chart=length] .key")
    before = json.loads(first)["completions/mean_length"]
    now.filter(has_text=f"now {before:.3g}").wait_for()
    with metrics.open("a") as file:
        changed = [json.loads(line) | {"completions/mean_length": 4.25} for line in rest.splitlines()]
        file.write("".join(json.dumps(line) + "\n" for line in changed))
    now.filter(has_text="now 4.25").wait_for()
    # asked for from where it ended, and the whole of it once only
    assert any(f"offset={len(first.encode())}" in url for url in asked)
    assert sum("/curves" in url for url in asked) == 1
    runs.change(live, status="failed", failure="out of memory")
    page.locator("[data-status=failed]").wait_for()
    assert "out of memory" in page.locator("[data-status]").inner_text()
    # nothing is asked for any more
    page.wait_for_timeout(300)
    count = len(asked)
    page.wait_for_timeout(2500)
    assert len(asked) == count
    metrics.write_text(first)


# Rollouts


def texts(page: Any, column: int) -> list[str]:
    return page.locator(".body [role=row]").evaluate_all(f"rows => rows.map(row => row.children[{column}].innerText)")


def test_rollouts_are_filtered_by_the_histogram_and_sorted(page: Any, at: Any, folder: Path) -> None:
    at("/run/grpo/rollouts")
    rows = read_run(folder / "grpo").rows("rollouts", 2)
    page.locator("#count", has_text=f"{len(rows)} of {len(rows)}").wait_for()
    values = sorted({row["reward"] for row in rows})
    bars = page.get_by_role("group", name="Rewards of this step").get_by_role("button")
    assert bars.count() == len(values) > 1
    bars.last.click()
    most = sum(row["reward"] == values[-1] for row in rows)
    page.locator("#count", has_text=f"{most} of {len(rows)}").wait_for()
    bars.last.click()
    page.get_by_role("button", name="reward", exact=True).click()
    heads = page.get_by_role("columnheader").all_inner_texts()
    at_reward = next(i for i, head in enumerate(heads) if head.startswith("reward"))
    assert [float(text) for text in texts(page, at_reward)] == sorted((row["reward"] for row in rows), reverse=True)
    page.get_by_role("button", name="reward ↓").click()
    assert [float(text) for text in texts(page, at_reward)] == sorted(row["reward"] for row in rows)
    assert "answer" in heads  # what the reward function wrote


def test_rollouts_by_keys(page: Any, at: Any, folder: Path) -> None:
    rows = read_run(folder / "grpo").rows("rollouts", 2)
    at("/run/grpo/rollouts")
    page.locator("#count").wait_for()
    page.keyboard.press("n")
    page.keyboard.press("n")
    full = page.get_by_role("complementary")
    full.get_by_text("Completion 2 of step 3").wait_for()
    assert full.locator("#completion").text_content() == rows[1]["completion"]
    assert full.locator("#prompt").text_content() == rows[1]["prompt"]
    page.keyboard.press("p")
    full.get_by_text("Completion 1 of step 3").wait_for()
    page.keyboard.press("P")
    page.wait_for_url("**step=1*")
    page.locator("summary", has_text="same prompt").or_(page.locator("[role=table]")).first.wait_for()
    page.keyboard.press("n")
    page.locator("summary", has_text="The same prompt across steps").click()
    page.get_by_text(re.compile(r"\d+ completions in the 3 nearest of 3 recorded steps")).wait_for()
    assert page.locator("li.here").count() == 1
    page.keyboard.press("Escape")
    full.wait_for(state="detached")


def test_ten_thousand_rows_scroll(page: Any, at: Any) -> None:
    at("/run/many/rollouts?step=0")
    page.locator("#count", has_text="10000 of 10000").wait_for()
    table = page.get_by_role("table", name="Completions")
    assert page.locator(".body [role=row]").count() < 60
    table.evaluate("table => table.scrollTo(0, table.scrollHeight)")
    page.get_by_role("button", name="Open completion 10000").wait_for()
    assert page.locator(".body [role=row]").count() < 60
    page.get_by_role("button", name="Open completion 9998").click()
    page.get_by_text("Completion 9998 of step 1").wait_for()
    page.get_by_role("button", name="length", exact=True).click()
    assert table.get_attribute("aria-rowcount") == "10001"


# Tokens


def number(text: str) -> float:
    return float(text.rsplit("= ", 1)[1].split()[0].replace("−", "-"))


def test_a_tokens_numbers_are_those_of_the_record(page: Any, at: Any, folder: Path) -> None:
    row = read_run(folder / "ppo").rows("tokens", 1)[0]
    at("/run/ppo/tokens?step=1&pass=2")
    tokens = page.locator("[data-token]")
    tokens.first.wait_for()
    assert tokens.count() == len(row["text"])
    for t in range(len(row["text"])):
        tokens.nth(t).hover()
        ratio = math.exp(row["lp_new"][1][t] - row["lp_old"][t])
        advantage = row["advantage"][t]
        objective = min(ratio * advantage, min(max(ratio, 0.8), 1.2) * advantage)
        assert number(page.locator("#token-ratio dd").inner_text()) == pytest.approx(ratio, abs=6e-4)
        assert number(page.locator("#token-objective dd").inner_text()) == pytest.approx(objective, abs=6e-4)
        assert number(page.locator("#token-value dd").inner_text()) == pytest.approx(
            row["return"][t] - row["value"][t], abs=6e-4
        )
    assert page.locator("#token-delta").count() == 1
    kinds = [
        tokens.nth(t).evaluate(
            "token => getComputedStyle(token).textDecorationStyle + ' ' + getComputedStyle(token).textDecorationLine"
        )
        for t in range(len(row["text"]))
    ]
    drawn = {0: "solid none", 1: "dotted underline", 2: "double underline"}
    assert kinds == [drawn[outcome] for outcome in row["outcome"][1]]
    assert 2 in row["outcome"][1]


def test_tokens_by_channel_and_by_keys(page: Any, at: Any, folder: Path) -> None:
    rows = read_run(folder / "grpo").rows("tokens", 2)
    at("/run/grpo/tokens")
    listbox = page.get_by_role("listbox")
    listbox.press("End")
    assert page.get_by_text(f"token {len(rows[0]['text'])} of {len(rows[0]['text'])}").count() == 1
    page.get_by_text("log ρ", exact=True).first.click()
    assert "channel=ratio" in page.url
    assert "log ρ" in listbox.get_attribute("aria-label")
    page.keyboard.press("n")
    page.wait_for_url(f"**group={rows[1]['group']}&sample={rows[1]['sample']}*")
    assert page.locator("[data-token]").count() == len(rows[1]["text"])
    page.keyboard.press("P")
    page.wait_for_url("**step=1*")
    assert page.get_by_role("img", name=re.compile("^Channels: advantage .*entropy")).count() == 1


@pytest.mark.parametrize("page", [PHONE, {"color_scheme": "dark"}], indirect=True)
@pytest.mark.parametrize("path", ["/run/grpo/rollouts?row=1", "/run/ppo/tokens"])
def test_pages_fit_a_phone_and_the_dark(page: Any, at: Any, path: str) -> None:
    at(path)
    page.locator("[role=row], [data-token]").first.wait_for()
    assert fits(page)


# What is not there


@pytest.mark.parametrize("run", ["of-trl", "of-verl"])
def test_runs_of_others_show_what_they_have(page: Any, at: Any, run: str) -> None:
    at(f"/run/{run}")
    page.locator("#lacks + ul li").first.wait_for()
    assert "written by" in page.locator(".head").inner_text()
    page.get_by_role("link", name="rollouts").click()
    page.locator("#count", has_text="2 of 2").wait_for()
    assert texts(page, 2) == ["4", "5"]
    page.get_by_role("link", name="tokens").click()
    page.get_by_text("This run has no tokens").wait_for()


def test_a_run_or_a_step_that_is_not_there(page: Any, at: Any) -> None:
    at("/run/none")
    page.get_by_text(re.compile("none")).first.wait_for()
    page.locator(".empty").wait_for()
    at("/run/grpo/rollouts?step=99")
    page.get_by_text("step 100 has no rollouts").wait_for()
    page.get_by_role("slider", name="step").press("Home")
    page.locator("#count").wait_for()
    page.expected_errors.clear()
