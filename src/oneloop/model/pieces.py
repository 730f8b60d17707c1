"""Tensors on disk as safetensors, in pieces that all ranks write at once, each whole tensors of its own."""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any

from safetensors.torch import save_file
from torch import Tensor

from oneloop.together import Crew, by_first, together

Named = dict[str, Tensor]


def write_pieces(
    folder: Path,
    stem: str,
    tensors: Iterable[tuple[str, Tensor]],
    world: Crew,
    as_on_disk: Callable[[Named], Named] = dict,
) -> None:
    """`stem-0000R-of-0000N.safetensors` from rank R, and an index that says where to find what, as transformers has it.

    A single rank writes `stem.safetensors`. Each holds, in the host's memory, what it writes and no more.

    Args:
        tensors: whole ones, one at a time, alike on every rank.
        as_on_disk: names and tensors of some layers to those of the file.
    """
    mine = as_on_disk(_dealt(tensors, world))
    name = f"{stem}-{world.rank + 1:05d}-of-{world.ranks:05d}" if world.ranks > 1 else stem
    file = folder / f"{name}.safetensors"
    together(world, partial(save_file, mine, file, metadata={"format": "pt"}))
    if world.ranks > 1:
        sizes = {name: value.nbytes for name, value in mine.items()}
        found = world.collect([{"file": file.name, "sizes": sizes}])
        by_first(world, partial(_write_index, folder / f"{stem}.safetensors.index.json", found))


def _write_index(file: Path, found: Sequence[Mapping[str, Any]]) -> None:
    where = {name: part["file"] for part in found for name in part["sizes"]}
    total = sum(sum(part["sizes"].values()) for part in found)
    index = {"metadata": {"total_size": total}, "weight_map": dict(sorted(where.items()))}
    file.write_text(json.dumps(index, indent=1), encoding="utf-8")


def _dealt(tensors: Iterable[tuple[str, Tensor]], world: Crew) -> Named:
    """This rank's share: layers whole, because names on disk may stand for parts of one, each to who has least."""
    loads, owners, mine = [0] * world.ranks, dict[str, int](), Named()
    for name, tensor in tensors:
        owner = owners.setdefault(_layer_of(name), loads.index(min(loads)))
        loads[owner] += tensor.nbytes
        if owner == world.rank:
            mine[name] = tensor.detach().cpu().contiguous()
    return mine


def _layer_of(name: str) -> str:
    """`model.layers.3` of `model.layers.3.mlp.up_proj.weight`; a name outside the layers is its own."""
    found = re.match(r".*?\.\d+(?=\.)", name)
    return found[0] if found else name
