"""A starter of each tier that works here."""

from collections.abc import Iterator

import pytest

from oneloop.errors import ConfigError, SandboxError
from oneloop.sandbox import tiers
from oneloop.sandbox.launch import Starter
from oneloop.sandbox.tiers import Tier


def launched(tier: Tier) -> Starter:
    try:
        return Starter(tier)
    except SandboxError as error:
        pytest.skip(f"{tier}: {error}")


@pytest.fixture
def isolating() -> None:
    """For what needs any tier."""
    try:
        tiers.tier()
    except ConfigError as error:
        pytest.skip(str(error))


@pytest.fixture(scope="module", params=[Tier.NAMESPACES, Tier.LANDLOCK], ids=str)
def starter(request: pytest.FixtureRequest) -> Iterator[Starter]:
    found = launched(request.param)
    yield found
    found.close()
