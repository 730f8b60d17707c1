"""Every study runs; its page says what its numbers say; committed pages were made from the numbers beside them."""

import json
import os
import re
import subprocess
import sys
import xml.etree.ElementTree as ElementTree
from dataclasses import replace

import pytest
from scipy.linalg import hadamard

from oneloop.cli.main import run
from oneloop.studies import STUDIES, lengths, pairs, trust
from oneloop.studies.execute import execute
from oneloop.studies.pages import judged, load, overview, page
from oneloop.studies.study import Panel, Point, Verdict
from pages import ROOT

FOLDER = ROOT / "docs" / "studies"
NAMES = list(STUDIES)


@pytest.fixture(scope="module")
def quick(tmp_path_factory):
    """`oneloop study --quick`: all of them."""
    folder = tmp_path_factory.mktemp("studies")
    # in a process of its own: what checks types in tests would take four times as long as the studies
    command = [sys.executable, "-m", "oneloop", "study", "--quick", "--out", folder]
    # one thread: these problems gain nothing from a second one, and a waiting thread costs as much as a working one
    done = subprocess.run(command, capture_output=True, text=True, env=os.environ | {"OMP_NUM_THREADS": "1"})
    assert done.returncode == 0, done.stderr
    return folder


@pytest.mark.parametrize("name", NAMES)
def test_a_quick_study_ends_in_a_page_a_picture_and_its_values(name: str, quick) -> None:
    result = load(quick / f"{name}.json")
    assert result.quick and len(result.seeds) >= 5
    assert all(len(point.values) == len(result.seeds) for panel in result.table.values() for point in panel.points)
    text = (quick / f"{name}.md").read_text(encoding="utf-8")
    assert text == page(STUDIES[name], result)
    for verdict, because in judged(STUDIES[name], result):
        assert f"**{verdict}**. {because[0].upper()}{because[1:]}." in text
    drawn = ElementTree.parse(quick / f"{name}.svg")
    words = "".join(node.text or "" for node in drawn.iter())
    assert all(panel.axis in words for panel in result.table.values())


@pytest.mark.parametrize("name", NAMES)
def test_a_quick_study_still_decides_something_as_the_full_one_does(name: str, quick) -> None:
    study = STUDIES[name]
    short, full = (judged(study, load(folder / f"{name}.json")) for folder in (quick, FOLDER))
    assert [one for one, other in zip(short, full, strict=True) if one.verdict == other.verdict != Verdict.OPEN]


@pytest.mark.parametrize("name", ["clip", "pairs"])
def test_the_same_seeds_give_the_same_numbers(name: str, quick) -> None:
    study = replace(STUDIES[name], quick_seeds=STUDIES[name].quick_seeds[:2])
    again, first = execute(study, quick=True).table, load(quick / f"{name}.json").table
    for key, panel in again.items():
        for point in panel.points:
            assert point.values == pytest.approx(first[key].at(point.series, point.x).values[:2], rel=1e-9, abs=1e-12)


@pytest.mark.parametrize("name", NAMES)
def test_the_committed_page_is_what_its_numbers_say(name: str) -> None:
    result = load(FOLDER / f"{name}.json")
    study = STUDIES[name]
    assert not result.quick and result.seeds == study.seeds and len(result.seeds) >= 5
    assert (FOLDER / f"{name}.md").read_text(encoding="utf-8") == page(study, result)
    assert {file.name for file in FOLDER.glob(f"{name}.*")} == {f"{name}.{kind}" for kind in ("json", "md", "svg")}


def test_the_overview_has_every_claim_with_its_verdict() -> None:
    results = {name: load(FOLDER / f"{name}.json") for name in STUDIES}
    text = (FOLDER / "README.md").read_text(encoding="utf-8")
    assert text == overview(STUDIES, results)
    assert len(re.findall(r"^\| \[", text, re.MULTILINE)) == sum(len(study.claims) for study in STUDIES.values())


def scattered(panel: Panel) -> Panel:
    """The same means with so wide a spread, each point's its own, that nothing can be told from them.

    Signs are rows of a Hadamard matrix: each has mean 0, and so has the difference of any two.
    """
    signs = hadamard(64)[1:]
    points = [
        replace(point, values=tuple(point.mean + 1e6 * float(sign) for sign in row))
        for point, row in zip(panel.points, signs, strict=False)
    ]
    assert len(points) == len(panel.points)
    return replace(panel, points=tuple(points))


OF_RATIOS = {("spread", 0), ("spread", 1), ("pairs", 0), ("pairs", 1)}
"""A ratio of two such points has mean 0, which is a result."""
CLAIMS = [(name, n) for name, study in STUDIES.items() for n in range(len(study.claims)) if (name, n) not in OF_RATIOS]


@pytest.mark.parametrize(("name", "number"), CLAIMS)
def test_no_claim_is_judged_by_its_mean_alone(name: str, number: int) -> None:
    result = load(FOLDER / f"{name}.json")
    table = {key: scattered(panel) for key, panel in result.table.items()}
    assert STUDIES[name].claims[number].judge(table).verdict == Verdict.OPEN


def panel_of(**series: tuple[tuple[float, ...], tuple[float, ...]]) -> Panel:
    """Of each series, its first and its last place."""
    points = [Point(name, x, values) for name, both in series.items() for x, values in zip((0, 100), both, strict=True)]
    return Panel("made up", "step", tuple(points))


NEAR, FAR, WIDE = (2.8, 2.79, 2.81), (28.0, 29.0, 30.0), (-50.0, 3.0, 60.0)


@pytest.mark.parametrize(("small", "verdict"), [(FAR, Verdict.HOLDS), (NEAR, Verdict.FAILS), (WIDE, Verdict.OPEN)])
def test_the_gap_of_dpo_is_judged_by_what_is_measured(small, verdict) -> None:
    points = (Point(pairs.DRAWN, pairs.SMALL, small), Point(pairs.DRAWN, pairs.LARGE, NEAR))
    claim = STUDIES["pairs"].claims[0]
    assert claim.judge({"gap": Panel("gap", "β", points)}).verdict == verdict


@pytest.mark.parametrize(("end", "verdict"), [(FAR, Verdict.HOLDS), (NEAR, Verdict.FAILS), (WIDE, Verdict.OPEN)])
def test_the_length_of_wrong_answers_is_judged_by_what_is_measured(end, verdict) -> None:
    table = {"wrong": panel_of(**{lengths.PER_ANSWER: (NEAR, end)})}
    assert STUDIES["lengths"].claims[0].judge(table).verdict == verdict


SOME = {
    "held": ((0.0, 0.0, 0.0), Verdict.HOLDS),
    "left": ((0.7, 0.71, 0.72), Verdict.FAILS),
    "wide": ((-1.0, 0.0, 1.0), Verdict.OPEN),
}


@pytest.mark.parametrize("name", SOME)
def test_the_band_of_the_clip_is_judged_by_what_is_measured(name: str) -> None:
    values, verdict = SOME[name]
    table = {"band": panel_of(**{trust.FREE: ((0.0, 0.0, 0.0), values)})}
    assert STUDIES["trust"].claims[1].judge(table).verdict == verdict


def test_the_list_names_all_of_them(capsys) -> None:
    assert run(["study"]) == 0
    assert [line.split()[0] for line in capsys.readouterr().out.splitlines()] == NAMES


def test_an_unknown_study_is_refused_with_the_nearest_name(capsys) -> None:
    assert run(["study", "clipp"]) == 2
    assert "Did you mean clip?" in capsys.readouterr().err


def test_a_result_keeps_every_bit_on_its_way_to_the_disk(quick) -> None:
    text = (quick / "clip.json").read_text(encoding="utf-8")
    assert json.loads(text) == load(quick / "clip.json").to_json()
