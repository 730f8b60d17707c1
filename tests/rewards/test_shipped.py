"""Rewards by name and settings."""

import shlex
from pathlib import Path

import pytest

from oneloop.errors import ConfigError
from oneloop.rewards.functions import GradedReward
from oneloop.rewards.grading import Grader
from oneloop.rewards.shipped import SHIPPED, shipped

IDS = [[1] * count for count in (0, 5, 8, 10, 12)]


@pytest.mark.parametrize(("spec", "texts", "values"), [
    ("exact_match", ["5", "6"], [1.0, 0.0]),
    ("numeric_match", ["it is 5.0", "x"], [1.0, 0.0]),
    ("format?pattern=%3Ca%3E.*", ["<a>1", "1"], [1.0, 0.0]),
    ("format?pattern=a%26b", ["a&b", "ab"], [1.0, 0.0]),
    ("format?pattern=a+=", ["aa=", "a "], [1.0, 0.0]),  # a plus sign is a plus sign
    ("graded?pattern=[0-9]%2B;", ["5", "4;", "five"], [1.0, 0.5, 0.0]),
    ("graded?right=numeric_match&pattern=.*;", ["5;", "4;", "4"], [1.0, 0.5, 0.0]),
    ("repetition_penalty?words=2", ["a b c", "a b a b", "a", ""], [0.0, -1 / 3, 0.0, 0.0]),
])  # fmt: skip
def test_what_each_says(spec: str, texts: list[str], values: list[float]) -> None:
    got = shipped(spec)(texts, answer=["5"] * len(texts), completion_ids=[[1]] * len(texts))
    assert got == pytest.approx(values)


def test_prices_of_length_are_in_tokens() -> None:
    texts = ["x"] * 5
    assert shipped("length_penalty?per=10")(texts, completion_ids=IDS) == [0.0, -0.5, -0.8, -1.0, -1.2]
    # 10 tokens at most, 4 of them the margin: free up to 6, half way at 8
    assert shipped("overlong?max_length=10&margin=4")(texts, completion_ids=IDS) == [0.0, 0.0, -0.5, -1.0, -1.0]


def test_the_overlong_punishment_is_the_penalty_of_dapo() -> None:
    import torch

    from oneloop.objective.shaping import OverlongPenalty

    lengths = torch.arange(0, 25)
    there = OverlongPenalty(max_length=20, margin=5)(torch.zeros(25), lengths)
    here = shipped("overlong?max_length=20&margin=5")(["x"] * 25, completion_ids=[[1] * n for n in range(25)])
    assert here == pytest.approx(there.tolist())


def test_a_row_without_an_answer_is_not_graded() -> None:
    reward = shipped("graded?pattern=x")
    assert isinstance(reward, GradedReward)
    assert reward(["x"], answer=[None]) == [None]


@pytest.mark.parametrize(("spec", "message"), [
    ("exact_match?x=1", "no setting 'x'; exact_match takes no settings"),
    ("format", "'pattern' is missing. Fix: format\\?pattern="),
    ("format?pattern=(", "no regular expression"),
    ("format?pattern", "'pattern' has no value"),
    ("overlong?max_length=10", "'margin' is missing"),
    ("overlong?max_length=ten&margin=1", "max_length is 'ten'; wanted int"),
    ("overlong?max_length=5&margin=6", "wanted 0 < margin"),
    ("length_penalty?per=0", "wanted a positive number"),
    ("repetition_penalty?words=0", "at least 1 word"),
    ("math_match?timeout=0", "wanted > 0 s"),
    ("math_match?memory=1", "wanted > 0 s, >= 256 MiB"),
    ("math_match?seconds=1", "no setting 'seconds'; math_match takes timeout, memory"),
    ("unit_tests?share=1", "no setting 'share'; unit_tests takes seconds, memory_mb"),
    ("unit_tests?workers=many", "workers is 'many'; wanted int"),
    ("unit_tests_share?seconds=0", "seconds=0"),
    ("graded", "wanted graded\\?pattern"),
    ("graded?right=format&pattern=x", "wanted graded\\?pattern"),
])  # fmt: skip
def test_bad_settings(spec: str, message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        shipped(spec)


def test_every_name_is_there() -> None:
    assert set(SHIPPED) == {
        "exact_match", "numeric_match", "format", "graded", "length_penalty", "overlong", "repetition_penalty",
        "math_match", "unit_tests", "unit_tests_share",
    }  # fmt: skip


def test_the_commands_of_the_page_name_every_reward_with_settings_it_takes() -> None:
    page = (Path(__file__).parents[2] / "docs" / "rewards.md").read_text(encoding="utf-8")
    section = page.partition("## Rewards that come with oneloop")[2].partition("### Mathematical")[0]
    blocks = [block.partition("```")[0] for block in section.split("```bash\n")[1:]]
    names = set()
    for line in "".join(blocks).splitlines():
        words = shlex.split(line)
        for spec in words[words.index("--reward") + 1 :]:
            if spec.startswith("--"):
                break
            made = shipped(spec)
            if isinstance(made, Grader):
                made.close()
            names.add(spec.partition("?")[0])
    assert names == set(SHIPPED)
    assert all(f"| `{name}` |" in section for name in SHIPPED)
