"""Rollouts on one GPU beside transformers' `generate`, in tokens a second: a part of `measure.py`."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from random import Random
from statistics import mean, median

import torch
from gpu.setups import (
    Bench,
    Measured,
    attempted,
    decode_bytes,
    prompts_of,
    random_model,
    seconds_of,
    watched,
)
from torch import Tensor
from transformers import GenerationConfig, PreTrainedModel

from oneloop.rollout.engine import Engine
from oneloop.types import Sampling

WARM_UP = 16
"""Tokens of each answer in the pass before those that count."""

Generate = Callable[[int, int], list[int]]
"""From a seed and a length limit to the lengths of the answers."""


@dataclass(frozen=True, kw_only=True)
class Sampled:
    """One comparison of rollouts."""

    ragged: bool = False
    """Answers end by a drawn token, or at the limit; otherwise all at the limit."""
    dtype: torch.dtype = torch.float32
    """Of the weights; a run keeps float32, a server would not."""
    launched: bool = False
    """Beside our own engine without recorded passes, instead of transformers."""
    alone: bool = False
    """Ours only and once, with the cache that a run gives it; otherwise with one that holds every row."""


def rollouts(case: Sampled, bench: Bench) -> Measured:
    load, shape = bench.setup.decode, bench.setup.shape
    model, ends, prompts = random_model(bench, case.dtype), _ends(case, bench), prompts_of(bench.setup)
    memory = {} if case.alone else {"cache_bytes": load.rows * (load.prompt + load.limit) * shape.cached}
    ours = partial(Engine, model, ends, dtype=torch.bfloat16, **memory)
    engines = {"oneloop": _ours(ours(), prompts)}
    if case.launched:
        engines["oneloop, launched"] = _ours(ours(replays=False), prompts)
    elif not case.alone:
        engines["transformers"] = _theirs(bench, model, prompts, ends)
    found: dict[str, Measured] = {name: {"seconds": [], "lengths": []} for name in engines}
    for name, generate in engines.items():
        found[name] |= attempted(lambda generate=generate: {"warm_up": sum(generate(0, min(WARM_UP, load.limit)))})
    for number in range(1 if case.alone else load.rounds):
        for name, generate in engines.items():
            if "error" not in found[name]:
                found[name] |= attempted(partial(_round, bench.device, generate, number + 1, load.limit, found[name]))
    told = {name: _rates(values, bench) for name, values in found.items()}
    return {**told, **_ratio(told)}


def _ends(case: Sampled, bench: Bench) -> list[int]:
    """Tokens that end an answer. A random model draws all about equally often, so a share of them is a mean length."""
    vocabulary = bench.setup.shape.vocabulary
    if not case.ragged:
        return [vocabulary]  # no such token
    return sorted(Random(1).sample(range(vocabulary), vocabulary // bench.setup.decode.mean))


def _ours(engine: Engine, prompts: list[list[int]]) -> Generate:
    if engine.note:
        raise RuntimeError(engine.note)

    def generate(seed: int, limit: int) -> list[int]:
        seeds = range(seed * len(prompts), (seed + 1) * len(prompts))
        completions = engine.generate(prompts, Sampling(max_new_tokens=limit), list(seeds))
        return [len(completion.tokens) for completion in completions]

    return generate


def _theirs(bench: Bench, model: PreTrainedModel, prompts: list[list[int]], ends: list[int]) -> Generate:
    given, stops = torch.tensor(prompts, device=bench.device), torch.tensor(ends, device=bench.device)
    known = ends if ends[0] < bench.setup.shape.vocabulary else None

    @torch.no_grad()
    def generate(seed: int, limit: int) -> list[int]:
        torch.manual_seed(seed)
        plan = GenerationConfig(
            do_sample=True,
            temperature=1.0,
            top_k=0,
            top_p=1.0,
            max_new_tokens=limit,
            eos_token_id=known,
            pad_token_id=0,
        )
        with bench.precision():
            rows = model.generate(given, attention_mask=torch.ones_like(given), generation_config=plan)
        return _until(rows[:, given.shape[1] :], stops)

    return generate


def _until(answers: Tensor, stops: Tensor) -> list[int]:
    """Lengths up to the first end token, which counts."""
    ended = torch.isin(answers, stops)
    return torch.where(ended.any(1), ended.long().argmax(1) + 1, answers.shape[1]).tolist()


def _round(device: torch.device, generate: Generate, seed: int, limit: int, before: Measured) -> Measured:
    """One more round's seconds and lengths."""
    lengths: list[int] = []
    memory = {"peak_bytes": before["peak_bytes"]} if "peak_bytes" in before else {}
    with watched(device, memory):
        seconds = seconds_of(device, lambda: lengths.extend(generate(seed, limit)))
    return {**memory, "seconds": [*before["seconds"], seconds], "lengths": [*before["lengths"], lengths]}


def _rates(values: Measured, bench: Bench) -> Measured:
    """Tokens a second beside what reading alone allows: prompts read once for their group, or by every row."""
    if "error" in values:
        return {"error": values["error"]}
    load, rounds = bench.setup.decode, values["lengths"]
    rates = [sum(lengths) / seconds for lengths, seconds in zip(rounds, values["seconds"], strict=True)]
    told = {"tokens_per_second": median(rates), "rates": rates, "seconds": values["seconds"]}
    for name, group in (("bound", load.group), ("bound_every_row", 1)):
        needed = [decode_bytes(bench.setup.shape, n, group, load.prompt) / bench.bytes_per_second for n in rounds]
        told[f"{name}_tokens_per_second"] = median(sum(n) / least for n, least in zip(rounds, needed, strict=True))
    told["share_of_bound"] = told["tokens_per_second"] / told["bound_tokens_per_second"]
    told["mean_length"], told["longest"] = mean(map(mean, rounds)), max(map(max, rounds))
    return told | {name: values[name] for name in ("peak_bytes",) if name in values}


def _ratio(told: dict[str, Measured]) -> Measured:
    """The first over the second in tokens a second, round by round; nothing where one of them failed."""
    if len(told) < 2 or any("error" in values for values in told.values()):
        return {}
    pairs = zip(*(values["rates"] for values in told.values()), strict=True)
    return {"ratio": median(ours / theirs for ours, theirs in pairs)}
