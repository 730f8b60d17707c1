"""The page's arithmetic is tied to oneloop's: the files that its tests read are what oneloop computes."""

import json
from typing import Any

import pytest
from golden import FOLDER, TOPICS, path


def numbers(value: Any) -> Any:
    """With every number replaced by one that compares to 1e-6."""
    if isinstance(value, dict):
        return {name: numbers(inner) for name, inner in value.items()}
    if isinstance(value, list):
        return [numbers(inner) for inner in value]
    return pytest.approx(value, abs=1e-6) if isinstance(value, float) else value


@pytest.mark.parametrize("topic", TOPICS)
def test_the_file_is_what_oneloop_computes(topic: str) -> None:
    assert json.loads(path(topic).read_text(encoding="utf-8")) == numbers(TOPICS[topic]())


def test_every_file_has_its_topic() -> None:
    assert {file.stem for file in FOLDER.glob("*.json")} == set(TOPICS)
