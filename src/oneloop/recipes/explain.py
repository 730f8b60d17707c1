"""The exact objective of a value, in words and formulas taken from its own pieces."""

from __future__ import annotations

from dataclasses import dataclass, fields, is_dataclass

from oneloop.algorithms import ALGORITHMS, PolicyGradient, Preference, Unpaired
from oneloop.objective.pieces import formula_of
from oneloop.objective.surrogate import LOG_RATIO_BOUND

Algorithm = PolicyGradient | Preference | Unpaired


@dataclass(frozen=True)
class Source:
    """Where a method comes from, and how its value here differs."""

    title: str
    reference: str
    parent: str | None
    """The method that it is written as a change of."""
    differs: str = ""


SOURCES = {
    "ppo": Source(
        "Proximal policy optimization with a KL anchor",
        "arXiv:1707.06347 (PPO), arXiv:1909.08593 (KL at the reward), arXiv:2203.02155 (language models)",
        None,
        "γ = 1 and token mean, as language-model practice has it",
    ),
    "grpo": Source("Group relative policy optimization", "arXiv:2402.03300, eq. 3–4", "ppo", "std with ddof 0"),
    "dapo": Source("Decoupled clip and dynamic sampling", "arXiv:2503.14476, eq. 8–13", "grpo"),
    "dr_grpo": Source("GRPO done right", "arXiv:2503.20783, section 3.2", "grpo"),
    "rloo": Source(
        "REINFORCE leave-one-out",
        "arXiv:2402.14740, section 3",
        "reinforce",
        "token mean instead of a sum per sequence",
    ),
    "reinforce": Source("REINFORCE", "Williams 1992", "ppo"),
    "reinforce_pp": Source("REINFORCE++", "arXiv:2501.03262", "ppo"),
    "gspo": Source("Group sequence policy optimization", "arXiv:2507.18071, eq. 5–7", "grpo"),
    "cispo": Source("Clipped importance-sampling weights", "arXiv:2506.13585, eq. 4–5", "grpo"),
    "sft": Source("Supervised fine-tuning: REINFORCE with advantage 1 on demonstrations", "cross-entropy", "reinforce"),
    "dpo": Source("Direct preference optimization", "arXiv:2305.18290, eq. 7", None),
    "ipo": Source("Identity preference optimization", "arXiv:2310.12036, eq. 17", "dpo"),
    "reward_model": Source("Bradley–Terry reward model", "arXiv:1706.03741; arXiv:2203.02155, eq. 1", "dpo"),
    "simpo": Source(
        "Simple preference optimization",
        "arXiv:2405.14734, eq. 6",
        "dpo",
        "β 2 and γ 1 are inside the paper's own settings (2–2.5 and 0.3–1.6); both belong to model and data",
    ),
    "orpo": Source(
        "Odds ratio preference optimization",
        "arXiv:2403.07691, eq. 6–7",
        "dpo",
        "λ 0.1; the SFT term is a mean per token of each chosen answer, then over pairs, as printed (TRL: over tokens "
        "of a micro-batch)",
    ),
    "kto": Source(
        "Kahneman–Tversky optimization, for answers that are good or bad one at a time",
        "arXiv:2402.01306, eq. 8",
        "dpo",
        "z is the mean over the whole step of each prompt with the answer to the next other prompt (TRL: over a "
        "micro-batch)",
    ),
    "distill": Source(
        "On-policy distillation: reverse KL to a teacher, on the student's own samples",
        "arXiv:2306.08543; arXiv:2306.13649",
        "reinforce",
        "π_ref is the teacher, --teacher; each token's log-ratio stands for the sum over the vocabulary, and no token "
        "answers for later ones",
    ),
    "trpo": Source(
        "Trust region policy optimization",
        "arXiv:1502.05477, eq. 14 and appendix C",
        "ppo",
        "γ = 1, token mean and the KL anchor of PPO here; the critic is fitted to the batch before the step",
    ),
    "npg": Source(
        "Natural policy gradient",
        "Kakade 2001; arXiv:1502.05477, section 7",
        "trpo",
        "the step's length is that of TRPO, √(2δ/gᵀF⁻¹g), instead of a fixed rate",
    ),
    "a2c": Source(
        "Advantage actor-critic",
        "arXiv:1602.01783; as a case of PPO arXiv:2205.09123",
        "ppo",
        "GAE, whitening and the KL anchor of PPO here; the paper has n-step returns and an entropy bonus of 0.01",
    ),
    "vpg": Source(
        "Vanilla policy gradient with a learned baseline",
        "Sutton et al. 2000; arXiv:1506.02438, eq. 1",
        "reinforce",
        "token mean instead of a sum per sequence",
    ),
}


def explain(algorithm: Algorithm, sampler: str = "") -> str:
    """Formula, normaliser, ε, KL estimator and place, ddof, models in memory, references.

    Args:
        sampler: what draws the completions of a run, in words.
    """
    source = SOURCES.get(algorithm.name)
    lines = [f"{algorithm.name}: {source.title}" if source else algorithm.name, ""]
    lines += [f"  {label:<15}{text}" for label, text in _pieces(algorithm)]
    models = ["policy", *({"reference": "reference", "values": "critic"}[need] for need in sorted(algorithm.needs))]
    lines += ["", f"  {'models':<15}{', '.join(models)}"]
    if sampler:
        lines.append(f"  {'sampler':<15}{sampler}")
    if source:
        lines.append(f"  {'references':<15}{source.reference}")
        if source.differs:
            lines.append(f"  {'differs':<15}{source.differs}")
        if source.parent:
            lines += ["", f"  changes from {source.parent}:"]
            lines += [f"    {line}" for line in differences(ALGORITHMS[source.parent], algorithm)]
    return "\n".join(lines)


def _pieces(algorithm: Algorithm) -> list[tuple[str, str]]:
    if isinstance(algorithm, Preference):
        weight = "" if algorithm.weight == 1 else f"{algorithm.weight:g}·"
        link = formula_of(algorithm.link)
        pieces = [
            ("loss", f"1/P · Σ over pairs  {weight}({link})  (P pairs of the whole step)"),
            ("reward", formula_of(algorithm.reward)),
        ]
        if algorithm.sft:
            pieces.append(("SFT term", f"− {algorithm.sft:g}·1/P · Σ over pairs  1/|y_w| · Σₜ log π_θ(yₜ|x,y₍<ₜ₎)"))
        if algorithm.center:
            pieces.append(("centring", f"+ {algorithm.center:g}·1/P · Σ over pairs  (r_w + r_l)²"))
        return pieces
    if isinstance(algorithm, Unpaired):
        return [("loss", algorithm.formula), ("reward", formula_of(algorithm.reward)), ("baseline", algorithm.baseline)]
    pieces = [("loss", formula_of(algorithm.aggregate)), ("ℓᵢₜ", formula_of(algorithm.surrogate))]
    if algorithm.correction is not None:
        pieces.append(("correction", formula_of(algorithm.correction)))
    pieces.append(("advantage", formula_of(algorithm.advantage)))
    for label, piece in (
        ("KL", algorithm.kl), ("critic", algorithm.critic), ("reward shaping", algorithm.shape),
        ("groups", algorithm.keep), ("rows", algorithm.drop),
    ):  # fmt: skip
        pieces.append((label, "none" if piece is None else formula_of(piece)))
    pieces.append(("entropy", f"− {algorithm.entropy:g}·H(π_θ)" if algorithm.entropy else "no bonus"))
    limit = algorithm.target_kl
    stop = "" if limit is None else f"; the rest is dropped when KL(π_old‖π_θ) exceeds {limit:g} nats per token"
    pieces.append(("epochs", f"{algorithm.epochs}{stop}"))
    if algorithm.region is not None:
        pieces.append(("trust region", formula_of(algorithm.region)))
        if algorithm.critic is not None:
            pieces.append(("", f"the critic: {algorithm.region.critic_steps} steps of the optimizer before it"))
    pieces.append(("bounds", f"|log ρ| ≤ {LOG_RATIO_BOUND:g}"))
    return pieces


def differences(old: Algorithm, new: Algorithm) -> list[str]:
    """Pieces that `new` deletes from, adds to or changes in `old`."""
    if type(old) is not type(new):
        before, after = ({field.name: getattr(x, field.name) for field in _parts(x)} for x in (old, new))
        return [
            f"replaced: {type(old).__name__} by {type(new).__name__}",
            *(f"deleted:  {name} = {value!r}" for name, value in before.items() if (name, value) not in after.items()),
            *(f"added:    {name} = {value!r}" for name, value in after.items() if (name, value) not in before.items()),
        ]
    names = [field.name for field in _parts(old)]
    return [line for name in names for line in _difference(name, getattr(old, name), getattr(new, name))]


def _parts(algorithm: Algorithm):
    return [field for field in fields(algorithm) if field.name != "name"]


def _difference(name: str, old: object, new: object) -> list[str]:
    if old == new:
        return []
    if new is None:
        return [f"deleted:  {name} (was {old!r})"]
    if old is None:
        return [f"added:    {name} = {new!r}"]
    if type(old) is type(new) and is_dataclass(old) and is_dataclass(new):
        inner = [
            f"{field.name} {getattr(old, field.name)!r} → {getattr(new, field.name)!r}"
            for field in fields(old)
            if getattr(old, field.name) != getattr(new, field.name)
        ]
        return [f"changed:  {name}: {type(old).__name__}({', '.join(inner)})"]
    return [f"changed:  {name}: {old!r} → {new!r}"]


def facts(algorithm: Algorithm) -> dict[str, str | float | bool | None]:
    """The numbers of an objective by name, for programs; None where it has no such piece."""
    pieces = {
        name: getattr(algorithm, name, None) for name in ("surrogate", "advantage", "aggregate", "link", "reward")
    }
    critic, kl, region = (getattr(algorithm, name, None) for name in ("critic", "kl", "region"))
    reads = {
        "eps_low": (pieces["surrogate"], "low"),
        "eps_high": (pieces["surrogate"], "high"),
        "level": (pieces["surrogate"], "level"),
        "dual": (pieces["surrogate"], "dual"),
        "scale": (pieces["advantage"], "scale"),
        "ddof": (pieces["advantage"], "ddof"),
        "gamma": (pieces["advantage"], "gamma"),
        "lam": (pieces["advantage"], "lam"),
        "whiten": (pieces["advantage"], "whiten"),
        "fixed_length": (pieces["aggregate"], "tokens"),
        "beta": (kl, "coef") if kl is not None else (pieces["reward"], "beta"),
        "kl_at": (kl, "at"),
        "kl_estimator": (kl, "estimator"),
        "value_coef": (critic, "coef"),
        "value_clip": (critic, "clip"),
        "entropy": (algorithm, "entropy"),
        "target_kl": (algorithm, "target_kl"),
        "max_kl": (region, "max_kl"),
        "epochs": (algorithm, "epochs"),
        "label_smoothing": (pieces["link"], "label_smoothing"),
    }
    names = {name: None if piece is None else type(piece).__name__ for name, piece in pieces.items()}
    return {**names, **{name: getattr(piece, field, None) for name, (piece, field) in reads.items()}}


def papers_page() -> str:
    """`docs/papers.md`: every method, from the same table and the same values."""
    lines = [
        "# From paper to value",
        "",
        "Generated by `make papers` from `oneloop.algorithms` and the table that `oneloop explain` prints; a test",
        "keeps it in step.",
        "",
    ]
    for name, algorithm in ALGORITHMS.items():
        source = SOURCES[name]
        lines += [f"## `{name}`: {source.title}", "", source.reference + ".", ""]
        lines += ["```text", explain(algorithm), "```", ""]
    return "\n".join(lines)
