"""What all tests share: shapes and types are checked, one thread, the same examples each time."""

import os

os.environ.setdefault("HF_HUB_OFFLINE", "1")

from checked import UNCHECKED, calls, install

if UNCHECKED not in os.environ:
    install()

import pytest
import torch

torch.set_num_threads(1)

from hypothesis import Phase, settings  # noqa: E402

# the same examples every time, however busy the machine is
phases = tuple(phase for phase in Phase if UNCHECKED not in os.environ or phase in (Phase.explicit, Phase.generate))
settings.register_profile("steady", deadline=None, derandomize=True, phases=phases)
settings.load_profile("steady")


@pytest.fixture(autouse=True)
def checks_begin_anew() -> None:
    calls.clear()
