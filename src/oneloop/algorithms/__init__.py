"""Each method is a value: PPO, and for every other one the pieces of PPO that its paper deletes or changes."""

from dataclasses import replace

from oneloop.algorithms.policy_gradient import Critic, PolicyGradient
from oneloop.algorithms.preference import Preference
from oneloop.algorithms.protocol import Algorithm, Need
from oneloop.algorithms.trust_region import TrustRegion
from oneloop.algorithms.unpaired import Unpaired
from oneloop.objective.advantage import GAE, BatchWhitened, GroupRelative, LeaveOneOut, NoBaseline
from oneloop.objective.aggregate import FixedLength, SequenceMean, TokenMean
from oneloop.objective.divergence import KL
from oneloop.objective.preference import ImplicitReward, LogOdds, LogSigmoid, RewardHead, SquaredMargin
from oneloop.objective.select import MixedOutcome, OverlongFilter
from oneloop.objective.shaping import OverlongPenalty
from oneloop.objective.surrogate import ClippedRatio, ClippedWeight, Ratio, ScoreFunction

PPO = PolicyGradient(
    name="ppo",
    advantage=GAE(gamma=1.0, lam=0.95, whiten=True),
    surrogate=ClippedRatio(0.2, 0.2),
    aggregate=TokenMean(),
    kl=KL(0.05, at="reward", estimator="k1"),
    critic=Critic(coef=0.5, clip=0.2),
    epochs=4,
    target_kl=0.1,
)
GRPO = replace(
    PPO,
    name="grpo",
    advantage=GroupRelative(scale="std"),
    aggregate=SequenceMean(),
    kl=KL(0.04, at="loss", estimator="k3"),
    critic=None,
    epochs=1,
    target_kl=None,
)
DAPO = replace(
    GRPO,
    name="dapo",
    surrogate=ClippedRatio(0.2, 0.28),
    aggregate=TokenMean(),
    kl=None,
    keep=MixedOutcome(),
    shape=OverlongPenalty(max_length=20480, margin=4096),
    drop=OverlongFilter(),
)
DR_GRPO = replace(
    GRPO, name="dr_grpo", advantage=GroupRelative(scale="none"), aggregate=FixedLength(tokens=3000), kl=None
)
GSPO = replace(GRPO, name="gspo", surrogate=ClippedRatio(3e-4, 4e-4, level="sequence"), kl=None)
CISPO = replace(GRPO, name="cispo", surrogate=ClippedWeight(low=None, high=4.0), aggregate=TokenMean(), kl=None)
REINFORCE = replace(
    PPO,
    name="reinforce",
    advantage=NoBaseline(),
    surrogate=ScoreFunction(),
    kl=None,
    critic=None,
    epochs=1,
    target_kl=None,
)
RLOO = replace(REINFORCE, name="rloo", advantage=LeaveOneOut(), kl=PPO.kl)
REINFORCE_PP = replace(
    PPO, name="reinforce_pp", advantage=BatchWhitened(), kl=KL(0.01), critic=None, epochs=1, target_kl=None
)
SFT = replace(REINFORCE, name="sft")
DPO = Preference(name="dpo", reward=ImplicitReward(beta=0.1), link=LogSigmoid())
IPO = replace(DPO, name="ipo", link=SquaredMargin())
REWARD_MODEL = replace(DPO, name="reward_model", reward=RewardHead())
SIMPO = replace(
    DPO,
    name="simpo",
    reward=ImplicitReward(beta=2.0, length_normalized=True, reference=False),
    link=LogSigmoid(margin=1.0),
)
ORPO = replace(DPO, name="orpo", reward=LogOdds(), weight=0.1, sft=1.0)
KTO = Unpaired(name="kto", reward=DPO.reward)
DISTILL = replace(REINFORCE, name="distill", advantage=NoBaseline(gamma=0.0), kl=KL(1.0, at="reward", estimator="k1"))
TRPO = replace(
    PPO,
    name="trpo",
    surrogate=Ratio(),
    critic=Critic(coef=0.5, clip=None),
    epochs=1,
    target_kl=None,
    region=TrustRegion(max_kl=0.01, damping=0.1, cg_iterations=10, backtracks=10, shrink=0.8),
)
NPG = replace(TRPO, name="npg", region=TrustRegion(backtracks=None))
A2C = replace(PPO, name="a2c", surrogate=ScoreFunction(), critic=Critic(coef=0.5, clip=None), epochs=1, target_kl=None)
VPG = replace(REINFORCE, name="vpg", advantage=GAE(gamma=1.0, lam=1.0, whiten=False), critic=A2C.critic)

ALGORITHMS: dict[str, PolicyGradient | Preference | Unpaired] = {
    value.name: value
    for value in (
        PPO, GRPO, DAPO, DR_GRPO, RLOO, REINFORCE, REINFORCE_PP, GSPO, CISPO, SFT, DPO, IPO, REWARD_MODEL,
        SIMPO, ORPO, KTO, DISTILL, TRPO, NPG, A2C, VPG,
    )
}  # fmt: skip

__all__ = [
    "A2C", "ALGORITHMS", "CISPO", "DAPO", "DISTILL", "DPO", "DR_GRPO", "GRPO", "GSPO", "IPO", "KTO", "NPG", "ORPO",
    "PPO", "REINFORCE", "REINFORCE_PP", "REWARD_MODEL", "RLOO", "SFT", "SIMPO", "TRPO", "VPG",
    "Algorithm", "Critic", "Need", "PolicyGradient", "Preference", "TrustRegion", "Unpaired",
]  # fmt: skip
