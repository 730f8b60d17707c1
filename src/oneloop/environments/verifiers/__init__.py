"""Environments of the verifiers package, v0.4: its tasksets as rows, its programs, tools, users and rewards.

An environment of verifiers is no object that is stepped: it runs, and asks a model as any program does, by HTTP. So it
is given the address of an `Endpoint` in this process, and each of its requests is a turn of the policy.

    reset   begin `Env.run_episode`, wait for its first request           the request's messages
    step    answer the request, wait for the next one, or for the end     what stands behind the answer, and the reward
"""

from __future__ import annotations

import sys
from typing import Any

SCHEME = "verifiers:"


def is_verifiers(value: Any) -> bool:
    """Whether it is an environment of verifiers: whoever made it has loaded the package."""
    kind = getattr(sys.modules.get("verifiers.v1"), "Env", None)
    return kind is not None and isinstance(value, kind)
