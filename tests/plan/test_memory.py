"""What a machine has of memory."""

import pytest

from oneloop.plan.memory import installed


def test_a_machine_has_memory_and_an_absent_gpu_has_none(monkeypatch: pytest.MonkeyPatch) -> None:
    there = installed("cpu")
    assert there is not None and there > 2**28
    monkeypatch.setattr("torch.cuda.is_available", lambda: False)
    assert installed("cuda") is None
