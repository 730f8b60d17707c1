"""`oneloop eval`: answers to held-out prompts, scored, with 95 % intervals."""

from __future__ import annotations

from dataclasses import dataclass

from oneloop.cli.parse import parse
from oneloop.errors import ConfigError, GateError


@dataclass(frozen=True, kw_only=True)
class Eval:
    """Score a model's answers on held-out prompts, with 95 % intervals."""

    model: str
    """Folder or hub id of a Hugging Face causal language model."""
    data: str
    """JSONL file with the column prompt (and those the rewards read), or task:NAME (its test split)."""
    reward: tuple[str, ...] = ()
    """Reward functions, file.py:function or package.module:function; a task has its own grader."""
    size: int = 512
    """Rows that a built-in task makes."""
    samples: int = 1
    """Completions per prompt; above 1 needs a positive temperature."""
    temperature: float = 0.0
    """0 takes the most likely token."""
    max_new_tokens: int = 64
    """Length limit of a completion, in tokens."""
    fail_under: float | None = None
    """End with exit code 3 when the mean reward is below this."""
    seed: int = 0
    """Names every random number."""
    dtype: str = "float32"
    """float32 or bfloat16."""
    device: str = "cpu"
    """cpu, cuda or cuda:N."""


def main(arguments: list[str]) -> int:
    options = parse(Eval, arguments, prog="oneloop eval")
    from oneloop.recipes.evaluate import evaluate

    scores = evaluate(
        options.model,
        options.data,
        options.reward,
        size=options.size,
        samples=options.samples,
        temperature=options.temperature,
        max_new_tokens=options.max_new_tokens,
        seed=options.seed,
        dtype=options.dtype,
        device=options.device,
    )
    for score in scores:
        print(score)
    if options.fail_under is None:
        return 0
    if scores[0].mean is None:
        raise ConfigError("--fail-under: no answer could be scored")
    if scores[0].mean < options.fail_under:
        raise GateError(f"reward {scores[0].mean:.4f} is below --fail-under {options.fail_under:g}")
    return 0
