"""`oneloop sample --model M "prompt"`."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated

from tyro.conf import Positional

from oneloop.cli.parse import parse


@dataclass(frozen=True, kw_only=True)
class Sample:
    """Print completions of a prompt."""

    prompt: Annotated[str, Positional]
    """What the model is asked; with a chat template it becomes the user's message."""
    model: str
    """Folder or hub id of a Hugging Face causal language model."""
    count: int = 1
    """Completions to draw."""
    max_new_tokens: int = 64
    """Length limit of a completion, in tokens."""
    temperature: float = 1.0
    """0 takes the most likely token."""
    top_k: int = 0
    """Keep the k most likely tokens; 0 keeps all."""
    top_p: float = 1.0
    """Keep the most likely tokens that reach this probability."""
    raw: bool = False
    """Take the prompt as it is, also where the model has a chat template."""
    chat_template: str = ""
    """File with a Jinja chat template, used instead of the model's own."""
    chat_template_kwargs: tuple[str, ...] = ()
    """Variables of the chat template, such as enable_thinking=false."""
    seed: int = 0
    """Names every random number."""
    device: str = "cpu"
    """cpu, cuda or cuda:N."""


def main(arguments: list[str]) -> int:
    options = parse(Sample, arguments, prog="oneloop sample")
    from oneloop.cli.terminal import visible
    from oneloop.model.chat import templated
    from oneloop.model.load import load_policy, load_tokenizer
    from oneloop.model.text import Text, end_ids
    from oneloop.rollout.engine import Engine
    from oneloop.seeds import named_seed
    from oneloop.types import Message, Sampling

    sampling = Sampling(
        max_new_tokens=options.max_new_tokens,
        temperature=options.temperature,
        top_k=options.top_k,
        top_p=options.top_p,
    )
    tokenizer = templated(load_tokenizer(options.model), options.chat_template, options.chat_template_kwargs)
    model = load_policy(options.model, seed=options.seed)
    model.to(options.device)  # pyright: ignore[reportArgumentType]
    text = Text(tokenizer, end_ids(model, tokenizer))
    chat = not options.raw and getattr(tokenizer, "chat_template", None) is not None
    prompt, _ = text.prompt([Message(role="user", content=options.prompt)] if chat else options.prompt)
    seeds = [named_seed(options.seed, "sample", number) for number in range(options.count)]
    for completion in Engine(model, text.end_ids).generate([prompt] * options.count, sampling, seeds):
        cut = "  [cut at max_new_tokens]" if completion.stop.truncated else ""
        print(f"{visible(text.decode(completion.tokens))}{cut}")
    return 0
