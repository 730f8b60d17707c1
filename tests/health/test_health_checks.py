"""Every state that ruins runs: a series of numbers that has it, and one that has not."""

from __future__ import annotations

import json
import re
from collections import defaultdict
from dataclasses import replace
from pathlib import Path

import pytest

from oneloop.algorithms import DAPO, GRPO, PPO, TRPO, PolicyGradient
from oneloop.errors import ConfigError
from oneloop.health import CODES, Setting, Watch, described
from oneloop.health.checks import CHECKS, Look, dead_share, held_out, held_out_loss
from oneloop.health.codes import codes_table
from oneloop.health.history import History
from oneloop.health.limits import Limits
from oneloop.health.region import REGION
from oneloop.recipes.overrides import overridden

ROOT = Path(__file__).parents[2]
SETTING = Setting(max_new_tokens=256, group_size=8, eval_answers=128, max_kl=0.01)
HEALTHY = {
    "reward": 0.4, "reward_std": 0.49, "rewards/unscored": 0.0, "completions/mean_length": 100.0,
    "completions/clipped_ratio": 0.05, "completions/max_terminated_length": 244.0, "num_groups": 8.0,
    "frac_reward_zero_std": 0.25, "frac_groups_all_wrong": 0.25, "frac_groups_all_right": 0.0, "loss": 0.01,
    "grad_norm": 0.8, "entropy": 0.5, "kl": 0.01, "approx_kl": 0.01, "ratio/max": 3.0, "rollout/logprob_gap": 1e-7,
    "optimizer_steps": 1.0, "skipped_steps": 0.0,
}  # fmt: skip
"""One step of a run that has nothing."""


def said(rows, setting: Setting = SETTING) -> list[tuple[int, str]]:
    watch = Watch(setting)
    return [(step, alert.code) for step, row in enumerate(rows) for alert in watch(step, row)]


def alerts(rows, setting: Setting = SETTING):
    watch = Watch(setting)
    return [alert for step, row in enumerate(rows) for alert in watch(step, row)]


def steps(count: int, **changes) -> list[dict]:
    """Healthy steps with some numbers changed; a list gives one for each step, None takes the number away."""
    rows = []
    for step in range(count):
        new = {name.replace("__", "/"): v[step] if isinstance(v, list) else v for name, v in changes.items()}
        rows.append({name: value for name, value in {**HEALTHY, **new}.items() if value is not None})
    return rows


def evals(*values: float) -> list[float | None]:
    """One value at every fifth step."""
    return [value if last else None for value in values for last in (False, False, False, False, True)]


NO_REWARD = {"reward": None, "reward_std": None}
ALL_DEAD = {"frac_reward_zero_std": 1.0, "frac_groups_all_wrong": 1.0}
RISING = [0.4 + step / 50 for step in range(15)]

ILL = [
    ("A_TRUNCATED", 0, steps(1, completions__clipped_ratio=0.984)),
    ("A_TRUNCATED", 0, steps(1, completions__clipped_ratio=1.0, completions__max_terminated_length=None)),
    ("A_NO_END", 4, steps(5, completions__clipped_ratio=1.0)),
    ("A_DEAD", 0, steps(1, frac_reward_zero_std=0.9375, frac_groups_all_wrong=0.875, frac_groups_all_right=0.0625)),
    ("A_FLAT", 4, steps(5, reward=0.0, reward_std=0.0)),
    ("A_FLAT", 4, steps(5, reward=0.0, reward_std=0.0, frac_reward_zero_std=None)),  # without groups
    ("A_UNSCORED", 0, steps(1, rewards__unscored=64.0, **NO_REWARD)),
    ("I_LOSS_ZERO", 0, steps(1, loss=3.7e-9)),
    ("A_STILL", 4, steps(5, grad_norm=0.0)),
    ("A_STILL", 4, steps(5, grad_norm=None, optimizer_steps=0.0)),
    ("A_LOST", 2, steps(3, loss=[3.0, 4.6, 4.6], grad_norm=[5.0, 4.0, 3e-6], **NO_REWARD)),
    ("A_SKIPPED", 1, steps(3, skipped_steps=[0.0, 1.0, 1.0])),
    ("A_ENTROPY_LOW", 14, steps(15, entropy=[0.5] * 12 + [0.04] * 3)),
    ("A_ENTROPY_HIGH", 12, steps(15, entropy=[0.5] * 10 + [2.0] * 5)),
    ("A_KL", 9, steps(10, kl=[0.01] * 9 + [3.0])),
    ("A_KL", 10, steps(11, kl=[0.01] * 4 + [0.4] + [0.01] * 5 + [2.0])),
    ("A_RATIO", 2, steps(3, approx_kl=[0.01, 0.02, 0.9])),
    ("A_RATIO", 2, steps(3, ratio__max=[3.0, 2.0, 4e5])),
    ("A_REGION", 1, steps(2, trust__kl=[0.01, 0.0101])),
    ("A_REJECTED", 6, steps(7, trust__accepted=[0.0, 1.0] + [0.0] * 5, trust__kl=0.0)),
    ("A_MISMATCH", 0, steps(1, rollout__logprob_gap=0.2)),
    ("A_MISMATCH", 2, steps(3, rollout__logprob_gap=[0.0, 0.2, 0.5], rollout__staleness=[0.0, 1.0, 1.0])),
    ("A_LENGTH_UP", 12, steps(15, completions__mean_length=[100.0] * 10 + [230.0] * 5)),
    ("A_LENGTH_DOWN", 12, steps(15, completions__mean_length=[100.0] * 10 + [20.0] * 5)),
    ("A_HELD_OUT", 14, steps(15, eval__reward=evals(0.6, 0.8, 0.4), eval__reward_std=0.45, reward=RISING)),
    ("A_OVERFIT", 14, steps(15, eval__loss=evals(0.9, 1.2, 1.3), loss=[
        1 - step / 20 for step in range(15)], **NO_REWARD)),
]  # fmt: skip
"""A code, the step (from 0) at which it is said, and the run."""

WELL = [
    ("nothing at all", steps(120)),
    ("samples that may be old", steps(3, rollout__logprob_gap=0.3, rollout__staleness=1.0)),
    ("half truncated", steps(20, completions__clipped_ratio=0.6)),
    ("a first step cut, then answers that end", steps(9, completions__clipped_ratio=[0.85] + [0.5] * 8)),
    ("most groups dead, as in late training", steps(20, frac_reward_zero_std=0.8, frac_groups_all_right=0.8)),
    ("equal rewards in four steps of five", steps(5, reward_std=[0.0, 0.0, 0.0, 0.0, 0.1])),
    ("some unscored", steps(3, rewards__unscored=5.0)),
    ("no gradient in four steps of five", steps(5, grad_norm=[0.0, 0.0, 0.0, 0.0, 0.1])),
    ("entropy halves", steps(20, entropy=[0.5 - step / 80 for step in range(20)])),
    ("entropy falls because all is right", steps(
        20, entropy=[0.5] * 10 + [0.01] * 10, frac_groups_all_right=0.8, frac_reward_zero_std=0.8)),
    ("entropy doubles", steps(20, entropy=[0.1] * 10 + [0.25] * 10)),
    ("one odd batch", steps(20, entropy=[0.5] * 12 + [0.01] + [0.5] * 7)),
    ("KL grows from 0 as it should", steps(20, kl=[step / 100 for step in range(20)])),
    ("an early KL", steps(3, kl=[0.0, 0.0, 0.9])),
    ("single tokens of a large ratio", steps(5, ratio__max=60.0)),
    ("a trust region's step at its edge", steps(3, trust__kl=0.01, trust__accepted=1.0)),
    ("a step that was rejected now and then", steps(9, trust__accepted=[0.0, 0.0, 0.0, 0.0, 1.0] + [0.0] * 4)),
    ("bfloat16", steps(5, rollout__logprob_gap=0.01)),
    ("longer answers that are better", steps(15, completions__mean_length=[100.0] * 10 + [230.0] * 5, reward=RISING)),
    ("short answers twice as long", steps(15, completions__mean_length=[3.0] * 10 + [9.0] * 5)),
    ("held-out noise", steps(15, eval__reward=evals(0.6, 0.8, 0.75), eval__reward_std=0.45, reward=RISING)),
    ("held-out and training fall together", steps(
        15, eval__reward=evals(0.6, 0.8, 0.4), eval__reward_std=0.45, reward=RISING[::-1])),
    ("held-out loss falls", steps(15, eval__loss=evals(1.2, 1.0, 0.9), loss=[
        1 - step / 20 for step in range(15)], **NO_REWARD)),
    ("one bad evaluation of a loss", steps(15, eval__loss=evals(1.2, 1.0, 1.3), loss=[
        1 - step / 20 for step in range(15)], **NO_REWARD)),
    ("a loss of 0 without a gradient informs of nothing", steps(3, loss=0.0, grad_norm=1e-9)),
    ("a loss that is not 0", steps(3, loss=1e-3)),
    ("pairs told apart have no gradient", steps(
        3, loss=[0.7, 0.02, 0.01], grad_norm=[5.0, 0.0, 0.0], **NO_REWARD)),
    ("a small gradient that is not gone", steps(3, loss=4.0, grad_norm=[5.0, 0.01, 0.01], **NO_REWARD)),
    ("numbers that are not finite", steps(3, loss=float("nan"), kl=float("inf"), entropy=float("nan"))),
    ("a step without numbers", [{}, {}, {}]),
]  # fmt: skip


@pytest.mark.parametrize(("code", "step", "rows"), ILL, ids=lambda value: value if isinstance(value, str) else "")
def test_an_ill_run_is_named(code, step, rows) -> None:
    assert (step, code) in said(rows)
    assert code not in [found for at, found in said(rows) if at < step]
    (alert,) = [one for one in alerts(rows) if one.code == code]
    assert alert.text and alert.fix and not alert.text.endswith(".") and not alert.fix.endswith(".")


@pytest.mark.parametrize(("what", "rows"), WELL, ids=[what for what, _ in WELL])
def test_a_well_run_is_left_in_peace(what, rows) -> None:
    assert said(rows) == []


def test_a_natural_step_without_a_line_search_may_pass_the_edge_by_a_little() -> None:
    whole = replace(SETTING, searches=False)
    assert said(steps(2, trust__kl=0.0199), whole) == []
    assert said(steps(1, trust__kl=0.0201), whole) == [(0, "A_REGION")]
    assert said(steps(2, trust__kl=0.5), replace(SETTING, max_kl=0.0)) == []


def test_every_check_has_an_ill_run() -> None:
    assert {code for code, _, _ in ILL} == set(CODES) - {
        "A_REFILL", "A_CHECKPOINT", "A_SAVE", "A_RECORD", "A_MACHINE", "A_ROLLOUTS", "A_MEMORY", "A_HEARTBEAT",
        "A_BEST", "A_LOGGER", "A_REWARD", "A_TRACE", "A_ENGINE", "A_UNSOUND", "A_ROOM", "A_REPLAY",
    }  # fmt: skip


def demo_runs() -> dict[str, list[dict]]:
    """What the seven runs of a demo logged, rounded: each of them learned."""
    runs = defaultdict(list)
    for line in (Path(__file__).parent / "demo.jsonl").read_text().splitlines():
        row = json.loads(line)
        runs[row.pop("run")].append(row)
    return dict(runs)


@pytest.mark.parametrize(("name", "rows"), demo_runs().items(), ids=list(demo_runs()))
def test_runs_that_learn_raise_no_alarm(name, rows) -> None:
    setting = Setting(max_new_tokens=32, group_size=1 if name == "ppo" else 8, eval_answers=128)
    informed = [(0, "I_LOSS_ZERO")] if name == "grpo" else []
    assert said(rows, setting) == informed


def test_truncation_in_words() -> None:
    (alert,) = alerts(steps(1, completions__clipped_ratio=63 / 64))
    assert alert.text.startswith("63 of 64 completions hit --max-new-tokens 256 before an end token")
    assert alert.fix == "--max-new-tokens 1024 (longest finished: 244), or a model that stops (SFT first)"


def test_dead_groups_in_words() -> None:
    """p = 0.1: p⁸ + (1 − p)⁸ = 0.43, p¹⁶ + (1 − p)¹⁶ = 0.185."""
    rows = steps(1, frac_reward_zero_std=1.0, frac_groups_all_wrong=0.75, frac_groups_all_right=0.25, reward=0.1,
                 reward_std=0.3)  # fmt: skip
    (alert,) = alerts(rows)
    assert alert.text == (
        "8 of 8 groups have equal rewards (6 all wrong, 2 all right): 100% of samples have no advantage; at a pass "
        "rate of 0.10, 43% are expected for groups of 8, 19% for 16"
    )
    assert alert.fix == "prompts of middling difficulty: these are each always wrong or always right"


@pytest.mark.parametrize(
    ("reward", "std", "size", "fix"),
    [
        (0.02, 0.14, 8, "--group-size 16, easier prompts"),  # 85 % expected: a larger group would help
        (0.98, 0.14, 8, "--group-size 16, harder prompts"),
        (0.0, 0.0, 8, "easier prompts"),
        (1.0, 0.0, 8, "harder prompts, or stop here"),
        (0.3, 0.2, 8, "a graded reward, --group-size 16"),  # not 0 or 1: nobody knows a pass rate
        (-4.0, 0.2, 8, "a graded reward, --group-size 16"),
    ],
)
def test_the_fix_for_dead_groups_depends_on_the_pass_rate(reward, std, size, fix) -> None:
    (alert,) = alerts(steps(1, **ALL_DEAD, reward=reward, reward_std=std))
    assert alert.fix.startswith(fix)


@pytest.mark.parametrize(("rate", "size"), [(0.1, 4), (0.5, 2), (0.9, 16), (0.0, 8), (1.0, 8)])
def test_dead_share_by_counting(rate, size) -> None:
    """Slow oracle: the probability of every outcome of a group, added up where all are equal."""
    total = 0.0
    for outcome in range(2**size):
        bits = [outcome >> place & 1 for place in range(size)]
        if len(set(bits)) == 1:
            chance = 1.0
            for bit in bits:
                chance *= rate if bit else 1 - rate
            total += chance
    assert dead_share(rate, size) == pytest.approx(total)


def test_resampling_alarms_only_when_nothing_is_left() -> None:
    resamples = Setting(group_size=8, resamples=True)
    assert said(steps(3, frac_reward_zero_std=0.95), resamples) == []
    (alert,) = alerts(steps(1, **ALL_DEAD, reward=0.02, reward_std=0.14), resamples)
    assert alert.code == "A_DEAD" and "dapo" not in alert.fix


def test_a_spent_refill_is_said_once_and_again_when_it_is_twice_as_bad() -> None:
    """8 groups wanted; 10 drawn, of which 6 are kept, later 3: a quarter is missing, then five eighths."""
    resamples = Setting(group_size=8, resamples=True, prompts_per_step=8)
    kept = [0.8] + [0.6] * 10 + [0.3] * 10
    assert said(steps(21, num_groups=10.0, frac_groups_kept=kept), resamples) == [(1, "A_REFILL"), (11, "A_REFILL")]
    (alert,) = alerts(steps(1, num_groups=10.0, frac_groups_kept=0.6), resamples)
    assert alert.text.startswith("6 of 8 groups have mixed rewards after all --max-refills (10 groups drawn)")
    assert said(steps(3, num_groups=6.0, frac_groups_kept=1.0), Setting(prompts_per_step=8)) == [], (
        "nothing is drawn again"
    )


def test_one_cause_is_told_once() -> None:
    """Equal rewards leave no gradient and dead groups: the run is told of the cause."""
    rows = steps(60, **ALL_DEAD, reward=0.0, reward_std=0.0, grad_norm=0.0, loss=0.0)
    assert said(rows) == [(0, "A_DEAD"), (4, "A_FLAT"), (54, "A_FLAT")]


def test_an_alert_is_repeated_after_a_while_or_when_it_is_twice_as_bad() -> None:
    gaps = [0.1] * 3 + [0.15] + [0.21] + [0.21] * 60
    assert [step for step, _ in said(steps(65, rollout__logprob_gap=gaps))] == [0, 4, 54]
    assert [step for step, _ in said(steps(120, loss=0.0))] == [0], "what informs is said once"


def test_the_state_comes_back_from_the_record() -> None:
    """Resumed anywhere, the same alerts follow: in a run that has several ills, nulls in it and an evaluation."""
    rows = [
        {**row, "step": step, "time": 0.0}
        for step, row in enumerate(steps(
            70, entropy=[0.5] * 30 + [0.01] * 40, rollout__logprob_gap=[1e-7] * 10 + [0.2] * 60, loss=0.0,
            completions__mean_length=[100.0] * 40 + [300.0] * 30, kl=[None] * 5 + [float("nan")] * 5 + [0.1] * 60,
            eval__reward=([None] * 9 + [0.7]) * 3 + ([None] * 9 + [0.3]) * 4, eval__reward_std=0.4,
            reward=[step / 70 for step in range(70)],
        ))
    ]  # fmt: skip
    whole = said([{k: v for k, v in row.items() if k not in ("step", "time")} for row in rows])
    assert len({code for _, code in whole}) >= 4
    written = json.loads(json.dumps(rows).replace("NaN", "null"))
    for start in range(0, 70, 7):
        watch = Watch(SETTING)
        watch.replay(written[:start])
        rest = [(row["step"], a.code) for row in rows[start:] for a in watch(row["step"], {**row, "step": 0.0})]
        assert rest == [(step, code) for step, code in whole if step >= start]


def test_held_out_needs_to_know_how_many_were_asked() -> None:
    rows = steps(15, eval__reward=evals(0.6, 0.8, 0.4), eval__reward_std=0.45, reward=RISING)
    assert said(rows, Setting(group_size=8)) == []


def test_the_best_evaluation_is_kept_by_its_own_measure() -> None:
    history = History()
    for step, value in enumerate([0.5, 0.2, 0.4]):
        history = history.after(step, {"eval/reward": value, "eval/loss": value}, 5)
    assert (history.best["eval/reward"].step, history.best["eval/loss"].step) == (0, 1)
    assert [one.step for one in history.latest] == [1, 2]


def test_checks_are_pure() -> None:
    """The same look gives the same alert, and a look at nothing gives none."""
    assert held_out in CHECKS and held_out_loss in CHECKS
    empty = Look(History().after(0, {}, 5), SETTING, Limits())
    assert [check(empty) for check in (*CHECKS, *REGION)] == [None] * len((*CHECKS, *REGION))


@pytest.mark.parametrize("algorithm", [PPO, GRPO, DAPO], ids=lambda value: value.name)
def test_every_change_that_a_fix_proposes_can_be_made(algorithm: PolicyGradient) -> None:
    source = "".join(path.read_text() for path in (ROOT / "src/oneloop/health").glob("*.py"))
    changes = {quoted or plain for quoted, plain in re.findall(r'--set (?:"([^"]+)"|([\w.]+=[\w.]+))', source)}
    assert {"target_kl=0.05", "aggregate=TokenMean()", "surrogate.high=0.28", "entropy=0.001"} <= changes
    for change in changes:
        if algorithm.kl is not None or not change.startswith("kl."):
            overridden(TRPO if change.startswith("region.") else algorithm, [change])


def test_codes_are_explained() -> None:
    text = described("A_DEAD")
    assert text.startswith("A_DEAD: groups of equal rewards") and "fires when" in text and "`" not in text
    with pytest.raises(ConfigError, match=r"no code 'A_DAED'. Did you mean A_DEAD\?"):
        described("A_DAED")


def test_the_page_and_the_code_name_the_same_codes() -> None:
    assert codes_table() in (ROOT / "docs" / "health.md").read_text(encoding="utf-8")
    source = "".join(path.read_text(encoding="utf-8") for path in (ROOT / "src").rglob("*.py"))
    assert set(re.findall(r'"([AI]_[A-Z_]+)"', source)) == set(CODES)
