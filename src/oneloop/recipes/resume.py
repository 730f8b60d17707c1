"""Taking up a run: whether it is this one, the newest checkpoint that is whole, and every piece of state put back."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

from oneloop.algorithms import PolicyGradient
from oneloop.config import Run, check_same
from oneloop.errors import CheckpointError, ConfigError
from oneloop.parallel.checkpoint import read_state
from oneloop.recipes.build import Parts
from oneloop.recipes.inputs import Inputs
from oneloop.recipes.machine import machine
from oneloop.recipes.resolve import Algorithm
from oneloop.record.atomic import verify
from oneloop.record.reader import RunRecord, read_run
from oneloop.record.writer import RunFolder
from oneloop.toml import from_table

AFRESH = "--overwrite instead of --resume, which deletes this run and starts afresh"


def recorded(run: Run, out: Path, inputs: Inputs) -> RunRecord | None:
    """The run in the folder, to go on with; it must be this one, on the same data. None: there is none yet.

    Raises: ConfigError for another run, and for one whose config.toml is lost: nobody could tell.
    """
    if not (run.resume and (out / "run.json").is_file()):
        return None
    record = read_run(out)
    checkpoints = len(list((out / "checkpoints").glob("step_*")))
    if not record.config:
        if not record.metrics and not checkpoints:
            return None  # killed before its first step
        raise ConfigError(
            f"--resume: {out / 'config.toml'} is missing, so nobody can tell whether this command is the run in {out}; "
            f"{len(record.metrics)} recorded steps and {checkpoints} checkpoints would be overwritten. Fix: put the "
            f"file back, another --out, or {AFRESH}"
        )
    check_same(run, Run(**from_table(record.config, str(out / "config.toml"))), out)
    if record.info.get("data") != inputs.fingerprint:
        raise ConfigError(
            f"--resume: the rows of --data {run.data} are not those that {out} was trained on. "
            "Fix: the same file, or another --out"
        )
    return record


def latest(folder: RunFolder, record: RunRecord) -> tuple[Path | None, list[CheckpointError]]:
    """The newest checkpoint whose files are all as they were written, and what is wrong with newer ones.

    Raises: ConfigError where checkpoints had been saved and none of them can be used.
    """
    damaged: list[CheckpointError] = []
    for candidate in sorted((folder.path / "checkpoints").glob("step_*"), reverse=True):
        try:
            verify(candidate)
            return candidate, damaged
        except CheckpointError as error:
            damaged.append(error)
    if damaged or folder.checkpoint:
        what = (
            f"no checkpoint is whole ({str(damaged[0]).partition(' Fix:')[0]})"
            if damaged
            else "its checkpoints are gone"
        )
        raise ConfigError(
            f"--resume: {folder.path} had saved step {folder.checkpoint or len(record.metrics)}, and {what}; going on "
            f"would mean step 0, and {len(record.metrics)} recorded steps lost. Fix: put a checkpoint back, another "
            f"--out, or {AFRESH}"
        )
    return None, damaged


def restore(algorithm: Algorithm, parts: Parts, folder: RunFolder, checkpoint: Path | None) -> tuple[int, Algorithm]:
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


def elsewhere(record: RunRecord, ranks: int) -> str:
    """In what this machine differs from the one that the record is of; empty where it does not, or nobody wrote it."""
    here = machine() | {"ranks": ranks}
    other = [
        f"{name} {old} → {here.get(name)}"
        for name, old in record.info.get("machine", {}).items()
        if old != here.get(name)
    ]
    if not other:
        return ""
    return f"the run was on another machine ({', '.join(other)}): from here on, its last bits may be others"
