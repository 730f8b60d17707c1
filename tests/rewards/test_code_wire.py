"""Values and exceptions as bytes: what crosses comes out equal and of the same type, and no bytes do harm."""

import collections
import enum
import math
import socket
import sys
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as some

from oneloop.rewards.code.inside import wire

FLOATS = some.floats()
HASHABLE = some.recursive(
    some.one_of(
        some.none(),
        some.booleans(),
        some.integers(-(2**200), 2**200),
        some.floats(allow_nan=False),
        some.text(some.characters()),
        some.binary(),
        some.complex_numbers(allow_nan=False),
        some.builds(range, some.integers(-9, 2**70), some.integers(-9, 9), some.integers(1, 2**70)),
    ),
    lambda inner: some.one_of(some.tuples(inner, inner), some.frozensets(inner, max_size=3)),
    max_leaves=6,
)
VALUES = some.recursive(
    HASHABLE,
    lambda inner: some.one_of(
        some.lists(inner, max_size=4),
        some.tuples(inner, inner),
        some.sets(HASHABLE, max_size=4),
        some.dictionaries(HASHABLE, inner, max_size=4),
    ),
    max_leaves=12,
)


def crossed(value: Any, **how: Any) -> Any:
    return wire.read(wire.unpacked(wire.packed(wire.written(value, **how))))


def types(value: Any) -> Any:
    """The types of it and in it."""
    if isinstance(value, dict):
        return dict, [(types(key), types(item)) for key, item in value.items()]
    if isinstance(value, (list, tuple)):
        return type(value), [types(item) for item in value]
    return type(value)


def nested(depth: int) -> list[Any]:
    value: list[Any] = []
    for _ in range(depth - 1):
        value = [value]
    return value


@given(VALUES)
def test_values_cross(value: Any) -> None:
    found = crossed(value)
    assert found == value and types(found) == types(value)


@given(FLOATS)
def test_floats_cross_to_the_bit(value: float) -> None:
    found = crossed(value)
    assert math.isnan(found) if math.isnan(value) else found.hex() == value.hex()


@given(some.text(some.characters(categories=["Cs", "Cc", "Lu"])))
def test_surrogates_and_controls_cross(value: str) -> None:
    assert crossed(value) == value


@given(
    some.recursive(
        some.one_of(
            some.none(),
            some.integers(),
            some.text(),
            some.floats(),
            some.sampled_from(["l", "t", "d", "s", "z", "i", "u", "b", "c", "r", "e", "h", "ValueError"]),
        ),
        lambda inner: some.one_of(some.lists(inner, max_size=4), some.dictionaries(some.text(), inner, max_size=2)),
    )
)
def test_any_tree_is_a_value_or_unreadable(tree: Any) -> None:
    for reader in (wire.read, wire.read_error):
        try:
            reader(tree)
        except wire.Unreadable:
            continue


@given(some.binary(max_size=60))
def test_any_bytes_are_a_tree_or_unreadable(body: bytes) -> None:
    try:
        wire.unpacked(body)
    except wire.Unreadable:
        return


@pytest.mark.parametrize(
    "body",
    [
        b"",
        b"[",
        b"{",
        b"nul",
        b"\xff",
        b"[" * 10**6,
        b"[" * 401 + b"]" * 401,
        b'{"a":' * 500 + b"1" + b"}" * 500,
        b"1" * 21,
        b'"' + b'\\"' * 10**5,
        b'"' + b"\\" * 10**5,
        b"[1] [1]",
        "[1]".encode("utf-16-le"),  # in which brackets could not be counted
        ('["\\"",' + "[" * 2000).encode("utf-16-le"),
    ],
)
def test_unreadable_bytes(body: bytes) -> None:
    with pytest.raises(wire.Unreadable):
        wire.unpacked(body)


def test_the_bound_of_brackets_does_not_hang_on_the_recursion_limit() -> None:
    limit = sys.getrecursionlimit()
    sys.setrecursionlimit(10**5)
    try:
        with pytest.raises(wire.Unreadable):
            wire.unpacked(b"[" * 50_000)
    finally:
        sys.setrecursionlimit(limit)


@pytest.mark.parametrize("value", ["[{" * 10**4, 'a"[\\' * 10**4, ["[["] * 500, {"]": "}" * 999}])
def test_brackets_in_text_cross(value: Any) -> None:
    assert crossed(value) == value


@pytest.mark.parametrize(
    "tree",
    [
        [],
        [1],
        ["x"],
        ["q", 1],
        {},
        ["l", {}],
        ["s", ["l"]],
        ["d", 1],
        ["d", ["l"], 1],
        ["i", 1],
        ["i", "x"],
        ["i", "1" * 83_100],
        ["i"],
        ["b", "?"],
        ["u", "YQ=="],
        ["r", 0, 1, 0],
        ["r"],
        ["r", "a"],
        ["c", "x"],
        ["h", 0],
        ["h"],
        ["e"],
        ["e", ["ValueError"]],
        ["l", ["h", 1]],
    ],
)
def test_unreadable_trees(tree: Any) -> None:
    with pytest.raises(wire.Unreadable):
        wire.read(tree)


def test_the_bounds(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(wire, "ITEMS", 100)
    assert crossed(nested(100)) == nested(100)
    assert crossed(-(10**100_000) + 1) == -(10**100_000) + 1
    for value, why in (
        (nested(101), "nested over 100 deep"),
        (10**100_000, "over 100000 digits"),
        ({object()}, "type object"),
        (iter(range(101)), "over 100 items"),
    ):
        with pytest.raises(wire.Unfit, match=why):
            wire.written(value)
    with pytest.raises(wire.Unfit, match="8388610 bytes"):
        wire.packed(wire.written("x" * wire.SIZE))
    assert crossed("x" * (wire.SIZE - 2)) == "x" * (wire.SIZE - 2)
    deep: Any = 1
    for _ in range(101):
        deep = ["l", deep]
    with pytest.raises(wire.Unreadable):
        wire.read(deep)


def test_what_is_over_the_bounds_stays() -> None:
    kept = list[Any]()

    def keep(value: Any) -> int:
        kept.append(value)
        return len(kept) - 1

    loop: list[Any] = []
    loop.append(loop)
    for value in (loop, 10**100_000, nested(101), {object()}, {1: (), object(): 1}):
        tag, number = wire.written(value, keep)
        assert tag == "h" and kept[number] is value
    assert wire.written([object(), 1], keep)[0] == "l"


class Lying(int):
    __add__ = __int__ = __index__ = lambda self, *given: 9  # type: ignore
    __repr__ = __str__ = lambda self: "9"


class Dict(dict):  # pyright: ignore[reportMissingTypeArgument]
    def items(self) -> Any:
        return [(9, 9)]

    __iter__ = lambda self: iter([9])  # noqa: E731
    __len__ = lambda self: 9  # noqa: E731


class Text(str):
    __str__ = encode = lambda self, *given: b"9"  # type: ignore


@pytest.mark.parametrize(
    ("value", "plain"),
    [
        (enum.IntEnum("E", "A").A, 1),
        (enum.IntFlag("E", "A B").B, 2),
        (Lying(3), 3),
        (Text("3"), "3"),
        (Dict({1: 2}), {1: 2}),
        (collections.Counter("aab"), {"a": 2, "b": 1}),
        (collections.namedtuple("P", "x y")(1, 2), (1, 2)),
        (collections.defaultdict(list, a=[1]), {"a": [1]}),
        (type("F", (float,), {"__pos__": lambda s: 9.0})(-0.5), -0.5),
        (type("S", (set,), {"__iter__": lambda s: iter([9])})([1]), {1}),
        (type("B", (bytes,), {})(b"a"), b"a"),
        (type("L", (list,), {"__getitem__": lambda s, i: 9})([1]), [1]),
        (enum.StrEnum("S", "A").A, "a"),
    ],
)
def test_a_subclass_is_the_value_of_its_base(value: Any, plain: Any) -> None:
    found = crossed(value)
    assert type(found) is type(plain) and found == plain


def test_the_order_of_an_ordered_dict() -> None:
    value = collections.OrderedDict(a=1, b=2)
    value.move_to_end("a")
    assert list(crossed(value)) == ["b", "a"]


def test_iterators() -> None:
    assert list(crossed(iter([1, (2,)]))) == [1, (2,)]
    assert [list(each) for each in crossed([{1: 2}.keys(), {1: 2}.values(), {1: 2}.items()])] == [[1], [2], [(1, 2)]]
    found = crossed(1 // each for each in (1, 0))
    assert next(found) == 1
    with pytest.raises(ZeroDivisionError):
        next(found)


class Odd(KeyError):
    def __init__(self, one: int, two: int) -> None:
        super().__init__(one)

    def __str__(self) -> str:
        return "odd!"


@pytest.mark.parametrize(
    ("error", "kind", "text"),
    [
        (ValueError("a", 1), ValueError, "('a', 1)"),
        (KeyError("k"), KeyError, "'k'"),
        (Odd(1, 2), KeyError, "odd!"),
        (OSError(2, "no", "x"), FileNotFoundError, "[Errno 2] no: 'x'"),
        (SystemExit(3), RuntimeError, "3"),
        (AssertionError("a"), RuntimeError, "a"),
        (StopIteration(), RuntimeError, ""),
        (GeneratorExit(), RuntimeError, ""),
        (type("A", (AssertionError,), {})("a"), RuntimeError, "a"),
        (type("E", (Exception,), {})("a"), Exception, "a"),
        (ExceptionGroup("m", [ValueError()]), Exception, "m (1 sub-exception)"),
        (ValueError("\ud800"), ValueError, "\ud800"),
        (
            UnicodeDecodeError("utf-8", b"a", 0, 1, "bad"),
            UnicodeDecodeError,
            "'utf-8' codec can't decode byte 0x61 in position 0: bad",
        ),
    ],
)
def test_exceptions_cross_as_the_nearest_built_in_class(error: BaseException, kind: type, text: str) -> None:
    found = wire.read_error(wire.unpacked(wire.packed(wire.written_error(error))))
    assert isinstance(found, kind) and str(found) == text
    assert not isinstance(found, AssertionError | StopIteration)


@pytest.mark.parametrize(
    "tree", [1, [], ["ValueError", 1, ["t"]], ["ValueError", "a", ["l"]], ["ValueError", "a"], [[], "", ["t"]]]
)
def test_what_is_no_exception(tree: Any) -> None:
    with pytest.raises(wire.Unreadable):
        wire.read_error(tree)


@pytest.mark.parametrize("name", ["int", "print", "nothing", "BaseException", "SystemExit", "AssertionError"])
def test_no_name_makes_another_exception(name: str) -> None:
    assert type(wire.read_error([name, "a", ["t"]])) is RuntimeError


def test_frames() -> None:
    here, there = socket.socketpair()
    with here, there:
        here.sendall(wire.frame(b"A", b"abc") + wire.frame(b"B", b"") + (2**32 - 1).to_bytes(4, "big") + b"C")
        assert wire.receive(there) == (b"A", b"abc") and wire.receive(there) == (b"B", b"")
        with pytest.raises(wire.Unreadable):
            wire.receive(there)
        here.sendall(b"\0\0")
        here.close()
        with pytest.raises(wire.Ended):
            wire.receive(there)
