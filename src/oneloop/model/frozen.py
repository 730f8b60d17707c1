"""Models that nothing trains (a reference, a reward model), held in the precision of the products.

What autocast rounds at every call is rounded once, and gives the same numbers in half of the memory: the matrices of
linear layers. Embeddings are looked up and not multiplied: they are narrowed where that loses nothing, as in a model
that was saved in half precision, and hand out float32 as before. Norms, biases and heads that score stay as they are.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable
from functools import partial

import torch
from torch import Tensor, nn
from transformers import PreTrainedModel
from transformers.pytorch_utils import Conv1D

from oneloop.model.lora import HEAD


def hold_in(
    model: PreTrainedModel, dtype: torch.dtype, representable: Callable[[Tensor], bool] | None = None
) -> PreTrainedModel:
    """`model` with its weights in `dtype` where no forward pass under autocast to `dtype` can tell; float32: as it is.

    Args:
        representable: whether a matrix loses nothing in `dtype`; None: its numbers are looked at.
    """
    if dtype == torch.float32:
        return model
    loses_nothing = representable or partial(_representable, dtype=dtype)
    users: dict[int, list[nn.Module]] = defaultdict(list)
    for module in model.modules():
        for parameter in module.parameters(recurse=False):
            users[id(parameter)].append(module)
    narrowed: dict[int, nn.Parameter] = {}
    for module in list(model.modules()):
        weight = module._parameters.get("weight")
        if weight is None:
            continue
        key, sharing = id(weight), users[id(weight)]
        looked_up = any(type(one) is nn.Embedding for one in sharing)
        if not all(_may_be_narrow(one, model) for one in sharing) or (looked_up and not loses_nothing(weight)):
            continue
        if key not in narrowed:
            narrowed[key] = nn.Parameter(weight.detach().to(dtype), requires_grad=False)
        module._parameters["weight"] = narrowed[key]
        if type(module) is nn.Embedding:
            module.register_forward_hook(_widened)
    return model


def _may_be_narrow(module: nn.Module, model: PreTrainedModel) -> bool:
    return type(module) in (nn.Linear, Conv1D, nn.Embedding) and module is not getattr(model, HEAD, None)


def _representable(weight: Tensor, dtype: torch.dtype) -> bool:
    return bool((weight == weight.to(dtype)).all())


def _widened(module: nn.Module, given: object, found: Tensor) -> Tensor:
    return found.float()
