"""Carries a study out."""

from __future__ import annotations

from datetime import date
from time import perf_counter

from oneloop.recipes.machine import machine
from oneloop.studies.study import Result, Study


def execute(study: Study, *, quick: bool) -> Result:
    seeds = study.quick_seeds if quick else study.seeds
    start = perf_counter()
    table = study.run(seeds, quick)
    seconds = round(perf_counter() - start, 1)
    return Result(study.name, quick, seeds, date.today().isoformat(), machine(), seconds, table)
