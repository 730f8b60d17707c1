"""A few groups of a step token by token: everything that the update knew of each."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from random import Random
from typing import TYPE_CHECKING

import torch
from jaxtyping import Float, Int
from torch import Tensor

from oneloop.batch import Batch
from oneloop.objective.advantage import row_rewards
from oneloop.objective.surrogate import Surrogate, bounded_log_ratio
from oneloop.trace.columns import INT, lists, nested, numbers, passes, spelled, whole_numbers, words
from oneloop.trace.passes import Passes
from oneloop.types import Trajectory

if TYPE_CHECKING:  # slow to load
    import pyarrow

GROUPS, ROWS = 4, 8
"""Of a step: so many groups, and rows of each."""

Spell = Callable[[int], str]
"""A token id to what it stands for."""


def sampled_rows(group: Int[Tensor, " B"], rewards: Float[Tensor, " B"], seed: int) -> Int[Tensor, " R"]:
    """Rows of the group whose rewards differ most, and of others that the seed picks, in order."""
    members: dict[int, list[int]] = {}
    for row, number in enumerate(group.tolist()):
        members.setdefault(number, []).append(row)
    given = rewards.tolist()
    spread = {
        number: max(given[row] for row in rows) - min(given[row] for row in rows) for number, rows in members.items()
    }
    widest = max(spread, key=lambda number: spread[number])
    others = [number for number in members if number != widest]
    chosen = {widest, *Random(seed).sample(others, min(GROUPS - 1, len(others)))}
    return torch.tensor([row for number, rows in members.items() if number in chosen for row in rows[:ROWS]])


def token_table(
    step: int,
    batch: Batch,
    seen: Passes,
    samples: Int[Tensor, " B"],
    surrogate: Surrogate | None,
    *,
    kinds: Sequence[str],
    drawn: Mapping[tuple[int, int], Trajectory],
    spell: Spell,
    decode: Callable[[Sequence[int]], str],
) -> pyarrow.Table:
    """A row for each row of the batch, its lists one entry for each action.

    Rows that an environment spoke in have also what it said: `masked_at`, for each of its tokens the actions before it,
    and `masked_text`, `masked_id`.

    Args:
        surrogate: None where no ratio is taken.
        kinds: what each row is: rollout, chosen, rejected, demonstration, rated.
        drawn: sampled rows by group and sample.
    """
    import pyarrow  # noqa: PLC0415

    mask, visited = batch.mask, seen.seen
    old = None if surrogate is None else seen.old_logprobs(batch)
    once = visited.any(0) if len(visited) else torch.zeros(len(batch), dtype=torch.bool)
    known = None if batch.old_logprobs is not None else once
    items = [drawn.get(key) for key in zip(batch.group.tolist(), samples.tolist(), strict=True)]
    given = row_rewards(batch.rewards, mask).tolist()
    starts = _starts(batch)
    asked = torch.arange(mask.shape[1]) < starts[:, None]
    prompts = [row[:end] for row, end in zip(batch.tokens, starts.tolist(), strict=True)]
    scores = seen.scores is not None
    return pyarrow.table(
        {
            "step": whole_numbers([step] * len(batch)),
            "group": whole_numbers(batch.group),
            "sample": whole_numbers(samples),
            "kind": words(kinds),
            "prompt": words(
                [
                    decode(ids.tolist()) if item is None else item.prompt.text
                    for ids, item in zip(prompts, items, strict=True)
                ]
            ),
            "prompt_tokens": spelled(batch.tokens[asked], starts, spell),
            "text": spelled(batch.tokens[mask], mask.sum(1), spell),
            "id": lists(batch.tokens, mask, INT),
            **_masked(batch, items, spell),
            "lp_sampler": lists(batch.rollout_logprobs, mask),
            "lp_old": lists(old, mask, known=known),
            "lp_ref": lists(batch.ref_logprobs, mask),
            "entropy": lists(None if scores else seen.entropy, mask, known=once),
            "value": lists(batch.values, mask),
            "return": lists(batch.returns, mask),
            "advantage": lists(batch.advantages, mask),
            "update": passes(seen.update, visited),
            "lp_new": nested(None if scores else seen.logprobs, mask, visited),
            "outcome": nested(outcomes(batch, seen, surrogate), mask, visited, torch.int8),
            "reward": numbers(
                [value if item is None else item.reward.value for value, item in zip(given, items, strict=True)]
            ),
            "stop": words([None if item is None else str(item.completion.stop) for item in items]),
            "score": numbers(seen.scores, len(batch)),
        }
    )


def _masked(batch: Batch, items: Sequence[Trajectory | None], spell: Spell) -> dict[str, pyarrow.Array]:
    """What was said to the rows between their actions; no column where nothing was."""
    if not any(item is not None and item.completion.given for item in items):
        return {}
    given = torch.zeros_like(batch.mask)
    for row, item in enumerate(items):
        if item is not None:
            prompt = len(item.prompt.tokens)
            for start, end in item.completion.given:
                given[row, prompt + start : prompt + end] = True
    return {
        "masked_at": lists(batch.mask.cumsum(1), given, INT),
        "masked_text": spelled(batch.tokens[given], given.sum(1), spell),
        "masked_id": lists(batch.tokens, given, INT),
    }


def outcomes(batch: Batch, seen: Passes, surrogate: Surrogate | None) -> Int[Tensor, "K B T"] | None:
    """What the clip did to each token: 0 nothing, 1 ρ lies outside the band but the gradient lives, 2 gradient 0."""
    old = seen.old_logprobs(batch)
    if surrogate is None or not surrogate.uses_old or old is None:
        return None
    assert batch.advantages is not None
    found = torch.zeros(seen.logprobs.shape, dtype=torch.int8)
    outside = getattr(surrogate, "outside_band", None)  # somebody's own need not have one
    for visit, logprobs in enumerate(seen.logprobs):
        if outside is not None:
            found[visit][outside(bounded_log_ratio(logprobs, old, batch.mask), batch.mask)] = 1
        found[visit][surrogate(logprobs, old, batch.advantages, batch.mask)[1]] = 2
    return found


def _starts(batch: Batch) -> Int[Tensor, " B"]:
    """Where each row's first action stands; its end where it has none."""
    first = batch.mask.int().argmax(1)
    return torch.where(batch.mask.any(1), first, batch.lengths)
