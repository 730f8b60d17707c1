"""The runs that ship with the package: small, whole, and silent about the machine that made them."""

import socket
import tomllib

import pytest
from asking import Lab

from oneloop.lab.catalog import DEMO

FILES = [file for file in DEMO.rglob("*") if file.is_file()]


@pytest.fixture(scope="module")
def lab() -> Lab:
    return Lab(DEMO, demo=DEMO)


def test_they_are_small():
    assert 0 < sum(file.stat().st_size for file in FILES) <= 10**6


def test_every_page_has_something_to_show(lab):
    assert lab.api("/demo")["run"] in lab.api("/demo")["runs"] and len(lab.api("/demo")["runs"]) == 3
    for run in ("ppo", "grpo"):
        facts = lab.api(f"/runs/{run}")
        assert facts["status"] == "finished" and facts["explain"]["epochs"] >= 1
        assert len(lab.api(f"/runs/{run}/curves?names=reward")["series"][0]["x"]) == facts["steps_done"]
        assert lab.api(f"/runs/{run}/rollouts")["rows"] and lab.api(f"/runs/{run}/tokens")["rows"]
        assert lab.api(f"/runs/{run}/ratios?tokens=1")["rows"] and lab.api(f"/runs/{run}/memory")["measured"]
    assert lab.api("/runs/ppo/tokens")["rows"][0]["value"] is not None
    assert lab.api("/runs/dpo/pairs")["rows"]
    first, last = (lab.api("/runs/grpo/evaluations")["rows"][place]["eval/reward"] for place in (0, -1))
    assert last > first  # it learns


def test_nothing_names_the_machine(lab):
    for run in ("ppo", "grpo", "dpo"):
        info = lab.api(f"/runs/{run}")["info"]
        assert info["argv"] == ["oneloop", "demo"] and info["host"] == "recorded" and info["machine"] == {}
        config = tomllib.loads((DEMO / run / "config.toml").read_text())
        assert config["out"] == f"runs/demo/{run}"
    for file in FILES:
        content = file.read_bytes()
        assert b"/home/" not in content and b"/root" not in content and b"/tmp" not in content
        assert len(socket.gethostname()) < 5 or socket.gethostname().encode() not in content
