"""What is measured: models of Qwen3's shapes, what each is given to do, that work counted, and the device's rates.

Model FLOPs as in cases/flops.py, here for heads that share keys and values: matrix products only, the triangle above
the diagonal not counted, a prompt once for its group, a backward pass twice its forward pass.
"""

from __future__ import annotations

import gc
import platform
import subprocess
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from functools import partial
from random import Random
from statistics import median
from time import perf_counter
from typing import Any

import torch
from cases.models import draw_length
from cases.values import Lengths
from transformers import AutoModelForCausalLM, PreTrainedModel, Qwen3Config

from oneloop.batch import Batch
from oneloop.experience.pack import Row, collate

TRIED = 10
"""Products or copies that are timed together: one alone is as short as the call that starts it."""

Measured = dict[str, Any]
TrainedRow = tuple[int, int]
"""Prompt tokens and trained tokens."""


@dataclass(frozen=True, kw_only=True)
class Grouped:
    """A Qwen3 model: several query heads to each head of keys and values, and the embedding as its head."""

    hidden: int
    layers: int
    heads: int
    kv_heads: int
    head_dim: int
    intermediate: int
    vocabulary: int = 151_936
    context: int = 4096

    @property
    def products(self) -> int:
        """Weights of one layer's matrix products."""
        return 2 * self.hidden * (self.heads + self.kv_heads) * self.head_dim + 3 * self.hidden * self.intermediate

    @property
    def parameters(self) -> int:
        norms = 2 * self.hidden + 2 * self.head_dim
        return self.vocabulary * self.hidden + self.layers * (self.products + norms) + self.hidden

    @property
    def cached(self) -> int:
        """Bytes of a token's keys and values in bfloat16."""
        return 2 * 2 * self.layers * self.kv_heads * self.head_dim


@dataclass(frozen=True, kw_only=True)
class Decode:
    """Prompts to complete: answers of `limit` tokens, or that each token ends with a chance of 1/`mean`."""

    rows: int
    group: int
    prompt: int
    limit: int
    mean: int
    rounds: int


@dataclass(frozen=True, kw_only=True)
class Train:
    """Rows of an optimizer step, and the sizes of microbatches to try."""

    rows: int
    group: int
    prompt: int
    answers: Lengths
    max_tokens: tuple[int, ...]
    steps: int

    def lengths(self, step: int) -> list[TrainedRow]:
        """Other lengths in every step, as in a run: compiling for each of them must show."""
        rng = Random(step)
        return [(self.prompt, draw_length(self.answers, rng)) for _ in range(self.rows)]


@dataclass(frozen=True, kw_only=True)
class Setup:
    """A model, and everything that it is measured with."""

    shape: Grouped
    decode: Decode
    train: Train
    squares: tuple[int, ...] = (4096, 8192, 16384)
    """Sides of the square matrices whose product tells the device's rate."""
    copied: int = 4 * 2**30
    """Bytes of the copy that tells its bandwidth."""


SETUPS = {
    "tiny": Setup(
        shape=Grouped(
            hidden=64, layers=2, heads=4, kv_heads=2, head_dim=16, intermediate=128, vocabulary=512, context=256
        ),
        decode=Decode(rows=8, group=4, prompt=8, limit=12, mean=6, rounds=2),
        train=Train(rows=8, group=4, prompt=16, answers=Lengths(4, 32, median=12), max_tokens=(256,), steps=2),
        squares=(64, 128),
        copied=2**20,
    ),
    "0.6b": Setup(
        shape=Grouped(hidden=1024, layers=28, heads=16, kv_heads=8, head_dim=128, intermediate=3072),
        decode=Decode(rows=256, group=8, prompt=128, limit=512, mean=192, rounds=3),
        train=Train(rows=64, group=8, prompt=512, answers=Lengths(16, 1024, median=300), max_tokens=(8192,), steps=5),
    ),
    "4b": Setup(
        shape=Grouped(hidden=2560, layers=36, heads=32, kv_heads=8, head_dim=128, intermediate=9728),
        decode=Decode(rows=256, group=8, prompt=128, limit=512, mean=192, rounds=2),
        # float32 weights, gradients and moments are 60 GiB: the small size is for devices of 80 GiB
        train=Train(rows=64, group=8, prompt=128, answers=Lengths(16, 256, median=64), max_tokens=(4096, 768), steps=3),
    ),
}


@dataclass(frozen=True)
class Bench:
    """What to measure where, and the rates that everything is compared with."""

    setup: Setup
    device: torch.device
    flops_per_second: float
    bytes_per_second: float

    def precision(self) -> torch.autocast:
        return torch.autocast(self.device.type, dtype=torch.bfloat16)


def _attended(first: int, count: int) -> int:
    """Σ n over the tokens number first + 1 … first + count of a row."""
    return count * first + count * (count + 1) // 2


def _forward_flops(shape: Grouped, tokens: int, attended: int, predicted: int) -> int:
    attention = 4 * shape.heads * shape.head_dim * attended
    return shape.layers * (2 * shape.products * tokens + attention) + 2 * shape.hidden * shape.vocabulary * predicted


def step_flops(shape: Grouped, rows: Sequence[TrainedRow], group: int) -> int:
    """Forward and backward of rows of which `group` in a row share their prompt."""
    shared = sum(_forward_flops(shape, prompt, _attended(0, prompt), 0) for prompt, _ in rows[::group])
    return 3 * (shared + sum(_forward_flops(shape, n, _attended(prompt, n), n) for prompt, n in rows))


def decode_bytes(shape: Grouped, lengths: Sequence[int], group: int, prompt: int) -> int:
    """Least bytes that decoding reads in bfloat16: the weights once a step, the keys and values of each running row.

    A row's first token comes from its prompt's own pass, so a row of n tokens takes n − 1 steps; the longest row's are
    all there are, since every row starts at once. `group` rows in a row read their prompt's keys once for all of them.
    """
    own = sum(_attended(0, length - 1) for length in lengths)
    prompts = sum(prompt * (max(lengths[start : start + group]) - 1) for start in range(0, len(lengths), group))
    return 2 * shape.parameters * (max(lengths) - 1) + shape.cached * (own + prompts)


def synchronize(device: torch.device) -> None:
    if device.type == "cuda":
        torch.cuda.synchronize(device)


def seconds_of(device: torch.device, call: Callable[[], object]) -> float:
    synchronize(device)
    start = perf_counter()
    call()
    synchronize(device)
    return perf_counter() - start


@contextmanager
def watched(device: torch.device, into: Measured) -> Iterator[None]:
    """Notes the most memory that tensors took meanwhile; nothing on a CPU, where nobody counts it."""
    if device.type != "cuda":
        yield
        return
    torch.cuda.reset_peak_memory_stats(device)
    yield
    into["peak_bytes"] = max(into.get("peak_bytes", 0), torch.cuda.max_memory_allocated(device))


def attempted(measure: Callable[[], Measured]) -> Measured:
    """What was measured, or why nothing was: never both."""
    try:
        return measure()
    except Exception as error:  # out of memory, a compiler's own types, whatever a driver says: all belong in the file
        reason = f"{type(error).__name__}: {str(error).strip()[:2000]}"
    forget()  # only now: the error held the frames that hold the tensors
    return {"error": reason}


def forget() -> None:
    gc.collect()
    with suppress(RuntimeError):  # a device that has failed for good says so in every later case
        torch.cuda.empty_cache()


def device_facts(device: torch.device) -> dict[str, object]:
    if device.type != "cuda":
        return {"name": f"cpu {platform.machine()}"}
    facts = torch.cuda.get_device_properties(device)
    query = ["nvidia-smi", "--query-gpu=driver_version", "--format=csv,noheader"]
    try:
        driver = subprocess.run(query, capture_output=True, text=True, check=True).stdout.split()[0]
    except (OSError, subprocess.CalledProcessError, IndexError):
        driver = "unknown"
    return {
        "name": facts.name,
        "memory_bytes": facts.total_memory,
        "multiprocessors": facts.multi_processor_count,
        "capability": f"{facts.major}.{facts.minor}",
        "driver": driver,
        "cuda": torch.version.cuda,
    }


def matmul_rates(setup: Setup, device: torch.device) -> dict[str, float]:
    """FLOP/s of bfloat16 products: squares, and those of the model in training."""
    shape, tokens = setup.shape, max(setup.train.max_tokens)
    sizes = [(side, side, side) for side in setup.squares]
    sizes += [
        (tokens, shape.hidden, shape.heads * shape.head_dim),
        (tokens, shape.hidden, shape.intermediate),
        (tokens, shape.intermediate, shape.hidden),
        (512, shape.hidden, shape.vocabulary),
    ]
    rates = {}
    for m, k, n in sizes:
        a, b = (torch.randn(*size, device=device, dtype=torch.bfloat16) for size in ((m, k), (k, n)))
        out = torch.empty(m, n, device=device, dtype=torch.bfloat16)
        rates[f"{m}x{k}x{n}"] = 2 * m * k * n / _median_of(device, partial(torch.mm, a, b, out=out))
    return rates


def copy_rate(setup: Setup, device: torch.device) -> float:
    """Bytes read and written a second, by a copy."""
    source = torch.randn(setup.copied // 4, device=device)
    target = torch.empty_like(source)
    return 2 * setup.copied / _median_of(device, partial(target.copy_, source))


def _median_of(device: torch.device, call: Callable[[], object]) -> float:
    """Seconds of one call, from a few lots of them."""

    def lot() -> None:
        for _ in range(TRIED):
            call()

    lot()
    return median(seconds_of(device, lot) for _ in range(5)) / TRIED


def config_of(shape: Grouped) -> Qwen3Config:
    return Qwen3Config(
        architectures=["Qwen3ForCausalLM"],
        vocab_size=shape.vocabulary,
        hidden_size=shape.hidden,
        intermediate_size=shape.intermediate,
        num_hidden_layers=shape.layers,
        num_attention_heads=shape.heads,
        num_key_value_heads=shape.kv_heads,
        head_dim=shape.head_dim,
        max_position_embeddings=shape.context,
        tie_word_embeddings=True,
    )


def random_model(bench: Bench, dtype: torch.dtype = torch.float32) -> PreTrainedModel:
    """Made where it is used, so that nothing has to be read or to travel."""
    torch.manual_seed(0)
    with bench.device:
        return AutoModelForCausalLM.from_config(config_of(bench.setup.shape), dtype=dtype).eval()


def prompts_of(setup: Setup) -> list[list[int]]:
    load, vocabulary, rng = setup.decode, setup.shape.vocabulary, Random(0)
    groups = [[rng.randrange(vocabulary) for _ in range(load.prompt)] for _ in range(load.rows // load.group)]
    return [prompt for prompt in groups for _ in range(load.group)]


def batch_of(rows: list[TrainedRow], group: int, bench: Bench) -> Batch:
    rng, vocabulary = Random(0), bench.setup.shape.vocabulary
    prompts = [[rng.randrange(vocabulary) for _ in range(prompt)] for prompt, _ in rows[::group]]
    items = [
        Row(
            prompt=prompts[number // group],
            actions=[rng.randrange(vocabulary) for _ in range(answer)],
            group=number // group,
            reward=float(number % 2) if group > 1 else 1.0,
        )
        for number, (_, answer) in enumerate(rows)
    ]
    return collate(items, bench.device)
