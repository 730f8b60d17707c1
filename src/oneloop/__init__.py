"""oneloop: SFT, reward models, PPO, GRPO, DAPO, RLOO and DPO are one loop.

Each method is a frozen value that says which piece of PPO it deletes or changes:

>>> from oneloop import DAPO, GRPO, replace
>>> DAPO.surrogate
ClippedRatio(low=0.2, high=0.28, level='token', dual=None)

Names are loaded on first use, so that `import oneloop` stays instant and never imports torch.
"""

from dataclasses import replace
from importlib import import_module
from typing import Any

__version__ = "0.1.0"

_HOME = {
    "oneloop.types": ["Completion", "Message", "Reward", "Sampling", "StopReason", "Trajectory"],
    "oneloop.errors": ["ConfigError", "DataError", "DivergedError", "OneloopError", "RewardError"],
    "oneloop.batch": ["Batch", "Loss", "PolicyOutput", "Size"],
    "oneloop.algorithms": [
        "A2C", "ALGORITHMS", "CISPO", "DAPO", "DISTILL", "DPO", "DR_GRPO", "GRPO", "GSPO", "IPO", "KTO", "NPG", "ORPO",
        "PPO", "REINFORCE", "REINFORCE_PP", "REWARD_MODEL", "RLOO", "SFT", "SIMPO", "TRPO", "VPG", "Critic",
        "PolicyGradient", "Preference", "TrustRegion", "Unpaired",
    ],
    "oneloop.loop": ["train"],
    "oneloop.config": ["Run"],
    "oneloop.fitting": ["fit"],
    "oneloop.recipes.result": ["FinishedRun", "open_run"],
}  # fmt: skip
_WHERE = {name: module for module, names in _HOME.items() for name in names}

__all__ = [*sorted(_WHERE), "__version__", "replace"]


def __getattr__(name: str) -> Any:
    if name not in _WHERE:
        raise AttributeError(f"module 'oneloop' has no attribute {name!r}")
    return getattr(import_module(_WHERE[name]), name)


def __dir__() -> list[str]:
    return list(__all__)
