"""What answers a policy in many turns: tools, games, searches. Torch-free: an environment speaks messages."""

from oneloop.environments.load import NamedEnvironment, environment_of, load_environment
from oneloop.environments.protocol import Environment
from oneloop.environments.stage import Stage
from oneloop.environments.tools import with_tools
from oneloop.types import Call, Step

__all__ = [
    "Call",
    "Environment",
    "NamedEnvironment",
    "Stage",
    "Step",
    "environment_of",
    "load_environment",
    "with_tools",
]
