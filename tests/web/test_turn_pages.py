"""Episodes of many turns on the pages of a run: who spoke, what was called, masked and paid, and how it ended."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pyarrow
import pytest
import recorded_runs as runs
from pyarrow import parquet
from reader import PHONE, fits
from test_hostile import PAYLOADS, unharmed

from oneloop.config import default_run
from oneloop.recipes.execute import execute
from oneloop.record.reader import read_run
from oneloop.record.table import rollout_table
from oneloop.record.writer import RunFolder
from oneloop.types import Call, Completion, Prompt, Reward, StopReason, Trajectory, Turn

FAILURE = "turn 1: step raised ValueError: no J"


def turn(start: int, end: int, text: str, reward: float | None, **more: Any) -> Turn:
    return Turn(role="assistant", text=text, chosen=True, span=(start, end), reward=reward, **more)


def told(text: str, *span: int) -> Turn:
    return Turn(role="tool", text=text, span=span or None)  # pyright: ignore[reportArgumentType]


def episode(sample: int, stop: StopReason, *turns: Turn, reward: float | None = 0.0, **failures: str) -> Trajectory:
    length = max(turn.span[1] for turn in turns if turn.span)
    given = tuple(turn.span for turn in turns if turn.span and not turn.chosen)
    return Trajectory(
        prompt=Prompt(id="0", text="37*4+1=", tokens=(1,)), group=0, sample=sample, turns=turns,
        completion=Completion(tokens=tuple(range(length)), logprobs=(0.0,) * length, stop=stop, given=given),
        text="".join(turn.text for turn in turns), reward=Reward(value=reward, failures=failures),
    )  # fmt: skip


def episodes(name: str = "calculator", arguments: str = "37*4", answer: str = "148;") -> list[Trajectory]:
    call = Call(name=name, arguments=arguments, answer=answer)
    return [
        episode(
            0, StopReason.ENVIRONMENT,
            turn(0, 7, f"[{arguments}]", 0.25, calls=(call,), advantage=0.5), told(answer, 7, 12),
            turn(12, 16, "149", -1.0, terminated=True, advantage=-1.5), told("wrong;"),
        ),
        episode(1, StopReason.TURNS, turn(0, 2, "J", 0.0), told("lower;", 2, 8)),
        episode(2, StopReason.ERROR, turn(0, 2, "J", None), reward=None, game=FAILURE),
    ]  # fmt: skip


@pytest.fixture(scope="session")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """By hand, hostile, as older versions recorded it, and one that played."""
    place = tmp_path_factory.mktemp("turns")
    for name, steps in {"hand": [episodes()], "hostile": [episodes(*[text] * 3) for text in PAYLOADS]}.items():
        facts = {"seed": 7, "steps": len(steps)}
        with RunFolder.open(place / name, resume=False, config_text="", facts=facts) as run:
            for step, items in enumerate(steps):
                run.trajectories(step, items)
                run.scalars(step, {"reward": 0.0})
            run.finish("finished")
    older(runs.copy(place / "hand", "older"))
    game = {"data": "task:guess", "data_size": 64, "eval_size": 4, "learning_rate": 3e-3}
    sft = replace(default_run("sft"), out=str(place / "sft"), steps=40, prompts_per_step=16, trace=False, **game)
    execute(sft, runs.Quiet())
    settings = {"model": str(place / "sft" / "final"), "environment": "guess", "max_new_tokens": 4, "max_turns": 4}
    ppo = {"steps": 1, "prompts_per_step": 16, "minibatch": 8, "out": str(place / "played")}
    execute(replace(default_run("ppo"), **settings, **ppo, **game), runs.Quiet())
    return place


def older(run: Path) -> None:
    """Role, text and reward alone."""
    (file,) = (run / "rollouts").glob("*.parquet")
    table = rollout_table(0, episodes()).drop_columns(["error", "turns"])
    short = [
        json.dumps(
            [{name: turn[name] for name in ("role", "text", "reward") if name in turn} for turn in json.loads(row)]
        )
        for row in rollout_table(0, episodes())["turns"].to_pylist()
    ]
    parquet.write_table(table.append_column("turns", pyarrow.array(short)), file)


@pytest.fixture
def at(lab: Any, page: Any, folder: Path) -> Callable[[str], Any]:
    address = lab(folder)
    return lambda path: page.goto(address + path)


@pytest.mark.parametrize("page", [{}, {"color_scheme": "dark"}, PHONE], indirect=True)
def test_who_spoke_what_was_called_masked_and_paid(page: Any, at: Any) -> None:
    at("/run/hand/rollouts?row=0")
    turns = page.locator("[data-turn]")
    turns.first.wait_for()
    assert turns.evaluate_all("all => all.map(one => one.dataset.turn)") == ["policy", "environment"] * 2
    call, answer, last, end = (turns.nth(i).inner_text() for i in range(4))
    assert "model, turn 1" in call and "7 tokens" in call and "advantage +0.500" in call and "reward +0.250" in call
    assert page.locator("[data-call=calculator]").inner_text().split() == [
        "calls",
        "calculator",
        "37*4",
        "answer",
        "148;",
    ]
    assert "148;" in answer and "5 tokens, masked: not trained on" in answer and "reward" not in answer
    assert "reward −1.000" in last and "terminated" in last
    assert "never read: the episode was over" in end
    totals = page.locator("#totals").inner_text()
    assert "2 turns of the model, 11 tokens; 5 tokens of the environment, masked" in totals
    assert "gave −0.75" in totals and "1 call of tools" in totals
    assert "terminated: the environment says" in page.locator("#ending").inner_text()
    assert fits(page)


@pytest.mark.parametrize("page", [{}, {"color_scheme": "dark"}], indirect=True)
def test_the_policys_turns_have_the_colour_of_their_advantage_and_the_environments_have_none(
    page: Any, at: Any
) -> None:
    at("/run/hand/rollouts?row=0")
    page.locator("[data-turn]").first.wait_for()
    kinds = "[style.backgroundImage, style.borderTopStyle, style.borderLeftColor]"
    look = f"one => {{ const style = getComputedStyle(one); return {kinds} }}"
    turns = [page.locator("[data-turn]").nth(i).evaluate(look) for i in range(3)]
    assert "gradient" in turns[1][0] and turns[1][1] == "dashed", "hatched: to be told without colours"
    assert [turn[0] for turn in turns[::2]] == ["none", "none"]
    assert len({turn[2] for turn in turns}) == 3, "above 0, masked, and below 0"


def test_ends_and_failures_by_keys(page: Any, at: Any) -> None:
    at("/run/hand/rollouts")
    page.locator("#count").wait_for()
    ends = ["terminated: ", "truncated: the limit of turns", f"the environment failed: {FAILURE}"]
    for end in ends:
        page.keyboard.press("n")
        page.locator("#ending", has_text=end).wait_for()
    assert "not answered" in page.locator("[data-turn]").inner_text()
    heads = page.get_by_role("columnheader").all_inner_texts()
    assert "turns" in heads
    page.get_by_role("button", name="turns", exact=True).press("Enter")
    assert "sort=-turns" in page.url


def test_a_run_of_an_older_version_claims_no_more_than_it_knows(page: Any, at: Any) -> None:
    at("/run/older/rollouts?row=0")
    page.locator("[data-turn]").first.wait_for()
    assert page.locator("[data-turn=environment]").first.inner_text().split() == [
        "environment",
        "▨",
        "not",
        "trained",
        "on",
        "tool",
        "148;",
    ]
    assert page.locator("#totals").inner_text() == "2 turns of the model. The environment gave −0.75."


def test_hostile_turns_calls_and_answers_stay_texts(page: Any, at: Any) -> None:
    for step, text in enumerate(PAYLOADS):
        at(f"/run/hostile/rollouts?step={step}&row=0")
        page.locator("[data-turn]").first.wait_for()
        assert page.locator("[data-call] dd").all_text_contents() == [text, text]
        assert page.locator("[data-turn=environment] .text").first.text_content() == text
        unharmed(page)


def test_the_token_page_shows_what_was_masked_where_it_was_said(page: Any, at: Any, folder: Path) -> None:
    rows = read_run(folder / "played").rows("tokens", 0)
    at_row = next(i for i, row in enumerate(rows) if row["masked_at"])
    row = rows[at_row]
    at(f"/run/played/tokens?group={row['group']}&sample={row['sample']}")
    page.locator("[data-token]").first.wait_for()
    assert page.locator("[data-token]").count() == len(row["text"]), "masked tokens are none that can be chosen"
    said = page.locator(".tokens .masked")
    assert "".join(said.all_text_contents()) == "".join(row["masked_text"])
    assert f"{len(row['masked_at'])} tokens, masked" in page.locator("#masked").inner_text()
    before = said.first.evaluate(
        "one => [...one.parentElement.querySelectorAll('[data-token]')]"
        ".filter(token => token.compareDocumentPosition(one) & Node.DOCUMENT_POSITION_FOLLOWING).length"
    )
    assert before == row["masked_at"][0]
    assert said.first.evaluate("one => one.style.length") == 0
    at(f"/run/played/rollouts?step=0&row={row['group']}")
    page.get_by_role("link", name="Its tokens").wait_for()
    assert page.locator("[data-turn=policy]").count() == len(
        json.loads(read_run(folder / "played").rollouts(0)[row["group"]]["turns"])[::2]
    )
