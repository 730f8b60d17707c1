"""A reward function of another library is called as that library calls it, told by the names of its parameters."""

import asyncio
from dataclasses import replace
from typing import Any

import pytest
from test_rewards_score import trajectories

from oneloop.errors import RewardError
from oneloop.experience.episodes import reward_scalars
from oneloop.rewards import NamedReward, RewardScorer, exact_match
from oneloop.rewards.adapters import NATIVE, OPENRLHF, REASONING_GYM, VERIFIERS, VERL, missing, signature_of
from oneloop.types import Trajectory

CHAT = ({"role": "system", "content": "Be brief."}, {"role": "user", "content": "1+1?"})


def scored(function: Any, items: list[Trajectory], step: int = 0) -> list[Trajectory]:
    return RewardScorer((NamedReward("mine", function),), steps=9)(items, step)


def values(function: Any, items: list[Trajectory]) -> list[float | None]:
    return [item.reward.value for item in scored(function, items)]


def chat(*texts: str, **columns: Any) -> list[Trajectory]:
    return [
        replace(item, prompt=replace(item.prompt, messages=CHAT, text="<system>…"))
        for item in trajectories(*texts, **columns)
    ]


class Gym:
    """As reasoning-gym's data sets are: no function, but something that scores."""

    def score_answer(self, answer: str | None, entry: dict[str, Any]) -> float:
        assert entry["question"].startswith("ask ") and entry["metadata"] == {"difficulty": 1}
        return float(answer == entry["answer"])


def compute_score(data_source, solution_str, ground_truth, extra_info=None): ...
def reward_func(queries, prompts, labels, **kwargs): ...
def rubric(completion, answer): ...
async def judge(prompt, completion, info, state): ...
def turns(state): ...
def trl(completions, **kwargs): ...
def with_info(completions, info, state): ...
def by_ids(prompts, completion_ids): ...


FORMS = [
    (compute_score, VERL, ("ground_truth",)),
    (lambda solution_str, ground_truth, **kw: 0, VERL, ("ground_truth",)),
    (reward_func, OPENRLHF, ("label",)),
    (rubric, VERIFIERS, ("answer",)),
    (judge, VERIFIERS, ()),
    (turns, VERIFIERS, ()),
    (trl, NATIVE, ()),
    (with_info, NATIVE, ("info", "state")),
    (by_ids, NATIVE, ()),
    (lambda answer: 0, NATIVE, ("answer",)),
    (lambda **everything: 0, NATIVE, ()),
    (Gym(), REASONING_GYM, ("answer",)),
    (exact_match, NATIVE, ("answer",)),
]


@pytest.mark.parametrize(("function", "form", "columns"), FORMS)
def test_the_form_is_told_by_the_parameters(function: Any, form: Any, columns: tuple[str, ...]) -> None:
    signature = signature_of(function)
    assert (signature.form, signature.columns) == (form, columns)


def test_trl_on_a_conversation() -> None:
    seen = {}

    def reward(completions, prompts, answer, trainer_state, **kwargs):
        seen.update(prompts=prompts, step=(trainer_state.global_step, trainer_state.max_steps), more=sorted(kwargs))
        return [
            float(completion[0]["content"] == wanted) for completion, wanted in zip(completions, answer, strict=True)
        ]

    items = scored(reward, chat("2", "3", answer=["2", "2"]), step=4)
    assert [item.reward.value for item in items] == [1.0, 0.0]
    assert seen == {
        "prompts": [list(CHAT), list(CHAT)],
        "step": (4, 9),
        "more": ["completion_ids", "episode_ids", "log_extra", "log_metric", "prompt_ids"],
    }


def test_the_shipped_graders_read_text_in_chats_too() -> None:
    assert values(exact_match, chat("2", "3", answer=["2", "2"])) == [1.0, 0.0]


def test_trl_logs_metrics_and_columns() -> None:
    def reward(completions, log_metric, log_extra):
        log_metric("chars", sum(map(len, completions)))
        log_extra("first", [text[:1] or None for text in completions])
        return [1.0] * len(completions)

    items = [*scored(reward, trajectories("ab", "")), *scored(reward, trajectories("abcd"))]
    # two calls: 2 for two samples, 4 for one
    assert reward_scalars(items)["rewards/mine/chars"] == pytest.approx((2 + 2 + 4) / 3)
    assert [dict(item.reward.extras) for item in items] == [{"first": "a"}, {"first": None}, {"first": "a"}]


@pytest.mark.parametrize(
    ("log", "said"),
    [
        (lambda m, e: m("x", float("nan")), "log_metric('x', nan): wanted a finite number"),
        (lambda m, e: m("x", "1"), "log_metric('x', '1')"),
        (lambda m, e: e("x", [1]), "log_extra('x', ...) got 1 values for 2 completions"),
        (lambda m, e: e("x", 1), "log_extra('x', ...) got None values"),
    ],
)
def test_what_cannot_be_logged_is_an_error(log: Any, said: str) -> None:
    def reward(completions, log_metric, log_extra):
        log(log_metric, log_extra)
        return [1.0, 1.0]

    with pytest.raises(RewardError) as caught:
        scored(reward, trajectories("a", "b"))
    assert said in str(caught.value)


def test_verl() -> None:
    def score(data_source, solution_str, ground_truth, extra_info=None):
        assert (data_source, extra_info) == ("gsm8k", {"index": 3})
        return {"acc": solution_str == "2", "score": 0.5 * (solution_str == ground_truth), "pred": solution_str}

    columns = {"data_source": ["gsm8k"] * 2, "ground_truth": ["2", "2"], "extra_info": [{"index": 3}] * 2}
    items = scored(score, chat("2", "3", **columns))
    assert [item.reward.value for item in items] == [0.5, 0.0]
    assert reward_scalars(items)["rewards/mine/acc"] == 0.5
    assert [dict(item.reward.extras) for item in items] == [{"pred": "2"}, {"pred": "3"}]

    def plain(data_source, solution_str, ground_truth, extra_info="default"):
        assert (data_source, extra_info) == ("", "default")
        return ground_truth

    assert values(plain, trajectories("a", "b", ground_truth=[0.5, None])) == [0.5, None]


@pytest.mark.parametrize("column", ["label", "labels"])
def test_openrlhf(column: str) -> None:
    import torch

    def reward(queries, prompts, labels, **kwargs):
        assert queries == ["ask 0a", "ask 1b"] and prompts == ["ask 0", "ask 1"]
        return {
            "rewards": torch.tensor([float(q.endswith(label)) for q, label in zip(queries, labels, strict=True)]),
            "scores": torch.tensor([0.25, 0.75]),
            "extra_logs": {"length": torch.tensor([1.0, 2.0]), "share": 0.5},
        }

    items = scored(reward, trajectories("a", "b", **{column: ["a", "x"]}))
    assert [item.reward.value for item in items] == [1.0, 0.0]
    scalars = reward_scalars(items)
    assert [scalars[f"rewards/mine/{name}"] for name in ("scores", "length", "share")] == [0.5, 1.5, 0.5]
    assert values(lambda queries, prompts, labels: [1, 2], trajectories("a", "b", label=["", ""])) == [1.0, 2.0]


def test_openrlhf_logs_of_another_length_are_an_error() -> None:
    with pytest.raises(RewardError, match=r"extra_logs\['x'\] has 3 values for 2 completions"):
        scored(lambda queries: {"rewards": [1, 2], "extra_logs": {"x": [1, 2, 3]}}, trajectories("a", "b"))


def test_verifiers() -> None:
    def rubric(completion, answer, info, prompt, state, task):
        assert prompt == list(CHAT) and info == {"level": 2} and task == "default"
        assert state["completion"] == completion and state["answer"] == answer
        return completion[-1]["content"] == answer

    assert values(rubric, chat("2", "3", answer=["2", "2"], info=['{"level": 2}', {"level": 2}])) == [1.0, 0.0]
    assert values(lambda completion: len(completion), trajectories("ab", "")) == [2.0, 0.0]


def test_async_functions_for_single_completions_wait_together_and_within_a_bound() -> None:
    running, most = 0, 0

    async def judge(completion):
        nonlocal running, most
        running += 1
        most = max(most, running)
        await asyncio.sleep(0.001)
        running -= 1
        if completion == "3":
            raise SystemExit(3)
        return float(completion)

    texts = [str(number) for number in range(200)]
    items = RewardScorer((NamedReward("mine", judge),), "unscored")(trajectories(*texts))
    assert most == 64
    assert [item.reward.value for item in items] == [None if text == "3" else float(text) for text in texts]
    assert items[3].reward.failures["mine"].startswith("raised SystemExit: 3 at ")


def test_reasoning_gym() -> None:
    columns = {"answer": ["4", "4"], "metadata": [{"difficulty": 1}] * 2}
    assert values(Gym(), trajectories("4", "5", **columns)) == [1.0, 0.0]


def test_one_sample_that_fails_takes_no_other_with_it() -> None:
    """Of [0.35 × 7, an error] seven keep their value."""

    def score(solution_str, ground_truth):
        return 1 / 0 if solution_str == "bad" else 0.35

    items = RewardScorer((NamedReward("mine", score),), "unscored")(
        trajectories(*["ok"] * 7, "bad", ground_truth=[""] * 8)
    )
    assert [item.reward.value for item in items] == [0.35] * 7 + [None]
    scalars = reward_scalars(items)
    assert (scalars["rewards/unscored"], scalars["rewards/mine/failed"], scalars["reward"]) == (1.0, 1.0, 0.35)


MISSING = [  # function, column, columns of the data, what is said
    (compute_score, "ground_truth", ["answer", "level"], "in verl's form, compute_score(data_source, solution_str, "),
    (compute_score, "ground_truth", ["answer", "level"], "Fix: --columns answer=ground_truth"),
    (compute_score, "ground_truth", ["level"], "Fix: --columns OLD=ground_truth, with the column OLD"),
    (reward_func, "label", ["ground_truth"], "Fix: --columns ground_truth=label"),
    (rubric, "answer", [], "wants 'answer', but the data has no columns beside the prompt"),
    (Gym(), "answer", ["solution"], "Fix: --columns solution=answer"),
    (lambda trace: 0, "trace", ["answer"], "it looks like a method of a verifiers v1 task"),
    (lambda completions, colour: 0, "colour", ["answer"], "or give the parameter a default"),
]


@pytest.mark.parametrize(("function", "column", "columns", "said"), MISSING)
def test_a_missing_column_names_the_form_and_a_fix(function: Any, column: str, columns: list[str], said: str) -> None:
    signature = signature_of(function)
    assert signature.lacks(columns) == column
    assert said in missing("mine", column, signature, columns)


def test_the_columns_of_one_library_are_not_taken_for_those_of_another() -> None:
    def openrlhf(queries, prompts, labels, **others):
        return [float(label) for label in labels]

    def verl(data_source, solution_str, ground_truth, **others):
        return float(ground_truth)

    both = trajectories("a", "b", label=["1", "2"], ground_truth=["3", "4"])
    assert values(openrlhf, both) == [1.0, 2.0]
    assert values(verl, both) == [3.0, 4.0]


def test_no_column_stands_in_for_the_completion() -> None:
    def verl(solution_str, ground_truth):
        return float(solution_str == ground_truth)

    def verifiers(completion, answer):
        return float(completion == answer)

    assert values(verl, trajectories("2", "3", ground_truth=["2", "2"], solution_str=["2", "2"])) == [1.0, 0.0]
    assert values(verifiers, trajectories("2", "3", answer=["2", "2"], completion=["2", "2"])) == [1.0, 0.0]
