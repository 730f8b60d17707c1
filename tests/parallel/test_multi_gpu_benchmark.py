"""benchmarks/multi_gpu.py on two gloo ranks with a tiny model: its lines, and the shape of its result."""

import json
import os
import subprocess
import sys
from pathlib import Path

SCRIPT = Path(__file__).parents[2] / "benchmarks" / "multi_gpu.py"


def test_phases_of_two_ranks_that_share_a_model(tmp_path: Path) -> None:
    command = [sys.executable, str(SCRIPT), "--shape", "tiny", "--device", "cpu", "--ranks", "2", "--shard", "full"]
    environment = os.environ | {"OMP_NUM_THREADS": "1"}
    done = subprocess.run(
        [*command, "--out", str(tmp_path)], capture_output=True, text=True, env=environment, timeout=240
    )
    assert done.returncode == 0, done.stderr
    (path,) = tmp_path.glob("multi-gpu-tiny-cpu-*.json")
    assert done.stdout.splitlines()[0].startswith("2 ranks, full: refresh ")
    told = json.loads(path.read_text())["ranks"]["2"]["ways"]["full"]
    assert told["seconds"].keys() == {"refresh", "rollout", "passes", "update", "saving"}
    assert min(told["seconds"].values()) > 0
    assert told["checkpoint_bytes"] > 0 and told["trained_tokens_per_second"] > 0 < told["drawn_tokens_per_second"]
