"""Tasks that are played in an environment: rows that it reads, and conversations to imitate that were had with it."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from random import Random
from typing import Any

from oneloop.environments.protocol import Environment
from oneloop.errors import ConfigError
from oneloop.tasks.task import Row, Split, draw_rows

Move = Callable[[Row, Sequence[dict[str, str]], Random], str]
"""What somebody says next: a row, the conversation so far, and chance."""
MOST_TURNS = 16


@dataclass(frozen=True)
class Played:
    """Implements `Task`, but for what one answer alone could be judged by.

    Args:
        environment: its name, as --environment takes it.
        make: an environment.
        row: draws a row, with `prompt` and `answer`.
        move: whom the demonstrations show.
    """

    environment: str
    make: Callable[[], Environment]
    row: Callable[[Random], Row]
    move: Move

    def prompts(self, count: int, seed: int, split: Split) -> list[Row]:
        return draw_rows(self.row, count, seed, split)

    def demonstrations(self, count: int, seed: int, split: Split) -> list[Row]:
        """Rows with `messages`."""
        rng = Random(f"{seed}-{split}-moves")
        return [
            {"messages": self.conversation(row, rng), "answer": row["answer"]}
            for row in self.prompts(count, seed, split)
        ]

    def conversation(self, row: Row, rng: Random) -> list[dict[str, str]]:
        """Up to the last word of whoever moves: nothing is learned from what comes after it."""
        environment = self.make()
        messages: list[dict[str, str]] = [dict(message) for message in environment.reset(row)]  # pyright: ignore[reportGeneralTypeIssues]
        for _ in range(MOST_TURNS):
            said = self.move(row, messages, rng)
            messages.append({"role": "assistant", "content": said})
            step: Any = environment.step(said)
            if step.terminated or step.truncated:
                break
            messages += [dict(message) for message in step.messages]
        return messages

    def preferences(self, count: int, seed: int, split: Split) -> list[Row]:
        raise ConfigError(
            f"--data task:{self.environment}: it is played in turns, and has no pairs of answers. Fix: sft, or grpo "
            f"with --environment {self.environment}"
        )

    def reward(self, completions: Sequence[str], **columns: Any) -> list[float | None]:
        """There is none: one text does not tell what the environment knows."""
        raise ConfigError(
            f"task:{self.environment} is played in turns, and its environment gives the rewards. "
            f"Fix: --environment {self.environment}"
        )
