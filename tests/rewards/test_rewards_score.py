"""The contract of a reward function: what it is given, what it may return, and that no failure becomes a number."""

import asyncio
import threading
from collections.abc import Callable, Mapping
from decimal import Decimal
from fractions import Fraction
from typing import Any

import numpy as np
import pytest

from oneloop.errors import ConfigError, RewardError
from oneloop.rewards import FormatReward, NamedReward, RewardScorer, exact_match
from oneloop.types import Completion, Prompt, Reward, StopReason, Trajectory


def trajectory(text: str, place: int = 0, columns: Mapping[str, Any] | None = None) -> Trajectory:
    tokens = tuple(ord(character) for character in text)
    return Trajectory(
        prompt=Prompt(id=str(place), text=f"ask {place}", tokens=(7, place), columns=columns or {}),
        group=0,
        sample=place,
        completion=Completion(tokens=tokens, logprobs=(-0.5,) * len(tokens), stop=StopReason.EOS),
        text=text,
        reward=Reward(value=None),
    )


def trajectories(*texts: str, **columns: Any) -> list[Trajectory]:
    return [
        trajectory(text, place, {name: values[place] for name, values in columns.items()})
        for place, text in enumerate(texts)
    ]


def scored(function: Callable[..., Any], items: list[Trajectory] | None = None) -> list[float | None]:
    items = trajectories("ab", "c") if items is None else items
    return [item.reward.value for item in RewardScorer((NamedReward("mine", function),))(items)]


# what a function is given


def test_one_call_with_every_column_in_order() -> None:
    calls = []

    def reward(completions, trainer_state, log_metric, log_extra, **columns):
        calls.append({"completions": completions, **columns})
        return [0.0, 1.0]

    items = [trajectory("ab", 0, {"answer": 3, "prompt": "raw"}), trajectory("", 1, {"level": "hard"})]
    result = RewardScorer((NamedReward("mine", reward),))(items)
    assert calls == [{
        "completions": ["ab", ""], "prompts": ["ask 0", "ask 1"], "completion_ids": [[97, 98], []],
        "episode_ids": [[97, 98], []],
        "prompt_ids": [[7, 0], [7, 1]], "answer": [3, None], "level": [None, "hard"],
    }]  # fmt: skip
    assert [item.reward for item in result] == [
        Reward(value=0.0, parts={"mine": 0.0}),
        Reward(value=1.0, parts={"mine": 1.0}),
    ]
    assert [(item.text, item.prompt, item.sample) for item in result] == [(i.text, i.prompt, i.sample) for i in items]
    assert items[0].reward.value is None, "the input stays as it was"


SIGNATURES = [
    lambda completions: [len(completions)] * 2,
    lambda completions, answer: [float(value) for value in answer],
    lambda answer, *, completions: [float(value) for value in answer],
    lambda prompts, completion_ids: [1.0, 2.0],
    lambda completions, missing=5: [missing, missing],
    lambda **everything: [1.0] * len(everything["completions"]),
    lambda completions, *args: [1.0, 2.0],
    FormatReward("ab"),
]


@pytest.mark.parametrize("function", SIGNATURES)
def test_a_function_gets_only_what_it_names(function: Callable[..., Any]) -> None:
    assert all(isinstance(value, float) for value in scored(function, trajectories("ab", "c", answer=[1, 2])))


def test_a_data_column_cannot_shadow_the_completions() -> None:
    items = trajectories("right", "right", completions=["planted", "planted"], prompts=["x", "x"])
    assert scored(lambda completions, prompts: [completions[0] == "right", prompts[1] == "ask 1"], items) == [1.0, 1.0]


def test_a_column_that_is_wanted_and_missing_is_named() -> None:
    with pytest.raises(RewardError, match=r"reward mine wants 'solution', but the data has the columns \['answer'\]"):
        scored(lambda completions, solution: [1.0, 1.0], trajectories("ab", "c", answer=[1, 2]))


def test_one_function_cannot_spoil_the_lists_of_the_next() -> None:
    def greedy(completions, answer):
        answer.clear()
        completions[:] = ["planted"] * 2
        return [0.0, 0.0]

    items = trajectories("1", "2", answer=["1", "3"])
    result = RewardScorer((NamedReward("greedy", greedy), NamedReward("exact", exact_match)))(items)
    assert [item.reward.parts["exact"] for item in result] == [1.0, 0.0]


def test_nothing_to_score_calls_nothing() -> None:
    assert scored(lambda completions: pytest.fail("called"), []) == []


# what it may return


class Number:
    def __float__(self) -> float:
        return 0.25


class Unreadable:
    def __float__(self) -> float:
        raise RuntimeError("no")

    def __repr__(self) -> str:
        raise RuntimeError("no")


GOOD_RETURNS = [
    ([1, 0.5], [1.0, 0.5]),
    ((True, False), [1.0, 0.0]),
    ([None, -2.0], [None, -2.0]),
    ([None, None], [None, None]),
    (np.array([1.0, 2.0]), [1.0, 2.0]),
    (np.array([1, 2], dtype=np.int8), [1.0, 2.0]),
    ([np.float16(0.5), np.bool_(True)], [0.5, 1.0]),
    ([np.array(3.0), np.int64(2)], [3.0, 2.0]),
    ([Decimal("0.5"), Fraction(1, 4)], [0.5, 0.25]),
    ([Number(), 0], [0.25, 0.0]),
    (range(2), [0.0, 1.0]),
]


@pytest.mark.parametrize(("returned", "values"), GOOD_RETURNS, ids=lambda value: repr(value)[:40])
def test_numbers_and_none_are_taken(returned: Any, values: list[float | None]) -> None:
    result = scored(lambda completions: returned)
    assert result == values
    assert all(value is None or type(value) is float for value in result)


LIST = "wanted list[float | None], one per completion"
COUNT = "wanted one per completion"
VALUE = "at index 1; wanted a finite number, or None"
BAD_RETURNS = [
    (None, "returned None of type NoneType; " + LIST),
    (1.0, "returned 1.0 of type float; " + LIST),
    (np.float32(1), "of type float32; " + LIST),
    (np.array(1.0), "of type ndarray; " + LIST),
    ("ab", "returned 'ab' of type str; " + LIST),
    (b"ab", "of type bytes; " + LIST),
    (bytearray(b"ab"), "of type bytearray; " + LIST),
    ({"score": 1.0, "format": 0.0}, "of type dict; " + LIST),
    ({0.0, 1.0}, "of type set; " + LIST),
    ((value for value in (1.0, 2.0)), "of type generator; " + LIST),
    (Unreadable(), "returned something without a repr of type Unreadable; " + LIST),
    ([], "returned 0 values for 2 completions; " + COUNT),
    ([1.0], "returned 1 values for 2 completions; " + COUNT),
    ([1.0, 1.0, 1.0], "returned 3 values for 2 completions; " + COUNT),
    (np.ones((1, 2)), "returned 1 values for 2 completions; " + COUNT),
    ([1.0, float("nan")], "returned nan of type float " + VALUE),
    ([1.0, float("inf")], "returned inf of type float " + VALUE),
    ([1.0, float("-inf")], "returned -inf of type float " + VALUE),
    ([1.0, np.float16("nan")], "of type float16 " + VALUE),
    ([1.0, 10**400], "of type int " + VALUE),
    ([1.0, Decimal("1e400")], "of type Decimal " + VALUE),
    ([1.0, "1.0"], "returned '1.0' of type str " + VALUE),
    ([1.0, np.str_("1.0")], "of type str_ " + VALUE),
    ([1.0, b"1"], "of type bytes " + VALUE),
    ([1.0, bytearray(b"1")], "of type bytearray " + VALUE),
    ([1.0, 1j], "returned 1j of type complex " + VALUE),
    ([1.0, np.complex64(1)], "of type complex64 " + VALUE),
    ([1.0, [1.0]], "returned [1.0] of type list " + VALUE),
    ([1.0, {"score": 1.0}], "of type dict " + VALUE),
    ([1.0, np.ones(1)], "of type ndarray " + VALUE),
    ([1.0, lambda: 1.0], "of type function " + VALUE),
    ([1.0, Unreadable()], "returned something without a repr of type Unreadable " + VALUE),
    ([1.0, "x" * 5000], "of type str " + VALUE),
]


@pytest.mark.parametrize(("returned", "said"), BAD_RETURNS, ids=[row[1][:50] for row in BAD_RETURNS])
def test_anything_else_is_an_error_and_never_a_number(returned: Any, said: str) -> None:
    with pytest.raises(RewardError) as caught:
        scored(lambda completions: returned)
    assert str(caught.value).startswith("reward mine returned ")
    assert said in str(caught.value)
    assert len(str(caught.value)) < 300
    assert caught.value.exit_code == 1


@pytest.mark.filterwarnings("ignore:Casting complex values")
def test_half_of_a_complex_number_is_no_reward() -> None:
    with pytest.raises(RewardError, match="of type complex64"):
        scored(lambda completions: [1.0, np.complex64(1 + 1j)])


def test_one_value_is_not_broadcast_over_one_completion_too_many() -> None:
    assert scored(lambda completions: [0.5], trajectories("a")) == [0.5]
    with pytest.raises(RewardError, match="1 values for 2 completions"):
        scored(lambda completions: [0.5])


# a function that fails


class Stop(BaseException):
    pass


RAISED = [
    (ValueError, "odd"), (KeyError, "k"), (AssertionError, ""), (SystemExit, 3), (Stop, "now"),
    (asyncio.CancelledError, ""), (GeneratorExit, ""), (StopIteration, ""),
]  # fmt: skip
# coroutines give GeneratorExit and StopIteration a meaning of their own
WHEN = [(*row, late) for row in RAISED for late in (False, True) if not (late and row in RAISED[-2:])]


@pytest.mark.parametrize(("kind", "text", "late"), WHEN)
def test_whatever_is_raised_names_reward_error_and_line(kind: type[BaseException], text: Any, late: bool) -> None:
    error = kind(text)

    def reward(completions):
        raise error

    async def async_reward(completions):
        await asyncio.sleep(0)
        raise error

    function = async_reward if late else reward
    line = function.__code__.co_firstlineno + (2 if late else 1)
    with pytest.raises(RewardError) as caught:
        scored(function)
    message = str(caught.value)
    assert message.startswith(f"reward mine raised {kind.__name__}")
    assert f"at {__file__}:{line}" in message
    assert str(error) in message
    assert isinstance(caught.value.__cause__, kind)


def test_the_line_is_the_users_even_where_a_library_raised() -> None:
    def reward(completions):
        return [float(Fraction(text)) for text in completions]

    with pytest.raises(RewardError, match=rf"{__file__}:{reward.__code__.co_firstlineno + 1}$"):
        scored(reward)


def test_endless_recursion_is_an_error_too() -> None:
    def reward(completions):
        return reward(completions)

    with pytest.raises(RewardError, match="RecursionError"):
        scored(reward)


def test_ctrl_c_is_the_users() -> None:
    def reward(completions):
        raise KeyboardInterrupt

    async def async_reward(completions):
        raise KeyboardInterrupt

    for function in (reward, async_reward):
        with pytest.raises(KeyboardInterrupt):
            scored(function)


# async functions


async def slow(completions, **columns):
    await asyncio.sleep(0)
    return [float(len(text)) for text in completions]


class SlowObject:
    async def __call__(self, completions):
        return await slow(completions)


@pytest.mark.parametrize("function", [slow, SlowObject(), lambda completions: slow(completions)])
def test_async_functions_are_awaited(function: Callable[..., Any]) -> None:
    assert scored(function) == [2.0, 1.0]


def test_async_functions_run_in_the_callers_thread_where_they_can() -> None:
    """Ctrl-C reaches them there."""
    seen = []

    async def reward(completions):
        seen.append(threading.current_thread())
        return [0.0, 0.0]

    scored(reward)
    assert seen == [threading.current_thread()]


def test_async_functions_are_awaited_where_a_loop_is_already_running() -> None:
    async def notebook():
        return scored(slow), scored(slow)

    assert asyncio.run(notebook()) == ([2.0, 1.0], [2.0, 1.0])


def test_an_async_failure_where_a_loop_is_already_running() -> None:
    async def broken(completions):
        raise SystemExit(3)

    async def notebook():
        return scored(broken)

    with pytest.raises(RewardError, match="raised SystemExit: 3 at"):
        asyncio.run(notebook())


# the sum


def scorer(*rewards: tuple[float, list[float | None]]) -> RewardScorer:
    return RewardScorer(tuple(
        NamedReward(f"r{number}", lambda completions, values=values: values, weight)
        for number, (weight, values) in enumerate(rewards)
    ))  # fmt: skip


def test_the_value_is_the_weighted_sum_of_the_parts_that_are_there() -> None:
    # 2·1 + 0.5·(−4) = 0;  2·3 = 6, the other is None;  both None: not scored;  2·0 = 0 is a score
    result = scorer((2.0, [1.0, 3.0, None, 0.0]), (0.5, [-4.0, None, None, None]))(trajectories(*"abcd"))
    assert [item.reward.value for item in result] == [0.0, 6.0, None, 0.0]
    assert [dict(item.reward.parts) for item in result] == [
        {"r0": 1.0, "r1": -4.0}, {"r0": 3.0, "r1": None}, {"r0": None, "r1": None}, {"r0": 0.0, "r1": None},
    ]  # fmt: skip


def test_a_reward_of_weight_zero_is_recorded_and_counts_as_a_score() -> None:
    result = scorer((0.0, [5.0]))(trajectories("a"))
    assert result[0].reward == Reward(value=0.0, parts={"r0": 5.0})


def test_a_sum_that_overflows_is_an_error() -> None:
    with pytest.raises(RewardError, match=r"weighted sum of rewards is 1e\+39 at index 1 .*reward-weights"):
        scorer((10.0, [1.0, 1e38]))(trajectories("a", "b"))


def test_two_rewards_of_one_name_would_hide_each_other() -> None:
    with pytest.raises(ConfigError, match="two functions are named 'reward'"):
        RewardScorer((NamedReward("reward", slow), NamedReward("reward", exact_match)))


def test_a_scorer_without_rewards_is_refused() -> None:
    with pytest.raises(ConfigError, match="no reward was named"):
        RewardScorer(())


def test_it_is_the_scorer_that_the_loop_asks_for() -> None:
    from oneloop.ports import Scorer

    assert isinstance(RewardScorer((NamedReward("exact", exact_match),)), Scorer)
