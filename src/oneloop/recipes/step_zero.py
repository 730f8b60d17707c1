"""What must hold before the first update, checked on the models as they are."""

from __future__ import annotations

import math
from dataclasses import replace
from itertools import islice

import torch

from oneloop.algorithms import DPO, KTO
from oneloop.batch import Batch
from oneloop.config import Run
from oneloop.errors import OneloopError
from oneloop.experience.pack import Row, collate
from oneloop.model.learner import Learner
from oneloop.ports import World
from oneloop.recipes.agent_inputs import AgentInputs
from oneloop.recipes.agents import AgentParts
from oneloop.recipes.build import Parts
from oneloop.recipes.inputs import Inputs
from oneloop.recipes.resolve import Algorithm, scores
from oneloop.together import together
from oneloop.types import Sampling

PROBED, PROBED_TOKENS = 4, 8
"""Prompts that are answered before step 0, and the length of their answers."""
SAME_WEIGHTS, SAME_PASS = 1e-3, 1e-6
"""How far log-probs may lie apart, in nats: of the sampler and the trainer in float32; of one pass on equal models."""


@torch.no_grad()
def step_zero(
    run: Run, algorithm: Algorithm, inputs: Inputs | AgentInputs, parts: Parts | AgentParts, world: World
) -> str:
    """Check what must hold before the first update: π_θ = μ, so that the ratio is 1; π_θ = π_ref; DPO loss ln 2.

    Raises: OneloopError naming the number that is off.
    """
    if isinstance(inputs, AgentInputs) or isinstance(parts, AgentParts):
        return "step 0 checks: none apply"  # an agent acts by the very modules that are trained
    if inputs.kind == "demonstrations" or scores(algorithm):
        return "step 0 checks: none apply"
    batch, learner = _probe(run, inputs, parts, world).to(parts.learner.device), parts.learner
    facts: list[tuple[str, float, float]] = []
    logprobs = learner.policy(batch).logprobs
    if batch.rollout_logprobs is not None:
        gap = float((logprobs - batch.rollout_logprobs)[batch.mask].abs().max())
        # elsewhere, or in half precision, sampler and trainer round apart; rollout/logprob_gap follows it
        facts.append(("ratio − 1", math.expm1(gap), SAME_WEIGHTS if run.samples_exactly else math.inf))
    if "reference" in algorithm.needs and not run.teacher:
        reference = learner.reference(batch) if batch.ref_logprobs is None else batch.ref_logprobs
        facts.append(("log π_θ − log π_ref", float((logprobs - reference)[batch.mask].abs().max()), SAME_PASS))
    if replace(algorithm, epochs=DPO.epochs) == DPO:
        facts.append(("DPO loss − ln 2", abs(_loss(algorithm, batch, learner) - math.log(2)), SAME_PASS))
    if replace(algorithm, epochs=KTO.epochs) == KTO:  # σ(0) for good and bad answers alike
        facts.append(("KTO loss − 1/2", abs(_loss(algorithm, batch, learner) - 0.5), SAME_PASS))
    for name, value, most in facts:
        if not value <= most:
            raise OneloopError(f"step 0: {name} is {value:.3g} and must be 0: the models are not what they say")
    return "step 0 checks: " + (", ".join(f"{name} = {value:.1g}" for name, value, _ in facts) or "none apply")


def _probe(run: Run, inputs: Inputs, parts: Parts, world: World) -> Batch:
    """The first step's pairs, or answers to a few prompts. Neither changes what the run will draw."""
    engine = parts.engine
    if engine is None:
        before = parts.experience.state()
        batch = parts.experience.batch(0)
        parts.experience.restore(before)
        return batch
    sampling = Sampling(max_new_tokens=min(run.max_new_tokens, PROBED_TOKENS), temperature=run.temperature)
    context = getattr(parts.learner.model.config, "max_position_embeddings", math.inf)
    every = (parts.text.prompt(row["prompt"], row.get("tools"))[0] for row in inputs.rows)
    prompts = list(islice((ids for ids in every if len(ids) + sampling.max_new_tokens <= context), PROBED))
    # dealt: where two ranks ask a server on a GPU the same, they need not hear the same
    mine = [number for number in world.share(range(len(prompts))) if number is not None]
    own = together(world, lambda: engine.generate([prompts[number] for number in mine], sampling, mine))
    answers = world.collect([(answer.tokens, answer.logprobs) for answer in own])
    return collate([
        Row(prompt=ids, actions=tokens, group=number, reward=1.0, logprobs=logprobs)
        for number, (ids, (tokens, logprobs)) in enumerate(zip(prompts, answers, strict=True))
    ])  # fmt: skip


def _loss(algorithm: Algorithm, batch: Batch, learner: Learner) -> float:
    batch = algorithm.prepare(batch, learner)
    return float(algorithm.loss(learner.policy(batch), batch, batch.size).value)
