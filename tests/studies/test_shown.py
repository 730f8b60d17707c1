"""What the lab shows of the studies is what docs/studies holds."""

import json

import pytest

from oneloop.lab.studied import FOLDER, LIST
from oneloop.studies import STUDIES
from oneloop.studies.pages import load
from oneloop.studies.shown import ship, shown
from pages import ROOT

RESULTS = ROOT / "docs" / "studies"
FIX = "run: make study-pages, and commit src/oneloop/lab/studies"


def test_the_package_carries_what_the_docs_say(tmp_path) -> None:
    ship(STUDIES, RESULTS, tmp_path)
    made = {file.name: file.read_text(encoding="utf-8") for file in tmp_path.iterdir()}
    assert made == {file.name: file.read_text(encoding="utf-8") for file in FOLDER.iterdir()}, FIX
    listed = json.loads(made[LIST])["studies"]
    assert [one["name"] for one in listed] == list(STUDIES)
    assert [len(one["claims"]) for one in listed] == [len(study.claims) for study in STUDIES.values()]
    assert sum(len(text.encode()) for text in made.values()) < 400_000


@pytest.mark.parametrize("name", STUDIES)
def test_every_sentence_and_number_of_a_page_is_shown(name: str) -> None:
    page = (RESULTS / f"{name}.md").read_text(encoding="utf-8")
    facts = shown(STUDIES[name], load(RESULTS / f"{name}.json"))
    assert facts["title"] in page and facts["setting"] in page and facts["told"] in page and facts["command"] in page
    for claim in facts["claims"]:
        assert f"**{claim['text']}** ({claim['source']}): **{claim['verdict']}**. {claim['because']}" in page
    for panel in facts["panels"]:
        assert {point["series"] for point in panel["points"]} == set(panel["series"])
        for point in panel["points"]:
            assert f" {point['said']} |" in page
            assert point["low"] <= point["mean"] <= point["high"]
