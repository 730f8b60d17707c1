"""Changing pieces by name, recipes, and what explain and diff print of them."""

from dataclasses import replace

import pytest
from tokenizers.processors import TemplateProcessing

from oneloop.algorithms import ALGORITHMS, DAPO, DPO, GRPO, PPO
from oneloop.cli.parse import parse_run
from oneloop.config import Run, default_run
from oneloop.errors import ConfigError, DataError
from oneloop.model.load import load_tokenizer
from oneloop.model.text import Text
from oneloop.objective.advantage import GroupRelative, LeaveOneOut
from oneloop.objective.aggregate import FixedLength
from oneloop.objective.divergence import AdaptiveKL
from oneloop.objective.shaping import OverlongPenalty
from oneloop.recipes.explain import differences, explain
from oneloop.recipes.items import demonstrations, pairs, prompts
from oneloop.recipes.overrides import overridden
from oneloop.recipes.resolve import resolved
from oneloop.toml import from_table, read_recipe


@pytest.mark.parametrize(
    ("start", "change", "wanted"),
    [
        (GRPO, "kl.coef=0.01", replace(GRPO, kl=replace(GRPO.kl, coef=0.01))),
        (GRPO, "kl=none", replace(GRPO, kl=None)),
        (GRPO, "surrogate.high=0.28", replace(GRPO, surrogate=DAPO.surrogate)),
        (GRPO, "advantage=GroupRelative(ddof=1)", replace(GRPO, advantage=GroupRelative(ddof=1))),
        (GRPO, "advantage=GroupRelative(scale='none')", replace(GRPO, advantage=GroupRelative(scale="none"))),
        (GRPO, "advantage=LeaveOneOut()", replace(GRPO, advantage=LeaveOneOut())),
        (PPO, "kl.adaptive=AdaptiveKL(0.1, 100)", replace(PPO, kl=replace(PPO.kl, adaptive=AdaptiveKL(0.1, 100)))),
        (DPO, "reward.beta=0.5", replace(DPO, reward=replace(DPO.reward, beta=0.5))),
    ],
)
def test_one_piece_changes(start, change: str, wanted) -> None:
    assert overridden(start, [change]) == wanted


@pytest.mark.parametrize(
    "change",
    ["kl", "kl.coeff=1", "kl.coef.x=1", "clip=0.2", 'kl=__import__("os")', "kl=KL(open('x'))", "kl=KL(", "epochs=0"],
)
def test_a_bad_change_names_itself_and_runs_nothing(change: str) -> None:
    with pytest.raises(ConfigError):
        overridden(PPO, [change])


def test_lengths_of_the_papers_follow_the_run() -> None:
    dapo = resolved(replace(default_run("dapo"), max_new_tokens=50))
    assert dapo.shape == OverlongPenalty(max_length=50, margin=10)
    assert resolved(replace(default_run("dr_grpo"), max_new_tokens=50)).aggregate == FixedLength(50)


def test_a_recipe_and_the_record_of_a_run(tmp_path) -> None:
    path = tmp_path / "wide.toml"
    path.write_text('algorithm = "grpo"\nlearning-rate = 1\nreward = "a.py:f"\n[set]\n"surrogate.high" = 0.3\n')
    run = replace(default_run("grpo"), **read_recipe(path))
    assert (run.learning_rate, run.reward, run.set) == (1.0, ("a.py:f",), ("surrogate.high=0.3",))
    assert resolved(run).surrogate.high == 0.3
    written = tmp_path / "config.toml"
    written.write_text(run.to_toml())
    assert Run(**read_recipe(written)) == run
    with pytest.raises(ConfigError, match="'group_size'"):
        from_table({"group_sise": 3}, "here")


def test_a_recipe_is_for_its_own_algorithm(tmp_path) -> None:
    path = tmp_path / "wide.toml"
    path.write_text('algorithm = "grpo"\n')
    assert parse_run(["--recipe", str(path)], "usage").algorithm == "grpo"
    with pytest.raises(ConfigError, match="is for 'grpo', the command says 'ppo'"):
        parse_run(["ppo", "--recipe", str(path)], "usage")


@pytest.mark.parametrize("name", ALGORITHMS)
def test_explain_holds_every_piece_of_the_value(name: str) -> None:
    algorithm, text = ALGORITHMS[name], explain(ALGORITHMS[name])
    for field in ("advantage", "surrogate", "aggregate", "kl", "critic", "keep", "shape", "drop", "reward", "link"):
        piece = getattr(algorithm, field, None)
        assert piece is None or piece.formula in text
    models = next(line for line in text.splitlines() if line.strip().startswith("models"))
    assert ("reference" in models) == ("reference" in algorithm.needs)
    assert ("critic" in models) == ("values" in algorithm.needs)


def test_differences_rebuild_nothing_else() -> None:
    lines = differences(GRPO, DAPO)
    assert [line.split()[1] for line in lines] == ["surrogate:", "aggregate:", "kl", "keep", "shape", "drop"]
    assert differences(GRPO, replace(GRPO, name="other")) == []


def chat() -> Text:
    tokenizer = load_tokenizer("scratch:tiny")
    tokenizer.chat_template = "{% for m in messages %}[{{ m.role }}]{{ m.content }}{{ eos_token }}{% endfor %}[a]"
    return Text(tokenizer, (tokenizer.eos_token_id,))


def test_messages_go_through_the_template_once() -> None:
    ids, shown = chat().prompt([{"role": "user", "content": "1+1"}])
    assert shown == "[user]1+1<eos>[a]"
    assert list(ids).count(chat().end_ids[0]) == 1, "the template's special token is there once"
    plain = load_tokenizer("scratch:tiny")
    with pytest.raises(DataError, match="no chat template"):
        Text(plain, (1,)).prompt([{"role": "user", "content": "1+1"}])


def test_a_prompt_is_a_beginning_also_where_the_tokenizer_ends_every_text() -> None:
    plain, ends = load_tokenizer("scratch:tiny"), load_tokenizer("scratch:tiny")
    eos = plain.eos_token_id
    ends.backend_tokenizer.post_processor = TemplateProcessing(single="$A <eos>", special_tokens=[("<eos>", eos)])
    assert ends("1+1")["input_ids"][-1] == eos
    assert Text(ends, (eos,)).prompt("1+1") == Text(plain, (eos,)).prompt("1+1")


def test_a_row_may_fill_the_context() -> None:
    rows = [{"prompt": "1" * 8, "completion": "2"}, {"prompt": "1" * 9, "completion": "2"}]
    kept, long = demonstrations(rows, chat(), 10, "skip")
    assert len(kept) == 1 and long is not None and long.skipped.first == ["row 2"]


def test_rows_beyond_the_context_are_counted_and_named() -> None:
    """The run ends unless it is told to leave rows out; those are named; when none is left, that is an error."""
    rows = [{"prompt": "1" * n, "completion": "2"} for n in (3, 30, 4, 40)]
    with pytest.raises(DataError, match=r"row 2: .* context of 10 tokens \(32\)\. Fix: --long-prompts skip"):
        demonstrations(rows, chat(), 10)
    kept, long = demonstrations(rows, chat(), 10, "skip")
    assert len(kept) == 2 and long is not None and long.skipped.first == ["row 2", "row 4"]
    assert "2 of 4 rows skipped (row 2, row 4)" in str(long)
    assert [prompt.id for prompt in prompts(rows, chat(), 10, 5, "skip")[0]] == ["0", "2"]
    with pytest.raises(DataError, match="all 4 rows are too long"):
        prompts(rows, chat(), 10, 9, "skip")


def test_a_prompt_can_lose_its_beginning() -> None:
    """Ten tokens: an answer of two (its end counts) leaves eight of the prompt, the last ones."""
    text = chat()
    rows = [{"prompt": "0123456789" * 2, "completion": "7", "chosen": "77", "rejected": "7"}]
    (shown,), long = demonstrations(rows, text, 10, "truncate-left")
    assert text.tokenizer.decode(list(shown.ids[:8])) == "23456789" and shown.trained == (False,) * 8 + (True,) * 2
    assert long is not None and "1 of 1 rows cut at the left of the prompt (row 1)" in str(long)
    (pair,), _ = pairs(rows, text, 10, "truncate-left")
    assert text.tokenizer.decode(list(pair.prompt)) == "3456789", "the longer answer decides"
    (pair,), _ = pairs([{**rows[0], "chosen": "7", "rejected": "77"}], text, 10, "truncate-left")
    assert text.tokenizer.decode(list(pair.prompt)) == "3456789", "also where it is the rejected one"
    (prompt,), _ = prompts(rows, text, 10, 4, "truncate-left")
    assert prompt.text == "456789" and len(prompt.tokens) == 6
    with pytest.raises(DataError, match=r"row 1: .*and without the prompt too"):
        prompts(rows, text, 10, 10, "truncate-left")


def test_a_token_that_begins_every_text_stays_when_the_prompt_is_cut() -> None:
    text = chat()
    first = text.tokenizer.convert_tokens_to_ids("9")
    text.tokenizer.bos_token = "9"
    (shown,), _ = demonstrations([{"prompt": "9012345678", "completion": "7"}], text, 6, "truncate-left")
    assert shown.ids[0] == first and text.tokenizer.decode(list(shown.ids[1:4])) == "678" and len(shown.ids) == 6
