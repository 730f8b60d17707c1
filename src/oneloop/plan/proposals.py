"""Single changes of a run that save memory, from those that change no result to those that change most."""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import replace
from functools import partial
from typing import Any, NamedTuple

from oneloop.algorithms import PolicyGradient
from oneloop.config import Run
from oneloop.model import lora, optimizer
from oneloop.plan.bill import Lengths
from oneloop.recipes.device import offloads
from oneloop.recipes.resolve import kind_of, reference_from, resolved

USUAL_RANK = 16
"""Of the adapters that a plan proposes."""


class Proposal(NamedTuple):
    """A changed run.

    Args:
        why: what it costs.
    """

    flag: str
    why: str
    run: Run
    lengths: Lengths

    @property
    def options(self) -> dict[str, str]:
        """Values by flag; "" for a flag without one."""
        flags = (part.split() for part in f" {self.flag}".split(" --")[1:])
        return {f"--{name}": " ".join(value) for name, *value in flags}

    @property
    def kind(self) -> str:
        """The same for other numbers."""
        return re.sub(r"\d+", "N", self.flag)


def _changed(run: Run, lengths: Lengths, flag: str, why: str, **settings: Any) -> Proposal:
    return Proposal(flag, why, replace(run, **settings), lengths)


def proposals(run: Run, lengths: Lengths) -> Iterator[Proposal]:
    changed = partial(_changed, run, lengths)
    for tokens in (run.max_tokens // 2, run.max_tokens // 4, run.max_tokens // 8):
        if tokens >= lengths.prompt + lengths.behind:
            why = "the same result in more and smaller passes"
            yield changed(f"--max-tokens {tokens}", why, max_tokens=tokens)
    if not run.gradient_checkpointing:
        why = "the same numbers, about a third more time in the update"
        yield changed("--gradient-checkpointing", why, gradient_checkpointing=True)
    if _has_idle(run) and not run.offload_idle and run.shard == "none":
        why = "the same numbers; models go to the device and back in every step"
        yield changed("--offload-idle", why, offload_idle=True)
    if run.ranks > 1:
        yield from _sharded(run, lengths)
    if run.dtype == "float32":
        yield changed("--dtype bfloat16", "forward passes are rounded to three digits", dtype="bfloat16")
    if run.optimizer == "adamw" and run.shard == "none" and optimizer.available():
        why = "moments are rounded to 8 bits; the state of AdamW shrinks to a quarter"
        yield changed("--optimizer adamw-8bit", why, optimizer="adamw-8bit")
    if run.device != "cpu":
        why = "more devices, each with a share of the weights, gradients and moments"
        ranks = max(2 * run.ranks, 2)
        yield _shared(run, lengths, f"--ranks {ranks} --shard full", why, ranks=ranks, shard="full")
    yield from _other_runs(run, lengths)


def changes_of(run: Run, lengths: Lengths) -> Iterator[Proposal]:
    """What somebody may want to know of a run that was trained: what would save memory, and what was saved already."""
    changed, double = partial(_changed, run, lengths), 2 * run.max_tokens
    yield from proposals(run, lengths)
    if run.reward_model:
        yield changed("--reward-model ''", "rules alone score", reward_model="")
    if run.lora:
        yield changed("--lora 0", "all matrices train", lora=0, lora_targets=())
    if run.gradient_checkpointing:
        why = "layers are kept for the backward pass"
        yield changed("--no-gradient-checkpointing", why, gradient_checkpointing=False)
    if run.dtype != "float32":
        yield changed("--dtype float32", "nothing is rounded", dtype="float32")
    if run.optimizer != "adamw":
        yield changed("--optimizer adamw", "both moments in float32", optimizer="adamw")
    yield changed(f"--max-tokens {double}", "fewer and larger passes", max_tokens=double)


def _has_idle(run: Run) -> bool:
    """Whether some model is not needed in every phase, and has somewhere to go."""
    algorithm = resolved(run)
    separate = "values" in algorithm.needs and run.critic == "separate"
    asks = reference_from(run, algorithm) == "model" or bool(run.reward_model) or separate
    return asks and offloads(replace(run, offload_idle=True, shard="none", cpu_offload=False))


def _shared(run: Run, lengths: Lengths, flag: str, why: str, **settings: Any) -> Proposal:
    """Without what does not go together with shares."""
    alone: dict[str, Any] = {"offload_idle": False}
    alone |= {"optimizer": "adamw"} if run.optimizer != "adamw" else {}
    flag += "".join([" --no-offload-idle"] * run.offload_idle + [" --optimizer adamw"] * ("optimizer" in alone))
    return _changed(run, lengths, flag, why, **alone, **settings)


def _sharded(run: Run, lengths: Lengths) -> Iterator[Proposal]:
    """Of several ranks: they share out more."""
    changed = partial(_shared, run, lengths)
    if run.shard == "none":
        why = "gradients and moments are shared out; weights are whole while a pass runs: the same result to rounding"
        yield changed("--shard grad", why, shard="grad")
    if run.shard != "full":
        why = "weights are shared out too, and each layer gathered for every pass: the same result to rounding"
        yield changed("--shard full", why, shard="full")
    if not run.cpu_offload and run.device != "cpu":
        why = "shares rest in the machine's memory, where the optimizer runs: slower updates"
        yield changed("--shard full --cpu-offload", why, shard="full", cpu_offload=True)


def _other_runs(run: Run, lengths: Lengths) -> Iterator[Proposal]:
    """What changes the result."""
    algorithm, changed = resolved(run), partial(_changed, run, lengths)
    if run.staleness:
        turns: dict[str, Any] = {"staleness": 0, "in_flight": "finish", "replay": ""}
        flag = "--staleness 0" + " --in-flight finish" * (run.in_flight == "continue")
        yield changed(flag, "sampling and training take turns, without a second process", **turns)
    if "values" in algorithm.needs and run.critic == "separate":
        yield changed("--critic shared", "the critic is a head on the policy's backbone", critic="shared")
    saved = not run.model.startswith("scratch:") and lora.base_of(run.model) == run.model
    if not run.lora and lora.available() and saved:
        yield changed(f"--lora {USUAL_RANK}", "adapters are trained instead of the matrices", lora=USUAL_RANK)
    if isinstance(algorithm, PolicyGradient) and "reference" in algorithm.needs:
        yield changed("--set kl=none", "nothing holds the policy near its start", set=(*run.set, "kl=none"))
    half = lengths.prompt + lengths.behind // 2
    if run.environment and half >= lengths.prompt + run.max_new_tokens:  # a turn begins only where it fits
        answer = min(lengths.answer, half - lengths.prompt)
        shorter = replace(lengths, answer=answer, said=half - lengths.prompt - answer)
        why = "longer episodes are cut"
        yield _changed(run, shorter, f"--max-episode-tokens {half}", why, max_episode_tokens=half)
    if kind_of(algorithm) == "prompts" and not run.environment and lengths.answer == run.max_new_tokens > 1:
        half, why = run.max_new_tokens // 2, "longer answers are cut"
        shorter = replace(lengths, answer=half)
        yield _changed(run, shorter, f"--max-new-tokens {half}", why, max_new_tokens=half)
