"""What the lab costs: charts of a million steps, fifty readers at once, training beside it, and pages in a browser.

    python benchmarks/single/lab.py charts | clients | beside | paint | all      (--seconds 60 --steps 1000000)

Prints the figures that docs/lab.md states, and the machine's load: another program beside it makes all of them worse.
"""

from __future__ import annotations

import argparse
import asyncio
import http.client
import json
import os
import random
import re
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from itertools import pairwise
from pathlib import Path
from statistics import median
from typing import Any

import pyarrow

from oneloop.record.steps import StepTables

SERIES = [f"series/{number:02d}" for number in range(20)]
CHARTS = ["", "&x=time", "&from={low}&to={high}"]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("what", choices=["charts", "clients", "beside", "paint", "all"])
    parser.add_argument("--steps", type=int, default=1_000_000)
    parser.add_argument("--seconds", type=float, default=60.0)
    parser.add_argument("--clients", type=int, default=50)
    flags = parser.parse_args()
    load = ", ".join(f"{value:.1f}" for value in os.getloadavg())
    print(f"{os.cpu_count()} cores, load {load} before")
    with tempfile.TemporaryDirectory() as folder:
        if flags.what in ("charts", "all"):
            charts(Path(folder), flags.steps)
        if flags.what in ("clients", "all"):
            clients(Path(folder), flags.clients, flags.seconds)
        if flags.what in ("beside", "all"):
            beside(Path(folder), flags.clients)
        if flags.what in ("paint", "all"):
            paint(Path(folder))


def charts(folder: Path, steps: int) -> None:
    """Start, first answer, indexing, and single charts once indexed."""
    run = synthetic(folder / "large", steps)
    size = (run / "metrics.jsonl").stat().st_size / 2**20
    with server(folder / "large") as (port, pid, seconds):
        print(f"start: {seconds:.2f} s until the first answer")
        begin = time.perf_counter()
        while (answer := ask(port, f"/api/runs/run/curves?names={SERIES[0]}&points=2000")[1])["ready"] < 1:
            time.sleep(0.05)
        print(f"index: {time.perf_counter() - begin:.1f} s for {steps:,} steps × {len(SERIES)} series ({size:.0f} MiB)")
        assert answer["series"][0]["n"] == steps, answer["series"][0]["n"]
        draw, taken = random.Random(0), []
        for number in range(300):
            low = draw.randrange(steps // 2)
            query = CHARTS[number % 3].format(low=low, high=low + draw.randrange(1, steps // 2))
            begin = time.perf_counter()
            ask(port, f"/api/runs/run/curves?names={draw.choice(SERIES)}&points={1990 + number % 10}{query}")
            taken.append(1e3 * (time.perf_counter() - begin))
        taken.sort()
        print(f"a chart: median {median(taken):.0f} ms, p95 {taken[285]:.0f} ms, worst {taken[-1]:.0f} ms")
        print(f"memory: {memory(pid):.0f} MiB resident, {memory(pid, 'VmHWM'):.0f} MiB at most")
    run = synthetic(folder / "middle", 20_000)
    with server(folder / "middle") as (port, _, _):
        begin = time.perf_counter()
        for path in (
            "/api/runs",
            "/api/runs/run",
            f"/api/runs/run/curves?{'&'.join(f'names={name}' for name in SERIES[:8])}",
            "/api/runs/run/health",
        ):
            ask(port, path)
        print(f"open a run of 20,000 steps: {time.perf_counter() - begin:.2f} s for its four first answers")


def clients(folder: Path, count: int, seconds: float) -> None:
    """So many readers, four requests a second each, as pages that are open ask."""
    synthetic(folder / "asked", 20_000)
    with server(folder / "asked") as (port, pid, _):
        ask(port, f"/api/runs/run/curves?names={SERIES[0]}")
        before = busy(pid)
        taken, errors = asyncio.run(load(port, count, seconds))
        share = (busy(pid) - before) / seconds
        taken.sort()
        print(
            f"{count} clients at 4 requests/s for {seconds:.0f} s: {len(taken) / seconds:.0f} answers/s, "
            f"{errors} errors, median {1e3 * median(taken):.0f} ms, p99 {1e3 * taken[int(0.99 * len(taken))]:.0f} ms, "
            f"{memory(pid):.0f} MiB, {100 * share:.1f} % of a core"
        )


def beside(folder: Path, count: int) -> None:
    """Training runs beside one open page, and beside many clients, that ask and pause in turn."""
    for readers in (1, count):
        off, on = turns(folder, folder / f"beside{readers}", readers)
        low, high = spread(off, on)
        more = median(on) / median(off) - 1
        print(
            f"a step of training: {1e3 * median(off):.1f} ms while {readers} clients pause, {1e3 * median(on):.1f} ms "
            f"while they ask: {100 * more:+.1f} % (95 %: {100 * low:+.1f} to {100 * high:+.1f})"
        )


def paint(folder: Path) -> None:
    """In headless Chromium: the first page with 50 runs, and a table of 10,000 completions that is scrolled through."""
    from playwright.sync_api import sync_playwright  # noqa: PLC0415

    for number in range(50):
        synthetic(folder / "fifty" / f"{number:02d}", 200)
    completions(synthetic(folder / "rows", 1), 10_000)
    chromium = shutil.which("chromium") or shutil.which("google-chrome")
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=chromium, args=["--no-sandbox", "--disable-gpu"])
        with server(folder / "fifty") as (port, _, _):
            opened = [first_paint(browser, port) for _ in range(7)]
        first, shown = (sorted(times) for times in zip(*opened, strict=True))
        print(
            f"the first page with 50 runs: first paint {first[3]:.0f} ms (worst of 7: {first[-1]:.0f}), "
            f"all 50 in the table after {shown[3]:.0f} ms (worst {shown[-1]:.0f})"
        )
        with server(folder / "rows") as (port, _, _):
            page = browser.new_page(viewport={"width": 1280, "height": 720})
            page.goto(f"http://127.0.0.1:{port}/run/run/rollouts")
            page.get_by_role("button", name="Open completion 2", exact=True).wait_for()
            frames = sorted(page.evaluate(SCROLL))
        print(
            f"10,000 rows scrolled through: {len(frames)} frames, median {median(frames):.1f} ms, "
            f"p99 {frames[int(0.99 * len(frames))]:.1f} ms, longest {frames[-1]:.1f} ms, "
            f"{sum(frame > 50 for frame in frames)} over 50 ms"
        )
        browser.close()


SCROLL = """() => new Promise((done) => {
  const table = document.querySelector("[role=table]"), frames = [];
  let last = null;
  requestAnimationFrame(function next(now) {
    if (last !== null) frames.push(now - last);
    last = now;
    table.scrollTop += 500;
    if (table.scrollTop + table.clientHeight < table.scrollHeight - 1) requestAnimationFrame(next);
    else done(frames);
  });
})"""
"""To the end, half a screen a frame: the milliseconds between frames."""


def first_paint(browser: Any, port: int) -> tuple[float, float]:
    """Milliseconds from the request to the first paint, and until every run is listed; nothing is cached."""
    page = browser.new_page(viewport={"width": 1280, "height": 720})
    begin = time.perf_counter()
    page.goto(f"http://127.0.0.1:{port}/", wait_until="commit")
    page.locator("tr[data-run]").nth(49).wait_for()
    shown = 1e3 * (time.perf_counter() - begin)
    first = page.evaluate("performance.getEntriesByName('first-contentful-paint')[0].startTime")
    page.close()
    return first, shown


def completions(run: Path, count: int) -> None:
    """A step with so many completions."""
    draw = random.Random(0)
    columns = {
        "step": [0] * count,
        "prompt": [f"What is {place} + {place % 97}?" for place in range(count)],
        "completion": ["".join(draw.choices("abcdefgh ", k=200)) for _ in range(count)],
        "reward": [draw.choice((0.0, 1.0)) for _ in range(count)],
        "advantage": [draw.gauss(0, 1) for _ in range(count)],
        "group": [place // 8 for place in range(count)],
        "sample": [place % 8 for place in range(count)],
        "length": [draw.randrange(1, 500) for _ in range(count)],
        "stop": ["eos"] * count,
        "kept": [True] * count,
    }
    StepTables(run / "rollouts").write(0, pyarrow.table(columns))


def turns(runs: Path, out: Path, count: int) -> tuple[list[float], list[float]]:
    """Seconds of steps without and with readers. They change every few steps, for the load of a machine drifts."""
    times: list[list[float]] = [[], []]
    command = [sys.executable, "-m", "oneloop", "train", "grpo", "--data", "task:addition", "--out", str(out)]
    command += ["--steps", "640", "--prompts-per-step", "8", "--max-new-tokens", "6", "--eval-size", "8"]
    runs.mkdir(exist_ok=True)
    with server(runs) as (port, _, _):
        training = subprocess.Popen(command, stdout=subprocess.DEVNULL, env={**os.environ, "OMP_NUM_THREADS": "1"})
        code = f"import asyncio, sys; sys.path.insert(0, {str(Path(__file__).parent)!r}); import lab; "
        code += f"asyncio.run(lab.load({port}, {count}, 1e9, run={out.name!r}))"
        # what asks belongs to no server: it stands back too, or it would be measured with it
        asking = subprocess.Popen([sys.executable, "-c", code], preexec_fn=lambda: os.nice(10))
        try:
            while training.poll() is None:
                time.sleep(0.01)
                done = (out / "metrics.jsonl").read_bytes().count(b"\n") if (out / "metrics.jsonl").exists() else 0
                asking.send_signal(signal.SIGCONT if done // 8 % 2 else signal.SIGSTOP)
        finally:
            for process in (asking, training):
                process.kill()
                process.wait()
    ends = [json.loads(line)["time"] for line in (out / "metrics.jsonl").read_text().splitlines()]
    for step, (before, after) in enumerate(pairwise(ends), start=1):
        if step >= 16 and step % 8:  # the first step of a turn belongs to both
            times[step // 8 % 2].append(after - before)
    return times[0], times[1]


def spread(off: list[float], on: list[float]) -> tuple[float, float]:
    """Bootstrap interval of the ratio of medians, less 1."""
    draw = random.Random(0)
    ratios = sorted(
        median(draw.choices(on, k=len(on))) / median(draw.choices(off, k=len(off))) - 1 for _ in range(2000)
    )
    return ratios[50], ratios[1949]


async def load(port: int, count: int, seconds: float, run: str = "run") -> tuple[list[float], int]:
    """Latencies and errors of clients that poll as the pages do: new lines by offset, now and then a chart."""
    taken: list[float] = []
    errors = 0
    # a page draws its charts first, and asks for the lines after what they show
    while not ask(port, f"/api/runs/{run}/curves?names=reward", wanted=None)[1].get("series"):
        await asyncio.sleep(0.2)
    start = ask(port, f"/api/runs/{run}/curves?names=reward")[1]["offset"]

    async def client(number: int) -> None:
        nonlocal errors
        draw = random.Random(number)
        await asyncio.sleep(draw.random() / 4)
        reader, writer = await asyncio.open_connection("127.0.0.1", port)
        offset, end, turn = start, time.monotonic() + seconds, 0
        while time.monotonic() < end:
            path = (
                f"/api/runs/{run}/metrics?offset={offset}&names=reward",
                f"/api/runs/{run}/curves?names={draw.choice(SERIES)}&names=reward&points=1000",
                f"/api/runs/{run}/health",
                "/api/runs",
            )[turn % 4]
            begin = time.monotonic()
            try:
                head = f"GET {path} HTTP/1.1\r\nHost: 127.0.0.1:{port}\r\n\r\n"
                writer.write(head.encode())
                header = (await reader.readuntil(b"\r\n\r\n")).decode()
                length = int(re.search(r"content-length: (\d+)", header)[1])  # type: ignore[index]
                body = await reader.readexactly(length)
                errors += not header.startswith("HTTP/1.1 200")
                if turn % 4 == 0:
                    offset = json.loads(body).get("offset", 0)
            except (OSError, asyncio.IncompleteReadError, TypeError):
                errors += 1
                reader, writer = await asyncio.open_connection("127.0.0.1", port)
            taken.append(time.monotonic() - begin)
            turn += 1
            await asyncio.sleep(max(0.25 - (time.monotonic() - begin), 0))
        writer.close()

    await asyncio.gather(*(client(number) for number in range(count)))
    return taken, errors


@contextmanager
def server(runs: Path) -> Iterator[tuple[int, int, float]]:
    """Port, process and seconds until it answered."""
    begin = time.perf_counter()
    command = [sys.executable, "-m", "oneloop", "lab", str(runs), "--no-browser"]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
    assert process.stdout is not None
    line = process.stdout.readline()
    found = re.search(r":(\d+)/", line)
    assert found, line
    port = int(found[1])
    while True:
        try:
            ask(port, "/api/demo")
            break
        except OSError:
            time.sleep(0.02)
    try:
        yield port, process.pid, time.perf_counter() - begin
    finally:
        process.terminate()
        process.wait()


def ask(port: int, path: str, wanted: int | None = 200) -> tuple[int, dict]:
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=60)
    connection.request("GET", path)
    answer = connection.getresponse()
    body = json.loads(answer.read())
    connection.close()
    assert wanted in (None, answer.status), (path, body)
    return answer.status, body


def synthetic(folder: Path, steps: int) -> Path:
    """A run folder with noise for metrics."""
    run = folder / "run"
    run.mkdir(parents=True, exist_ok=True)
    facts = {
        "status": "finished",
        "algorithm": "grpo",
        "seed": 0,
        "steps": steps,
        "pid": 0,
        "started": 1e9,
        "heartbeat": 1e9,
    }
    (run / "run.json").write_text(json.dumps(facts))
    draw = random.Random(0)
    noise = [[repr(round(draw.gauss(0, 1), 9)) for _ in SERIES] for _ in range(997)]
    texts = [", ".join(f'"{name}": {value}' for name, value in zip(SERIES, row, strict=True)) for row in noise]
    with (run / "metrics.jsonl").open("w") as file:
        for step in range(steps):
            file.write(f'{{"step": {step}, "time": {1e9 + step}, "reward": {step / steps:.6f}, {texts[step % 997]}}}\n')
    return run


def memory(pid: int, what: str = "VmRSS") -> float:
    """MiB of a process."""
    status = Path(f"/proc/{pid}/status").read_text()
    found = re.search(rf"{what}:\s+(\d+) kB", status)
    assert found
    return int(found[1]) / 1024


def busy(pid: int) -> float:
    """Seconds of CPU that a process has used."""
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


if __name__ == "__main__":
    main()
