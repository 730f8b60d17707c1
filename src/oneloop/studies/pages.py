"""A result as files: NAME.json has every value, NAME.svg and NAME.md are made from it and from nothing else."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path

from oneloop.record.atomic import write_text
from oneloop.studies.judge import said
from oneloop.studies.picture import picture
from oneloop.studies.study import Judged, Panel, Result, Study


def judged(study: Study, result: Result) -> list[Judged]:
    return [claim.judge(result.table) for claim in study.claims]


def save(study: Study, result: Result, folder: Path) -> Path:
    """Writes the three files; returns the page."""
    folder.mkdir(parents=True, exist_ok=True)
    write_text(folder / f"{study.name}.json", json.dumps(result.to_json(), ensure_ascii=False) + "\n")
    write_text(folder / f"{study.name}.svg", picture(result))
    write_text(folder / f"{study.name}.md", page(study, result))
    return folder / f"{study.name}.md"


def load(file: Path) -> Result:
    return Result.from_json(json.loads(file.read_text(encoding="utf-8")))


def rebuild(studies: Mapping[str, Study], folder: Path) -> None:
    """Pages, pictures and the overview of a folder anew, from the numbers that are there."""
    results = {name: load(folder / f"{name}.json") for name in studies}
    for name, study in studies.items():
        save(study, results[name], folder)
    write_text(folder / "README.md", overview(studies, results))


def page(study: Study, result: Result) -> str:
    lines = [f"# {study.title}", "", study.setting, "", f"![{study.title}]({study.name}.svg)", ""]
    for claim, (verdict, because) in zip(study.claims, judged(study, result), strict=True):
        lines += [f"**{claim.text}** ({claim.source}): **{verdict}**. {sentence(because)}", ""]
    if told := study.told(result.table):
        lines += [told, ""]
    lines += [
        "## Numbers",
        "",
        "Mean over seeds, and its 95 % interval (Student's t); the number alone where no seed differs from another.",
        "",
    ]
    for panel in result.table.values():
        lines += [*numbers(panel), ""]
    return "\n".join([*lines, "## How it was made", "", made(result), ""])


def sentence(text: str) -> str:
    return f"{text[0].upper()}{text[1:]}." if text else ""


def numbers(panel: Panel) -> list[str]:
    """A row for each place on the axis, a column for each series."""
    places = list(dict.fromkeys(point.x for point in panel.points))
    found = {(point.series, point.x): said(point) for point in panel.points}
    rows = [[panel.axis, *panel.series], ["---"] * (1 + len(panel.series))]
    for place in places:
        name = place if isinstance(place, str) else f"{place:g}"
        rows.append([name, *(found.get((series, place), "") for series in panel.series)])
    return [f"**{sentence(panel.quantity)}**", "", *(_row(cells) for cells in rows)]


def _row(cells: Sequence[str]) -> str:
    return f"| {' | '.join(cell.replace('|', '&#124;') for cell in cells)} |"


def made(result: Result) -> str:
    machine = ", ".join(f"{name} {value}" for name, value in result.machine.items())
    quick = " --quick" if result.quick else ""
    seeds = f"seeds {result.seeds[0]} to {result.seeds[-1]}" if _in_turn(result.seeds) else f"seeds {result.seeds}"
    return (
        f"`oneloop study {result.study}{quick}`, {seeds}, {result.date}, {result.seconds:.0f} seconds on {machine}. "
        f"Every value by seed: [{result.study}.json]({result.study}.json)."
    )


def _in_turn(seeds: Sequence[int]) -> bool:
    return list(seeds) == list(range(seeds[0], seeds[0] + len(seeds)))


def overview(studies: Mapping[str, Study], results: Mapping[str, Result]) -> str:
    """`docs/studies/README.md`: every claim with its verdict."""
    lines = [
        "# Studies", "",
        "What the founding documents say and can be measured, at small scale: each study is one command,",
        "`oneloop study NAME`, and ends in a picture, its numbers and a verdict in words, which is computed from the",
        "95 % intervals. \"Does not hold here\" means here: in the small problem that the page describes. A test "
        "computes",
        "every verdict and page again from the stored values, and runs all studies with `--quick`.", "",
        "| study | claim | verdict |", "|---|---|---|",
    ]  # fmt: skip
    for name, study in studies.items():
        for claim, found in zip(study.claims, judged(study, results[name]), strict=True):
            lines.append(f"| [{name}]({name}.md) | {claim.text} | {found.verdict} |")
    return "\n".join(lines) + "\n"
