"""Ranks that hold shares of one model: started once, whichever test or worker of pytest asks first."""

from pathlib import Path

import pytest

from sharded_cases import write_models
from sharded_jobs import four, two
from spawned import on_processes, once


@pytest.fixture(scope="session")
def folder(tmp_path_factory) -> Path:
    return once(tmp_path_factory, "sharded", write_models)


@pytest.fixture(scope="session")
def on_two(tmp_path_factory, folder) -> list[dict]:
    return on_processes(2, two, folder, tmp_path_factory)


@pytest.fixture(scope="session")
def on_four(tmp_path_factory, folder, on_two) -> list[dict]:
    return on_processes(4, four, folder, tmp_path_factory)
