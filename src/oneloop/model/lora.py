"""LoRA through peft: adapters are made, saved, loaded, switched off and merged in modules that stay Hugging Face's.

    W x + (α/r) · B A x,   A ∈ ℝ^{r×in} random, B ∈ ℝ^{out×r} zero at the start

W is never written to while it trains: the sampler reads copies, an export is made in new tensors, and π_ref is the same
model with its adapters off.

Reference: arXiv:2106.09685, eq. 3.
"""

from __future__ import annotations

import json
import os
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from functools import cache
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from transformers import PreTrainedModel
from transformers.pytorch_utils import Conv1D
from transformers.utils.peft_utils import find_adapter_config_file

from oneloop.errors import ConfigError
from oneloop.forward.projection import projection_of
from oneloop.model.aligned import align
from oneloop.model.sharded import whole
from oneloop.seeds import named_seed

HEAD = "score"
"""Of reward models and critics: it starts at zero or at random, so it is trained whole."""
INSTALL = "pip install 'oneloop[lora]'"


@dataclass(frozen=True, kw_only=True)
class Lora:
    """Which matrices get adapters, and how large.

    Args:
        rank: r.
        alpha: α; the product of A and B counts α/r times.
        targets: last parts of the names of linear layers; none: all linear layers but the head.
    """

    rank: int
    alpha: float = 32.0
    targets: tuple[str, ...] = ()


def available() -> bool:
    return find_spec("peft") is not None


def check_available(asked_by: str) -> None:
    """Raises: ConfigError where peft is not installed; imports it where it is."""
    if not available():
        raise ConfigError(f"{asked_by} needs peft, which is not installed. Fix: {INSTALL}")
    import peft  # noqa: F401, PLC0415  # heavy, and an extra


def has_adapters(model: nn.Module) -> bool:
    return bool(getattr(model, "peft_config", None))


def add_adapters(model: PreTrainedModel, lora: Lora, base: str, *, seed: int = 0, saved: Path | None = None) -> None:
    """Freeze `model` and put adapters into it; they change nothing until they are trained.

    Args:
        base: where `model` came from: whoever loads the adapters has to find it again.
        saved: folder to take them from, instead of starting anew.

    Raises: ConfigError for targets that the model does not have, or saved adapters of another model.
    """
    if base_of(base) != base:
        raise ConfigError(
            f"--lora {lora.rank} with --model {base}: it holds adapters itself, and nobody could load those on top of "
            "them. Fix: the model with them merged, such as final/ of the run that made them"
        )
    if saved is not None:
        _load(model, saved, trainable=True)
        align(model)
        return
    _check_targets(model, lora)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(named_seed(seed, "lora"))
        model.add_adapter(_config_of(model, lora))
    for config in model.peft_config.values():
        config.base_model_name_or_path = str(Path(base).resolve()) if Path(base).is_dir() else base


def _config_of(model: PreTrainedModel, lora: Lora):
    """What peft shall do to `model`."""
    from peft import LoraConfig  # noqa: PLC0415

    kinds = {"ForCausalLM": "CAUSAL_LM", "ForSequenceClassification": "SEQ_CLS", "ForTokenClassification": "TOKEN_CLS"}
    kind = next((kind for ending, kind in kinds.items() if type(model).__name__.endswith(ending)), None)
    heads = [HEAD] if hasattr(model, HEAD) else []
    return LoraConfig(
        r=lora.rank,
        lora_alpha=lora.alpha,  # pyright: ignore[reportArgumentType]
        target_modules=list(lora.targets) if lora.targets else "all-linear",
        modules_to_save=heads or None,
        exclude_modules=heads if kind == "TOKEN_CLS" and not lora.targets else None,  # in others, peft knows it
        fan_in_fan_out=any(isinstance(module, Conv1D) for module in model.modules()),
        task_type=kind,
    )


def _check_targets(model: PreTrainedModel, lora: Lora) -> None:
    kinds = (nn.Linear, Conv1D)
    known = {name.rsplit(".", 1)[-1]: module for name, module in model.named_modules() if isinstance(module, kinds)}
    for target in lora.targets:
        if target not in known or target == HEAD:
            raise ConfigError(
                f"--lora-targets {target}: {type(model).__name__} has no such linear layer; it has "
                f"{', '.join(sorted(known.keys() - {HEAD}))}. Fix: some of these, or leave the flag out for all"
            )
        embedding: Any = model.get_input_embeddings()
        if known[target].weight is embedding.weight:
            raise ConfigError(
                f"--lora-targets {target}: its matrix is the input embedding too, which would stay without the "
                "adapter. Fix: leave it out"
            )


def base_of(source: str | Path) -> str:
    """The model that the adapters at `source` belong to; `source` itself where it is a model.

    Raises: ConfigError for adapters whose model is missing, or where peft is missing.
    """
    local = Path(source) / "adapter_config.json"
    # os.path.isdir: False, and no error, for a name that is too long for a folder
    found = (local if local.is_file() else None) if os.path.isdir(source) else _of_hub(str(source))
    if found is None:
        return str(source)
    check_available(f"--model {source}, which holds adapters,")
    base = json.loads(Path(found).read_text(encoding="utf-8")).get("base_model_name_or_path")
    if not base or (Path(base).is_absolute() and not Path(base).is_dir()):
        raise ConfigError(
            f"{found}: base_model_name_or_path is {base!r}, and there is no such model for the adapters to belong to. "
            "Fix: the folder or hub id of the model that they were trained beside"
        )
    return base


@cache
def _of_hub(source: str) -> str | None:
    """Where the configuration of a hub's adapters was put. Asked once: a hub that cannot be reached takes its time."""
    if available() and not source.startswith("scratch:"):
        with suppress(OSError):  # whoever loads a model of that name will say what is wrong with it
            return find_adapter_config_file(source)
    return None


def merge_adapters(model: PreTrainedModel, source: str | Path) -> None:
    """Add saved adapters to the matrices of a model that was just loaded, and leave nothing else of them."""
    from peft.tuners.tuners_utils import BaseTunerLayer  # noqa: PLC0415
    from peft.utils import ModulesToSaveWrapper  # noqa: PLC0415

    names_on_disk = getattr(model, "_weight_conversions", None)
    _load(model, source, trainable=False)
    for name, module in list(model.named_modules()):
        if isinstance(module, BaseTunerLayer):
            module.merge()
            model.set_submodule(name, module.get_base_layer())
        elif isinstance(module, ModulesToSaveWrapper):
            model.set_submodule(name, module.modules_to_save[module.active_adapters[0]])
    del model.peft_config
    # else the next save would be one of adapters, under their names
    vars(model).update(_hf_peft_config_loaded=False, _weight_conversions=names_on_disk)
    model.requires_grad_(True)


def _load(model: PreTrainedModel, source: str | Path, *, trainable: bool) -> None:
    try:
        info = model.load_adapter(str(source), is_trainable=trainable)
        odd = sorted({*info.missing_keys, *info.unexpected_keys})
    except RuntimeError as error:  # of shapes; which ones stands in transformers' report
        raise ConfigError(f"{source}: these adapters have shapes that do not fit {model.name_or_path}") from error
    if odd:
        raise ConfigError(
            f"{source}: {odd[0]} is in the adapters or in {model.name_or_path} as a {type(model).__name__}, not in both"
        )


def keep_frozen_in(model: PreTrainedModel, dtype: torch.dtype) -> None:
    """Hold the frozen matrices beside adapters in the precision of the products.

    Autocast rounds them to it at every call; rounded once, they give the same numbers and take half of the memory.
    """
    for module in model.modules():
        projection = projection_of(module) if hasattr(module, "lora_A") else None
        if projection is not None:
            base: Any = module.base_layer
            base.weight = nn.Parameter(base.weight.detach().to(dtype), requires_grad=False)


@contextmanager
def adapters_off(model: PreTrainedModel) -> Iterator[None]:
    """What `model` was before its adapters were trained: π_ref."""
    model.disable_adapters()
    try:
        yield
    finally:
        model.enable_adapters()


def merged_state(model: PreTrainedModel) -> dict[str, Tensor]:
    """The weights of a model without adapters that computes the same: float32, on the CPU, in new tensors where they
    differ."""
    return {name: value.cpu() for name, value in merged(model)}


@torch.no_grad()
def merged(model: PreTrainedModel) -> Iterator[tuple[str, Tensor]]:
    """As `merged_state`, one whole tensor after the other, where the model is."""
    modules: dict[str, Any] = dict(model.named_modules())
    for name, value in model.state_dict().items():
        owner, _, last = name.rpartition(".")
        if ".lora_" in name or ".original_module." in name:
            continue
        value = whole(value).float()
        if owner.endswith(".base_layer"):
            owner = owner.removesuffix(".base_layer")
            if last == "weight":
                value = value + sum(
                    whole(modules[owner].get_delta_weight(adapter)) for adapter in model.active_adapters()
                )
        yield f"{owner.replace('.modules_to_save.default', '')}.{last}", value


def counts(model: PreTrainedModel) -> tuple[int, int]:
    """Parameters that are trained, and all of them."""
    parameters = list(model.parameters())
    return sum(p.numel() for p in parameters if p.requires_grad), sum(p.numel() for p in parameters)
