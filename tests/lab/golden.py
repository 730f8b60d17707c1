"""Numbers of oneloop's own functions, for the page's arithmetic to reproduce: `python tests/lab/golden.py` writes them.

Each topic is one file of golden/: cases of inputs and what they give. tests/lab/test_golden.py computes them anew, the
page's tests read the files; a constant that changed on one side fails there.
"""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch

from oneloop.objective.advantage import AdvantageEstimator, GroupRelative, LeaveOneOut
from oneloop.objective.select import MixedOutcome
from oneloop.objective.surrogate import ClippedRatio

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


TOPICS: dict[str, Callable[[], list[Case]]] = {"clip": clip, "groups": groups}


def path(topic: str) -> Path:
    return FOLDER / f"{topic}.json"


if __name__ == "__main__":
    FOLDER.mkdir(exist_ok=True)
    for topic, cases in TOPICS.items():
        path(topic).write_text(json.dumps(cases(), indent=1) + "\n", encoding="utf-8")
