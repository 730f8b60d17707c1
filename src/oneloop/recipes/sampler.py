"""Which engine draws a run's completions, and what it is given."""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from typing import TypeAlias

import torch
from transformers import PreTrainedModel

from oneloop.config import Run
from oneloop.experience.pack import Row, collate
from oneloop.model.learner import Learner
from oneloop.model.save import describe_policy, weights_of, write_weights
from oneloop.model.text import Text
from oneloop.parallel.fsdp import Copied
from oneloop.ports import SingleProcess, World
from oneloop.recipes.device import vllm_apart
from oneloop.recipes.preflight import python_of
from oneloop.rollout.beside.arrivals import Arrivals, arrivals_file, ignored, script
from oneloop.rollout.beside.engine import SecondProcess
from oneloop.rollout.beside.process import Sampler
from oneloop.rollout.engine import Engine
from oneloop.rollout.vllm.engine import VllmEngine
from oneloop.rollout.vllm.faults import Patience
from oneloop.rollout.vllm.in_flight import InFlight
from oneloop.rollout.vllm.server import Elsewhere, Server
from oneloop.rollout.vllm.weights import Source
from oneloop.types import Sampling

KEY = "ONELOOP_ENGINE_KEY"
"""Environment variable with the key of an engine elsewhere: config.toml records flags."""
PROBE, ANSWER = 160, 16
"""Tokens of the probe after each update, more than a block of vLLM's cache (128 on a CPU), and of its answer."""
SAME_WEIGHTS = {"float32": 1e-3, "bfloat16": 0.05}
"""Mean |log π − log μ| of the probe, nats, that two implementations of the same weights may differ by."""
SHARE = "0.4"
"""Of a GPU's memory that vLLM takes beside the trainer."""
AnyEngine: TypeAlias = Engine | VllmEngine | SecondProcess | InFlight


def engine_of(
    run: Run,
    learner: Learner,
    copied: Copied | None,
    text: Text,
    prompt: Callable[[], Sequence[int]],
    say: Callable[[str], None],
    told: Callable[[str], None],
    world: World = SingleProcess(),  # noqa: B008
) -> AnyEngine:
    """What samples for training and evaluation. A server or a process is started at its first call.

    Args:
        copied: the policy to sample from where that of the learner is cut over ranks.
        prompt: gives one of the data's, for the probe.
        told: hears what had to be mended.
        world: the ranks, of which each has a sampler of its own, or all have one server.
    """
    if run.engine != "builtin":
        server = _server(run, learner, text, prompt, say, told, world)
        return InFlight(server) if run.staleness else server
    model, refresh = learner.model, None
    if copied is not None:
        model, refresh = copied.arrive(learner.device), copied.refresh
    here = Engine(model, text.end_ids, dtype=learner.dtype, refresh=refresh)
    return SecondProcess(here, _sampler(run, learner, model, text, world.rank)) if run.staleness else here


def _sampler(run: Run, learner: Learner, model: PreTrainedModel, text: Text, rank: int) -> Sampler:
    continues = run.in_flight == "continue"
    setup = {
        "end_ids": sorted(text.end_ids),
        "dtype": str(learner.dtype).removeprefix("torch."),
        "device": str(learner.device),
        "threads": torch.get_num_threads(),
        "continues": continues,
    }
    if run.replay:
        setup["script"] = script(arrivals_file(Path(run.replay), rank))
    taken = Arrivals(arrivals_file(Path(run.out), rank)) if continues else ignored
    return Sampler(model.config, partial(weights_of, model), setup, taken)


def _server(
    run: Run,
    learner: Learner,
    text: Text,
    prompt: Callable[[], Sequence[int]],
    say: Callable[[str], None],
    told: Callable[[str], None],
    world: World,
) -> VllmEngine:
    model, patience = learner.model, _patience(run)
    out = Path(run.out).absolute()
    context = getattr(model.config, "max_position_embeddings", None)
    if run.engine == "vllm":
        describe = partial(describe_policy, model=model, tokenizer=text.tokenizer)
        server = Server(python_of(run), describe, _flags(run), out / "vllm.log", patience, say, _devices(run))
    else:
        server = Elsewhere(run.engine, os.environ.get(KEY, ""), out / ".engine")
    return VllmEngine(
        server,
        Source(
            write=partial(write_weights, model=model, dtype=learner.dtype, world=world),
            logprobs=partial(_logprobs, learner),
            probe=probe_of(prompt(), context),
            sampling=Sampling(max_new_tokens=ANSWER, temperature=run.temperature),
            most=SAME_WEIGHTS[run.dtype],
        ),
        text.end_ids,
        vocabulary=model.config.get_text_config().vocab_size,
        context=context,
        patience=patience,
        told=told,
        crew=world,
        keeps=run.in_flight == "continue",
    )


def _patience(run: Run) -> Patience:
    """Ranks that wait for a start give it up before they give up the rank that waits for it."""
    return Patience() if run.ranks == 1 else Patience(start=min(Patience.start, 0.9 * run.rank_timeout))


def probe_of(prompt: Sequence[int], context: int | None) -> list[int]:
    """A prompt again and again, up to the length of a probe."""
    length = PROBE if context is None else max(min(PROBE, context - ANSWER), 1)
    return [prompt[place % len(prompt)] for place in range(length)]


def _flags(run: Run) -> list[str]:
    """Of vLLM's server. On a CPU nothing is compiled: that would take longer than the sampling of small models."""
    if run.device == "cpu":
        place = ["--enforce-eager"]
    else:
        place = [] if vllm_apart(run) else ["--gpu-memory-utilization", SHARE]
        place += ["--tensor-parallel-size", str(max(len(run.vllm_devices), 1))]
    policy = ["--scheduling-policy", "priority"] if run.in_flight == "continue" else []
    return ["--dtype", run.dtype, "--max-model-len", "auto", *policy, *place]


def _devices(run: Run) -> str:
    """The server's GPUs as CUDA_VISIBLE_DEVICES names them; empty where it may see all, and takes the first."""
    own = [int(number)] if (number := run.device.partition(":")[2]) else []
    names = list(filter(None, os.environ.get("CUDA_VISIBLE_DEVICES", "").split(",")))
    return ",".join(names[place] if names else str(place) for place in run.vllm_devices or own)


@torch.no_grad()
def _logprobs(learner: Learner, prompt: Sequence[int], answer: Sequence[int]) -> list[float]:
    batch = collate([Row(prompt=prompt, actions=answer, group=0, reward=0.0)], learner.device)
    return learner.policy(batch).logprobs[batch.mask].tolist()
