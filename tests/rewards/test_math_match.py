r"""`math_match`: what is equal, what is not, and that no answer takes the run with it."""

import os
import re
from collections.abc import Iterator, Sequence
from dataclasses import replace
from threading import Thread

import pytest
from test_rewards_score import trajectories

from oneloop.errors import ConfigError
from oneloop.recipes.graders import Graders
from oneloop.rewards import Limits, NamedReward, Pool, RewardScorer
from oneloop.rewards.final_answer import DEEPEST, LONGEST, as_latex, final_answer
from oneloop.rewards.shipped import shipped

EQUAL = [
    ("1/2", r"\frac{1}{2}"), (r"\frac{1}{2}", "0.5"), ("0.5", "1/2"), (r"\dfrac{3}{4}", r"\boxed{\tfrac34}"),
    ("1000", "1,000"), ("1,234,567", "1234567"), ("7", "7.0"), ("7", "007"), (r"\frac{1}{3}", "0.333333"),
    ("x+1", "1+x"), ("(x+1)^2", "x^2+2x+1"), ("x**2", "x^2"), ("2x", r"2 \cdot x"), ("x(x-1)", "x^2-x"),
    (r"\sqrt{8}", r"2\sqrt{2}"), ("sqrt(8)", r"2\sqrt2"), ("√2", r"\sqrt{2}"), 
    (r"\frac{1}{\sqrt{2}}", r"\frac{\sqrt{2}}{2}"),
    (r"\{1,2\}", r"\{2, 1\}"), ("1,2,3", "3, 2, 1"), ("[0,1)", r"\left[0,1\right)"), (r"(-\infty, 3]", r"(-\infty,3]"),
    (r"x \le 3", r"(-\infty,3]"), (r"[0,1]\cup[2,3]", r"[2,3]\cup[0,1]"), ("(1,2)", r"\left(1, 2\right)"),
    (r"50\%", "0.5"), ("50%", "50"), ("0.5", r"50\%"), ("5", r"5\text{ cm}"), (r"5\text{ cm}", "5"),
    ("90^\\circ", "90°"),
    ("5", r"\$5"), ("5", "$5$"), ("5", "x = 5"), ("x=5", "5"), ("x<3", "3>x"), ("y = 2x + 1", "2x + 1 = y"),
    (r"\pi/2", r"\frac{\pi}{2}"), ("pi", "π"), (r"\sin^2 x + \cos^2 x", "1"), ("2^{10}", "1024"), ("1+i", "i+1"),
    (r"\begin{pmatrix}1&2\\3&4\end{pmatrix}", r"\begin{bmatrix}1&2\\3&4\end{bmatrix}"), (r"2\frac{1}{2}", "5/2"),
    ("−3", "-3"), ("A", "(A)"), ("A", r"\text{A}"), ("Paris", r"\text{paris}"), (42, "42"), (0.25, "1/4"),
    ("so it is #### 72", "72"), (r"as shown, \boxed{9}", "3^2"), (r"\log 100", r"\log(100)"),
]  # fmt: skip
UNEQUAL = [
    ("1/2", "1/3"), ("0.5", "0.51"), ("1000", "1,001"), ("x+1", "x+2"), ("x", "y"), (r"\sqrt{8}", r"\sqrt{2}"),
    (r"\{1,2\}", r"\{1,3\}"), (r"\{1,2\}", r"\{1,2,3\}"), ("[0,1)", "[0,1]"), ("(1,2)", "(2,1)"), (r"50\%", "51"),
    (r"50\%", "0.6"), ("5", "-5"), ("5", "no idea"), ("5", ""), ("5", "   \n"), ("5", r"\boxed{}"), ("x<3", "x>3"),
    (r"\begin{pmatrix}1&2\\3&4\end{pmatrix}", r"\begin{pmatrix}1&2\\4&3\end{pmatrix}"), (r"\pi", "3.14"),
    ("Paris", "pairs"), ("A", "B"), ("5", "import os"), ("5", r"\frac{5"), ("5", "((((5"), ("5", "5)"), ("5", "]["),
    ("5", "__import__('os').system('touch owned')"), ("5", "().__class__.__bases__"), ("5", "eval(5)"),
    ("5", "lambda: 5"), ("5", r"\operatorname{eval}(5)"), ("5", r"\sum_{n=1}^{5} 1"), ("5", "5; print(1)"),
]  # fmt: skip
FOUND = [
    (r"\boxed{1} then \boxed{\frac{1}{2}}", r"\frac{1}{2}"),
    (r"\boxed{\{1, 2\}}", r"\{1, 2\}"),
    (r"\fbox no, \boxed {3} or $4$", "3"),
    ("first $1$, so $2$.", "2"),
    (r"thus \(x = 3\) and \[y\]", "y"),
    ("the display $$7$$", "7"),
    ("The answer is 4.\nThe final answer is: **5**.", "5"),
    ("Answer:\n6", "6"),
    ("work\n#### 1,200", "1,200"),
    ("3 + 4\n= 7\n\n", "= 7"),
    ("", ""),
    (r"\boxed{3", "3"),
]
HOSTILE = [
    "9**9**9", "9^{9^{9}}", r"\boxed{9^{9^{9^{9}}}}", r"\boxed{10^{10^{10}}!}", "7" * 1_000_000, "{" * 1_000_000,
    r"\boxed{" * 10_000 + "5" + "}" * 10_000, "\\frac{" * 10_000, "$" * 999_999,
    r"\(" * 300_000, "(" * 10_000 + ")" * 10_000,
    "__import__('os').system('touch owned')", r"\boxed{__import__('os').system('touch owned')}", "answer is" * 100_000,
    "\x00\ud800", "+" * 500, "1" + "^1" * 200, r"\sqrt{" * 60 + "2" + "}" * 60, "(x+y+z+w)^{500}-5",
    r"\int_0^1 \frac{1}{x}",
    r"\prod_{n=1}^{10^9} n", "!" * 400, "1" * 400 + "!", "5" + "\n" * 100_000,
]  # fmt: skip


@pytest.fixture(scope="module")
def reward() -> Iterator[Pool]:
    made = shipped("math_match?timeout=4", Limits(timeout=300))
    assert isinstance(made, Pool)
    yield made
    made.close()


def graded(reward: Pool, texts: Sequence[str], answers: Sequence[object]) -> list:
    """The samples' rewards."""
    return [item.reward for item in scored(reward, texts, answers)]


def scored(reward: Pool, texts: Sequence[str], answers: Sequence[object], **options) -> list:
    items = [
        replace(item, prompt=replace(item.prompt, columns={"answer": answer}))
        for item, answer in zip(trajectories(*texts), answers, strict=True)
    ]
    return RewardScorer((NamedReward("math_match", reward),), **options)(items)


def test_what_is_equal(reward: Pool) -> None:
    golds, texts = zip(*EQUAL, strict=True)
    got = graded(reward, texts, golds)
    assert [pair for pair, each in zip(EQUAL, got, strict=True) if each.value != 1.0] == []


def test_what_is_not(reward: Pool) -> None:
    golds, texts = zip(*UNEQUAL, strict=True)
    got = graded(reward, texts, golds)
    assert [pair for pair, each in zip(UNEQUAL, got, strict=True) if each.value != 0.0] == []


@pytest.mark.parametrize(("text", "answer"), FOUND)
def test_where_the_answer_is(text: str, answer: str) -> None:
    assert final_answer(text) == answer


def test_what_is_no_answer_by_its_form() -> None:
    assert as_latex("1" * LONGEST) and as_latex("1" * (LONGEST + 1)) is None
    assert (
        as_latex("(" * DEEPEST + "1" + ")" * DEEPEST)
        and as_latex("(" * (DEEPEST + 1) + "1" + ")" * (DEEPEST + 1)) is None
    )
    assert [as_latex(text) for text in ("f'", '"1"', "1`", "a@b", "#1", "é", "\x00", "")] == [None] * 8


@pytest.mark.parametrize("answer", [None, "", "?", "???", "1" * 600, "f'(x)@"])
def test_a_row_without_a_readable_answer_is_not_graded(reward: Pool, answer: object) -> None:
    (got,) = graded(reward, ["5"], [answer])
    assert got.value is None and not got.failures


def test_hostile_answers_are_bounded(reward: Pool, tmp_path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Each is wrong or unscored, and the answers beside it get what they deserve."""
    monkeypatch.chdir(tmp_path)
    texts = [text for hostile in HOSTILE for text in (hostile, "5")]
    got = graded(reward, texts, ["5"] * len(texts))
    assert [each.value for each in got[1::2]] == [1.0] * len(HOSTILE)
    assert not (tmp_path / "owned").exists()
    unscored = {text[:40] for text, each in zip(texts, got, strict=True) if each.value is None}
    assert all(each.value is not None or "over 4 s" in each.failures["math_match"] for each in got)
    assert {"9^{9^{9}}", r"\boxed{9^{9^{9^{9}}}}"} <= unscored
    nested = HOSTILE.index(r"\boxed{" * 10_000 + "5" + "}" * 10_000)
    assert [n for n, each in enumerate(got[::2]) if each.value == 1.0] in ([], [nested]), "its innermost box holds a 5"


def test_a_hang_stops_no_run_and_is_no_zero(reward: Pool) -> None:
    items = scored(reward, ["9^{9^{9}}", "5"], ["5", "5"], on_error="stop")
    assert [item.reward.value for item in items] == [None, 1.0]
    assert items[0].reward.failures == {"math_match": "took over 4 s"}


def test_the_whole_batch_has_a_limit_too() -> None:
    made = shipped("math_match?timeout=1", Limits(timeout=1.5, workers=2))
    assert isinstance(made, Pool)
    try:
        got = graded(made, ["9^{9^{9}}"] * 8, ["5"] * 8)
        assert [each.value for each in got] == [None] * 8
        assert {each.failures["math_match"] for each in got} == {
            "took over 1 s", "was not reached within --reward-timeout 1.5",
        }  # fmt: skip
    finally:
        made.close()


def test_memory_is_bounded(tmp_path) -> None:
    (tmp_path / "big.py").write_text(
        "def big(completions):\n    return [float(len(bytearray(int(t) << 20)) > 0) for t in completions]\n"
    )
    made = Pool(f"{tmp_path / 'big.py'}:big", Limits(each=60, memory=512))
    try:
        small, large = graded(made, ["1", "1000"], [None, None])
        assert small.value == 1.0 and large.value is None and "MemoryError" in large.failures["math_match"]
    finally:
        made.close()


def test_it_works_from_a_thread_and_leaves_no_process() -> None:
    graders = Graders(Limits(workers=2))
    (train,), (held_out,) = graders.named(["math_match"], "rows.jsonl"), graders.named(["math_match"], "other.jsonl")
    assert train.function is held_out.function, "one pool serves both"
    got: list = []
    thread = Thread(target=lambda: got.extend(graded(train.function, ["0.5", "1/3", "2"], ["1/2", "1/3", "1"])))
    thread.start()
    thread.join()
    assert [each.value for each in got] == [1.0, 1.0, 0.0]
    processes = [worker._process.pid for worker in train.function._workers if worker]
    train.grader.close()
    assert len(processes) == 2
    for process in processes:
        with pytest.raises(ProcessLookupError):
            os.kill(process, 0)


WATCH = """
import builtins, sympy, sympy.parsing.sympy_parser as parser
from oneloop.rewards.mathematical import math_match
seen = []
def watched(name, function):
    def call(*arguments, **named):
        # sympy writes code of its own for products of monomials: names and numbers of its choice
        if isinstance(arguments[0], str) and not arguments[0].startswith("def monomial_"):
            seen.append(f"{name}({arguments[0]!r})")
        return function(*arguments, **named)
    return call
parser.parse_expr = watched("parse_expr", parser.parse_expr)
builtins.eval, builtins.exec = watched("eval", eval), watched("exec", exec)
def careful(completions, answer, log_extra):
    values = math_match(completions, answer)
    log_extra("seen", ["; ".join(seen)] * len(values))
    return values
def careless(completions, log_extra):
    return [float(sympy.sympify(text)) for text in completions]
def number(completions):
    return [float(sympy.Number(text)) for text in completions]
"""


def test_text_of_a_model_is_never_evaluated(tmp_path) -> None:
    """sympify and Number read text through parse_expr, and that one and lambdify use eval and exec."""
    (tmp_path / "watch.py").write_text(WATCH)
    golds, texts = zip(*EQUAL, *UNEQUAL, strict=True)
    careful, careless, number = (
        Pool(f"{tmp_path / 'watch.py'}:{name}", Limits(each=20)) for name in ("careful", "careless", "number")
    )
    try:
        got = graded(careful, texts, golds)
        assert [each.failures for each in got if each.value is None] == []
        assert {each.extras["seen"] for each in got} == {""}
        (refused,) = graded(careless, ["1+1"], [None])
        assert "text came to sympy's parse_expr" in refused.failures["math_match"]
        assert [each.value for each in graded(number, ["12", "-0.5", "1+1"], [None] * 3)] == [12.0, -0.5, None]
    finally:
        for made in (careful, careless, number):
            made.close()


def test_without_the_package_the_fix_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("oneloop.rewards.shipped.find_spec", lambda name: None)
    with pytest.raises(ConfigError, match=re.escape('pip install "oneloop[math]"')):
        shipped("math_match")
