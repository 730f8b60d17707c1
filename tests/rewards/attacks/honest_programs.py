"""Right programs in the language alone: each must be paid in every tier."""

from attack import Honest, asserts, calls, streams

_BIG = 3**5000

PROGRAMS: list[Honest] = [
    calls(
        "sum",
        """
def f(a, b):
    return a + b
""",
        "f",
        ([1, 2], 3),
        ([-5, 5], 0),
    ),
    calls("a lambda", "f = lambda a, b: a * b", "f", ([6, 7], 42)),
    calls(
        "named arguments",
        """
def f(a, /, b=2, *, c=3):
    return a + b + c
""",
        "f",
        ([1], 6),
        ([1, 5], 9),
    ),
    Honest(
        "keywords",
        """
def f(*, a, b):
    return a - b
""",
        [{"kwargs": {"a": 5, "b": 3}, "expected": 2}],
        "f",
    ),
    calls(
        "many arguments",
        """
def f(*numbers):
    return len(numbers)
""",
        "f",
        (list(range(200)), 200),
        ([], 0),
    ),
    calls(
        "factorial",
        """
def f(n):
    return 1 if n < 2 else n * f(n - 1)
""",
        "f",
        ([5], 120),
        ([20], 2432902008176640000),
    ),
    calls(
        "recursion of ten thousand",
        """
import sys
sys.setrecursionlimit(20000)
def f(n):
    return n if n == 0 else 1 + f(n - 1)
""",
        "f",
        ([10000], 10000),
    ),
    calls(
        "recursion that is caught",
        """
def f(n):
    try:
        return f(n + 1)
    except RecursionError:
        return 'deep'
""",
        "f",
        ([0], "deep"),
    ),
    calls(
        "big integers",
        """
def f(n):
    return 3 ** n
""",
        "f",
        ([5000], _BIG),
        ([0], 1),
    ),
    calls(
        "big integers as text",
        """
import sys
sys.set_int_max_str_digits(0)
def f(n):
    return len(str(7 ** n))
""",
        "f",
        ([20000], 16902),
    ),
    calls(
        "memory that is allowed",
        """
def f(n):
    return len(bytearray(n << 20)) >> 20
""",
        "f",
        ([200], 200),
    ),
    calls(
        "a second of work",
        """
def f(n):
    total = 0
    for i in range(n):
        total += i & 3
    return total
""",
        "f",
        ([2000000], 3000000),
    ),
    calls(
        "a generator made a list",
        """
def f(n):
    def odd():
        for i in range(n):
            if i % 2:
                yield i
    return list(odd())
""",
        "f",
        ([7], [1, 3, 5]),
    ),
    calls(
        "a tuple for a list",
        """
def f(n):
    return n, n + 1
""",
        "f",
        ([1], [1, 2]),
    ),
    calls(
        "lists in lists",
        """
def f(n):
    return [[i * j for j in range(n)] for i in range(n)]
""",
        "f",
        ([3], [[0, 0, 0], [0, 1, 2], [0, 2, 4]]),
    ),
    calls(
        "a dict",
        """
def f(words):
    out = {}
    for w in words:
        out[w] = out.get(w, 0) + 1
    return out
""",
        "f",
        ([["a", "b", "a"]], {"a": 2, "b": 1}),
    ),
    calls(
        "a dict of ints",
        """
def f(n):
    return {i: i * i for i in range(n)}
""",
        "f",
        ([3], {"0": 0, "1": 1, "2": 4}),
    ),
    calls(
        "nothing",
        """
def f(items):
    return next(iter(items), None)
""",
        "f",
        ([[]], None),
        ([[7]], 7),
    ),
    calls(
        "true and false",
        """
def f(n):
    return n % 2 == 0
""",
        "f",
        ([4], True),
        ([3], False),
    ),
    calls(
        "a float that is close",
        """
def f(x):
    return x * 0.1 * 3
""",
        "f",
        ([1], 0.3),
        ([1e9], 3e8),
    ),
    calls(
        "an int where a float is wanted",
        """
def f(x):
    return x // 2
""",
        "f",
        ([8], 4.0),
    ),
    calls(
        "a float where an int is wanted",
        """
def f(x):
    return x / 2
""",
        "f",
        ([8], 4),
    ),
    calls(
        "infinity",
        """
def f(n):
    return [float('inf'), float('-inf'), float('nan')]
""",
        "f",
        ([0], [float("inf"), float("-inf"), float("nan")]),
    ),
    calls(
        "an int subclass",
        """
from enum import IntEnum
class Colour(IntEnum):
    RED = 1
    BLUE = 2
def f(n):
    return Colour(n)
""",
        "f",
        ([2], 2),
    ),
    calls(
        "unicode",
        """
def f(s):
    return s[::-1].upper()
""",
        "f",
        (["äßπ"], "ΠSSÄ"),
        (["日本"], "本日"),
        (["👍x"], "X👍"),
    ),
    calls(
        "unicode names",
        """
def größe(λ):
    return len(λ)
""",
        "größe",
        (["abc"], 3),
    ),
    calls(
        "surrogates and controls",
        """
def f(n):
    return chr(n) + '\\0\\x1b'
""",
        "f",
        ([65], "A\0\x1b"),
        ([0x1F600], "😀\0\x1b"),
    ),
    calls(
        "a long text",
        """
def f(n):
    return 'ab' * n
""",
        "f",
        ([100000], "ab" * 100000),
    ),
    calls(
        "a long list",
        """
def f(n):
    return list(range(n))
""",
        "f",
        ([50000], list(range(50000))),
    ),
    calls(
        "arguments that are changed",
        """
def f(items):
    items.sort()
    items.append(0)
    return items
""",
        "f",
        ([[3, 1]], [1, 3, 0]),
    ),
    calls(
        "state between calls",
        """
seen = []
def f(n):
    seen.append(n)
    return len(seen)
""",
        "f",
        ([5], 1),
        ([5], 2),
        ([5], 3),
    ),
    calls(
        "a memo",
        """
memo = {}
def f(n):
    if n not in memo:
        memo[n] = n if n < 2 else f(n - 1) + f(n - 2)
    return memo[n]
""",
        "f",
        ([80], 23416728348467685),
    ),
    calls(
        "a closure",
        """
def make():
    n = 0
    def f(k):
        nonlocal n
        n += k
        return n
    return f
f = make()
""",
        "f",
        ([2], 2),
        ([3], 5),
    ),
    calls(
        "a class that is called",
        """
class F:
    def __call__(self, x):
        return x + 1
f = F()
""",
        "f",
        ([1], 2),
    ),
    calls(
        "a static method",
        """
class A:
    @staticmethod
    def g(x):
        return x * 2
f = A.g
""",
        "f",
        ([4], 8),
    ),
    calls(
        "a decorator",
        """
def twice(g):
    def inner(x):
        return g(g(x))
    return inner
@twice
def f(x):
    return x + 3
""",
        "f",
        ([1], 7),
    ),
    calls(
        "errors inside",
        """
def f(text):
    try:
        return int(text)
    except ValueError as error:
        return type(error).__name__
    finally:
        pass
""",
        "f",
        (["12"], 12),
        (["x"], "ValueError"),
    ),
    calls(
        "a match",
        """
def f(item):
    match item:
        case [x, *rest]:
            return [x, len(rest)]
        case {'k': v}:
            return v
        case str():
            return 'text'
        case _:
            return None
""",
        "f",
        ([[1, 2, 3]], [1, 2]),
        ([{"k": 5}], 5),
        (["a"], "text"),
        ([1.5], None),
    ),
    calls(
        "a walrus",
        """
def f(n):
    return [y for x in range(n) if (y := x * x) % 2]
""",
        "f",
        ([6], [1, 9, 25]),
    ),
    calls(
        "prints that are thrown away",
        """
def f(n):
    print('debug', n)
    print('OK')
    return n
""",
        "f",
        ([3], 3),
    ),
    calls(
        "text on the error stream",
        """
import sys
def f(n):
    print('warning', file=sys.stderr)
    return n
""",
        "f",
        ([3], 3),
    ),
    calls(
        "a name of its own",
        """
def f():
    return __name__ != '__main__'
""",
        "f",
        ([], True),
    ),
    calls(
        "a main that is left out",
        """
def f():
    return 1
if __name__ == '__main__':
    raise SystemExit(3)
""",
        "f",
        ([], 1),
    ),
    calls(
        "an end that was caught",
        """
def f():
    try:
        raise SystemExit(1)
    except SystemExit:
        return 'on'
""",
        "f",
        ([], "on"),
    ),
    calls(
        "globals",
        """
total = 0
def f(n):
    global total
    total += n
    return globals()['total']
""",
        "f",
        ([4], 4),
    ),
    calls(
        "code made at run time",
        """
exec('def g(x): return x * 3')
def f(x):
    return eval('g(x) + 1')
""",
        "f",
        ([2], 7),
    ),
    calls(
        "annotations",
        """
from __future__ import annotations
from typing import List, Optional
def f(x: List[int], y: Optional[Missing] = None) -> Nowhere:
    return sum(x)
""",
        "f",
        ([[1, 2]], 3),
    ),
    calls(
        "star arguments and dicts",
        """
def f(items):
    first, *middle, last = items
    return {**{'first': first}, **dict(last=last), 'middle': middle}
""",
        "f",
        ([[1, 2, 3, 4]], {"first": 1, "last": 4, "middle": [2, 3]}),
    ),
    calls(
        "bits and bytes",
        """
def f(n):
    return [n.bit_length(), int.from_bytes(n.to_bytes(4, 'big'), 'little'), bin(n)]
""",
        "f",
        ([258], [9, 33619968, "0b100000010"]),
    ),
    calls(
        "formats",
        """
def f(x):
    return f'{x:>8.3f}|{x!r:<6}|{x:e}'
""",
        "f",
        ([2.5], "   2.500|2.5   |2.500000e+00"),
    ),
    calls(
        "sieve",
        """
def f(n):
    sieve = bytearray([1]) * (n + 1)
    sieve[:2] = b'\\0\\0'
    for i in range(2, int(n ** 0.5) + 1):
        if sieve[i]:
            sieve[i * i :: i] = bytes(len(sieve[i * i :: i]))
    return sum(sieve)
""",
        "f",
        ([100000], 9592),
    ),
    calls(
        "queens",
        """
def f(n, row=0, cols=0, left=0, right=0):
    if row == n:
        return 1
    count, free = 0, ~(cols | left | right) & ((1 << n) - 1)
    while free:
        bit = free & -free
        free ^= bit
        count += f(n, row + 1, cols | bit, (left | bit) << 1, (right | bit) >> 1)
    return count
""",
        "f",
        ([8], 92),
    ),
    calls(
        "edit distance",
        """
def f(a, b):
    row = list(range(len(b) + 1))
    for i, x in enumerate(a, 1):
        last, row[0] = row[0], i
        for j, y in enumerate(b, 1):
            last, row[j] = row[j], min(row[j] + 1, row[j - 1] + 1, last + (x != y))
    return row[-1]
""",
        "f",
        (["kitten", "sitting"], 3),
    ),
    calls(
        "shortest ways",
        """
def f(graph, start):
    best, todo = {start: 0}, [start]
    while todo:
        u = todo.pop(0)
        for v in graph.get(u, []):
            if v not in best:
                best[v] = best[u] + 1
                todo.append(v)
    return best
""",
        "f",
        ([{"a": ["b"], "b": ["c"]}, "a"], {"a": 0, "b": 1, "c": 2}),
    ),
    streams("echo", "print(input())", ("hello\n", "hello\n"), ("ä日本\n", "ä日本\n")),
    streams(
        "two numbers",
        """
a, b = map(int, input().split())
print(a + b)
""",
        ("1 2\n", "3\n"),
        ("-1 1", "0"),
    ),
    streams(
        "until the end",
        """
import sys
print(sum(int(line) for line in sys.stdin))
""",
        ("1\n2\n3\n", "6\n"),
        ("", "0"),
    ),
    streams(
        "all at once",
        """
import sys
data = sys.stdin.read().split()
print(len(data), *sorted(data))
""",
        ("b a\nc\n", "3 a b c"),
    ),
    streams(
        "lines of bytes",
        """
import sys
for line in sys.stdin.buffer:
    sys.stdout.buffer.write(line[::-1].strip() + b'\\n')
""",
        ("abc\nde\n", "cba\ned\n"),
    ),
    streams(
        "a descriptor",
        """
import os
os.write(1, os.read(0, 100).upper())
""",
        ("abc\n", "ABC\n"),
    ),
    streams(
        "input until an error",
        """
n = 0
try:
    while True:
        n += int(input())
except EOFError:
    print(n)
""",
        ("4\n5", "9"),
    ),
    streams(
        "spaces at line ends",
        """
print('a  ')
print('b\\t')
print()
print()
""",
        ("", "a\nb\n"),
    ),
    streams(
        "decimals",
        """
x = float(input())
print(x / 3, 'km')
""",
        ("1\n", "0.3333333 km"),
        ("1e10", "3333333333.333 km"),
    ),
    streams(
        "a prompt",
        """
n = input('n: ')
print(n)
""",
        ("5\n", "n: 5\n"),
    ),
    streams(
        "a good end",
        """
import sys
print('done')
sys.exit(0)
""",
        ("", "done"),
    ),
    streams(
        "a good end at once",
        """
import os, sys
print('done')
sys.stdout.flush()
os._exit(0)
""",
        ("", "done"),
    ),
    streams(
        "an end without a number",
        """
print('done')
raise SystemExit
""",
        ("", "done"),
    ),
    streams(
        "a main",
        """
def main():
    print(int(input()) ** 2)

if __name__ == '__main__':
    main()
""",
        ("12\n", "144"),
    ),
    streams(
        "many lines",
        """
import sys
n = int(sys.stdin.readline())
print(sum(int(sys.stdin.readline()) for _ in range(n)))
""",
        ("50000\n" + "".join(f"{i}\n" for i in range(50000)), "1249975000"),
    ),
    streams(
        "much output",
        """
for i in range(30000):
    print(i)
""",
        ("", "".join(f"{i}\n" for i in range(30000))),
    ),
    streams(
        "quick input",
        """
import sys
input = sys.stdin.readline
n = int(input())
print(*sorted(map(int, input().split()), reverse=True))
""",
        ("3\n1 3 2\n", "3 2 1\n"),
    ),
    streams(
        "a new folder each time",
        """
import os
print(os.listdir('.'))
open('mine', 'w').close()
""",
        ("1", "[]"),
        ("2", "[]"),
    ),
    streams(
        "one argument",
        """
import sys
print(len(sys.argv))
""",
        ("", "1"),
    ),
    streams(
        "a file opened as input",
        """
with open(0) as file:
    print(file.read().strip() * 2)
""",
        ("ab\n", "abab"),
    ),
    calls(
        "a fence",
        """
Here it is:

```python
def f(x):
    return x + 1
```
It adds one.
""",
        "f",
        ([1], 2),
    ),
    calls(
        "the last fence",
        """
```python
def f(x):
    return 0
```
Better:
```Python
def f(x):
    return x + 1
```
""",
        "f",
        ([1], 2),
    ),
    calls(
        "a fence without a name",
        """
So:
```
def f(x):
    return x + 1
```
""",
        "f",
        ([1], 2),
    ),
    calls(
        "a fence that stays open",
        """
```py
def f(x):
    return x + 1
""",
        "f",
        ([1], 2),
    ),
    calls(
        "python before text",
        """
```python3
def f(x):
    return x + 1
```
This prints:
```text
2
```
""",
        "f",
        ([1], 2),
    ),
    streams(
        "a fence that reads",
        """
```python
print(int(input()) + 1)
```
""",
        ("4\n", "5"),
    ),
    asserts(
        "asserts",
        """
def f(x):
    return x * 2
""",
        "assert f(2) == 4",
        "assert f('a') == 'aa'\nassert f([1]) == [1, 1]",
    ),
    asserts(
        "a class",
        """
class Stack:
    def __init__(self):
        self.items = []
    def push(self, x):
        self.items.append(x)
    def pop(self):
        return self.items.pop()
    @property
    def size(self):
        return len(self.items)
""",
        """
s = Stack()
s.push(1)
s.push(2)
assert s.size == 2
assert s.pop() == 2 and s.pop() == 1
""",
        """
s = Stack()
try:
    s.pop()
    ok = False
except IndexError:
    ok = True
assert ok
""",
    ),
    asserts(
        "errors that are wanted",
        """
def f(x):
    if x < 0:
        raise ValueError(f'negative: {x}')
    return x ** 0.5
""",
        "assert f(4) == 2",
        """
try:
    f(-1)
except ValueError as error:
    assert 'negative: -1' in str(error)
else:
    assert False
""",
    ),
    asserts(
        "an error of its own",
        """
class Broke(LookupError):
    pass
def f(x):
    raise Broke('no ' + x)
""",
        """
try:
    f('luck')
    said = ''
except LookupError as error:
    said = str(error)
assert said == 'no luck'
""",
    ),
    asserts(
        "values that JSON lacks",
        """
def f(x):
    return {(1, 2), x}
def g():
    return b'ab', 1 + 2j, range(3), frozenset([1]), None
""",
        "assert f((3, 4)) == {(1, 2), (3, 4)}",
        "assert g() == (b'ab', 1 + 2j, range(3), frozenset([1]), None)",
    ),
    asserts(
        "a generator",
        """
def f(n):
    for i in range(n):
        yield i * i
""",
        "assert list(f(4)) == [0, 1, 4, 9]",
        """
numbers = f(3)
assert next(numbers) == 0 and next(numbers) == 1
assert sum(f(4)) == 14
""",
    ),
    asserts(
        "arguments are copies",
        """
def f(items):
    items.append(1)
    return len(items)
""",
        "x = [5]\nassert f(x) == 2 and x == [5] and f(x) == 2",
    ),
    asserts(
        "objects that come back",
        """
class Node:
    def __init__(self, value, rest=None):
        self.value, self.rest = value, rest
def total(node):
    return 0 if node is None else node.value + total(node.rest)
""",
        "assert total(Node(1, Node(2))) == 3",
        """
n = Node(5)
assert n.value == 5 and n.rest is None and total(n) == 5
""",
    ),
    asserts(
        "functions that come back",
        """
def adder(n):
    return lambda x: x + n
""",
        "assert adder(3)(4) == 7",
        "g = adder(1)\nassert [g(x) for x in (1, 2)] == [2, 3]",
    ),
    Honest(
        "a check",
        """
def twice(n):
    return 2 * n
""",
        """
METADATA = {}
def check(candidate):
    assert candidate(2) == 4
    assert candidate(0) == 0, 'nought'
    for n in range(5):
        assert candidate(n) == n + n
""",
        "twice",
    ),
    Honest(
        "a check that is called",
        """
def twice(n):
    return 2 * n
""",
        """
def check(candidate):
    assert candidate(2) == 4

check(twice)
""",
        "twice",
    ),
    Honest(
        "tests with a helper",
        """
def f(n):
    return [n] * n
""",
        """
import math
from collections import Counter
limit = 3
def right(n):
    return [n] * n
assert f(limit) == right(limit)
assert math.prod(f(3)) == 27
assert Counter(f(2)) == {2: 2}
""",
        "f",
    ),
    asserts(
        "tests that sort",
        """
def f(words):
    groups = {}
    for w in words:
        groups.setdefault(''.join(sorted(w)), []).append(w)
    return list(groups.values())
""",
        "assert sorted(map(sorted, f(['ab', 'c', 'ba']))) == [['ab', 'ba'], ['c']]",
    ),
    asserts(
        "isclose in tests",
        """
def f(x):
    return x ** 0.5
""",
        """
import math
assert math.isclose(f(2), 1.41421356, rel_tol=1e-6)
""",
        "assert abs(f(3) ** 2 - 3) < 1e-9",
    ),
    Honest(
        "tests written as JSON",
        """
def f(a):
    return a + 1
""",
        '[{"args": [1], "expected": 2}, {"args": [-1], "expected": 0}]',
        "f",
    ),
    Honest("streams written as JSON", "print(int(input()) + 1)", '[{"input": "1\\n", "output": "2\\n"}]'),
]
