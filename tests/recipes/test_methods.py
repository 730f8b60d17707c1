"""SimPO, ORPO, KTO and distillation as runs; margins; and the reference's answers kept on disk."""

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from oneloop.algorithms import ALGORITHMS, DISTILL
from oneloop.cli.main import run as command
from oneloop.config import Run, default_run
from oneloop.data import open_data
from oneloop.errors import ConfigError, DataError
from oneloop.experience.pairs import Pair, pair_batch
from oneloop.model.learner import Learner, Optimization
from oneloop.model.load import load_policy, load_tokenizer
from oneloop.model.save import save_policy
from oneloop.model.text import Text
from oneloop.plan.bill import Lengths, bill
from oneloop.recipes import items
from oneloop.recipes.build import assemble
from oneloop.recipes.execute import execute
from oneloop.recipes.inputs import read_inputs
from oneloop.recipes.reference_cache import Kept
from oneloop.recipes.resolve import kind_of, models_in_memory, resolved
from oneloop.record.reader import read_run
from toy_models import Memory, Silent

LOADED = {"simpo": ["policy"], "orpo": ["policy"], "kto": ["policy", "reference"], "distill": ["policy", "teacher"]}


@pytest.fixture(scope="module")
def teacher(tmp_path_factory) -> str:
    """Of another shape than the student: more layers, wider."""
    folder = tmp_path_factory.mktemp("teacher") / "model"
    folder.mkdir()
    save_policy(folder, load_policy("scratch:small", seed=3), load_tokenizer("scratch:small"))
    return str(folder)


@pytest.fixture(scope="module")
def scratch(tmp_path_factory) -> str:
    folder = tmp_path_factory.mktemp("scratch") / "model"
    folder.mkdir()
    save_policy(folder, load_policy("scratch:tiny"), load_tokenizer("scratch:tiny"))
    return str(folder)


def small(algorithm: str, out: Path, **changes) -> Run:
    run = replace(default_run(algorithm), model="scratch:tiny", data="task:addition", out=str(out), steps=2)
    run = replace(run, prompts_per_step=5, data_size=12, eval_size=5, learning_rate=1e-3, max_new_tokens=4)
    return replace(run, **changes)


@pytest.mark.parametrize("name", LOADED)
def test_two_steps_from_the_command_line(name, tmp_path, teacher, capsys) -> None:
    out = tmp_path / "run"
    flags = ["--steps", "2", "--prompts-per-step", "3", "--data-size", "8", "--eval-size", "4", "--eval-every", "1"]
    flags += ["--max-new-tokens", "6", "--out", str(out), *(["--teacher", teacher] if name == "distill" else [])]
    assert command(["train", name, "--data", "task:chain_sum", *flags]) == 0
    said = capsys.readouterr().out
    assert f"models in memory: {', '.join(LOADED[name])}" in said
    assert name != "kto" or "KTO loss − 1/2 = 0" in said
    record = read_run(out)
    wanted = {"simpo": "rewards/margins", "orpo": "nll_loss", "kto": "z_ref", "distill": "kl"}[name]
    assert len(record.metrics) == 2 and len(record.series(wanted)[1]) == 2
    assert any(key.startswith("eval/") for key in record.metrics[0])


def test_distillation_comes_near_its_teacher_and_calls_no_reward(tmp_path) -> None:
    """The teacher is the same architecture with other weights; without a reward in the data or on the command line."""
    source = tmp_path / "prompts.jsonl"
    source.write_text("".join(f'{{"prompt": "{n}+{n}="}}\n' for n in range(1, 9)))
    folder = tmp_path / "model"
    folder.mkdir()
    torch.manual_seed(0)
    model = load_policy("scratch:tiny", seed=5)
    with torch.no_grad():
        model.get_output_embeddings().weight.mul_(4.0)
    save_policy(folder, model, load_tokenizer("scratch:tiny"))
    run = small("distill", tmp_path / "run", data=str(source), teacher=str(folder), steps=25, prompts_per_step=32)
    execute(replace(run, learning_rate=3e-3), Silent())
    kl = read_run(Path(run.out)).series("kl")[1]
    assert sum(kl[-5:]) < 0.6 * sum(kl[:5]) and kl[0] > 0.1
    assert set(read_run(Path(run.out)).series("reward")[1]) == {0.0}


def test_a_teacher_of_another_shape_says_what_it_says_alone(teacher) -> None:
    run = small("distill", Path("unused"), teacher=teacher)
    algorithm = resolved(run)
    parts = assemble(run, algorithm, read_inputs(run, kind_of(algorithm)), Memory())
    batch = parts.experience.batch(0)
    found = parts.learner.reference(batch)
    with torch.no_grad():
        table = torch.log_softmax(load_policy(teacher)(batch.tokens).logits[:, :-1], -1)
    wanted = table.gather(-1, batch.tokens[:, 1:, None])[..., 0]
    inside = batch.mask[:, 1:]
    torch.testing.assert_close(found[:, 1:][inside], wanted[inside], rtol=1e-4, atol=1e-4)
    own = parts.learner.policy(batch).logprobs
    assert not torch.allclose(own[batch.mask], found[batch.mask], atol=1e-2)


@pytest.mark.parametrize("name", ["rloo", "kto", "orpo"])
def test_a_method_has_a_bill(name, scratch) -> None:
    """Also where the only update needs π_old before its pass, as a KL at the reward does."""
    run = small(name, Path("x"), model=scratch)
    assert bill(run, Lengths(prompt=4, answer=4)).bytes > 0


def test_the_bill_counts_the_teacher(teacher) -> None:
    lengths = Lengths(prompt=8, answer=8)
    student, taught = (
        bill(replace(small("distill", Path("x"), teacher=source)), lengths) for source in ("scratch:tiny", teacher)
    )
    sizes = [table.table["teacher"]["weights"] for table in (student, taught)]
    assert sizes[1] == sum(p.nbytes for p in load_policy(teacher).parameters()) > sizes[0]
    assert "reference" not in taught.table and taught.bytes > student.bytes
    assert "reference" not in bill(small("simpo", Path("x")), lengths).table
    kto = bill(small("kto", Path("x")), lengths).table
    assert kto["reference"]["weights"] == kto["policy"]["weights"]


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"algorithm": "distill"}, "learns from a teacher. Fix: --teacher"),
        ({"algorithm": "dpo", "group_size": 2, "teacher": "T"}, "dpo has no KL to a teacher"),
        ({"algorithm": "dapo", "teacher": "T"}, "dapo has no KL to a teacher"),
        ({"algorithm": "kto", "reference_cache": "C"}, "kto does not ask a reference about fixed pairs"),
        ({"algorithm": "simpo", "group_size": 2, "reference_cache": "C"}, "simpo does not ask a reference"),
    ],
)
def test_what_does_not_fit_together_is_refused(changes, message) -> None:
    with pytest.raises(ConfigError, match=message):
        resolved(replace(Run(), **changes))


def test_a_teacher_with_other_tokens_is_refused(tmp_path, teacher) -> None:
    folder = Path(teacher)
    other = tmp_path / "other"
    other.mkdir()
    for file in folder.iterdir():
        if file.is_file():
            (other / file.name).write_bytes(file.read_bytes())
    table = json.loads((other / "tokenizer.json").read_text())
    vocabulary = table["model"]["vocab"]
    first, second = list(vocabulary)[-2:]
    vocabulary[first], vocabulary[second] = vocabulary[second], vocabulary[first]
    (other / "tokenizer.json").write_text(json.dumps(table))
    with pytest.raises(ConfigError, match="another vocabulary than --model scratch:tiny"):
        execute(small("distill", tmp_path / "run", teacher=str(other)), Silent())


def test_any_method_with_a_kl_takes_a_teacher_beside_its_reward(teacher) -> None:
    run = small("grpo", Path("x"), teacher=teacher, reward=("task:addition",))
    algorithm = resolved(run)
    assert models_in_memory(run, algorithm) == ["policy", "teacher"]
    assert len(read_inputs(run, kind_of(algorithm)).rewards) == 1
    assert models_in_memory(replace(run, lora=4, model=teacher), algorithm) == ["policy", "teacher"]
    assert read_inputs(replace(run, reward=()), kind_of(algorithm)).rewards == ()


# ---- rated answers


def test_rows_of_rated_answers() -> None:
    rows = list(open_data("task:addition", "unpaired", size=20, seed=1).rows)
    assert [row["label"] for row in rows] == [True, False] * 10 and len({row["prompt"] for row in rows}) == 20
    assert all((row["completion"] == row["answer"]) == row["label"] for row in rows)
    assert not any({"chosen", "rejected"} & set(row) for row in rows)
    (first, second, *_), dropped = items.unpaired(rows, Text(load_tokenizer("scratch:tiny"), (1,)), None)
    assert (first.good, second.good, dropped) == (True, False, None) and first.completion[-1] == 1


@pytest.mark.parametrize(
    ("label", "wanted"), [("2", "2 of type int"), ('"yes"', "'yes' of type str"), ("null", "None")]
)
def test_a_label_is_true_or_false(tmp_path, label, wanted) -> None:
    file = tmp_path / "rated.jsonl"
    file.write_text(f'{{"prompt": "1+1=", "completion": "2", "label": {label}}}\n')
    with pytest.raises(DataError, match=rf"rated.jsonl:1: label is {wanted}.*wanted true for a good answer"):
        open_data(str(file), "unpaired")
    file.write_text('{"prompt": "1+1=", "completion": "2"}\n')
    with pytest.raises(DataError, match=r"columns prompt, completion; .* needs prompt \+ completion \+ label"):
        open_data(str(file), "unpaired")


# ---- margins


def margins(tmp_path: Path, *values) -> str:
    file = tmp_path / "pairs.jsonl"
    file.write_text("".join(
        json.dumps({"prompt": f"{n}+1=", "chosen": f"{n + 1}", "rejected": "0"} | ({} if v is None else {"margin": v}))
        + "\n" for n, v in enumerate(values, 1)
    ))  # fmt: skip
    return str(file)


def test_a_reward_model_reads_margins_and_others_say_that_they_do_not(tmp_path, scratch) -> None:
    source, notes, losses = margins(tmp_path, 1.5, 0, 3), {}, {}
    bare = tmp_path / "bare"
    bare.mkdir()
    for name, rows in (("reward_model", source), ("dpo", source), ("plain", margins(bare, None, None, None))):
        run = small("reward_model" if name == "plain" else name, tmp_path / name, data=rows, steps=1, model=scratch)
        watcher = Silent()
        execute(replace(run, prompts_per_step=3), watcher)
        notes[name] = [line for line in watcher.lines if "margin" in line]
        losses[name] = read_run(tmp_path / name).series("loss")[1][0]
    assert notes == {
        "reward_model": ["column margin: the chosen answer's score must lead by it (mean 1.5)"],
        "dpo": ["column margin is not read: dpo trains no reward model"],
        "plain": [],
    }
    assert losses["reward_model"] > losses["plain"] + 0.5


@pytest.mark.parametrize("bad", [None, "1", True, float("nan")])
def test_a_margin_is_a_number_in_every_row(bad) -> None:
    rows = [
        {"prompt": "1", "chosen": "2", "rejected": "3", "margin": 1},
        {"prompt": "1", "chosen": "2", "rejected": "3"},
    ]
    if bad is not None:
        rows[1]["margin"] = bad
    with pytest.raises(DataError, match=r"row 2: margin is .*wanted a number in every row"):
        items.pairs(rows, Text(load_tokenizer("scratch:tiny"), (1,)), None, margins=True)


# ---- the reference's answers on disk


def trained(run: Run) -> tuple[list[float], bytes]:
    execute(run, Silent())
    weights = (Path(run.out) / "final" / "model.safetensors").read_bytes()
    return read_run(Path(run.out)).series("loss")[1], weights


def test_a_run_with_kept_answers_has_the_bits_of_one_without(tmp_path, monkeypatch) -> None:
    folder = tmp_path / "kept"
    plain = trained(small("dpo", tmp_path / "plain", steps=4))
    first = trained(small("dpo", tmp_path / "first", steps=4, reference_cache=str(folder)))
    files = sorted(folder.iterdir())
    # β, learning rate and link are no business of the reference; it is not asked again
    monkeypatch.setattr("oneloop.recipes.reference_cache.np.save", None)
    watcher = Silent()
    execute(small("ipo", tmp_path / "ipo", steps=4, reference_cache=str(folder), learning_rate=1e-4), watcher)
    second = trained(small("dpo", tmp_path / "second", steps=4, reference_cache=str(folder)))
    assert plain == first == second and sorted(folder.iterdir()) == files
    assert any(f"reference: {len(files)} of {len(files)} batches of pairs were known" in line for line in watcher.lines)


def test_another_model_or_other_pairs_miss(tmp_path) -> None:
    folder = tmp_path / "kept"
    base = small("dpo", tmp_path / "a", steps=4, reference_cache=str(folder))
    execute(base, Silent())
    for number, (changes, known) in enumerate(
        [({"steps": 2}, True), ({"seed": 1}, False), ({"data_size": 13}, False), ({"max_tokens": 64}, False)]
    ):
        watcher = Silent()
        execute(replace(base, out=str(tmp_path / f"b{number}"), **changes), watcher)
        (line,) = [line for line in watcher.lines if line.startswith("reference: ")]
        found, asked = int(line.split()[1]), int(line.split()[3])
        assert found == asked if known else found < asked, (changes, line)


def test_other_tokens_of_the_same_lengths_miss(tmp_path) -> None:
    learner = Learner(
        load_policy("scratch:tiny"),
        optimization=Optimization(learning_rate=1.0, critic_learning_rate=1.0, total_updates=1),
    )
    kept = Kept(lambda batch: batch.tokens.float(), learner, tmp_path / "kept")
    one, other = (pair_batch([Pair([5], [token, 1], [7, 1])]) for token in (6, 8))
    for batch in (one, other, one):
        assert torch.equal(kept(batch), batch.tokens.float())
    assert (kept.asked, kept.known) == (3, 1)


def test_other_weights_miss(tmp_path) -> None:
    folder = tmp_path / "kept"
    runs = []
    for seed in (0, 1):
        home = tmp_path / f"model{seed}"
        home.mkdir()
        save_policy(home, load_policy("scratch:tiny", seed=seed), load_tokenizer("scratch:tiny"))
        runs.append(small("dpo", tmp_path / f"run{seed}", model=str(home), reference_cache=str(folder)))
    for run in runs:
        watcher = Silent()
        execute(run, watcher)
        (line,) = [line for line in watcher.lines if line.startswith("reference: ")]
        assert line.startswith("reference: 0 of")
    # the same weights from another folder are the same model
    moved = tmp_path / "moved"
    (tmp_path / "model0").rename(moved)
    watcher = Silent()
    execute(replace(runs[0], model=str(moved), out=str(tmp_path / "again")), watcher)
    assert any(line.startswith("reference: 4 of 4") or line.startswith("reference: 3 of 3") for line in watcher.lines)


@pytest.mark.parametrize("damage", ["cut", "pickle", "shape"])
def test_a_damaged_file_is_named(tmp_path, damage) -> None:
    folder = tmp_path / "kept"
    run = small("dpo", tmp_path / "a", reference_cache=str(folder))
    execute(run, Silent())
    for file in folder.iterdir():
        if damage == "cut":
            file.write_bytes(file.read_bytes()[:-9])
        else:
            np.save(file, np.array([{}] if damage == "pickle" else [1.0]), allow_pickle=True)
    with pytest.raises(DataError, match=r"kept/.*\.npy is damaged .*Fix: delete it"):
        execute(replace(run, out=str(tmp_path / "b")), Silent())


def test_the_value_of_distill_is_what_a_run_trains() -> None:
    assert replace(resolved(small("distill", Path("x"), teacher="T")), epochs=1) == DISTILL == ALGORITHMS["distill"]
