"""Open a file of a million rows: seconds, rows a second and resident memory, each row checked.

python benchmarks/single/open_data.py [--rows 1000000] [--form text|messages] [--format jsonl|parquet]
"""

from __future__ import annotations

import argparse
import json
import os
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from random import Random

from oneloop.data import open_data

CHARACTERS = 500


def resident() -> dict[str, float]:
    """MB of this process now: all, and what no file stands behind."""
    found = {}
    for line in Path("/proc/self/status").read_text(encoding="utf-8").splitlines():
        name, _, value = line.partition(":")
        if name in ("VmRSS", "RssAnon", "VmHWM"):
            found[name] = int(value.split()[0]) / 1024
    return found


def rows(count: int, form: str) -> Iterator[dict]:
    words = Random(0).choices(["alpha", "beta", "gamma", "delta", "epsilon"], k=10_000)
    for number in range(count):
        at = number % 9_000
        text = f"{number} {' '.join(words[at : at + 100])}"[:CHARACTERS]
        prompt = (
            text if form == "text" else [{"role": "system", "content": "Be brief."}, {"role": "user", "content": text}]
        )
        yield {"prompt": prompt, "answer": str(number)}


def write(path: Path, count: int, form: str) -> None:
    if path.suffix == ".jsonl":
        with path.open("w", encoding="utf-8") as file:
            file.writelines(json.dumps(row) + "\n" for row in rows(count, form))
        return
    import pyarrow as pa  # noqa: PLC0415
    from pyarrow.parquet import ParquetWriter  # noqa: PLC0415

    writer, batch = None, []
    for number, row in enumerate(rows(count, form), start=1):
        batch.append(row)
        if number % 50_000 == 0 or number == count:
            table = pa.Table.from_pylist(batch)
            writer = writer or ParquetWriter(path, table.schema)
            writer.write_table(table)
            batch = []
    if writer is not None:
        writer.close()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rows", type=int, default=1_000_000)
    parser.add_argument("--form", choices=("text", "messages"), default="text")
    parser.add_argument("--format", choices=("jsonl", "parquet"), default="jsonl")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        os.environ["HF_DATASETS_CACHE"] = f"{folder}/cache"
        path = Path(folder) / f"rows.{options.format}"
        child = os.fork()  # writing leaves its memory to another process
        if child == 0:
            write(path, options.rows, options.form)
            if options.format == "parquet":
                open_data(str(path), "prompts")  # builds the cache
            os._exit(0)
        os.waitpid(child, 0)
        if options.format == "parquet":
            import datasets  # noqa: F401, PLC0415  its modules are not the data's memory
        before, began, used = resident(), time.perf_counter(), time.process_time()
        data = open_data(str(path), "prompts")
        opened, used = time.perf_counter() - began, time.process_time() - used
        after = resident()
        began = time.process_time()
        mark = data.fingerprint
        hashed = time.process_time() - began
        began = time.process_time()
        for place in Random(1).choices(range(len(data.rows)), k=10_000):
            assert data.rows[place]["answer"] == str(place)
        drawn = (time.process_time() - began) / 10_000
    size = {name: after[name] - before[name] for name in after}
    print(
        f"{options.format}, {options.form}: {options.rows:,} rows of {CHARACTERS} characters opened and checked in "
        f"{opened:.1f} s ({used:.1f} s of CPU: {options.rows / used:,.0f} rows/s); resident memory "
        f"+{size['VmRSS']:.0f} MB, of which +{size['RssAnon']:.0f} MB belong to no file; fingerprint {mark[:8]} in "
        f"{hashed:.1f} s of CPU; one row {drawn * 1e6:.0f} µs"
    )


if __name__ == "__main__":
    main()
