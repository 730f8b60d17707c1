"""A step's pass recorded once and replayed: on a GPU it is one launch then, instead of one for each operation."""

from __future__ import annotations

import warnings
from collections.abc import Callable
from typing import NamedTuple

import torch
from jaxtyping import Float, Int
from torch import Tensor

from oneloop.forward.fused import Backbone
from oneloop.rollout.cache import Slots

STRIDE = 128
"""Columns of the cache by which the shapes of recorded passes grow."""
STEADY = 8
"""Passes of one layout that are run before the next is recorded: as long as a recording takes, or so."""


class Recording(NamedTuple):
    """A pass: `replay` reads its tensors where they were when it was recorded, and leaves its result in `states`."""

    states: Float[Tensor, "S H"]
    replay: Callable[[], None]


Record = Callable[[Callable[[], Tensor]], Recording]


def as_cuda_graph(run: Callable[[], Tensor]) -> Recording:
    """By CUDA. Other threads may use the device meanwhile, as those do that score completions."""
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph, capture_error_mode="thread_local"):
        states = run()
    return Recording(states, graph.replay)


class Recorder:
    """Records passes for as long as that works and the recordings say what the passes said."""

    def __init__(self, record: Record, tolerance: float) -> None:
        self._record: Record | None = record
        self._tolerance = tolerance

    @property
    def works(self) -> bool:
        return self._record is not None

    def __call__(self, run: Callable[[], Tensor], states: Float[Tensor, "S H"]) -> Recording | None:
        """The pass `run`, which gave `states`; None where it cannot be recorded."""
        assert self._record is not None
        try:
            recording = self._record(run)
            recording.replay()
            wrong = not torch.allclose(recording.states, states, rtol=self._tolerance, atol=self._tolerance)
            why = "a replay gives other numbers than the pass" if wrong else ""
        except RuntimeError as error:
            recording, why = None, str(error)
        if not why:
            return recording
        self._record = None
        warnings.warn(f"decoding launches its operations one by one: {why}", RuntimeWarning, stacklevel=2)
        return None


def recorder_for(device: torch.device, tolerance: float) -> Recorder | None:
    return Recorder(as_cuda_graph, tolerance) if device.type == "cuda" else None


class Pass:
    """The pass of a step: the newest token of every slot to its hidden state. The result is good until the next."""

    def __init__(self, backbone: Backbone, slots: Slots, recorder: Recorder | None) -> None:
        self._backbone, self._slots, self._recorder = backbone, slots, recorder
        self._layout: tuple[int, ...] = ()
        self._passes = 0
        self._recording: Recording | None = None

    def __call__(self, tokens: Int[Tensor, " S"]) -> Float[Tensor, "S H"]:
        self._slots.begin()
        states = self._states(tokens)
        self._slots.end()
        return states

    def _states(self, tokens: Int[Tensor, " S"]) -> Tensor:
        if self._recorder is None:
            return self._run(tokens)
        if self._slots.layout != self._layout:
            self._recording, self._passes, self._tokens = None, 0, tokens.clone()
        self._tokens.copy_(tokens)
        if self._recording is not None:
            self._recording.replay()
            return self._recording.states
        states = self._run(self._tokens)
        self._layout = self._slots.layout  # the first pass may have made the tables
        self._passes += 1
        if self._passes == STEADY and self._recorder.works:
            self._recording = self._recorder(lambda: self._run(self._tokens), states)
        return states

    def _run(self, tokens: Int[Tensor, " S"]) -> Tensor:
        self._slots.forget_masks()
        return self._backbone(tokens[:, None], self._slots.at[:, None], self._slots)[:, 0]
