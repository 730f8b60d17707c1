"""Between text and token ids. Ids are the truth: what was sampled is never decoded and encoded again."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

from jinja2 import TemplateError
from transformers import PreTrainedModel, PreTrainedTokenizerBase

from oneloop.errors import ConfigError, DataError
from oneloop.types import Message


@dataclass(frozen=True)
class Text:
    """A tokenizer with the end tokens of its model.

    Args:
        end_ids: every id that ends a completion; the first is the one appended to answers to plain text.
    """

    tokenizer: PreTrainedTokenizerBase
    end_ids: tuple[int, ...]

    @cached_property
    def _turn_end(self) -> tuple[int, ...]:
        return turn_end(self.tokenizer) or self.end_ids[:1]

    def prompt(self, prompt: str | Sequence[Message]) -> tuple[tuple[int, ...], str]:
        """Token ids and readable form of a prompt: plain text, or messages through the model's chat template."""
        if isinstance(prompt, str):
            ids = tuple(self.tokenizer(prompt)["input_ids"])  # pyright: ignore[reportArgumentType]
            # some tokenizers end every text; a prompt is a beginning
            return (ids[:-1] if ids and ids[-1] == self.tokenizer.eos_token_id else ids), prompt
        if getattr(self.tokenizer, "chat_template", None) is None:
            raise DataError(
                "a prompt is a list of messages, but the tokenizer has no chat template. "
                "Fix: use a chat model, or give prompts as text"
            )
        shown = self.tokenizer.apply_chat_template(list(prompt), add_generation_prompt=True, tokenize=False)  # pyright: ignore[reportArgumentType]
        # the template writes its own special tokens: adding them again would double the first one
        ids = self.tokenizer(str(shown), add_special_tokens=False)["input_ids"]
        return tuple(ids), str(shown)  # pyright: ignore[reportArgumentType]

    def completion(self, text: str, prompt: str | Sequence[Message] = "") -> tuple[int, ...]:
        """Token ids of an answer to `prompt` and of what ends it: after messages, what the chat template writes."""
        ids = self.tokenizer(text, add_special_tokens=False)["input_ids"]
        return (*ids, *(self.end_ids[:1] if isinstance(prompt, str) else self._turn_end))  # pyright: ignore[reportReturnType]

    def decode(self, ids: Sequence[int]) -> str:
        """Readable form of sampled ids, without the end token."""
        kept = ids[:-1] if ids and ids[-1] in self.end_ids else ids
        return str(self.tokenizer.decode(list(kept), skip_special_tokens=True))


def end_ids(model: PreTrainedModel, tokenizer: PreTrainedTokenizerBase) -> tuple[int, ...]:
    """Every id that ends an answer: those of the tokenizer, the config and generation_config.json, the tokenizer's
    first, and the one with which the chat template ends an assistant's turn.

    Raises: ConfigError when there is none.
    """
    found: list[int] = []
    for source in (tokenizer, getattr(model, "generation_config", None), model.config):
        ids = getattr(source, "eos_token_id", None)
        found += [ids] if isinstance(ids, int) else list(ids or ())
    found += turn_end(tokenizer)[-1:]
    if not found:
        raise ConfigError(
            "neither the tokenizer nor the model's config names an end-of-sequence token, so no completion could end. "
            "Fix: set eos_token in tokenizer_config.json"
        )
    return tuple(dict.fromkeys(found))


_ANSWER = "oneloop-answer"


def turn_end(tokenizer: PreTrainedTokenizerBase) -> tuple[int, ...]:
    """What the chat template writes after an assistant's words, up to its first special token; () where it has none.

    `<end_of_turn>` in Gemma's style and `<|im_end|>` on a Qwen base model are not the tokenizer's `eos_token`.
    """
    if getattr(tokenizer, "chat_template", None) is None:
        return ()
    turns = [{"role": "user", "content": "oneloop-question"}, {"role": "assistant", "content": _ANSWER}]
    try:
        shown = str(tokenizer.apply_chat_template(turns, tokenize=False))
    except TemplateError:  # one that wants other turns: it says so itself when it is used
        return ()
    _, found, after = shown.rpartition(_ANSWER)
    ids: list[int] = tokenizer(after, add_special_tokens=False)["input_ids"] if found and after else []  # pyright: ignore[reportAssignmentType]
    added: Mapping[int, Any] = getattr(tokenizer, "added_tokens_decoder", {})
    special = {*tokenizer.all_special_ids, *(number for number, token in added.items() if token.special)}
    first = next((index for index, number in enumerate(ids) if number in special), None)
    return () if first is None else tuple(ids[: first + 1])


def name_ends(model: PreTrainedModel, ends: Sequence[int]) -> None:
    """Have generation_config.json name every token that ends an answer: others shall stop where this run does."""
    config = getattr(model, "generation_config", None)
    if config is not None:
        config.eos_token_id = list(ends)


def ignored_sampling(model: PreTrainedModel) -> Mapping[str, Any]:
    """What generation_config.json would have changed about sampling: it is read for end tokens only."""
    config = getattr(model, "generation_config", None)  # a reward model generates nothing and has none
    if config is None:
        return {}
    names = ("temperature", "top_k", "top_p", "min_p", "typical_p", "repetition_penalty", "no_repeat_ngram_size")
    changes = config.to_diff_dict()
    return {name: changes[name] for name in names if name in changes}
