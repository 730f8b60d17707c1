"""Values as bytes of bounded size and depth: JSON, in which every value that JSON lacks is a list with a tag.

It runs on both sides of the border, also in an interpreter without oneloop: the standard library only. Whoever encodes
may be the program that is graded, so that only what reads guards anything; the rules of writing are for honest ones.
"""

from __future__ import annotations

import builtins
import json
import re
from base64 import b64decode, b64encode
from collections import OrderedDict
from collections.abc import Callable, Iterator
from itertools import accumulate
from typing import Any, NoReturn

DEPTH = 100
"""Containers inside containers."""
SIZE = 8 << 20
"""Bytes of a call, and of its answer."""
ITEMS = 1_000_000
"""Of an iterator."""
DIGITS = 100_000
"""Of an int."""
_LARGEST = 10**DIGITS - 1
_HEX = len(f"{_LARGEST:x}") + 1
_SHORT = 1 << 53
_VIEWS = (type({}.keys()), type({}.values()), type({}.items()))
_NEVER = (AssertionError, StopIteration, StopAsyncIteration)
"""Exceptions that would say something else on the other side than they did on theirs."""


class Unfit(Exception):
    """No value that crosses, or one that is over the bounds."""


class Unreadable(Exception):
    """Bytes that no honest side sends."""


Keep = Callable[[Any], int]
"""Takes what stays on this side, and gives the number that stands for it on the other one."""
Kept = Callable[[Any], Any]
"""What a number stands for. Raises: Unreadable for a number that was never given."""


def keeps_nothing(value: Any) -> NoReturn:
    raise Unfit(f"a value of type {type(value).__name__} cannot be handed over")


def holds_nothing(number: Any) -> NoReturn:
    raise Unreadable


# writing


def written(value: Any, keep: Keep = keeps_nothing) -> Any:
    """The tree of a value, for `packed`. What is no plain value is kept, and so is a container over the bounds.

    Raises: Unfit where nothing is kept.
    """
    try:
        return _tree(value, 1, keep)
    except Unfit:
        if keep is keeps_nothing:
            raise
        return ["h", keep(value)]


def _tree(value: Any, depth: int, keep: Keep) -> Any:
    """By the methods of the plain base, whatever a subclass makes of them.

    Args:
        depth: that of a container, if it is one.
    """
    kind = type(value)
    if value is None or kind is bool:
        return value
    for base, tree in _PLAIN:
        if issubclass(kind, base):
            return tree(value)
    for base, items in _CONTAINERS:
        if issubclass(kind, base):
            _fits(depth)
            return items(value, depth + 1, keep)
    if issubclass(kind, _VIEWS) or (hasattr(kind, "__next__") and hasattr(kind, "__iter__")):
        _fits(depth)
        return _iterator(value, depth + 1, keep)
    return ["h", keep(value)]


def _fits(depth: int) -> None:
    if depth > DEPTH:
        raise Unfit(f"it is nested over {DEPTH} deep")


def _int(value: int) -> Any:
    plain = int.__add__(value, 0)
    if -_SHORT < plain < _SHORT:
        return plain
    if not -_LARGEST <= plain <= _LARGEST:
        raise Unfit(f"it holds an int of over {DIGITS} digits")
    return ["i", f"{plain:x}"]


def _str(value: str) -> Any:
    plain = str.__str__(value)
    try:
        plain.encode()
    except UnicodeEncodeError:  # JSON would join two surrogates to one character
        return ["u", b64encode(plain.encode("utf-32-le", "surrogatepass")).decode()]
    return plain


def _bytes(value: bytes) -> Any:
    return ["b", b64encode(bytes.__getitem__(value, slice(None))).decode()]


def _complex(value: complex) -> Any:
    plain = complex.__pos__(value)
    return ["c", plain.real, plain.imag]


def _range(value: range) -> Any:
    return ["r", _int(value.start), _int(value.stop), _int(value.step)]


def _list(value: list[Any], depth: int, keep: Keep) -> Any:
    return ["l", *[_tree(item, depth, keep) for item in list.__getitem__(value, slice(None))]]


def _tuple(value: tuple[Any, ...], depth: int, keep: Keep) -> Any:
    return ["t", *[_tree(item, depth, keep) for item in tuple.__getitem__(value, slice(None))]]


def _set(value: set[Any], depth: int, keep: Keep) -> Any:
    return ["s", *[_key(item, depth) for item in list(set.__iter__(value))]]


def _frozenset(value: frozenset[Any], depth: int, keep: Keep) -> Any:
    return ["z", *[_key(item, depth) for item in list(frozenset.__iter__(value))]]


def _dict(value: dict[Any, Any], depth: int, keep: Keep) -> Any:
    items = OrderedDict.items(value) if isinstance(value, OrderedDict) else dict.items(value)
    flat: list[Any] = ["d"]
    for key, item in list(items):
        flat += (_key(key, depth), _tree(item, depth, keep))
    return flat


def _key(value: Any, depth: int) -> Any:
    """A handle and an iterator cannot be hashed on the other side."""
    tree = _tree(value, depth, keeps_nothing)
    if isinstance(tree, list) and tree[0] == "e":
        keeps_nothing(value)
    return tree


def _iterator(value: Any, depth: int, keep: Keep) -> Any:
    items: list[Any] = []
    failed: Any = None
    try:
        for item in value:
            if len(items) == ITEMS:
                raise Unfit(f"it is an iterator of over {ITEMS} items")
            items.append(_tree(item, depth, keep))
    except (Unfit, MemoryError):
        raise
    except BaseException as error:
        failed = written_error(error)
    return ["e", failed, *items]


_PLAIN: tuple[tuple[type, Callable[[Any], Any]], ...] = (
    (int, _int), (float, float.__pos__), (str, _str), (bytes, _bytes), (complex, _complex), (range, _range),
)  # fmt: skip
_CONTAINERS: tuple[tuple[type, Callable[[Any, int, Keep], Any]], ...] = (
    (list, _list), (tuple, _tuple), (dict, _dict), (set, _set), (frozenset, _frozenset),
)  # fmt: skip


def packed(message: Any) -> bytes:
    """Raises: Unfit for what is over the size."""
    body = json.dumps(message, ensure_ascii=False, check_circular=False, separators=(",", ":")).encode()
    if len(body) > SIZE:
        raise Unfit(f"it takes {len(body)} bytes, and {SIZE} is the most")
    return body


def written_error(error: BaseException) -> Any:
    """Its nearest built-in class, its text and, where they cross, its arguments."""
    name = next(kind.__name__ for kind in type(error).__mro__ if vars(builtins).get(kind.__name__) is kind)
    try:
        text = _str(str(error))
    except BaseException:
        text = ""
    try:
        given = written(BaseException.args.__get__(error))  # pyright: ignore[reportAttributeAccessIssue]
        if len(packed(given)) > SIZE // 4:
            given = ["t"]
    except BaseException:
        given = ["t"]
    return [name, text if len(str(text)) <= SIZE // 4 else "", given]


# reading


def unpacked(body: bytes | bytearray) -> Any:
    """Raises: Unreadable."""
    try:
        if body.count(b"[") + body.count(b"{") > 4 * DEPTH and _depth(bytes(body)) > 4 * DEPTH:
            raise Unreadable
        return json.loads(body.decode(), parse_int=_few_digits)
    except (ValueError, RecursionError, MemoryError):
        raise Unreadable from None


def _depth(body: bytes) -> int:
    """Of brackets. json's own limit is the interpreter's for recursion, which a trainer may have raised."""
    kinds = _STRING.sub(b"", body).translate(_BRACKETS, delete=_NO_BRACKETS)
    return max(accumulate((kind - 1 for kind in kinds), initial=0))


_STRING = re.compile(rb'"(?:[^"\\]++|\\.)*+(?:"|\\?\Z)', re.DOTALL)
_BRACKETS = bytes.maketrans(b"[{]}", b"\2\2\0\0")
_NO_BRACKETS = bytes(set(range(256)) - set(b"[{]}"))


def _few_digits(digits: str) -> int:
    if len(digits) > 20:
        raise Unreadable
    return int(digits)


Hashed = Callable[[str, list[Any]], Any]
"""Builds what needs hashes, a set, a frozenset or a dict, by its tag and its items, or its keys and values in turn."""


def hashed(tag: str, items: list[Any]) -> Any:
    if tag == "d":
        return dict(zip(items[::2], items[1::2], strict=True))
    return set(items) if tag == "s" else frozenset(items)


def read(tree: Any, kept: Kept = holds_nothing, build: Hashed = hashed) -> Any:
    """The value of a tree.

    Raises: Unreadable.
    """
    try:
        return _value(tree, 1, kept, build)
    except (ValueError, TypeError, LookupError, OverflowError, MemoryError, RecursionError):
        raise Unreadable from None


def _value(tree: Any, depth: int, kept: Kept, build: Hashed) -> Any:
    if tree is None or type(tree) in (bool, int, float, str):
        return tree
    if type(tree) is not list or not tree or depth > DEPTH + 1:
        raise Unreadable
    tag, *rest = tree
    if tag in _ATOMS:
        return _ATOMS[tag](*rest)
    if tag == "h":
        return kept(*rest)
    if depth > DEPTH:
        raise Unreadable
    failed = rest.pop(0) if tag == "e" else None
    items = [_value(each, depth + 1, kept, build) for each in rest]
    if tag == "e":
        return _yielding(items, None if failed is None else read_error(failed))
    return _BUILT[tag](items) if tag in _BUILT else build({"s": "s", "z": "z", "d": "d"}[tag], items)


def _yielding(items: list[Any], failed: Exception | None) -> Iterator[Any]:
    yield from items
    if failed is not None:
        raise failed


def _read_int(digits: Any) -> int:
    if type(digits) is not str or len(digits) > _HEX:
        raise Unreadable
    return int(digits, 16)


def _read_range(*ends: Any) -> range:
    return range(*(end if type(end) is int else _read_int(*end[1:]) for end in ends))


_ATOMS: dict[str, Callable[..., Any]] = {
    "i": _read_int,
    "u": lambda text: b64decode(text, validate=True).decode("utf-32-le", "surrogatepass"),
    "b": lambda text: b64decode(text, validate=True),
    "c": complex,
    "r": _read_range,
}
_BUILT: dict[str, Callable[[list[Any]], Any]] = {"l": list, "t": tuple}


def read_error(tree: Any) -> Exception:
    """The exception as it is raised on this side.

    Raises: Unreadable.
    """
    try:
        name, text, given = tree
        kind, text, arguments = vars(builtins).get(name), read(text), read(given)
    except (ValueError, TypeError):
        raise Unreadable from None
    if type(text) is not str or type(arguments) is not tuple:
        raise Unreadable
    if not isinstance(kind, type) or not issubclass(kind, Exception) or issubclass(kind, _NEVER):
        kind = RuntimeError
    return next(error for base in kind.__mro__ if (error := _made(base, text, arguments)))


_OF_A_PLACE = (UnicodeDecodeError, UnicodeEncodeError, UnicodeTranslateError)


def _can_be_said(kind: type[Any], arguments: tuple[Any, ...]) -> bool:
    """Of an error of Unicode, whether the place that it names is in its text: Python 3.11 would read beyond it."""
    if kind not in _OF_A_PLACE:
        return True
    try:
        what, start, end, _ = arguments[-4:]
        return 0 <= start < end <= len(what)
    except (TypeError, ValueError):
        return False


def _made(kind: type[Any], text: str, arguments: tuple[Any, ...]) -> Exception | None:
    """One that says the text."""
    if not _can_be_said(kind, arguments):
        return None
    for given in (arguments, (text,)):
        try:
            error = kind(*given)
            if str(error) == text:
                return error
        except Exception:
            continue
    try:
        saying: Any = type(kind.__name__, (kind,), {"__str__": lambda self: text})
        return saying(*arguments)
    except Exception:
        return None


# frames

HEAD = 5
"""Bytes before a frame's body: four of its length, and one that says what it is."""
_FRAME = SIZE + (64 << 10)
"""A value, and what stands around it."""


def frame(kind: bytes, body: bytes | bytearray) -> bytes:
    return len(body).to_bytes(4, "big") + kind + body


class Ended(Exception):
    """The other end is closed."""


def receive(channel: Any) -> tuple[bytes, bytearray]:
    """Kind and body of the next frame.

    Raises: Ended; Unreadable for a frame that is too long.
    """
    head = _exactly(channel, HEAD)
    size = int.from_bytes(head[:4], "big")
    if size > _FRAME:
        raise Unreadable
    return bytes(head[4:]), _exactly(channel, size)


def _exactly(channel: Any, count: int) -> bytearray:
    data = bytearray(count)
    view, done = memoryview(data), 0
    while done < count:
        got = channel.recv_into(view[done:])
        if not got:
            raise Ended
        done += got
    return data
