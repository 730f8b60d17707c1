"""The report's file in a browser, from a disk and without a server."""

from __future__ import annotations

import shutil

import pytest
from reader import PHONE, fits

from oneloop.lab.catalog import DEMO
from oneloop.lab.report import Table, report_run, write_report
from oneloop.record.writer import RunFolder
from oneloop.types import Completion, Prompt, Reward, StopReason, Trajectory

HOSTILE = "</script><script>alert(1)</script><!--<img src=x onerror=alert(2)> \x1b[31m \u202e 数"


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    folder = tmp_path_factory.mktemp("runs") / "ppo"
    shutil.copytree(DEMO / "ppo", folder)
    return folder


def quiet(page, address):
    """Open it, and see that nothing but the file itself was asked for."""
    asked: list[str] = []
    page.on("request", lambda request: asked.append(request.url))
    page.goto(address)
    return asked


def test_a_run_opens_from_the_disk(page, run):
    out = report_run(run)
    asked = quiet(page, out.as_uri())
    page.get_by_role("heading", name="Run ppo").wait_for()
    assert page.title() == "Run ppo"
    cells = page.locator("#runs tbody td").all_inner_texts()
    assert cells[:2] == ["ppo", "ppo"] and cells[4] == "30 of 30" and cells[6] == "finished"
    page.locator("[data-metric=reward] canvas").wait_for()
    for metric, words in (("reward", "mean reward of completions"), ("kl", "KL to the reference, nats/token")):
        assert page.locator(f"[data-metric='{metric}']").get_by_text(words, exact=True).is_visible()
    first = page.locator("[data-metric='eval/reward'] tbody td").first.inner_text()
    assert first == "0"  # what was measured before training stands at step 0
    page.get_by_text("more curves").click()
    page.locator("[data-metric='time/rollout'] canvas").wait_for()
    page.get_by_text("Objective and settings of ppo").click()
    assert page.get_by_text("settings differ from the default; they stand first").is_visible()
    assert [text.split()[0] for text in page.locator("details pre").all_inner_texts()] == ["oneloop", "ppo:"]
    completions = page.get_by_role("region", name="Completions of ppo")
    assert completions.locator("table").first.locator("tbody tr").count() == 8
    completions.get_by_text("step 30: ").click()
    assert completions.locator("details[open] tbody tr").count() >= 8
    assert [url for url in asked if not url.startswith("data:")] == [out.as_uri()]


def test_its_links_lead_to_the_pages_of_the_run_and_to_the_explorables(page, run):
    quiet(page, report_run(run).as_uri())
    page.locator("#runs").get_by_role("link", name="ppo").click()
    page.wait_for_url("**#/run/ppo")
    page.evaluate("location.hash = '/run/ppo/memory'")
    page.locator("#error").wait_for()
    page.get_by_role("link", name="report", exact=True).click()
    page.get_by_role("heading", name="Learning curves").wait_for()
    page.get_by_role("region", name="Completions of ppo").get_by_role("link", name="1", exact=True).first.click()
    page.wait_for_url("**#/run/ppo/rollouts?step=0&row=*")
    page.keyboard.press("N")
    page.wait_for_url("**#/run/ppo/rollouts?step=5")
    page.get_by_role("link", name="DPO").click()
    page.get_by_role("heading", level=1).wait_for()
    page.get_by_role("link", name="oneloop lab").click()
    page.get_by_role("heading", name="Run ppo").wait_for()


def trajectory(reward, text):
    return Trajectory(
        prompt=Prompt(id="0", text=HOSTILE, tokens=(1,)), group=0, sample=0, text=text, reward=Reward(value=reward),
        completion=Completion(tokens=(2,), logprobs=(-0.1,), stop=StopReason.LENGTH),
    )  # fmt: skip


def test_hostile_words_stay_words_and_gaps_are_said(page, tmp_path):
    runs = []
    for place, name in enumerate((HOSTILE, "plain")):
        facts = {"algorithm": "grpo", "model": HOSTILE, "steps": 2}
        with RunFolder.open(tmp_path / str(place), resume=False, config_text="", facts=facts) as folder:
            for step in range(2):
                part = {f"rewards/{HOSTILE}/mean": 1.0}
                folder.scalars(step, {"reward": step * 1.0, "kl": float("nan") if step else 0.1, **part})
            texts = ((1.0, HOSTILE), (None, "unscored"), (0.0, "x" * 4000))
            folder.trajectories(1, [trajectory(reward, text) for reward, text in texts])
            folder.event(0, "A_X", HOSTILE, HOSTILE)
            folder.finish("failed", HOSTILE)
        runs.append((name, tmp_path / str(place)))
    (tmp_path / "1" / "rollouts" / "step_000001.parquet").write_bytes(b"torn")
    table = Table((HOSTILE,), [("50 % <b>",)], HOSTILE)
    out = write_report(runs, tmp_path / "r.html", title=HOSTILE, tables=[table], notes=["a note"])
    quiet(page, out.as_uri())
    page.locator("[data-metric=reward] canvas").wait_for()
    words = page.locator("main").inner_text()
    for text in ("a note", "50 % <b>", "1 of 3 could not be scored", "… and 2500 characters more", "2 alerts"):
        assert text in words
    assert "values that were not finite" in words and "step_000001.parquet cannot be read" in words
    assert "\\x1b[31m \\u202e 数" in words and "\u202e" not in words and "<script>alert(1)" in words
    names = page.locator("[data-metric=reward] .key").all_inner_texts()
    assert len(names) == 2 and names[1].startswith("plain")
    assert page.locator("main img, main b").count() == 0
    page.get_by_role("region", name="What this shows").get_by_text("No difference can be computed").wait_for()


def test_the_page_of_the_lab_shows_the_same_and_says_the_command(page, lab, run):
    page.goto(lab(run) + "/run/ppo/report")
    page.get_by_role("heading", name="Learning curves").wait_for()
    assert page.locator("main pre").first.inner_text() == f"oneloop report {run}"
    page.locator("[data-metric=reward] canvas").wait_for()
    assert page.get_by_role("region", name="Completions of ppo").locator("tbody tr").first.is_visible()


@pytest.mark.parametrize("page", [PHONE | {"color_scheme": "dark"}], indirect=True)
def test_it_fits_a_phone(page, run):
    quiet(page, report_run(run).as_uri())
    page.locator("[data-metric=reward] canvas").wait_for()
    assert fits(page)
