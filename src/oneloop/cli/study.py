"""`oneloop study [NAME...] [--quick] [--out DIR]`."""

from __future__ import annotations

from dataclasses import dataclass
from difflib import get_close_matches
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

from tyro.conf import Positional

from oneloop.cli.parse import parse
from oneloop.errors import ConfigError

if TYPE_CHECKING:
    from oneloop.studies import Study


@dataclass(frozen=True, kw_only=True)
class StudyFlags:
    """Tests claims about the methods at small scale: measures, draws, and says what holds. Alone: what there is."""

    names: Annotated[tuple[str, ...], Positional] = ()
    """Studies to carry out; left out with --quick, all of them."""
    quick: bool = False
    """Fewer seeds and conditions: a look that takes seconds, not the result."""
    out: str = "runs/studies"
    """Folder for NAME.md, NAME.svg and NAME.json."""


def main(arguments: list[str]) -> int:
    flags = parse(StudyFlags, arguments, prog="oneloop study")
    from oneloop.studies import STUDIES

    chosen = [_named(name) for name in flags.names]
    if not chosen and not flags.quick:
        print("\n".join(f"{name:<12}{study.title}" for name, study in STUDIES.items()))
        return 0
    for study in chosen or STUDIES.values():
        _carry_out(study, Path(flags.out), quick=flags.quick)
    return 0


def _named(name: str) -> Study:
    from oneloop.studies import STUDIES

    if name not in STUDIES:
        near = get_close_matches(name, STUDIES, 1)
        hint = f" Did you mean {near[0]}?" if near else ""
        raise ConfigError(f"there is no study {name!r}.{hint} Studies: {', '.join(STUDIES)}")
    return STUDIES[name]


def _carry_out(study: Study, folder: Path, *, quick: bool) -> None:
    from oneloop.studies.execute import execute
    from oneloop.studies.pages import judged, save

    print(f"{study.name}: {study.title}", flush=True)
    result = execute(study, quick=quick)
    for claim, (verdict, because) in zip(study.claims, judged(study, result), strict=True):
        print(f"  {claim.text}\n    {verdict}: {because}")
    print(f"  {save(study, result, folder)}, {result.seconds:.1f} s", flush=True)
