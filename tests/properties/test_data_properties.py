"""What must hold of rows, records, texts, rewards and settings on their way in and out."""

import tomllib
from collections import Counter
from dataclasses import fields, replace
from fractions import Fraction
from functools import cache
from string import printable

import numpy
import pytest
import torch
from drawn import few, seeds
from hypothesis import HealthCheck, assume, given, settings
from hypothesis import strategies as st

from chat_models import STYLES, chat_tokenizer
from oneloop.config import Run
from oneloop.errors import ConfigError, OneloopError
from oneloop.experience.pack import Row, action_means, collate
from oneloop.experience.stream import Stream
from oneloop.lab.downsample import kept
from oneloop.model.chat import turn_end
from oneloop.model.learner import Optimization
from oneloop.model.text import Text
from oneloop.model.tiny import character_tokenizer
from oneloop.objective.select import MixedOutcome
from oneloop.record.lines import Lines, Read
from oneloop.record.statistics import mean_interval, share_or_mean, wilson
from oneloop.rewards.final_answer import as_latex, final_answer
from oneloop.rewards.functions import exact_match, numeric_match
from oneloop.rollout.sampler import distribution, draw, uniform
from oneloop.seeds import named_seed
from oneloop.toml import from_table
from oneloop.types import Sampling

in_a_folder = settings(max_examples=20, suppress_health_check=[HealthCheck.function_scoped_fixture])
words = st.text(printable, max_size=20)
values = st.one_of(st.none(), st.integers(-(2**53), 2**53), st.floats(allow_nan=False, allow_infinity=False), st.text())
records = st.lists(st.dictionaries(st.text(max_size=5), values, max_size=4), max_size=5)


# ---- rows and their order


ids = st.lists(st.integers(0, 50), min_size=1, max_size=6)
answers = st.lists(st.tuples(ids, ids, st.integers(-3, 3), st.booleans()), min_size=1, max_size=5)


def rows_of(drawn) -> list[Row]:
    """Prompt, actions, reward, and whether it is trained; each log-prob is the action's number below 0."""
    return [
        Row(prompt=p, actions=a, group=g, reward=float(r), logprobs=[-float(one) for one in a], trained=t)
        for g, (p, a, r, t) in enumerate(drawn)
    ]


@few
@given(answers)
def test_rows_come_out_of_a_batch_as_they_went_in(drawn):
    rows = rows_of(drawn)
    batch = collate(rows)
    for i, row in enumerate(rows):
        length, start = len(row.prompt) + len(row.actions), len(row.prompt)
        assert int(batch.lengths[i]) == length
        assert batch.tokens[i, :length].tolist() == [*row.prompt, *row.actions]
        assert batch.mask[i].tolist() == [row.trained and start <= t < length for t in range(batch.mask.shape[1])]
        assert batch.rollout_logprobs[i, start:length].tolist() == list(row.logprobs)
        assert float(batch.rewards[i].sum()) == row.reward == float(batch.rewards[i, length - 1])


@few
@given(answers)
def test_means_are_over_actions(drawn):
    rows = rows_of(drawn)
    batch = collate(rows)
    for mean, row in zip(action_means(batch.tokens.float(), batch), rows, strict=True):
        assert (mean is None) == (not row.trained)
        assert mean is None or mean == pytest.approx(sum(row.actions) / len(row.actions), rel=1e-6)


@few
@given(st.integers(1, 20), st.lists(st.integers(1, 7), min_size=1, max_size=9), seeds)
def test_every_row_once_an_epoch(size, counts, seed):
    stream = Stream(range(size), seed)
    taken = [item for count in counts for item in stream.take(count)]
    for epoch in range(0, len(taken), size):
        part = taken[epoch : epoch + size]
        assert set(Counter(part).values()) == {1} and set(part) <= set(range(size))


@few
@given(st.integers(1, 20), st.integers(0, 50), st.integers(1, 9), seeds)
def test_a_stream_goes_on_from_one_number(size, drawn, count, seed):
    whole, resumed = Stream(range(size), seed), Stream(range(size), seed)
    whole.take(drawn)
    resumed.drawn = drawn
    assert resumed.at(drawn, count) == whole.take(count) == resumed.take(count)


@few
@given(st.lists(st.tuples(st.integers(0, 9), st.text(max_size=4)), min_size=2, max_size=9, unique=True))
def test_other_names_have_other_seeds(names):
    found = [named_seed(*name) for name in names]
    assert len(set(found)) == len(names) and all(0 <= seed < 2**63 for seed in found)
    assert named_seed("a", "bc") != named_seed("ab", "c") and named_seed(1) != named_seed("1")


# ---- drawing


LOGITS = seeds.map(lambda seed: torch.randn(4, 9, generator=torch.Generator().manual_seed(seed)) * 2)
CUTS = st.builds(Sampling, top_k=st.integers(0, 9), top_p=st.sampled_from([0.1, 0.5, 0.9, 1.0]))


@few
@given(st.lists(seeds, min_size=2, max_size=6), st.integers(0, 500))
def test_a_draw_depends_on_its_own_seed_and_place(names, place):
    every = uniform(torch.tensor(names), place)
    assert bool(((every >= 0) & (every < 1)).all())
    assert every.tolist() == [float(uniform(torch.tensor([name]), place)) for name in names]


@few
@given(LOGITS, CUTS, seeds)
def test_what_is_drawn_is_in_the_support_and_has_its_probability(logits, sampling, seed):
    tokens, logprobs = draw(logits, sampling, torch.arange(4) + seed, 3)
    table = distribution(logits, sampling)
    assert bool((table.gather(1, tokens[:, None]) > -torch.inf).all())
    torch.testing.assert_close(logprobs, table.gather(1, tokens[:, None])[:, 0], rtol=1e-5, atol=1e-5)
    torch.testing.assert_close(table.exp().sum(1), torch.ones(4))


@few
@given(LOGITS, CUTS)
def test_the_support_is_the_smallest_that_reaches_its_share(logits, sampling):
    whole, cut = torch.softmax(logits, -1), distribution(logits, sampling) > -torch.inf
    for row, inside in zip(whole, cut, strict=True):
        assert float(row[inside].min()) >= float(row[~inside].max() if not inside.all() else 0)
        assert not sampling.top_k or int(inside.sum()) <= sampling.top_k
        assert inside[row.argmax()]
        if not sampling.top_k:
            reached = float(row[inside].sum())
            assert reached >= sampling.top_p - 1e-6 > reached - float(row[inside].min()) - 2e-6


# ---- text


@cache
def text() -> Text:
    tokenizer = character_tokenizer()
    return Text(tokenizer, (tokenizer.eos_token_id,))


@few
@given(words)
def test_a_text_comes_back_from_its_ids(said):
    ids = text().completion(said)
    assert len(ids) == len(said) + 1 and ids[-1] in text().end_ids
    assert text().decode(ids) == said == text().decode(ids[:-1])


@few
@given(words, words)
def test_a_demonstration_trains_its_completion_and_no_more(prompt, completion):
    (row,) = text().demonstrations({"prompt": prompt, "completion": completion})
    trained = [one for one, wanted in zip(row.ids, row.trained, strict=True) if wanted]
    assert text().decode(trained) == completion and text().decode(row.ids) == prompt + completion


@cache
def chat(name: str) -> Text:
    tokenizer = chat_tokenizer(name)
    return Text(tokenizer, tuple(dict.fromkeys([tokenizer.eos_token_id, *turn_end(tokenizer)[-1:]])))


said = st.text("abc 12.", min_size=1, max_size=8).map(str.strip).filter(bool)


@few
@given(st.sampled_from(sorted(STYLES)), st.lists(said, min_size=2, max_size=6))
def test_a_chat_trains_the_assistants_words_and_no_others(name, turns):
    turns = turns[: len(turns) // 2 * 2]
    roles = ["user", "assistant"] * (len(turns) // 2)
    messages = [{"role": role, "content": words} for role, words in zip(roles, turns, strict=True)]
    rows, model = chat(name).demonstrations({"messages": messages}), chat(name)
    heard = ""
    for row in rows:
        heard += "".join(
            model.tokenizer.decode([one]) if wanted else "\n" for one, wanted in zip(row.ids, row.trained, strict=True)
        )
    kept_words = [part.replace(STYLES[name].turn_end, "") for part in heard.split("\n") if part]
    kept_words = [part for part in kept_words if part not in ("<think>", "</think>")]
    assert kept_words == turns[1::2]


@few
@given(st.sampled_from(sorted(STYLES)), said, said)
def test_a_turn_is_trained_as_it_would_be_sampled(name, asked, answer):
    messages = [{"role": "user", "content": asked}, {"role": "assistant", "content": answer}]
    ids, _ = chat(name).prompt(messages[:1])
    start, turn = chat(name).chat.turn(messages)
    assert start == ids and turn[-1] in chat(name).end_ids
    assert chat(name).tokenizer.decode(list(turn), skip_special_tokens=True).endswith(answer)


# ---- the record


@in_a_folder
@given(records)
def test_lines_come_back(tmp_path, rows):
    (tmp_path / "lines").unlink(missing_ok=True)
    lines = Lines(tmp_path / "lines")
    for row in rows:
        lines.append(row)
    lines.close()
    assert list(Read(tmp_path / "lines")) == rows


@in_a_folder
@given(records, st.data())
def test_a_file_cut_anywhere_is_a_beginning_of_it(tmp_path, rows, data):
    path = tmp_path / "lines"
    path.unlink(missing_ok=True)
    lines = Lines(path)
    for row in rows:
        lines.append(row)
    lines.close()
    whole = path.read_bytes()
    cut = data.draw(st.integers(0, len(whole)))
    path.write_bytes(whole[:cut])
    kept_rows = whole[:cut].count(b"\n")
    assert list(Read(path)) == rows[:kept_rows]
    again = Lines(path)  # and what is written next is a line of its own
    again.append({"step": 1})
    again.close()
    assert list(Read(path)) == [*rows[:kept_rows], {"step": 1}]


@in_a_folder
@given(records, st.binary(max_size=12).filter(lambda tail: b"\n" not in tail))
def test_half_a_line_is_no_line(tmp_path, rows, tail):
    path = tmp_path / "lines"
    path.unlink(missing_ok=True)
    lines = Lines(path)
    for row in rows:
        lines.append(row)
    lines.close()
    path.write_bytes(path.read_bytes() + tail)
    assert list(Read(path)) == rows


@few
@given(st.lists(st.floats(-1e6, 1e6), min_size=1, max_size=200), st.integers(4, 40))
def test_fewer_points_keep_every_extreme(numbers, points):
    places = kept(numpy.array(numbers), points)
    assert len(places) <= max(points, 4) and list(places) == sorted(set(places))
    chosen = [numbers[place] for place in places]
    assert (min(chosen), max(chosen)) == (min(numbers), max(numbers))
    assert places[0] == 0 and places[-1] == len(numbers) - 1


@few
@given(st.integers(1, 200), st.data())
def test_an_interval_holds_its_share(trials, data):
    successes = data.draw(st.integers(0, trials))
    low, high = wilson(successes, trials)
    assert -1e-12 <= low <= successes / trials + 1e-12 and successes / trials - 1e-12 <= high <= 1 + 1e-12
    wider = wilson(successes, trials)
    assert wilson(4 * successes, 4 * trials).high - wilson(4 * successes, 4 * trials).low < wider.high - wider.low


@few
@given(st.lists(st.integers(-40, 40).map(lambda n: n / 8), min_size=2, max_size=12), st.integers(-5, 5))
def test_an_interval_moves_with_its_numbers(numbers, shift):
    low, high = mean_interval(numbers)
    mean = sum(numbers) / len(numbers)
    assert low <= mean + 1e-9 and mean - 1e-9 <= high
    moved = mean_interval([number + shift for number in numbers])
    assert (moved.low, moved.high) == pytest.approx((low + shift, high + shift), abs=1e-9)
    whole = share_or_mean([float(number > 0) for number in numbers], range(len(numbers)))
    assert 0 <= whole.low <= whole.high <= 1


# ---- answers


@few
@given(st.fractions(min_value=-1000, max_value=1000, max_denominator=50), st.text("abc =:\n", max_size=10))
def test_a_number_is_found_in_any_words(value, around):
    forms = [str(value), *([f"{value.numerator:,}", f"{value.numerator}.0"] if value.denominator == 1 else [])]
    for form in forms:
        assert numeric_match([f"{around} {form}"], [str(value)]) == [1.0]
        assert numeric_match([f"{around} {form}"], [str(value + Fraction(1, 7))]) == [0.0]


@few
@given(st.text(max_size=60), st.text(max_size=20))
def test_no_text_breaks_a_reader_of_answers(completion, answer):
    assert numeric_match([completion], [answer])[0] in (None, 0.0, 1.0)
    assert exact_match([completion], [answer]) == [float(completion.strip() == answer.strip())]
    found = final_answer(completion)
    assert isinstance(found, str) and len(found) <= len(completion)
    assert isinstance(as_latex(found), str | None)


@few
@given(st.text("0123456789+-*/^{}x ", min_size=1, max_size=12), st.text("abc .", max_size=20))
def test_what_stands_in_a_box_is_the_answer(answer, around):
    depths = [answer[:place].count("{") - answer[:place].count("}") for place in range(len(answer) + 1)]
    assume(depths[-1] == 0 and min(depths) == 0 and answer.strip(" *"))
    assert final_answer(rf"{around} \boxed{{{answer}}} {around}") == answer.strip().strip("*").strip()


@few
@given(st.lists(st.one_of(st.none(), st.sampled_from([0.0, 1.0, float("nan")])), max_size=6))
def test_a_reward_that_is_no_number_mixes_no_group(rewards):
    finite = [reward for reward in rewards if reward in (0.0, 1.0)]
    assert MixedOutcome()(rewards) == MixedOutcome()(finite)


# ---- settings

CHANGES = st.fixed_dictionaries(
    {},
    optional={
        "steps": st.integers(1, 10**6),
        "learning_rate": st.floats(1e-9, 1.0),
        "temperature": st.floats(0.01, 5.0),
        "model": st.text(printable, min_size=1).filter(lambda name: not name.startswith("scratch:")),
        "out": st.text(min_size=1, max_size=30),
        "reward": st.lists(st.text(max_size=10), max_size=3).map(tuple),
        "reward_weights": st.lists(st.floats(-10, 10), max_size=3).map(tuple),
        "schedule": st.sampled_from(["constant", "linear", "cosine"]),
        "trace": st.booleans(),
        "seed": st.integers(0, 2**62),
        "set": st.lists(st.text(max_size=10), max_size=2).map(tuple),
    },
)


@few
@given(CHANGES)
def test_a_run_comes_back_from_its_file(changes):
    run = replace(Run(), **changes)
    assert Run(**from_table(tomllib.loads(run.to_toml()), "config.toml")) == run


@few
@given(st.sampled_from([field.name for field in fields(Run)]), st.integers(0, 20), st.sampled_from("xyz_"))
def test_a_misspelt_setting_is_refused_by_name(name, place, letter):
    wrong = name[: place % len(name)] + letter + name[place % len(name) :]
    assume(wrong not in {field.name for field in fields(Run)})
    with pytest.raises(ConfigError) as told:
        from_table({wrong: 1}, "recipe.toml")
    assert repr(wrong) in str(told.value) and "recipe.toml" in str(told.value)


@few
@given(
    st.sampled_from([field.name for field in fields(Run)]),
    st.one_of(st.integers(-5, 5), st.floats(-2, 2), st.text(max_size=3), st.booleans(), st.lists(st.integers(0, 3))),
)
def test_a_setting_is_taken_as_it_is_or_refused(name, value):
    """Never turned into something else: `true` is no 1, and "3" no 3."""
    try:
        taken = from_table({name: value}, "recipe.toml")[name]
    except OneloopError:
        return
    assert taken == (tuple(value) if isinstance(value, list) else (value,) if isinstance(taken, tuple) else value)
    kinds = (tuple,) if isinstance(taken, tuple) else (type(value), float) if type(value) is int else (type(value),)
    assert type(taken) in kinds


@few
@given(st.integers(0, 20), st.integers(1, 60), st.sampled_from(["constant", "linear", "cosine"]))
def test_a_learning_rate_rises_to_its_peak_and_never_again(warmup, total, schedule):
    plan = Optimization(
        learning_rate=1.0, critic_learning_rate=1.0, total_updates=warmup + total, warmup_updates=warmup,
        schedule=schedule,
    )  # fmt: skip
    factors = [plan.factor(update) for update in range(warmup + total + 3)]
    assert factors[:warmup] == sorted(factors[:warmup]) and all(0 < factor < 1 for factor in factors[:warmup])
    assert factors[warmup] == 1 and factors[warmup:] == sorted(factors[warmup:], reverse=True)
    assert min(factors) >= 0
