"""What people see while a run trains: the panel at a fixed width, and lines without a terminal."""

from __future__ import annotations

import io
import re

import pytest
from rich.console import Console

from oneloop.cli.board import SHOWN, Board, left, sparkline
from oneloop.cli.terminal import Terminal
from oneloop.recipes.watched import PhaseObserver


def picture(board: Board, now: float = 0.0, width: int = 80, **console) -> list[str]:
    """The panel's lines as a terminal of that width has them."""
    out = Console(file=io.StringIO(), width=width, force_terminal=True, color_system=None, **console)
    out.print(board.picture(now, width))
    return out.file.getvalue().splitlines()


def full(steps: int = 100_000, done: int = 99_998) -> Board:
    """A board with everything that can be shown, large numbers too."""
    board = Board(steps).in_phase("rollout", (done - 31) * 100.0)
    values = {name: 123_456.789 if name == "tokens_per_second" else -12.3456 for name, _, _ in SHOWN}
    for step in range(done - 30, done):
        board = board.after(step, {name: value + step % 7 for name, value in values.items()}, step * 100.0)
    board = board.after(done, {"reward": 0.5}, done * 100.0)
    return board.in_phase("rollout", done * 100.0)


@pytest.mark.parametrize("width", [60, 80, 100, 200])
def test_the_panel_fits_and_breaks_no_number(width) -> None:
    lines = picture(full(), 9_999_800.0, width)
    assert all(len(line) <= width for line in lines)
    assert len(lines) == 1 + len(SHOWN), "one line for the bar, one for each metric"
    assert "…" not in "".join(lines)
    for (_, label, form), line in zip(SHOWN, lines[1:], strict=True):
        assert line.startswith(label)
        wanted = "0.500" if label == "reward" else form.format(full().last[_].values[-1])
        assert f" {wanted} " in line + " "
    if width >= 80:
        assert re.search(r"step 99999/100000  99%  ETA 1:40  sampling", lines[0])


def test_the_panel_says_how_far_the_scoring_is() -> None:
    board = full().in_phase("score", 9_999_800.0, "1023 of 1024")
    assert picture(board, 9_999_800.0)[0].endswith("ETA 1:40  scoring 1023 of 1024")


def test_the_panel_in_a_narrow_terminal_keeps_the_numbers() -> None:
    lines = picture(full(100, 50), width=40)
    assert all(len(line) <= 40 for line in lines) and not any("▁" in line for line in lines)


def test_a_value_stands_until_it_is_replaced_and_says_where_it_is_from() -> None:
    board = Board(10).after(4, {"reward": 0.25, "eval/reward": 0.75}, 0.0)
    assert "step 5" not in picture(board)[2]
    for step in (5, 6):
        board = board.after(step, {"reward": 0.5}, float(step))
    reward, evaluated = picture(board)[1:]
    assert "0.500" in reward and "step" not in reward
    assert "0.750" in evaluated and evaluated.rstrip().endswith("step 5")


def test_trend_by_hand() -> None:
    assert sparkline([0.0, 1.0]) == "▁█" and sparkline([1.0, 0.5, 0.0]) == "█▅▁"
    assert sparkline([3.0, 3.0, 3.0]) == "▄▄▄" and sparkline([]) == "" and sparkline([float("nan"), 1.0]) == "▄"
    board = Board(40)
    for step in range(30):
        board = board.after(step, {"reward": float(step)}, 0.0)
    assert picture(board)[1].split()[-1] == "▁▁▂▂▂▃▃▄▄▄▅▅▅▆▆▇▇▇██" and len(board.last["reward"].values) == 20


def test_time_left_is_the_median_of_recent_steps() -> None:
    """The first step compiles and takes 60 s, one in five evaluates and takes 11 s, the others 1 s."""
    board, now = Board(100).in_phase("rollout", 0.0), 0.0
    assert board.left(5.0) is None
    for step in range(10):
        now += 60.0 if step == 0 else 11.0 if step % 5 == 0 else 1.0
        board = board.after(step, {}, now)
    assert board.left(now) == 90.0
    assert board.left(now + 0.5) == 89.5, "it runs down within a step"
    assert board.left(now + 500) == 89.0, "and stops when the step takes longer than any"
    assert Board(100).after(0, {}, 60.0).left(60.0) is None, "nobody knows when it began"


def test_time_in_words() -> None:
    assert [left(seconds) for seconds in (0, 59.9, 61, 3600)] == ["ETA 0:00", "ETA 0:59", "ETA 1:01", "ETA 1:00:00"]


def watched(every: int = 1, **console) -> tuple[Terminal, io.StringIO]:
    file = io.StringIO()
    return Terminal(4, Console(file=file, highlight=False, **console), every=every), file


def test_lines_without_a_terminal() -> None:
    watcher, file = watched(width=40)
    assert isinstance(watcher, PhaseObserver)
    watcher.say("A_X step 1: " + "long words " * 20)
    watcher.phase("rollout")
    watcher.step(0, {"reward": 0.5, "eval/reward": 0.25})
    watcher.step(1, {"reward": 0.75})
    lines = file.getvalue().splitlines()
    assert len(lines) == 3, "a line is never broken in a file"
    assert lines[1].startswith("step 1/4 | reward 0.500 | eval reward 0.250 | ETA 0:")
    assert lines[2].startswith("step 2/4 | reward 0.750 | ETA"), "the evaluation belongs to its own step"


def test_every_so_many_steps_and_the_last() -> None:
    watcher, file = watched(every=3)
    for step in range(4):
        watcher.step(step, {"reward": 0.5})
    assert [line.split(" |")[0] for line in file.getvalue().splitlines()] == ["step 3/4", "step 4/4"]


def test_long_lines_break_between_words_in_a_terminal() -> None:
    words = "grpo: 32 prompts × 8 = 256 samples a step → 1 optimizer step of 256 × 1 epoch; 100 steps over 2048 rows"
    watcher, file = watched(width=80, force_terminal=True, color_system=None)
    watcher.say(words)
    lines = file.getvalue().splitlines()
    assert len(lines) == 2 and all(len(line) <= 80 for line in lines)
    assert " ".join(line.strip() for line in lines) == words


def test_what_a_model_says_moves_no_cursor() -> None:
    watcher, file = watched()
    watcher.say("a\x1b[2J[bold]b[/bold]\x07")
    assert file.getvalue() == "a\\x1b[2J[bold]b[/bold]\\x07\n"


def test_no_color(monkeypatch) -> None:
    monkeypatch.setenv("NO_COLOR", "1")
    out = Console(file=io.StringIO(), width=80, force_terminal=True)
    out.print(full().picture(0.0, 80))
    assert not re.search(r"\x1b\[[\d;]*(?:3[0-7]|38)[;m]", out.file.getvalue())


def test_an_ascii_terminal_gets_ascii() -> None:
    out = Console(file=io.TextIOWrapper(io.BytesIO(), encoding="ascii"), width=80, force_terminal=True)
    watcher = Terminal(100, out, live=True)
    watcher.board = full()
    out.print(watcher)
    out.file.flush()
    assert b"###" in out.file.buffer.getvalue() or b"#" in out.file.buffer.getvalue()


def test_codes_on_the_command_line(capsys) -> None:
    from oneloop.cli.main import run

    assert run(["explain", "A_DEAD"]) == 0
    assert capsys.readouterr().out.startswith("A_DEAD: groups of equal rewards")
    assert run(["explain", "A_DAED"]) == 2
    assert "Did you mean A_DEAD?" in capsys.readouterr().err
