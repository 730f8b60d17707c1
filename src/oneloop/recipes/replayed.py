"""Whether a run can do again what another one recorded."""

from __future__ import annotations

from dataclasses import fields
from pathlib import Path

from oneloop.config import MAY_CHANGE_ON_RESUME, Run
from oneloop.errors import ConfigError
from oneloop.parallel.launch import place
from oneloop.record.reader import read_run
from oneloop.rollout.beside.arrivals import arrivals_file, script
from oneloop.toml import from_table


def check_replay(run: Run) -> None:
    """Another command would wait for what never comes.

    Raises: ConfigError.
    """
    if run.resume:
        raise ConfigError(f"--replay {run.replay} with --resume: a run is repeated from its start. Fix: one of the two")
    folder = Path(run.replay)
    script(arrivals_file(folder, 0))
    recorded = Run(**from_table(read_run(folder).config, str(folder / "config.toml")))
    free = MAY_CHANGE_ON_RESUME | {"replay"}
    names = [field.name for field in fields(Run) if field.name not in free]
    for name in names + ["ranks"] * (place() is None):
        old, new = getattr(recorded, name), getattr(run, name)
        if old != new:
            raise ConfigError(
                f"--replay: {folder / 'config.toml'} has {name} = {old!r}, this command {new!r}. Fix: the same flags"
            )
