"""Single tokens as text: joined they are what the tokenizer decodes."""

import re

import pytest
from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers
from transformers import PreTrainedTokenizerFast

from oneloop.model.spelling import Spelling
from oneloop.model.tiny import character_tokenizer

TEXT = "Das Maß: 3 × 4 = 12, naïve 日本 🙂\n\tend"


def byte_level() -> PreTrainedTokenizerFast:
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    alphabet = pre_tokenizers.ByteLevel.alphabet()
    tokenizer.train_from_iterator([TEXT], trainers.BpeTrainer(vocab_size=270, initial_alphabet=alphabet))
    return PreTrainedTokenizerFast(tokenizer_object=tokenizer, eos_token="<|end|>")


def sentence_pieces() -> PreTrainedTokenizerFast:
    """Words with ▁ for a space, and single bytes for the rest, as Llama 2 has them."""
    words = ["<unk>", *(f"<0x{byte:02X}>" for byte in range(256)), "▁a", "▁b", "c"]
    tokenizer = Tokenizer(models.Unigram([(word, -1.0) for word in words], unk_id=0, byte_fallback=True))
    tokenizer.pre_tokenizer = pre_tokenizers.Metaspace()
    tokenizer.decoder = decoders.Sequence([decoders.Replace("▁", " "), decoders.ByteFallback(), decoders.Fuse()])
    return PreTrainedTokenizerFast(tokenizer_object=tokenizer, eos_token="</s>")


def test_byte_level_tokens_keep_their_spaces_and_show_broken_characters():
    tokenizer = byte_level()
    spell = Spelling(tokenizer)
    assert "".join(map(spell, tokenizer(" = 12, end\n\t")["input_ids"])) == " = 12, end\n\t"
    pieces = [spell(token) for token in tokenizer(TEXT)["input_ids"]]
    whole = re.sub(rb"\\x([0-9a-f]{2})", lambda found: bytes.fromhex(found[1].decode()), "".join(pieces).encode())
    assert whole.decode() == TEXT and "\ufffd" not in "".join(pieces)
    assert [spell(token) for token in tokenizer("é")["input_ids"]] in (["é"], ["\\xc3", "\\xa9"])
    assert spell(tokenizer.eos_token_id) == "<|end|>"


def test_sentence_pieces():
    tokenizer = sentence_pieces()
    spell = Spelling(tokenizer)
    assert [spell(token) for token in tokenizer("a bc")["input_ids"]] == [" a", " b", "c"]
    assert [spell(token) for token in tokenizer("é", add_special_tokens=False)["input_ids"]][-2:] == ["\\xc3", "\\xa9"]
    assert spell(tokenizer.eos_token_id) == "</s>"


@pytest.mark.parametrize("beyond", [100_000])
def test_characters_and_ids_without_a_name(beyond):
    tokenizer = character_tokenizer()
    spell = Spelling(tokenizer)
    assert "".join(map(spell, tokenizer("12 + 3 = ▁\n")["input_ids"])) == "12 + 3 = <unk>\n"
    assert spell(beyond) == f"<{beyond}>"
