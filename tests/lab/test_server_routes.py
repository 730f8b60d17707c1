"""Every route on a small run, on one that is still written, and on none."""

import ast
import json
import subprocess
import sys
import threading
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from time import sleep
from urllib.parse import urlencode

import pytest
from asking import Lab, make_run, write_step

from oneloop.health import CODES
from oneloop.lab.code import NAMES, code
from oneloop.lab.columns import Index
from oneloop.lab.compare import _words
from oneloop.lab.routes import ROUTES
from oneloop.lab.tables import EDGES
from oneloop.record.writer import RunFolder


@pytest.fixture(scope="module")
def lab(tmp_path_factory: pytest.TempPathFactory) -> Lab:
    root = tmp_path_factory.mktemp("runs")
    make_run(root / "grpo")
    make_run(root / "other" / "grpo", seed=8)
    make_run(root / "spaced name")
    return Lab(root)


def test_runs_are_found_and_named(lab):
    runs = lab.api("/runs")["runs"]
    assert [(run["id"], run["name"]) for run in runs] == [
        ("grpo", "grpo"), ("run-1", "spaced name"), ("grpo-2", "other/grpo"),
    ]  # fmt: skip
    first = runs[0]
    assert first | {"path": "", "started": 0, "heartbeat": 0} == {
        "id": "grpo", "name": "grpo", "path": "", "kind": "oneloop", "status": "finished", "words": "finished",
        "algorithm": "grpo", "model": "scratch:tiny", "seed": 7, "steps_done": 4, "steps_total": 4, "started": 0,
        "heartbeat": 0, "alerts": 1, "spark": [0.0, 0.25, 0.5, 0.75], "spark_name": "reward",
    }  # fmt: skip


def test_a_run_says_what_it_was_asked_and_what_it_has(lab):
    run = lab.api("/runs/grpo")
    assert run["objective"] == "ρ·Â\n" and run["info"]["seed"] == 7
    assert {"name": "group_size", "value": "2", "default": "2", "changed": False} in run["config"]
    assert run["explain"]["group_size"] == 2 and run["explain"]["temperature"] is None
    assert run["tables"]["rollouts"] == {"count": 4, "spans": [[0, 3, 1]]}
    logged = ["reward", "reward_std", "kl", "num_tokens", "frac_reward_zero_std", "eval/reward", "time/step"]
    assert run["metrics"] == logged
    assert run["x"] == {"tokens": True} and run["lacks"] == []


def test_a_run_says_whether_all_of_its_metrics_are_known(tmp_path, monkeypatch):
    make_run(tmp_path / "run")
    go, read = threading.Event(), Index._read_on
    monkeypatch.setattr(Index, "_read_on", lambda self: go.wait(20) and read(self))
    lab = Lab(tmp_path)
    first = lab.api("/runs/run")
    go.set()
    while (run := lab.api("/runs/run"))["ready"] < 1:
        pass
    assert (first["ready"], first["metrics"]) == (0.0, []) and "reward" in run["metrics"]


def test_curves_have_bands_and_axes(lab):
    answer = lab.api("/runs/grpo/curves?names=reward&names=nothing&names=kl")
    assert answer["ready"] == 1.0 and answer["x"] == "step"
    reward, kl = answer["series"]
    assert reward == {
        "name": "reward", "x": [0, 1, 2, 3], "y": [0.0, 0.25, 0.5, 0.75], "low": [-0.5, -0.25, 0.0, 0.25],
        "high": [0.5, 0.75, 1.0, 1.25], "n": 4,
    }  # fmt: skip
    assert kl["x"] == [] and kl["n"] == 0  # it was logged, and never finite
    by_tokens = lab.api("/runs/grpo/curves?names=reward&x=tokens&from=200&to=700")["series"][0]
    assert (by_tokens["x"], by_tokens["y"]) == ([300, 600], [0.25, 0.5])  # 100, 200 and 300 of single steps
    assert len(lab.api("/runs/grpo/curves?names=reward&x=time")["series"][0]["x"]) == 4


def test_a_name_may_hold_any_sign(tmp_path):
    odd = ("rewards/a,b/mean", "a&b=c", "100 %+1")
    with RunFolder.open(tmp_path / "run", resume=False, config_text="", facts={}) as folder:
        folder.scalars(0, {name: float(place) for place, name in enumerate(odd)})
    query = urlencode([("names", name) for name in odd])
    lab = Lab(tmp_path)
    answer = lab.api(f"/runs/run/curves?{query}")
    assert [(one["name"], one["y"]) for one in answer["series"]] == [(odd[0], [0.0]), (odd[1], [1.0]), (odd[2], [2.0])]
    assert set(odd) <= set(lab.api(f"/runs/run/metrics?{query}")["rows"][0])


def test_lines_come_once_each(lab):
    first = lab.api("/runs/grpo/metrics?offset=0&names=reward")
    assert [row["reward"] for row in first["rows"]] == [0.0, 0.25, 0.5, 0.75] and not first["reset"]
    assert set(first["rows"][0]) == {"step", "time", "reward"}
    again = lab.api(f"/runs/grpo/metrics?offset={first['offset']}&mark={first['mark']}")
    assert again["rows"] == [] and again["offset"] == first["offset"] and not again["reset"]
    events = lab.api("/runs/grpo/events")["rows"]
    assert [(event["step"], event["level"], event["code"]) for event in events] == [
        (1, "alert", "A_DEAD"), (1, "info", "I_LOSS_ZERO"),
    ]  # fmt: skip
    assert [row["done"] for row in lab.api("/runs/grpo/evaluations")["rows"]] == [1, 2, 3, 4]


def test_health_gives_each_light_a_reason(lab):
    lights = {light["name"]: light for light in lab.api("/runs/grpo/health")["lights"]}
    assert lights["dead groups"] == {
        "name": "dead groups", "level": "bad", "value": 0.75, "unit": "share", "code": "A_DEAD",
        "words": "step 2: 2 of 2 groups have equal rewards", "fix": "easier prompts",
    }  # fmt: skip
    assert lights["reward"]["level"] == "ok" and "0.375 on average" in lights["reward"]["words"]
    assert lights["entropy"]["level"] == "none" and "not logged" in lights["entropy"]["words"]
    assert all(light["words"] for light in lights.values())


def test_rollouts(lab):
    answer = lab.api("/runs/grpo/rollouts")
    assert answer["step"] == 3
    assert answer["columns"] == ["exact", "format"]
    row = answer["rows"][3]
    assert row | {"completion": ""} == {
        "row": 3, "group": 1, "sample": 1, "prompt": "prompt 1", "completion": "", "cut": True,
        "rewards": {"exact": 1.0, "format": 1.0}, "reward": 1.0, "advantage": 0.5, "length": 2, "stop": "eos",
        "kept": True, "answer": "ans", "target": None, "extras": {"answer": "ans", "note": None},
        "turns": None, "episode": None, "error": None,
    }  # fmt: skip
    assert len(row["completion"]) == 300 and not answer["rows"][0]["cut"]
    whole = lab.api("/runs/grpo/rollouts/3?step=3")
    assert whole["completion"] == "answer 3.1.1 " + "x" * 400 and whole["row"] == 3
    same = lab.api("/runs/grpo/prompt?step=3&row=3&limit=4")
    assert [(one["step"], one["row"]) for one in same["rows"]] == [(2, 2), (2, 3), (3, 2), (3, 3)]
    assert same["prompt"] == "prompt 1" and {one["prompt"] for one in same["rows"]} == {"prompt 1"}
    assert len(lab.api("/runs/grpo/prompt?step=0&row=0")["rows"]) == 8


def test_ratios_tokens_pairs(lab):
    answer = lab.api("/runs/grpo/ratios?step=1&tokens=1")
    assert (answer["step"], answer["updates"]) == (1, 1)
    assert answer["epsilon"] == [0.2, 0.28] and answer["edges"] == EDGES and len(EDGES) == 103
    assert len(answer["positive"][0]) == 102 and answer["positive"][0][51] == 2 == sum(answer["positive"][0])
    assert answer["zero"][0][0] == 1 and sum(answer["negative"][0]) == 0
    assert answer["rows"][0]["log_ratio"] == [[0.125, -0.099976]] and answer["rows"][0]["ref_gap"] is None
    assert lab.api("/runs/grpo/ratios")["step"] == 3 and lab.api("/runs/grpo/ratios")["rows"] is None
    for step in range(4):
        assert lab.api(f"/runs/grpo/ratios?step={step}")["step"] == step
    assert lab.api("/runs/grpo/tokens?step=0")["rows"][0]["lp_old"] == [-0.5, None]
    assert lab.api("/runs/grpo/tokens?step=0")["rows"][0]["text"] == ["a", "<b>"]
    assert lab.api("/runs/grpo/pairs")["rows"] == [
        {"step": 3, "pair": 0, "prompt": "p", "chosen": "c", "margin": 0.25}
    ]  # fmt: skip


def test_memory(lab):
    measured = lab.api("/runs/grpo/memory")["measured"]
    assert [(row["step"], row["peak_rss"]) for row in measured] == [(0, 2000), (1, 2001), (2, 2002), (3, 2003)]


def test_compare_says_what_is_no_evidence(lab):
    answer = lab.api("/compare?runs=grpo,grpo-2")
    assert answer["seeds"] == {"grpo": 7, "grpo-2": 8} and answer["configs"] == []
    assert answer["words"] == ["only the seed or nothing differs: what is seen is chance"]
    evaluation = answer["evaluation"]
    assert evaluation["pairs"] == 2 and evaluation["difference"] == 0.0 and evaluation["low"] < 0 < evaluation["high"]
    assert [len(prompt["rows"]) for prompt in answer["prompts"]] == [2, 2]
    for bad in ("", "?runs=grpo", "?runs=grpo,grpo,grpo,grpo,grpo"):
        assert lab.get("/api/compare" + bad).status == 400


def test_a_difference_is_the_second_run_minus_the_first(tmp_path):
    lab = Lab(make_run(tmp_path / "a"), make_run(tmp_path / "b", lift=0.25))
    found = lab.api("/compare?runs=a,b")["evaluation"]
    assert found["difference"] == found["low"] == found["high"] == 0.25 and "0 is outside" in found["words"]
    assert lab.api("/compare?runs=b,a")["evaluation"]["difference"] == -0.25


def test_report(lab):
    answer = lab.api("/runs/grpo/report")
    (about,) = answer["runs"]
    assert about["id"] == "grpo" and [sample["step"] for sample in about["samples"]] == lab_steps(lab)
    assert answer["curves"]["reward"] == "mean reward of completions" and "time/rollout" in answer["more"]


def lab_steps(lab: Lab) -> list[int]:
    facts = lab.api("/runs/grpo")["tables"]["rollouts"]
    (span,) = facts["spans"]
    return list(range(span[0], span[1] + 1))


@pytest.mark.parametrize(
    "seeds, algorithms, said",
    [
        ((0, 0), ("ppo", "grpo"), "one seed: no evidence of a better method"),
        ((0, 1), ("ppo", "grpo"), "one seed: no evidence"),  # one seed of each, whichever it is
        ((0, 1, 0, 1), ("ppo", "ppo", "grpo", "grpo"), "2 seeds: no evidence"),
        ((0, 1, 2), ("ppo", "ppo", "grpo"), "one seed: no evidence"),
        ((0, 1, 2), ("ppo", "ppo", "ppo"), "only the seed or nothing differs"),
    ],
)
def test_words_of_a_comparison_count_the_seeds_of_each_method(seeds, algorithms, said):
    differing = [{"name": "seed", "values": list(map(str, seeds))}, {"name": "out", "values": list(seeds)}]
    assert _words(differing, algorithms, seeds)[0].startswith(said)


def test_several_settings_that_differ_hide_the_reason():
    differing = [{"name": name, "values": ["1", "2"]} for name in ("epochs", "minibatch")]
    assert _words(differing, ["ppo", "ppo"], [0, 0]) == [
        "one seed: no evidence of a better method. Three seeds or more of each, with everything else equal",
        "2 settings differ (epochs, minibatch): what made the difference cannot be told",
    ]


def test_other_rewards_are_not_compared():
    differing = [{"name": "reward_model", "values": ["", "rm"]}]
    words = _words(differing, ["ppo", "grpo"], [0, 0])
    assert words[1] == "their rewards are not the same (reward_model): their means cannot be compared"


@pytest.mark.parametrize("name", NAMES)
def test_code_is_that_of_the_package(lab, name):
    answer = lab.api(f"/code/{name}")
    text = Path(__file__).parents[2].joinpath(answer["file"]).read_text(encoding="utf-8").splitlines()
    first = answer["text"].splitlines()[0]
    assert text[answer["line"] - 1].strip() == first.strip()
    assert '"""' not in answer["text"] and answer["text"]


def test_code_that_many_ask_for_at_once_is_parsed_one_by_one(monkeypatch):
    """Python 3.11 may fail where two threads parse: the page of objectives asks for four values."""
    inside, parse = [], ast.parse

    def alone(text: str) -> ast.AST:
        inside.append(text)
        sleep(0.002)
        assert inside == [text]
        return parse(inside.pop())

    monkeypatch.setattr(ast, "parse", alone)
    code.cache_clear()
    with ThreadPoolExecutor(16) as pool:
        assert [one["name"] for one in pool.map(code, NAMES)] == [path for _, path in NAMES.values()]


def test_an_alerts_code_is_explained(lab):
    assert lab.api("/explain/A_DEAD") == {"code": "A_DEAD", **CODES["A_DEAD"]._asdict()}


def test_what_is_not_there_is_said(lab):
    for path, status in {
        "/runs/nobody": 404, "/runs/grpo/rollouts?step=99": 404, "/runs/grpo/rollouts/99": 404, "/code/zzz": 404,
        "/nothing": 404, "/runs/grpo/curves?names=reward&x=moons": 400, "/runs/grpo/rollouts?step=x": 400,
        "/runs/grpo/metrics?offset=-1": 400, "/runs/grpo/curves?names=reward&points=9999": 400,
        "/runs/grpo/curves?names=reward&from=nan": 400, "/runs/grpo/prompt?row=99": 404, "/runs/grpo/rollouts/x": 400,
        "/explain/A_ZZZ": 404, "/runs/grpo/ratios?step=99": 404, "/runs/grpo/metrics?offset=٣": 400,
        f"/runs/grpo/metrics?offset={'9' * 5000}": 400,
    }.items():  # fmt: skip
        answer = lab.get(f"/api{path}")
        assert (
            answer.status == status and answer.json()["error"] and answer.headers["content-type"] == "application/json"
        )


def test_pages_are_the_index_and_head_has_no_body(lab):
    for path in ("/", "/learn/clip", "/run/grpo/tokens"):
        answer = lab.get(path)
        assert answer.status == 200 and answer.body.startswith(b"<!doctype html>")
    assert lab.get("/assets/app.js").headers["content-type"].startswith("text/javascript")
    assert lab.get("/api/runs", method="HEAD").status == 200


def test_a_run_in_progress_is_followed(tmp_path, monkeypatch):
    import os

    path = tmp_path / "live"
    with RunFolder.open(path, resume=False, config_text="", facts={"algorithm": "grpo", "steps": 9}) as folder:
        lab = Lab(path)
        run = lab.api("/runs/live")
        assert run["status"] == "running" and run["metrics"] == [] and run["steps_done"] == 0
        assert lab.api("/runs/live/curves?names=reward")["series"] == []
        assert lab.get("/api/runs/live/rollouts").status == 404
        offset, mark, seen = 0, "", []
        for step in range(5):
            write_step(folder, step)
            page = lab.api(f"/runs/live/metrics?offset={offset}&mark={mark}")
            offset, mark, seen = page["offset"], page["mark"], seen + [row["step"] for row in page["rows"]]
            assert lab.api("/runs/live/curves?names=reward")["series"][0]["n"] == step + 1
        with (path / "metrics.jsonl").open("ab") as half:
            half.write(b'{"step": 5, "rew')
        torn = lab.api(f"/runs/live/metrics?offset={offset}&mark={mark}")
        assert torn["rows"] == [] and torn["offset"] == offset and torn["damaged"] == 0
        assert lab.api("/runs/live/curves?names=reward")["ready"] == 1.0
        assert seen == [0, 1, 2, 3, 4]
    # the process is gone, and run.json still says "running"
    info = json.loads((path / "run.json").read_text())
    gone = subprocess.run([sys.executable, "-c", "import os; print(os.getpid())"], capture_output=True, text=True)
    (path / "run.json").write_text(json.dumps(info | {"pid": int(gone.stdout)}))
    killed = lab.api("/runs/live")
    assert killed["status"] == "killed" and "--resume" in killed["words"]
    assert os.getpid() == info["pid"]


def test_a_resume_that_cuts_the_file_is_told_and_nothing_comes_twice(tmp_path):
    path = make_run(tmp_path / "run", steps=6)
    lab, file = Lab(path), tmp_path / "run" / "metrics.jsonl"
    lines = file.read_bytes().splitlines(keepends=True)
    page = lab.api("/runs/run/metrics?offset=0")
    assert lab.api("/runs/run/curves?names=reward")["series"][0]["n"] == 6
    where = f"/runs/run/metrics?offset={page['offset']}&mark={page['mark']}"
    with file.open("r+b") as cut:
        cut.truncate(len(b"".join(lines[:3])))
    shorter = lab.api(where)
    assert shorter["reset"] and [row["step"] for row in shorter["rows"]] == [0, 1, 2]
    assert lab.api("/runs/run/curves?names=reward")["series"][0]["n"] == 3
    # grown again to the same length: only the mark tells
    again = [line.replace(b'"reward": 0.', b'"reward": 9.').replace(b'"time": 1', b'"time": 2') for line in lines[3:]]
    with file.open("ab") as more:
        more.write(b"".join(again))
    assert file.stat().st_size == page["offset"]
    assert lab.api(where)["reset"]
    assert max(lab.api("/runs/run/curves?names=reward")["series"][0]["y"]) > 9


def test_many_lines_come_in_pages(tmp_path):
    path = make_run(tmp_path / "run", steps=1)
    with (path / "metrics.jsonl").open("ab") as file:
        file.write(b"".join(b'{"step": %d, "reward": 1}\n' % step for step in range(1, 4500)))
    lab, offset, seen = Lab(path), 0, []
    while rows := (page := lab.api(f"/runs/run/metrics?offset={offset}"))["rows"]:
        assert len(rows) <= 2000
        offset, seen = page["offset"], seen + [row["step"] for row in rows]
    assert seen == list(range(4500))


def test_new_runs_appear(tmp_path, monkeypatch):
    monkeypatch.setattr("oneloop.lab.catalog.EVERY", 0.0)
    lab = Lab(tmp_path)
    assert lab.api("/runs") == {"runs": []}
    make_run(tmp_path / "b")
    assert [run["id"] for run in lab.api("/runs")["runs"]] == ["b"]
    make_run(tmp_path / "x" / "b")
    make_run(tmp_path / "a")
    assert {run["name"]: run["id"] for run in lab.api("/runs")["runs"]} == {"b": "b", "a": "a", "x/b": "b-2"}


def test_the_demo_is_named_where_there_is_one(tmp_path):
    make_run(tmp_path / "shipped" / "ppo")
    assert Lab(tmp_path, demo=tmp_path / "shipped").api("/demo") == {"run": "ppo", "runs": ["ppo"]}
    assert Lab(tmp_path).api("/demo") == {"run": None, "runs": []}


def test_studies_are_listed_and_each_can_be_read(lab):
    """More of them in test_studied.py."""
    listed = lab.api("/studies")["studies"]
    assert len(listed) >= 10 and "clip" in {one["name"] for one in listed}
    assert lab.api("/studies/clip")["command"] == "oneloop study clip"


def test_no_route_is_left_out_of_these_tests():
    text = Path(__file__).read_text(encoding="utf-8")
    for route in ROUTES:
        assert (
            route.replace("{run}", "grpo").replace("{row}", "3").replace("{name}", "{name}").partition("{")[0] in text
        )
