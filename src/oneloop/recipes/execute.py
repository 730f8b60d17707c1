"""Carry out a run: build, resume, train, save. The whole life of a run folder."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from itertools import islice
from pathlib import Path
from typing import Protocol, runtime_checkable

import torch

from oneloop.batch import Batch
from oneloop.config import Run
from oneloop.errors import OneloopError, Stopped
from oneloop.experience.pack import Row, collate
from oneloop.model.learner import Learner
from oneloop.model.save import save_merged, save_policy
from oneloop.recipes.build import Parts, assemble
from oneloop.recipes.inputs import Inputs
from oneloop.recipes.meter import Meter
from oneloop.recipes.preflight import preflight
from oneloop.recipes.resolve import Algorithm, kind_of, models_in_memory, reference_from, resolved
from oneloop.recipes.resume import elsewhere, latest, machine, recorded, restore
from oneloop.recipes.saver import Saver
from oneloop.recipes.signals import Interrupted, StopRequest, stop_request
from oneloop.record.atomic import clean_temporaries, new_folder
from oneloop.record.reader import RunRecord
from oneloop.record.writer import RunFolder, remove_run
from oneloop.train import train
from oneloop.types import Sampling, Trajectory


@runtime_checkable
class Observer(Protocol):
    """Who watches a run: the terminal."""

    def say(self, text: str) -> None: ...

    def step(self, step: int, values: Mapping[str, float]) -> None: ...


def execute(run: Run, observer: Observer, inputs: Inputs | None = None) -> Path:
    """Train as `run` says; returns the run folder.

    Args:
        inputs: what `preflight` read for this very run; None: it is asked here.

    Raises: ConfigError and DataError before step 0; RewardError, DivergedError and Stopped while training.
    """
    algorithm = resolved(run)
    inputs = inputs or preflight(run, kind_of(algorithm))
    out = Path(run.out)
    if run.overwrite:
        remove_run(out)
    record = recorded(run, out, inputs)
    facts = {"algorithm": run.algorithm, "model": run.model, "seed": run.seed, "steps": run.steps}
    facts |= {"data": inputs.fingerprint, "machine": machine()}
    with (
        RunFolder.open(out, resume=run.resume, config_text=run.to_toml(), facts=facts) as folder,
        stop_request(lambda signum: folder.finish("stopped", _amid(signum))) as request,
    ):
        try:
            clean_temporaries(out)
            _train(run, algorithm, inputs, folder, observer, request, record)
        except Stopped as stop:
            folder.finish("stopped", str(stop))
            raise
        except Interrupted as second:
            folder.finish("stopped", _amid(second.signum))
            raise Stopped(_amid(second.signum), second.signum) from None
        except BaseException as error:
            folder.finish("failed", "\n".join([f"{type(error).__name__}: {error}", *getattr(error, "__notes__", ())]))
            raise
        folder.finish("finished")
    return out


def _amid(signum: int) -> str:
    return f"stopped at once by signal {signum}, amid a step; --resume goes on from the last checkpoint"


def _train(
    run: Run,
    algorithm: Algorithm,
    inputs: Inputs,
    folder: RunFolder,
    observer: Observer,
    request: StopRequest,
    record: RunRecord | None,
) -> None:
    watched = _Watched(folder, observer)
    checkpoint, damaged = (None, []) if record is None else latest(folder, record)
    meter = Meter.begin(folder, run.device)
    if reference_from(run, algorithm) == "start":
        observer.say("asking the reference about each pair once, before step 0; it is not kept")
    parts = assemble(run, algorithm, inputs, watched, checkpoint)
    start, algorithm = restore(algorithm, parts, folder, checkpoint)
    for error in damaged:
        watched.event(start, "A_CHECKPOINT", f"{error}; falling back to the one before", "look at the disk")
    if record is not None:
        _say_what_changed(record, checkpoint, start, watched, observer)
    saver = Saver(run, parts, folder, request, start, algorithm)
    for line in (*batch_arithmetic(run, algorithm, inputs), *parts.notes):
        observer.say(line)
    if start >= run.steps:
        observer.say(f"{folder.path} has all its {run.steps} steps already; nothing to train")
    else:
        if start == 0:
            observer.say(step_zero(run, algorithm, inputs, parts))
        else:
            observer.say(f"resuming at step {start} from {checkpoint}")
        try:
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
                hooks=(meter, saver),  # a step's line stands before its checkpoint, which says how far the files reach
            )
        except Stopped:
            raise
        except Exception as error:
            _rescue(saver, error)
            raise
    _save_result(run, parts, folder, observer)


def _save_result(run: Run, parts: Parts, folder: RunFolder, observer: Observer) -> None:
    with new_folder(folder.path / "final") as temporary:
        save_merged(temporary, parts.learner.model, parts.text.tokenizer)
    observer.say(f"saved {folder.path / 'final'}")
    if run.lora:
        with new_folder(folder.path / "adapter") as temporary:
            save_policy(temporary, parts.learner.model, parts.text.tokenizer)
        observer.say(f"saved {folder.path / 'adapter'}, the adapters alone")


def _rescue(saver: Saver, error: Exception) -> None:
    """Save what was trained, and add to the error where it is. What failed first is what is told."""
    try:
        where = saver.rescue()
    except Exception as second:
        where = f"what was trained could not be saved either: {type(second).__name__}: {second}"
    if where:
        error.add_note(where)


def _say_what_changed(
    record: RunRecord, checkpoint: Path | None, start: int, watched: _Watched, observer: Observer
) -> None:
    if checkpoint is None and record.metrics:
        observer.say(
            f"no checkpoint had been saved yet: starting at step 0 again, {len(record.metrics)} recorded steps are "
            "repeated. --save-every keeps them"
        )
    if other := elsewhere(record):
        watched.event(start, "A_MACHINE", other, "the same machine, torch and OMP_NUM_THREADS for equal bits")


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


PROBED, PROBED_TOKENS = 4, 8
"""Prompts that are answered before step 0, and the length of their answers."""
SAME_WEIGHTS, SAME_PASS = 1e-3, 1e-6
"""How far log-probs may lie apart, in nats: of the sampler and the trainer in float32; of one pass on equal models."""


@torch.no_grad()
def step_zero(run: Run, algorithm: Algorithm, inputs: Inputs, parts: Parts) -> str:
    """Check what must hold before the first update: π_θ = μ, so that the ratio is 1; π_θ = π_ref; DPO loss ln 2.

    Raises: OneloopError naming the number that is off.
    """
    if inputs.kind == "demonstrations" or run.algorithm == "reward_model":
        return "step 0 checks: none apply"
    batch, learner = _probe(run, inputs, parts).to(parts.learner.device), parts.learner
    facts: list[tuple[str, float, float]] = []
    logprobs = learner.policy(batch).logprobs
    if batch.rollout_logprobs is not None:
        gap = float((logprobs - batch.rollout_logprobs)[batch.mask].abs().max())
        # in half precision sampler and trainer round apart; rollout/logprob_gap follows it through the run
        facts.append(("ratio − 1", math.expm1(gap), SAME_WEIGHTS if run.dtype == "float32" else math.inf))
    if "reference" in algorithm.needs:
        reference = learner.reference(batch) if batch.ref_logprobs is None else batch.ref_logprobs
        facts.append(("log π_θ − log π_ref", float((logprobs - reference)[batch.mask].abs().max()), SAME_PASS))
    if run.algorithm == "dpo" and not run.set:
        facts.append(("DPO loss − ln 2", abs(_loss(algorithm, batch, learner) - math.log(2)), SAME_PASS))
    for name, value, most in facts:
        if not value <= most:
            raise OneloopError(f"step 0: {name} is {value:.3g} and must be 0: the models are not what they say")
    return "step 0 checks: " + (", ".join(f"{name} = {value:.1g}" for name, value, _ in facts) or "none apply")


def _probe(run: Run, inputs: Inputs, parts: Parts) -> Batch:
    """The first step's pairs, or answers to a few prompts. Neither changes what the run will draw."""
    if parts.engine is None:
        before = parts.experience.state()
        batch = parts.experience.batch(0)
        parts.experience.restore(before)
        return batch
    sampling = Sampling(max_new_tokens=min(run.max_new_tokens, PROBED_TOKENS), temperature=run.temperature)
    context = getattr(parts.learner.model.config, "max_position_embeddings", math.inf)
    every = (parts.text.prompt(row["prompt"])[0] for row in inputs.rows)
    prompts = list(islice((ids for ids in every if len(ids) + sampling.max_new_tokens <= context), PROBED))
    answers = parts.engine.generate(prompts, sampling, range(len(prompts)))
    return collate([
        Row(prompt=ids, actions=answer.tokens, group=number, reward=1.0, logprobs=answer.logprobs)
        for number, (ids, answer) in enumerate(zip(prompts, answers, strict=True))
    ])  # fmt: skip


def _loss(algorithm: Algorithm, batch: Batch, learner: Learner) -> float:
    batch = algorithm.prepare(batch, learner)
    return float(algorithm.loss(learner.policy(batch), batch, batch.size).value)
