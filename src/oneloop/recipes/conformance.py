"""Same name, different mathematics: what the paper and other libraries compute, and the value here that computes it.

One table for `docs/conformance.md` (`make conformance`) and for the test that carries every line of it out.
"""

from __future__ import annotations

import ast
from dataclasses import dataclass, replace
from typing import Any, Literal

from oneloop import algorithms
from oneloop.objective.advantage import GAE, BatchWhitened, GroupRelative, LeaveOneOut
from oneloop.objective.aggregate import FixedLength, SequenceMean, TokenMean
from oneloop.objective.correction import TruncatedImportance
from oneloop.objective.divergence import KL, AdaptiveKL
from oneloop.objective.pieces import formula_of
from oneloop.objective.preference import ImplicitReward, LogSigmoid
from oneloop.objective.shaping import OverlongPenalty
from oneloop.objective.surrogate import ClippedRatio, ClippedWeight, ScoreFunction

Kind = Literal[
    "advantage", "surrogate", "aggregate", "kl", "critic", "shape", "controller", "pairs", "correction", "answer"
]

KNOWN = {
    one.__name__: one
    for one in (
        GAE, BatchWhitened, GroupRelative, LeaveOneOut, FixedLength, SequenceMean, TokenMean, TruncatedImportance, KL,
        AdaptiveKL, ImplicitReward, LogSigmoid, OverlongPenalty, ClippedRatio, ClippedWeight, ScoreFunction, replace,
    )
} | {name: getattr(algorithms, name) for name in algorithms.__all__}  # fmt: skip
"""What a setting may name."""


def _made(node: ast.expr) -> Any:
    """The value of an expression of names, their attributes, calls, constants and quotients of them."""
    match node:
        case ast.Name(id=name):
            return KNOWN[name]
        case ast.Attribute(value=owner, attr=name):
            return getattr(_made(owner), name)
        case ast.Call(func=function, args=given, keywords=named):
            return _made(function)(*map(_made, given), **{str(one.arg): _made(one.value) for one in named})
        case ast.BinOp(left=left, op=ast.FloorDiv(), right=right):
            return _made(left) // _made(right)
        case _:
            return ast.literal_eval(node)


@dataclass(frozen=True)
class Line:
    """One library's definition of a piece, and the value here that gives its number."""

    who: str
    """paper, oneloop, TRL, verl, OpenRLHF or NeMo-RL."""
    definition: str
    """In words; left out, the formula of the setting's own value."""
    setting: str = ""
    """A Python expression over `KNOWN`; empty where no value here gives the number, and then `note` says why."""
    note: str = ""
    within: float = 1e-9
    """Largest relative difference on the test's batch, in float64."""

    @property
    def value(self) -> Any:
        """Raises: ValueError for a line without a setting."""
        if not self.setting:
            raise ValueError(f"{self.who}: no setting of oneloop gives this number ({self.note})")
        return _made(ast.parse(self.setting, mode="eval").body)

    @property
    def words(self) -> str:
        return self.definition or formula_of(self.value)


@dataclass(frozen=True)
class Piece:
    """One piece of an objective, as everybody defines it."""

    key: str
    title: str
    methods: tuple[str, ...]
    kind: Kind
    lines: tuple[Line, ...]
    remark: str = ""


NO_DDOF = "whitening divides by n here, and that is no field: theirs is √((n−1)/n) times as large"
CLAMPED = "the same number while a token's penalty stays within ±10 nats, where theirs is cut"
NOT_READ = "not in the notes that this page is made of"

GROUPS = (
    Piece("group-std", "GRPO: the group's advantage", ("grpo", "gspo", "cispo", "dapo"), "advantage", (
        Line("paper", "(R − mean R)/std R; ddof and ε are not printed (arXiv:2402.03300, section 4.1.2)",
             "GroupRelative(ddof=0, eps=0.0)"),
        Line("oneloop", "", "GRPO.advantage"),
        Line("TRL", "ddof 1, ε 1e-4", "GroupRelative(ddof=1, eps=1e-4)"),
        Line("verl", "ddof 1, ε 1e-6; a group of one keeps its raw reward", "GroupRelative(ddof=1, eps=1e-6)",
             "a group of one gives 0 here, and is refused before a run starts"),
        Line("OpenRLHF", "ddof 1, ε 1e-9", "GroupRelative(ddof=1, eps=1e-9)"),
        Line("NeMo-RL", "mean and std of the other answers, ε 1e-6; a group without spread is not divided",
             note="the std is that of the whole group here; LeaveOneOut() has its mean alone"),
    ), "Equal rewards give exactly 0 here. Elsewhere they give what rounding leaves, divided by ε."),
    Piece("no-std", "Dr. GRPO: the advantage without a std", ("dr_grpo",), "advantage", (
        Line("paper", "R − mean R (arXiv:2503.20783, section 3.2)", 'GroupRelative(scale="none")'),
        Line("oneloop", "", "DR_GRPO.advantage"),
        Line("TRL", "scale_rewards none", 'GroupRelative(scale="none")'),
        Line("verl", "norm_adv_by_std_in_grpo False", 'GroupRelative(scale="none")'),
        Line("OpenRLHF", "dr_grpo: no std", 'GroupRelative(scale="none")'),
        Line("NeMo-RL", "std off: R − the mean of the other answers", "LeaveOneOut()"),
    )),
    Piece("leave-one-out", "RLOO: the advantage", ("rloo",), "advantage", (
        Line("paper", "R − the mean of the other answers (arXiv:2402.14740, section 3)", "LeaveOneOut()"),
        Line("oneloop", "", "RLOO.advantage"),
        Line("TRL", "R − the mean of the other answers; normalize_advantages False", "LeaveOneOut()"),
        Line("verl", "R − the mean of the other answers", "LeaveOneOut()"),
        Line("OpenRLHF", "R − the mean of the other answers", "LeaveOneOut()"),
        Line("NeMo-RL", "R − the mean of the other answers", "LeaveOneOut()"),
    )),
    Piece("rloo-loss", "RLOO: the loss of a token", ("rloo",), "surrogate", (
        Line("paper", "−Â·log π: REINFORCE, no ratio and no clip (arXiv:2402.14740, section 3)", "ScoreFunction()"),
        Line("oneloop", "", "RLOO.surrogate"),
        Line("TRL", "ratio exp(Σ log π/π_old) of the whole answer, clip 0.2",
             note='level="sequence" is the geometric mean of the ratios, as in GSPO; their product is no level here'),
        Line("verl", "token ratio, clip 0.2, dual clip 3", "ClippedRatio(0.2, 0.2, dual=3.0)"),
        Line("OpenRLHF", "token ratio, clip 0.2", "ClippedRatio(0.2, 0.2)"),
        Line("NeMo-RL", "disable_ppo_ratio: −Â·log π", "ScoreFunction()"),
    )),
    Piece("whitened", "REINFORCE++: returns whitened over the batch", ("reinforce_pp",), "advantage", (
        Line("paper", "(G − mean G)/std G over the batch (arXiv:2501.03262, eq. 7)", "BatchWhitened()",
             "ddof and ε are not printed; oneloop's 1e-8 stands on the variance", 1e-7),
        Line("oneloop", "", "REINFORCE_PP.advantage"),
        Line("TRL", "no such method"),
        Line("verl", "unbiased variance, × rsqrt(var + 1e-8)", note=NO_DDOF),
        Line("OpenRLHF", "biased variance, × rsqrt(max(var, 1e-8))", "BatchWhitened()",
             "ε is added here and bounds there: half of 1e-8/var apart", 1e-7),
        Line("NeMo-RL", "minus_baseline: the group's mean goes first, then biased variance",
             note="two normalisations of one advantage are no value here"),
    )),
)  # fmt: skip

RATIOS = (
    Piece("clip", "PPO and GRPO: the clip", ("ppo", "grpo"), "surrogate", (
        Line("paper", "−min(ρÂ, clip(ρ, 1 ± 0.2)Â) (arXiv:1707.06347, eq. 7)", "ClippedRatio(0.2, 0.2)"),
        Line("oneloop", "", "PPO.surrogate"),
        Line("TRL", "ε 0.2, epsilon_high the same", "ClippedRatio(0.2, 0.2)"),
        Line("verl", "0.2/0.2 with the dual clip c = 3 on", "ClippedRatio(0.2, 0.2, dual=3.0)"),
        Line("OpenRLHF", "0.2/0.2", "ClippedRatio(0.2, 0.2)"),
        Line("NeMo-RL", "0.2/0.2", "ClippedRatio(0.2, 0.2)"),
    )),
    Piece("two-sided", "The dual clip", ("ppo", "grpo"), "surrogate", (
        Line("paper", "max(min(ρÂ, clip(ρ)Â), cÂ) where Â < 0, c = 3 (arXiv:1912.09729, eq. 5)",
             "ClippedRatio(0.2, 0.2, dual=3.0)"),
        Line("oneloop", "off; as the paper where it is on", "ClippedRatio(0.2, 0.2, dual=3.0)"),
        Line("TRL", "delta = 3: −min(min(ρ, δ)Â, clip(ρ)Â), which bites for Â < 0 alone",
             "ClippedRatio(0.2, 0.2, dual=3.0)"),
        Line("verl", "clip_ratio_c = 3", "ClippedRatio(0.2, 0.2, dual=3.0)"),
        Line("OpenRLHF", "dual_clip 3", "ClippedRatio(0.2, 0.2, dual=3.0)"),
        Line("NeMo-RL", "ratio_clip_c = 3", "ClippedRatio(0.2, 0.2, dual=3.0)"),
    )),
    Piece("dapo-clip", "DAPO: clip-higher", ("dapo",), "surrogate", (
        Line("paper", "0.2/0.28 (arXiv:2503.14476, eq. 10)", "ClippedRatio(0.2, 0.28)"),
        Line("oneloop", "", "DAPO.surrogate"),
        Line("TRL", 'loss_type "dapo" leaves ε_high at 0.2', "ClippedRatio(0.2, 0.2)"),
        Line("verl", "0.2/0.28, dual clip 3 stays on", "ClippedRatio(0.2, 0.28, dual=3.0)"),
        Line("OpenRLHF", "0.2/0.27", "ClippedRatio(0.2, 0.27)"),
        Line("NeMo-RL", "0.2/0.28, dual clip 10", "ClippedRatio(0.2, 0.28, dual=10.0)"),
    )),
    Piece("gspo", "GSPO: the ratio of a whole answer", ("gspo",), "surrogate", (
        Line("paper", "geometric mean of the ratios, 3e-4/4e-4 (arXiv:2507.18071, eq. 5–7)",
             'ClippedRatio(3e-4, 4e-4, level="sequence")'),
        Line("oneloop", "", "GSPO.surrogate"),
        Line("TRL", 'importance_sampling_level "sequence"; the clip stays at 0.2',
             'ClippedRatio(0.2, 0.2, level="sequence")'),
        Line("verl", "3e-4/4e-4 in its example; log-ratio at most 10", 'ClippedRatio(3e-4, 4e-4, level="sequence")',
             "ours is cut at 20 nats"),
        Line("OpenRLHF", "the clip stays at 0.2", 'ClippedRatio(0.2, 0.2, level="sequence")'),
        Line("NeMo-RL", "the clip stays at 0.2", 'ClippedRatio(0.2, 0.2, level="sequence")'),
    )),
    Piece("cispo", "CISPO: bounds of the weight", ("cispo",), "surrogate", (
        Line("paper", "−sg[min(ρ, 1 + ε_high)]·Â·log π, no lower bound, ε_high tuned (arXiv:2506.13585, eq. 4–5)",
             "ClippedWeight(low=None, high=4.0)", "with 1 + ε_high = 5"),
        Line("oneloop", "", "CISPO.surrogate"),
        Line("TRL", "weight at most ε_high itself, which is 0.2 where it is not set",
             "ClippedWeight(low=None, high=-0.8)"),
        Line("verl", "weight in [0.8, 1.2]", "ClippedWeight(low=0.2, high=0.2)"),
        Line("OpenRLHF", "no such method"),
        Line("NeMo-RL", "weight in [0.8, 1.2]", "ClippedWeight(low=0.2, high=0.2)"),
    )),
    Piece("tis", "Sampler against trainer: truncated importance", ("grpo",), "correction", (
        Line("paper", "min(π_old/μ, C) (Yao et al. 2025), C = 2", "TruncatedImportance(cap=2.0)"),
        Line("oneloop", "off; on, min(π_old/μ, 2)", "TruncatedImportance()"),
        Line("TRL", 'token_truncate with C = 3; its default, "sequence_mask", drops whole answers',
             "TruncatedImportance(cap=3.0)", "a mask of whole answers is no value here"),
        Line("verl", "off; on, tokens at most 2", "TruncatedImportance(cap=2.0)"),
        Line("OpenRLHF", "off; on, within [0.5, 5]", note="there is no lower bound here"),
        Line("NeMo-RL", "off; " + NOT_READ, note=NOT_READ),
    )),
)  # fmt: skip

SUMS = (
    Piece("grpo-mean", "GRPO: what the sum is divided by", ("grpo", "gspo"), "aggregate", (
        Line("paper", "mean over each answer, then over answers (arXiv:2402.03300, eq. 3)", "SequenceMean()"),
        Line("oneloop", "", "GRPO.aggregate"),
        Line("TRL", 'the default, loss_type "dapo": mean over all tokens; "grpo" is the paper\'s', "TokenMean()"),
        Line("verl", "mean over all tokens", "TokenMean()",
             "its older FSDP worker weighs micro-batches by rows, not by tokens: then nothing here gives its number"),
        Line("OpenRLHF", "mean over all tokens", "TokenMean()"),
        Line("NeMo-RL", "mean over all tokens", "TokenMean()"),
    )),
    Piece("dr-divisor", "Dr. GRPO: the constant", ("dr_grpo",), "aggregate", (
        Line("paper", "N·L, L the generation budget (arXiv:2503.20783, section 3.2)", "FixedLength(tokens=16)"),
        Line("oneloop", "N·L, L = --max-new-tokens", "FixedLength(tokens=16)"),
        Line("TRL", "N·max_completion_length", "FixedLength(tokens=16)"),
        Line("verl", "L alone, not N; L is the padded width where it is not set", "FixedLength(tokens=16 // 8)",
             "for a fixed number N of answers a step: FixedLength(tokens=L/N). The test has N = 8 and L = 16"),
        Line("OpenRLHF", "all tokens: its dr_grpo drops the std alone", "TokenMean()"),
        Line("NeMo-RL", NOT_READ, note=NOT_READ),
    )),
    Piece("kl", "GRPO: the KL to the reference", ("grpo",), "kl", (
        Line("paper", "0.04·k3 in the loss (arXiv:2402.03300, eq. 3–4)", 'KL(0.04, at="loss", estimator="k3")'),
        Line("oneloop", "", "GRPO.kl"),
        Line("TRL", "β = 0; where it is on, k3 in the loss, here with 0.04", 'KL(0.04, at="loss", estimator="k3")'),
        Line("verl", "off; where it is on, 0.001·k3 in the loss", 'KL(0.001, at="loss", estimator="k3")', CLAMPED),
        Line("OpenRLHF", "0.01·k1 taken off the reward", 'KL(0.01, at="reward", estimator="k1")', CLAMPED),
        Line("NeMo-RL", "0.01·k3 in the loss, times a ratio that is 1 and has a gradient",
             'KL(0.01, at="loss", estimator="k3")',
             "the loss is the same number; its gradient has one more term, k3·∇log π, which is no value here"),
    ), "The test compares the penalty of each token and where it goes, not its gradient."),
    Piece("adaptive", "PPO: the controller of β", ("ppo",), "controller", (
        Line("paper", "β ← β(1 + 0.1·clip(KL/target − 1, ±0.2)) (arXiv:1909.08593, section 2.2)",
             "AdaptiveKL(target=0.1, horizon=2560)", "0.1 = n/horizon, here with n = 256"),
        Line("oneloop", "β ← β(1 + n/horizon·clip(KL/target − 1, ±0.2))", "AdaptiveKL(target=0.1, horizon=10000)"),
        Line("TRL", "no controller"),
        Line("verl", "target 0.1 nats a token, horizon 10000, n rows", "AdaptiveKL(target=0.1, horizon=10000)"),
        Line("OpenRLHF", "horizon 10000; no target, and then β is fixed", "AdaptiveKL(target=0.1, horizon=10000)",
             "with kl_target 0.1"),
        Line("NeMo-RL", "no controller"),
    )),
    Piece("overlong", "DAPO: soft overlong punishment", ("dapo",), "shape", (
        Line("paper", "0, then linear, −1 beyond L (arXiv:2503.14476, eq. 13)",
             "OverlongPenalty(max_length=20480, margin=4096)"),
        Line("oneloop", "", "DAPO.shape"),
        Line("TRL", "as the paper, with its own lengths: 1280, 256", "OverlongPenalty(max_length=1280, margin=256)"),
        Line("verl", "linear without an end: min(−(|y| − 16384)/4096, 0)",
             "OverlongPenalty(max_length=20480, margin=4096)",
             "up to L, which no answer exceeds where L is the budget; beyond it theirs goes on falling"),
        Line("OpenRLHF", "linear, at most its factor (1)", "OverlongPenalty(max_length=20480, margin=4096)"),
        Line("NeMo-RL", "linear without an end, buffer 2048 of 14336", "OverlongPenalty(max_length=14336, margin=2048)",
             "up to L, as verl"),
    )),
)  # fmt: skip

CRITICS = (
    Piece("gae", "PPO: generalised advantages, before whitening", ("ppo",), "advantage", (
        Line("paper", "Σ (γλ)ᵏ δ (arXiv:1506.02438, eq. 16), with γ = 1, λ = 0.95", "GAE(lam=0.95, whiten=False)"),
        Line("oneloop", "γ 1, λ 0.95", "replace(PPO.advantage, whiten=False)"),
        Line("TRL", "γ 1, λ 0.95", "GAE(lam=0.95, whiten=False)"),
        Line("verl", "γ 1, λ 1", "GAE(lam=1.0, whiten=False)"),
        Line("OpenRLHF", "γ 1, λ 1", "GAE(lam=1.0, whiten=False)"),
        Line("NeMo-RL", "γ 1, λ 0.95", "GAE(lam=0.95, whiten=False)"),
    ), "Answers without tokens of an environment in them. Where there are some, oneloop, verl and NeMo-RL skip them;"
       " TRL and OpenRLHF let λ decay over them, which no value here does."),
    Piece("whitening", "PPO: whitening of advantages", ("ppo",), "advantage", (
        Line("paper", "not in the paper: (Â − mean)/std over the batch is practice", "GAE(lam=0.95)",
             "ε 1e-8 stands on the variance", 1e-7),
        Line("oneloop", "", "PPO.advantage"),
        Line("TRL", "unbiased variance, over each process", note=NO_DDOF),
        Line("verl", "unbiased variance, over the batch", note=NO_DDOF),
        Line("OpenRLHF", "biased variance, over the batch, λ 1", "GAE(lam=1.0)",
             "ε is added here and bounds there: half of 1e-8/var apart", 1e-7),
        Line("NeMo-RL", "unbiased variance, over the batch", note=NO_DDOF),
    )),
    Piece("cut", "PPO: an answer that the length limit cut", ("ppo",), "answer", (
        Line("paper", "an estimator up to step T takes V(s_T) for what follows (arXiv:1707.06347, eq. 11)",
             "PPO.advantage"),
        Line("oneloop", "V after its last token stands for what would follow", "PPO.advantage"),
        Line("TRL", "ends as if the answer were complete", note="a cut answer is never taken as complete here"),
        Line("verl", "ends as if the answer were complete", note="as TRL"),
        Line("OpenRLHF", "ends as if the answer were complete", note="as TRL"),
        Line("NeMo-RL", "ends as if the answer were complete", note="as TRL"),
    )),
    Piece("value", "PPO: the critic's loss of a token", ("ppo",), "critic", (
        Line("paper", "c₁(V − R̂)² without the ½ and without a clip (arXiv:1707.06347, eq. 9), here c₁ = 0.5",
             "Critic(coef=1.0, clip=None)", "oneloop's error has the ½: coef is 2·c₁"),
        Line("oneloop", "", "PPO.critic"),
        Line("TRL", "0.1·½·max of both, clip 0.2", "Critic(coef=0.1, clip=0.2)"),
        Line("verl", "½·max of both, clip 0.5, an optimizer of its own", "Critic(coef=1.0, clip=0.5)"),
        Line("OpenRLHF", "½·max of both, clip 0.5, an optimizer of its own", "Critic(coef=1.0, clip=0.5)"),
        Line("NeMo-RL", "½, no clip; its recipe has 0.4·½ and clip 0.2", "Critic(coef=1.0, clip=None)"),
    )),
)  # fmt: skip

PAIRS = (
    Piece("dpo", "DPO: the loss", ("dpo",), "pairs", (
        Line("paper", "−log σ(β·Δ), Δ the difference of summed log-ratios (arXiv:2305.18290, eq. 7), β 0.1", "DPO"),
        Line("oneloop", "−log σ(β·Δ), β 0.1", "DPO"),
        Line("TRL", "β 0.1", "DPO"),
        Line("verl", "no such method"),
        Line("OpenRLHF", "β 0.1", "DPO"),
        Line("NeMo-RL", "β 0.05", "replace(DPO, reward=ImplicitReward(beta=0.05))"),
    )),
    Piece("smoothing", "DPO: label smoothing 0.1", ("dpo",), "pairs", (
        Line("paper", "cDPO: −0.9·log σ(βΔ) − 0.1·log σ(−βΔ) (Mitchell 2023)",
             "replace(DPO, link=LogSigmoid(label_smoothing=0.1))"),
        Line("oneloop", "as cDPO", "replace(DPO, link=LogSigmoid(label_smoothing=0.1))"),
        Line("TRL", "its sigmoid loss ignores label_smoothing", "DPO"),
        Line("verl", "no such method"),
        Line("OpenRLHF", "as cDPO", "replace(DPO, link=LogSigmoid(label_smoothing=0.1))"),
        Line("NeMo-RL", NOT_READ, note=NOT_READ),
    )),
    Piece("ipo", "IPO: the loss", ("ipo",), "pairs", (
        Line("paper", "(Δ − 1/(2β))², summed log-ratios as printed (arXiv:2310.12036, eq. 17)", "IPO"),
        Line("oneloop", "(Δ − 1/(2β))², summed log-ratios", "IPO"),
        Line("TRL", "each answer's log-ratio divided by its tokens",
             "replace(IPO, reward=ImplicitReward(beta=0.1, length_normalized=True))"),
        Line("verl", "no such method"),
        Line("OpenRLHF", "summed log-ratios", "IPO"),
        Line("NeMo-RL", NOT_READ, note=NOT_READ),
    )),
    Piece("reward-model", "Reward model: the loss", ("reward_model",), "pairs", (
        Line("paper", "−log σ(r_w − r_l) (arXiv:2203.02155, eq. 1)", "REWARD_MODEL"),
        Line("oneloop", "−log σ(r_w − r_l)", "REWARD_MODEL"),
        Line("TRL", "−log σ(r_w − r_l) + 0.01·(r_w + r_l)² with center_rewards_coefficient 0.01",
             "replace(REWARD_MODEL, center=0.01)"),
        Line("verl", "no such method"),
        Line("OpenRLHF", "−log σ(r_w − r_l)", "REWARD_MODEL"),
        Line("NeMo-RL", "−log σ(r_w − r_l), over valid pairs", "REWARD_MODEL"),
    )),
)  # fmt: skip

PIECES: tuple[Piece, ...] = (*GROUPS, *RATIOS, *SUMS, *CRITICS, *PAIRS)

HEAD = """# Who computes what

Methods have the same names everywhere, and not the same formulas. For each piece: the paper's definition, oneloop's
and four other libraries', and the oneloop value that gives the same number, for `dataclasses.replace(GRPO, ...)` or
`--set`. Generated by `make conformance` from the table that `tests/recipes/test_conformance.py` carries out: every
value below is made and compared, on random batches in float64, with the formula written down again in NumPy. They agree
to 1e-9 of the number unless the line says otherwise. "none" means that no value here gives that number.

The definitions: TRL 1.16.0, its source read (its PPO, which that release does not bring, in its repository); verl,
OpenRLHF and NeMo-RL in their repositories as they stood in autumn 2026, not in a release. They are what was read, not
what was run, and libraries change.
"""


def conformance_page() -> str:
    """`docs/conformance.md`."""
    return "\n".join([HEAD, *(_section(piece) for piece in PIECES)]) + "\n"


def _section(piece: Piece) -> str:
    rows = [f"| {line.who} | {_cell(line.words)} | {_setting(line)} |" for line in piece.lines]
    methods = ", ".join(f"`{name}`" for name in piece.methods)
    remark = [piece.remark, ""] if piece.remark else []
    table = ["| who | definition | the same number here |", "|---|---|---|", *rows]
    return "\n".join([f"## {piece.title}", "", f"Of {methods}.", "", *remark, *table, ""])


def _setting(line: Line) -> str:
    found = f"`{line.setting}`" if line.setting else "" if line.definition.startswith("no ") else "none"
    apart = f" (to {line.within:g})" if line.within != 1e-9 else ""
    return _cell(": ".join(part for part in (found + apart, line.note) if part))


def _cell(text: str) -> str:
    return text.replace("|", "\\|")
