"""What `oneloop plan` says beside what runs then take: peak resident memory above that before the models were loaded.

    .venv/bin/python benchmarks/single/memory_plan.py [--model h128] [--method grpo]

Each run is a process of its own: random weights of a few shapes, rows of fixed lengths, a few steps.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import tempfile
from dataclasses import replace
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[1]))

import torch
from cases.models import BOS, EOS, PAD, word_tokenizer
from transformers import LlamaConfig, LlamaForCausalLM

from oneloop.config import Run, default_run
from oneloop.plan.bill import Lengths, bill
from oneloop.recipes.execute import execute

PROMPT, ANSWER = 96, 160
"""Tokens of a prompt, and of an answer with its end token."""
SHAPES = {
    "h128": (128, 4, 4, 352, 512, False),
    "h384": (384, 6, 6, 1024, 4096, False),
    "h768": (768, 12, 12, 2048, 16384, False),
    "v152k": (384, 6, 6, 1024, 151936, True),
}
"""Hidden size, layers, heads, intermediate size, vocabulary, tied embeddings."""
METHODS = {
    "sft": {"prompts_per_step": 32},
    "dpo": {"prompts_per_step": 16},
    "grpo": {"prompts_per_step": 8, "group_size": 4},
    "ppo": {"prompts_per_step": 32, "minibatch": 16, "epochs": 2, "critic": "separate"},
    "sft lora": {"prompts_per_step": 32, "lora": 16},
    "grpo lora": {"prompts_per_step": 8, "group_size": 4, "lora": 16},
}
"""By algorithm, and what follows its name."""
REWARD = "def reward(completions, **columns):\n    return [len(set(text)) / 10 for text in completions]\n"


def words(first: int, count: int, vocabulary: int) -> str:
    return " ".join(f"t{3 + (first + place) % (vocabulary - 3)}" for place in range(count))


def make(folder: Path, shape: str) -> None:
    """A model, data for every method, and a reward."""
    folder.mkdir(parents=True, exist_ok=True)
    hidden, layers, heads, intermediate, vocabulary, tied = SHAPES[shape]
    torch.manual_seed(0)
    config = LlamaConfig(
        hidden_size=hidden, num_hidden_layers=layers, num_attention_heads=heads, num_key_value_heads=heads,
        intermediate_size=intermediate, vocab_size=vocabulary, tie_word_embeddings=tied, max_position_embeddings=1024,
        pad_token_id=PAD, bos_token_id=BOS, eos_token_id=EOS,
    )  # fmt: skip
    LlamaForCausalLM(config).save_pretrained(folder / "model")
    word_tokenizer(vocabulary).save_pretrained(folder / "model")
    rows = [
        {"prompt": words(7 * row, PROMPT, vocabulary), "completion": words(row, ANSWER - 1, vocabulary)}
        for row in range(64)
    ]
    pairs = [
        {"prompt": row["prompt"], "chosen": row["completion"], "rejected": words(n + 5, ANSWER - 1, vocabulary)}
        for n, row in enumerate(rows)
    ]
    (folder / "rows.jsonl").write_text("\n".join(map(json.dumps, rows)))
    (folder / "pairs.jsonl").write_text("\n".join(map(json.dumps, pairs)))
    (folder / "reward.py").write_text(REWARD)


def run_of(folder: Path, method: str, max_tokens: int, steps: int = 2) -> Run:
    algorithm = method.split()[0]
    rollouts = algorithm in ("grpo", "ppo")
    return replace(
        default_run(algorithm),
        model=str(folder / "model"),
        data=str(folder / ("pairs.jsonl" if algorithm == "dpo" else "rows.jsonl")),
        reward=(f"{folder}/reward.py:reward",) if rollouts else (),
        out=str(folder / f"run-{method.replace(' ', '-')}"),
        steps=steps,
        max_new_tokens=ANSWER,
        max_tokens=max_tokens,
        **METHODS[method],
    )


def train(folder: Path, method: str, max_tokens: int, steps: int) -> None:
    class Quiet:
        def say(self, text: str) -> None: ...

        def step(self, step: int, values) -> None: ...

    torch.set_num_threads(1)
    execute(run_of(folder, method, max_tokens, steps), Quiet())


def planned(folder: Path, method: str, max_tokens: int, mapped: bool) -> dict[str, int]:
    expected = bill(run_of(folder, method, max_tokens), Lengths(prompt=PROMPT, answer=ANSWER))
    return {phase.name: phase.in_use if mapped else phase.bytes for phase in expected.phases}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--model", nargs="*", default=list(SHAPES), choices=SHAPES)
    parser.add_argument("--method", nargs="*", default=list(METHODS), choices=METHODS)
    parser.add_argument("--max-tokens", type=int, default=4096)
    # the second update finds the optimizer's moments in place: tensors add nothing after it, but holes may grow
    parser.add_argument("--steps", type=int, default=2)
    parser.add_argument("--mapped", action="store_true", help="measure without the holes of malloc's heap")
    parser.add_argument("--work", type=Path, help="keep the runs here, and measure none that is there already")
    parser.add_argument("--worker", nargs=2, help=argparse.SUPPRESS)
    parser.add_argument("--no-plan", action="store_true")
    args = parser.parse_args()
    if args.worker:
        train(Path(args.worker[0]), args.worker[1], args.max_tokens, args.steps)
        return
    with tempfile.TemporaryDirectory() as temporary:
        work = args.work or Path(temporary)
        for shape in args.model:
            folder = work / shape
            if not (folder / "reward.py").is_file():
                make(folder, shape)
            for method in args.method:
                if not (Path(run_of(folder, method, args.max_tokens).out) / "final").is_dir():
                    measure(folder, method, args)
                report(shape, method, folder, args)


def measure(folder: Path, method: str, args: argparse.Namespace) -> None:
    """One real run in a process of its own."""
    # every large block a map of its own: what the process holds is then what its tensors hold, without malloc's holes
    malloc = {"MALLOC_MMAP_THRESHOLD_": "65536"} if args.mapped else {}
    command = [sys.executable, __file__, "--worker", str(folder), method]
    command += ["--max-tokens", str(args.max_tokens), "--steps", str(args.steps)]
    subprocess.run(command, check=True, env=os.environ | malloc | {"OMP_NUM_THREADS": "1", "HF_HUB_OFFLINE": "1"})


def report(shape: str, method: str, folder: Path, args: argparse.Namespace) -> None:
    record = Path(run_of(folder, method, args.max_tokens).out) / "memory.jsonl"
    rows = [json.loads(line) for line in record.read_text().splitlines()]
    grown = [(row["peak_rss"] - row["start_rss"]) / 2**20 for row in rows]
    line = f"{shape:6} {method:9} measured {grown[-1]:7.0f} MiB (by step {' '.join(f'{x:.0f}' for x in grown)})"
    if not args.no_plan:
        phases = planned(folder, method, args.max_tokens, args.mapped)
        peak = max(phases.values()) / 2**20
        parts = " ".join(f"{name} {value / 2**20:.0f}" for name, value in phases.items())
        line += f", planned {peak:7.0f} MiB ({parts}), planned/measured {peak / grown[-1]:.3f}"
    print(line, flush=True)


if __name__ == "__main__":
    main()
