"""What becomes of whatever a reward function returns or does: docs/rewards.md has the table, and it is run here."""

import re
from pathlib import Path

import pytest
from test_rewards_score import trajectories

from oneloop.errors import RewardError
from oneloop.rewards import Limits, NamedReward, Pool, RewardScorer, load_reward

PAGE = (Path(__file__).parents[2] / "docs" / "rewards.md").read_text(encoding="utf-8")
ITEMS = trajectories("ab", "c")


def rows(head: str) -> list[tuple[str, str, str]]:
    """Code, rewards and message of each line under a table's head."""
    table = PAGE.split(f"| {head} | rewards | said |\n|---|---|---|\n")[1].split("\n\n")[0]
    cells = [[cell.strip() for cell in line.strip("|").split(" | ")] for line in table.splitlines()]
    return [(re.match(r"`(.*)`", code)[1], rewards, said.strip(" |")) for code, rewards, said in cells]


RETURNED, DONE = rows("the function returns"), rows("the function does")
CALM = [row for row in DONE if "its process" not in row[2] and "not done" not in row[2]]
VIOLENT = [row for row in DONE if row not in CALM]


@pytest.fixture(scope="module")
def file(tmp_path_factory) -> Path:
    """A function for each row."""
    head = "import os, signal, sys, time\nimport numpy\nasync def later(value): return value\n"
    returning = [
        f"def returns_{number}(completions):\n"
        + ("    import torch\n" if "torch" in code else "")
        + f"    return {code}\n"
        for number, (code, _, _) in enumerate(RETURNED)
    ]
    doing = [f"def does_{number}(completions):\n    {code}\n" for number, (code, _, _) in enumerate(DONE)]
    every = "def every(completions, name):\n    return globals()[name[0]](completions)\n"
    path = tmp_path_factory.mktemp("rewards") / "returns.py"
    path.write_text("".join([head, *returning, *doing, every]))
    return path


def outcome(items, name: str) -> list[str]:
    """Of each completion: its value, "none" or "error"."""
    return [
        "error" if item.reward.failures else "none" if item.reward.value is None else str(item.reward.parts[name])
        for item in items
    ]


def test_the_tables_hold_what_they_should() -> None:
    assert len(RETURNED) >= 28 and len(CALM) >= 6 and len(VIOLENT) >= 4
    assert {said for _, rewards, said in RETURNED + DONE if "error" in rewards} & {""} == set()


@pytest.mark.parametrize(("code", "rewards", "said"), RETURNED + CALM, ids=[row[0] for row in RETURNED + CALM])
def test_in_this_process(file: Path, code: str, rewards: str, said: str) -> None:
    table, word = (RETURNED, "returns") if (code, rewards, said) in RETURNED else (DONE, "does")
    reward = load_reward(f"{file}:{word}_{table.index((code, rewards, said))}")
    if "KeyboardInterrupt" in code:  # the user's own, here
        with pytest.raises(KeyboardInterrupt):
            RewardScorer((reward,), "unscored")(ITEMS)
        return
    items = RewardScorer((reward,), "unscored")(ITEMS)
    assert ", ".join(outcome(items, reward.name)) == rewards
    failures = {text for item in items for text in item.reward.failures.values()}
    assert all(said in text for text in failures)
    if "error" in rewards:
        with pytest.raises(RewardError, match=re.escape(said)):
            RewardScorer((reward,))(ITEMS)


@pytest.fixture(scope="module")
def pool(file: Path):
    pool = Pool(f"{file}:every", Limits(timeout=30))
    yield pool
    pool.close()


IN_A_WORKER = [
    (f"{word}_{number}", *row)
    for word, table in (("returns", RETURNED), ("does", DONE))
    for number, row in enumerate(table)
    if "torch" not in row[0] and row not in VIOLENT  # torch takes seconds to load there, and the code is the same
]


@pytest.mark.parametrize(("name", "code", "rewards", "said"), IN_A_WORKER, ids=[row[1] for row in IN_A_WORKER])
def test_in_a_worker(pool: Pool, name: str, code: str, rewards: str, said: str) -> None:
    items = RewardScorer((NamedReward("every", pool),), "unscored")(trajectories("ab", "c", name=[name] * 2))
    assert ", ".join(outcome(items, "every")) == rewards
    assert all(said in text for item in items for text in item.reward.failures.values())


@pytest.mark.parametrize(("code", "rewards", "said"), VIOLENT, ids=[row[0] for row in VIOLENT])
def test_what_only_a_worker_survives(file: Path, code: str, rewards: str, said: str) -> None:
    pool = Pool(f"{file}:every", Limits(timeout=30 if "process" in said else 0.3))
    try:
        name = f"does_{DONE.index((code, rewards, said))}"
        items = RewardScorer((NamedReward("every", pool),), "unscored")(trajectories("ab", "c", name=[name] * 2))
        assert ", ".join(outcome(items, "every")) == rewards
        assert all(said in text for item in items for text in item.reward.failures.values())
    finally:
        pool.close()
