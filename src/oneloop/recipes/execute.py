"""Carry out a run: build, resume, train, save. The whole life of a run folder."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, closing
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

from oneloop.config import Run, not_default
from oneloop.errors import CheckpointError, DiskError, OneloopError, OutOfMemory, RankError, Stopped, with_notes
from oneloop.loop import train
from oneloop.model.spelling import Spelling
from oneloop.parallel.launch import ALONE, Ranks
from oneloop.ports import SingleProcess, Trace, Untraced, World
from oneloop.recipes.agent_inputs import AgentInputs
from oneloop.recipes.agents import AgentParts, agent_arithmetic, assemble_agent
from oneloop.recipes.best import METRIC, Best
from oneloop.recipes.build import Parts, assemble
from oneloop.recipes.explain import explain
from oneloop.recipes.explain import facts as objective_facts
from oneloop.recipes.given import NOTHING, Given
from oneloop.recipes.health import Healthy, watch_of
from oneloop.recipes.held import Held
from oneloop.recipes.inputs import Inputs
from oneloop.recipes.machine import machine
from oneloop.recipes.meter import Meter
from oneloop.recipes.preflight import preflight
from oneloop.recipes.refused import refused_by_disk
from oneloop.recipes.resolve import (
    Algorithm,
    kind_of,
    models_in_memory,
    reference_from,
    resolved,
    sampler,
)
from oneloop.recipes.resume import elsewhere, finished, latest, recorded, restore
from oneloop.recipes.saver import Saver
from oneloop.recipes.signals import Interrupted, StopRequest, stop_request
from oneloop.recipes.skipped import Skipped
from oneloop.recipes.step_zero import step_zero
from oneloop.recipes.watched import Observer, Silent, Watched
from oneloop.record.atomic import clean_temporaries, new_folder, write_text
from oneloop.record.elsewhere import Elsewhere
from oneloop.record.reader import METRICS, RunRecord
from oneloop.record.writer import RunFolder, remove_run
from oneloop.room import out_of_memory
from oneloop.together import Crew, by_first, together
from oneloop.trace.traced import Traced


def execute(
    run: Run,
    observer: Observer,
    given: Given = NOTHING,
    inputs: Inputs | AgentInputs | None = None,
    ranks: Ranks = ALONE,
) -> Path:
    """Train as `run` says, with what Python hands over beside it; returns the run folder.

    Args:
        inputs: what `preflight` read for this very run; None: it is asked here.
        ranks: with whom. Each goes through the same lines; the first alone has the folder, the loggers and `observer`.

    Raises: ConfigError and DataError before step 0; RewardError, DivergedError, RankError and Stopped while training.
    """
    algorithm = resolved(run, given.algorithm)
    inputs = inputs or preflight(run, kind_of(algorithm), given, ranks.world)
    run = replace(run, ranks=ranks.count)
    out = Path(run.out)
    if not ranks.first:
        observer = Silent()
    with closing(inputs):
        world = ranks.world or SingleProcess()
        if by_first(world, lambda: run.resume and finished(run, out, inputs)):
            observer.say(f"{out} has all its {run.steps} steps already, and its model: nothing to train")
            return out
        folder, record = together(
            world, partial(_opened, run, algorithm, inputs) if ranks.first else lambda: (Elsewhere(out), None)
        )
        ranks.last_words(lambda text: folder.finish("failed", text, OneloopError.exit_code))
        with (
            folder,
            stop_request(lambda signum: folder.finish("stopped", _amid(signum), 128 + signum), ranks.first) as request,
            Watched(folder, observer, ranks.phase, world) as watched,
            ExitStack() as ends,
        ):
            try:
                _train(run, given, algorithm, inputs, folder, watched, observer, request, record, ranks, ends)
            except Stopped as stop:
                folder.finish("stopped", with_notes(stop), stop.exit_code)
                raise
            except Interrupted as second:
                folder.finish("stopped", _amid(second.signum), 128 + second.signum)
                raise
            except BaseException as error:
                found = _explained(ranks, error)
                folder.finish("failed", _told_of(found), getattr(found, "exit_code", 1))
                if found is error:
                    raise
                raise found from error
            folder.finish("finished", exit_code=0)
    return out


def _opened(run: Run, algorithm: Algorithm, inputs: Inputs | AgentInputs) -> tuple[RunFolder, RunRecord | None]:
    """The run's folder, with the run that it holds already where that is gone on with."""
    out = Path(run.out)
    if run.overwrite:
        remove_run(out)
    record = recorded(run, out, inputs)
    facts = {"algorithm": algorithm.name, "model": run.env or run.model, "seed": run.seed, "steps": run.steps}
    facts |= {"data": inputs.fingerprint, "machine": machine() | {"ranks": run.ranks}, "changed": not_default(run)}
    facts |= {"explain": objective_facts(algorithm), "isolation": inputs.isolation}
    folder = RunFolder.open(out, resume=run.resume, config_text=run.to_toml(), facts=facts)
    clean_temporaries(out)
    write_text(out / "objective.txt", explain(algorithm, sampler(run)) + "\n")
    return folder, record


def _explained(ranks: Ranks, error: BaseException) -> BaseException:
    """What is told of a failure: who failed first, and memory that ran out as what it is."""
    found = ranks.explained(error)
    if isinstance(found, OneloopError) or not out_of_memory(found):
        return found
    told = OutOfMemory(f"memory ran out: {str(found).splitlines()[0] if str(found) else type(found).__name__}")
    for note in getattr(found, "__notes__", ()):
        told.add_note(note)
    return told


def _told_of(error: BaseException) -> str:
    return f"{type(error).__name__}: {with_notes(error)}"


def _amid(signum: int) -> str:
    return f"stopped at once by signal {signum}, amid a step; --resume goes on from the last checkpoint"


def _train(
    run: Run,
    given: Given,
    algorithm: Algorithm,
    inputs: Inputs | AgentInputs,
    folder: RunFolder,
    watched: Watched,
    observer: Observer,
    request: StopRequest,
    record: RunRecord | None,
    ranks: Ranks,
    ends: ExitStack,
) -> None:
    world = ranks.world or SingleProcess()
    checkpoint, damaged = _latest(run, algorithm, folder, record, world)
    together(world, lambda: given.placed(run, folder.path) if ranks.first else run)
    run = given.placed(run, folder.path)  # where it lies by now
    meter = Meter.begin(folder, run.device, world)
    if reference_from(run, algorithm) == "start":
        kept = f"its answers are kept in {run.reference_cache}" if run.reference_cache else "it is not kept"
        observer.say(f"asking the reference about each pair once, before step 0; {kept}")
    parts = _assembled(run, algorithm, inputs, watched, checkpoint, observer, world)
    ends.callback(parts.close)
    again = len(record.metrics) if record is not None and checkpoint is None else 0
    start, algorithm, lost = restore(run, algorithm, parts, folder, checkpoint)
    watched.report_to(run, start)
    for error in damaged:
        watched.event(start, "A_CHECKPOINT", f"{error}; falling back to the one before", "look at the disk")
    for text in lost:
        watched.event(start, "A_RECORD", text, "look at who writes to the folder")
    _say_what_changed(run, record, start, again, parts.lost, watched, observer)
    saver = Saver(run, parts, folder, request, start, algorithm, watched, world)
    saver.check_room()
    metric, write = run.keep_best_by or METRIC[inputs.kind], parts.write_model
    best = [Best(metric, folder, watched, write, parts.learner.writers)] if run.keep_best else []
    for line in (*batch_arithmetic(run, algorithm, inputs), *parts.notes):
        observer.say(line)
    if start >= run.steps:
        observer.say(f"{folder.path} has all its {run.steps} steps already; its model is written once more")
    else:
        _stop_if_asked(request, start, world)
        if start == 0:
            observer.say(step_zero(run, algorithm, inputs, parts, world))
            _before_training(run, parts, watched, best)
            _stop_if_asked(request, start, world)
        else:
            observer.say(f"resuming at step {start} from {checkpoint}")
        # what leaves the device as a phase begins is in the peak of the one before
        phase = partial(_told, (parts.learner.phase, meter.phase, watched.phase))
        watch = watch_of(run, algorithm, len(inputs.eval_rows or ()), _before(start, record))
        held = Held(partial(_in_phase, phase, "saving", saver), alone=world.ranks == 1)
        try:
            train(
                algorithm,
                parts.experience,
                parts.learner,
                Healthy(watched, watch),
                steps=run.steps,
                minibatch=run.groups_per_update,
                max_tokens=run.max_tokens,
                seed=run.seed,
                start=start,
                world=world,
                trace=_traced(run, algorithm, inputs, parts, folder, watched, world),
                unsound=Skipped(folder, watched, parts.decode),
                measures=(
                    *(partial(_in_phase, phase, "evaluation", held.measure, measure) for measure in parts.measures),
                    *parts.counts,
                ),
                # a step's line stands before its checkpoint, which says how far the files reach
                hooks=(meter, *best, held),
                phase=phase,
            )
        except Stopped:
            raise
        except Exception as error:
            found = _explained(ranks, error)
            _rescue(saver, found)
            if found is error:
                raise
            raise found from error
    _save_result(run, parts, folder, observer)


def _assembled(
    run: Run,
    algorithm: Algorithm,
    inputs: Inputs | AgentInputs,
    watched: Watched,
    checkpoint: Path | None,
    observer: Observer,
    world: World,
) -> Parts | AgentParts:
    if isinstance(inputs, AgentInputs):
        return assemble_agent(run, algorithm, checkpoint)
    return assemble(run, algorithm, inputs, watched, checkpoint, observer.say, watched.phase, world)


def _stop_if_asked(request: StopRequest, start: int, world: World) -> None:
    """Raises: Stopped, on all ranks, where one of them was asked to stop before anything is trained."""
    signum = int(world.sum({"signum/max": float(request.signum)})["signum/max"])
    if signum:
        raise Stopped(
            f"stopped by signal {signum} before step {start + 1}, with nothing to save; the same command"
            + (" and --resume goes on" if start else " starts again"),
            signum,
        )


def _latest(
    run: Run, algorithm: Algorithm, folder: RunFolder, record: RunRecord | None, world: World
) -> tuple[Path | None, Sequence[CheckpointError]]:
    """The checkpoint to go on from, as rank 0 finds it, and there what is wrong with newer ones."""
    checkpoint, damaged = together(
        world, lambda: (None, []) if record is None else latest(run, algorithm, folder, record)
    )
    name = world.agree(str(checkpoint) if checkpoint else "")
    return Path(name) if name else None, damaged


def _before(start: int, record: RunRecord | None) -> Iterator[dict[str, Any]]:
    """The recorded steps that stand."""
    return iter(()) if record is None else (row for row in record.lines(METRICS) if row["step"] < start)


def _traced(
    run: Run,
    algorithm: Algorithm,
    inputs: Inputs | AgentInputs,
    parts: Parts | AgentParts,
    folder: RunFolder,
    watched: Watched,
    world: World,
) -> Trace:
    if isinstance(parts, AgentParts) or not run.trace:
        return Untraced()
    spell, decode = Spelling(parts.text.tokenizer), parts.text.decode
    kind, keep = inputs.kind, folder.traced
    return Traced(algorithm, kind, keep=keep, recorder=watched, spell=spell, decode=decode, seed=run.seed, world=world)


def _before_training(run: Run, parts: Parts | AgentParts, watched: Watched, best: Sequence[Best]) -> None:
    """The start of the held-out curves. It draws from no stream of training, whose bits it leaves as they are."""
    if run.eval_every and parts.measures:
        watched.before({name: value for each in parts.measures for name, value in each.measure().items()})
    for one in best:
        one.before()


def _save_result(run: Run, parts: Parts | AgentParts, folder: RunFolder, observer: Observer) -> None:
    """Raises: DiskError where it cannot be saved; the last checkpoint has everything."""
    if not (folder.keeps or parts.learner.sharded):
        return
    writers = parts.learner.writers
    for name, write in parts.results().items():
        refused = refused_by_disk(writers, partial(_put, folder.path / name, writers, write))
        if refused is not None:
            raise DiskError(
                f"{folder.path / name} could not be saved: {refused}. All {run.steps} steps are in a checkpoint. Fix: "
                "make room, then the same command with --resume"
            ) from refused
        observer.say(f"saved {folder.path / name}" + (", the adapters alone" if name == "adapter" else ""))
    by_first(writers, folder.check_whole)


def _put(path: Path, writers: Crew, write: Callable[[Path], None]) -> None:
    with new_folder(path, writers) as temporary:
        write(temporary)


def _rescue(saver: Saver, error: BaseException) -> None:
    """Save what was trained, and add to the error where it is. What failed first is what is told."""
    try:
        where = saver.rescue(gone=isinstance(error, RankError))
    except Exception as second:
        where = f"what was trained could not be saved either: {type(second).__name__}: {second}"
    if where:
        error.add_note(where)


def _say_what_changed(
    run: Run,
    record: RunRecord | None,
    start: int,
    again: int,
    lost: Sequence[str],
    watched: Watched,
    observer: Observer,
) -> None:
    for text in lost:
        watched.event(start, "A_REPLAY", text, "an environment whose reset(seed=...) sets all that it draws from")
    if record is None:
        return
    if again:
        observer.say(
            f"no checkpoint could be read: starting at step 0 again, {again} recorded steps are lost, as --accept-loss "
            "says. --save-every keeps them"
        )
    if other := elsewhere(record, run.ranks):
        watched.event(start, "A_MACHINE", other, "the same machine, torch, ranks and OMP_NUM_THREADS for equal bits")


def _told(listeners: Sequence[Callable[[str], None]], name: str) -> None:
    for listener in listeners:
        listener(name)


def _in_phase(told: Callable[[str], None], name: str, part: Callable[..., Any], *arguments: Any) -> Any:
    """Carry out a measure or a hook, which know themselves whether they are due, under the name of its phase."""
    told(name)
    return part(*arguments)


def batch_arithmetic(run: Run, algorithm: Algorithm, inputs: Inputs | AgentInputs) -> list[str]:
    """The batch in words."""
    if isinstance(inputs, AgentInputs):
        return agent_arithmetic(run, algorithm)
    noun = {
        "prompts": "prompts", "demonstrations": "demonstrations", "preferences": "pairs", "unpaired": "rated answers",
    }[inputs.kind]  # fmt: skip
    size = 1 if inputs.kind in ("demonstrations", "unpaired") else run.group_size
    rows, each = run.prompts_per_step * size, run.groups_per_update * size
    product = f"{run.prompts_per_step} {noun} × {size} = {rows} samples" if size > 1 else f"{rows} {noun}"
    updates = math.ceil(run.prompts_per_step / run.groups_per_update)
    epochs = f"{algorithm.epochs} epoch{'s' if algorithm.epochs > 1 else ''}"
    plural = "s" if updates > 1 else ""
    return [
        f"{algorithm.name}: {product} a step → {updates} optimizer step{plural} of {each} × {epochs}; "
        f"{run.steps} steps over {len(inputs.rows)} rows",
        f"models in memory: {', '.join(models_in_memory(run, algorithm))}",
    ]
