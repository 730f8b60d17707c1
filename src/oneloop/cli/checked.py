"""What `oneloop check` found, as lines: pure functions of frozen values."""

from __future__ import annotations

from collections.abc import Iterator

from rich.text import Text as Line

from oneloop.cli.output import visible
from oneloop.model.text import Text
from oneloop.recipes.check import Checked
from oneloop.recipes.seen import Seen, Spread, View, beginning, spelled, spread

BEGIN, END, BORDER = "⟦", "⟧", "│"
"""Around what is trained, and between tokens."""
SHOWN = 200
"""Tokens of a text's beginning, and of its end, that are shown."""
QUICK = 0.1
"""Seconds below which nobody waits for a call."""


def report(found: Checked, why: str = "") -> Iterator[Line]:
    """Every line. `why`: the reason for the algorithm, where it was not named."""
    name = found.run.algorithm
    yield Line(visible(f"checked as {name}: {why}" if why else f"checked as {name}"))
    for line in (*_model(found), *found.notes, *(found.text.notes if found.text else ())):
        yield Line(visible(line))
    if found.text is not None:
        for row in found.shown:
            yield Line("")
            yield from seen_lines(row, found.text, sampled=found.kind == "prompts")
    for lines in map(list, (length_lines(found), trial_lines(found), finding_lines(found))):
        yield from [Line(""), *lines] if lines else ()


def _model(found: Checked) -> Iterator[str]:
    model, text = found.model, found.text
    if model is not None and text is not None:
        ends = ", ".join(str(text.tokenizer.convert_ids_to_tokens(number)) for number in text.end_ids)
        template = "a chat template" if getattr(text.tokenizer, "chat_template", None) else "no chat template"
        begins = str(text.tokenizer.bos_token) if text.chat.bos is not None else "nothing"
        yield (
            f"{found.run.model}: context {model.context or 'not said'}; a text begins with {begins}, an answer ends "
            f"with {ends}; {template}"
        )
    if found.total:
        yield f"{found.run.data}: {found.total} rows"


def seen_lines(row: Seen, text: Text, *, sampled: bool = False) -> Iterator[Line]:
    """A row's texts, token by token.

    Args:
        sampled: the answer is the model's own, so that nothing here is trained.
    """
    for view in row.views:
        count, bos = len(view.tokens.ids), beginning(text)
        trained = "the model goes on from here" if sampled else f"{len(view.trained)} of them trained"
        if view.trained:
            last = view.trained[-1]
            trained += f", the end token {'included' if last in text.end_ids else 'missing'}"
        begins = "" if bos is None else f", {view.tokens.ids.count(bos)} of them BOS"
        yield Line(visible(f"{row.place}, {view.name}: {count} tokens{begins}, {trained}"), style="bold")
        yield marked(view, text)


def marked(view: View, text: Text) -> Line:
    """Tokens with borders between them; what is trained stands in brackets, and in green where there are colours."""
    line, inside = Line("  "), False
    flags, count = view.tokens.trained, len(view.tokens.ids)
    for place, (number, flag) in enumerate(zip(view.tokens.ids, flags, strict=True)):
        if count > 2 * SHOWN and SHOWN <= place < count - SHOWN:
            if place == SHOWN:
                line.append(f"{END if inside else ''} … {count - 2 * SHOWN} tokens … ", style="dim")
                inside = False
            continue
        if flag and not inside:
            line.append(BEGIN, style="bold green")
        elif inside and not flag:
            line.append(END, style="bold green")
        elif place and line.plain[-1] != "\n":
            line.append(BORDER, style="dim")
        inside = flag
        line.append(one_line(spelled(text, number)), style="green" if flag else "")
        if "\n" in spelled(text, number):
            line.append("\n  ")
    if inside:
        line.append(END, style="bold green")
    return line


def one_line(said: str) -> str:
    """Without a control character, line breaks included.

    >>> one_line("a\\x1b[2J\\n")
    'a\\\\x1b[2J\\\\n'
    """
    return visible(said).replace("\n", "\\n")


def length_lines(found: Checked) -> Iterator[Line]:
    if found.looked is None or not found.looked.seen:
        return
    rows, limit = found.looked.seen, found.run.max_new_tokens
    some = f"{len(rows)} of {found.total} rows, drawn by --seed {found.run.seed}"
    of = some if found.total > len(rows) else "all rows"
    sampled = found.kind == "prompts"
    yield Line(f"{f'tokens of {of}':44} {'min':>7} {'median':>7} {'95 %':>7} {'max':>7}", style="bold")
    yield Line(_spread("prompt", spread([row.prompt for row in rows])))
    answers = spread([row.answer for row in rows if row.answer is not None])
    if answers is not None:
        yield Line(_spread("known answer" if sampled else "answer", answers))
    context = found.model.context if found.model else None
    wanted = [row.longest + (limit if sampled else 0) for row in rows]
    over = sum(length > context for length in wanted) if context is not None else 0
    beyond = {"error": "refused", "skip": "left out", "truncate-left": "cut at the left"}[found.run.long_prompts]
    what = f"prompt and --max-new-tokens {limit}" if sampled else "prompt and answer"
    yield Line(f"{what} beyond the context of {context or 'unknown size'}: {_part(over, len(rows))} {beyond}")
    if sampled and answers is not None:
        cut = sum(row.answer is not None and row.answer > limit for row in rows)
        yield Line(f"known answers beyond --max-new-tokens {limit}: {_part(cut, len(rows))} cut")


def _spread(name: str, lengths: Spread | None) -> str:
    if lengths is None:
        return f"  {name}"
    return f"  {name:42} {lengths.least:7} {lengths.median:7g} {lengths.most_of_them:7} {lengths.most:7}"


def _part(count: int, total: int) -> str:
    return f"{count} of {total} ({100 * count / total:.3g} %)"


def trial_lines(found: Checked) -> Iterator[Line]:
    trial = found.trial
    if trial is None:
        if found.rewards:
            yield Line("the rewards were not called: no row that is shown can be encoded")
        return
    for reward in found.rewards:
        form, seconds = reward.grader.signature.form, trial.seconds[reward.name]
        once = "once per completion" if form.each else "once per batch"
        time = f"under {QUICK} s" if seconds < QUICK else f"{seconds:.1f} s"
        named = f"reward {reward.name}, weight {reward.weight:g}"
        yield Line(visible(f"{named}: {form.name} form, {form.call}, {once}; {time} a call"))
    yield Line(f"right answers: {trial.source or 'no column holds any'}")
    names = [reward.name for reward in found.rewards]
    weighted = len(names) > 1 or found.rewards[0].weight != 1
    columns = [*names, "total"] if weighted else names
    widths = [max(len(name), 7) for name in columns]
    yield Line(
        f"{'row':>7}  {'completion':34} " + " ".join(f"{n:>{w}}" for n, w in zip(columns, widths, strict=True)),
        style="bold",
    )
    for call in trial.calls:
        values = [_value(call.values[name], failed=name in call.failures) for name in names]
        values += [_value(call.total)] * weighted
        shown = one_line(call.text)
        shown = shown if len(shown) <= 18 else f"{shown[:17]}…"
        said = f"{call.what:10} {shown and f'{shown!r}'}"
        yield Line(f"{call.row + 1:7}  {said:34} " + " ".join(f"{v:>{w}}" for v, w in zip(values, widths, strict=True)))


def _value(value: float | None, *, failed: bool = False) -> str:
    return "failed" if failed else "None" if value is None else f"{value:.4g}"


def finding_lines(found: Checked) -> Iterator[Line]:
    """What training would refuse first."""
    for finding in sorted(found.findings, key=lambda finding: not finding.stops):
        line = Line("refused: " if finding.stops else "warning: ", style="bold red" if finding.stops else "bold yellow")
        yield line.append(visible(finding.text), style="")
    if not found.findings:
        yield Line("no problem found", style="green")
    elif not found.refused:
        yield Line("training would begin", style="green")
