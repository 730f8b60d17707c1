"""The report: whole, self-contained, and deaf to what a run says."""

import json
import re
from html.parser import HTMLParser
from pathlib import Path

import pytest

from oneloop.errors import ConfigError
from oneloop.lab.curves import Line, by_scale, metric_lines
from oneloop.lab.report import Table, report_run, write_report
from oneloop.record.reader import read_run
from oneloop.record.writer import RunFolder
from oneloop.types import Completion, Prompt, Reward, StopReason, Trajectory

HOSTILE = "</code><script>alert(1)</script><img src=x onerror=alert(2)> & \x1b[31m \u202e $\\frac{1}{0}$ \ud800 数"


def trajectory(reward: float | None, text: str, sample: int = 0) -> Trajectory:
    return Trajectory(
        prompt=Prompt(id="0", text=HOSTILE, tokens=(1,)),
        group=0,
        sample=sample,
        completion=Completion(tokens=(2,), logprobs=(-0.1,), stop=StopReason.LENGTH),
        text=text,
        reward=Reward(value=reward),
    )


def make_run(path: Path, *, steps: int = 3, hostile: bool = False) -> Path:
    with RunFolder.open(path, resume=False, config_text="", facts={"algorithm": "grpo", "steps": steps}) as folder:
        for step in range(steps):
            values = {"reward": step / 2, "kl": float("nan") if step == 1 else 0.1, "completions/mean_length": 9.0}
            if hostile:
                values["rewards/" + HOSTILE + "/mean"] = 1.0
            folder.scalars(step, values)
            folder.trajectories(step, [trajectory(i / 10, f"answer {step}.{i}", i) for i in range(6)])
        if hostile:
            folder.trajectories(steps - 1, [trajectory(1.0, HOSTILE), trajectory(None, "unscored")])
            folder.event(0, HOSTILE, HOSTILE, HOSTILE)
        folder.finish("failed" if hostile else "finished", HOSTILE if hostile else None)
    return path


class Page(HTMLParser):
    """Tags, ids and words of a page; complains about tags that are not closed in order."""

    VOID = frozenset(("meta", "br", "path", "use", "rect"))

    def __init__(self, text: str) -> None:
        super().__init__()
        self.tags: list[str] = []
        self.attributes: list[tuple[str, str | None]] = []
        self.words = ""
        self._open: list[str] = []
        self.feed(text)
        assert self._open == []

    def handle_starttag(self, tag, attrs):
        self.tags.append(tag)
        self.attributes += attrs
        if tag not in self.VOID:
            self._open.append(tag)

    def handle_startendtag(self, tag, attrs):
        self.tags.append(tag)
        self.attributes += attrs

    def handle_endtag(self, tag):
        if tag not in self.VOID:
            assert self._open.pop() == tag

    def handle_data(self, data):
        self.words += data

    def all(self, name: str) -> list[str | None]:
        return [value for key, value in self.attributes if key == name]


def read(path: Path) -> tuple[str, Page]:
    text = path.read_text(encoding="utf-8")
    return text, Page(text)


def test_a_single_run(tmp_path):
    out = report_run(make_run(tmp_path / "first"))
    assert out == tmp_path / "first" / "report.html"
    text, page = read(out)
    assert "<title>Run first</title>" in text and '<meta charset="utf-8">' in text
    assert page.tags.count("figure") == 3  # what the run has, and nothing else
    assert "3 of 3" in page.words and "finished" in page.words
    for label in ("mean reward of completions", "KL to the reference, nats/token", "mean length, tokens"):
        assert label in page.words
    assert "kl" in page.words and "values that were not finite, first: 1" in page.words
    assert page.tags.count("caption") == page.tags.count("table") == 2 + 3  # the run and its samples, and three steps


def test_steps_are_counted_from_1_as_on_the_terminal(tmp_path):
    (line,) = metric_lines([("run", read_run(make_run(tmp_path / "run")))], "reward")
    assert line.steps == [1, 2, 3] and line.values == [0.0, 0.5, 1.0]


def test_pictures_are_described_and_ids_are_unique(tmp_path):
    _, page = read(report_run(make_run(tmp_path / "first")))
    alts = [alt for alt in page.all("aria-label") if alt]
    assert "reward (mean reward of completions) over steps. first: first 0, last 1, 0 to 1" in alts
    assert page.all("role").count("img") == page.tags.count("figure")
    ids = page.all("id")
    assert len(ids) == len(set(ids))
    targets = {value[1:] for value in page.all("xlink:href") if value}
    assert targets <= set(ids)


def test_runs_are_overlaid_with_a_legend(tmp_path):
    runs = [(name, make_run(tmp_path / name)) for name in ("ppo", "grpo")]
    tables = [Table(("method", "accuracy"), [("ppo", "50 % <b>")], "512 held-out prompts")]
    text, page = read(write_report(runs, tmp_path / "all" / "report.html", title="demo", tables=tables, notes=["n"]))
    assert page.tags.count("figure") == 3
    (reward,) = re.findall(r"<figure><h3>reward</h3>.*?</figure>", text, re.DOTALL)
    legend = reward[reward.index("<figcaption>") :]
    assert "ppo" in legend and "grpo" in legend
    assert re.findall('stroke="(#[0-9a-f]{6})"', legend) == ["#0072b2", "#d55e00"]
    assert "512 held-out prompts" in page.words and "50 % <b>" in page.words and "b" not in page.tags


def test_hostile_words_stay_words(tmp_path):
    run = make_run(tmp_path / "run", hostile=True)
    table = Table((HOSTILE,), [(HOSTILE,)], HOSTILE)
    runs = [(HOSTILE, run), ("_b", run)]
    out = write_report(runs, tmp_path / "r.html", title=HOSTILE, tables=[table], notes=[HOSTILE])
    text, page = read(out)
    assert not {"script", "img", "link", "iframe", "object"} & set(page.tags)
    assert not [key for key, _ in page.attributes if key.startswith("on")]
    assert "<script" not in text and "<img" not in text
    assert "\x1b" not in text and "\u202e" not in text
    assert "\\x1b[31m \\u202e" in page.words and "\\ud800 数" in page.words
    assert "could not be scored" in page.words
    figure = text[text.index("<h3>rewards/") :]
    assert "数/mean</h3>" in figure


def test_nothing_comes_from_a_network(tmp_path):
    text, page = read(report_run(make_run(tmp_path / "run")))
    assert page.all("src") == []
    assert all(value and value.startswith("#") for value in page.all("href") + page.all("xlink:href"))
    assert "@import" not in text and not re.search(r"url\((?!#)", text)
    assert "default-src 'none'" in text and "prefers-color-scheme:dark" in text


def test_best_and_worst_of_first_and_last_and_more_folded_away(tmp_path):
    text, page = read(report_run(make_run(tmp_path / "run")))
    first, *folded = text[text.index("<h2>Completions of") :].split("<details>")
    shown = re.findall(r"answer \d\.\d", first)
    assert set(shown) == {f"answer {step}.{i}" for step in (0, 2) for i in (5, 4, 1, 0)}
    assert [re.findall(r"answer \d\.\d", part) for part in folded] == [
        [f"answer {step}.{i}" for i in (5, 4, 3, 2, 1, 0)] for step in (0, 1, 2)
    ]
    assert "step 2: 6 completions" in page.words


def test_a_long_run_shows_a_bounded_number_of_completions(tmp_path):
    path = make_run(tmp_path / "run", steps=40)
    with RunFolder.open(path, resume=True, config_text="", facts={"algorithm": "grpo"}) as folder:
        folder.trajectories(39, [trajectory(i / 100, f"many {i}", i) for i in range(100)])
    text, _ = read(report_run(path))
    folded = text[text.index("<h2>Completions of") :].split("<details>")[1:]
    assert [re.findall(r"step (\d+):", part)[0] for part in folded] == ["1", "8", "16", "24", "32", "40"]
    assert re.findall(r"many (\d+)<", folded[-1]) == [*map(str, range(99, 91, -1)), *map(str, range(7, -1, -1))]


def test_the_start_of_the_curves_is_what_was_measured_before_training(tmp_path):
    path = make_run(tmp_path / "run")
    with RunFolder.open(path, resume=True, config_text="", facts={"algorithm": "grpo"}) as folder:
        folder.scalars(7, {"eval/reward": 0.75})
    lines = [{"done": 0, "time": 1.0, "eval/reward": 0.25}, {"done": 8, "time": 2.0, "eval/reward": 0.75}]
    (path / "eval.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
    (line,) = metric_lines([("run", read_run(path))], "eval/reward")
    assert (line.steps, line.values) == ([0, 8], [0.25, 0.75])


def curve(name: str, place: int, steps: int, low: float, high: float) -> Line:
    return Line(name, place, [1, steps], [low, high])


def test_lines_of_other_scales_get_their_own_picture():
    """SFT's loss falls from 5 over 220 steps; beside it the others would be flat and short."""
    sft, rm, dpo = curve("sft", 0, 220, 5, 0.1), curve("rm", 1, 60, 0.7, 0.05), curve("dpo", 2, 40, 0.7, 0.4)
    grpo, flat = curve("grpo", 3, 25, 0.0, 0.014), curve("flat", 4, 25, 0.01, 0.01)
    pictures = by_scale([sft, rm, dpo, grpo, flat])
    assert [[line.run for line in picture] for picture in pictures] == [["sft"], ["rm", "dpo", "flat"], ["grpo"]]
    missing = Line("nan", 5, [1, 2, 3], [float("nan"), 1.0, 2.0])
    assert by_scale([missing]) == [[missing]]


def test_pictures_of_one_metric_name_their_runs(tmp_path):
    runs = []
    for name, scale, steps in (("sft", 100.0, 30), ("grpo", 1.0, 3)):
        with RunFolder.open(tmp_path / name, resume=False, config_text="", facts={"algorithm": name}) as folder:
            for step in range(steps):
                folder.scalars(step, {"loss": scale / (step + 1)})
        runs.append((name, tmp_path / name))
    text, page = read(write_report(runs, tmp_path / "r.html", title="t"))
    captions = re.findall(r"<figcaption>.*?</figcaption>", text)
    assert ["sft" in captions[0], "grpo" in captions[0], "grpo" in captions[1]] == [True, False, True]
    assert page.tags.count("figure") == 2
    ids = page.all("id")
    assert len(ids) == len(set(ids))


def test_settings_and_objective(tmp_path):
    path = tmp_path / "run"
    facts = {"algorithm": "grpo", "changed": {"learning_rate": 1e-6, "reward": []}}
    config = f'algorithm = "grpo"\nsteps = 100\nlearning_rate = 0.01\nreward = ["a.py:f", {json.dumps("<b>" + "x")}]\n'
    with RunFolder.open(path, resume=False, config_text=config, facts=facts) as folder:
        folder.scalars(0, {"reward": 1.0})
    (path / "objective.txt").write_text("grpo: <i>objective</i>\n  loss   Σ\n", encoding="utf-8")
    text, page = read(report_run(path))
    assert "grpo: <i>objective</i>\n  loss   Σ" in page.words and "i" not in page.tags and "b" not in page.tags
    assert "2 of 4 settings differ from the default" in page.words
    place = [text.index(f"<td>{name}</td>") for name in ("learning_rate", "reward", "algorithm", "steps")]
    assert place == sorted(place)
    assert "<td>learning_rate</td><td>0.01</td><td>1e-06</td>" in text and "a.py:f &lt;b&gt;x" in text


def test_long_completions_are_cut_with_a_word(tmp_path):
    run = make_run(tmp_path / "run")
    with RunFolder.open(run, resume=True, config_text="", facts={}) as folder:
        folder.trajectories(9, [trajectory(1.0, "x" * 4000)])
    _, page = read(report_run(run))
    assert "x" * 1500 + "… and 2500 characters more" in page.words


def test_an_unreadable_table_is_said_and_the_rest_shown(tmp_path):
    run = make_run(tmp_path / "run")
    (run / "rollouts" / "step_000000.parquet").write_bytes(b"torn")
    _, page = read(report_run(run))
    assert "step_000000.parquet cannot be read" in page.words and "answer 2.5" in page.words


def test_a_run_without_anything_and_a_killed_one(tmp_path):
    (tmp_path / "run.json").write_text(json.dumps({"status": "running", "heartbeat": 0}))
    _, page = read(report_run(tmp_path))
    assert "running when last heard of, 1970-01-01 00:00:00+00:00" in page.words
    assert "no metric was logged yet" in page.words


def test_the_same_run_gives_the_same_page(tmp_path):
    run = make_run(tmp_path / "run")
    first = report_run(run).read_bytes()
    assert report_run(run).read_bytes() == first


def test_not_a_run(tmp_path):
    with pytest.raises(ConfigError, match="not a run folder"):
        report_run(tmp_path)
