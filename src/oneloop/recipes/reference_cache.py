"""What the reference says of pairs, kept on disk by content, so that the next run need not ask again."""

from __future__ import annotations

import json
import os
from hashlib import sha256
from pathlib import Path
from typing import Any

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor
from transformers import PreTrainedModel

from oneloop.batch import Batch
from oneloop.errors import DataError, DiskError
from oneloop.experience.pairs import Reference
from oneloop.model.learner import Learner
from oneloop.model.sharded import whole
from oneloop.ports import SingleProcess, World
from oneloop.recipes.machine import machine
from oneloop.record.place import check_place
from oneloop.together import together


class Kept:
    """A `Reference` that looks into a folder first; what it gives has the bits of the run that computed it.

    A file's name is the hash of everything that its numbers depend on: the model's weights and configuration, the
    precision and size of passes, the machine, and the batch's token ids. Anything else misses. Of several ranks the
    first alone reads and writes; the others are told.

    Raises: DataError for a file that cannot be read.
    """

    def __init__(
        self,
        reference: Reference,
        learner: Learner,
        folder: Path,
        world: World = SingleProcess(),  # noqa: B008
    ) -> None:
        self._reference, self._folder, self._world = reference, folder, world
        settings = [str(learner.dtype), learner.max_tokens, learner.device.type, machine()]
        self._model = _fingerprint(learner.model, json.dumps(settings, sort_keys=True))
        self.asked = self.known = 0
        check_place(folder, "--reference-cache")
        folder.mkdir(parents=True, exist_ok=True)

    def __call__(self, batch: Batch) -> Float[Tensor, "B T"]:
        self.asked += 1
        file = self._folder / f"{_digest(batch, self._model)}.npy"
        if self._world.agree(file.is_file()):
            self.known += 1
            return self._known(file, batch)
        found = self._reference(batch)
        if self._world.rank:
            return found
        temporary = file.with_name(f".tmp-{os.getpid()}-{file.name}")
        try:
            np.save(temporary, found.cpu().numpy(), allow_pickle=False)
            os.replace(temporary, file)
        except OSError as error:
            temporary.unlink(missing_ok=True)
            raise DiskError(
                f"--reference-cache {self._folder} cannot be written: {error.strerror}. Fix: make room, or leave it out"
            ) from error
        return found

    def _known(self, file: Path, batch: Batch) -> Float[Tensor, "B T"]:
        """Rank 0's file, which the others need not see."""
        nothing = torch.zeros_like(batch.mask, dtype=torch.float32)
        return self._world.add(together(self._world, lambda: nothing if self._world.rank else _read(file, batch)))

    def __str__(self) -> str:
        return f"reference: {self.known} of {self.asked} batches of pairs were known from {self._folder}"


def _read(file: Path, batch: Batch) -> Float[Tensor, "B T"]:
    try:
        found = np.load(file, allow_pickle=False)
        if found.shape != batch.mask.shape or found.dtype != np.float32:
            raise ValueError(f"{found.dtype} of shape {found.shape}; wanted float32 of {tuple(batch.mask.shape)}")
    except (OSError, ValueError, EOFError) as error:
        raise DataError(f"--reference-cache: {file} is damaged ({error}). Fix: delete it") from error
    return torch.from_numpy(found).to(batch.mask.device)


def _digest(batch: Batch, model: str) -> str:
    parts = sha256(f"{model} {tuple(batch.mask.shape)}".encode())
    for tensor in (batch.tokens, batch.mask, batch.lengths, batch.group):
        parts.update(tensor.cpu().contiguous().numpy().tobytes())
    return parts.hexdigest()


def _fingerprint(model: PreTrainedModel, settings: str) -> str:
    """Of weights and configuration, wherever they were loaded from; adapters are not the reference's."""
    unnamed = ("_name_or_path", "transformers_version")
    config: dict[str, Any] = {name: x for name, x in model.config.to_dict().items() if name not in unnamed}
    found = sha256(f"{settings} {json.dumps(config, sort_keys=True, default=str)}".encode())
    for name, value in sorted(model.state_dict().items()):
        if "lora_" not in name:
            value = whole(value)
            found.update(f"{name} {value.dtype} {tuple(value.shape)}".encode())
            found.update(value.detach().cpu().contiguous().reshape(-1).view(torch.uint8).numpy().data)
    return found.hexdigest()
