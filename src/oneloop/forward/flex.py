"""Attention over a packed sequence as one kernel, for GPUs: a rule says who sees whom, no mask is kept in memory."""

from __future__ import annotations

import torch
from jaxtyping import Float
from torch import Tensor
from torch.nn.attention.flex_attention import BlockMask, create_block_mask, flex_attention

from oneloop.forward.attention import Heads
from oneloop.forward.compiled import for_any_length
from oneloop.forward.visibility import Segmentation, sees


def block_mask(tokens: Segmentation, window: int | None) -> BlockMask:
    """`sees` for the kernel, which asks it for blocks of the packed sequence."""
    count, device = len(tokens.segment), tokens.segment.device
    make = for_any_length(create_block_mask) if tokens.segment.is_cuda else create_block_mask
    return make(
        lambda batch, head, query, key: sees(tokens, query, key, window), None, None, count, count, device=device
    )


def attend(heads: Heads, mask: BlockMask) -> Float[Tensor, "1 N heads D"]:
    query, key, value = heads.query, heads.key, heads.value
    kind = query.device.type
    if torch.is_autocast_enabled(kind):  # the kernel wants one type; autocast does not know it
        query, key, value = (x.to(torch.get_autocast_dtype(kind)) for x in (query, key, value))
    run = for_any_length(flex_attention) if query.is_cuda else flex_attention
    grouped = query.shape[1] != key.shape[1]
    out = run(query.contiguous(), key.contiguous(), value.contiguous(), block_mask=mask, scale=heads.scale,
              enable_gqa=grouped)  # fmt: skip
    return out.transpose(1, 2)
