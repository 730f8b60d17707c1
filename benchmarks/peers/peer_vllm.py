"""Rollouts by vLLM on the CPU: `LLM.generate` alone, after a warm-up, from token ids, nothing decoded to text."""

from __future__ import annotations

import os
import sys
from pathlib import Path

# one thread, and the engine in this process: a second process would add its messages to the time
os.environ |= {"VLLM_ENABLE_V1_MULTIPROCESSING": "0", "VLLM_CPU_KVCACHE_SPACE": "1", "VLLM_LOGGING_LEVEL": "ERROR"}
os.environ |= {"HF_HUB_OFFLINE": "1", "VLLM_NO_USAGE_STATS": "1"}
os.environ.setdefault("VLLM_CPU_OMP_THREADS_BIND", "nobind")

sys.path.insert(0, str(Path(__file__).parents[1]))

import torch
from cases.data import prompt_ids
from cases.values import CASES
from processes.measured import arguments, emit, timed_calls
from vllm import LLM, SamplingParams, TokensPrompt


def main() -> None:
    args = arguments()
    case = CASES[args.case]
    prompts = [TokensPrompt(prompt_token_ids=ids) for ids in prompt_ids(case)]
    engine = LLM(
        model=args.model,
        dtype="float32",
        enforce_eager=not args.engine.endswith("compiled"),
        max_model_len=case.shape.context,
        max_num_seqs=len(prompts),
        max_num_batched_tokens=max(len(prompts) * case.prompt_tokens, case.shape.context),
        enable_prefix_caching=False,  # the same prompts come again in every timed call
        disable_log_stats=True,
        seed=args.seed,
    )
    torch.set_num_threads(1)
    sampling = SamplingParams(
        temperature=1.0, top_k=0, top_p=1.0, max_tokens=case.max_new_tokens, detokenize=False, logprobs=None
    )
    lengths: list[int] = []

    def call(number: int) -> int:
        out = engine.generate(prompts, sampling, use_tqdm=False)
        lengths[:] = [len(request.outputs[0].token_ids) for request in out]
        return sum(lengths)

    times = timed_calls(call, case.steps)
    emit({**times, "lengths": {"min": min(lengths), "max": max(lengths)}, "threads": torch.get_num_threads()})


if __name__ == "__main__":
    main()
