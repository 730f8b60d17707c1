"""Right programs that use the standard library, threads, files and asyncio: each must be paid in every tier."""

from attack import Honest, asserts, calls, streams

LIBRARY: list[Honest] = [
    calls(
        "itertools",
        """
from itertools import accumulate, chain, combinations, groupby, permutations, product
def f(n):
    counted = [len(list(permutations(range(n)))), len(list(combinations(range(n), 2)))]
    keys = [key for key, _ in groupby('aabb')]
    return [*counted, list(accumulate(range(n))), len(list(product('ab', repeat=n))), keys, list(chain([1], [2]))]
""",
        "f",
        ([4], [24, 6, [0, 1, 3, 6], 16, ["a", "b"], [1, 2]]),
    ),
    calls(
        "collections",
        """
from collections import Counter, OrderedDict, defaultdict, deque, namedtuple
P = namedtuple('P', 'x y')
def f(s):
    d = defaultdict(list)
    for i, c in enumerate(s):
        d[c].append(i)
    q = deque(s, maxlen=2)
    return [Counter(s), d, list(q), P(1, 2), OrderedDict(a=1)]
""",
        "f",
        (["aba"], [{"a": 2, "b": 1}, {"a": [0, 2], "b": [1]}, ["b", "a"], [1, 2], {"a": 1}]),
    ),
    calls(
        "functools",
        """
from functools import lru_cache, partial, reduce, cmp_to_key, cached_property
@lru_cache(maxsize=None)
def fib(n):
    return n if n < 2 else fib(n - 1) + fib(n - 2)
def f(n):
    return [
        fib(n),
        reduce(lambda a, b: a * b, range(1, 6)),
        partial(pow, 2)(5),
        sorted([3, 1, 2], key=cmp_to_key(lambda a, b: b - a)),
    ]
""",
        "f",
        ([90], [2880067194370816120, 120, 32, [3, 2, 1]]),
    ),
    calls(
        "heapq and bisect",
        """
import bisect, heapq
def f(items):
    heap = []
    for x in items:
        heapq.heappush(heap, x)
    return [heapq.heappop(heap), heapq.nlargest(2, items), bisect.bisect_left(sorted(items), 4)]
""",
        "f",
        ([[5, 1, 4, 9]], [1, [9, 5], 1]),
    ),
    calls(
        "math",
        """
import cmath, math
def f(n):
    return [
        math.gcd(n, 18),
        math.comb(n, 2),
        math.isqrt(n),
        round(math.pi, 5),
        abs(cmath.exp(1j * math.pi) + 1) < 1e-9,
        math.factorial(n),
    ]
""",
        "f",
        ([12], [6, 66, 3, 3.14159, True, 479001600]),
    ),
    calls(
        "fractions and decimals",
        """
from decimal import Decimal, getcontext
from fractions import Fraction
def f(n):
    getcontext().prec = 30
    return [str(Fraction(1, 3) + Fraction(1, n)), str(Decimal(1) / Decimal(n)), float(Fraction(1, 4))]
""",
        "f",
        ([7], ["10/21", "0.142857142857142857142857142857", 0.25]),
    ),
    calls(
        "statistics",
        """
import statistics
def f(x):
    return [statistics.mean(x), statistics.median(x), statistics.pstdev(x)]
""",
        "f",
        ([[1, 2, 3, 4]], [2.5, 2.5, 1.118033988749895]),
    ),
    calls(
        "random with a seed",
        """
import random
def f(seed):
    one, other = random.Random(seed), random.Random(seed)
    random.shuffle([1, 2, 3])
    return one.random() == other.random() and len(random.sample(range(9), 3)) == 3
""",
        "f",
        ([1], True),
    ),
    calls(
        "secrets and uuid",
        """
import secrets, uuid
def f():
    return [len(secrets.token_hex(8)), len(str(uuid.uuid4())), secrets.randbelow(1)]
""",
        "f",
        ([], [16, 36, 0]),
    ),
    calls(
        "regular expressions",
        """
import re
def f(s):
    return [re.findall(r'(\\w+)@(\\w+)', s), re.sub(r'\\d+', '#', s), bool(re.fullmatch(r'[a-z@ 0-9]+', s))]
""",
        "f",
        (["ab@cd 12 x@y"], [[["ab", "cd"], ["x", "y"]], "ab@cd # x@y", True]),
    ),
    calls(
        "strings",
        """
import string, textwrap, difflib, unicodedata
def f(s):
    return [
        string.capwords(s),
        textwrap.wrap(s, 5),
        difflib.get_close_matches("appel", ["apple", "pear"]),
        unicodedata.name("é"),
        s.translate(str.maketrans("ab", "xy")),
    ]
""",
        "f",
        (["ab ba ab"], ["Ab Ba Ab", ["ab ba", "ab"], ["apple"], "LATIN SMALL LETTER E WITH ACUTE", "xy yx xy"]),
    ),
    calls(
        "json",
        """
import json
def f(s):
    return [json.loads(s), json.dumps({'b': [1, None, True], 'a': 'é'}, sort_keys=True, ensure_ascii=False)]
""",
        "f",
        (['{"x": [1.5, null]}'], [{"x": [1.5, None]}, '{"a": "é", "b": [1, null, true]}']),
    ),
    calls(
        "csv and io",
        """
import csv, io
def f(text):
    out = io.StringIO()
    csv.writer(out).writerow(['a,b', 1])
    return [list(csv.reader(io.StringIO(text))), out.getvalue(), io.BytesIO(b'xy').read(1).decode()]
""",
        "f",
        (["a,b\n1,2\n"], [[["a", "b"], ["1", "2"]], '"a,b",1\r\n', "x"]),
    ),
    calls(
        "dates",
        """
from datetime import date, datetime, timedelta, timezone
import calendar
def f(y):
    return [
        date(y, 3, 1).isoformat(),
        (date(y, 3, 1) - timedelta(days=1)).day,
        calendar.isleap(y),
        datetime(y, 1, 1, tzinfo=timezone.utc).timestamp(),
        date(y, 1, 1).strftime("%A"),
    ]
""",
        "f",
        ([2024], ["2024-03-01", 29, True, 1704067200.0, "Monday"]),
    ),
    calls(
        "time",
        """
import time
def f():
    start = time.perf_counter()
    time.sleep(0.02)
    return (
        time.perf_counter() - start >= 0.02
        and time.time() > 1e9
        and time.monotonic() > 0
        and time.process_time() >= 0
    )
""",
        "f",
        ([], True),
    ),
    calls(
        "hashes",
        """
import binascii, hashlib, hmac, zlib
def f(s):
    b = s.encode()
    return [
        hashlib.sha256(b).hexdigest()[:8],
        hashlib.md5(b).hexdigest()[:8],
        zlib.crc32(b),
        hmac.new(b"k", b, "sha1").hexdigest()[:4],
        binascii.hexlify(b).decode(),
    ]
""",
        "f",
        (["abc"], ["ba7816bf", "90015098", 891568578, "f9be", "616263"]),
    ),
    calls(
        "base64 and struct",
        """
import base64, struct
def f(n):
    return [
        base64.b64encode(struct.pack("<I", n)).decode(),
        struct.unpack(">H", b"\\1\\2")[0],
        base64.b32encode(b"a").decode(),
    ]
""",
        "f",
        ([1], ["AQAAAA==", 258, "ME======"]),
    ),
    calls(
        "packers",
        """
import bz2, gzip, lzma, zlib
def f(s):
    b = s.encode()
    return all(
        unpack(pack(b)) == b
        for pack, unpack in (
            (zlib.compress, zlib.decompress),
            (gzip.compress, gzip.decompress),
            (bz2.compress, bz2.decompress),
            (lzma.compress, lzma.decompress),
        )
    )
""",
        "f",
        (["abc" * 100], True),
    ),
    calls(
        "pickle and copy",
        """
import copy, pickle
class A:
    def __init__(self):
        self.x = [1]
def f():
    a = A()
    b = copy.deepcopy(a)
    b.x.append(2)
    return [a.x, b.x, pickle.loads(pickle.dumps({'k': (1, 2)}))]
""",
        "f",
        ([], [[1], [1, 2], {"k": [1, 2]}]),
    ),
    calls(
        "dataclasses",
        """
from dataclasses import asdict, astuple, dataclass, field, replace
@dataclass(order=True, frozen=True)
class P:
    x: int
    y: int = 0
    tags: tuple = field(default=(), compare=False)
def f(x):
    return [asdict(P(x)), astuple(replace(P(x), y=5)), P(1) < P(2), hash(P(1)) == hash(P(1)), repr(P(x))]
""",
        "f",
        ([3], [{"x": 3, "y": 0, "tags": []}, [3, 5, []], True, True, "P(x=3, y=0, tags=())"]),
    ),
    calls(
        "enums",
        """
from enum import Enum, Flag, auto
class C(Enum):
    A = auto()
    B = 'b'
class P(Flag):
    R = 1
    W = 2
def f(name):
    return [C[name].value, C('b').name, (P.R | P.W).value, [c.name for c in C]]
""",
        "f",
        (["A"], [1, "B", 3, ["A", "B"]]),
    ),
    calls(
        "abstract classes",
        """
from abc import ABC, abstractmethod
class Shape(ABC):
    @abstractmethod
    def area(self): ...
class Square(Shape):
    def __init__(self, a):
        self.a = a
    def area(self):
        return self.a ** 2
def f(a):
    try:
        Shape()
    except TypeError:
        return Square(a).area()
""",
        "f",
        ([3], 9),
    ),
    calls(
        "typing",
        """
from typing import Any, Callable, Generic, NamedTuple, Protocol, TypedDict, TypeVar
T = TypeVar('T')
class Box(Generic[T]):
    def __init__(self, x: T) -> None:
        self.x = x
class R(NamedTuple):
    a: int
    b: str = 'z'
class D(TypedDict):
    k: int
def f(x: int) -> list:
    return [Box[int](x).x, R(x), D(k=x)]
""",
        "f",
        ([4], [4, [4, "z"], {"k": 4}]),
    ),
    calls(
        "context managers",
        """
from contextlib import ExitStack, contextmanager, suppress, redirect_stdout
import io
log = []
@contextmanager
def section(name):
    log.append('+' + name)
    try:
        yield name
    finally:
        log.append('-' + name)
def f():
    with suppress(ZeroDivisionError), section('a'):
        1 / 0
    with ExitStack() as stack:
        stack.enter_context(section('b'))
    out = io.StringIO()
    with redirect_stdout(out):
        print('x')
    return [log, out.getvalue()]
""",
        "f",
        ([], [["+a", "-a", "+b", "-b"], "x\n"]),
    ),
    calls(
        "operators",
        """
import operator
class V:
    def __init__(self, *c):
        self.c = c
    def __add__(self, o):
        return V(*map(operator.add, self.c, o.c))
    def __matmul__(self, o):
        return sum(map(operator.mul, self.c, o.c))
    def __getitem__(self, i):
        return self.c[i]
    def __eq__(self, o):
        return self.c == o.c
    def __len__(self):
        return len(self.c)
def f():
    v = V(1, 2) + V(3, 4)
    return [list(v), v @ V(1, 1), len(v), v == V(4, 6), operator.itemgetter(1)([5, 6])]
""",
        "f",
        ([], [[4, 6], 10, 2, True, 6]),
    ),
    calls(
        "metaclasses and descriptors",
        """
class Registry(type):
    names = []
    def __new__(cls, name, bases, space):
        cls.names.append(name)
        return super().__new__(cls, name, bases, space)
class Positive:
    def __set_name__(self, owner, name):
        self.name = '_' + name
    def __get__(self, one, owner):
        return getattr(one, self.name)
    def __set__(self, one, value):
        if value < 0:
            raise ValueError
        setattr(one, self.name, value)
class A(metaclass=Registry):
    x = Positive()
class B(A):
    __slots__ = ('y',)
def f():
    b = B()
    b.x = 3
    try:
        b.x = -1
    except ValueError:
        return [b.x, Registry.names]
""",
        "f",
        ([], [3, ["A", "B"]]),
    ),
    calls(
        "threads",
        """
import threading
def f(n):
    total, lock = [0], threading.Lock()
    def work():
        for _ in range(1000):
            with lock:
                total[0] += 1
    threads = [threading.Thread(target=work) for _ in range(n)]
    for t in threads:
        t.start()
    for t in threads:
        t.join()
    return total[0]
""",
        "f",
        ([8], 8000),
    ),
    calls(
        "forty threads",
        """
import threading
def f(n):
    gate, done = threading.Barrier(n), []
    def work():
        gate.wait()
        done.append(1)
    threads = [threading.Thread(target=work) for _ in range(n)]
    [t.start() for t in threads]
    [t.join() for t in threads]
    return len(done)
""",
        "f",
        ([40], 40),
    ),
    calls(
        "pools of threads",
        """
from concurrent.futures import ThreadPoolExecutor, as_completed
def f(n):
    with ThreadPoolExecutor(8) as pool:
        squares = list(pool.map(lambda x: x * x, range(n)))
        done = sorted(future.result() for future in as_completed([pool.submit(abs, -x) for x in range(n)]))
    return [sum(squares), done]
""",
        "f",
        ([5], [30, [0, 1, 2, 3, 4]]),
    ),
    calls(
        "queues and events",
        """
import queue, threading
def f(n):
    q, out, stop = queue.Queue(), [], threading.Event()
    def work():
        while (x := q.get()) is not None:
            out.append(x * 2)
        stop.set()
    threading.Thread(target=work, daemon=True).start()
    for i in range(n):
        q.put(i)
    q.put(None)
    return [stop.wait(5), out, threading.active_count() >= 1]
""",
        "f",
        ([3], [True, [0, 2, 4], True]),
    ),
    calls(
        "a timer and a local",
        """
import threading
def f():
    rang, local = threading.Event(), threading.local()
    local.x = 1
    threading.Timer(0.01, rang.set).start()
    return [rang.wait(5), local.x, threading.Semaphore(1).acquire()]
""",
        "f",
        ([], [True, 1, True]),
    ),
    calls(
        "asyncio",
        """
import asyncio
async def work(x):
    await asyncio.sleep(0.001)
    return x * x
async def main(n):
    return await asyncio.gather(*(work(i) for i in range(n)))
def f(n):
    return asyncio.run(main(n))
""",
        "f",
        ([5], [0, 1, 4, 9, 16]),
    ),
    calls(
        "asyncio with queues",
        """
import asyncio
async def main(n):
    q, out = asyncio.Queue(), []
    async def take():
        while True:
            out.append(await q.get())
            q.task_done()
    task = asyncio.create_task(take())
    for i in range(n):
        await q.put(i)
    await q.join()
    task.cancel()
    try:
        await asyncio.wait_for(asyncio.sleep(10), 0.01)
    except asyncio.TimeoutError:
        out.append('late')
    return out
def f(n):
    return asyncio.run(main(n))
""",
        "f",
        ([3], [0, 1, 2, "late"]),
    ),
    calls(
        "asyncio with threads",
        """
import asyncio, time
def slow(x):
    time.sleep(0.01)
    return x + 1
async def main():
    async with asyncio.TaskGroup() as group:
        tasks = [group.create_task(asyncio.to_thread(slow, i)) for i in range(3)]
    return [t.result() for t in tasks]
def f():
    return asyncio.run(main())
""",
        "f",
        ([], [1, 2, 3]),
    ),
    calls(
        "async generators",
        """
import asyncio
async def count(n):
    for i in range(n):
        yield i
        await asyncio.sleep(0)
async def main(n):
    return [x async for x in count(n) if x % 2]
def f(n):
    loop = asyncio.new_event_loop()
    try:
        return loop.run_until_complete(main(n))
    finally:
        loop.close()
""",
        "f",
        ([6], [1, 3, 5]),
    ),
    calls(
        "files",
        """
import os
def f(text):
    with open('a.txt', 'w') as file:
        file.write(text)
    os.makedirs('d/e')
    os.rename('a.txt', 'd/e/b.txt')
    with open('d/e/b.txt') as file:
        back = file.read()
    size = os.path.getsize('d/e/b.txt')
    os.remove('d/e/b.txt')
    os.removedirs('d/e')
    return [back, size, os.listdir('.')]
""",
        "f",
        (["héllo"], ["héllo", 6, []]),
    ),
    calls(
        "tempfile",
        """
import tempfile, os
def f():
    with tempfile.TemporaryDirectory() as folder:
        path = os.path.join(folder, 'x')
        with open(path, 'wb') as file:
            file.write(b'abc')
        size = os.stat(path).st_size
    with tempfile.NamedTemporaryFile('w+') as file:
        file.write('yes')
        file.seek(0)
        text = file.read()
    with tempfile.TemporaryFile() as file:
        file.write(b'1')
    return [size, text, os.path.exists(folder), tempfile.gettempdir() == os.getcwd()]
""",
        "f",
        ([], [3, "yes", False, True]),
    ),
    calls(
        "pathlib and shutil",
        """
from pathlib import Path
import shutil, glob, fnmatch
def f():
    Path("p/q").mkdir(parents=True)
    Path("p/q/x.txt").write_text("1")
    shutil.copytree("p", "r")
    found = sorted(str(p) for p in Path(".").rglob("*.txt"))
    shutil.rmtree("p")
    return [
        found,
        glob.glob("r/**/*.txt", recursive=True),
        Path.home() == Path.cwd(),
        fnmatch.fnmatch("a.py", "*.py"),
    ]
""",
        "f",
        ([], [["p/q/x.txt", "r/q/x.txt"], ["r/q/x.txt"], True, True]),
    ),
    calls(
        "archives",
        """
import io, tarfile, zipfile
def f(text):
    data = io.BytesIO()
    with zipfile.ZipFile(data, 'w', zipfile.ZIP_DEFLATED) as z:
        z.writestr('a', text)
    with zipfile.ZipFile(data) as z:
        back = z.read('a').decode()
    with tarfile.open('t.tar', 'w') as t:
        info = tarfile.TarInfo('b')
        info.size = 2
        t.addfile(info, io.BytesIO(b'hi'))
    with tarfile.open('t.tar') as t:
        return [back, t.getnames(), t.extractfile('b').read().decode()]
""",
        "f",
        (["x" * 50], ["x" * 50, ["b"], "hi"]),
    ),
    calls(
        "sqlite",
        """
import sqlite3
def f(rows):
    db = sqlite3.connect(':memory:')
    db.execute('create table t (a int, b text)')
    db.executemany('insert into t values (?, ?)', rows)
    return db.execute('select b, sum(a) from t group by b order by b').fetchall()
""",
        "f",
        ([[[1, "x"], [2, "y"], [3, "x"]]], [["x", 4], ["y", 2]]),
    ),
    calls(
        "sqlite in a file",
        """
import sqlite3
def f(n):
    db = sqlite3.connect('my.db')
    db.execute('create table t (a int)')
    with db:
        db.executemany('insert into t values (?)', [(i,) for i in range(n)])
    db.close()
    return sqlite3.connect('my.db').execute('select sum(a) from t').fetchone()[0]
""",
        "f",
        ([10], 45),
    ),
    calls(
        "shelve and configparser",
        """
import configparser, shelve
def f():
    with shelve.open('s') as s:
        s['k'] = [1, 2]
    with shelve.open('s') as s:
        back = s['k']
    c = configparser.ConfigParser()
    c.read_string('[a]\\nx = 1\\n')
    return [back, c.getint('a', 'x')]
""",
        "f",
        ([], [[1, 2], 1]),
    ),
    calls(
        "xml and html",
        """
import html
import xml.etree.ElementTree as ET
from html.parser import HTMLParser
def f(text):
    root = ET.fromstring(text)
    tags = []
    class P(HTMLParser):
        def handle_starttag(self, tag, attrs):
            tags.append(tag)
    P().feed('<p><b>x</b></p>')
    return [root.attrib, [c.text for c in root], html.escape('<a>'), tags]
""",
        "f",
        (["<r k='v'><c>1</c><c>2</c></r>"], [{"k": "v"}, ["1", "2"], "&lt;a&gt;", ["p", "b"]]),
    ),
    calls(
        "urls and addresses",
        """
import ipaddress
from urllib.parse import parse_qs, quote, urlparse
def f(u):
    p = urlparse(u)
    return [
        p.hostname,
        p.port,
        parse_qs(p.query),
        quote("a b"),
        str(ipaddress.ip_network("10.0.0.0/30").broadcast_address),
    ]
""",
        "f",
        (["http://h:81/x?a=1&a=2"], ["h", 81, {"a": ["1", "2"]}, "a%20b", "10.0.0.3"]),
    ),
    calls(
        "email and mime",
        """
from email.message import EmailMessage
import mimetypes
def f():
    m = EmailMessage()
    m['Subject'] = 'Hé'
    m.set_content('x')
    return [m['Subject'], m.get_content().strip(), mimetypes.guess_type('a.png')[0]]
""",
        "f",
        ([], ["Hé", "x", "image/png"]),
    ),
    calls(
        "ast and inspect",
        """
import ast, dis, inspect, tokenize, io
def g(a, b=2):
    return a
def f(text):
    return [
        [type(n).__name__ for n in ast.parse(text).body],
        ast.literal_eval("[1, (2, 3)]"),
        str(inspect.signature(g)),
        len(list(tokenize.generate_tokens(io.StringIO(text).readline))),
        ast.unparse(ast.parse("x=1")),
    ]
""",
        "f",
        (["a = 1\nb"], [["Assign", "Expr"], [1, [2, 3]], "(a, b=2)", 7, "x = 1"]),
    ),
    calls(
        "logging and warnings",
        """
import io, logging, warnings
def f():
    out = io.StringIO()
    log = logging.getLogger('x')
    log.addHandler(logging.StreamHandler(out))
    log.warning('careful %d', 3)
    with warnings.catch_warnings(record=True) as seen:
        warnings.simplefilter('always')
        warnings.warn('old', DeprecationWarning)
    return [out.getvalue(), str(seen[0].message)]
""",
        "f",
        ([], ["careful 3\n", "old"]),
    ),
    calls(
        "argparse and shlex",
        """
import argparse, shlex
def f(line):
    p = argparse.ArgumentParser()
    p.add_argument('--n', type=int, default=1)
    p.add_argument('rest', nargs='*')
    return vars(p.parse_args(shlex.split(line)))
""",
        "f",
        (["--n 3 'a b' c"], {"n": 3, "rest": ["a b", "c"]}),
    ),
    calls(
        "unittest",
        """
import io, unittest
class T(unittest.TestCase):
    def test_one(self):
        self.assertEqual(1 + 1, 2)
    def test_two(self):
        with self.assertRaises(ZeroDivisionError):
            1 / 0
def f():
    suite = unittest.defaultTestLoader.loadTestsFromTestCase(T)
    result = unittest.TextTestRunner(stream=io.StringIO()).run(suite)
    return [result.testsRun, len(result.failures)]
""",
        "f",
        ([], [2, 0]),
    ),
    calls(
        "weak references",
        """
import gc, weakref
class A: pass
def f():
    a = A()
    r = weakref.ref(a)
    d = weakref.WeakValueDictionary(k=a)
    before = r() is a and len(d) == 1
    del a
    gc.collect()
    return [before, r() is None, len(d)]
""",
        "f",
        ([], [True, True, 0]),
    ),
    calls(
        "arrays and memory views",
        """
import array, mmap
def f(n):
    a = array.array('i', range(n))
    m = memoryview(bytearray(b'abc'))
    m[0] = 122
    with mmap.mmap(-1, 4096) as memory:
        memory[:3] = b'xyz'
        text = bytes(memory[:3]).decode()
    return [sum(a), a.itemsize, bytes(m).decode(), text]
""",
        "f",
        ([5], [10, 4, "zbc", "xyz"]),
    ),
    calls(
        "ctypes",
        """
import ctypes
def f(n):
    return [ctypes.sizeof(ctypes.c_int), ctypes.c_uint8(n).value, ctypes.CDLL(None).abs(-5)]
""",
        "f",
        ([300], [4, 44, 5]),
    ),
    calls(
        "signals",
        """
import signal, time
def f():
    rang = []
    signal.signal(signal.SIGALRM, lambda *_: rang.append(1))
    signal.setitimer(signal.ITIMER_REAL, 0.02)
    end = time.monotonic() + 2
    while not rang and time.monotonic() < end:
        time.sleep(0.01)
    return rang
""",
        "f",
        ([], [1]),
    ),
    calls(
        "pairs of sockets and selectors",
        """
import os, select, selectors, socket
def f():
    a, b = socket.socketpair()
    a.sendall(b'ping')
    ready = bool(select.select([b], [], [], 1)[0])
    got = b.recv(10).decode()
    r, w = os.pipe()
    os.write(w, b'x')
    with selectors.DefaultSelector() as s:
        s.register(r, selectors.EVENT_READ)
        events = len(s.select(1))
    return [ready, got, events]
""",
        "f",
        ([], [True, "ping", 1]),
    ),
    calls(
        "what is asked about itself",
        """
import os, platform, sys, locale, getpass
def f():
    return [
        sys.version_info[0],
        os.name,
        platform.system(),
        os.getcwd() == os.environ["HOME"],
        sys.getdefaultencoding(),
        os.sep,
        sys.maxsize > 2**32,
        os.cpu_count() >= 1,
        len(sys.argv),
        sorted(os.environ),
    ]
""",
        "f",
        ([], [3, "posix", "Linux", True, "utf-8", "/", True, True, 1, ["HOME", "LANG", "PATH", "TMPDIR"]]),
    ),
    calls(
        "the order of sets",
        """
def f():
    return hash('abc') == hash('abc') and ''.join(sorted({'b', 'a'})) == 'ab'
""",
        "f",
        ([], True),
    ),
    calls(
        "profilers and tracers",
        """
import sys, timeit, traceback
def f():
    calls = []
    sys.settrace(lambda frame, event, arg: calls.append(event))
    (lambda: 1)()
    sys.settrace(None)
    try:
        1 / 0
    except ZeroDivisionError:
        text = traceback.format_exc().splitlines()[-1]
    return [calls[0], text, timeit.timeit('1', number=10) >= 0]
""",
        "f",
        ([], ["call", "ZeroDivisionError: division by zero", True]),
    ),
    calls(
        "groups of errors",
        """
def f():
    try:
        raise ExceptionGroup('many', [ValueError(1), TypeError(2)])
    except* ValueError as group:
        found = len(group.exceptions)
    except* TypeError:
        pass
    return found
""",
        "f",
        ([], 1),
    ),
    calls(
        "graphs that are sorted",
        """
from graphlib import TopologicalSorter
from bisect import insort
def f(graph):
    x = [1, 3]
    insort(x, 2)
    return [list(TopologicalSorter(graph).static_order()), x]
""",
        "f",
        ([{"b": ["a"], "c": ["b"]}], [["a", "b", "c"], [1, 2, 3]]),
    ),
    calls(
        "a module written and imported",
        """
import importlib, os, sys
def f():
    with open('helper_of_mine.py', 'w') as file:
        file.write('VALUE = 41\\n')
    sys.path.insert(0, os.getcwd())
    importlib.invalidate_caches()
    return importlib.import_module('helper_of_mine').VALUE + 1
""",
        "f",
        ([], 42),
    ),
    calls(
        "zones of time",
        """
import zoneinfo, datetime
def f():
    return [
        datetime.datetime(2024, 1, 1, tzinfo=datetime.timezone(datetime.timedelta(hours=2)))
        .utcoffset()
        .seconds,
        zoneinfo.ZoneInfo.__name__,
    ]
""",
        "f",
        ([], [7200, "ZoneInfo"]),
    ),
    calls(
        "codecs",
        """
import codecs, quopri
def f(s):
    return [
        codecs.encode(s, "rot13"),
        s.encode("utf-16-le").hex(),
        "é".encode("latin-1")[0],
        quopri.encodestring("é".encode()).decode(),
    ]
""",
        "f",
        (["ab"], ["no", "61006200", 233, "=C3=A9"]),
    ),
    calls(
        "deep data",
        """
def f(n):
    value = 0
    for _ in range(n):
        value = [value]
    return value
""",
        "f",
        ([3], [[[0]]]),
    ),
    streams(
        "threads that print",
        """
import threading
lock = threading.Lock()
n = int(input())
out = []
def work(i):
    with lock:
        out.append(i)
ts = [threading.Thread(target=work, args=(i,)) for i in range(n)]
[t.start() for t in ts]
[t.join() for t in ts]
print(*sorted(out))
""",
        ("5\n", "0 1 2 3 4"),
    ),
    streams(
        "a thread with a large stack",
        """
import sys, threading
sys.setrecursionlimit(200000)
threading.stack_size(128 << 20)
def deep(n):
    return 0 if n == 0 else 1 + deep(n - 1)
def main():
    print(deep(int(input())))
t = threading.Thread(target=main)
t.start()
t.join()
""",
        ("30000\n", "30000"),
    ),
    streams(
        "asyncio that prints",
        """
import asyncio
async def main():
    n = int(input())
    print(sum(await asyncio.gather(*[asyncio.sleep(0, i) for i in range(n)])))
asyncio.run(main())
""",
        ("10\n", "45"),
    ),
    streams(
        "words counted",
        """
import sys
from collections import Counter
for word, n in sorted(Counter(sys.stdin.read().lower().split()).items(), key=lambda p: (-p[1], p[0])):
    print(word, n)
""",
        ("a b A\nc b a\n", "a 3\nb 2\nc 1\n"),
    ),
    streams(
        "large numbers printed",
        """
import sys
sys.set_int_max_str_digits(100000)
print(2 ** int(input()))
""",
        ("10000\n", str(2**10000)),
    ),
    streams(
        "a heap of roads",
        """
import heapq, sys
def main():
    data = iter(sys.stdin.read().split())
    n, m = int(next(data)), int(next(data))
    graph = [[] for _ in range(n)]
    for _ in range(m):
        u, v, w = (int(next(data)) for _ in range(3))
        graph[u].append((v, w))
        graph[v].append((u, w))
    best, heap = [10 ** 9] * n, [(0, 0)]
    best[0] = 0
    while heap:
        d, u = heapq.heappop(heap)
        if d > best[u]:
            continue
        for v, w in graph[u]:
            if d + w < best[v]:
                best[v] = d + w
                heapq.heappush(heap, (d + w, v))
    print(*best)
main()
""",
        ("3 3\n0 1 4\n1 2 1\n0 2 7\n", "0 4 5"),
    ),
    asserts(
        "a counter as a dict",
        """
from collections import Counter, namedtuple
P = namedtuple('P', 'x y')
def f(s):
    return Counter(s)
def g():
    return P(1, 2)
""",
        "assert f('aab') == {'a': 2, 'b': 1} and f('aab')['a'] == 2",
        "assert g() == (1, 2)",
    ),
    asserts(
        "a data class of the program",
        """
from dataclasses import dataclass
@dataclass
class Point:
    x: int
    y: int
    def moved(self, dx):
        return Point(self.x + dx, self.y)
""",
        "p = Point(1, 2).moved(3)\nassert (p.x, p.y) == (4, 2)",
    ),
    asserts(
        "views of a dict",
        """
def f():
    return {'a': 1, 'b': 2}
def g():
    return f().keys()
def h():
    return zip('ab', [1, 2])
""",
        "assert list(g()) == ['a', 'b']",
        "assert dict(h()) == f() and sorted(f().items()) == [('a', 1), ('b', 2)]",
    ),
]
