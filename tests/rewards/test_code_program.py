"""Which part of a completion is the program."""

import pytest

from oneloop.rewards.code.program import program


@pytest.mark.parametrize(("completion", "wanted"), [
    ("print(1)", "print(1)"),
    ("", ""),
    ("Say:\n```python\na\n```\nso", "a"),
    ("```python\na\n```\n```python\nb\nc\n```", "b\nc"),
    ("```python\na\n```\n```\nb\n```", "a"),  # a label goes before the last place
    ("```\na\n```\n```\nb\n```", "b"),
    ("```text\na\n```", "```text\na\n```"),
    ("```text\na\n```\n```\nb\n```", "b"),
    ("```PY\na\n```", "a"),
    ("```Python3\na\n```", "a"),
    ("``` python\na\n```", "a"),
    ("```python title=\"x\"\na\n```", "a"),
    ("```python2\na\n```", "```python2\na\n```"),
    ("```pythonic\na\n```", "```pythonic\na\n```"),
    ("```python\na", "a"),  # the text's end is the fence's
    ("```python\na\n```python\nb\n```", "a\n```python\nb"),
    ("```python\na\n    ```\nb\n```", "a\n    ```\nb"),
    ("```python\na\n````\nb\n```", "a\n````\nb"),
    ("```python\n```", ""),
    ("```python\r\na\r\n```\r\nb", "a\r"),
    ("see ```python\na\n```\nb", "b"),  # no line that opens one; the next line does, without a label
    ("```python\nx = '\u2028```'\n```", "x = '\u2028```'"),
    ("```python a```\nb", "```python a```\nb"),
])  # fmt: skip
def test_the_program_of_a_completion(completion: str, wanted: str) -> None:
    assert program(completion) == wanted
