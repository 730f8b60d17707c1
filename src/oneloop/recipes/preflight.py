"""What can be told before torch is loaded: a wrong place, model, file, task or reward answers at once."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

from oneloop.config import MARK, Run
from oneloop.data import Kind
from oneloop.errors import ConfigError
from oneloop.model.source import check_source
from oneloop.parallel.launch import place
from oneloop.recipes.agent_inputs import AgentInputs, read_agent_inputs
from oneloop.recipes.given import NOTHING, Given
from oneloop.recipes.inputs import Inputs, read_inputs
from oneloop.recipes.replayed import check_replay
from oneloop.record.sinks import check_installed
from oneloop.record.writer import check_out
from oneloop.rollout.vllm.server import check_python
from oneloop.together import by_first, together

if TYPE_CHECKING:  # it would load torch
    import oneloop.ports

DEVICES = re.compile(r"cpu|cuda(:\d+)?")


def preflight(
    run: Run, kind: Kind, given: Given = NOTHING, world: oneloop.ports.World | None = None
) -> Inputs | AgentInputs:
    """Every check of `run` that needs no model, cheap ones first; returns what it reads from files.

    Args:
        world: several ranks, of which the first asks for the folder, and each for what it will use itself. None: there
            is this process alone.

    Raises: ConfigError, DataError; on every rank what was wrong on one.
    """
    folder = partial(check_out, Path(run.out), resume=run.resume, overwrite=run.overwrite)
    if world is None:
        folder()
        return _read(run, kind, given)
    by_first(world, folder)
    return together(world, partial(_read, run, kind, given))


def _read(run: Run, kind: Kind, given: Given) -> Inputs | AgentInputs:
    if run.env:
        check_installed(run.report_to)
        return read_agent_inputs(run, kind)
    for asked in place_checks(run, kind):
        asked()
    inputs = read_inputs(run, kind, given)
    try:
        _with_torch(run)
    except BaseException:
        inputs.close()
        raise
    return inputs


def place_checks(run: Run, kind: Kind) -> Iterator[Callable[[], None]]:
    """Checks of where a run would take place, its folder aside."""
    for source, flag in ((run.model, "--model"), (run.reward_model, "--reward-model"), (run.teacher, "--teacher")):
        if source and not source.startswith(MARK):
            yield partial(check_source, source, flag)
    yield partial(_check_device, run.device)
    yield partial(_check_engine, run, kind)
    yield partial(_check_shard, run)


def _check_device(device: str) -> None:
    if not DEVICES.fullmatch(device):
        raise ConfigError(f"--device {device}: wanted cpu, cuda or cuda:N")


def _check_shard(run: Run) -> None:
    if run.shard != "none" and run.ranks == 1 and place() is None:
        raise ConfigError(
            f"--shard {run.shard} with one rank: there is nobody to share with. Fix: --ranks 2, or leave --shard out"
        )


def _with_torch(run: Run) -> None:
    """What needs torch to be told, for the runs that ask for it."""
    if run.lora:
        from oneloop.model.lora import check_available  # noqa: PLC0415

        check_available(f"--lora {run.lora}")
    if run.optimizer != "adamw":
        from oneloop.model.optimizer import check_optimizer  # noqa: PLC0415

        check_optimizer(run.optimizer, run.device)
    if run.device != "cpu":
        from oneloop.recipes.device import check_vllm_devices, device_of  # noqa: PLC0415

        device_of(run)
        check_vllm_devices(run)
    if run.compile:
        from oneloop.forward.compiled import check_compiler  # noqa: PLC0415

        check_compiler(run.device)


def _check_engine(run: Run, kind: Kind) -> None:
    if run.engine != "builtin" and kind != "prompts":
        raise ConfigError(f"--engine {run.engine}: {run.algorithm} draws no samples. Fix: leave it out")
    found = place()
    if run.engine == "vllm" and found and found.here < found.ranks:
        raise ConfigError(
            "--engine vllm with ranks on several machines: its server listens on the machine that starts it, and "
            "nowhere else. Fix: start one that all of them reach, and --engine http://HOST:PORT"
        )
    if run.staleness and kind != "prompts":
        raise ConfigError(f"--staleness {run.staleness}: {run.algorithm} draws no samples. Fix: leave it out")
    if run.replay:
        check_replay(run)
    if run.engine == "vllm":
        check_python(python_of(run))


def python_of(run: Run) -> str:
    """The interpreter of the environment with vLLM, as a server finds it that runs in a folder of its own."""
    python = run.vllm_python or ".venv-vllm/bin/python"
    return str(Path(python).absolute()) if "/" in python else python
