"""What resume needs beside the weights: the optimizer's state and counters, as safetensors and JSON (no pickle)."""

import json
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, Protocol, runtime_checkable

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import Tensor, nn
from torch.distributed.tensor import DTensor

from oneloop.errors import CheckpointError
from oneloop.model.aligned import aligned
from oneloop.model.lora import has_adapters
from oneloop.model.optimizer import Kind, Optimization, as_tensors, from_tensors, layout
from oneloop.model.pieces import write_pieces
from oneloop.model.sharded import whole
from oneloop.parallel.fsdp import cut_like
from oneloop.together import Alone, Crew, by_first

OPTIMIZER = "optimizer"
ALONE = Alone()


@runtime_checkable
class Learner(Protocol):
    """A trainer whose state can be kept."""

    updates: int
    skipped_in_a_row: int
    sharded: bool

    @property
    def model(self) -> nn.Module: ...

    @property
    def optimization(self) -> Optimization: ...

    @property
    def optimizer(self) -> torch.optim.Optimizer: ...

    def named_parameters(self) -> Mapping[str, Tensor]:
        """Everything that is trained."""
        ...

    def optimized_parameters(self) -> Mapping[str, Tensor]:
        """Of those, what the optimizer moves, and has moments of."""
        ...


def write_state(folder: Path, learner: Learner, extra: Mapping[str, Any], world: Crew = ALONE) -> None:
    """Moments by parameter name, the learner's counters, and `extra` (JSON values).

    Moments are written whole, by all ranks where they are cut over ranks: any number of ranks can read them.
    """
    counters = {"updates": learner.updates, "skipped_in_a_row": learner.skipped_in_a_row}
    text = json.dumps({"learner": counters, **extra}, indent=1)

    def write() -> None:
        folder.mkdir(parents=True)
        (folder / "state.json").write_text(text, encoding="utf-8")

    by_first(world, write)
    if learner.sharded:
        write_pieces(folder, OPTIMIZER, _moments(learner), world)
    else:
        by_first(world, lambda: write_pieces(folder, OPTIMIZER, _moments(learner), ALONE))


def _moments(learner: Learner) -> Iterator[tuple[str, Tensor]]:
    for name, parameter in learner.optimized_parameters().items():
        for key, value in as_tensors(learner.optimizer.state.get(parameter, {})).items():
            yield f"{name}|{key}", whole(value)


def read_state(folder: Path, learner: Learner) -> dict[str, Any]:
    """Put moments and counters back; returns the extra values.

    Raises: CheckpointError when moments are missing for a parameter or belong to another shape: a fresh start of a
    part of the optimizer would go unnoticed.
    """
    try:
        state = json.loads((folder / "state.json").read_text(encoding="utf-8"))
        counters = state.pop("learner")
        learner.updates, learner.skipped_in_a_row = int(counters["updates"]), int(counters["skipped_in_a_row"])
        found = _tensors(folder)
    except (OSError, ValueError, KeyError, TypeError, AttributeError, RecursionError, SafetensorError) as error:
        raise CheckpointError(
            f"{folder} is not the state of a run ({type(error).__name__}: {error}). Fix: rm -r {folder.parent}, and "
            "--resume goes on from the one before"
        ) from error
    if not found and learner.updates == 0:
        return state
    expected = learner.optimized_parameters()
    if found.keys() != expected.keys():
        odd = sorted(found.keys() ^ expected.keys())[0]
        raise CheckpointError(
            f"{folder / 'optimizer.safetensors'}: parameter {odd} is in the checkpoint or in the model, not in both. "
            "Fix: resume with the --model, --critic and algorithm that the run was started with"
        )
    kind = learner.optimization.optimizer
    for name, parameter in expected.items():
        _check_pieces(folder, name, found[name], parameter, kind)
        pieces = {key: _share(value, parameter) for key, value in found[name].items()}
        learner.optimizer.state[parameter] = from_tensors(kind, pieces, parameter.device)
    return state


def _tensors(folder: Path) -> dict[str, dict[str, Tensor]]:
    """By parameter, and the name of a piece of its state."""
    found: dict[str, dict[str, Tensor]] = {}
    for file in sorted(folder.glob(f"{OPTIMIZER}*.safetensors")):  # mapped: a rank reads the pages of its share
        for name, value in load_file(file).items():
            parameter, key = name.rsplit("|", 1)
            found.setdefault(parameter, {})[key] = value
    return found


def checkpoint_bytes(learner: Learner) -> int:
    """What a checkpoint takes on disk, small files aside: weights, and the moments of what is trained."""
    trained = list(learner.named_parameters().values())
    frozen = () if has_adapters(learner.model) else learner.model.parameters()
    saved = {id(one): one for one in (*trained, *frozen)}
    kind = learner.optimization.optimizer
    optimized = learner.optimized_parameters().values()
    moments = sum(piece.nbytes for one in optimized for piece in layout(kind, one.shape).values())
    return moments + sum(one.numel() * one.element_size() for one in saved.values())


def _share(value: Tensor, parameter: Tensor) -> Tensor:
    """In memory of its own, and as the parameter is cut."""
    if isinstance(parameter, DTensor) and value.dim():
        return cut_like(value, parameter)
    return aligned(value)


def _check_pieces(
    folder: Path, name: str, pieces: Mapping[str, torch.Tensor], parameter: torch.Tensor, kind: Kind
) -> None:
    wanted = layout(kind, parameter.shape)
    if pieces.keys() != {*wanted, "step"}:
        raise CheckpointError(
            f"{folder / 'optimizer.safetensors'}: {name} has {', '.join(sorted(pieces))}, which is not the state of "
            f"{kind}. Fix: resume with the --optimizer and --model that the run was started with"
        )
    for key, piece in wanted.items():
        if (tuple(pieces[key].shape), pieces[key].dtype) != piece:
            raise CheckpointError(
                f"{folder / 'optimizer.safetensors'}: {name} has shape {tuple(pieces[key].shape)} there and wants "
                f"{piece.shape} for the model's {tuple(parameter.shape)} ({key})"
            )
