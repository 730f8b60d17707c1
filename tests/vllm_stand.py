"""A `VllmEngine` on the fake server: the trainer is one number, which the fake's log-probs follow."""

import sys
from pathlib import Path

import torch
from safetensors.torch import save_file

from oneloop.rollout.vllm.engine import VllmEngine
from oneloop.rollout.vllm.faults import Patience
from oneloop.rollout.vllm.server import Server
from oneloop.rollout.vllm.weights import Source
from oneloop.together import Alone, by_first
from oneloop.types import Sampling

FAKE = Path(__file__).parent / "fake_vllm"
QUICK = Patience(tries=3, pause=0.01, answer=15.0, silence=15.0, load=15.0, start=30.0, death=0.8, look=0.1)
SAMPLING = Sampling(max_new_tokens=6)
ALONE = Alone()
PROMPTS = [[5, 6, place] for place in range(8)]


def fake_python(folder: Path) -> str:
    """An interpreter in whose environment `vllm` is the fake; `server` there is the number of its last process."""
    path = folder / "python"
    environment = f'PYTHONPATH="{FAKE}:$PYTHONPATH" FAKE_COUNTS="{folder}/counts"'
    number = f'echo $$ > "{folder}/server"'
    path.write_text(f'#!/bin/sh\n{number}\n{environment} exec "{sys.executable}" "$@"\n', encoding="utf-8")
    path.chmod(0o755)
    return str(path)


class Trainer:
    """One number, of which each rank has a replica, and who hears what was mended."""

    def __init__(self, weight: float = 0.25, crew=ALONE) -> None:
        self.weight, self.crew, self.told = weight, crew, []

    def write(self, folder: Path) -> None:
        state = {"model.layers.0.weight": torch.tensor([self.weight, 2.0])}
        by_first(self.crew, lambda: save_file(state, folder / "model.safetensors"))

    def source(self) -> Source:
        return Source(
            write=self.write,
            logprobs=lambda prompt, answer: [-(1 + self.weight + token / 100) for token in answer],
            probe=[5] * 20,
            sampling=SAMPLING,
            most=1e-3,
        )

    def engine(self, server, patience: Patience = QUICK, **more) -> VllmEngine:
        return VllmEngine(
            server, self.source(), (1,), vocabulary=8, context=64, patience=patience, told=self.told.append,
            crew=self.crew, **more,
        )  # fmt: skip


def server_in(folder: Path, patience: Patience = QUICK, python: str = "", flags=(), devices: str = "") -> Server:
    return Server(
        python or fake_python(folder), lambda place: None, flags, folder / "vllm.log", patience, lambda text: None,
        devices,
    )  # fmt: skip
