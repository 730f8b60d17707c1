"""/studies, operated as a reader does."""

from __future__ import annotations

import json
from itertools import pairwise
from typing import Any

import pytest
from reader import PHONE, choose, fits

from oneloop.lab.studied import FOLDER, LIST

STUDIES = json.loads((FOLDER / LIST).read_text(encoding="utf-8"))["studies"]
CLAIMS = [claim for study in STUDIES for claim in study["claims"]]


def read(name: str) -> dict[str, Any]:
    return json.loads((FOLDER / f"{name}.json").read_text(encoding="utf-8"))


def test_every_claim_stands_beside_its_verdict(page: Any, at: Any) -> None:
    at("/")
    page.get_by_role("link", name="studies", exact=True).click()
    rows = page.locator("section li")
    rows.first.wait_for()
    found = [(row.locator("[data-verdict]").get_attribute("data-verdict"), row.locator("span").last.inner_text())
             for row in rows.all()]  # fmt: skip
    assert found == [(claim["verdict"], claim["text"]) for claim in CLAIMS]


def test_claims_are_chosen_by_verdict_and_the_address_keeps_it(page: Any, at: Any) -> None:
    at("/studies")
    failed = [claim for claim in CLAIMS if claim["verdict"] == "does not hold here"]
    choose(page, "Verdict", f"does not hold here {len(failed)}")
    page.reload()
    page.locator("section li").first.wait_for()
    assert [row.locator("span").last.inner_text() for row in page.locator("section li").all()] == [
        claim["text"] for claim in failed
    ]
    choose(page, "Verdict", f"all {len(CLAIMS)}")
    assert page.locator("section li").count() == len(CLAIMS)


@pytest.mark.parametrize("page", [{}, PHONE | {"color_scheme": "dark"}], indirect=True)
def test_a_study_shows_claims_pictures_numbers_and_its_command(page: Any, at: Any) -> None:
    study = read("trust")
    at("/studies")
    page.get_by_role("link", name=study["title"], exact=True).click()
    page.locator("figure").first.wait_for()
    assert page.locator("h1").inner_text() == study["title"]
    told = page.locator("main").inner_text()
    for claim in study["claims"]:
        assert claim["text"] in told and claim["because"] in told and claim["source"] in told
    assert page.locator("figure[data-panel]").count() == len(study["panels"])
    assert page.locator("pre").inner_text() == "oneloop study trust"
    assert f"Seeds 0 to {study['seeds'][-1]}; {study['date']}" in told
    page.get_by_text("Numbers", exact=True).click()
    cells = [text for cell in page.locator("td").all() if (text := cell.inner_text())]  # not every series is everywhere
    assert sorted(cells) == sorted(point["said"] for panel in study["panels"] for point in panel["points"])
    assert fits(page)


def heights(figure: Any, colour: str) -> list[float]:
    return [mark["y"] for mark in (one.bounding_box() for one in figure.locator(f"svg[role=img] > .{colour}").all())]


def test_a_picture_shows_the_numbers_in_their_order(page: Any, at: Any) -> None:
    """The clip's gradient at Â < 0 by ρ: PPO's grows with ρ, the dual clip's falls to 0 and stays there."""
    study = read("clip")
    at("/studies/clip")
    figure = page.locator("figure[data-panel=far]")
    figure.wait_for()
    panel = next(one for one in study["panels"] if one["key"] == "far")
    for place, colour in enumerate(("c0", "c1")):
        means = [point["mean"] for point in panel["points"] if point["series"] == panel["series"][place]]
        drawn = heights(figure, f"{colour}:not(g)")
        assert len(drawn) == len(means) > 4
        for (one, here), (other, there) in pairwise(zip(means, drawn, strict=True)):
            assert (other > one) == (there < here - 0.01), "higher numbers stand higher"
    assert figure.locator("circle title").first.text_content().startswith("PPO (0.2), ")


OUTSIDE = """() => [...document.querySelectorAll('figure svg[role=img]')].flatMap((svg) => {
  const frame = svg.getBoundingClientRect();
  const beyond = (box) => box.left < frame.left - 1 || box.right > frame.right + 1
    || box.top < frame.top - 1 || box.bottom > frame.bottom + 1;
  return [...svg.querySelectorAll('circle, path, text, polygon')]
    .filter((mark) => beyond(mark.getBoundingClientRect())).map((mark) => mark.outerHTML);
})"""
"""What is drawn outside its picture's frame."""


@pytest.mark.parametrize("study", STUDIES, ids=lambda study: study["name"])
def test_every_study_is_drawn_inside_its_frame(page: Any, at: Any, study: dict[str, Any]) -> None:
    at(f"/studies/{study['name']}")
    page.locator("figure").first.wait_for()
    assert page.locator("figure[data-panel]").count() == len(read(study["name"])["panels"])
    assert "NaN" not in page.locator("main").inner_html() and "Infinity" not in page.locator("main").inner_html()
    assert page.evaluate(OUTSIDE) == []


def test_a_study_that_is_not_there_says_so(page: Any, at: Any) -> None:
    at("/studies/nothing")
    page.get_by_text("there is no study of that name").wait_for()
    page.expected_errors.clear()  # the 404 in the console
