"""Few points of many, with every extreme kept."""

from __future__ import annotations

import numpy
from numpy.typing import NDArray


def kept(values: NDArray[numpy.floating], points: int) -> NDArray[numpy.intp]:
    """Places of at most `points` of the values, in order: the first, the last, and of each of equally many neighbours
    the least and the greatest. A spike of one step in a million is drawn.

    Args:
        values: finite.
        points: at least 4.
    """
    n = len(values)
    if n <= points:
        return numpy.arange(n)
    # n = buckets·width + rest, and the last bucket takes the rest
    buckets = (points - 2) // 2
    width = -(-n // buckets)
    whole = n // width
    body = values[: whole * width].reshape(whole, width)
    starts = numpy.arange(whole) * width
    found = [starts + body.argmin(1), starts + body.argmax(1), numpy.array([0, n - 1])]
    if rest := n - whole * width:
        end = values[n - rest :]
        found.append(n - rest + numpy.array([end.argmin(), end.argmax()]))
    return numpy.unique(numpy.concatenate(found))
