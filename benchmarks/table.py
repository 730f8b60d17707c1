"""The newest result of every case as a Markdown table: printed, or put between two marker comments of a page.

    python benchmarks/table.py [--results benchmarks/results] [--into docs/performance.md]

The page must hold the lines `<!-- table:begin -->` and `<!-- table:end -->`; everything between them is replaced.
"""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Iterator
from itertools import pairwise
from pathlib import Path
from typing import Any

from cases.values import CASES

BEGIN, END = "<!-- table:begin -->", "<!-- table:end -->"
HEADER = (
    "| case | ours (median) | peer (median) | ratio (upper quartile) | wanted | command |",
    "|---|---|---|---|---|---|",
)
Result = dict[str, Any]


def newest(folder: Path) -> dict[str, Result]:
    """By case, in the order of the cases; file names end with their date, so the last one in order is the newest."""
    found: dict[str, Result] = {}
    for path in sorted(folder.glob("*.json")):
        result = json.loads(path.read_text(encoding="utf-8"))
        found[result["case"]] = result
    return {name: found[name] for name in CASES if name in found}


def lines_of(result: Result) -> Iterator[str]:
    if "points" in result:
        yield from scaling_lines(result)
    elif "share" in result:
        yield share_line(result)
    else:
        yield from ratio_lines(result)


def ratio_lines(result: Result) -> Iterator[str]:
    """The peer's best setting first, then as most people run it, then other peers."""
    settings, summary = result["settings"], result["summary"]
    best, usual = result.get("best", {}), result.get("usual", {})
    if best:
        yield ratio_line(result, settings["ours"], best["engine"], best)
    if usual and usual["engine"] != best["engine"]:
        ratio = f"{usual['median']:.2f}, one round" if "median" in usual else "–"
        yield row(result, "", shown(usual["engine"], result), ratio, "", as_usual(result))
    ours = {peer["engine"]: peer.get("ours", settings["ours"]) for peer in settings["peers"]}
    for peer, ratio in result["ratios"].items():
        yield ratio_line(result, ours[peer], peer, ratio)
    for engine in settings.get("also", ()):
        if engine in summary:
            yield row(result, shown(engine, result), "", "", "")


def ratio_line(result: Result, ours: str, peer: str, ratio: Result) -> str:
    """A mark only where the upper quartile of enough rounds was compared with what is wanted."""
    value = f"{ratio['median']:.2f}" if "median" in ratio else "–"
    spread, mark = "", ""
    if "upper_quartile" in ratio:
        spread = f" ({ratio['upper_quartile']:.2f})"
        mark = {True: " ✓", False: " ✗"}.get(ratio["reached"], "")
    wanted = "" if ratio["wanted"] is None else f"≤ {ratio['wanted']:g}"
    # results older than the search for the best setting have this one alone, under its old name
    name = as_usual(result) if peer == "trl" else ""
    return row(result, shown(ours, result), shown(peer, result), value + spread + mark, wanted, name)


def as_usual(result: Result) -> str:
    return f"{result['case']}, as most people run it"


def shown(engine: str, result: Result) -> str:
    """`oneloop 1.23 s`, or why there is no number."""
    facts, unit = result["summary"].get(engine, {}), result["unit"]
    if "error" in facts:
        return f"{engine}: does not run ({facts['error'].replace('|', '/')[:120]})"
    if facts.get("median") is None:
        return f"{engine}: not reached in {result['settings']['steps']} steps"
    value = facts["median"]
    return f"{engine} {value:.0f} {unit}" if value >= 100 else f"{engine} {value:.3g} {unit}"


def share_line(result: Result) -> str:
    peaks = sorted(run["peak"]["peak"] for run in result["runs"] if "error" not in run["peak"])
    peak = f"{peaks[len(peaks) // 2] / 1e9:.0f} GFLOP/s measured peak" if peaks else "–"
    share = result["share"]
    value = "–" if share is None else f"{share:.0%} of it"
    mark = {True: " ✓", False: " ✗"}.get(result.get("reached"), "")
    return row(result, shown("oneloop", result), peak, value + mark, f"≥ {result['wanted']:.0%}")


def scaling_lines(result: Result) -> Iterator[str]:
    """One line for each axis: the seconds as it doubles."""
    axes: dict[str, list[Result]] = {}
    for point in result["points"]:
        axes.setdefault(point["axis"], []).append(point)
    for axis, points in axes.items():
        sizes = ", ".join(str(point["value"]) for point in points)
        times = [point.get("median") for point in points]
        seconds = ", ".join("–" if t is None else f"{t:.3g}" for t in times)
        factors = [f"×{b / a:.2f}" for a, b in pairwise(times) if a and b]
        yield row(result, f"{seconds} s", "", ", ".join(factors), "", f"{result['case']}: {axis} {sizes}")


def row(result: Result, ours: str, peer: str, ratio: str, wanted: str, name: str = "") -> str:
    return f"| {name or result['case']} | {ours} | {peer} | {ratio} | {wanted} | `{result['command']}` |"


def table(results: dict[str, Result]) -> str:
    return "\n".join([*HEADER, *(line for result in results.values() for line in lines_of(result))])


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--results", type=Path, default=Path(__file__).with_name("results"))
    parser.add_argument("--into", type=Path, help="a page with the two markers")
    args = parser.parse_args()
    text = table(newest(args.results))
    if args.into is None:
        print(text)
        return 0
    page = args.into.read_text(encoding="utf-8")
    before, begin, rest = page.partition(BEGIN)
    _, end, after = rest.partition(END)
    if not (begin and end):
        print(f"{args.into} has no lines {BEGIN} and {END}: nothing was written", file=sys.stderr)
        return 2
    args.into.write_text(f"{before}{BEGIN}\n{text}\n{END}{after}", encoding="utf-8")
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
