"""`scratch:NAME`: a small Llama and a character-level tokenizer in Hugging Face layout, made on the spot.

Nothing is downloaded, and what is saved loads in `AutoModelForCausalLM` and `AutoTokenizer` like any other model.
"""

from dataclasses import dataclass
from string import printable

import torch
from tokenizers import Regex, Tokenizer, decoders, models, pre_tokenizers
from transformers import LlamaConfig, LlamaForCausalLM, PreTrainedTokenizerFast

from oneloop.seeds import named_seed

SPECIAL = (PAD, EOS, UNKNOWN) = ("<pad>", "<eos>", "<unk>")


@dataclass(frozen=True)
class Scratch:
    """Shape of a model made from nothing."""

    hidden: int
    layers: int
    heads: int
    context: int = 512


SCRATCH = {"tiny": Scratch(hidden=96, layers=3, heads=4), "small": Scratch(hidden=256, layers=6, heads=8)}


def character_tokenizer() -> PreTrainedTokenizerFast:
    """One token per printable ASCII character, and three special ones."""
    vocabulary = {token: number for number, token in enumerate([*SPECIAL, *sorted(printable)])}
    tokenizer = Tokenizer(models.WordLevel(vocabulary, unk_token=UNKNOWN))
    tokenizer.pre_tokenizer = pre_tokenizers.Split(Regex(r"[\s\S]"), behavior="isolated")  # pyright: ignore[reportAttributeAccessIssue]
    tokenizer.decoder = decoders.Fuse()  # pyright: ignore[reportAttributeAccessIssue]
    return PreTrainedTokenizerFast(
        tokenizer_object=tokenizer,
        pad_token=PAD,
        eos_token=EOS,
        unk_token=UNKNOWN,
        clean_up_tokenization_spaces=False,
    )


def scratch_config(shape: Scratch, tokenizer: PreTrainedTokenizerFast) -> LlamaConfig:
    return LlamaConfig(
        vocab_size=len(tokenizer),
        hidden_size=shape.hidden,
        intermediate_size=shape.hidden * 3,
        num_hidden_layers=shape.layers,
        num_attention_heads=shape.heads,
        num_key_value_heads=shape.heads,
        max_position_embeddings=shape.context,
        pad_token_id=SPECIAL.index(PAD),
        eos_token_id=SPECIAL.index(EOS),
        bos_token_id=None,
        tie_word_embeddings=False,
        initializer_range=shape.hidden**-0.5 / 2,
    )


def scratch_model(shape: Scratch, tokenizer: PreTrainedTokenizerFast, seed: int) -> LlamaForCausalLM:
    """Random weights that depend on `seed` only; torch's own generator is left as it was."""
    config = scratch_config(shape, tokenizer)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(named_seed(seed, "scratch"))
        return LlamaForCausalLM(config)
