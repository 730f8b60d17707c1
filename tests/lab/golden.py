"""Numbers of oneloop's own functions, for the page's arithmetic to reproduce: `python tests/lab/golden.py` writes them.

Each topic is one file of golden/: cases of inputs and what they give. tests/lab/test_golden.py computes them anew, the
page's tests read the files; a constant that changed on one side fails there.
"""

import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from episodes_by_hand import episodes

from oneloop.algorithms import DAPO, DR_GRPO, GRPO, PPO
from oneloop.algorithms.policy_gradient import PolicyGradient
from oneloop.batch import Batch, PolicyOutput, Size
from oneloop.experience.episodes import length_scalars, turn_scalars
from oneloop.lab.episodes import episode, turns_of
from oneloop.objective.advantage import GAE, AdvantageEstimator, GroupRelative, LeaveOneOut
from oneloop.objective.aggregate import Aggregate, FixedLength, SequenceMean, TokenMean
from oneloop.objective.divergence import KL, exact_kl, kl_estimate
from oneloop.objective.preference import ImplicitReward, LogSigmoid
from oneloop.objective.select import MixedOutcome, OverlongFilter
from oneloop.objective.surrogate import ClippedRatio
from oneloop.record.table import rollout_table
from oneloop.types import StopReason

FOLDER = Path(__file__).parent / "golden"

Case = dict[str, dict[str, Any]]


def case(inputs: dict[str, Any], **expected: Any) -> Case:
    return {"inputs": inputs, "expected": expected}


def clip() -> list[Case]:
    """The objective of one token, its slope d/dρ = (d/d log ρ)/ρ, and whether the clip made that 0."""
    bands = [(0.2, 0.2), (0.2, 0.28), (0.0, 0.0), (1.0, 4.0)]
    log_ratios = [-25.0, -0.9, -0.1, 0.0, 0.1, 0.22, 1.2, 25.0]
    tokens = [(log_ratio, advantage) for log_ratio in log_ratios for advantage in (1.0, -1.0)]
    cases = []
    for low, high in bands:
        for log_ratio, advantage in [*tokens, (0.3, 0.2), (0.3, 0.0)]:
            new = torch.tensor([[log_ratio]], dtype=torch.float64, requires_grad=True)
            old, mask = torch.zeros_like(new), torch.ones(1, 1, dtype=torch.bool)
            loss, flat = ClippedRatio(low, high)(new, old, torch.full_like(old, advantage), mask)
            (by_log_ratio,) = torch.autograd.grad(loss.sum(), new)
            slope = -by_log_ratio / new.detach().exp()
            inputs = {"log_ratio": log_ratio, "advantage": advantage, "low": low, "high": high}
            objective = -loss.detach()
            cases.append(case(inputs, objective=objective.item(), slope=slope.item(), flat=flat.item()))
    return cases


def groups() -> list[Case]:
    """Advantages of a batch of groups under each rule, and which groups dynamic sampling keeps.

    "batch" is the rule of TRL's scale_rewards="batch", which no estimator here has: R − mean of the group, over the
    std of all rewards of the batch.
    """
    batches = [
        [[1.0, 0.8, 0.4, 0.2]],
        [[1.0, 0.0, 0.0, 1.0]],
        [[1.0, 1.0, 1.0, 1.0]],
        [[0.1, 0.1, 0.1]],
        [[0.0]],
        [[1.0, 0.8, 0.4, 0.2], [0.0, 0.0, 0.0, 0.0], [1.0, 1.0, 1.0, 1.0], [1.0, 0.0, 0.0, 0.0]],
    ]
    cases = []
    for batch in batches:
        rewards = torch.tensor([reward for group in batch for reward in group], dtype=torch.float64)
        names = torch.tensor([i for i, group in enumerate(batch) for _ in group])

        def credit(
            estimator: AdvantageEstimator, rewards: torch.Tensor = rewards, names: torch.Tensor = names
        ) -> torch.Tensor:
            mask = torch.ones(len(rewards), 1, dtype=torch.bool)
            return estimator(rewards[:, None], None, mask, names).advantages[:, 0]

        centred = credit(GroupRelative(scale="none"))
        rules = {"none": centred, "leave_one_out": credit(LeaveOneOut())}
        for ddof in (0, 1):
            estimator = GroupRelative(ddof=ddof)
            rules[f"group_{ddof}"] = credit(estimator)
            spread = rewards.std(correction=ddof) if len(rewards) > ddof else torch.tensor(0.0)
            rules[f"batch_{ddof}"] = centred / (spread + estimator.eps)
        expected: dict[str, Any] = {rule: values.tolist() for rule, values in rules.items()}
        cases.append(case({"groups": batch}, kept=[MixedOutcome()(group) for group in batch], **expected))
    return cases


def gae() -> list[Case]:
    """Advantages, returns and whitened advantages of one response."""
    responses: list[dict[str, Any]] = [
        {"rewards": [0.0, 0.0, 1.0], "values": [0.1, 0.3, 0.6], "gamma": 1.0, "lam": 0.95, "bootstrap": 0.0},
        {
            "rewards": [0.2, -0.1, 0.0, 0.7],
            "values": [0.5, 0.4, -0.2, 0.3],
            "gamma": 0.99,
            "lam": 0.9,
            "bootstrap": 0.8,
        },
        {"rewards": [0.2, -0.1, 0.7], "values": [0.5, 0.4, -0.2], "gamma": 0.9, "lam": 0.0, "bootstrap": 0.0},
        {"rewards": [0.2, -0.1, 0.7], "values": [0.5, 0.4, -0.2], "gamma": 1.0, "lam": 1.0, "bootstrap": 0.0},
        {"rewards": [1.0], "values": [0.25], "gamma": 1.0, "lam": 0.95, "bootstrap": 0.0},
        {"rewards": [0.0, 0.0], "values": [0.0, 0.0], "gamma": 1.0, "lam": 0.95, "bootstrap": 0.0},
    ]
    cases = []
    for inputs in responses:
        rewards, values = (torch.tensor([inputs[name]], dtype=torch.float64) for name in ("rewards", "values"))
        mask, group = torch.ones_like(rewards, dtype=torch.bool), torch.zeros(1, dtype=torch.long)
        bootstrap = torch.tensor([inputs["bootstrap"]], dtype=torch.float64)
        raw, white = (
            GAE(gamma=inputs["gamma"], lam=inputs["lam"], whiten=whiten)(
                rewards, values, mask, group, bootstrap=bootstrap
            )
            for whiten in (False, True)
        )
        assert raw.returns is not None
        cases.append(
            case(
                inputs,
                advantages=raw.advantages[0].tolist(),
                returns=raw.returns[0].tolist(),
                whitened=white.advantages[0].tolist(),
            )
        )
    return cases


def kl() -> list[Case]:
    """The three estimates of a token, and the exact sum over a vocabulary."""
    estimates = [
        case(
            {"log_ratio": x},
            **{name: float(kl_estimate(torch.tensor(x).double(), name)) for name in ("k1", "k2", "k3")},
        )
        for x in (-25.0, -1.3, -0.2, 0.0, 0.05, 0.9, 4.0)
    ]
    distributions = [
        ([1.0, 0.0, -1.0], [0.0, 0.0, 0.0]),
        ([0.0, 10.0, 20.0, 28.0], [0.0, 0.0, 0.0, 0.0]),
        ([0.3, -0.7, 2.0, 0.1], [1.0, 0.2, -0.4, 0.5]),
        ([0.5, 0.5], [0.5, 0.5]),
    ]
    exact = [
        case(
            {"logits": logits, "ref_logits": ref},
            exact=float(exact_kl(torch.tensor(logits).double(), torch.tensor(ref).double())),
        )
        for logits, ref in distributions
    ]
    return [*estimates, *exact]


def dpo() -> list[Case]:
    """Margin, loss and the weight of the gradient of one pair; and KL(π* ‖ π_ref) at each β of the page."""
    pairs = [
        (-12.0, -11.0, -11.5, -11.2, 0.1),
        (-3.0, -9.0, -5.0, -5.0, 0.5),
        (-2.0, -1.0, -2.0, -2.0, 1.0),
        (-40.0, -10.0, -20.0, -20.0, 2.0),
    ]
    cases = []
    for *logprobs, beta in pairs:
        names = ("logp_chosen", "logp_rejected", "ref_chosen", "ref_rejected")
        rows = torch.tensor(logprobs, dtype=torch.float64).view(2, 2, 1)
        batch = Batch(
            tokens=torch.zeros(2, 1, dtype=torch.long),
            mask=torch.ones(2, 1, dtype=torch.bool),
            group=torch.zeros(2, dtype=torch.long),
            rewards=torch.tensor([[1.0], [0.0]]),
            truncated=torch.zeros(2, dtype=torch.bool),
            ref_logprobs=rows[1],
        )
        out = PolicyOutput(logprobs=rows[0], entropy=torch.zeros(2, 1))
        chosen, rejected = ImplicitReward(beta)(out, batch)
        margin = (chosen - rejected).view(1).requires_grad_()
        loss = LogSigmoid()(margin, beta)
        loss.backward()
        assert margin.grad is not None
        cases.append(
            case(
                {**dict(zip(names, logprobs, strict=True)), "beta": beta},
                margin=margin.item(),
                loss=loss.item(),
                weight=-margin.grad.item(),
            )
        )
    quality = torch.tensor([0.0, 1.0, 2.0, 2.8], dtype=torch.float64)
    return cases + [
        case({"quality": quality.tolist(), "beta": beta}, kl=float(exact_kl(quality / beta, torch.zeros(4).double())))
        for beta in (0.1, 0.5, 1.0, 2.0)
    ]


def aggregate() -> list[Case]:
    """The weight of a token of each answer of a step, under each rule."""
    cases = []
    for lengths, budget in [([3, 9, 1, 4], 16), ([5], 5), ([2, 0, 7], 8), ([0, 0], 4)]:
        mask = torch.arange(max(lengths)) < torch.tensor(lengths)[:, None]
        if not max(lengths):
            mask = torch.zeros(len(lengths), 1, dtype=torch.bool)
        size = Size(int(mask.sum()), int(mask.any(1).sum()))
        rules = {name: rule(mask, size).amax(1).tolist() for name, rule in _aggregates(budget).items()}
        cases.append(case({"lengths": lengths, "budget": budget}, **rules))
    return cases


def _aggregates(budget: int) -> dict[str, Aggregate]:
    return {"token": TokenMean(), "sequence": SequenceMean(), "fixed": FixedLength(budget)}


def rescore() -> list[Case]:
    """−dL/dlog π_θ of each token of one batch, by autograd through the loss of each method as a value."""
    methods = {value.name: value for value in (PPO, GRPO, DAPO, DR_GRPO)}
    asked: list[tuple[str, dict[str, Any]]] = [(name, {}) for name in methods]
    asked += [
        ("grpo", {"low": 0.1, "high": 0.4, "beta": 0.3}),
        ("grpo", {"aggregate": "fixed", "mask": True}),
        ("dapo", {"mask": False, "advantage": "none"}),
        ("dr_grpo", {"beta": 1.0, "low": 0.0, "high": 0.0}),
    ]
    budget, rows = 6, _rescored()
    cases = []
    for name, changes in asked:
        value = methods[name]
        if name == "dr_grpo":
            value = replace(value, aggregate=FixedLength(budget))
        if "low" in changes:
            value = replace(value, surrogate=ClippedRatio(changes["low"], changes["high"]))
        if "beta" in changes:
            value = replace(value, kl=KL(changes["beta"], at="loss"))
        if "aggregate" in changes:
            value = replace(value, aggregate=_aggregates(budget)[changes["aggregate"]])
        if "mask" in changes:
            value = replace(value, drop=OverlongFilter() if changes["mask"] else None)
        if "advantage" in changes:
            value = replace(value, advantage=GroupRelative(scale=changes["advantage"]))
        gradients = _gradients(value, rows)
        cases.append(case({"method": name, "changes": changes, "budget": budget, "rows": rows}, gradients=gradients))
    return cases


def _rescored() -> list[dict[str, Any]]:
    """Two groups, with ratios on both sides of every band and beyond the bound, and a truncated answer."""
    numbers = torch.Generator().manual_seed(0)

    def some(count: int, scale: float) -> list[float]:
        drawn = torch.randn(count, generator=numbers, dtype=torch.float64) * scale
        return [round(value, 4) for value in drawn.tolist()]

    shapes = [(0, 1.0, False, 3), (0, 0.0, True, 6), (0, 0.25, False, 1), (1, 0.0, False, 4), (1, 2.0, False, 2)]
    rows = [
        {
            "group": group,
            "reward": reward,
            "truncated": truncated,
            "advantage": some(length, 1.0),
            "logRatio": some(length, 0.25),
            "refGap": some(length, 0.5),
        }
        for group, reward, truncated, length in shapes
    ]
    rows[0]["logRatio"][1], rows[3]["logRatio"][2], rows[3]["logRatio"][3] = 25.0, -25.0, 3.0
    return rows


def _gradients(value: PolicyGradient, rows: list[dict[str, Any]]) -> list[list[float]]:
    lengths = [len(row["logRatio"]) for row in rows]

    def padded(name: str) -> torch.Tensor:
        return torch.tensor([row[name] + [0.0] * (max(lengths) - len(row[name])) for row in rows], dtype=torch.float64)

    mask = torch.arange(max(lengths)) < torch.tensor(lengths)[:, None]
    rewards = torch.zeros_like(mask, dtype=torch.float64)
    rewards[:, 0] = torch.tensor([row["reward"] for row in rows])
    group = torch.tensor([row["group"] for row in rows])
    truncated = torch.tensor([row["truncated"] for row in rows])
    if value is PPO:  # its advantages are those that the run recorded, and hold the KL; the critic's loss is not asked
        advantages, value = (
            padded("advantage"),
            replace(GRPO, kl=None, aggregate=PPO.aggregate, surrogate=PPO.surrogate),
        )
    else:
        advantages = value.advantage(rewards, None, mask, group).advantages
    old, new = torch.zeros_like(rewards), padded("logRatio").requires_grad_()
    kept = mask if value.drop is None else value.drop(mask, truncated)
    batch = Batch(
        tokens=torch.zeros_like(mask, dtype=torch.long),
        mask=kept,
        group=group,
        rewards=rewards,
        truncated=truncated,
        old_logprobs=old,
        ref_logprobs=old - padded("refGap"),
        advantages=torch.where(kept, advantages, 0.0),
    )
    value.loss(PolicyOutput(logprobs=new), batch, batch.size).value.backward()
    assert new.grad is not None
    return [(-row[:length]).tolist() for row, length in zip(new.grad, lengths, strict=True)]


def turns() -> list[Case]:
    """What a step's numbers say of an episode: turns, tokens of both sides, and the environment's reward."""
    cases = []
    for item in episodes():
        table = rollout_table(0, [item]).to_pylist()[0]
        said = turns_of(table["turns"])
        assert said is not None
        found = turn_scalars([item])
        chosen = length_scalars([replace(item, completion=replace(item.completion, stop=StopReason.EOS))])
        inputs = {"episode": episode(said, None), "stop": table["stop"], "error": table["error"]}
        cases.append(
            case(
                inputs,
                turns=found["turns/mean"],
                given=found["tokens/environment"],
                chosen=chosen["completions/mean_length"],
                reward=item.reward.parts["game"] or 0.0,
                truncated=item.completion.stop.truncated,
            )
        )
    return cases


TOPICS: dict[str, Callable[[], list[Case]]] = {
    "aggregate": aggregate, "clip": clip, "dpo": dpo, "gae": gae, "groups": groups, "kl": kl, "rescore": rescore,
    "turns": turns,
}  # fmt: skip


def path(topic: str) -> Path:
    return FOLDER / f"{topic}.json"


if __name__ == "__main__":
    FOLDER.mkdir(exist_ok=True)
    for topic, cases in TOPICS.items():
        path(topic).write_text(json.dumps(cases(), indent=1) + "\n", encoding="utf-8")
