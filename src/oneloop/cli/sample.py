"""`oneloop sample --model M ["prompt"]`: completions of a prompt, of lines, or in a conversation."""

from __future__ import annotations

import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Annotated

from tyro.conf import Positional

from oneloop.cli.output import visible
from oneloop.cli.parse import parse
from oneloop.errors import ConfigError, OneloopError
from oneloop.model.source import architecture_of, check_source
from oneloop.types import Message, Sampling


@dataclass(frozen=True, kw_only=True)
class Sample:
    """Print completions of a prompt."""

    prompt: Annotated[str, Positional] = ""
    """What the model is asked; with a chat template it becomes the user's message. Left out: a conversation in a
    terminal (/reset forgets it, an empty line ends it), else one prompt per line of the standard input."""
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
    check_source(options.model)
    _refuse_scores(options.model)
    from oneloop.model.chat import templated
    from oneloop.model.load import load_policy, load_tokenizer
    from oneloop.model.sound import check_vocabulary
    from oneloop.model.text import Text, end_ids
    from oneloop.rollout.engine import Engine
    from oneloop.seeds import named_seed

    sampling = Sampling(
        max_new_tokens=options.max_new_tokens,
        temperature=options.temperature,
        top_k=options.top_k,
        top_p=options.top_p,
    )
    tokenizer = templated(load_tokenizer(options.model), options.chat_template, options.chat_template_kwargs)
    model = load_policy(options.model, seed=options.seed)
    check_vocabulary(model, tokenizer, options.model)
    model.to(options.device)  # pyright: ignore[reportArgumentType]
    text = Text(tokenizer, end_ids(model, tokenizer))
    engine, chat = Engine(model, text.end_ids), not options.raw and bool(getattr(tokenizer, "chat_template", None))

    def answers(turns: Sequence[Message], number: int) -> list[tuple[str, bool]]:
        """Completions of a conversation, or of the last turn where there is no template; whether each was cut."""
        prompt, _ = text.prompt(list(turns) if chat else turns[-1]["content"])
        seeds = [named_seed(options.seed, "sample", number + sample) for sample in range(options.count)]
        drawn = engine.generate([prompt] * options.count, sampling, seeds)
        return [(text.decode(completion.tokens), completion.stop.truncated) for completion in drawn]

    if options.prompt:
        _print(answers([Message(role="user", content=options.prompt)], 0))
    elif sys.stdin.isatty():
        _converse(answers, chat)
    else:
        for number, line in enumerate(filter(None, map(str.rstrip, sys.stdin))):
            _print(answers([Message(role="user", content=line)], number * options.count))
    return 0


Answers = Callable[[Sequence[Message], int], list[tuple[str, bool]]]


def _converse(answers: Answers, chat: bool) -> None:
    """Prompt and answer in turns. With a chat template the model sees what was said before; else each line alone."""
    kept = "the conversation is kept, /reset forgets it" if chat else "no chat template: each line is a prompt alone"
    print(f"{kept}; an empty line or Ctrl-D ends")
    turns: list[Message] = []
    number = 0
    while line := _line():
        if line == "/reset":
            turns = []
            continue
        turns.append(Message(role="user", content=line))
        try:
            said = answers(turns, number)
        except OneloopError as error:  # too long, or not what the template wants
            print(visible(f"{error}{', or /reset' if chat and len(turns) > 1 else ''}"))
            turns.pop()
            continue
        _print(said)
        number += len(said)
        turns.append(Message(role="assistant", content=said[0][0]))


def _line() -> str:
    try:
        return input("> ").strip()
    except (EOFError, KeyboardInterrupt):
        print()
        return ""


def _print(answers: list[tuple[str, bool]]) -> None:
    for text, cut in answers:
        print(f"{visible(text)}{'  [cut at max_new_tokens]' if cut else ''}", flush=True)


def _refuse_scores(model: str) -> None:
    """Raises: ConfigError for a folder whose model has no words to say."""
    name = architecture_of(model)
    if name.endswith(("ForSequenceClassification", "ForTokenClassification")):
        raise ConfigError(
            f"--model {model} holds a {name}: it gives numbers and says nothing. Fix: a policy here; a reward model "
            f"scores in training: oneloop train ppo --reward-model {model}"
        )
