"""Carry out a run: build, resume, train, save. The whole life of a run folder."""

from __future__ import annotations

import math
import shutil
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Protocol, runtime_checkable

import torch

from oneloop.algorithms import PolicyGradient
from oneloop.batch import Batch
from oneloop.config import Run, check_same, from_table
from oneloop.errors import CheckpointError, ConfigError, OneloopError, Stopped
from oneloop.experience.pack import Row, collate
from oneloop.model.learner import Learner
from oneloop.model.save import save_critic, save_merged, save_policy
from oneloop.parallel.checkpoint import read_state, write_state
from oneloop.recipes.build import (
    Algorithm,
    Inputs,
    Parts,
    assemble,
    models_in_memory,
    read_inputs,
    reference_from,
    resolved,
)
from oneloop.recipes.meter import Meter
from oneloop.recipes.signals import StopRequest, stop_request
from oneloop.record.atomic import clean_temporaries, new_folder, verify
from oneloop.record.reader import read_run
from oneloop.record.writer import RunFolder
from oneloop.train import train
from oneloop.types import Trajectory


@runtime_checkable
class Observer(Protocol):
    """Who watches a run: the terminal."""

    def say(self, text: str) -> None: ...

    def step(self, step: int, values: Mapping[str, float]) -> None: ...


def execute(run: Run, observer: Observer) -> Path:
    """Train as `run` says; returns the run folder.

    Raises: ConfigError and DataError before step 0; RewardError, DivergedError and Stopped while training.
    """
    algorithm = resolved(run)
    inputs = read_inputs(run, algorithm)
    out = Path(run.out)
    fresh = not _recorded(run, out, inputs)
    facts = {"algorithm": run.algorithm, "model": run.model, "seed": run.seed, "steps": run.steps}
    facts |= {"data": inputs.fingerprint}
    with (
        RunFolder.open(out, resume=run.resume, config_text=run.to_toml(), facts=facts) as folder,
        stop_request() as request,
    ):
        try:
            clean_temporaries(out)
            _train(run, algorithm, inputs, folder, observer, request, fresh=fresh)
        except Stopped as stop:
            folder.finish("stopped", str(stop))
            raise
        except BaseException as error:
            folder.finish("failed", f"{type(error).__name__}: {error}")
            raise
        folder.finish("finished")
    return out


def _recorded(run: Run, out: Path, inputs: Inputs) -> bool:
    """Whether the folder holds a run to go on with; if so, it must be this one, on the same data."""
    if not (run.resume and (out / "config.toml").is_file()):
        return False
    record = read_run(out)
    check_same(run, Run(**from_table(record.config, str(out / "config.toml"))), out)
    if record.info.get("data") != inputs.fingerprint:
        raise ConfigError(
            f"--resume: the rows of --data {run.data} are not those that {out} was trained on. "
            "Fix: the same file, or another --out"
        )
    return True


def _train(
    run: Run,
    algorithm: Algorithm,
    inputs: Inputs,
    folder: RunFolder,
    observer: Observer,
    request: StopRequest,
    *,
    fresh: bool,
) -> None:
    watched = _Watched(folder, observer)
    checkpoint, damaged = (None, []) if fresh else _latest(folder.path)
    meter = Meter.begin(folder, run.device)
    if reference_from(run, algorithm) == "start":
        observer.say("asking the reference about each pair once, before step 0; it is not kept")
    parts = assemble(run, algorithm, inputs, watched, checkpoint)
    start, algorithm = _restore(algorithm, parts, folder, checkpoint)
    for error in damaged:
        watched.event(start, "A_CHECKPOINT", f"{error}; falling back to the one before", "look at the disk")
    saver = Saver(run, parts, folder, request)
    for line in (*batch_arithmetic(run, algorithm, inputs), *parts.notes):
        observer.say(line)
    if start >= run.steps:
        observer.say(f"{folder.path} has all its {run.steps} steps already; nothing to train")
    else:
        if start == 0:
            observer.say(step_zero(run, algorithm, inputs, parts))
        else:
            observer.say(f"resuming at step {start} from {checkpoint}")
        train(
            algorithm,
            parts.experience,
            parts.learner,
            watched,
            steps=run.steps,
            minibatch=run.groups_per_update,
            max_tokens=run.max_tokens,
            seed=run.seed,
            start=start,
            measures=parts.measures,
            hooks=(meter, saver),  # the line of a step stands before its checkpoint, which says how far the files reach
        )
    with new_folder(folder.path / "final") as temporary:
        save_merged(temporary, parts.learner.model, parts.text.tokenizer)
    observer.say(f"saved {folder.path / 'final'}")
    if run.lora:
        with new_folder(folder.path / "adapter") as temporary:
            save_policy(temporary, parts.learner.model, parts.text.tokenizer)
        observer.say(f"saved {folder.path / 'adapter'}, the adapters alone")


class _Watched:
    """A recorder that tells the observer too."""

    def __init__(self, folder: RunFolder, observer: Observer) -> None:
        self._folder, self._observer = folder, observer

    def scalars(self, step: int, values: Mapping[str, float]) -> None:
        self._folder.scalars(step, values)
        self._observer.step(step, values)

    def trajectories(self, step: int, items: Sequence[Trajectory]) -> None:
        self._folder.trajectories(step, items)

    def event(self, step: int, code: str, text: str, fix: str = "") -> None:
        self._folder.event(step, code, text, fix)
        self._observer.say(f"{code} step {step}: {text}" + (f". Fix: {fix}" if fix else ""))


@dataclass(frozen=True)
class Saver:
    """Hook: writes a checkpoint when one is due, or when the run was asked to stop."""

    run: Run
    parts: Parts
    folder: RunFolder
    request: StopRequest

    def __call__(self, step: int, algorithm: Any) -> None:
        done = step + 1
        due = done == self.run.steps or (self.run.save_every > 0 and done % self.run.save_every == 0)
        if due or self.request.signum:
            self._save(done, algorithm)
        if self.request.signum:
            raise Stopped(
                f"stopped by signal {self.request.signum} after step {step}; go on with the same command and --resume",
                self.request.signum,
            )

    def _save(self, done: int, algorithm: Any) -> None:
        root = self.folder.path / "checkpoints"
        learner = self.parts.learner
        kl = algorithm.kl if isinstance(algorithm, PolicyGradient) else None
        extra = {
            "step": done,
            "experience": self.parts.experience.state(),
            "kl_coef": None if kl is None else kl.coef,
            "position": self.folder.position(),
        }
        with new_folder(root / f"step_{done:06d}") as temporary:
            save_policy(temporary / "policy", learner.model, self.parts.text.tokenizer)
            if learner.critic is not None:
                save_critic(temporary / "critic", learner.critic)
            write_state(temporary / "resume", learner, extra)
        # older ones go only after the new one stands
        for old in sorted(root.glob("step_*"))[: -self.run.keep_checkpoints]:
            shutil.rmtree(old)


def _latest(path: Path) -> tuple[Path | None, list[CheckpointError]]:
    """The newest checkpoint whose files are all as they were written, and what is wrong with newer ones."""
    damaged: list[CheckpointError] = []
    for candidate in sorted((path / "checkpoints").glob("step_*"), reverse=True):
        try:
            verify(candidate)
            return candidate, damaged
        except CheckpointError as error:
            damaged.append(error)
    return None, damaged


def _restore(algorithm: Algorithm, parts: Parts, folder: RunFolder, checkpoint: Path | None) -> tuple[int, Algorithm]:
    """Put every piece of state back, and cut the record to the checkpoint; returns the step to go on with."""
    if checkpoint is None:
        folder.rewind({}, 0)
        return 0, algorithm
    state = read_state(checkpoint / "resume", parts.learner)
    parts.experience.restore(state["experience"])
    folder.rewind(state["position"], state["step"])
    if isinstance(algorithm, PolicyGradient) and algorithm.kl is not None:
        algorithm = replace(algorithm, kl=replace(algorithm.kl, coef=state["kl_coef"]))
    return state["step"], algorithm


def batch_arithmetic(run: Run, algorithm: Algorithm, inputs: Inputs) -> list[str]:
    """The batch in words."""
    noun = {"prompts": "prompts", "demonstrations": "demonstrations", "preferences": "pairs"}[inputs.kind]
    size = 1 if inputs.kind == "demonstrations" else run.group_size
    rows, each = run.prompts_per_step * size, run.groups_per_update * size
    product = f"{run.prompts_per_step} {noun} × {size} = {rows} samples" if size > 1 else f"{rows} {noun}"
    updates = math.ceil(run.prompts_per_step / run.groups_per_update)
    epochs = f"{algorithm.epochs} epoch{'s' if algorithm.epochs > 1 else ''}"
    plural = "s" if updates > 1 else ""
    return [
        f"{run.algorithm}: {product} a step → {updates} optimizer step{plural} of {each} × {epochs}; "
        f"{run.steps} steps over {len(inputs.rows)} rows",
        f"models in memory: {', '.join(models_in_memory(run, algorithm))}",
    ]


@torch.no_grad()
def step_zero(run: Run, algorithm: Algorithm, inputs: Inputs, parts: Parts) -> str:
    """Check what must hold before the first update: π_θ = π_ref exactly, KL 0, ratio 1, DPO loss ln 2.

    Raises: OneloopError naming the number that is off.
    """
    batch, learner = _probe(inputs, parts).to(parts.learner.device), parts.learner
    facts = []
    if run.algorithm != "reward_model":
        first, again = learner.policy(batch).logprobs, learner.policy(batch).logprobs
        facts.append(("ratio − 1", float((first - again)[batch.mask].abs().max())))
        if "reference" in algorithm.needs:
            reference = learner.reference(batch) if batch.ref_logprobs is None else batch.ref_logprobs
            facts.append(("log π_θ − log π_ref", float((first - reference)[batch.mask].abs().max())))
    if run.algorithm == "dpo" and not run.set:
        loss = _loss(algorithm, batch, learner)
        facts.append(("DPO loss − ln 2", abs(loss - math.log(2))))
    for name, value in facts:
        if value > 1e-6:
            raise OneloopError(f"step 0: {name} is {value:.3g} and must be 0: the models are not what they say")
    return "step 0 checks: " + (", ".join(f"{name} = {value:.1g}" for name, value in facts) or "none apply")


def _probe(inputs: Inputs, parts: Parts) -> Batch:
    """The first step's pairs, or the prompts of a few rows, read as if their tokens had been chosen."""
    if inputs.kind == "preferences":
        before = parts.experience.state()
        batch = parts.experience.batch(0)
        parts.experience.restore(before)
        return batch
    tokens = [parts.text.prompt(row["prompt"])[0] for row in inputs.rows[:4]]
    return collate([Row(prompt=ids[:1], actions=ids[1:] or ids, group=i, reward=1.0) for i, ids in enumerate(tokens)])


def _loss(algorithm: Algorithm, batch: Batch, learner: Learner) -> float:
    batch = algorithm.prepare(batch, learner)
    return float(algorithm.loss(learner.policy(batch), batch, batch.size).value)
