"""Turns whose caches stay in their slots are those of reading everything again, and only what is new is read."""

from contextlib import nullcontext

import pytest
import torch
from test_continuous import CONFIGS, ENDS, TINY, UNUSUAL, make, prompt_of
from transformers import LlamaConfig

from oneloop.errors import ConfigError
from oneloop.experience.pack import Row, collate
from oneloop.model.learner import Learner, Optimization
from oneloop.rollout import decoding
from oneloop.rollout.engine import Engine
from oneloop.rollout.turns import Rounds
from oneloop.types import Sampling

PROMPTS = [prompt_of(length) for length in (5, 9, 30, 1, 9, 12, 70)] + [[7, 8, 9]] * 3
GIVEN = [prompt_of(length) for length in (4, 1, 40, 8, 0, 2, 9)]
SAMPLING = Sampling(max_new_tokens=12)


def said_to(row, turn):
    """What a row hears behind a turn; rows have one to four turns."""
    return None if turn > row % 4 else GIVEN[(row + turn) % len(GIVEN)]


def played(turns, wait=lambda row, turn: 0):
    """Every turn of each row; a row's answer comes `wait` steps late."""
    for row, prompt in enumerate(PROMPTS):
        turns.begin(row, prompt, row)
    done, late, clock = {row: [] for row in range(len(PROMPTS))}, [], 0
    while turns.running or late:
        clock += 1
        for row, completion in turns.step() if turns.running else []:
            done[row].append(completion)
            late.append((clock + wait(row, len(done[row])), row))
        for due in [item for item in late if item[0] <= clock]:
            late.remove(due)
            row, turn = due[1], len(done[due[1]])
            if (given := said_to(row, turn)) is None:
                turns.leave(row)
            else:
                turns.go_on(row, given, 100 * turn + row)
    return done


def again(engine):
    """The oracle: every turn drawn alone behind everything before it."""
    done = {}
    for row, prompt in enumerate(PROMPTS):
        ids, done[row] = list(prompt), []
        while True:
            turn = len(done[row])
            done[row] += engine.generate([ids], SAMPLING, [100 * turn + row if turn else row])
            ids += done[row][-1].tokens
            if (given := said_to(row, turn + 1)) is None:
                break
            ids += given
    return done


def same(ours, theirs):
    for row in theirs:
        assert [(turn.tokens, turn.stop) for turn in ours[row]] == [(turn.tokens, turn.stop) for turn in theirs[row]]
        for mine, other in zip(ours[row], theirs[row], strict=True):
            assert mine.logprobs == pytest.approx(other.logprobs, abs=1e-4)


@pytest.mark.parametrize("name", CONFIGS)
def test_every_architecture_goes_on_as_if_it_had_read_everything_again(name) -> None:
    engine = Engine(make(CONFIGS[name]), ENDS, max_rows=5)
    with engine.turns(SAMPLING, 200) as turns:
        ours = played(turns)
    same(ours, again(engine))


@pytest.mark.parametrize("rows", [1, 3, 50])
def test_any_number_of_slots_and_any_wait(rows) -> None:
    """Rows that wait keep their slots while others draw, come and go; what they draw does not depend on it."""
    model = make(TINY)
    wanted = again(Engine(model, ENDS))
    for wait in (lambda row, turn: 7 * row % 5, lambda row, turn: 20):
        engine = Engine(model, ENDS, max_rows=rows)
        with engine.turns(SAMPLING, 200) as turns:
            same(played(turns, wait), wanted)


def test_only_what_was_said_is_read() -> None:
    """Each distinct prompt once; then, for each turn but the first, what was said and the token before it, which was
    drawn and not read."""
    model = make(TINY)
    engine, seen = Engine(model, ENDS), []
    model.get_input_embeddings().register_forward_hook(lambda module, args, out: seen.append(tuple(args[0].shape)))
    with engine.turns(SAMPLING, 200) as turns:
        done = played(turns)
        assert turns.patience == 8
        spoken = [said_to(row, turn) for row in done for turn in range(1, len(done[row]))]
        prompts = sum(map(len, {tuple(prompt) for prompt in PROMPTS}))
        assert turns.read == prompts + sum(len(given) + 1 for given in spoken)
    with nullcontext(Rounds(engine.generate, SAMPLING)) as rounds:
        same(done, played(rounds))
        assert rounds.read > 2 * turns.read
        assert rounds.patience == 0


def test_long_answers_are_read_in_several_passes(monkeypatch) -> None:
    model = make(TINY)
    wanted = again(Engine(model, ENDS))
    monkeypatch.setattr(decoding, "PREFILL_TOKENS", 20)
    with Engine(model, ENDS).turns(SAMPLING, 200) as turns:
        same(played(turns), wanted)


@pytest.mark.parametrize("name", UNUSUAL)
def test_unusual_attention_plays_by_rounds_or_right(name) -> None:
    engine = Engine(make(UNUSUAL[name]), ENDS)
    with engine.turns(SAMPLING, 200) as turns:
        ours = played(turns)
    same(ours, again(engine))


def test_rollout_log_probs_are_the_trainers() -> None:
    model = make(CONFIGS["llama"])
    with Engine(model, ENDS).turns(SAMPLING, 200) as turns:
        done = played(turns)
    rows = []
    for row, prompt in enumerate(PROMPTS):
        ids, flags, logprobs = [], [], []
        for turn, completion in enumerate(done[row]):
            given = said_to(row, turn) if turn else []
            ids += [*given, *completion.tokens]
            flags += [False] * len(given) + [True] * len(completion.tokens)
            logprobs += [0.0] * len(given) + list(completion.logprobs)
        rows.append(Row(prompt=prompt, actions=ids, group=row, reward=0.0, logprobs=logprobs, chosen=flags))
    batch = collate(rows)
    learner = Learner(model, optimization=Optimization(learning_rate=1.0, critic_learning_rate=1.0, total_updates=1))
    with torch.no_grad():
        gap = (learner.policy(batch).logprobs - batch.rollout_logprobs)[batch.mask].abs().max()
    assert gap < 1e-4 and int(batch.mask.sum()) == sum(len(c.tokens) for turns in done.values() for c in turns)


def test_a_prompt_without_room_is_refused() -> None:
    config = LlamaConfig(**TINY.to_diff_dict() | {"max_position_embeddings": 20})
    with (
        Engine(make(config), ENDS).turns(SAMPLING, 20) as turns,
        pytest.raises(ConfigError, match="exceed the model's"),
    ):
        turns.begin(0, [5] * 9, 0)
