"""The bar of a notebook, without one."""

import pytest

from oneloop.notebook import NOTES_SHOWN, Progress, in_notebook


def test_a_script_is_no_notebook() -> None:
    assert not in_notebook()


def test_one_picture_that_changes(monkeypatch) -> None:
    now = iter(range(100))
    monkeypatch.setattr("oneloop.notebook.monotonic", lambda: float(next(now)))
    shown = []
    bar = Progress(4, lambda picture: shown.append(repr(picture)))
    bar.step(0, {"reward": 0.5, "eval/reward": 0.25})
    bar.step(1, {"reward": 0.75})
    assert shown[-1].startswith("step 2/4   ETA 0:") and len(shown) == 2
    assert "reward 0.750" in shown[-1] and "eval reward 0.250" in shown[-1]  # an evaluation's value stays


def test_steps_that_follow_each_other_fast_are_not_all_drawn(monkeypatch) -> None:
    monkeypatch.setattr("oneloop.notebook.monotonic", lambda: 100.0)
    shown = []
    bar = Progress(1000, shown.append)
    bar.say("begins")
    for step in range(1000):
        bar.step(step, {"reward": 0.0})
    assert len(shown) == 2  # the note, and the last step


@pytest.mark.parametrize("count", [1, NOTES_SHOWN, NOTES_SHOWN + 3])
def test_notes_are_text_and_the_oldest_make_room(count: int) -> None:
    bar = Progress(2, lambda picture: None)
    for number in range(count):
        bar.say(f"note {number} <script>")
    page = bar._repr_html_()
    assert "<script>" not in page and page.count("&lt;script&gt;") == min(count, NOTES_SHOWN)
    assert ("3 lines before these" in page) == (count > NOTES_SHOWN) and f"note {count - 1} " in page
