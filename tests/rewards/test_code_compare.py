"""Values that are equal, near and not; what is too long to be right."""

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as some

from oneloop.rewards.code import compare, run
from oneloop.rewards.code.inside import wire
from oneloop.rewards.code.talk import Talk

KEYS = some.one_of(some.text(max_size=3), some.integers())
WANTED = some.recursive(
    some.one_of(some.none(), some.booleans(), some.integers(), some.floats(), some.text()),
    lambda inner: some.one_of(
        some.lists(inner, max_size=4), some.tuples(inner), some.dictionaries(KEYS, inner, max_size=3)
    ),
)


def answered(value: Any) -> tuple[Any, bytes]:
    """As it comes from a call, and its bytes."""
    body = wire.packed(wire.written(value))
    return wire.read(wire.unpacked(body), compare.other, compare.built), body


@given(WANTED)
def test_a_value_equals_itself_and_is_not_too_long(wanted: Any) -> None:
    keys = [str(key) for key in wanted] if isinstance(wanted, dict) else []
    if len(set(keys)) < len(keys):
        return
    found, body = answered(wanted)
    assert compare.same_value(found, wanted) or "{" in repr(wanted)  # a dict inside may hold 1 and "1"
    assert len(body) <= compare.most_bytes(wanted)
    assert body.count(b"[") <= compare.most_brackets(wanted)


@given(some.floats(allow_nan=False, allow_infinity=False))
def test_an_int_that_is_near_to_a_float_is_not_too_long(wanted: float) -> None:
    found, body = answered(int(wanted))
    assert len(body) <= compare.most_bytes(wanted)
    assert body.count(b"[") <= compare.most_brackets(wanted)
    assert compare.same_value(found, float(int(wanted)))


def test_brackets_in_text_and_around_it() -> None:
    assert [compare.most_brackets(wanted) for wanted in (7, "[[", [], [1, ["["]], {"[": ["a"]})] == [1, 3, 1, 5, 5]


@given(WANTED, WANTED)
def test_equal_both_ways(one: Any, other: Any) -> None:
    """Apart from floats, whose tolerance is the right value's, and dicts."""
    if not set("{.en") & set(repr(one) + repr(other)):
        assert compare.same_value(answered(one)[0], other) == compare.same_value(answered(other)[0], one)


@pytest.mark.parametrize(
    ("wanted", "near", "far"),
    [
        (0.0, 1e-6, 1.1e-6),
        (1.0, 1 + 9e-7, 1 + 2e-6),
        (-1e6, -1e6 - 0.9, -1e6 - 1.1),
        (0.5, 0.5 - 9e-7, 0.5 - 2e-6),
        (1e-9, 0, 1.2e-6),
        (1e300, 10**300, 1.1e300),
    ],
)
def test_the_tolerance_of_a_float(wanted: float, near: float, far: float) -> None:
    assert compare.same_value(near, wanted) and not compare.same_value(far, wanted)
    assert compare.same_output(f"x {near!r}".encode(), f"x {wanted!r}")
    assert not compare.same_output(f"x {far!r}".encode(), f"x {wanted!r}")


def test_a_truth_is_no_number() -> None:
    for value, wanted in [(True, 1), (False, 0), (True, 1.0), (1, True), (0, False), (0, None)]:
        assert not compare.same_value(value, wanted), (value, wanted)


def test_what_is_not_finite_equals_itself() -> None:
    inf, nan = float("inf"), float("nan")
    for value in (inf, -inf, nan):
        assert compare.same_value(value, value)
    for value, wanted in [(-inf, inf), (1e308, inf), (inf, 1e308), (inf, nan), (nan, inf), (nan, 0.0), (10**400, inf)]:
        assert not compare.same_value(value, wanted), (value, wanted)


@pytest.mark.parametrize(
    ("output", "wanted", "same"),
    [
        ("", "", True),
        ("\n\n", "", True),
        ("", "\n", True),
        ("a", "", False),
        ("", "a", False),
        ("a\n\n", "a", True),
        ("a \t\r\n", "a", True),
        ("a\u00a0\n\u2003", "a", True),
        ("a b", "a  b", False),
        ("1.0  2", "1.0 2", True),
        ("2.5 2", "2.5 2 ", True),
        ("1 2", "1.0 2", True),
        ("1 2.0", "1.0 2", False),
        ("1e0", "1.", True),
        (".5", "0.5", True),
        ("+1.0", "1.0", True),
        ("1_0.0", "10.0", False),
        ("١.0", "1.0", False),
        ("0x1", "1.0", False),
        ("1.0,", "1.0", False),
        ("1,0", "1.0", False),
        ("1e999", "1e999", True),
        ("1e998", "1e999", False),
        ("1e999", "1e300", False),
        ("-0.0", "0.0", True),
        ("1.0x", "1.0", False),
        ("2 1.0", "2.0 1.0", True),
        ("Infinity", "1e9", False),
        ("12", "1.2e1", True),
        ("1e", "1e", True),
    ],
)
def test_outputs(output: str, wanted: str, same: bool) -> None:
    assert compare.same_output(output.encode(), wanted) is same


def test_keys_of_one_hash_cost_nothing() -> None:
    """Whoever sends a dict could choose them: 100,000 of them would take a dict minutes."""
    wall = 2**61 - 1
    found, _ = answered({})
    tree = ["d", *(part for number in range(1000) for part in (["i", f"{number * wall:x}"], 0))]
    found = wire.read(tree, compare.other, compare.built)
    assert isinstance(found, compare.Pairs) and not compare.same_value(found, {"1": 1})


def test_millions_of_empty_lists_are_wrong_before_they_are_read() -> None:
    """They have room in the bytes of a long right answer, and cost seconds to take apart."""
    wanted = [0] * 25_000

    class Said(Talk):
        def __init__(self) -> None:
            """Nobody is at the other end."""

        def send(self, kind: bytes, body: bytes | bytearray) -> None: ...

        def receive(self) -> tuple[bytes, bytearray]:
            return b"A", bytearray(b"[" * (compare.most_bytes(wanted) // 2))

        def quiet(self) -> bool:
            return True

        def read(self, body: bytearray) -> Any:
            raise AssertionError("it was taken apart")

    assert not run._is_right(Said(), "f", b"[]", wanted)
