"""Taking up a run: whether it is this one, the newest checkpoint that is whole, and every piece of state put back."""

from __future__ import annotations

from dataclasses import fields, replace
from pathlib import Path

from oneloop.algorithms import PolicyGradient
from oneloop.config import MAY_CHANGE_ON_RESUME, Run
from oneloop.errors import CheckpointError, ConfigError
from oneloop.parallel.checkpoint import read_state
from oneloop.recipes.agent_inputs import AgentInputs
from oneloop.recipes.agents import AgentParts
from oneloop.recipes.build import Parts
from oneloop.recipes.inputs import Inputs
from oneloop.recipes.machine import machine
from oneloop.recipes.resolve import Algorithm
from oneloop.record.atomic import verify
from oneloop.record.checkpoints import checkpoint_path, checkpoints
from oneloop.record.place import holds_run
from oneloop.record.reader import METRICS, RunRecord, read_run
from oneloop.record.writer import RunFolder, untrained
from oneloop.secrets import redacted
from oneloop.toml import from_table

AFRESH = "--overwrite instead of --resume, which deletes this run and starts afresh"


def recorded(run: Run, out: Path, inputs: Inputs | AgentInputs) -> RunRecord | None:
    """The run in the folder, to go on with; it must be this one, on the same data. None: there is none yet.

    Where a crash has torn run.json, its checkpoints say what is needed of it.

    Raises: ConfigError for another run, for one that has more steps already, and for one whose config.toml is lost:
        nobody could tell.
    """
    if not (run.resume and holds_run(out)) or untrained(out):
        return None
    record = read_run(out, torn=True)
    if not record.config:
        raise ConfigError(
            f"--resume: {out / 'config.toml'} is missing, so nobody can tell whether this command is the run in {out}; "
            f"{_steps(record)} recorded steps and {len(checkpoints(out))} checkpoints would be overwritten. Fix: put "
            f"the file back, another --out, or {AFRESH}"
        )
    check_same(run, Run(**from_table(record.config, str(out / "config.toml"))), out)
    _check_data(run, record.info.get("data", inputs.fingerprint), inputs.fingerprint, out)
    for done, path in reversed(checkpoints(out)):
        if done > run.steps and _is_whole(path):
            raise ConfigError(
                f"--resume: {out} has {done} finished steps, and --steps {run.steps} is before that. "
                f"Fix: --steps {done} or more, or another --out"
            )
    return record


def finished(run: Run, out: Path, inputs: Inputs | AgentInputs) -> bool:
    """Whether --resume finds nothing left to do: all steps trained, and all that they gave whole. Changes nothing."""
    record = recorded(run, out, inputs)
    if record is None or record.info.get("status") != "finished":
        return False
    given = [checkpoint_path(out, run.steps), out / "final", *([out / "adapter"] if run.lora else [])]
    return all(_is_whole(folder) for folder in given)


def _is_whole(folder: Path) -> bool:
    try:
        verify(folder)
    except CheckpointError:
        return False
    return True


def check_same(run: Run, recorded: Run, folder: Path) -> None:
    """Refuse to resume another run than the one in the folder."""
    for field in fields(Run):
        # a secret in a setting is not in the file
        old, new = getattr(recorded, field.name), redacted(getattr(run, field.name), field.name)
        new = tuple(new) if isinstance(new, list) else new
        if field.name not in MAY_CHANGE_ON_RESUME and old != new:
            raise ConfigError(
                f"--resume: {folder / 'config.toml'} has {field.name} = {old!r}, this command {new!r}; the result "
                "would be neither run. Fix: the same flags, or another --out"
            )
    if run.steps != recorded.steps and run.schedule != "constant":
        raise ConfigError(
            f"--resume: --steps {run.steps} instead of {recorded.steps} would bend the {run.schedule} schedule that "
            f"the run has followed so far. Fix: --steps {recorded.steps}, or --schedule constant from the start"
        )


def _steps(record: RunRecord) -> int:
    return sum(1 for _ in record.lines(METRICS))


def _check_data(run: Run, then: object, now: object, out: Path) -> None:
    if then != now:
        raise ConfigError(
            f"--resume: the rows of --data {run.data} are not those that {out} was trained on. "
            "Fix: the same file, or another --out"
        )


def latest(
    run: Run, algorithm: Algorithm, folder: RunFolder, record: RunRecord
) -> tuple[Path | None, list[CheckpointError]]:
    """The newest checkpoint whose files are all there and as they were written, and what is wrong with newer ones.

    Raises: ConfigError where steps had been trained and none can be used, unless the run accepts that.
    """
    damaged: list[CheckpointError] = []
    for _, candidate in reversed(checkpoints(folder.path)):
        try:
            verify(candidate, needed(run, algorithm))
            return candidate, damaged
        except CheckpointError as error:
            damaged.append(error)
    steps = _steps(record)
    if (damaged or folder.checkpoint or steps) and not run.accept_loss:
        if damaged:
            what = f"no checkpoint is whole ({str(damaged[0]).partition(' Fix:')[0]})"
        else:
            what = "its checkpoints are gone" if folder.checkpoint else "it was ended before its first checkpoint"
        had = f"saved step {folder.checkpoint}" if folder.checkpoint else f"finished {steps} steps"
        raise ConfigError(
            f"--resume: {folder.path} had {had}, and {what}; going on would mean step 0, and {steps} recorded steps "
            f"lost. Fix: put a checkpoint back, another --out, --accept-loss, or {AFRESH}"
        )
    return None, damaged


def needed(run: Run, algorithm: Algorithm) -> tuple[str, ...]:
    """Files without which a checkpoint would be a fresh start of some part."""
    config = "policy/adapter_config.json" if run.lora else "policy/config.json"
    critic = ("critic/*.safetensors",) if "values" in algorithm.needs else ()
    return (config, "policy/*model*.safetensors", "resume/state.json", "resume/optimizer*.safetensors", *critic)


def restore(
    run: Run, algorithm: Algorithm, parts: Parts | AgentParts, folder: RunFolder, checkpoint: Path | None
) -> tuple[int, Algorithm, list[str]]:
    """Put every piece of state back, and cut the record to the checkpoint.

    Returns: the step to go on with, the algorithm as it was then, and what of the record is lost.
    """
    if checkpoint is None:
        return 0, algorithm, folder.rewind({}, 0)
    state = read_state(checkpoint / "resume", parts.learner)
    if folder.keeps:
        _check_data(run, state.get("data") or folder.fingerprint(), folder.fingerprint(), folder.path)
    try:
        parts.experience.restore(state["experience"])
        step, position, coef = int(state["step"]), state["position"], state["kl_coef"]
    except (KeyError, TypeError, ValueError) as error:
        raise CheckpointError(
            f"{checkpoint / 'resume' / 'state.json'} is not the state of this run ({type(error).__name__}: {error}). "
            f"Fix: rm -r {checkpoint}, and --resume goes on from the one before"
        ) from error
    lost = folder.rewind(position, step, accept_loss=run.accept_loss)
    if isinstance(algorithm, PolicyGradient) and algorithm.kl is not None:
        algorithm = replace(algorithm, kl=replace(algorithm.kl, coef=coef))
    return step, algorithm, lost


def elsewhere(record: RunRecord, ranks: int) -> str:
    """In what this machine differs from the one that the record is of; empty where it does not, or nobody wrote it."""
    here = machine() | {"ranks": ranks}
    there = record.info.get("machine")
    other = [
        f"{name} {old} → {here.get(name)}"
        for name, old in (there if isinstance(there, dict) else {}).items()
        if old != here.get(name)
    ]
    if not other:
        return ""
    return f"the run was on another machine ({', '.join(other)}): from here on, its last bits may be others"
