"""Models and tokenizers from a folder, a hub id or `scratch:NAME`, with errors that say what to do."""

from collections.abc import Callable, Iterable
from contextlib import contextmanager, suppress
from difflib import get_close_matches
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from torch import nn
from transformers import (
    AutoConfig,
    AutoModelForCausalLM,
    AutoModelForSequenceClassification,
    AutoModelForTokenClassification,
    AutoTokenizer,
    GenerationConfig,
    PreTrainedModel,
    PreTrainedTokenizerBase,
)
from transformers.utils import logging

from oneloop.errors import ConfigError
from oneloop.model.aligned import align
from oneloop.model.lora import HEAD, base_of, merge_adapters
from oneloop.model.sound import check_numbers, damage
from oneloop.model.source import check_source
from oneloop.model.text import Described
from oneloop.model.tiny import SCRATCH, character_tokenizer, scratch_config, scratch_model


@contextmanager
def quiet():
    """Transformers' progress bars and advice stay out of our output; both come back afterwards."""
    level, bars = logging.get_verbosity(), logging.is_progress_bar_enabled()
    logging.disable_progress_bar()
    logging.set_verbosity_error()
    try:
        yield
    finally:
        logging.set_verbosity(level)
        if bars:
            logging.enable_progress_bar()


def load_policy(source: str | Path, *, seed: int = 0) -> PreTrainedModel:
    """A causal language model in float32: AdamW's small updates would vanish in half precision."""
    shape = _scratch(str(source))
    if shape is not None:
        return scratch_model(shape, character_tokenizer(), seed)
    return _with_adapters(_base(AutoModelForCausalLM.from_pretrained, source), source)


def load_reward_model(source: str | Path, *, seed: int = 0) -> PreTrainedModel:
    """A `*ForSequenceClassification` model with one label; from a causal model, its score head starts at zero."""
    if _scratch(str(source)) is not None:
        raise ConfigError(f"--model {source}: a reward model starts from a trained policy. Fix: --model runs/sft/final")
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        model = _base(AutoModelForSequenceClassification.from_pretrained, source, scores=True)
    head = getattr(model, "score", None)
    if not isinstance(head, nn.Linear):
        raise ConfigError(f"{source}: {type(model).__name__} has no `score` head; wanted a causal architecture")
    if "ForSequenceClassification" not in (architecture(source) or ""):
        nn.init.zeros_(head.weight)
    if model.config.pad_token_id is None:
        model.config.pad_token_id = 0  # transformers' own forward needs one for batches; ours reads by length
    return _with_adapters(model, source)


def is_reward_model(source: str | Path) -> bool:
    """Whether a folder or hub id holds a model that scores answers instead of giving them."""
    if _scratch(str(source)) is not None:
        return False
    check_source(source)
    try:
        return "ForSequenceClassification" in (architecture(source) or "")
    except (OSError, ValueError) as error:
        raise ConfigError(_reason(source, error)) from error


def load_critic(source: str | Path, *, seed: int = 0) -> PreTrainedModel:
    """A `*ForTokenClassification` model with one label; from a causal model, its values start at zero."""
    if _scratch(str(source)) is not None:
        raise ConfigError(
            f"--critic separate with --model {source}: a separate critic starts from saved weights. "
            "Fix: train the policy with SFT first, or --critic shared"
        )
    model = _base(AutoModelForTokenClassification.from_pretrained, source, scores=True)
    head = getattr(model, "score", None)
    if not isinstance(head, nn.Linear):
        raise ConfigError(
            f"{source}: {type(model).__name__} has no `score` head for a separate critic. Fix: --critic shared"
        )
    if "ForTokenClassification" not in (architecture(source) or ""):
        nn.init.zeros_(head.weight)
        if head.bias is not None:
            nn.init.zeros_(head.bias)
    return _with_adapters(model, source)


def load_tokenizer(source: str | Path) -> PreTrainedTokenizerBase:
    if _scratch(str(source)) is not None:
        return character_tokenizer()
    if (base := base_of(source)) != str(source):
        with suppress(ConfigError):  # adapters often come without one
            return _from_pretrained(AutoTokenizer.from_pretrained, source)
    return _from_pretrained(AutoTokenizer.from_pretrained, base)


def load_described(source: str | Path) -> Described:
    """The configurations of a model; its weights need not be there."""
    if (shape := _scratch(str(source))) is not None:
        return Described(scratch_config(shape, character_tokenizer()))
    base = base_of(source)
    config = _from_pretrained(AutoConfig.from_pretrained, base)
    try:
        with quiet():
            return Described(config, GenerationConfig.from_pretrained(base))
    except OSError:  # many have none
        return Described(config)


def _scratch(source: str):
    if not source.startswith("scratch:"):
        return None
    name = source.removeprefix("scratch:")
    if name not in SCRATCH:
        near = get_close_matches(name, SCRATCH, 1, 0.0)
        raise ConfigError(f"--model {source}: there is {sorted(SCRATCH)}. Did you mean scratch:{near[0]}?")
    return SCRATCH[name]


def _base(loader: Callable[..., Any], source: str | Path, *, scores: bool = False) -> Any:
    """A model in float32 and in memory of its own; where `source` holds adapters, the one that they belong to.

    Args:
        scores: with one label: its head may be new, and the language model's is left out.
    """
    check_source(source)
    base = base_of(source)
    labels = {"num_labels": 1} if scores else {}
    model, found = _from_pretrained(loader, base, dtype=torch.float32, output_loading_info=True, **labels)
    _check_whole(model, base, found["missing_keys"], found["unexpected_keys"], new_head=scores)
    check_numbers(model, base)
    align(model)
    return model


def _check_whole(
    model: PreTrainedModel, source: str, missing: Iterable[str], unexpected: Iterable[str], *, new_head: bool
) -> None:
    """Raises: ConfigError naming tensors that would have been random numbers, or left out, without a word."""
    inside = f"{model.base_model_prefix}."
    lost = sorted(name for name in missing if not (new_head and name.startswith(f"{HEAD}.")))
    left = sorted(name for name in unexpected if not new_head or name.startswith(inside))
    if not lost and not left:
        return
    problems = [
        f"{len(names)} tensors that {fault} ({', '.join(names[:3])}{', …' if len(names) > 3 else ''})"
        for names, fault in (
            (lost, "its configuration asks for are missing"),
            (left, "its configuration has no place for are there"),
        )
        if names
    ]
    raise ConfigError(
        f"--model {source}: as a {type(model).__name__}, {' and '.join(problems)}: training would go on with random "
        "numbers in the place of what is missing, and without the rest. "
        "Fix: the weights and the config.json of one model"
        + (", such as a policy instead of a reward model" if any(name.startswith(f"{HEAD}.") for name in left) else "")
    )


def _with_adapters(model: PreTrainedModel, source: str | Path) -> PreTrainedModel:
    """The model with the adapters of `source`, where it holds any, in its matrices."""
    if base_of(source) != str(source):
        with quiet():
            merge_adapters(model, source)
        check_numbers(model, source)
        align(model)
    return model


def _from_pretrained(loader: Callable[..., Any], source: str | Path, **options: Any) -> Any:
    """Nothing that comes with a model is run: `trust_remote_code` unset would let transformers ask at the terminal."""
    check_source(source)
    try:
        with quiet():
            return loader(str(source), trust_remote_code=False, **options)
    except (OSError, ValueError, RuntimeError, SafetensorError) as error:
        raise ConfigError(_reason(source, error)) from error


def _reason(source: str | Path, error: Exception) -> str:
    """Why a model cannot be loaded, and what to do."""
    text = str(error).strip() or type(error).__name__
    if "trust_remote_code" in text:
        return (
            f"--model {source}: it comes with Python code of its own, which is never run. Fix: a model of an "
            "architecture that transformers itself has"
        )
    found = ""
    with suppress(Exception):  # whatever is wrong with the folder beside
        found = damage(base_of(source))
    if "ignore_mismatched_sizes" in text:
        return (
            f"--model {source}: its tensors have other shapes than its config.json says{found and f': {found}'}. "
            "Fix: the weights and the config.json of one model"
        )
    if found:
        return f"--model {source}: {found}. Fix: the model's files once more"
    return (
        f"--model {source}: cannot be loaded ({text.splitlines()[0]}). Fix: a folder with config.json, "
        "model.safetensors and tokenizer.json, a hub id that can be reached, or scratch:tiny"
    )


def architecture(source: str | Path) -> str | None:
    """The class that its configuration names."""
    names = AutoConfig.from_pretrained(base_of(source), trust_remote_code=False).architectures
    return names[0] if names else None
