"""What every engine refuses before it draws."""

from collections.abc import Sequence

from oneloop.errors import ConfigError
from oneloop.types import Sampling


def check_lengths(prompts: Sequence[Sequence[int]], sampling: Sampling, context: int | None) -> None:
    """Raises: ConfigError for a prompt without tokens, or one that has no room for its completion.

    Args:
        context: most tokens of both; None: unknown.
    """
    if any(len(prompt) == 0 for prompt in prompts):
        raise ConfigError("a prompt has no tokens; generation needs at least one")
    longest = max((len(prompt) for prompt in prompts), default=0)
    if context is not None and longest + sampling.max_new_tokens > context:
        room = f"--max-new-tokens {context - longest}, or " if longest < context else ""
        raise ConfigError(
            f"a prompt of {longest} tokens and max_new_tokens={sampling.max_new_tokens} exceed the model's context "
            f"of {context}. Fix: {room}shorter prompts"
        )
