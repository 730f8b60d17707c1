"""PPO and TRPO on Gymnasium's environments beside Stable-Baselines3: returns at the end, and seconds of training.

Same networks, same settings (oneloop's presets), same number of environment steps, one thread each, in turn: a run of
ours, a run of theirs, seed after seed. The settings of TRPO's critic are not the same: ours takes some steps on the
whole batch, theirs some epochs over minibatches. Returns are means of 100 episodes that training has not seen.
Intervals: 95 %, bootstrapped over seeds. Seconds are from the first environment step to the last update, ours with its
run folder.

A file that is there already is gone on with: its seeds stay, and those that it lacks are run. So a long table can be
made in pieces.

    python benchmarks/classic.py --peer .venv-peers/sb3/bin/python --env CartPole-v1 --out benchmarks/results/x.json
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
from dataclasses import asdict
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import numpy as np
from processes.machine import machine

from oneloop.algorithms import PolicyGradient
from oneloop.classic.presets import PRESETS
from oneloop.config import default_run
from oneloop.objective.advantage import GAE
from oneloop.recipes.resolve import resolved

HERE = Path(__file__).parent
RESAMPLES = 10_000


ALGORITHMS = ("ppo", "trpo")


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
        if "region" in rows[0][who]:
            regions = [row[who]["region"] for row in rows]
            found[who]["region"] = {
                "steps": sum(region["steps"] for region in regions),
                "rejected": sum(region["rejected"] for region in regions),
                "beyond": sum(region["beyond"] for region in regions),
                "largest": max(region["largest"] for region in regions),
            }
    for name in ("wall", "cpu"):
        ratios = [row["oneloop"][name] / row["sb3"][name] for row in rows]
        found[f"{name}_ratio"] = {"median": float(np.median(ratios)), "seeds": ratios}
    return found


def settings_of(algorithm: str, env: str, steps: int) -> dict[str, Any]:
    """What both are given; the peer has no presets of its own."""
    run = default_run(algorithm, env)
    value = resolved(run)
    assert isinstance(value, PolicyGradient)
    assert isinstance(value.advantage, GAE)
    found = {"algorithm": algorithm, "env": env, "steps": steps or run.steps, "envs": run.envs}
    found |= {"steps_per_env": run.steps_per_env, "minibatch": run.minibatch, "epochs": run.epochs}
    found |= {"learning_rate": run.critic_learning_rate, "schedule": run.schedule, "normalize": list(run.normalize)}
    found |= {"gamma": value.advantage.gamma, "lam": value.advantage.lam, "entropy": value.entropy}
    return found | ({} if value.region is None else {"region": asdict(value.region)})


def kept(out: Path, settings: dict[str, Any]) -> list[dict[str, Any]]:
    """The rows of an earlier call."""
    if not out.exists():
        return []
    before = json.loads(out.read_text(encoding="utf-8"))
    if before["settings"] != settings or before["machine"] != machine():
        raise SystemExit(f"{out} has other settings, or is from another machine. Fix: another --out")
    return before["runs"]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--peer", required=True, help="Python of an environment with stable-baselines3")
    parser.add_argument("--algorithm", choices=ALGORITHMS, default="ppo")
    parser.add_argument("--env", required=True, choices=sorted(PRESETS))
    parser.add_argument("--seeds", type=int, default=5, help="how many there are to be in the file at the end")
    parser.add_argument("--steps", type=int, default=0, help="of the loop; left out, the preset's")
    parser.add_argument("--note", default="", help="kept in the file: what else the machine was doing")
    parser.add_argument("--out", type=Path, required=True)
    asked = parser.parse_args()
    settings = settings_of(asked.algorithm, asked.env, asked.steps)
    rows = kept(asked.out, settings)
    chosen = f"--algorithm {asked.algorithm} --env {asked.env}" + (f" --steps {asked.steps}" if asked.steps else "")
    for seed in range(len(rows), asked.seeds):
        given = settings | {"seed": seed}
        pair = {"oneloop": trained(sys.executable, "ours_agent.py", given)}
        pair["sb3"] = trained(asked.peer, "sb3_agent.py", given)
        rows.append({"seed": seed, **pair})
        print(json.dumps(rows[-1]), flush=True)
        result = {
            "case": f"classic-{asked.algorithm}-{asked.env}",
            "date": datetime.now(UTC).date().isoformat(),
            "command": f"python benchmarks/classic.py --peer PYTHON {chosen} --seeds {len(rows)} --out FILE",
            "note": asked.note,
            "machine": machine(),
            "settings": settings,
            "summary": summary(rows),
            "runs": rows,
        }
        asked.out.write_text(json.dumps(result, indent=1) + "\n", encoding="utf-8")
    print(json.dumps(summary(rows), indent=1))


if __name__ == "__main__":
    main()
