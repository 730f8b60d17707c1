"""The bill of episodes: rows as long as their budgets, slots that stay between turns, and a real run beside it."""

import json
from dataclasses import replace
from types import SimpleNamespace

import pytest
import torch

from oneloop.config import Run, default_run
from oneloop.errors import ConfigError
from oneloop.plan.bill import Lengths, bill, tokens_of_episodes
from oneloop.plan.plan import assumed_lengths, plan, text_of
from oneloop.plan.proposals import changes_of
from oneloop.plan.rehearsal import weightless
from oneloop.recipes.execute import execute
from oneloop.record.reader import read_run
from oneloop.rollout.turns import KeptTurns
from toy_models import Silent

ECHO = '''
from oneloop.environments import Step


class Echo:
    """Says forty letters, five times."""

    def reset(self, row):
        self.left = 5
        return [{"role": "user", "content": row["prompt"]}]

    def step(self, completion):
        self.left -= 1
        return Step(messages=[{"role": "user", "content": "a" * 40}], reward=1.0, terminated=not self.left)
'''


def run_of(**changes) -> Run:
    small = {
        "model": "scratch:tiny", "data": "task:guess", "environment": "guess", "prompts_per_step": 4, "group_size": 2,
        "max_new_tokens": 8, "max_turns": 5, "eval_size": 2, "steps": 1, "minibatch": 0, "learning_rate": 1e-3,
    }  # fmt: skip
    return replace(default_run("grpo"), **(small | changes))


def test_lengths_are_budgets() -> None:
    """Five turns of 8 are drawn; what is left of 100 tokens is the environment's."""
    lengths = assumed_lengths(run_of(max_episode_tokens=100), prompt=10)
    assert (lengths.prompt, lengths.answer, lengths.said, lengths.behind) == (10, 40, 50, 90)
    short = assumed_lengths(run_of(max_episode_tokens=30), prompt=10)
    assert (short.answer, short.said) == (20, 0), "no more turns than there is room for"
    open_ended = assumed_lengths(run_of(), prompt=10)
    assert (open_ended.answer, open_ended.said) == (40, 40) and "says as much as the model" in open_ended.source
    alone = assumed_lengths(replace(run_of(), environment="", data="task:addition", max_turns=8), prompt=10)
    assert (alone.answer, alone.said) == (8, 0)


def test_slots_have_room_for_whole_episodes() -> None:
    """2 · layers · kv heads · head width · 4 bytes for a token; 8 rows of 100 columns, without sharing."""
    run = run_of(max_episode_tokens=100)
    config = weightless("scratch:tiny").config
    kv = getattr(config, "num_key_value_heads", config.num_attention_heads)
    of_token = 2 * config.num_hidden_layers * kv * (config.hidden_size // config.num_attention_heads) * 4
    found = bill(run, Lengths(prompt=10, answer=40, said=50)).table["policy"]["KV cache"]
    assert found == of_token * 8 * 100
    longer = bill(replace(run, max_episode_tokens=400), Lengths(prompt=10, answer=40, said=350)).table["policy"]
    assert longer["KV cache"] == of_token * 8 * 400


def test_what_the_environment_says_is_read_in_passes_and_has_no_logprobs() -> None:
    run = run_of(max_episode_tokens=200, max_tokens=10_000)
    without, with_words = (bill(run, Lengths(prompt=10, answer=40, said=said)) for said in (0, 150))
    assert with_words.table["policy"]["activations"] > 1.5 * without.table["policy"]["activations"]
    assert with_words.table["policy"]["log-prob chunk"] == without.table["policy"]["log-prob chunk"]


def test_a_lower_budget_is_proposed() -> None:
    run = run_of(max_episode_tokens=200)
    flags = {change.flag for change in changes_of(run, assumed_lengths(run, prompt=10))}
    assert "--max-episode-tokens 105" in flags and not any(flag.startswith("--max-new-tokens") for flag in flags)


@pytest.mark.parametrize(("most", "proposed"), [(26, True), (25, False)])
def test_no_budget_is_proposed_in_which_no_turn_fits(most, proposed) -> None:
    """10 of the prompt and half of what is behind it: a turn has 8."""
    run = run_of(max_episode_tokens=most)
    flags = [change.flag for change in changes_of(run, assumed_lengths(run, prompt=10))]
    assert [flag for flag in flags if "episode" in flag] == (["--max-episode-tokens 18"] if proposed else [])


def test_it_is_said_whose_tokens_are_meant() -> None:
    run = run_of(max_episode_tokens=100)
    assert "rows of 10 + 40 + 50 of the environment tokens (given)" in text_of(run, plan(run, prompt=10))


def test_a_model_without_a_context_needs_a_budget() -> None:
    policy, endless = weightless("scratch:tiny"), torch.nn.Module()
    endless.config = SimpleNamespace()
    assert tokens_of_episodes(run_of(), policy) == policy.config.max_position_embeddings
    assert tokens_of_episodes(run_of(max_episode_tokens=70), endless) == 70
    with pytest.raises(ConfigError, match="Fix: --max-episode-tokens"):
        tokens_of_episodes(run_of(), endless)


def test_a_run_holds_what_is_billed(tmp_path, monkeypatch) -> None:
    """Slots, to the byte where an episode reaches its budget; and no row is longer than the longest that is assumed."""
    (tmp_path / "echo.py").write_text(ECHO)
    run = run_of(
        environment=f"{tmp_path / 'echo.py'}:Echo", max_episode_tokens=250, max_new_tokens=2, out=str(tmp_path / "out"),
        eval_size=1,
    )  # fmt: skip
    held, real = [0], KeptTurns.step

    def step(self):
        slots = self._decoding._slots
        tables = [table for layer in slots._keys for table in slots.tables(layer)]
        held.append(sum(table.untyped_storage().nbytes() for table in tables))
        return real(self)

    monkeypatch.setattr(KeptTurns, "step", step)
    torch.manual_seed(0)
    execute(run, Silent())
    lengths = assumed_lengths(run)
    billed = bill(run, lengths).table["policy"]["KV cache"]
    assert 0.4 * billed < max(held) <= billed
    for row in read_run(tmp_path / "out").rollouts(0):
        turns = [turn for turn in json.loads(row["turns"]) if turn["role"] == "assistant"]
        assert row["length"] <= lengths.answer and len(turns) <= run.max_turns
