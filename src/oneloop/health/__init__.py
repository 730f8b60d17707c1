"""Health: pure checks of a run's numbers, step by step, that name what ruins runs in plain words with a fix."""

from oneloop.health.checks import Alert, Setting
from oneloop.health.codes import CODES, described
from oneloop.health.limits import Limits
from oneloop.health.watch import Watch

__all__ = ["CODES", "Alert", "Limits", "Setting", "Watch", "described"]
