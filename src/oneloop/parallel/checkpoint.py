"""What resume needs beside the weights: optimizer moments and counters, as safetensors and JSON (no pickle)."""

import json
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file
from torch import Tensor
from torch.distributed.tensor import DTensor

from oneloop.errors import CheckpointError
from oneloop.model.aligned import aligned
from oneloop.model.learner import Learner
from oneloop.model.pieces import write_pieces
from oneloop.model.sharded import whole
from oneloop.parallel.fsdp import cut_like
from oneloop.together import Alone, Crew, by_first

OPTIMIZER = "optimizer"
ALONE = Alone()


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
    for name, parameter in learner.named_parameters().items():
        for key, value in learner.optimizer.state.get(parameter, {}).items():
            yield f"{name}|{key}", whole(torch.as_tensor(value))


def read_state(folder: Path, learner: Learner) -> dict[str, Any]:
    """Put moments and counters back; returns the extra values.

    Raises: CheckpointError when moments are missing for a parameter or belong to another shape: a fresh start of a
    part of the optimizer would go unnoticed.
    """
    state = json.loads((folder / "state.json").read_text(encoding="utf-8"))
    counters = state.pop("learner")
    learner.updates, learner.skipped_in_a_row = counters["updates"], counters["skipped_in_a_row"]
    found: dict[str, dict[str, torch.Tensor]] = {}
    for file in sorted(folder.glob(f"{OPTIMIZER}*.safetensors")):  # mapped: a rank reads the pages of its share
        for name, value in load_file(file).items():
            parameter, key = name.rsplit("|", 1)
            found.setdefault(parameter, {})[key] = value
    if not found and learner.updates == 0:
        return state
    expected = learner.named_parameters()
    if found.keys() != expected.keys():
        odd = sorted(found.keys() ^ expected.keys())[0]
        raise CheckpointError(
            f"{folder / 'optimizer.safetensors'}: parameter {odd} is in the checkpoint or in the model, not in both. "
            "Fix: resume with the --model, --critic and algorithm that the run was started with"
        )
    for name, parameter in expected.items():
        moments = found[name]
        if moments["exp_avg"].shape != parameter.shape:
            raise CheckpointError(
                f"{folder / 'optimizer.safetensors'}: {name} has shape {tuple(moments['exp_avg'].shape)} there and "
                f"{tuple(parameter.shape)} in the model"
            )
        learner.optimizer.state[parameter] = {key: _beside(parameter, value) for key, value in moments.items()}
    return state


def _beside(parameter: Tensor, value: Tensor) -> Tensor:
    """In memory of its own, as the parameter is cut; fused AdamW wants its step counter there too."""
    if isinstance(parameter, DTensor) and value.dim():
        return cut_like(value, parameter)
    return aligned(value).to(parameter.device)
