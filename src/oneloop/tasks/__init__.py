"""Built-in tasks with known answers: prompts, demonstrations, preference pairs and a grader, from a seed."""

from oneloop.tasks.addition import Addition
from oneloop.tasks.chain_sum import ChainSum
from oneloop.tasks.countdown import Countdown
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

__all__ = ["TASKS", "Addition", "ChainSum", "Countdown", "Task", "TinyCode"]
