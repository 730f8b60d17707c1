"""The page that lays runs side by side, and the page about a run's memory, on the runs that ship with the package."""

from __future__ import annotations

import shutil

import pytest
from reader import PHONE, fits

from oneloop.lab.catalog import DEMO


@pytest.fixture(scope="module")
def runs(tmp_path_factory):
    """Three recorded runs, and GRPO's once more: on another seed, and as if of another learning rate."""
    folder = tmp_path_factory.mktemp("compared")
    for name in ("ppo", "grpo", "dpo"):
        shutil.copytree(DEMO / name, folder / name)
    shutil.copytree(DEMO / "grpo", folder / "grpo-seed1")
    shutil.copytree(DEMO / "grpo", folder / "slower")
    config = folder / "slower" / "config.toml"
    config.write_text(config.read_text().replace("learning_rate = 0.0002", "learning_rate = 0.0001"))
    info = folder / "grpo-seed1" / "run.json"
    info.write_text(info.read_text().replace('"seed": 0', '"seed": 1'))
    return folder


def test_compare(lab, runs, page):
    page.goto(lab(runs) + "/compare")
    page.get_by_text("Tick two to four runs").wait_for()
    page.get_by_role("checkbox", name="grpo", exact=False).first.check()
    page.get_by_role("checkbox", name="slower", exact=False).check()
    page.locator("[data-metric=reward] canvas").wait_for()
    assert "runs=grpo%2Cslower" in page.url
    page.get_by_text("one seed: no evidence of a better method").wait_for()
    difference = page.locator("#difference").inner_text()
    assert difference.startswith("slower − grpo, mean reward: 0.000 [−") and "0 is inside" in difference
    settings = page.get_by_role("region", name="Settings that differ")
    assert settings.locator("tbody tr").all_inner_texts() == ["learning_rate\t0.0002\t0.0001"]
    prompts = page.get_by_role("region", name="The same prompts")
    assert prompts.locator("tbody tr").count() >= 2 and prompts.get_by_text("reward").first.is_visible()


def test_axes_baseline_and_metric_stand_in_the_address(lab, runs, page):
    page.goto(lab(runs) + "/compare?runs=ppo,grpo&metric=loss")
    chart = page.locator("[data-metric=loss]")
    chart.locator("canvas").wait_for()
    assert page.locator("[data-metric]").count() == 1
    steps = [int(cell) for cell in chart.locator("tbody td:first-child").all_inner_texts()]
    assert steps[0] == 1
    page.get_by_text("tokens", exact=True).click()
    page.wait_for_url("**x=tokens**")
    chart.get_by_role("columnheader", name="tokens trained on").wait_for(state="attached")
    tokens = [float(cell) for cell in chart.locator("tbody td:first-child").all_inner_texts()]
    assert tokens == sorted(tokens) and tokens[-1] > 1000
    page.get_by_label("baseline").select_option("grpo")
    page.wait_for_url("**runs=grpo%2Cppo**")
    page.get_by_text("their rewards are not the same (reward_model)").wait_for()
    assert page.locator("#difference").count() == 0


def test_two_seeds_of_one_method_are_chance(lab, runs, page):
    page.goto(lab(runs) + "/compare?runs=grpo,grpo-seed1")
    page.get_by_text("what is seen is chance").wait_for()
    assert page.get_by_text("one seed: no evidence").count() == 0


def test_memory(lab, runs, page):
    page.goto(lab(runs) + "/run/ppo/memory")
    page.locator("#error").wait_for()
    planned, measured = (page.locator(name + " .value").inner_text() for name in ("#planned", "#measured"))
    assert planned.endswith("MiB") and measured.endswith("MiB")
    error = page.locator("#error .value").inner_text()
    expected = float(planned.split()[0]) / float(measured.split()[0]) - 1
    assert abs(float(error.replace("−", "-").removesuffix("\xa0%").rstrip("% ")) - 100 * expected) <= 1.5
    for model in ("policy", "critic", "reference", "reward model"):
        assert page.get_by_role("cell", name=model, exact=True).is_visible()
    assert [row.split("\t")[0] for row in page.locator("#phases tbody tr").all_inner_texts()] == [
        "rollout", "evaluate", "prepare", "update",
    ]  # fmt: skip
    before = page.locator("#bill").inner_text()
    page.get_by_label("reward model").check()
    page.wait_for_url("**without=reward**")
    assert page.locator("#bill").inner_text() != before
    assert page.get_by_role("cell", name="reward model", exact=True).count() == 0


def test_a_run_without_a_plan_says_which_command_makes_one(lab, runs, page):
    (runs / "grpo" / "plan.json").unlink()
    page.goto(lab(runs) + "/run/grpo/memory")
    page.get_by_text("No plan is kept").wait_for()
    assert "oneloop plan grpo --recipe" in page.locator("main pre").first.inner_text()
    assert page.locator("#measured .value").inner_text().endswith("MiB")


@pytest.mark.parametrize("page", [PHONE | {"color_scheme": "dark"}], indirect=True)
def test_both_fit_a_phone(lab, runs, page):
    for path in ("/compare?runs=ppo,grpo", "/run/ppo/memory"):
        page.goto(lab(runs) + path)
        page.locator("canvas").first.wait_for()
        assert fits(page)
