"""Rollouts by transformers alone: `generate` on the padded batch, or `generate_batch`, its continuous batching."""

from __future__ import annotations

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[1]))

import torch
from cases.data import prompt_ids
from cases.models import EOS, PAD
from cases.values import CASES, Case
from processes.measured import arguments, emit, timed_calls
from transformers import AutoModelForCausalLM, GenerationConfig, PreTrainedModel

PAGE = 32
"""Tokens of a page of continuous batching's cache: one of the usual 256 would hold mostly nothing here."""


def sampling(case: Case) -> GenerationConfig:
    return GenerationConfig(
        do_sample=True,
        temperature=1.0,
        top_k=0,
        top_p=1.0,
        max_new_tokens=case.max_new_tokens,
        eos_token_id=EOS,
        pad_token_id=PAD,
    )


def padded(model: PreTrainedModel, case: Case) -> list[int]:
    """Prompts of a case have one length, so none is padded; rows that have ended are."""
    prompts = torch.tensor(prompt_ids(case))
    out = model.generate(prompts, attention_mask=torch.ones_like(prompts), generation_config=sampling(case))
    answers = out[:, prompts.shape[1] :]
    return [len(row) if EOS not in row else row.index(EOS) + 1 for row in answers.tolist()]


def continuous(model: PreTrainedModel, case: Case) -> list[int]:
    from transformers import ContinuousBatchingConfig  # noqa: PLC0415 (older versions have none)

    prompts = prompt_ids(case)
    each = -(-(case.prompt_tokens + case.max_new_tokens) // PAGE) + 1
    # sizes that it takes from GPU memory otherwise: every request fits at once
    config = ContinuousBatchingConfig(
        page_size=PAGE,
        num_blocks=each * len(prompts),
        max_batch_tokens=len(prompts) * case.prompt_tokens,
        max_requests_per_batch=len(prompts),
        allow_block_sharing=False,
    )
    results = model.generate_batch(
        prompts, generation_config=sampling(case), continuous_batching_config=config, persistent_manager=True
    )
    if len(results) < len(prompts):
        raise RuntimeError(f"generate_batch returned {len(results)} of {len(prompts)} requests")
    return [len(result.generated_tokens) for result in results.values()]


def main() -> None:
    args = arguments()
    torch.set_num_threads(1)
    case = CASES[args.case]
    model = AutoModelForCausalLM.from_pretrained(args.model, dtype=torch.float32).eval()
    generate = continuous if args.engine.endswith("continuous") else padded
    lengths: list[int] = []

    def call(number: int) -> int:
        torch.manual_seed(args.seed * 100 + number)
        with torch.no_grad():
            lengths[:] = generate(model, case)
        return sum(lengths)

    times = timed_calls(call, case.steps)
    emit({**times, "lengths": {"min": min(lengths), "max": max(lengths)}})


if __name__ == "__main__":
    main()
