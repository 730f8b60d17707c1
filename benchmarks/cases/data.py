"""Rows of a case as JSON lines, made once and read by every engine. The file is one step's batch, in whatever order."""

from __future__ import annotations

import json
from pathlib import Path
from random import Random

from cases.models import draw_length, phases_of, tokens_of
from cases.values import Case


def _words(ids: list[int]) -> str:
    return " ".join(f"t{n}" for n in ids)


def _tokens(count: int, vocabulary: int, rng: Random) -> list[int]:
    return [rng.randrange(3, vocabulary) for _ in range(count)]


def _random(case: Case, what: str) -> Random:
    return Random(f"{case.rows_of or case.name}-{case.seed}-{what}")


def prompt_ids(case: Case) -> list[list[int]]:
    """A prompt for each row. Its last token names the phase, from which the length of the answer follows."""
    rng = _random(case, "prompts")
    vocabulary, phases = case.shape.vocabulary, phases_of(case)
    prompts = []
    for _ in range(case.rows):
        ids = _tokens(case.prompt_tokens, vocabulary, rng)
        phase = phases - draw_length(case.lengths, rng) if case.ending == "counted" else 0
        ids[-1] = rng.choice(tokens_of(phase, phases, vocabulary))
        prompts.append(ids)
    return prompts


def _answer(case: Case, rng: Random) -> str:
    """An answer of that many tokens, of which the end token, which every engine appends itself, is one.

    It begins with a space: some engines join prompt and answer as text.
    """
    return " " + _words(_tokens(draw_length(case.lengths, rng) - 1, case.shape.vocabulary, rng))


def rows(case: Case) -> list[dict[str, str]]:
    rng = _random(case, "answers")
    prompts = [_words(ids) for ids in prompt_ids(case)]
    if case.kind in ("grpo", "scaling", "rollout"):
        return [{"prompt": prompt} for prompt in prompts]
    if case.group == 1:
        return [{"prompt": prompt, "completion": _answer(case, rng)} for prompt in prompts]
    return [{"prompt": prompt, "chosen": _answer(case, rng), "rejected": _answer(case, rng)} for prompt in prompts]


def data_file(case: Case, cache: Path, name: str) -> Path:
    path = cache / "data" / f"{name}.jsonl"
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("".join(json.dumps(row) + "\n" for row in rows(case)), encoding="utf-8")
    return path
