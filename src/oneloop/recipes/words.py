"""What a run's settings say of a value or a model that Python handed over: resume compares it."""

from __future__ import annotations

import re
from dataclasses import replace
from hashlib import sha256

import torch
from transformers import PreTrainedModel

from oneloop.algorithms import ALGORITHMS
from oneloop.config import MARK
from oneloop.recipes.resolve import Algorithm


def algorithm_words(algorithm: Algorithm) -> str:
    """The name of a value that has one, whatever its epochs (they are a setting of their own); else all its pieces."""
    named = ALGORITHMS.get(algorithm.name)
    if named is not None and type(named) is type(algorithm) and replace(algorithm, epochs=named.epochs) == named:
        return algorithm.name
    # addresses of functions and plain objects differ in every process
    return MARK + re.sub(r" at 0x[0-9a-fA-F]+", "", repr(algorithm))


def model_words(model: PreTrainedModel) -> str:
    """Class, size and a hash over every tensor: resuming on other weights must not go unnoticed."""
    digest = sha256()
    for name, tensor in sorted(model.state_dict().items()):
        digest.update(f"{name} {tuple(tensor.shape)} {tensor.dtype}".encode())
        digest.update(tensor.detach().cpu().contiguous().reshape(-1).view(torch.uint8).numpy())
    return f"{MARK}{type(model).__name__}, {model.num_parameters()} parameters, sha256 {digest.hexdigest()[:16]}"
