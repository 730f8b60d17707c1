"""The studies' routes: what the package carries, and nothing else."""

import json

import pytest
from asking import Lab

from oneloop.lab.studied import FOLDER, LIST


@pytest.fixture(scope="module")
def lab(tmp_path_factory: pytest.TempPathFactory) -> Lab:
    return Lab(tmp_path_factory.mktemp("none"))


def test_every_study_of_the_list_can_be_read(lab):
    listed = lab.api("/studies")["studies"]
    assert {f"{one['name']}.json" for one in listed} | {LIST} == {file.name for file in FOLDER.iterdir()}
    for one in listed:
        study = lab.api(f"/studies/{one['name']}")
        assert study["name"] == one["name"] and study["title"] == one["title"]
        assert [{"text": c["text"], "verdict": c["verdict"]} for c in study["claims"]] == one["claims"]
        assert {c["verdict"] for c in study["claims"]} <= {"holds", "does not hold here", "cannot be told"}
        assert study == json.loads((FOLDER / f"{one['name']}.json").read_text(encoding="utf-8"))


@pytest.mark.parametrize("name", ["nothing", "list", "list.json", "clip.json", "..%2Fstatic%2Fbuilt", "%00", "CLIP"])
def test_any_other_name_is_refused_in_words(lab, name):
    answer = lab.get(f"/api/studies/{name}")
    assert answer.status == 404
    assert set(answer.json()) == {"error", "fix"} and answer.json()["error"]
