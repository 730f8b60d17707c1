"""What a run does to the process's memory, and writes down about it."""

import json
import os
import platform
import subprocess
import sys
from dataclasses import replace
from mmap import mmap
from pathlib import Path

import pytest

from forked import Forked
from oneloop.config import default_run
from oneloop.recipes.execute import execute
from oneloop.recipes.meter import SMALL, Meter, forget_peak
from oneloop.record.reader import read_run
from oneloop.record.writer import RunFolder
from toy_models import Silent

FAULTS = """
import resource
import sys
import torch
from oneloop.recipes.meter import settle_malloc
for largest in map(int, sys.argv[1:]):
    settle_malloc(largest)
for _ in range(10):
    before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
    tensor = torch.ones(16 * 2**20)
    del tensor
print(resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before)
"""


def faults(folder: Path, *largest: int) -> int:
    """Pages that the kernel gives to the tenth tensor of 64 MiB, each freed before the next.

    Not to the second or third: what is kept may lie a few bytes too far for an aligned block, and is passed over.
    """
    told, _ = Forked(["-c", FAULTS, *map(str, largest)], folder).communicate(timeout=120)
    return int(told)


@pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="a setting of glibc's malloc")
def test_freed_memory_is_kept_for_small_parameters_unless_the_environment_says_otherwise(tmp_path) -> None:
    """64 MiB are 16384 pages of 4 KiB. A second run in the same process may have other parameters."""
    small, large = SMALL, SMALL + 1
    assert faults(tmp_path) > 10_000 and faults(tmp_path, small) < 100
    assert faults(tmp_path, large) > 10_000 and faults(tmp_path, small, large) > 10_000
    assert faults(tmp_path, large, small) < 100
    environment = os.environ | {"MALLOC_TRIM_THRESHOLD_": "1000000"}  # malloc reads it when a process begins
    command = [sys.executable, "-c", FAULTS, str(small)]
    assert int(subprocess.run(command, env=environment, capture_output=True, check=True).stdout) > 10_000


def test_every_step_has_a_line_of_memory(tmp_path: Path) -> None:
    run = replace(default_run("sft"), model="scratch:tiny", steps=2, prompts_per_step=4, data_size=16, eval_size=4)
    out = execute(replace(run, out=str(tmp_path / "run")), Silent())
    lines = [json.loads(line) for line in (out / "memory.jsonl").read_text().splitlines()]
    assert [line["step"] for line in lines] == [0, 1] and read_run(out).memory == lines
    for line in lines:
        assert line["start_rss"] > 0 and 0 < line["rss"] <= line["peak_rss"]
    assert lines[0]["peak_rss"] <= lines[1]["peak_rss"]


@pytest.mark.skipif(not forget_peak(), reason="a kernel that lets nobody reset the peak")
def test_a_peak_belongs_to_its_phase(tmp_path: Path) -> None:
    with RunFolder.open(tmp_path / "run", resume=False, config_text="", facts={}) as folder:
        meter, mib = Meter.begin(folder, "cpu"), 2**20
        for step, mebibytes in enumerate(((64, 1, 8), (1, 1, 1))):
            for name, count in zip(("rollout", "prepare", "update"), mebibytes, strict=True):
                meter.phase(name)
                with mmap(-1, count * mib) as block:  # malloc might keep what is freed
                    block.write(b"1" * len(block))
            meter(step, None)
    first, second = read_run(tmp_path / "run").memory
    assert first["phase/rollout"] - first["phase/prepare"] > 48 * mib and set(second) == set(first)
    assert second["phase/rollout"] < first["phase/rollout"] - 48 * mib
    assert second["peak_rss"] == first["peak_rss"] >= first["phase/rollout"]  # the most of the run stays
