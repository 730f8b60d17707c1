"""What every method loses in thirty steps is what it lost before."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
from losses import FILE, METHODS, STEPS, here

GOLDEN = json.loads(FILE.read_text())


def lost(*dtypes: str) -> dict:
    """In a process of its own: its sums must be in one order, which is settled before torch is loaded."""
    line = [sys.executable, str(FILE.with_suffix(".py")), "--dtype", *dtypes]
    done = subprocess.run(line, capture_output=True, text=True, env=os.environ | {"PYTHONPATH": SOURCE}, timeout=500)
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout)


SOURCE = os.pathsep.join([str(Path(__file__).parents[2] / "src"), *os.environ.get("PYTHONPATH", "").split(os.pathsep)])


def other(found: dict, exact: bool) -> list[str]:
    """The methods whose numbers are others, and from which step on."""
    dtype = "float32" if exact else "float64"
    return [
        f"{dtype} {name} {kept} at step {step}: {value!r} was {wanted!r}"
        for name, columns in GOLDEN[dtype].items()
        for kept, column in columns.items()
        for step, (value, wanted) in enumerate(zip(found[dtype][name][kept], column, strict=True))
        if value != (wanted if exact else pytest.approx(wanted, rel=1e-9, abs=1e-12))
    ]


def test_every_method_loses_what_it_lost() -> None:
    """To the bit in float32 where torch and the CPU are those of the file; everywhere to 1e-9 in float64."""
    at_home = here() == GOLDEN["made_on"]
    found = lost("float64", *(["float32"] if at_home else []))
    assert not other(found, exact=False)
    assert not (at_home and other(found, exact=True)), other(found, exact=True)


def test_the_file_has_every_method_and_its_reasons() -> None:
    for dtype in ("float32", "float64"):
        assert GOLDEN[dtype].keys() == METHODS.keys()
        for columns in GOLDEN[dtype].values():
            assert all(len(column) == STEPS and len(set(column)) == STEPS for column in columns.values())
    assert GOLDEN["reasons"] and all(GOLDEN["reasons"])


def test_one_bit_and_one_part_in_a_million_would_show() -> None:
    found = json.loads(FILE.read_text())
    assert not other(found, exact=True) and not other(found, exact=False)
    for dtype, step in (("float32", 17), ("float64", 3)):
        column = found[dtype]["grpo"]["loss"]
        column[step] *= 1 + (1e-7 if dtype == "float32" else 1e-6)
        (told,) = other(found, exact=dtype == "float32")
        assert f"{dtype} grpo loss at step {step}" in told
