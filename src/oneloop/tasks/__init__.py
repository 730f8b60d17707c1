"""Built-in tasks with known answers: prompts, demonstrations, preference pairs and a grader, from a seed."""

from oneloop.tasks.addition import Addition
from oneloop.tasks.calculator import CALCULATOR
from oneloop.tasks.chain_sum import ChainSum
from oneloop.tasks.countdown import Countdown
from oneloop.tasks.guess import GUESS
from oneloop.tasks.lookup import LOOKUP
from oneloop.tasks.played import Played
from oneloop.tasks.task import Task
from oneloop.tasks.tiny_code import TinyCode

TASKS: dict[str, Task] = {
    "addition": Addition(),
    "chain_sum": ChainSum(),
    "flawed_chain_sum": ChainSum(flawed=0.5),
    "countdown": Countdown(),
    "tiny_code": TinyCode(),
    "flawed_tiny_code": TinyCode(flawed=0.5),
}

PLAYED: dict[str, Played] = {task.environment: task for task in (CALCULATOR, GUESS, LOOKUP)}
"""Tasks of many turns, by the environment that they are played in."""

__all__ = ["PLAYED", "TASKS", "Addition", "ChainSum", "Countdown", "Played", "Task", "TinyCode"]
