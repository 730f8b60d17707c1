"""What a run does with a disk that refuses: it is told of it, and decides."""

from __future__ import annotations

from collections.abc import Callable

from oneloop.errors import RankError
from oneloop.together import Crew


def refused_by_disk(writers: Crew, work: Callable[[], None]) -> Exception | None:
    """Do it; returns what the disk said where it refused, which all writers learn together.

    Raises: what has nothing to do with the disk.
    """
    try:
        work()
    except RankError:
        raise
    except Exception as error:
        # files are written by libraries too, which have errors of their own for what the system says
        if not any(writers.collect([isinstance(error, OSError) or "os error" in str(error)])):
            raise
        return error
    return None
