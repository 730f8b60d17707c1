"""Between text and token ids. Ids are the truth: what was sampled is never decoded and encoded again."""

from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from functools import cached_property
from typing import Any

from transformers import GenerationConfig, PretrainedConfig, PreTrainedModel, PreTrainedTokenizerBase

from oneloop.errors import ConfigError, DataError
from oneloop.model.chat import Chat, answering, turn_end
from oneloop.model.encoder import Piece
from oneloop.types import Message, Tokens

Said = str | Sequence[Message]
"""What a row holds in a column: plain text, or messages."""
TOGETHER, CHARACTERS = 1000, 1_000_000
"""Rows that are encoded together, and the characters after which they are fewer."""


@dataclass(frozen=True)
class Text:
    """A tokenizer with the end tokens of its model: rows of data as token ids, and sampled ids as text.

    Args:
        end_ids: every id that ends a completion; the first is the one appended to answers to plain text.
    """

    tokenizer: PreTrainedTokenizerBase
    end_ids: tuple[int, ...]

    @cached_property
    def chat(self) -> Chat:
        return Chat(self.tokenizer, self.end_ids)

    @property
    def _counts(self) -> Counter[str]:
        return self.chat.counts

    def ahead(self, rows: Iterable[dict[str, Any]], columns: Sequence[str]) -> Iterator[dict[str, Any]]:
        """The rows in order; what `columns` of them hold is encoded together before they are given, on all cores.

        Whatever is asked about a row has the same answer as without this, and has it sooner.
        """
        waiting: list[dict[str, Any]] = []
        pieces: list[Piece] = []
        characters = 0
        for row in rows:
            waiting.append(row)
            with suppress(DataError):  # whoever asks for this row is told
                for piece in self._pieces(row, columns):
                    pieces.append(piece)
                    characters += len(piece[0])
            if len(waiting) == TOGETHER or characters > CHARACTERS:
                yield from self._known(waiting, pieces)
                waiting, pieces, characters = [], [], 0
        yield from self._known(waiting, pieces)

    def _known(self, rows: Sequence[dict[str, Any]], pieces: Sequence[Piece]) -> Iterator[dict[str, Any]]:
        self.chat.encoder.know(pieces)
        yield from rows
        self.chat.encoder.know(())
        self.chat.written.clear()

    def _pieces(self, row: Mapping[str, Any], columns: Sequence[str]) -> Iterator[Piece]:
        """What a row will be encoded as; what is not foreseen here is encoded when it is asked for."""
        prompt, tools = row.get("prompt"), row.get("tools")
        for name in columns:
            said = row.get(name)
            if not said:
                continue
            if name in ("prompt", "text"):
                yield (said, True) if isinstance(said, str) else self.chat.piece(said, tools, opened=True)
            elif isinstance(said, str):
                yield said, False
                if isinstance(prompt, str):
                    yield prompt + said, True
            elif not ("messages" in columns and self.chat.marks(tools)):  # those are read with their offsets
                before = [] if name == "messages" else [*_messages(prompt or ())]
                whole = [*before, *said]
                for place in answering(whole, len(before)):
                    yield self.chat.piece(whole[:place], tools, opened=True)
                    yield self.chat.piece(whole[: place + 1], tools, opened=False)

    def prompt(self, prompt: Said, tools: Sequence[Any] | None = None) -> tuple[tuple[int, ...], str]:
        """Token ids and readable form of a prompt: plain text, or messages through the model's chat template."""
        return (self._begun(prompt), prompt) if isinstance(prompt, str) else self.chat.prompt(prompt, tools)

    def reply(
        self, before: Sequence[Message], new: Sequence[Message], tools: Sequence[Any] | None = None
    ) -> tuple[int, ...]:
        """Token ids between an assistant's turn, the last of `before`, and its next one, which answers `new`.

        Raises: ConfigError where the chat template would rewrite what stands before.
        """
        return self.chat.reply(before, new, tools)

    def _begun(self, text: str) -> tuple[int, ...]:
        """Ids of a beginning: as the tokenizer begins a text, and without the end that some write behind every one."""
        ids = self.chat.one_bos(self.chat.encoder(text, whole=True))
        return ids[:-1] if ids and ids[-1] == self.tokenizer.eos_token_id else ids

    def completion(self, text: str, prompt: Said = "") -> tuple[int, ...]:
        """Token ids of an answer to `prompt` and of what ends it: after messages, what the chat template writes."""
        ends = self.end_ids[:1] if isinstance(prompt, str) else (self.chat.turn_end or self.end_ids[:1])
        return (*self.chat.encode(text), *ends)

    def demonstrations(self, row: Mapping[str, Any]) -> list[Tokens]:
        """A row to imitate: `text`; `messages`; or `prompt` and `completion`, both of them text or messages.

        More than one where the template rewrites a conversation's earlier turns; one without a trained token where
        nothing of the row is the assistant's.

        Raises: DataError where the chat template refuses the conversation.
        """
        rows = self._demonstrations(row)
        if not any(any(one.trained) for one in rows):
            self._counts["untrained"] += 1
        return rows

    def _demonstrations(self, row: Mapping[str, Any]) -> list[Tokens]:
        tools = row.get("tools")
        if "messages" in row:
            return self.chat.conversation(row["messages"], tools)
        if "text" in row:
            return [self._whole(row["text"])]
        prompt, completion = row["prompt"], row["completion"]
        if isinstance(completion, str):
            start, (said,) = self.answers(row, ("completion",))
            return [Tokens((*start, *said), (*(False,) * len(start), *(True,) * len(said)))]
        return self.chat.conversation([*_messages(prompt), *completion], tools, first=len(prompt))

    def _whole(self, text: str) -> Tokens:
        ids = self._begun(text)
        begins = bool(ids) and ids[0] == self.tokenizer.bos_token_id
        ended = ids if ids and ids[-1] in self.end_ids else (*ids, *self.end_ids[:1])
        return Tokens(ended, (not begins, *(True,) * (len(ended) - 1)))

    def answers(
        self, row: Mapping[str, Any], names: Sequence[str]
    ) -> tuple[tuple[int, ...], tuple[tuple[int, ...], ...]]:
        """Ids of a row's `prompt`, and of the answers in the columns `names`, their ends included.

        Raises: DataError for an answer of several turns, and where the chat template refuses the conversation.
        """
        prompt, tools = row["prompt"], row.get("tools")
        ids = self.prompt(prompt, tools)[0]
        return ids, tuple(self._answer(prompt, ids, row[name], name, tools) for name in names)

    def _answer(
        self, prompt: Said, ids: tuple[int, ...], answer: Said, name: str, tools: Sequence[Any] | None
    ) -> tuple[int, ...]:
        if isinstance(answer, str):
            if isinstance(prompt, str) and self._begun(prompt + answer)[: len(ids)] != ids:
                self._counts["joined"] += 1
            return self.completion(answer, prompt)
        if [message["role"] for message in answer] != ["assistant"]:
            raise DataError(
                f"{name} has the turns {[message['role'] for message in answer]}; wanted one message of the assistant. "
                "Fix: earlier turns belong into prompt"
            )
        return self.chat.turn([*_messages(prompt), *answer], tools)[1]

    def decode(self, ids: Sequence[int]) -> str:
        """Readable form of sampled ids, without the end token."""
        kept = ids[:-1] if ids and ids[-1] in self.end_ids else ids
        return str(self.tokenizer.decode(list(kept), skip_special_tokens=True))

    @property
    def notes(self) -> tuple[str, ...]:
        """What the user should know about the rows that were encoded so far."""
        counts = self._counts
        notes: list[str] = []
        if counts["split"]:
            notes.append(
                f"{counts['split']} conversations became {counts['split rows']} rows, one for each of the assistant's "
                "turns: the chat template writes earlier turns in another way than they were generated (thinking left "
                "out, say), so each turn is trained on the conversation as it stood then"
            )
        if counts["untrained"]:
            notes.append(f"{counts['untrained']} rows have no word of the assistant's to train on and are left out")
        if counts["joined"]:
            notes.append(
                f"{counts['joined']} answers begin inside a token of prompt + answer: encoded together, the border "
                "would lie elsewhere. Prompt and answer are encoded apart, as in sampling. Usually a space at the end "
                "of the prompt belongs to the beginning of the answer"
            )
        return tuple(notes)


def _messages(prompt: Said) -> Sequence[Message]:
    if isinstance(prompt, str):
        raise DataError(
            "prompt is text and the answer a list of messages. Fix: both as text, or both as messages, such as "
            '"prompt": [{"role": "user", "content": "..."}]'
        )
    return prompt


@dataclass(frozen=True)
class Described:
    """A model as its files describe it, without weights."""

    config: PretrainedConfig
    generation_config: GenerationConfig | None = None

    @property
    def context(self) -> int | None:
        """Most tokens of a row; None where the configuration does not say."""
        return getattr(self.config, "max_position_embeddings", None)


def end_ids(model: PreTrainedModel | Described, tokenizer: PreTrainedTokenizerBase) -> tuple[int, ...]:
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
