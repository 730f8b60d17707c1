"""DPO against PPO with a reward model, from the same pairs: true reward by KL, and what no pair shows."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
import torch
from jaxtyping import Float, Int
from torch import Tensor

from oneloop.algorithms import DPO, PPO, REWARD_MODEL
from oneloop.algorithms.preference import Preference
from oneloop.batch import Batch, PolicyOutput
from oneloop.loop import train
from oneloop.objective.divergence import KL, exact_kl
from oneloop.objective.preference import ImplicitReward
from oneloop.seeds import named_seed
from oneloop.studies.contexts import CONTEXTS, Draws, TablePolicy
from oneloop.studies.judge import above, every, inside, minus, said
from oneloop.studies.once import Kept
from oneloop.studies.study import Claim, Judged, Panel, Point, Study, Table

ANSWERS, FEATURES = 32, 12
LABELLED = 12
"""Prompts with pairs; the others have none."""
BEYOND = 0.5
"""Standard deviation of the part of the true reward that is no function of the features."""
RARE = 1.5
"""Standard deviation of the reference's logits: some answers are rare, and no pair shows them."""
AMOUNTS, QUICK_AMOUNTS = (100, 800, 6400), (100, 1600)
BETAS, QUICK_BETAS = (0.25, 0.7, 2.0), (0.7,)
MIDDLE = 0.7
"""The β at which two ways are laid side by side."""
FAR = 1.0
"""KL to the reference, nats, at which they are."""
KLS = (0.0, 0.25, 0.5, 1.0, 1.5, 2.0)
SHOWN = 800
"""Pairs of the picture by KL."""
UPDATES, QUICK_UPDATES, RATE = 60, 30, 0.08
"""Of DPO and of reward models: Adam over all pairs at once. DPO's rate is RATE/β: every implicit reward moves alike."""
STEPS, QUICK_STEPS = 40, 6
GROUP, QUICK_GROUP = 16, 8
POLICY_RATE, QUICK_POLICY_RATE = 0.15, 0.3
DPO_TABLE, DPO_FEATURES = "DPO, policy a table", "DPO, policy of features"
PPO_TABLE, PPO_FEATURES = "PPO, reward a table", "PPO, reward of features"
PPO_TRUE = "PPO, true reward"
LEARNED = (DPO_TABLE, PPO_TABLE, DPO_FEATURES, PPO_FEATURES)


@dataclass(frozen=True)
class Problem:
    features: Float[Tensor, "C A F"]
    gold: Float[Tensor, "C A"]
    """True reward, in the unit of Bradley–Terry's log-odds."""
    start: Float[Tensor, "C A"]
    """Log-probs of the reference."""


def problem(seed: int) -> Problem:
    rng = torch.Generator().manual_seed(named_seed("dpo_ppo", seed))

    def normal(*shape: int) -> Tensor:
        return torch.randn(*shape, generator=rng, dtype=torch.float64)

    features = normal(CONTEXTS, ANSWERS, FEATURES)
    direction = normal(FEATURES)
    gold = features @ (direction / direction.norm()) + BEYOND * normal(CONTEXTS, ANSWERS)
    return Problem(features, gold, (RARE * normal(CONTEXTS, ANSWERS)).log_softmax(-1))


def pairs(given: Problem, seed: int, count: int) -> Batch:
    """Two of the reference's answers to a labelled prompt each, the preferred one first. More begin with the fewer."""
    # a row of uniform numbers a pair: its prompt, its answers (the Gumbel trick, without replacement), its label
    drawn = torch.tensor(np.random.default_rng(named_seed("dpo_ppo", "pairs", seed)).random((count, ANSWERS + 2)))
    prompts = (LABELLED * drawn[:, 0]).long()
    answers = (given.start[prompts] - torch.log(-torch.log(drawn[:, 2:]))).topk(2).indices
    lead = given.gold[prompts, answers[:, 0]] - given.gold[prompts, answers[:, 1]]
    answers = torch.where((drawn[:, 1] < lead.sigmoid())[:, None], answers, answers.flip(1))
    return as_batch(torch.stack([prompts[:, None].expand(-1, 2), answers], 2).reshape(-1, 2))


def as_batch(tokens: Int[Tensor, "B 2"]) -> Batch:
    """A row is a prompt and its answer; rows 2p and 2p + 1 are pair p, the preferred one first."""
    count = len(tokens)
    labels = torch.tensor([[0.0, 1.0], [0.0, 0.0]], dtype=torch.float64).repeat(count // 2, 1)
    return Batch(
        tokens=tokens,
        mask=torch.tensor([False, True]).repeat(count, 1),
        group=torch.arange(count // 2).repeat_interleave(2),
        rewards=labels,
        truncated=torch.zeros(count, dtype=torch.bool),
    )


class Learner:
    """Implements `oneloop.ports.Models`: a number for every answer, on top of the reference's log-probs or as a score.

    Args:
        features: what the number is linear in; None: a table, where each answer has its own.
    """

    def __init__(self, given: Problem, features: Float[Tensor, "C A F"] | None) -> None:
        self._start, self._features = given.start, features
        shape = given.start.shape if features is None else features.shape[-1:]
        self.weights = torch.zeros(shape, dtype=torch.float64, requires_grad=True)

    def numbers(self) -> Float[Tensor, "C A"]:
        return self.weights if self._features is None else self._features @ self.weights

    def policy(self, batch: Batch) -> PolicyOutput:
        numbers = self.numbers()
        policy = (self._start + numbers).log_softmax(-1)
        prompts, answers = batch.tokens.unbind(1)
        return PolicyOutput(_second(policy[prompts, answers]), scores=numbers[prompts, answers])

    def reference(self, batch: Batch) -> Float[Tensor, "B T"]:
        return _second(self._start[batch.tokens[:, 0], batch.tokens[:, 1]])

    def step(self) -> dict[str, float]:
        raise NotImplementedError("its optimizer is below")


def _second(values: Float[Tensor, " B"]) -> Float[Tensor, "B 2"]:
    """Of the answer; 0 at the prompt."""
    return torch.stack([torch.zeros_like(values), values], 1)


def learned(algorithm: Preference, models: Learner, batch: Batch, updates: int) -> Float[Tensor, "C A"]:
    """The numbers after `updates` steps of Adam on the algorithm's own loss."""
    batch = algorithm.prepare(batch, models)
    optimizer = torch.optim.Adam([models.weights], lr=RATE / algorithm.reward.beta)
    for _ in range(updates):
        optimizer.zero_grad()
        algorithm.loss(models.policy(batch), batch, batch.size).value.backward()
        optimizer.step()
    return models.numbers().detach()


def dpo(given: Problem, batch: Batch, beta: float, updates: int, *, table: bool) -> Float[Tensor, "C A"]:
    """The logits of DPO's policy."""
    algorithm = replace(DPO, reward=ImplicitReward(beta=beta))
    return given.start + learned(algorithm, Learner(given, None if table else given.features), batch, updates)


def reward_model(given: Problem, batch: Batch, updates: int, *, table: bool) -> Float[Tensor, "C A"]:
    return learned(REWARD_MODEL, Learner(given, None if table else given.features), batch, updates)


def ppo(given: Problem, rewards: Float[Tensor, "C A"], seed: int, beta: float, *, quick: bool) -> Float[Tensor, "C A"]:
    """The logits of PPO's policy, a table, on all prompts: it needs no pair to draw an answer and have it scored."""
    algorithm = replace(PPO, kl=KL(beta, at="reward", estimator="k1"), target_kl=None)
    steps, group, rate = (QUICK_STEPS, QUICK_GROUP, QUICK_POLICY_RATE) if quick else (STEPS, GROUP, POLICY_RATE)
    models = TablePolicy(rate, start=given.start)
    draws = Draws(models, seed, group_size=group, noise=0.0, rewards=rewards)
    train(algorithm, draws, models, Kept(), steps=steps, minibatch=CONTEXTS, max_tokens=1 << 20, seed=seed)
    return models.table()


@dataclass(frozen=True)
class Found:
    kl: float
    """KL(π ‖ π_ref) over labelled prompts, nats."""
    gold: float
    """Expected true reward over labelled prompts, above the reference's."""
    other: float
    """The same over prompts without a pair."""
    unseen: float
    """log π/π_ref of all answers that no pair shows, together; labelled prompts."""


def measured(given: Problem, logits: Float[Tensor, "C A"], batch: Batch) -> Found:
    policy, start = logits.softmax(-1), given.start.exp()
    gained = ((policy - start) * given.gold).sum(1)
    unseen = torch.ones_like(start, dtype=torch.bool)
    unseen[batch.tokens[:, 0], batch.tokens[:, 1]] = False
    unseen[LABELLED:] = False
    return Found(
        kl=float(exact_kl(logits, given.start)[:LABELLED].mean()),
        gold=float(gained[:LABELLED].mean()),
        other=float(gained[LABELLED:].mean()),
        unseen=float((policy[unseen].sum() / start[unseen].sum()).log()),
    )


def at_kl(course: Sequence[Found], kl: float) -> float:
    """True reward at a KL, between the β beside it; where no β goes so far, that of the one which goes farthest."""
    kls, golds = zip((0.0, 0.0), *sorted((found.kl, found.gold) for found in course), strict=True)
    return float(np.interp(kl, kls, golds))


def courses(seed: int, count: int, betas: Sequence[float], quick: bool) -> dict[str, list[Found]]:
    """Of each way, what came of each β."""
    updates = QUICK_UPDATES if quick else UPDATES
    given = problem(seed)
    batch = pairs(given, seed, count)
    found: dict[str, list[Found]] = {}
    for name, table in ((DPO_TABLE, True), (DPO_FEATURES, False)):
        found[name] = [measured(given, dpo(given, batch, beta, updates, table=table), batch) for beta in betas]
    scores = {
        PPO_TABLE: reward_model(given, batch, updates, table=True),
        PPO_FEATURES: reward_model(given, batch, updates, table=False),
    }
    if count == SHOWN:
        scores[PPO_TRUE] = given.gold
    for name, rewards in scores.items():
        found[name] = [measured(given, ppo(given, rewards, seed, beta, quick=quick), batch) for beta in betas]
    return found


def run(seeds: Sequence[int], quick: bool) -> Table:
    amounts, betas = (QUICK_AMOUNTS, QUICK_BETAS) if quick else (AMOUNTS, BETAS)
    points: dict[str, list[Point]] = {key: [] for key in ("frontier", "far", "gold", "kl", "unseen", "other")}
    for count in amounts:
        every_seed = [courses(seed, count, betas, quick) for seed in seeds]
        for name in every_seed[0]:
            ways = [course[name] for course in every_seed]
            if count == SHOWN or (quick and count == amounts[-1]):
                golds = [tuple(at_kl(way, kl) for way in ways) for kl in KLS]
                points["frontier"] += [Point(name, kl, gold) for kl, gold in zip(KLS, golds, strict=True)]
            if name != PPO_TRUE:
                points["far"].append(Point(name, count, tuple(at_kl(way, FAR) for way in ways)))
                middle = [way[betas.index(MIDDLE)] for way in ways]
                for key in ("gold", "kl", "unseen", "other"):
                    points[key].append(Point(name, count, tuple(getattr(one, key) for one in middle)))
    shown = SHOWN if not quick else amounts[-1]
    words = {
        "far": f"true reward above the reference's at a KL of {FAR:g} nat",
        "gold": f"true reward above the reference's, β = {MIDDLE:g}",
        "kl": f"KL(π ‖ π_ref), nats, β = {MIDDLE:g}",
        "unseen": f"log π/π_ref of all answers that no pair shows, nats, β = {MIDDLE:g}",
        "other": f"true reward on prompts without a pair, β = {MIDDLE:g}",
    }
    frontier = Panel(f"true reward by KL, {shown} pairs", "KL(π ‖ π_ref), nats", tuple(points["frontier"]))
    return {"frontier": frontier} | {
        key: Panel(text, "pairs", tuple(points[key]), "log") for key, text in words.items()
    }


CLASSES = ((DPO_TABLE, PPO_TABLE), (DPO_FEATURES, PPO_FEATURES))
NEAR = 0.1
"""What counts as the same true reward, of the two methods on the same pairs."""
GAIN = 0.05
"""By how much one has to gain more than the other where no pair is."""


def _same(table: Table) -> Judged:
    panel = table["gold"]
    differences = [
        minus(one, other)
        for ours, theirs in CLASSES
        for one, other in zip(panel.of(ours), panel.of(theirs), strict=True)
    ]
    told = ", ".join(f"{said(point)} ({point.series}, {point.x:g} pairs)" for point in differences)
    return Judged(
        every(inside(point.interval, -NEAR, NEAR) for point in differences), f"true reward, DPO − PPO: {told}"
    )


def _laid(table: Table, place: int) -> tuple[Point, Point, Point]:
    """DPO on a table, PPO on a reward of features, and how far PPO leads; at the place-th number of pairs."""
    one, other = (table["far"].of(name)[place] for name in (DPO_TABLE, PPO_FEATURES))
    return one, other, minus(other, one)


def _few(table: Table) -> Judged:
    one, other, lead = _laid(table, 0)
    return Judged(
        above(lead.interval, 0),
        f"with {one.x:g} pairs, at a KL of {FAR:g} nat: DPO {said(one)}, PPO {said(other)}, difference {said(lead)}; "
        f"DPO with a policy of the same features {said(table['far'].of(DPO_FEATURES)[0])}",
    )


def _many(table: Table) -> Judged:
    one, other, lead = _laid(table, -1)
    behind = replace(lead, values=tuple(-value for value in lead.values))
    return Judged(
        above(behind.interval, 0),
        f"with {one.x:g} pairs, at a KL of {FAR:g} nat: DPO {said(one)}, PPO {said(other)}, DPO leads by "
        f"{said(behind)}; PPO with a reward model that is a table {said(table['far'].of(PPO_TABLE)[-1])}",
    )


def _likelier(table: Table) -> Judged:
    ends = [table["unseen"].of(ours)[-1] for ours, _ in CLASSES]
    told = ", ".join(f"{said(point)} ({point.series})" for point in ends)
    return Judged(
        every(above(point.interval, 0) for point in ends),
        f"log π/π_ref of what no pair shows, nats, with {ends[0].x:g} pairs: {told}. In a table only a logit that a "
        "pair shows can move, and what shows as good takes its share from the rest",
    )


def _more(table: Table) -> Judged:
    ends = {name: table["unseen"].of(name)[-1] for name in LEARNED}
    leads = [minus(ends[ours], ends[theirs]) for ours, theirs in CLASSES]
    told = "; ".join(
        f"{said(ends[ours])} ({ours}) and {said(ends[theirs])} ({theirs}), difference {said(lead)}"
        for (ours, theirs), lead in zip(CLASSES, leads, strict=True)
    )
    return Judged(
        every(above(lead.interval, 0) for lead in leads),
        f"log π/π_ref of what no pair shows, nats, with {leads[0].x:g} pairs: {told}",
    )


def _prompts(table: Table) -> Judged:
    ends = {name: table["other"].of(name)[-1] for name in LEARNED}
    leads = [minus(ends[theirs], ends[ours]) for ours, theirs in CLASSES]
    told = "; ".join(
        f"{said(ends[theirs])} ({theirs}) and {said(ends[ours])} ({ours}), difference {said(lead)}"
        for (ours, theirs), lead in zip(CLASSES, leads, strict=True)
    )
    return Judged(
        every(above(lead.interval, GAIN) for lead in leads),
        f"true reward gained on prompts without a pair, with {leads[0].x:g} pairs elsewhere: {told}",
    )


STUDY = Study(
    name="dpo_ppo",
    title="DPO against PPO with a reward model, from the same pairs",
    setting=(
        f"{CONTEXTS} prompts with {ANSWERS} answers each; the true reward is linear in {FEATURES} features (standard "
        f"deviation 1) plus a part that they do not show ({BEYOND:g}). The reference likes some answers much more than "
        f"others (logits with a standard deviation of {RARE:g}). Pairs are two of its answers to one of {LABELLED} "
        "prompts, labelled by Bradley–Terry. DPO trains its policy on them; PPO draws from a table of logits on all "
        f"{CONTEXTS} prompts, through oneloop's own loop, and is paid by a reward model that was trained on the same "
        "pairs. DPO's policy and PPO's reward model are each either a table, where every answer has its own number, "
        f"or linear in the features. DPO and reward models have {UPDATES} steps of Adam over all pairs, PPO "
        f"{STEPS} steps of four epochs. True reward and KL are exact; between the β of a run they are interpolated."
    ),
    claims=(
        Claim(
            "DPO and PPO with a reward model of the same kind end with the same true reward "
            f"(to {NEAR:g}, at the same β and pairs)",
            "arXiv:2305.18290, section 4: DPO is the closed form of the same objective",
            _same,
        ),
        Claim(
            "With few pairs a reward model that generalises, and PPO, do better than DPO on a policy that does not",
            "arXiv:2503.01067, section 4",
            _few,
        ),
        Claim("With many pairs DPO overtakes PPO whose reward model cannot express all", "asked beside it", _many),
        Claim(
            "DPO makes answers that no pair shows likelier than the reference did",
            "arXiv:2404.10719, section 4",
            _likelier,
        ),
        Claim("DPO leaves them likelier than PPO does", "arXiv:2404.10719, section 4", _more),
        Claim(
            f"On prompts without a pair PPO gains more than DPO (by more than {GAIN:g}), for it can draw there",
            "asked beside it",
            _prompts,
        ),
    ),
    run=run,
    seeds=tuple(range(8)),
)
