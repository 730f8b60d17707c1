"""Weights in Hugging Face layout: safetensors and JSON, loadable by transformers alone.

A model that is cut over ranks is written by all of them, and every rank makes these calls; any other by the first.
"""

from collections.abc import Callable, Iterator
from copy import copy
from functools import partial
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file, save_file
from torch import Tensor, nn
from transformers import PreTrainedModel, PreTrainedTokenizerBase
from transformers.core_model_loading import revert_weight_conversion

from oneloop.errors import CheckpointError
from oneloop.model.learner import Critic
from oneloop.model.load import quiet
from oneloop.model.lora import has_adapters, merged, merged_state
from oneloop.model.pieces import write_pieces
from oneloop.model.sharded import is_sharded, whole
from oneloop.together import Alone, Crew, by_first

VALUE_HEAD = "value_head.safetensors"
ALONE = Alone()


def save_policy(folder: Path, model: PreTrainedModel, tokenizer: PreTrainedTokenizerBase, world: Crew = ALONE) -> None:
    """A folder that `AutoModelForCausalLM` (or `...SequenceClassification`) and `AutoTokenizer` load.

    Of a model with adapters, the adapters alone, in peft's layout.
    """
    _save_model(folder, model, world)
    _by_transformers(world, tokenizer.save_pretrained, folder)


def save_merged(folder: Path, model: PreTrainedModel, tokenizer: PreTrainedTokenizerBase, world: Crew = ALONE) -> None:
    """As `save_policy`, with adapters in the matrices they stand beside: nothing that loads it needs peft."""
    if not has_adapters(model):
        return save_policy(folder, model, tokenizer, world)
    bare = _bare(model)
    if model.can_generate():
        bare.generation_config = model.generation_config
    if is_sharded(model):
        _save_cut(folder, bare, _merged_once(model, bare), world)
    else:
        if world.rank == 0:
            bare.load_state_dict(merged_state(model), assign=True)
        _save_model(folder, bare, world)
    _by_transformers(world, tokenizer.save_pretrained, folder)


def describe_policy(folder: Path, model: PreTrainedModel, tokenizer: PreTrainedTokenizerBase) -> None:
    """Everything of a model but its weights, for an engine that is given those later."""
    config = copy(model.config)
    config.architectures = [type(model).__name__]
    with quiet():
        config.save_pretrained(folder)
        tokenizer.save_pretrained(folder)


def weights_of(model: PreTrainedModel) -> dict[str, torch.Tensor]:
    """By name, adapters merged."""
    return merged_state(model) if has_adapters(model) else model.state_dict()


def write_weights(folder: Path, model: PreTrainedModel, dtype: torch.dtype, world: Crew = ALONE) -> None:
    """The weights in `dtype`, by the names of Hugging Face's layout, adapters merged, tied matrices once.

    Every rank calls it. A model that is cut over them is gathered tensor by tensor, and each writes some.
    """
    bare = _bare(model) if has_adapters(model) else model
    tensors = _merged_once(model, bare) if has_adapters(model) else _whole_weights(model, dtype=dtype)
    rounded = ((name, _rounded(value, dtype)) for name, value in tensors)
    as_on_disk = partial(revert_weight_conversion, bare)
    if is_sharded(model):
        write_pieces(folder, "model", rounded, world, as_on_disk)
    else:
        by_first(world, lambda: write_pieces(folder, "model", rounded, ALONE, as_on_disk))


def _rounded(value: Tensor, dtype: torch.dtype) -> Tensor:
    return value.to(dtype) if value.is_floating_point() else value


def _bare(model: PreTrainedModel) -> PreTrainedModel:
    """The model without adapters, and without weights."""
    with torch.device("meta"):
        return type(model)(model.config)


def _merged_once(model: PreTrainedModel, bare: PreTrainedModel) -> Iterator[tuple[str, Tensor]]:
    """Whole weights with adapters in them, tied ones once, one after the other."""
    names = {name for name, _ in _whole_weights(bare)}
    return (pair for pair in merged(model) if pair[0] in names)


def save_critic(folder: Path, critic: Critic, world: Crew = ALONE) -> None:
    """A separate critic as `*ForTokenClassification`; a shared one as its head alone."""
    if critic.backbone is not None:
        return _save_model(folder, critic.backbone, world)
    state = {name: whole(value).detach().cpu().contiguous() for name, value in critic.head.state_dict().items()}

    def write() -> None:
        folder.mkdir(parents=True)
        save_file(state, folder / VALUE_HEAD)

    by_first(world, write)


def _by_transformers(world: Crew, save: Callable[..., Any], folder: Path, **options: Any) -> None:
    """What transformers alone knows how to write, in its layout."""

    def write() -> None:
        with quiet():
            save(folder, **options)

    by_first(world, write)


def _save_model(folder: Path, model: PreTrainedModel, world: Crew) -> None:
    if is_sharded(model) and not has_adapters(model):
        return _save_cut(folder, model, _whole_weights(model), world)
    # adapters are small: they fit beside everything else
    state = dict(_whole_weights(model, trained=True)) if is_sharded(model) else None
    _by_transformers(world, model.save_pretrained, folder, state_dict=state)


def _save_cut(folder: Path, model: PreTrainedModel, tensors: Iterator[tuple[str, Tensor]], world: Crew) -> None:
    _by_transformers(world, model.save_pretrained, folder, state_dict={})  # its configuration
    write_pieces(folder, "model", tensors, world, partial(revert_weight_conversion, model))


def _whole_weights(
    model: PreTrainedModel, trained: bool = False, dtype: torch.dtype | None = None
) -> Iterator[tuple[str, Tensor]]:
    """One after the other, each under the first of its names: tied ones find each other when they are loaded.

    Args:
        dtype: they are rounded to it before they travel; None: as they are.
    """
    seen = set[int]()
    for name, value in model.state_dict(keep_vars=True).items():
        if id(value) not in seen and (value.requires_grad or not trained):
            yield name, whole(_rounded(value.detach(), dtype or value.dtype))
        seen.add(id(value))


def shared_critic(policy: PreTrainedModel, saved: Path | None = None) -> Critic:
    """A linear head on the policy's backbone; values start at zero, which is what GAE without a critic would use."""
    head = nn.Linear(policy.config.get_text_config().hidden_size, 1, device=policy.device)
    nn.init.zeros_(head.weight)
    nn.init.zeros_(head.bias)
    if saved is not None:
        head.load_state_dict(load_file(_existing(saved / VALUE_HEAD)))
    return Critic(head)


def separate_critic(model: PreTrainedModel) -> Critic:
    """A `*ForTokenClassification` model with one label."""
    return Critic(model.eval().score, model)  # pyright: ignore[reportArgumentType]


def _existing(path: Path) -> Path:
    if not path.is_file():
        raise CheckpointError(f"{path} is missing: the checkpoint has no critic, and a fresh one would go unnoticed")
    return path
