"""A part of the attack suite and of the honest suite, in every situation that this machine offers.

`make attacks` runs the whole of both. What one in so many shows here: that nothing is paid, reached or left.
"""

import pytest
from suite import ATTACKS, HONEST, elsewhere, failures, situations

from oneloop.errors import ConfigError
from oneloop.sandbox.tiers import tier

FORMS = ("streams", "calls", "asserts", "check")


def isolated() -> bool:
    try:
        return bool(tier())
    except ConfigError:
        return False


@pytest.mark.skipif(not isolated(), reason="nothing here isolates programs; tests/sandbox show that they are refused")
@pytest.mark.parametrize(("number", "name"), [*enumerate(situations())], ids=list(situations()))
def test_nothing_is_paid_and_nothing_reached(number: int, name: str) -> None:
    """Each situation gets another form of tests and another part of the programs."""
    command, settings = situations()[name]
    found = elsewhere(command, settings, ["--every", "9", "--from", str(2 * number), "--forms", FORMS[number]])
    assert found["tier"] == ("landlock" if "without" in name else "namespaces")
    assert failures(found) == []
    assert found["attacks"] > 30 and found["honest"] > 15


def test_the_suites_are_as_large_as_they_say() -> None:
    assert len({one.name for one in ATTACKS}) == len(ATTACKS) >= 300
    assert len({one.name for one in HONEST}) == len(HONEST) >= 150
