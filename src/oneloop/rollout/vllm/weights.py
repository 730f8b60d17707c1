"""Weights from the trainer to the server after each update.

    written once as safetensors, in memory → requests ended, or kept waiting between two tokens → read by the server,
    which says a digest of each layer → its keys and values forgotten → version set → requests taken again

A request that was kept waiting goes on where it was: what stands before the next token is read anew, with the new
weights.

Rank 0 writes replicas; shares of a model are gathered piece by piece, and every rank writes some.

No array crosses the wire and nothing is unpickled: the server is told a folder's name. What NCCL and CUDA IPC would
save, a copy through memory, has not been built: it could not be tried without a GPU.
"""

from __future__ import annotations

import shutil
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any, Literal

from oneloop.rollout.vllm.alike import asked
from oneloop.rollout.vllm.client import Client
from oneloop.rollout.vllm.faults import Fault, Patience
from oneloop.rollout.vllm.inside.oneloop_inside import digests
from oneloop.together import Crew, by_first
from oneloop.types import Sampling

SLOWEST = 5e7
"""Bytes a second at which a server reads weights at the least."""
Pause = Literal["abort", "keep"]
"""What becomes of requests on their way: they are ended, or wait."""


@dataclass(frozen=True, kw_only=True)
class Source:
    """What the trainer hands out. Every rank calls these, and one after the other.

    Args:
        write: the weights as safetensors into a folder, in Hugging Face layout, without adapters.
        logprobs: of an answer to a prompt, per token, in nats, at the temperature of sampling.
        probe: a prompt longer than a block of the server's cache: old blocks would show in what follows it.
        sampling: of the probe's answer.
        most: mean |log π − log μ| of the probe, nats, above which other weights are at work.
    """

    write: Callable[[Path], None]
    logprobs: Callable[[Sequence[int], Sequence[int]], Sequence[float]]
    probe: Sequence[int]
    sampling: Sampling
    most: float


def takes_weights(client: Client, patience: Patience) -> bool:
    """Whether a server that somebody else started has the routes for weights: it was started in vLLM's dev mode.

    Raises: Fault where it does not answer at all.
    """
    try:
        client.json("GET", "/weight_info", patience.answer)
    except Fault as fault:
        if fault.status == 404:
            return False
        raise
    return True


def send(
    client: Client, folder: Path, source: Source, version: int, patience: Patience, pause: Pause, *, ours: bool,
    crew: Crew,
) -> None:  # fmt: skip
    """Replace the server's weights by the trainer's, which are called `version`. Every rank calls it.

    With `abort` no rank samples any more when the server pauses: all have come to write, be it a share or nothing.

    Args:
        folder: where they are put; the server must be able to read it.
        ours: the server has `Loader`, and says what arrived.

    Raises: Fault, after which the server's weights are nobody's.
    """
    place = folder / "weights"
    try:
        by_first(crew, partial(place.mkdir, parents=True, exist_ok=True))
        source.write(place)
        asked(crew, partial(_load, client, place, version, patience, pause, ours))
    finally:
        if crew.rank == 0:
            shutil.rmtree(place, ignore_errors=True)  # memory


def _load(client: Client, place: Path, version: int, patience: Patience, pause: Pause, ours: bool) -> None:
    sent = digests(place) if ours else {}
    client.json("POST", f"/pause?mode={pause}", patience.answer)
    method, name = ("oneloop_load", "folder") if ours else ("reload_weights", "weights_path")
    seconds = patience.load + sum(path.stat().st_size for path in place.iterdir()) / SLOWEST
    answer = client.json("POST", "/collective_rpc", seconds, {"method": method, "kwargs": {name: str(place)}})
    if ours:
        _check_arrived(sent, answer)
    every = "?reset_running_requests=true" if pause == "keep" else ""
    forgot = client.json("POST", f"/reset_prefix_cache{every}", patience.answer)
    if not isinstance(forgot, Mapping) or forgot.get("success") is not True:  # what is in use is not forgotten
        raise Fault(f"it keeps keys and values of the weights before: /reset_prefix_cache answered {forgot!r}")
    client.json("POST", "/update_weight_version", patience.answer, {"new_version": str(version)})
    client.json("POST", "/resume", patience.answer)


def check_version(client: Client, version: int, patience: Patience) -> None:
    """Raises: Fault where the server has other weights than it was given last: it was started again, say."""
    held = client.json("GET", "/weight_info", patience.answer)
    if not isinstance(held, Mapping) or held.get("weight_version") != str(version):
        raise Fault(f"it has weights {held!r}; the trainer's are {version}", lasting=True)


def _check_arrived(sent: Mapping[str, str], answer: Any) -> None:
    """Of each of the server's workers."""
    results = answer.get("results") if isinstance(answer, Mapping) else None
    if not isinstance(results, list) or not results:
        raise Fault(f"it did not say which weights arrived, but {answer!r}")
    for arrived in results:
        if arrived != sent:
            arrived = arrived if isinstance(arrived, Mapping) else {}
            wrong = [name for name in sent if arrived.get(name) != sent[name]] or sorted(arrived.keys() - sent.keys())
            raise Fault(f"weights arrived damaged: {len(wrong)} of {len(sent)} groups differ, the first {wrong[0]}")
