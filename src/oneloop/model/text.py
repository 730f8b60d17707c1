"""Between text and token ids. Ids are the truth: what was sampled is never decoded and encoded again."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from transformers import PreTrainedModel, PreTrainedTokenizerBase

from oneloop.errors import ConfigError, DataError
from oneloop.types import Message


@dataclass(frozen=True)
class Text:
    """A tokenizer with the end tokens of its model.

    Args:
        end_ids: every id that ends a completion; the first is the one appended to demonstrations.
    """

    tokenizer: PreTrainedTokenizerBase
    end_ids: tuple[int, ...]

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

    def completion(self, text: str) -> tuple[int, ...]:
        """Token ids of a given answer, with its end token."""
        ids = self.tokenizer(text, add_special_tokens=False)["input_ids"]
        return (*ids, self.end_ids[0])  # pyright: ignore[reportReturnType]

    def decode(self, ids: Sequence[int]) -> str:
        """Readable form of sampled ids, without the end token."""
        kept = ids[:-1] if ids and ids[-1] in self.end_ids else ids
        return str(self.tokenizer.decode(list(kept), skip_special_tokens=True))


def end_ids(model: PreTrainedModel, tokenizer: PreTrainedTokenizerBase) -> tuple[int, ...]:
    """Every end-of-sequence id that the tokenizer, the config or generation_config.json names, the tokenizer's first.

    Raises: ConfigError when there is none.
    """
    found: list[int] = []
    for source in (tokenizer, getattr(model, "generation_config", None), model.config):
        ids = getattr(source, "eos_token_id", None)
        found += [ids] if isinstance(ids, int) else list(ids or ())
    if not found:
        raise ConfigError(
            "neither the tokenizer nor the model's config names an end-of-sequence token, so no completion could end. "
            "Fix: set eos_token in tokenizer_config.json"
        )
    return tuple(dict.fromkeys(found))


def ignored_sampling(model: PreTrainedModel) -> Mapping[str, Any]:
    """What generation_config.json would have changed about sampling: it is read for end tokens only."""
    config = getattr(model, "generation_config", None)  # a reward model generates nothing and has none
    if config is None:
        return {}
    names = ("temperature", "top_k", "top_p", "min_p", "typical_p", "repetition_penalty", "no_repeat_ngram_size")
    changes = config.to_diff_dict()
    return {name: changes[name] for name in names if name in changes}
