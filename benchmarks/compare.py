"""oneloop beside its peers, one thread, step by step in turn: `make bench`, or for some cases only

    python benchmarks/compare.py --case grpo-fixed dpo --rounds 3

A round is one process of every engine. Each runs a warm-up step; then they take their timed steps in turn, the others
waiting. A result file holds every number measured, the settings and the versions; a peer that does not run is recorded
with its own message.
"""

from __future__ import annotations

import argparse
import json
import sys
from dataclasses import asdict
from datetime import date
from pathlib import Path
from statistics import median
from typing import Any

from cases.data import data_file
from cases.models import model_folder
from cases.start import addition_start
from cases.values import ACCURACY, CASES, PEAK, SCALING, Case
from processes.engines import BENCHMARKS, CACHE, Running, Values, in_turn, machine, short, started


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--case", nargs="+", choices=sorted(CASES), default=list(CASES), metavar="NAME")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--engine", nargs="+", default=[], help="only these peers (and ours)")
    parser.add_argument("--out", type=Path, default=BENCHMARKS / "results")
    args = parser.parse_args()
    args.out.mkdir(parents=True, exist_ok=True)
    for name in args.case:
        case = CASES[name]
        measure = {"scaling": scaled, "peak": shared}.get(case.kind)
        result = measure(case, args.rounds) if measure else compared(case, args.rounds, args.engine)
        chosen = f" --engine {' '.join(args.engine)}" if args.engine else ""
        command = f"python benchmarks/compare.py --case {name} --rounds {args.rounds}{chosen}"
        frame = {"case": name, "date": date.today().isoformat(), "command": command, "machine": machine()}
        path = args.out / f"{name}-{date.today().isoformat()}.json"
        path.write_text(json.dumps({**frame, "settings": asdict(case), **result}, indent=1) + "\n", encoding="utf-8")
        print(f"{name}: wrote {short(str(path.resolve()))}", flush=True)
    return 0


def inputs(case: Case, name: str) -> dict[str, Path]:
    if case is ACCURACY:
        return addition_start(CACHE, case)
    return {"model": model_folder(case, CACHE), "data": data_file(case, CACHE, name)}


def compared(case: Case, rounds: int, only: list[str]) -> Values:
    """A round is one process of each engine, which take their timed steps in turn."""
    given = inputs(case, case.name)
    peers = [peer.engine for peer in case.peers if not only or peer.engine in only]
    runs: dict[str, list[Values]] = {engine: [] for engine in (case.ours, *peers, *case.also)}
    for number in range(rounds):
        # one that has failed would say the same again
        engines = [engine for engine, results in runs.items() if not (results and "error" in results[-1])]
        results = in_turn([started(engine, case.name, **given, seed=number) for engine in engines])
        for engine, result in zip(engines, results, strict=True):
            runs[engine].append(result)
            print(f"{case.name} round {number} {engine}: {_shown(result)}", flush=True)
    summary = {engine: summarized(results) for engine, results in runs.items()}
    ratios = {
        peer.engine: compared_with(runs[case.ours], runs[peer.engine], peer.wanted)
        for peer in case.peers
        if peer.engine in runs
    }
    for engine, ratio in ratios.items():
        print(f"{case.name}: ours / {engine} = {ratio.get('median')} (wanted {ratio['wanted']})", flush=True)
    return {"unit": "MiB" if case.kind == "memory" else "s", "summary": summary, "ratios": ratios, "runs": runs}


def value_of(run: Values) -> float | None:
    """One number of a process: MiB, or the median of its seconds; None where it failed or never got there."""
    if "error" in run or run.get("reached") is False:
        return None
    return run["mebibytes"] if "mebibytes" in run else median(run["seconds"])


def per_token(run: Values) -> float | None:
    if "error" in run or not run.get("tokens"):
        return None
    return sum(run["seconds"]) / sum(run["tokens"])


def summarized(runs: list[Values]) -> Values:
    if runs and "error" in runs[-1]:
        return {"error": runs[-1]["error"]}
    values = [value for run in runs if (value := value_of(run)) is not None]
    if len(values) < len(runs):
        return {"median": None, "not_reached": len(runs) - len(values), "rounds": values}
    return {"median": round(median(values), 4), "rounds": values, "versions": runs[-1].get("versions", {})}


def compared_with(ours: list[Values], theirs: list[Values], wanted: float | None) -> Values:
    """Ratios by round, ours divided by theirs."""

    def ratios(number: Any) -> list[float]:
        pairs = [(number(a), number(b)) for a, b in zip(ours, theirs, strict=False)]
        return [round(a / b, 4) for a, b in pairs if a is not None and b]

    found, tokens = ratios(value_of), ratios(per_token)
    result: Values = {"wanted": wanted, "rounds": found}
    if found:
        result |= {"median": round(median(found), 4)}
        result |= {"reached": None if wanted is None else result["median"] <= wanted}
    if tokens:
        result |= {"median_per_token": round(median(tokens), 4)}
    return result


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
    share = median(shares) if shares else None
    return {"unit": "s", "summary": {"oneloop": summarized(runs)}, "share": share, "wanted": case.share, "runs": runs}


def _shown(run: Values) -> str:
    if "error" in run:
        return f"does not run: {run['error']}"
    value = value_of(run)
    return "not reached" if value is None else f"{value:.4g} {'MiB' if 'mebibytes' in run else 's'}"


if __name__ == "__main__":
    raise SystemExit(main())
