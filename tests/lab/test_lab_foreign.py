"""Runs of TRL and of verl, as those libraries write them."""

import json
from pathlib import Path

import pyarrow
import pytest
from asking import Lab
from pyarrow import parquet
from test_server_damage import everything


def trl_run(path: Path, *, steps: int = 3, state: bool = True, chat: bool = False) -> Path:
    """Two prompts of two completions a step; files and steps count from 1, as TRL's do."""
    (path / "completions").mkdir(parents=True)
    for step in range(1, steps + 1):
        prompts = [f"q{row // 2}" for row in range(4)]
        asked = [[{"role": "user", "content": prompt}] for prompt in prompts] if chat else prompts
        table = {
            "step": [str(step)] * 4, "prompt": asked, "completion": [f"a{step}{row}" for row in range(4)],
            "correct": [0.0, 1.0, 1.0, 1.0], "format": [0.5, None, 0.5, 0.5], "advantage": [-1.0, 1.0, 0.0, 0.0],
            "solution": ["4", "4", "5", "5"],
        }  # fmt: skip
        parquet.write_table(pyarrow.table(table), path / "completions" / f"completions_{step:05d}.parquet")
    if state:
        rows = [
            {"step": s, "loss": 0.1 * s, "reward": s / 2, "reward_std": 0.1, "kl": 0.01} for s in range(1, steps + 1)
        ]
        rows.append({"step": steps, "eval_reward": 0.75, "eval_runtime": 3.0})
        history = {"global_step": steps, "max_steps": 10, "log_history": rows}
        place = path / "checkpoint-3"
        place.mkdir()
        (place / "trainer_state.json").write_text(json.dumps(history))
    return path


def verl_run(path: Path, *, steps: int = 3) -> Path:
    path.mkdir(parents=True)
    for step in range(1, steps + 1):
        rows = [
            {"input": f"q{row % 2}", "output": f"o{step}{row}", "gts": str(row % 2), "score": float(row > 1),
             "step": step, "acc": row > 1, "extra": 0.5, "pred": "7"}
            for row in range(4)
        ]  # fmt: skip
        (path / f"{step}.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    return path


def test_trl(tmp_path):
    lab = Lab(trl_run(tmp_path / "out"))
    (run,) = lab.api("/runs")["runs"]
    assert (run["kind"], run["steps_done"], run["steps_total"], run["status"]) == ("trl", 3, 10, "running")
    assert "records no status" in run["words"] and run["spark"] == [0.5, 1.0, 1.5]
    details = lab.api("/runs/out")
    assert any("no ratios" in line for line in details["lacks"]) and any(
        "plain sum" in line for line in details["lacks"]
    )
    assert details["tables"]["rollouts"] == {"count": 3, "spans": [[0, 2, 1]]}
    assert details["tables"]["tokens"]["count"] == 0
    answer = lab.api("/runs/out/rollouts?step=1")
    assert answer["columns"] == ["correct", "format"] and answer["step"] == 1
    row = answer["rows"][1]
    assert (row["prompt"], row["completion"], row["group"], row["sample"]) == ("q0", "a21", 0, 1)
    assert row["rewards"] == {"correct": 1.0, "format": None} and row["reward"] == 1.0 and row["advantage"] == 1.0
    assert row["target"] == "4" and row["length"] is None and row["kept"] is True
    curve = lab.api("/runs/out/curves?names=reward&names=loss")["series"][0]
    assert (curve["x"], curve["y"]) == ([0, 1, 2], [0.5, 1.0, 1.5])
    assert curve["high"][0] == pytest.approx(0.6)
    assert lab.api("/runs/out/evaluations")["rows"] == [{"done": 3, "eval/reward": 0.75, "eval/runtime": 3.0}]
    page = lab.api("/runs/out/metrics?offset=2")
    assert [one["step"] for one in page["rows"]] == [2] and page["offset"] == 3
    assert len(lab.api("/runs/out/prompt?step=1&row=0")["rows"]) == 6
    everything(lab, "out")


def test_trl_without_its_state_and_with_messages(tmp_path):
    lab = Lab(trl_run(tmp_path / "out", state=False, chat=True))
    assert lab.api("/runs/out/curves?names=reward&names=frac_reward_zero_std")["series"][0]["y"] == pytest.approx(
        [1.125] * 3
    )
    row = lab.api("/runs/out/rollouts")["rows"][0]
    assert json.loads(row["prompt"]) == [{"role": "user", "content": "q0"}]


def test_verl(tmp_path):
    lab = Lab(verl_run(tmp_path / "dump"))
    (run,) = lab.api("/runs")["runs"]
    assert (run["kind"], run["steps_done"], run["steps_total"]) == ("verl", 3, None)
    answer = lab.api("/runs/dump/rollouts?step=0")
    assert answer["columns"] == ["extra"]
    rows = answer["rows"]
    # verl spreads a group over the batch: equal prompts belong together
    assert [(row["group"], row["sample"]) for row in rows] == [(0, 0), (1, 0), (0, 1), (1, 1)]
    assert rows[3] | {} == {
        "row": 3, "group": 1, "sample": 1, "prompt": "q1", "completion": "o13", "cut": False, "rewards": {"extra": 0.5},
        "reward": 1.0, "advantage": None, "length": None, "stop": None, "kept": True, "answer": None, "target": "1",
        "extras": {"gts": "1", "acc": "true", "pred": "7"}, "turns": None, "episode": None, "error": None,
    }  # fmt: skip
    curve = lab.api("/runs/dump/curves?names=reward&names=frac_reward_zero_std")["series"]
    assert curve[0]["y"] == [0.5, 0.5, 0.5] and curve[1]["y"] == [0.0, 0.0, 0.0]
    everything(lab, "dump")


def test_they_are_followed_while_they_grow(tmp_path):
    path = verl_run(tmp_path / "dump", steps=1)
    lab = Lab(path)
    assert lab.api("/runs/dump/curves?names=reward")["series"][0]["n"] == 1
    verl_run(tmp_path / "more", steps=2)
    (tmp_path / "more" / "2.jsonl").rename(path / "2.jsonl")
    assert lab.api("/runs/dump/curves?names=reward")["series"][0]["n"] == 2
    assert lab.api("/runs/dump/rollouts")["step"] == 1


def test_damaged_files_of_others_are_said(tmp_path):
    trl, verl = trl_run(tmp_path / "trl", state=False), verl_run(tmp_path / "verl")
    (trl / "completions" / "completions_00002.parquet").write_bytes(b"PAR1 nonsense")
    (trl / "trainer_state.json").write_text("{torn")
    (verl / "2.jsonl").write_text("{torn\n[1]\n")
    for run, lab in (("trl", Lab(trl)), ("verl", Lab(verl))):
        answer = lab.get(f"/api/runs/{run}/rollouts?step=1")
        assert answer.status == 410 and "cannot be read" in answer.json()["error"]
        assert lab.api(f"/runs/{run}/curves?names=reward")["series"][0]["x"] == [0, 2]
        everything(lab, run)
    for file in (trl / "completions").iterdir():
        file.unlink()
    assert Lab(trl).api("/runs") == {"runs": []}
