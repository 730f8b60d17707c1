"""oneloop beside its peers, one thread, step by step in turn: `make bench`, or for some cases only

    python benchmarks/compare.py --case grpo-fixed dpo

A round is one process of every engine. Each runs a warm-up step; then they take their timed steps in turn, the others
waiting. The first round has every setting of a peer; the two fastest and ours take part in the others. A result file
holds every number measured, the settings and the versions; a peer that does not run is recorded with its own message.
"""

from __future__ import annotations

import argparse
import json
import sys
from dataclasses import asdict
from datetime import date
from pathlib import Path
from statistics import median

from cases.data import data_file
from cases.models import model_folder
from cases.start import addition_start
from cases.values import ACCURACY, CASES, PEAK, SCALING, Case
from processes.engines import BENCHMARKS, CACHE, Running, Values, in_turn, short, started
from processes.machine import machine
from ratios import against_best, compared_with, finalists, loss_gaps, quartile, summarized, value_of


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--case", nargs="+", choices=sorted(CASES), default=list(CASES), metavar="NAME")
    parser.add_argument("--rounds", type=int, default=0, help="0: as many as the case wants before a goal is met")
    parser.add_argument("--engine", nargs="+", default=[], help="only these peers (and ours)")
    parser.add_argument("--out", type=Path, default=BENCHMARKS / "results")
    args = parser.parse_args()
    known = {engine for name in args.case for engine in engines_of(CASES[name], [])}
    if unknown := sorted(set(args.engine) - known):
        parser.error(f"--engine {' '.join(unknown)}: the engines of these cases are {', '.join(sorted(known))}")
    args.out.mkdir(parents=True, exist_ok=True)
    for name in args.case:
        case = CASES[name]
        rounds = args.rounds or case.rounds
        measure = {"scaling": scaled, "peak": shared}.get(case.kind)
        result = measure(case, rounds) if measure else compared(case, rounds, args.engine)
        chosen = f" --engine {' '.join(args.engine)}" if args.engine else ""
        command = f"python benchmarks/compare.py --case {name} --rounds {rounds}{chosen}"
        frame = {"case": name, "date": date.today().isoformat(), "command": command, "machine": machine()}
        path = args.out / f"{name}-{date.today().isoformat()}.json"
        path.write_text(json.dumps({**frame, "settings": asdict(case), **result}, indent=1) + "\n", encoding="utf-8")
        print(f"{name}: wrote {short(str(path.resolve()))}", flush=True)
    return 0


def inputs(case: Case, name: str) -> dict[str, Path]:
    if case is ACCURACY:
        return addition_start(CACHE, case)
    return {"model": model_folder(case, CACHE), "data": data_file(case, CACHE, name)}


def engines_of(case: Case, only: list[str]) -> list[str]:
    """Ours, and of the others those of `only`, where it names any; each once."""
    others = [*(peer.engine for peer in case.peers), *(case.best.settings if case.best else ())]
    mine = [case.ours, *(peer.ours for peer in case.peers if not only or peer.engine in only), *case.also]
    return list(dict.fromkeys([*mine, *(engine for engine in others if not only or engine in only)]))


def compared(case: Case, rounds: int, only: list[str]) -> Values:
    """A round is one process of each engine, which take their timed steps in turn."""
    given = inputs(case, case.name)
    runs: dict[str, list[Values]] = {engine: [] for engine in engines_of(case, only)}
    out: set[str] = set()
    for number in range(rounds):
        engines = [engine for engine in runs if engine not in out]
        results = in_turn([started(engine, case.name, **given, seed=number) for engine in engines])
        for engine, result in zip(engines, results, strict=True):
            runs[engine].append(result)
            print(f"{case.name} round {number} {engine}: {_shown(result)}", flush=True)
        # one that has failed would say the same again
        out |= {engine for engine, result in zip(engines, results, strict=True) if "error" in result}
        if case.best and number == 0:
            out |= set(case.best.settings) - set(finalists(case.best, runs))
    summary = {engine: summarized(results) for engine, results in runs.items()}
    ratios = {
        peer.engine: compared_with(runs[peer.ours], runs[peer.engine], peer.wanted, case.rounds)
        for peer in case.peers
        if peer.engine in runs
    }
    found = {**against_best(case, runs), "ratios": ratios, "loss_gaps": loss_gaps(case.ours, runs)}
    _say(case, found)
    return {"unit": "MiB" if case.kind == "memory" else "s", "summary": summary, **found, "runs": runs}


def _say(case: Case, found: Values) -> None:
    told = {**found["ratios"], **{found[name]["engine"]: found[name] for name in ("usual", "best") if name in found}}
    for engine, ratio in told.items():
        says = f"{ratio.get('median')}, upper quartile {ratio.get('upper_quartile')} (wanted {ratio['wanted']})"
        print(f"{case.name}: ours / {engine} = {says}", flush=True)
    for engine, gap in found["loss_gaps"].items():
        print(f"{case.name}: losses of {engine} differ by at most {gap:.1e} of ours", flush=True)


def scaled(case: Case, rounds: int) -> Values:
    """Ours alone, as one size after another doubles."""
    points: list[Values] = []
    for number, point in enumerate(SCALING):
        given = inputs(point.case, f"scaling-{point.axis}-{point.value}")
        runs = [in_turn([started("oneloop", case.name, **given, seed=r, point=number)])[0] for r in range(rounds)]
        points.append({"axis": point.axis, "value": point.value, **summarized(runs), "runs": runs})
        print(f"scaling {point.axis} {point.value}: {points[-1].get('median', points[-1].get('error'))}", flush=True)
    return {"unit": "s", "points": points}


def shared(case: Case, rounds: int) -> Values:
    """Share of the measured peak that a training step reaches; the peak is measured again beside every run."""
    assert case in PEAK
    given = inputs(case, case.name)
    runs: list[Values] = []
    for number in range(rounds):
        (peak,) = in_turn([Running([sys.executable, str(BENCHMARKS / "single" / "peak.py")])])
        (run,) = in_turn([started("oneloop", case.name, **given, seed=number)])
        if "error" not in run and "error" not in peak:
            rate = run["flops"]["work_done"] / median(run["seconds"])
            run |= {"rate": rate, "share": round(rate / peak["peak"], 4)}
        runs.append(run | {"peak": peak})
        print(f"{case.name} round {number}: {_shown(run)}, share of peak {run.get('share')}", flush=True)
    shares = [run["share"] for run in runs if "share" in run]
    found: Values = {"share": median(shares) if shares else None, "wanted": case.share}
    if case.share is not None and len(shares) >= case.rounds:
        found |= {"reached": quartile(shares, 1) >= case.share}
    return {"unit": "s", "summary": {"oneloop": summarized(runs)}, **found, "runs": runs}


def _shown(run: Values) -> str:
    if "error" in run:
        return f"does not run: {run['error']}"
    value = value_of(run)
    return "not reached" if value is None else f"{value:.4g} {'MiB' if 'mebibytes' in run else 's'}"


if __name__ == "__main__":
    raise SystemExit(main())
