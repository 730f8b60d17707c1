"""A tokenizer asked for one text at a time, which has encoded many of them together before."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence

from transformers import PreTrainedTokenizerBase

Piece = tuple[str, bool]
"""A text, and whether it is a whole one, which gets the tokens that the tokenizer puts around every text."""


class Encoder:
    """Ids of texts. A tokenizer spreads a list of them over all cores, which it cannot do with one."""

    def __init__(self, tokenizer: PreTrainedTokenizerBase) -> None:
        self._tokenizer = tokenizer
        self._known: Mapping[Piece, Sequence[int]] = {}

    def __call__(self, text: str, *, whole: bool) -> Sequence[int]:
        known = self._known.get((text, whole))
        return self._tokenizer(text, add_special_tokens=whole)["input_ids"] if known is None else known  # pyright: ignore[reportReturnType]

    def know(self, pieces: Iterable[Piece]) -> None:
        """Encode these pieces together, in place of those that were known before."""
        asked, known = set(pieces), {}
        for whole in (True, False):
            texts = [text for text, of_whole in asked if of_whole is whole]
            if texts:
                ids = self._tokenizer(texts, add_special_tokens=whole)["input_ids"]
                known |= {(text, whole): each for text, each in zip(texts, ids, strict=True)}  # pyright: ignore[reportArgumentType]
        self._known = known
