"""The README's two pictures are pages of the recorded runs; ONELOOP_SHOTS=1 takes them anew."""

import os
from pathlib import Path

import pytest

DOCS = Path(__file__).parents[2] / "docs"
SHOTS = {
    "lab-clip.png": ("/learn/clip?run=ppo&step=4&update=5", "#trust-region, h1"),
    "lab-tokens.png": ("/run/ppo/tokens", "h1"),
}


@pytest.mark.parametrize("name", SHOTS)
def test_a_picture_shows_a_page_that_is_there(page, lab, name):
    address, shown = SHOTS[name]
    page.goto(lab("--demo") + address)
    page.locator(shown).first.wait_for()
    page.wait_for_load_state("networkidle")
    if os.environ.get("ONELOOP_SHOTS"):
        page.screenshot(path=DOCS / name)
    picture = (DOCS / name).read_bytes()
    assert picture.startswith(b"\x89PNG") and len(picture) <= 150_000
    assert int.from_bytes(picture[16:20], "big") == 1280
    assert page.locator("main").inner_text().count("–") < 60, "a page of dashes shows nothing"
