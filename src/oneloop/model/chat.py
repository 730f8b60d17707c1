"""Conversations as token ids: what an assistant's turn begins with, what it says, and where it ends.

A turn is rendered as it would be when it is generated: the conversation so far with the generation prompt, then the
same with the turn. What the second has more than the first is what the assistant says.
"""

from __future__ import annotations

import copy
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any

from jinja2 import TemplateError
from transformers import PreTrainedTokenizerBase
from transformers.utils.chat_template_utils import render_jinja_template

from oneloop.errors import ConfigError, DataError
from oneloop.model.encoder import Encoder, Piece
from oneloop.model.template import PLAIN, marks_answers, read_template, read_variables, with_defaults
from oneloop.types import Message, Tokens

NO_TEMPLATE = (
    "the row is a list of messages, but the tokenizer has no chat template. Fix: --chat-template FILE.jinja with one; "
    "or a chat model for --model; or a column of text: --columns NAME=prompt"
)
Messages = Sequence[Message]
Tools = Sequence[Any] | None
Shown = tuple[str, list[tuple[int, int]]]
"""A conversation as the template writes it, and the stretches it marks as generated."""


def templated(
    tokenizer: PreTrainedTokenizerBase, file: str = "", variables: Sequence[str] = ()
) -> PreTrainedTokenizerBase:
    """The tokenizer with the chat template of `file`, and with `NAME=VALUE` as defaults of its variables.

    The tokenizer that is given stays as it is; one that is saved takes the template and the defaults along.

    Raises: ConfigError for a file that is no template, for variables that are none, and for variables without template.
    """
    values = read_variables(variables)
    template = read_template(file) if file else getattr(tokenizer, "chat_template", None)
    if not file and not values:
        return tokenizer
    if template is None:
        raise ConfigError(
            f"--chat-template-kwargs {' '.join(variables)}: the tokenizer has no chat template that could read them. "
            "Fix: leave them out, or --chat-template FILE.jinja"
        )
    tokenizer = copy.copy(tokenizer)
    tokenizer.chat_template = (
        {name: with_defaults(one, values) for name, one in template.items()}
        if isinstance(template, Mapping)
        else with_defaults(template, values)
    )
    return tokenizer


def conversing(tokenizer: PreTrainedTokenizerBase) -> PreTrainedTokenizerBase:
    """The tokenizer, with the template `PLAIN` where it has none."""
    if getattr(tokenizer, "chat_template", None) is not None:
        return tokenizer
    tokenizer = copy.copy(tokenizer)
    tokenizer.chat_template = PLAIN
    return tokenizer


@dataclass(frozen=True)
class Chat:
    """A tokenizer's chat template at work.

    Args:
        end_ids: every id that ends a completion.
        counts: what was met, for `Text.notes`.
    """

    tokenizer: PreTrainedTokenizerBase
    end_ids: tuple[int, ...]
    counts: Counter[str] = field(default_factory=Counter, compare=False)
    written: dict[str, Shown] = field(default_factory=dict, compare=False, repr=False)
    """Conversations that `piece` has looked at, by what they are."""

    @cached_property
    def encoder(self) -> Encoder:
        return Encoder(self.tokenizer)

    @cached_property
    def turn_end(self) -> tuple[int, ...]:
        """What the template writes behind an assistant's words; () where nothing special stands there."""
        return turn_end(self.tokenizer)

    @cached_property
    def bos(self) -> int | None:
        """The token with which this tokenizer begins a text; None where it begins with the text itself."""
        first: list[int] = self.tokenizer("0")["input_ids"]  # pyright: ignore[reportAssignmentType]
        return first[0] if first and first[0] == self.tokenizer.bos_token_id else None

    def one_bos(self, ids: Sequence[int]) -> tuple[int, ...]:
        """The ids with exactly one beginning of sequence, where the tokenizer or the text has any."""
        bos, start = self.tokenizer.bos_token_id, 0
        while bos is not None and start < len(ids) and ids[start] == bos:
            start += 1
        begins = start > 0 or self.bos is not None
        return (bos, *ids[start:]) if begins else tuple(ids)  # pyright: ignore[reportReturnType]

    def encode(self, text: str) -> tuple[int, ...]:
        """Ids of a piece that stands inside a text; nothing is added."""
        return tuple(self.encoder(text, whole=False))

    def prompt(self, messages: Messages, tools: Tools = None) -> tuple[tuple[int, ...], str]:
        """Ids and readable form of a conversation that the assistant is to go on with."""
        shown, _ = self._shown(messages, tools, opened=True)
        return self._ids(shown), shown

    def _ids(self, shown: str) -> tuple[int, ...]:
        # the template writes its own special tokens: a tokenizer that adds them again would double the first one
        return self.one_bos(self.encode(shown))

    def turn(self, messages: Messages, tools: Tools = None) -> tuple[tuple[int, ...], tuple[int, ...]]:
        """Ids of what stands before the last message, an assistant's, and of what it says, its end included.

        Raises: DataError when the template writes a turn in another way than it begins one.
        """
        before, _ = self._shown(messages[:-1], tools, opened=True)
        through, _ = self._shown(messages, tools)
        if not through.startswith(before):
            raise DataError(
                "the chat template does not write an assistant's turn as it begins one, so nobody could say which "
                f"tokens are generated: it begins with {_differing(before, through)}, and writes "
                f"{_differing(through, before)}. Fix: --chat-template with a template that writes every turn as it is "
                "generated, or completions as text"
            )
        start, said = self._ids(before), through[len(before) :]
        if not self.turn_end:
            return start, (*self.encode(said.rstrip()), *self.end_ids[:1])
        whole = self._ids(through)
        # where a token would span the border, the answer is encoded alone: a sampler could never draw that token
        return start, self._ended(whole[len(start) :] if whole[: len(start)] == start else self.encode(said))

    def reply(self, before: Messages, new: Messages, tools: Tools = None) -> tuple[int, ...]:
        """Ids of what a conversation goes on with behind an assistant's turn, the last of `before`, and its end token:
        what the template writes behind it, `new`, and the beginning of the next turn.

        It is what the rendered conversation has more than before; the turn itself may have been drawn in other words
        than the template writes it in (spaces at its end, say), and stays as it was drawn.

        Raises: ConfigError where the template would now write what stands before in another way.
        """
        begun, _ = self._shown(before[:-1], tools, opened=True)
        stood, _ = self._shown(before, tools)
        whole, _ = self._shown([*before, *new], tools, opened=True)
        for shorter, longer in ((begun, stood), (stood, whole)):
            if not longer.startswith(shorter):
                raise ConfigError(
                    "the chat template writes earlier turns in another way once the conversation goes on, so that "
                    f"the tokens that were drawn would be others: it wrote {_differing(shorter, longer)}, and now "
                    f"writes {_differing(longer, shorter)}. Fix: --chat-template with one that only adds to what "
                    "stands there, or --chat-template-kwargs that keep it from changing (thinking, say)"
                )
        return self.encode(self._after(stood[len(begun) :]) + whole[len(stood) :])

    def _after(self, said: str) -> str:
        """What the template writes behind the end of an assistant's turn."""
        if not self.turn_end:
            return said[len(said.rstrip()) :]
        end = str(self.tokenizer.decode([self.turn_end[-1]]))
        return said[said.rindex(end) + len(end) :] if end in said else ""

    def _ended(self, ids: tuple[int, ...]) -> tuple[int, ...]:
        """Without what the template writes behind the end of a turn."""
        ends = {*self.end_ids, *self.turn_end[-1:]}
        last = next((place for place in reversed(range(len(ids))) if ids[place] in ends), None)
        return (*ids, *self.end_ids[:1]) if last is None else ids[: last + 1]

    def conversation(self, messages: Messages, tools: Tools = None, first: int = 0) -> list[Tokens]:
        """The assistant's turns from message number `first` on, to imitate: in one row where that is possible.

        A template that writes earlier turns in another way than they were generated (without their thinking, say)
        gives one row for each turn, each as it stood when that turn was generated. A first message by the assistant
        answers nothing and is read only.
        """
        places = answering(messages, first)
        if not places:
            ids = self._ids(self._shown(messages, tools)[0])
            return [Tokens(ids, (False,) * len(ids))]
        rowed = self._marked if self.marks(tools) else self._turns
        rows = rowed(messages, tools, places)
        if len(rows) > 1:
            self.counts["split"] += 1
            self.counts["split rows"] += len(rows)
        return rows

    def _turns(self, messages: Messages, tools: Tools, places: Sequence[int]) -> list[Tokens]:
        turns = [self.turn(messages[: place + 1], tools) for place in places]
        whole = (*turns[-1][0], *turns[-1][1])
        if any(whole[: len(start) + len(said)] != (*start, *said) for start, said in turns):
            return [Tokens((*start, *said), (*(False,) * len(start), *(True,) * len(said))) for start, said in turns]
        trained = [False] * len(whole)
        for start, said in turns:
            trained[len(start) : len(start) + len(said)] = [True] * len(said)
        return [Tokens(whole, tuple(trained))]

    def _marked(self, messages: Messages, tools: Tools, places: Sequence[int]) -> list[Tokens]:
        """By the template's own `{% generation %}` marks."""
        steps = [self._shown(messages[: place + 1], tools) for place in places]
        whole, spans = steps[-1]
        if all(whole.startswith(self._open(shown, marks)) for shown, marks in steps):
            begin = len(self._shown(messages[: places[0]], tools)[0])
            return [self._flagged(whole, [span for span in spans if span[0] >= begin])]
        return [self._flagged(shown, marks[-1:]) for shown, marks in steps]

    def marks(self, tools: Tools = None) -> bool:
        """Whether the template says itself which of its text is generated."""
        return marks_answers(self._template(tools))

    @staticmethod
    def _open(shown: str, spans: Sequence[tuple[int, int]]) -> str:
        """A conversation up to the end of what its last turn generates."""
        return shown[: spans[-1][1]] if spans else shown

    def _flagged(self, shown: str, spans: Sequence[tuple[int, int]]) -> Tokens:
        encoded: Mapping[str, Any] = self.tokenizer(shown, add_special_tokens=False, return_offsets_mapping=True)
        inside = [any(begin <= start < end for begin, end in spans) for start, _ in encoded["offset_mapping"]]
        ids = tuple(encoded["input_ids"])
        for place in range(len(ids)):
            # marks may leave out the end of the turn, which is generated too
            after = place + 1
            if inside[place] and ids[place] not in self.end_ids and after < len(ids) and not inside[after]:
                end = self.turn_end
                if end and ids[after : after + len(end)] == end:
                    inside[after : after + len(end)] = [True] * len(end)
        whole = self.one_bos(ids)
        lead = len(whole) - len(ids)  # a beginning of sequence more, or some fewer
        trained = (*(False,) * lead, *inside) if lead >= 0 else tuple(inside[-lead:])
        return Tokens(whole, trained)

    def piece(self, messages: Messages, tools: Tools, *, opened: bool) -> Piece:
        """What is to be encoded of a conversation that will be asked for; kept in `written` until then."""
        shown = self._shown(messages, tools, opened=opened)
        self.written[_key(messages, tools, opened)] = shown
        return shown[0], False

    def _shown(self, messages: Messages, tools: Tools, *, opened: bool = False) -> Shown:
        known = self.written.get(_key(messages, tools, opened)) if self.written else None
        return self._rendered(messages, tools, opened) if known is None else known

    def _rendered(self, messages: Messages, tools: Tools, opened: bool) -> Shown:
        """A conversation through the template.

        Args:
            opened: with the beginning of the assistant's next turn.

        Raises: DataError where there is no template, or where it refuses the conversation.
        """
        template = self._template(tools)
        known = [{name: value for name, value in message.items() if value is not None} for message in messages]
        try:
            shown, spans = render_jinja_template(
                conversations=[known],
                tools=list(tools) if tools else None,
                chat_template=template,
                return_assistant_tokens_mask=marks_answers(template),
                add_generation_prompt=opened,
                **self.tokenizer.special_tokens_map,  # pyright: ignore[reportArgumentType]
            )
        except (TemplateError, TypeError, ValueError) as error:
            roles = ", ".join(str(message.get("role")) for message in messages)
            raise DataError(
                f"the chat template refuses the conversation ({roles}): {error}. Fix: the turns that it asks for, or "
                "another --chat-template"
            ) from error
        return shown[0], [(int(begin), int(end)) for begin, end in spans[0]] if spans else []

    def _template(self, tools: Tools) -> str:
        """The template; a tokenizer may have another one for tools."""
        if getattr(self.tokenizer, "chat_template", None) is None:
            raise DataError(NO_TEMPLATE)
        try:
            return self.tokenizer.get_chat_template(None, list(tools) if tools else None)
        except ValueError as error:  # several templates, and none by the name of default
            raise DataError(f"{error} Fix: --chat-template FILE.jinja") from error


def answering(messages: Messages, first: int = 0) -> list[int]:
    """Places of the assistant's turns from number `first` on, without one that answers nothing."""
    return [n for n, message in enumerate(messages) if message["role"] == "assistant" and n >= max(first, 1)]


def _key(messages: Messages, tools: Tools, opened: bool) -> str:
    return repr((messages, tools, opened))


def _differing(text: str, other: str) -> str:
    """Where `text` leaves `other`, with a little of what stands before."""
    place = next((n for n, (a, b) in enumerate(zip(text, other, strict=False)) if a != b), min(len(text), len(other)))
    return repr(text[max(place - 20, 0) : place + 30])


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
