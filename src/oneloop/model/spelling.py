"""Single tokens as a person reads them, spaces and broken bytes included."""

from __future__ import annotations

import json
import re

from transformers import PreTrainedTokenizerBase

_BYTE = re.compile(r"<0x([0-9A-Fa-f]{2})>")


class Spelling:
    """A token id to its text. Bytes that are no character by themselves are written as \\xNN.

    Decoding one id alone loses the space in front of a word in some vocabularies, and half a character in others.
    """

    def __init__(self, tokenizer: PreTrainedTokenizerBase) -> None:
        self._tokenizer, self._known = tokenizer, {}
        fast = getattr(tokenizer, "backend_tokenizer", None)
        decoder = json.dumps(json.loads(fast.to_str()).get("decoder")) if fast is not None else ""
        self._bytes = _byte_alphabet() if '"ByteLevel"' in decoder else {}

    def __call__(self, token: int) -> str:
        if token not in self._known:
            self._known[token] = self._spelled(token)
        return self._known[token]

    def _spelled(self, token: int) -> str:
        piece = self._tokenizer.convert_ids_to_tokens(token)
        if not isinstance(piece, str):
            return f"<{token}>"  # beyond the vocabulary: some models have more outputs than their tokenizer has names
        if token in self._tokenizer.all_special_ids or token in self._tokenizer.added_tokens_decoder:
            return piece
        if self._bytes and all(character in self._bytes for character in piece):
            return bytes(self._bytes[character] for character in piece).decode("utf-8", "backslashreplace")
        if byte := _BYTE.fullmatch(piece):
            return bytes.fromhex(byte[1]).decode("utf-8", "backslashreplace")
        return piece.replace("▁", " ")


def _byte_alphabet() -> dict[str, int]:
    """How byte-level vocabularies write each byte: printable Latin-1 as itself, the others from U+0100 on."""
    plain = [*range(0x21, 0x7F), *range(0xA1, 0xAD), *range(0xAE, 0x100)]
    others = [byte for byte in range(256) if byte not in plain]
    return {chr(byte): byte for byte in plain} | {chr(256 + place): byte for place, byte in enumerate(others)}
