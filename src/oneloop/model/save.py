"""Weights in Hugging Face layout: safetensors and JSON, loadable by transformers alone."""

from copy import copy
from pathlib import Path

import torch
from safetensors.torch import load_file, save_file
from torch import nn
from transformers import PreTrainedModel, PreTrainedTokenizerBase

from oneloop.errors import CheckpointError
from oneloop.model.learner import Critic
from oneloop.model.load import quiet
from oneloop.model.lora import has_adapters, merged_state

VALUE_HEAD = "value_head.safetensors"


def save_policy(folder: Path, model: PreTrainedModel, tokenizer: PreTrainedTokenizerBase) -> None:
    """A folder that `AutoModelForCausalLM` (or `...SequenceClassification`) and `AutoTokenizer` load.

    Of a model with adapters, the adapters alone, in peft's layout.
    """
    with quiet():
        model.save_pretrained(folder)
        tokenizer.save_pretrained(folder)


def save_merged(folder: Path, model: PreTrainedModel, tokenizer: PreTrainedTokenizerBase) -> None:
    """As `save_policy`, with adapters in the matrices they stand beside: nothing that loads it needs peft."""
    if not has_adapters(model):
        return save_policy(folder, model, tokenizer)
    with torch.device("meta"):
        bare = type(model)(model.config)
    bare.load_state_dict(merged_state(model), assign=True)
    if model.can_generate():
        bare.generation_config = model.generation_config
    save_policy(folder, bare, tokenizer)


def describe_policy(folder: Path, model: PreTrainedModel, tokenizer: PreTrainedTokenizerBase) -> None:
    """Everything of a model but its weights, for an engine that is given those later."""
    config = copy(model.config)
    config.architectures = [type(model).__name__]
    with quiet():
        config.save_pretrained(folder)
        tokenizer.save_pretrained(folder)


def write_weights(folder: Path, model: PreTrainedModel, dtype: torch.dtype) -> None:
    """The weights by the names of Hugging Face's layout, adapters merged; those in another `dtype` are copies."""
    state, bare = model.state_dict(), model
    if has_adapters(model):
        state = merged_state(model)
        with torch.device("meta"):
            bare = type(model)(model.config)
    cast = {name: value.to(dtype) if value.is_floating_point() else value for name, value in state.items()}
    with quiet():
        bare.save_pretrained(folder, state_dict=cast)


def save_critic(folder: Path, critic: Critic) -> None:
    """A separate critic as `*ForTokenClassification`; a shared one as its head alone."""
    if critic.backbone is not None:
        with quiet():
            critic.backbone.save_pretrained(folder)
        return
    folder.mkdir(parents=True)
    state = {name: value.detach().cpu().contiguous() for name, value in critic.head.state_dict().items()}
    save_file(state, folder / VALUE_HEAD)


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
