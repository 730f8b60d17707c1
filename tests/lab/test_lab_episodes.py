"""Episodes of a run folder as the page is told of them, those of older runs and damaged ones too."""

import json
from dataclasses import replace
from pathlib import Path

import pytest
from asking import Lab, trajectory
from episodes_by_hand import OLD, cut_by_the_environment, episodes

from oneloop.lab.episodes import episode, policys, turns_of
from oneloop.lab.held import _rollouts
from oneloop.record.table import rollout_table
from oneloop.record.writer import RunFolder


@pytest.fixture
def lab(tmp_path: Path) -> Lab:
    with RunFolder.open(tmp_path / "run", resume=False, config_text="", facts={"seed": 7, "steps": 2}) as folder:
        folder.trajectories(0, episodes())
        folder.trajectories(1, [trajectory(0, 0, "4", 1.0)])
        folder.finish("finished")
    return Lab(tmp_path)


def test_the_file_holds_every_id_once_and_who_chose_it() -> None:
    """Ids of all turns, one behind the other, are the completion's; those of the policy's turns are its actions."""
    items = [*episodes(), cut_by_the_environment()]
    for row, item in zip(rollout_table(0, items).to_pylist(), items, strict=True):
        turns = json.loads(row["turns"])
        assert [id for turn in turns for id in turn.get("ids", [])] == list(item.completion.tokens)
        chosen = [id for turn in turns if turn.get("chosen") for id in turn["ids"]]
        assert tuple(chosen) == item.completion.actions and len(chosen) == row["length"]
        assert sum(turn.get("reward", 0.0) for turn in turns) == (item.reward.parts["game"] or 0.0)
    tools, limit, _, failed, cut = (json.loads(row["turns"]) for row in rollout_table(0, items).to_pylist())
    assert [turn.get("terminated") for turn in tools if turn.get("chosen")] == [None, True]
    assert [turn.get("truncated") for turn in cut if turn.get("chosen")] == [None, True] != limit
    assert tools[0]["calls"][0] == {"name": "calculator", "arguments": "37*4", "answer": "148;"}
    assert "reward" not in failed[0]


def test_the_column_error_is_of_environments_that_failed() -> None:
    """What a function raised when it judged an episode that ended well is no failure of the environment."""
    ended, *_, failed = episodes()
    judged = replace(ended, reward=replace(ended.reward, value=None, failures={"mine": "raised ValueError: no"}))
    errors = [row["error"] for row in rollout_table(0, [ended, judged, failed]).to_pylist()]
    assert errors == [None, None, "turn 1: step raised ValueError: no J"]


def test_one_episode_is_told_turn_by_turn(lab: Lab) -> None:
    found = lab.api("/runs/run/rollouts/0?step=0")
    assert found["turns"] == 2 and found["error"] is None and found["extras"] == {}
    call, answer, last, end = found["episode"]
    assert [piece["chosen"] for piece in found["episode"]] == [True, False, True, False]
    assert [piece["tokens"] for piece in found["episode"]] == [7, 10, 4, 0], "what nobody reads has no token"
    assert [message["text"] for message in answer["messages"]] == ["148;", "error;"], "read together"
    assert (call["reward"], call["advantage"], call["terminated"]) == (0.25, 0.5, False)
    assert (last["reward"], last["terminated"], last["truncated"]) == (1.0, True, False)
    assert (answer["reward"], answer["advantage"], answer["calls"]) == (None, None, [])
    assert call["calls"][1]["name"] == "" and end["messages"][0]["text"] == "right;"
    failed = lab.api("/runs/run/rollouts/3?step=0")
    assert failed["error"] == "turn 1: step raised ValueError: no J" and failed["reward"] is None


def test_lists_count_turns_and_hold_none(lab: Lab) -> None:
    rows = lab.api("/runs/run/rollouts?step=0")["rows"]
    assert [row["turns"] for row in rows] == [2, 2, 1, 1] and {row["episode"] for row in rows} == {None}
    (alone,) = lab.api("/runs/run/rollouts?step=1")["rows"]
    assert (alone["turns"], alone["episode"], alone["error"]) == (None, None, None), "a single answer is no episode"


def test_older_files_say_who_spoke_and_not_what_was_read() -> None:
    said = turns_of(OLD)
    assert said is not None and policys(said) == 1
    policy, environment = episode(said, None)
    assert (policy["chosen"], policy["reward"], policy["tokens"]) == (True, 0.0, None)
    assert (environment["chosen"], environment["tokens"]) == (False, None)


@pytest.mark.parametrize("column", ["{", "[1]", '{"role": "a"}', '[{"role": 1, "text": "a"}]', "[" * 100_000])
def test_damaged_turns_are_shown_as_they_stand(column: str, tmp_path: Path) -> None:
    import pyarrow
    from pyarrow import parquet

    with RunFolder.open(tmp_path / "run", resume=False, config_text="", facts={"seed": 7, "steps": 1}) as folder:
        folder.trajectories(0, episodes()[:1])
        folder.finish("finished")
    file = tmp_path / "run" / "rollouts" / "step_000000.parquet"
    table = parquet.read_table(file)
    place = table.column_names.index("turns")
    parquet.write_table(table.set_column(place, "turns", pyarrow.array([column])), file)
    found = Lab(tmp_path).api("/runs/run/rollouts/0?step=0")
    assert (found["episode"], found["turns"], found["extras"]) == (None, None, {"turns": column})


def test_numbers_that_are_none_and_calls_that_are_none_are_left_out() -> None:
    turn = '{"role": "a", "text": "b", "chosen": true, "reward": 1e999, "advantage": true, "calls": [3, {}]}'
    said = turns_of(f"[{turn}]")
    assert said is not None
    (piece,) = episode(said, None)
    assert (piece["reward"], piece["advantage"]) == (None, None)
    assert piece["calls"] == [{"name": "", "arguments": "", "answer": "", "rest": 0}]


def test_a_report_cuts_long_words_and_says_so() -> None:
    said = turns_of(json.dumps([{"role": "user", "text": "x" * 50, "chosen": True}]))
    assert said is not None
    assert episode(said, 20)[0]["messages"] == [{"role": "user", "text": "x" * 20, "rest": 30}]
    call = {"name": "add", "arguments": "x" * 50, "answer": "y" * 21}
    said = turns_of(json.dumps([{"role": "user", "text": "", "chosen": True, "calls": [call]}]))
    assert said is not None
    assert episode(said, 20)[0]["calls"] == [{"name": "add", "arguments": "x" * 20, "answer": "y" * 20, "rest": 31}]


def test_a_report_holds_the_turns_of_its_completions(lab: Lab) -> None:
    rows = _rollouts(lab.catalog.get("run")[1], 0)["rows"]
    assert [row["turns"] for row in rows] == [len([p for p in row["episode"] if p["chosen"]]) for row in rows]
    assert rows[0]["episode"][0]["calls"][0]["arguments"] == "37*4", "the best comes first"
