"""PPO on Gymnasium's environments beside Stable-Baselines3: returns at the end, and seconds of training.

Same networks, same settings (oneloop's presets), same number of environment steps, one thread each, in turn: a run of
ours, a run of theirs, seed after seed. Returns are means of 100 episodes that training has not seen. Intervals: 95 %,
bootstrapped over seeds. Seconds are from the first environment step to the last update, ours with its run folder.

    python benchmarks/classic.py --peer .venv-peers/sb3/bin/python --env CartPole-v1 --out benchmarks/results/x.json
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
from dataclasses import asdict, replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import numpy as np
from processes.machine import machine

from oneloop.classic.presets import PRESETS

HERE = Path(__file__).parent
RESAMPLES = 10_000


def trained(python: str, script: str, settings: dict[str, Any]) -> dict[str, Any]:
    command = [python, str(HERE / "peers" / script), json.dumps(settings)]
    one_thread = os.environ | {"OMP_NUM_THREADS": "1", "MKL_NUM_THREADS": "1", "OPENBLAS_NUM_THREADS": "1"}
    done = subprocess.run(command, env=one_thread, capture_output=True, text=True, check=False)
    if done.returncode:
        raise SystemExit(f"{script} failed:\n{done.stderr[-3000:]}")
    return json.loads(done.stdout.splitlines()[-1])


def interval(values: list[float]) -> list[float]:
    """The mean of a bootstrap over seeds: 2.5 and 97.5 %."""
    rng = np.random.default_rng(0)
    means = rng.choice(values, (RESAMPLES, len(values))).mean(1)
    return [float(edge) for edge in np.percentile(means, [2.5, 97.5])]


def summary(rows: list[dict[str, Any]]) -> dict[str, Any]:
    found: dict[str, Any] = {}
    for who in ("oneloop", "sb3"):
        found[who] = {}
        for name in ("greedy", "sampled"):
            values = [row[who][name] for row in rows]
            found[who][name] = {"mean": float(np.mean(values)), "interval": interval(values), "seeds": values}
        found[who] |= {name: float(np.median([row[who][name] for row in rows])) for name in ("wall", "cpu")}
    for name in ("wall", "cpu"):
        ratios = [row["oneloop"][name] / row["sb3"][name] for row in rows]
        found[f"{name}_ratio"] = {"median": float(np.median(ratios)), "seeds": ratios}
    return found


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--peer", required=True, help="Python of an environment with stable-baselines3")
    parser.add_argument("--env", required=True, choices=sorted(PRESETS))
    parser.add_argument("--seeds", type=int, default=5)
    parser.add_argument("--steps", type=int, default=0, help="of the loop; left out, the preset's")
    parser.add_argument("--note", default="", help="kept in the file: what else the machine was doing")
    parser.add_argument("--out", type=Path, required=True)
    asked = parser.parse_args()
    preset = PRESETS[asked.env]
    settings = {"env": asked.env, **asdict(replace(preset, steps=asked.steps or preset.steps))}
    rows = []
    for seed in range(asked.seeds):
        given = settings | {"seed": seed}
        pair = {"oneloop": trained(sys.executable, "ours_agent.py", given)}
        pair["sb3"] = trained(asked.peer, "sb3_agent.py", given)
        rows.append({"seed": seed, **pair})
        print(json.dumps(rows[-1]), flush=True)
    result = {
        "case": f"classic-{asked.env}",
        "date": datetime.now(UTC).date().isoformat(),
        "command": f"python benchmarks/classic.py --peer PYTHON --env {asked.env} --seeds {asked.seeds} --out FILE",
        "note": asked.note,
        "machine": machine(),
        "settings": settings,
        "summary": summary(rows),
        "runs": rows,
    }
    asked.out.write_text(json.dumps(result, indent=1) + "\n", encoding="utf-8")
    print(json.dumps(result["summary"], indent=1))


if __name__ == "__main__":
    main()
