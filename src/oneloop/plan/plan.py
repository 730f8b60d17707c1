"""`oneloop plan`: the memory bill of a run, whether it fits, the cheapest change, and how it compares with a run."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

from oneloop.config import Run
from oneloop.data import open_data
from oneloop.errors import ConfigError, DataError
from oneloop.model.chat import templated
from oneloop.model.load import load_tokenizer
from oneloop.model.text import Text, end_ids
from oneloop.plan.bill import Bill, Lengths, bill, tokens_of_episodes
from oneloop.plan.memory import installed
from oneloop.plan.proposals import changes_of, proposals
from oneloop.plan.rehearsal import weightless
from oneloop.recipes import items
from oneloop.recipes.device import vllm_apart
from oneloop.recipes.meter import resident
from oneloop.recipes.playing import spoken
from oneloop.recipes.resolve import kind_of, resolved
from oneloop.recipes.rows import reading_of
from oneloop.recipes.sampler import SHARE
from oneloop.record.atomic import write_text
from oneloop.record.reader import read_run

DEFAULT_PROMPT = 512
"""Tokens of a prompt where the data cannot be read."""
ROWS_READ = 2048
"""Rows of the data whose lengths are looked at."""
GIB, MIB = 2**30, 2**20


@dataclass(frozen=True)
class Change:
    """Settings changed, and the bill after it."""

    flags: tuple[str, ...]
    why: str
    """What a single one costs beside memory."""
    bill: Bill

    @property
    def flag(self) -> str:
        return " ".join(self.flags)


@dataclass(frozen=True)
class Plan:
    """A bill beside what the device has, in bytes.

    Args:
        process: what the process holds before it loads a model: Python and its libraries. 0 on a GPU.
        available: None where nobody knows.
        change: where it does not fit, the first single change that makes it fit, else the first few together, else the
            single one that saves most.
    """

    lengths: Lengths
    bill: Bill
    process: int
    available: int | None
    change: Change | None

    @property
    def needed(self) -> int:
        processes = 2 if self.bill.beside else 1
        return processes * self.process + self.bill.in_all

    @property
    def fits(self) -> bool:
        return self.available is None or self.needed <= self.available


def plan(run: Run, *, prompt: int = 0, answer: int = 0, available: float | None = None) -> Plan:
    """The plan of `run`.

    Args:
        prompt, answer: tokens to assume of every row; 0: the longest that the data and the settings allow.
        available: GiB of each rank; None asks the device.
    """
    process = 0 if run.device.startswith("cuda") else resident()  # before anything below adds to it
    there = _of_one_rank(run) if available is None else int(available * GIB)
    if there is not None and run.engine == "vllm" and run.device != "cpu" and not vllm_apart(run):
        there = int(there * (1 - float(SHARE)))
    lengths = assumed_lengths(run, prompt, answer)
    now = bill(run, lengths)
    planned = Plan(lengths, now, process, there, None)
    return planned if planned.fits else replace(planned, change=_cheapest(run, planned))


def _of_one_rank(run: Run) -> int | None:
    """What there is for each rank: a GPU of its own, or its part of the machine's memory."""
    there = installed(run.device)
    return there if there is None or run.device != "cpu" else there // run.ranks


def _cheapest(run: Run, planned: Plan) -> Change | None:
    """The first change that fits, else as many of them together as it takes; where those do not fit either, the single
    one that saves most. Each is a rehearsal of its own."""
    least: Change | None = None
    for proposal in proposals(run, planned.lengths):
        change = Change((proposal.flag,), proposal.why, bill(proposal.run, proposal.lengths))
        if replace(planned, bill=change.bill).fits:
            return change
        if change.bill.in_all < (least or planned).bill.in_all:
            least = change
    return _together(run, planned) or least


def _together(run: Run, planned: Plan) -> Change | None:
    """Changes one on top of the other, each kind once and those that save nothing left out, until the run fits."""
    lengths, now = planned.lengths, planned.bill
    tried, options = set[str](), dict[str, str]()
    while not replace(planned, bill=now).fits:
        left = (one for one in proposals(run, lengths) if one.kind not in tried)
        proposal = next(left, None)
        if proposal is None:
            return None
        tried.add(proposal.kind)
        after = bill(proposal.run, proposal.lengths)
        if after.in_all < now.in_all:
            run, lengths, now = proposal.run, proposal.lengths, after
            options |= proposal.options  # of two values of one flag the later one counts
    return Change(tuple(f"{flag} {value}".strip() for flag, value in options.items()), "", now)


def assumed_lengths(run: Run, prompt: int = 0, answer: int = 0) -> Lengths:
    """Lengths that were given, else the longest of the data; an answer that is sampled reaches its limit."""
    if min(prompt, answer) < 0:
        raise ConfigError(f"--prompt-tokens {prompt}, --answer-tokens {answer}: wanted positive numbers of tokens")
    sampled = kind_of(resolved(run)) == "prompts"
    if prompt and (answer or sampled):
        return _played(run, Lengths(prompt=prompt, answer=answer or run.longest))
    try:
        found, source = _longest(run), f"the longest of {run.data}"
    except (ConfigError, DataError) as error:
        if run.model.startswith("scratch:") and run.data.startswith("task:"):
            raise
        found = (DEFAULT_PROMPT, run.longest)
        source = f"assumed, because {run.data} cannot be read ({error})"
    answers = answer or (run.longest if sampled else found[1])
    return _played(run, Lengths(prompt=prompt or found[0], answer=answers, source=source))


def _played(run: Run, lengths: Lengths) -> Lengths:
    """With what an environment says: all that --max-episode-tokens leaves; without it, as much as the model."""
    if not run.environment:
        return lengths
    room = max(tokens_of_episodes(run, weightless(run.model)) - lengths.prompt, 1)
    answer = min(lengths.answer, room)
    if run.max_episode_tokens:
        return replace(lengths, answer=answer, said=room - answer)
    why = "an environment that says as much as the model, which --max-episode-tokens would bound"
    return replace(lengths, answer=answer, said=min(answer, room - answer), source=f"{lengths.source}; {why}")


def _longest(run: Run) -> tuple[int, int]:
    """Tokens of the longest prompt and the longest answer among the first rows of the data."""
    kind = kind_of(resolved(run))
    rows = open_data(run.data, kind, reading=reading_of(run), size=run.data_size, seed=run.seed).rows[:ROWS_READ]
    tokenizer = templated(load_tokenizer(run.model), run.chat_template, run.chat_template_kwargs)
    tokenizer = spoken(tokenizer, run.data, played=bool(run.environment))
    text = Text(tokenizer, end_ids(weightless(run.model), tokenizer))
    if kind == "prompts":
        prompts, _ = items.prompts(rows, text, None, run.max_new_tokens)
        return max(len(item.tokens) for item in prompts), run.longest
    if kind == "demonstrations":
        shown, _ = items.demonstrations(rows, text, None)
        firsts = [item.trained.index(True) for item in shown]
        return max(firsts), max(len(item.ids) - first for item, first in zip(shown, firsts, strict=True))
    if kind == "unpaired":
        rated, _ = items.unpaired(rows, text, None)
        return max(len(item.prompt) for item in rated), max(len(item.completion) for item in rated)
    pairs, _ = items.pairs(rows, text, None)
    longest = max(max(len(item.chosen), len(item.rejected)) for item in pairs)
    return max(len(item.prompt) for item in pairs), longest


@dataclass(frozen=True)
class Comparison:
    """A bill beside what a run took, in bytes above what its process held before the models were loaded."""

    planned: int
    in_use: int
    """The plan without holes in the heap."""
    measured: int

    def __str__(self) -> str:
        without = f"; without the heap's holes {size(self.in_use)}, {self.in_use / self.measured:.2f} of it"
        return (
            f"planned {size(self.planned)}, measured {size(self.measured)}: the plan is "
            f"{self.planned / self.measured:.2f} of it{without if self.in_use < self.planned else ''}"
        )


def compare(planned: Bill, folder: Path) -> Comparison:
    """The bill beside the worst step of a run.

    Raises: ConfigError for a folder without a run, or a run without memory.jsonl.
    """
    rows = read_run(folder).memory
    measured = max(map(_taken, rows), default=0)
    if measured <= 0:
        raise ConfigError(f"--against {folder}: memory.jsonl has no step. Fix: the --out folder of a run that took one")
    return Comparison(planned.bytes, planned.in_use, measured)


def save(run: Run, planned: Plan, folder: Path) -> None:
    """The bill as plan.json in a run folder, in bytes: `phases` with the parts that add up to each, `table`, and the
    parts of a second process `beside`; and `changes`, the bills of the run with one setting changed.
    """
    now, lengths = planned.bill, planned.lengths
    facts = {"bytes": now.bytes, "in_use": now.in_use, "process": planned.process, "lengths": asdict(lengths)}
    changes = [
        {"flag": one.flag, "why": one.why, **_facts(bill(one.run, one.lengths))} for one in changes_of(run, lengths)
    ]
    write_text(folder / "plan.json", json.dumps({**facts, **_facts(now), "changes": changes}, indent=1))


def _facts(of: Bill) -> dict[str, Any]:
    phases = [{"name": phase.name, "bytes": phase.bytes, "parts": dict(phase.parts)} for phase in of.phases]
    return {"phases": phases, "table": of.table, "beside": dict(of.beside)}


def _taken(row: dict[str, Any]) -> int:
    return row["cuda_peak"] if "cuda_peak" in row else row["peak_rss"] - row["start_rss"]


def text_of(run: Run, planned: Plan) -> str:
    """What the command prints."""
    lengths = planned.lengths
    said = f" + {lengths.said} of the environment" if run.environment else ""
    lines = [
        f"{run.algorithm} of {run.model} on {run.device} in {run.dtype}: rows of {lengths.prompt} + "
        f"{lengths.answer}{said} tokens ({lengths.source}), passes of up to {run.max_tokens}",
        "",
        *_table(planned.bill),
        "",
    ]
    peak = planned.bill.peak
    for phase in planned.bill.phases:
        parts = " + ".join(f"{name} {size(part)}" for name, part in phase.parts.items() if part)
        lines.append(f"{phase.name:<9}{size(phase.bytes):>10}{'  peak' if phase is peak else '      '}  = {parts}")
    process = f" and {size(planned.process)} of the process before it" if planned.process else ""
    if planned.bill.beside:
        lines.append(_second(planned.bill))
        process = f" of the trainer's process, {size(sum(planned.bill.beside.values()))} of the sampler's"
        process += f", and {size(planned.process)} of each before it" if planned.process else ""
    there = "what the device has is unknown: --available GIB" if planned.available is None else size(planned.available)
    verdict = "fits" if planned.fits else "does not fit"
    each = f" of each of {run.ranks} ranks" if run.ranks > 1 else ""
    lines += ["", f"{verdict}: {size(peak.bytes)} at the peak{each}{process}; available: {there}"]
    if planned.bill.host:
        lines.append(f"in the machine's memory: up to {size(planned.bill.host)}{each}")
    if run.engine == "vllm" and planned.bill.elsewhere:
        lines.append(_vllm(run, planned.bill.elsewhere))
    if not planned.fits:
        lines.append(_advice(planned))
    return "\n".join(lines)


def _second(of: Bill) -> str:
    """The process that samples, beside the phases of the one that trains."""
    parts = " + ".join(f"{name} {size(part)}" for name, part in of.beside.items() if part)
    return f"{'sampler':<9}{size(sum(of.beside.values())):>10}{'':6}  = {parts}: a second process, beside every phase"


def _vllm(run: Run, weights: int) -> str:
    """What the server holds beside the bill."""
    if run.device == "cpu":
        where = "in a process of its own, which is not in this bill, beside its KV cache"
    elif vllm_apart(run):
        where = f"on {len(run.vllm_devices)} GPUs of its own"
    else:
        where = f"on the first rank's GPU, of which it takes {SHARE}: the rest is what is available"
    return f"vLLM holds {size(weights)} of weights {where}; each update passes as much through the machine's memory"


def _table(planned: Bill) -> Sequence[str]:
    columns = list(dict.fromkeys(item for sizes in planned.table.values() for item in sizes))
    rows = [["", *columns]]
    for model, sizes in planned.table.items():
        rows.append([model, *(size(sizes[column]) if sizes.get(column) else "-" for column in columns)])
    return ["".join([f"{row[0]:<14}", *(f"{cell:>15}" for cell in row[1:])]).rstrip() for row in rows]


def _advice(planned: Plan) -> str:
    if planned.change is None:
        return "no single change saves anything"
    after = planned.change.bill.in_all
    saved = f"{planned.change.flag} saves {size(planned.bill.in_all - after)} (peak {size(after)})"
    if not replace(planned, bill=planned.change.bill).fits:
        return f"no single change is enough, nor are all together; the largest: {saved}: {planned.change.why}"
    if len(planned.change.flags) > 1:
        return f"no single change is enough; together: {saved}"
    return f"cheapest change that fits: {saved}: {planned.change.why}"


def size(count: int) -> str:
    return f"{count / GIB:.2f} GiB" if count >= GIB else f"{count / MIB:.1f} MiB"
