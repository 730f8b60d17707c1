"""The page that ships is the one that its sources make, within its budget, and keeps model text out of its markup."""

import gzip
import json
import re
from pathlib import Path

from built import NOTE, ROOT, STATIC, now

FIX = "run: make web (it needs Node), and commit src/oneloop/lab/static"


def test_the_built_page_is_that_of_the_sources() -> None:
    noted = json.loads(NOTE.read_text(encoding="utf-8"))
    assert noted["sources"] == now()["sources"], f"web/ has changed since the page was built; {FIX}"
    assert noted["files"] == now()["files"], f"a built file was changed by hand; {FIX}"


def test_a_change_of_either_side_is_seen(tmp_path: Path, monkeypatch) -> None:
    import built

    (tmp_path / "web/src").mkdir(parents=True)
    static = tmp_path / "static"
    static.mkdir()
    (tmp_path / "web/src/a.ts").write_text("1")
    (static / "app.js").write_text("1")
    monkeypatch.setattr(built, "ROOT", tmp_path)
    monkeypatch.setattr(built, "STATIC", static)
    monkeypatch.setattr(built, "NOTE", static / "built.json")
    first = built.now()
    (tmp_path / "web/src/a.ts").write_text("2")
    second = built.now()
    (static / "app.js").write_text("2")
    third = built.now()
    assert first["sources"] != second["sources"] == third["sources"]
    assert first["files"] == second["files"] != third["files"]


def test_the_page_is_at_most_250_kilobytes_packed() -> None:
    files = [path for path in STATIC.rglob("*") if path.suffix in (".js", ".css", ".html")]
    assert files
    assert sum(len(gzip.compress(path.read_bytes(), 9)) for path in files) <= 250_000


def test_markup_is_given_to_the_browser_in_one_place_only() -> None:
    """What a model wrote may only ever become a text node: no other component may use {@html} or innerHTML."""
    given = re.compile(r"\{@html|innerHTML|outerHTML|insertAdjacentHTML|document\.write|createContextualFragment")
    sources = [path for path in (ROOT / "web/src").rglob("*") if path.suffix in (".svelte", ".ts")]
    found = {path.name for path in sources if given.search(path.read_text(encoding="utf-8"))}
    assert found == {"Formula.svelte"}
