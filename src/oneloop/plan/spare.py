"""What to change in a run whose memory ran out."""

from __future__ import annotations

from contextlib import suppress

from oneloop.config import Run
from oneloop.plan.bill import bill
from oneloop.plan.plan import GIB, assumed_lengths
from oneloop.plan.proposals import proposals

NAMED = 3
"""Settings."""
USUAL = ("--max-tokens {half}", "--gradient-checkpointing", "--dtype bfloat16")


def advice(run: Run) -> str:
    """The settings that save most by the plan, each with what it saves; the usual ones where there can be no plan."""
    saved: dict[str, tuple[int, str]] = {}
    with suppress(Exception):  # advice about a failure must not be another one
        lengths = assumed_lengths(run)
        now = bill(run, lengths).in_all
        for one in proposals(run, lengths):
            less = now - bill(one.run, one.lengths).in_all
            if less > saved.get(one.kind, (0, ""))[0]:
                saved[one.kind] = (less, one.flag)
    most = sorted(saved.values(), reverse=True)[:NAMED]
    told = [f"{flag} (−{less / GIB:.2g} GiB)" for less, flag in most]
    told += [flag.format(half=max(run.max_tokens // 2, 1)) for flag in USUAL if len(told) < NAMED]
    return f"Fix, by `oneloop plan`: {', or '.join(told[:NAMED])}; then the same command with --resume goes on"
