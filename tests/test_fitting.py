"""`oneloop.fit`: the same run as the command's, with values, loaded models, rows and functions from Python."""

import json
import os
import signal
import sys
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path

import pytest
import torch
from datasets import Dataset, DatasetDict
from safetensors.torch import load_file

import oneloop
from forked import Forked
from oneloop import GRPO, PPO, SFT
from oneloop.algorithms import DAPO, DR_GRPO
from oneloop.cli.main import run as command
from oneloop.config import default_run
from oneloop.data import python_table
from oneloop.errors import ConfigError, DataError, Stopped
from oneloop.model.load import load_policy, load_tokenizer
from oneloop.model.lora import Lora, add_adapters
from oneloop.objective.advantage import Credit
from oneloop.objective.aggregate import FixedLength
from oneloop.objective.pieces import formula_of
from oneloop.objective.shaping import OverlongPenalty
from oneloop.recipes.explain import explain
from oneloop.recipes.given import Given, rows_words
from oneloop.recipes.resolve import resolved
from oneloop.recipes.words import algorithm_words
from toy_models import Silent

ROWS = [{"prompt": f"{a}+{b}=", "answer": str(a + b)} for a in range(4) for b in range(4)]
SMALL = {"prompts_per_step": 4, "max_new_tokens": 4, "learning_rate": 1e-3, "quiet": True}


def lower(completions, **columns):
    """The share of small letters: even an untrained model writes some."""
    return [sum(c.islower() for c in text) / 4 for text in completions]


def weights(run: oneloop.FinishedRun) -> bytes:
    return (run.path / "final" / "model.safetensors").read_bytes()


def fit(algorithm="grpo", **settings):
    given = {"model": "scratch:tiny", "data": ROWS, "steps": 2, **SMALL, **settings}
    if "reward" not in given and algorithm not in ("sft", SFT):
        given["reward"] = lower
    return oneloop.fit(algorithm, **given)


def test_the_command_trains_the_same_weights(tmp_path: Path) -> None:
    (tmp_path / "rows.jsonl").write_text("".join(json.dumps(row) + "\n" for row in ROWS))
    (tmp_path / "rewards.py").write_text(
        "def lower(completions, **columns):\n    return [sum(c.islower() for c in x) / 4 for x in completions]\n"
    )
    shared = "--steps 2 --prompts-per-step 4 --max-new-tokens 4 --learning-rate 1e-3 --group-size 3"
    words = (
        f"train grpo --model scratch:tiny --data {tmp_path}/rows.jsonl --reward {tmp_path}/rewards.py:lower {shared}"
    )
    assert command([*words.split(), "--out", str(tmp_path / "command")]) == 0
    named = fit(
        data=tmp_path / "rows.jsonl", reward=f"{tmp_path}/rewards.py:lower", group_size=3, out=tmp_path / "named"
    )
    handed = fit(GRPO, group_size=3, out=tmp_path / "handed")
    table = fit(data=Dataset.from_list(ROWS), group_size=3, out=tmp_path / "table")
    by_command = oneloop.open_run(tmp_path / "command")
    for run in (named, handed, table):
        assert weights(run) == weights(by_command)
        assert list(run.metrics()["reward"]) == list(by_command.metrics()["reward"])
    assert len({weights(fit(seed=1, group_size=3, out=tmp_path / "other")), weights(named)}) == 2


@pytest.mark.parametrize(
    ("algorithm", "settings", "epochs"),
    [
        ("ppo", {}, 4),
        (PPO, {}, 4),
        (replace(PPO, epochs=2), {}, 2),
        (replace(PPO, epochs=2), {"epochs": 3}, 3),
        (replace(GRPO, kl=None, epochs=2, name="mine"), {}, 2),
    ],
)
def test_a_value_says_how_many_epochs_unless_the_call_does(algorithm, settings, epochs, tmp_path: Path) -> None:
    run = fit(algorithm, steps=1, group_size=2, out=tmp_path / "run", **settings)
    assert run.record.config["epochs"] == epochs
    # one optimizer step an epoch, fewer where PPO's early stop drops the rest
    assert run.metrics()["optimizer_steps"][0] <= epochs


def test_a_value_that_has_a_name_is_recorded_by_it() -> None:
    assert [algorithm_words(value) for value in (GRPO, replace(GRPO, epochs=3))] == ["grpo", "grpo"]
    changed = algorithm_words(replace(GRPO, kl=None))
    assert changed.startswith("python:PolicyGradient(") and "kl=None" in changed
    assert " at 0x" not in algorithm_words(replace(GRPO, aggregate=lambda mask, size: mask / size.tokens))


def test_lengths_of_the_papers_are_fitted_and_chosen_ones_kept() -> None:
    run = replace(oneloop.Run(), max_new_tokens=50)
    assert resolved(run, DAPO).shape == OverlongPenalty(50, 10)
    assert resolved(run, DR_GRPO).aggregate == FixedLength(50)
    mine = replace(DAPO, shape=OverlongPenalty(40, 5), aggregate=FixedLength(30))
    assert (resolved(run, mine).shape, resolved(run, mine).aggregate) == (mine.shape, mine.aggregate)


@dataclass(frozen=True)
class Centred:
    """Rewards minus the mean of the whole batch."""

    uses_values = False
    compares = False

    def __call__(self, rewards, values, mask, group, *, bootstrap=None):
        total = (rewards * mask).sum(1, keepdim=True)
        return Credit((total - total.mean()) * mask, None)


@dataclass(frozen=True)
class OnlyBetter:
    """The unclipped ratio, on answers above their group's mean only."""

    uses_old = True
    proportional = True

    def __call__(self, logprobs, old_logprobs, advantages, mask):
        ratio = torch.where(mask, logprobs - old_logprobs, 0.0).exp()
        return -ratio * advantages.clamp(min=0) * mask, torch.zeros_like(mask)


def root_length(mask, size):
    """1 / (N·√|o|)."""
    return mask / (mask.sum(1, keepdim=True).clamp(min=1).sqrt() * size.sequences)


@pytest.fixture(scope="module")
def plain(tmp_path_factory) -> bytes:
    """Weights that GRPO's own pieces lead to."""
    return weights(fit(replace(GRPO, kl=None), group_size=3, out=tmp_path_factory.mktemp("plain") / "grpo"))


@pytest.mark.parametrize(
    "piece",
    [{"advantage": Centred()}, {"surrogate": OnlyBetter()}, {"aggregate": root_length}],
    ids=lambda piece: "".join(piece),
)
def test_own_pieces_train_and_resume(piece, plain: bytes, tmp_path: Path) -> None:
    mine = replace(GRPO, name="mine", kl=None, **piece)
    run = fit(mine, group_size=3, out=tmp_path / "run")
    assert weights(run) != plain
    assert run.record.info["algorithm"] == "mine"
    assert formula_of(next(iter(piece.values()))) in explain(mine)
    longer = fit(mine, group_size=3, out=tmp_path / "run", steps=3, resume=True)
    assert weights(longer) == weights(fit(mine, group_size=3, out=tmp_path / "whole", steps=3))


def test_a_loaded_model_is_trained_as_its_folder_is(tmp_path: Path) -> None:
    start = fit("sft", data="task:addition", steps=1, data_size=32, out=tmp_path / "start")
    folder = start.path / "final"
    model, tokenizer = start.policy()
    before = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    named = fit(model=folder, group_size=3, steps=3, out=tmp_path / "named")
    handed = fit(model=model, tokenizer=tokenizer, group_size=3, steps=2, out=tmp_path / "handed")
    assert all(torch.equal(tensor, before[name]) for name, tensor in model.state_dict().items())
    handed = fit(model=model, tokenizer=tokenizer, group_size=3, steps=3, out=tmp_path / "handed", resume=True)
    assert weights(handed) == weights(named)
    with pytest.raises(ConfigError, match="model = 'python:LlamaForCausalLM"):
        fit(model=handed.policy()[0], tokenizer=tokenizer, group_size=3, steps=4, out=handed.path, resume=True)


def test_half_precision_is_trained_in_float32(tmp_path: Path) -> None:
    model = load_policy("scratch:tiny").to(torch.bfloat16)
    run = fit(model=model, tokenizer=load_tokenizer("scratch:tiny"), group_size=2, out=tmp_path / "run")
    assert run.policy()[0].dtype == torch.float32 and model.dtype == torch.bfloat16


def adapted():
    model = load_policy("scratch:tiny")
    add_adapters(model, Lora(rank=2), "scratch:tiny")
    return model


@pytest.mark.parametrize(
    ("changes", "error", "said"),
    [
        ({"algorithm": "grop"}, ConfigError, "Did you mean 'grpo'"),
        ({"group_sise": 4}, ConfigError, "unknown key 'group_sise'. Did you mean 'group_size'"),
        ({"steps": "4"}, ConfigError, "steps = '4' is of type str; wanted int"),
        ({"schedule": "cosin"}, ConfigError, "schedule = 'cosin'; wanted one of 'constant', 'linear', 'cosine'"),
        ({"tokenizer": load_tokenizer("scratch:tiny")}, ConfigError, "has its own. Fix: leave it out"),
        ({"model": load_policy("scratch:tiny")}, ConfigError, "comes without its tokenizer"),
        ({"data": 7}, DataError, "data is a int; wanted a path"),
        ({"data": []}, DataError, "data has no rows"),
        ({"data": DatasetDict(train=Dataset.from_list(ROWS))}, DataError, r"data=...\['train'\]"),
        ({"data": ["2+3="]}, DataError, r"data\[0\]: a str \('2[+]3='\), wanted a dict"),
        ({"data": [*ROWS, {"question": "x"}]}, DataError, r"data\[16\]: columns .*no 'prompt'"),
        ({"data": [{"prompt": "x", "answer": {1, 2}}]}, DataError, r"data\[0\]: answer is .* of type set"),
        ({"data": [{"prompt": "x", "n": float("nan")}]}, DataError, r"data\[0\]: n is nan"),
        ({"eval_data": [{"prompt": " "}]}, DataError, r"eval_data\[0\]: prompt is empty"),
        ({"reward": [lower, partial(lower)]}, ConfigError, "two functions are named"),
        ({"reward": lower, "eval_reward": partial(lower)}, ConfigError, "two functions are named"),
        ({"model": adapted(), "tokenizer": load_tokenizer("scratch:tiny")}, ConfigError, "not merged. Fix: merge them"),
        ({"reward": [(lower, 1.0)], "reward_weights": [2.0]}, ConfigError, "Fix: one of the two"),
        ({"reward": None}, ConfigError, "has no grader of its own"),
        ({"algorithm": SFT, "data": [{"prompt": "x", "completion": "y"}], "reward": lower}, ConfigError, "never calls"),
    ],
    ids=lambda value: "-".join(value) if isinstance(value, dict) else "",
)
def test_what_cannot_be_used_is_named(changes, error, said, tmp_path: Path) -> None:
    algorithm = changes.get("algorithm", "grpo")
    settings = {name: value for name, value in changes.items() if name != "algorithm"}
    with pytest.raises(error, match=said):
        fit(algorithm, **{"reward": lower, "out": tmp_path / "run", **settings})
    assert not (tmp_path / "run").exists()


UNCHECKED = """
import torch, oneloop
from dataclasses import replace
from oneloop import GRPO

class Bare:
    def __call__(self, rewards, values, mask, group, *, bootstrap=None): ...

settings = {"model": "scratch:tiny", "data": "task:addition"}
for wrong in (
    lambda: oneloop.fit(3, **settings),
    lambda: oneloop.fit("grpo", **settings | {"model": torch.nn.Linear(1, 1)}),
    lambda: oneloop.fit("grpo", **settings, reward=1.0),
    lambda: replace(GRPO, advantage=Bare()),
    lambda: replace(GRPO, advantage=Bare),
    lambda: replace(GRPO, aggregate=3),
):
    try:
        wrong()
    except oneloop.ConfigError as error:
        print(error)
"""


def test_what_the_types_alone_refuse_here_is_named_too(tmp_path: Path) -> None:
    """In a process of its own: the tests' type checks would come first."""
    process = Forked(["-c", UNCHECKED], tmp_path)
    told, _ = process.communicate(timeout=300)
    assert process.returncode == 0
    wanted = (
        "algorithm is a int; wanted a name such as 'grpo'",
        "model is a Linear; wanted a folder",
        "reward is a float; wanted a function",
        "advantage=Bare does not say of itself: uses_values = True or False (whether it reads the critic's values); c",
        "advantage is the class Bare; wanted a value",
        "aggregate is 3, which cannot be called",
    )
    assert [line[: len(start)] for line, start in zip(told.splitlines(), wanted, strict=True)] == list(wanted)


class Longest:
    """A grader that is an object."""

    def __call__(self, completions, **columns):
        return [float(len(c)) for c in completions]


@pytest.mark.parametrize(
    ("reward", "names", "total"),
    [
        (lower, ["lower"], lambda s, n: s),
        ([(lower, 0.5), Longest()], ["lower", "Longest"], lambda s, n: 0.5 * s + n),
        ((lower, 0.5), ["lower"], lambda s, n: 0.5 * s),
        ([partial(lower), (Longest(), 2)], ["lower", "Longest"], lambda s, n: s + 2 * n),
        (
            [lower, "oneloop.rewards.functions:exact_match"],
            ["lower", "exact_match"],
            lambda s, n: s,  # an untrained model is never right
        ),
    ],
    ids=["one", "weights", "a pair", "an object", "with a name"],
)
def test_rewards(reward, names, total, tmp_path: Path) -> None:
    run = fit(reward=reward, steps=1, group_size=2, out=tmp_path / "run")
    for row in run.rollouts(0).to_dict("records"):
        small, length = sum(c.islower() for c in row["completion"]) / 4, len(row["completion"])
        assert set(names) <= set(row) and row["reward"] == pytest.approx(total(small, length))


def test_only_the_same_things_go_on(tmp_path: Path) -> None:
    out = tmp_path / "run"
    fit(replace(GRPO, kl=None), group_size=2, out=out)
    with pytest.raises(ConfigError, match="holds a run already"):
        fit(replace(GRPO, kl=None), group_size=2, out=out)
    for changes in ({"data": ROWS[1:]}, {"reward": Longest()}, {"algorithm": GRPO}, {"group_size": 3}):
        settings = {"algorithm": replace(GRPO, kl=None), "group_size": 2, "steps": 3, **changes}
        with pytest.raises(ConfigError, match="the result would be neither run"):
            fit(settings.pop("algorithm"), out=out, resume=True, **settings)
    assert fit(replace(GRPO, kl=None), group_size=2, out=out, steps=3, resume=True).status == "finished"


@pytest.mark.parametrize(
    ("settings", "named"),
    [
        ({"model": "python:M"}, "model"),
        ({"data": "python:16 rows"}, "data"),
        ({"eval_data": "python:16 rows"}, "eval_data"),
        ({"reward": ("a.py:f", "python:m.f")}, "reward"),
        ({"eval_reward": ("python:m.f",)}, "eval_reward"),
    ],
)
def test_what_words_cannot_bring_back_is_asked_for(settings, named) -> None:
    with pytest.raises(ConfigError, match=rf"^{named} = .*Fix: oneloop.fit\(..., {named}=the same, resume=True\)"):
        Given().check(replace(default_run("grpo"), **settings))


def test_rows_are_told_by_what_they_hold() -> None:
    words = rows_words(python_table(ROWS, "data")[0])
    assert words.startswith("python:16 rows, sha256 ") and words == rows_words(python_table(list(ROWS), "data")[0])
    assert words != rows_words(python_table(ROWS[::-1], "data")[0])


def test_commands_read_the_folder_and_say_what_they_cannot_know(tmp_path: Path, capsys) -> None:
    run = fit(replace(GRPO, kl=None), group_size=2, steps=1, out=tmp_path / "run")
    (tmp_path / "rows.jsonl").write_text('{"prompt": "1+1=", "answer": "2"}\n{"prompt": "1+2=", "answer": "3"}\n')
    judged = f"--data {tmp_path}/rows.jsonl --reward oneloop.rewards.functions:exact_match"
    assert command(["report", str(run.path)]) == 0
    assert command(["eval", "--model", str(run.path / "final"), *judged.split()]) == 0
    assert command(["train", "--recipe", str(run.path / "config.toml"), "--out", str(tmp_path / "again")]) == 2
    assert "was handed over in Python" in capsys.readouterr().err
    fit(group_size=2, steps=1, out=tmp_path / "named")  # the algorithm is one of the names, the rows are not
    assert command(["train", "--recipe", str(tmp_path / "named" / "config.toml"), "--out", str(tmp_path / "x")]) == 2
    assert "data = 'python:16 rows" in capsys.readouterr().err
    assert not (tmp_path / "x").exists()


class Interrupts(Silent):
    """Somebody presses Ctrl-C during the second step."""

    def step(self, step, values):
        if step == 1:
            os.kill(os.getpid(), signal.SIGINT)


def test_ctrl_c_in_a_script_saves_and_raises(tmp_path: Path) -> None:
    out, handlers = tmp_path / "run", (signal.getsignal(signal.SIGINT), signal.getsignal(signal.SIGTERM))
    with pytest.raises(Stopped):
        fit(steps=9, group_size=2, out=out, observer=Interrupts())
    assert (signal.getsignal(signal.SIGINT), signal.getsignal(signal.SIGTERM)) == handlers
    stopped = oneloop.open_run(out)
    assert stopped.status == "stopped" and len(stopped.metrics()) == 2
    assert stopped.policy()[0].num_parameters() > 0  # from the checkpoint: there is no final/
    done = fit(steps=3, group_size=2, out=out, resume=True)
    assert weights(done) == weights(fit(steps=3, group_size=2, out=tmp_path / "whole"))


class Impatient(Silent):
    """Somebody presses Ctrl-C twice."""

    def step(self, step, values):
        os.kill(os.getpid(), signal.SIGINT)
        os.kill(os.getpid(), signal.SIGINT)


def test_the_second_ctrl_c_is_pythons_own(tmp_path: Path) -> None:
    with pytest.raises(KeyboardInterrupt):
        fit(steps=9, group_size=2, out=tmp_path / "run", observer=Impatient())
    assert oneloop.open_run(tmp_path / "run").status == "stopped"


def test_threads_stay_as_they_were(tmp_path: Path) -> None:
    before = torch.get_num_threads()
    fit(steps=1, group_size=2, out=tmp_path / "run")
    assert torch.get_num_threads() == before


@pytest.fixture(scope="module")
def done(tmp_path_factory):
    return fit(group_size=2, eval_data=ROWS[:2], steps=3, out=tmp_path_factory.mktemp("done") / "<run>")


def test_metrics_with_pandas_and_without(done, monkeypatch) -> None:
    table = done.metrics()
    assert list(table["step"]) == [0, 1, 2] and table["eval/reward"].isna().tolist() == [True, True, False]
    monkeypatch.setattr("oneloop.recipes.result.find_spec", lambda name: None)
    plain = done.metrics()
    assert plain["step"] == [0, 1, 2] and plain["eval/reward"][:2] == [None, None]
    assert plain["reward"] == table["reward"].tolist() and set(plain) == set(table.columns)


def test_rollouts_are_those_of_the_step_or_the_last(done) -> None:
    first, last = done.rollouts(0), done.rollouts()
    assert set(first["step"]) == {0} and set(last["step"]) == {2} and len(last) == 8
    assert {"prompt", "completion", "lower", "reward", "advantage"} <= set(first.columns)
    with pytest.raises(ConfigError, match="no completions of step 9; there are 3 steps from 0 to 2"):
        done.rollouts(9)


def test_the_figure_draws_what_was_recorded(done) -> None:
    figure = done.plot("reward", "kl")
    assert [axes.get_title(loc="left") for axes in figure.axes] == ["reward", "kl"]
    (line,) = figure.axes[0].lines
    assert list(line.get_xdata()) == [1, 2, 3] and list(line.get_ydata()) == list(done.metrics()["reward"])
    assert figure._repr_png_().startswith(b"\x89PNG") and len(done.plot().axes) > 4
    with pytest.raises(ConfigError, match="no step has a finite 'rewards'; there is "):
        done.plot("rewards")
    assert "matplotlib.pyplot" not in sys.modules or not sys.modules["matplotlib.pyplot"].get_fignums()


def test_a_run_in_one_line_and_in_a_cell(done) -> None:
    line, cell = repr(done), done._repr_html_()
    assert "grpo: finished after 3 steps" in line and "eval/reward" in line
    assert "&lt;run&gt;" in cell and "<run>" not in cell
    with pytest.raises(ConfigError, match="is not a run folder"):
        oneloop.open_run(done.path / "final")


def test_the_trained_model_comes_back(done) -> None:
    model, tokenizer = done.policy()
    saved = load_file(done.path / "final" / "model.safetensors")
    assert all(torch.equal(tensor, saved[name]) for name, tensor in model.state_dict().items())
    assert tokenizer("2+3=")["input_ids"] == load_tokenizer("scratch:tiny")("2+3=")["input_ids"]


def test_a_reward_model_comes_back_as_one(tmp_path: Path) -> None:
    start = fit("sft", data="task:addition", data_size=16, steps=1, out=tmp_path / "sft").path / "final"
    pairs = [{"prompt": row["prompt"], "chosen": row["answer"], "rejected": "?"} for row in ROWS]
    named = replace(oneloop.REWARD_MODEL, name="judge")
    run = oneloop.fit(named, model=start, data=pairs, steps=1, out=tmp_path / "judge", **SMALL)
    assert type(run.policy()[0]).__name__ == "LlamaForSequenceClassification"
