"""What resume needs beside the weights: the optimizer's state and counters, as safetensors and JSON (no pickle)."""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file, save_file

from oneloop.errors import CheckpointError
from oneloop.model.aligned import aligned
from oneloop.model.learner import Learner
from oneloop.model.optimizer import Kind, as_tensors, from_tensors, layout


def write_state(folder: Path, learner: Learner, extra: Mapping[str, Any]) -> None:
    """Moments by parameter name, the learner's counters, and `extra` (JSON values)."""
    folder.mkdir(parents=True)
    moments = {}
    for name, parameter in learner.named_parameters().items():
        for key, value in as_tensors(learner.optimizer.state.get(parameter, {})).items():
            moments[f"{name}|{key}"] = value.detach().cpu().contiguous()
    save_file(moments, folder / "optimizer.safetensors")
    counters = {"updates": learner.updates, "skipped_in_a_row": learner.skipped_in_a_row}
    (folder / "state.json").write_text(json.dumps({"learner": counters, **extra}, indent=1), encoding="utf-8")


def read_state(folder: Path, learner: Learner) -> dict[str, Any]:
    """Put moments and counters back; returns the extra values.

    Raises: CheckpointError when moments are missing for a parameter or belong to another shape: a fresh start of a
    part of the optimizer would go unnoticed.
    """
    state = json.loads((folder / "state.json").read_text(encoding="utf-8"))
    counters = state.pop("learner")
    learner.updates, learner.skipped_in_a_row = counters["updates"], counters["skipped_in_a_row"]
    found: dict[str, dict[str, torch.Tensor]] = {}
    for name, value in load_file(folder / "optimizer.safetensors").items():
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
    kind = learner.optimization.optimizer
    for name, parameter in expected.items():
        _check_pieces(folder, name, found[name], parameter, kind)
        pieces = {key: aligned(value) for key, value in found[name].items()}
        learner.optimizer.state[parameter] = from_tensors(kind, pieces, parameter.device)
    return state


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
