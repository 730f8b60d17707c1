"""Whether the numbers of a model's files are numbers, and which file and tensor is at fault where they are not."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import torch
from safetensors import SafetensorError, safe_open
from transformers import AutoConfig, AutoModelForCausalLM, PreTrainedModel, PreTrainedTokenizerBase

from oneloop.errors import ConfigError

LARGEST = 1e6
"""Of any weight. Trained models stay below 1e4; beyond float16's 65504 nobody can have saved one in half precision."""


def check_numbers(model: PreTrainedModel, source: str | Path) -> None:
    """Every weight, used or not: a token that no data has today is drawn tomorrow.

    Raises: ConfigError naming file and tensor.
    """
    for name, parameter in model.named_parameters():
        if not parameter.numel():
            continue
        low, high = (float(bound) for bound in torch.aminmax(parameter.detach()))
        if not max(-low, high) <= LARGEST:
            raise ConfigError(_no_numbers(source, name, parameter.detach()))


def _no_numbers(source: str | Path, name: str, weights: torch.Tensor) -> str:
    file = next((file for file, stored, _ in _stored(source) if name.endswith(stored) or stored.endswith(name)), source)
    odd = ~torch.isfinite(weights)
    if count := int(odd.sum()):
        place = tuple(odd.nonzero()[0].tolist())
        what = (
            f"holds {count} of {weights.numel()} values that are no numbers, {float(weights[place])} at {place} first"
        )
    else:
        what = (
            f"holds values up to {float(weights.abs().max()):.3g}, where no trained model has any beyond {LARGEST:.0e}"
        )
    return f"--model {source}: {name} in {file} {what}. Fix: the model's files once more, or an older checkpoint"


def check_vocabulary(model: PreTrainedModel, tokenizer: PreTrainedTokenizerBase, source: str | Path) -> None:
    """Raises: ConfigError where the tokenizer has tokens that the model has no row for."""
    rows = model.get_input_embeddings().weight.shape[0]  # pyright: ignore[reportIndexIssue]
    token, last = max(tokenizer.get_vocab().items(), key=lambda item: item[1])
    if last >= rows:
        raise ConfigError(
            f"--model {source}: its tokenizer goes up to number {last} ({token!r}), and its embedding has {rows} rows. "
            f"Fix: the tokenizer that it came with, or model.resize_token_embeddings({last + 1}) and training"
        )


def damage(source: str | Path) -> str:
    """The file that cannot be read, or the first tensor of another shape than config.json makes it; "" for neither."""
    for file in sorted(Path(source).glob("*.safetensors")):
        try:
            with safe_open(file, framework="pt"):
                pass
        except (OSError, SafetensorError) as error:
            return f"{file} is cut off or damaged ({error})"
    with torch.device("meta"):
        model = AutoModelForCausalLM.from_config(AutoConfig.from_pretrained(str(source), trust_remote_code=False))
    wanted = {name: tuple(parameter.shape) for name, parameter in model.named_parameters()}
    for file, name, shape in _stored(source):
        if wanted.get(name, shape) != shape:
            return f"{name} in {file} has the shape {list(shape)}, and config.json makes it {list(wanted[name])}"
    return ""


def _stored(source: str | Path) -> Iterator[tuple[Path, str, tuple[int, ...]]]:
    """File, name and shape of every tensor in a folder."""
    for file in sorted(Path(source).glob("*.safetensors")):
        with safe_open(file, framework="pt") as tensors:
            for name in tensors.keys():  # noqa: SIM118  # no mapping
                yield file, name, tuple(tensors.get_slice(name).get_shape())
