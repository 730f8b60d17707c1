"""Thirty steps of every method: what they lose, and the norms of their gradients, digit by digit.

    python tests/golden_losses/losses.py                     print what comes out here
    python tests/golden_losses/losses.py --because REASON    write it to losses.json, with why it may change

On one thread a model learns from answers that are given, so that no sampled token can be another one on another CPU.
In float32 a small Llama behind the library's own passes and optimizer: its last bits are the CPU's, and are comparable
where torch and the CPU are those of the file. In float64 the model of `toy_models`, comparable everywhere.
"""

from __future__ import annotations

import os

# sums in one order on every x86 CPU, wherever the memory of a matrix begins: before torch is loaded
os.environ |= {"MKL_CBWR": "COMPATIBLE", "OMP_NUM_THREADS": "1", "HF_HUB_OFFLINE": "1"}

import argparse
import json
import re
import sys
from copy import deepcopy
from dataclasses import replace
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).parents[1]))

import torch
from transformers import LlamaConfig, LlamaForCausalLM, LlamaForSequenceClassification, PreTrainedModel

from oneloop.algorithms import ALGORITHMS, DAPO, DR_GRPO, PolicyGradient
from oneloop.loop import train
from oneloop.model.learner import Critic, Learner, Optimization
from oneloop.objective.aggregate import FixedLength
from oneloop.objective.shaping import OverlongPenalty
from oneloop.recipes.machine import machine
from toy_models import VOCABULARY, Bigram, Fixed, Memory, rows_for

STEPS = 30
KEPT = ("loss", "grad_norm")
FILE = Path(__file__).with_suffix(".json")
METHODS: dict[str, Any] = ALGORITHMS | {
    # lengths that answers of 1 to 12 tokens reach
    "dapo": replace(DAPO, shape=OverlongPenalty(max_length=11, margin=4)),
    "dr_grpo": replace(DR_GRPO, aggregate=FixedLength(12)),
}


def policy(scores: bool) -> PreTrainedModel:
    """Weights are multiples of 1/64, which every CPU writes down alike."""
    config = LlamaConfig(
        vocab_size=VOCABULARY, hidden_size=16, intermediate_size=32, num_hidden_layers=2, num_attention_heads=2,
        num_key_value_heads=2, max_position_embeddings=32, num_labels=1, pad_token_id=0, tie_word_embeddings=False,
    )  # fmt: skip
    model = (LlamaForSequenceClassification if scores else LlamaForCausalLM)(config)
    rng = torch.Generator().manual_seed(0)
    with torch.no_grad():
        for parameter in model.parameters():
            dyadic = torch.randint(-31, 32, parameter.shape, generator=rng) / 64
            parameter.copy_(dyadic if parameter.dim() > 1 else 1 + dyadic / 8)
    return model


def learner(method: Any) -> Learner:
    model, critic = policy(scores=method.name == "reward_model"), None
    if isinstance(method, PolicyGradient) and method.critic is not None:
        critic = Critic(torch.nn.Linear(16, 1))
        with torch.no_grad():
            for parameter in critic.head.parameters():
                parameter.fill_(1 / 8)
    return Learner(
        model,
        reference=deepcopy(model) if "reference" in method.needs else None,
        critic=critic,
        optimization=Optimization(
            learning_rate=1e-3, critic_learning_rate=1e-3, total_updates=STEPS, warmup_updates=3, schedule="cosine",
            weight_decay=0.01,
        ),
    )  # fmt: skip


MODELS = {"float32": learner, "float64": lambda method: Bigram(learning_rate=1e-2, reference=Bigram(7))}


def learned(method: Any, dtype: str) -> dict[str, list[float]]:
    """The kept numbers of each step."""
    memory = Memory()
    train(
        method,
        Fixed(lambda step: rows_for(method, step, dtype=getattr(torch, dtype))),
        MODELS[dtype](method),
        memory,
        steps=STEPS,
        minibatch=3,
        max_tokens=60,
        seed=0,
    )
    return {name: memory.column(name) for name in KEPT}


def here() -> dict[str, str]:
    """What decides the last bits."""
    facts = machine()
    return {name: str(facts[name]) for name in ("torch", "cpu", "cpu_capability")}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--because", help="write losses.json; the reason stays in it")
    parser.add_argument("--dtype", nargs="+", choices=list(MODELS), default=list(MODELS))
    options = parser.parse_args()
    torch.set_num_threads(1)
    found = {
        dtype: {name: learned(method, dtype) for name, method in METHODS.items()} for dtype in options.dtype
    }  # fmt: skip
    if not options.because:
        print(json.dumps({"made_on": here(), **found}))
        return
    reasons = json.loads(FILE.read_text())["reasons"] if FILE.exists() else []
    text = json.dumps({"made_on": here(), "reasons": [*reasons, options.because], **found}, indent=1)
    FILE.write_text(re.sub(r",\n +(?=[-\d])", ", ", text) + "\n")  # a column is a line


if __name__ == "__main__":
    main()
