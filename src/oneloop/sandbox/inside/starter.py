"""The starter: a small process, forked once for each run, that never holds a program, a test or a secret.

Started as a script in an interpreter of its own. It gets requests, each with five descriptors, over a socket from its
caller, and ends when the caller does.
"""

from __future__ import annotations

import sys
from types import ModuleType


def bare_packages(folder: str) -> None:
    """Packages without the code of their `__init__`: what the modules inside import of each other is found by path."""
    for name, below in (
        ("oneloop", ""),
        ("oneloop.sandbox", "/sandbox"),
        ("oneloop.rewards", "/rewards"),
        ("oneloop.rewards.code", "/rewards/code"),
    ):
        package = sys.modules[name] = ModuleType(name)
        package.__path__ = [folder + below]


if __name__ == "__main__":
    bare_packages(__file__.rpartition("/sandbox/")[0])
    from oneloop.sandbox.inside.serve import serve

    serve()()
