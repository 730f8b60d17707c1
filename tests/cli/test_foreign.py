"""Names of other libraries are hints that can be pasted; the page that lists them is the table."""

import re
from dataclasses import fields
from pathlib import Path

import pytest

from oneloop.cli.foreign import BY_NAME, TABLE, hint, page_table
from oneloop.cli.parse import parse, parse_run
from oneloop.config import Run
from oneloop.errors import ConfigError

PAGE = Path(__file__).parents[2] / "docs" / "coming-from.md"
OURS = {f"--{field.name.replace('_', '-')}" for field in fields(Run)} | {"--recipe"}


def test_the_page_has_the_table() -> None:
    assert page_table() in PAGE.read_text(encoding="utf-8")


def test_a_name_stands_once_and_is_not_ours() -> None:
    assert len(BY_NAME) == len(TABLE)
    assert not {f"--{name.replace('_', '-')}" for name in BY_NAME} & OURS


@pytest.mark.parametrize("foreign", TABLE, ids=lambda one: one.name)
def test_every_flag_that_is_offered_exists(foreign) -> None:
    assert set(re.findall(r"--[a-z][a-z-]*", foreign.ours)) <= OURS


WANTED = {
    "--lr 3e-5": "--learning-rate 3e-5",
    "--beta 0.04": "--set kl.coef=0.04",
    "--num_generations=16": "--group-size 16",
    "--max-completion-length 256": "--max-new-tokens 256",
    "--use_vllm --lr 3": "--engine vllm; the built-in engine",
    "--init_kl_coef": "--set kl.coef=VALUE",
    "actor_rollout_ref.actor.optim.lr=1e-6": "--learning-rate 1e-6",
    "+actor_rollout_ref.rollout.n=5": "--group-size 5",
}


@pytest.mark.parametrize("words", WANTED)
def test_what_is_written_there_is_told_here_in_one_line(words: str) -> None:
    with pytest.raises(ConfigError) as found:
        parse_run(["grpo", *words.split()], "usage")
    assert WANTED[words] in str(found.value) and "\n" not in str(found.value)


def test_a_word_of_verl_may_stand_first() -> None:
    with pytest.raises(ConfigError, match="oneloop train grpo"):
        parse_run(["algorithm.adv_estimator=grpo"], "usage")


def test_the_nearest_flag_only_where_it_is_near() -> None:
    with pytest.raises(ConfigError, match=r"Did you mean --steps\?"):
        parse(Run, ["grpo", "--stepz", "3"], prog="oneloop train")
    with pytest.raises(ConfigError, match=r"no flag --foo\. All of them: oneloop train --help"):
        parse(Run, ["grpo", "--foo"], prog="oneloop train")
    assert hint("lora", None) is None


def test_dashes_and_underscores_are_one() -> None:
    run = parse_run(
        ["grpo", "--learning_rate", "1e-3", "--group-size=4", "--no-score_early", "--set", "kl.coef=0.1"], ""
    )
    assert (run.learning_rate, run.group_size, run.score_early, run.set) == (1e-3, 4, False, ("kl.coef=0.1",))
