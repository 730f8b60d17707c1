"""Model folders whose answers have known lengths in every engine, at the cost of any Llama model of that shape.

The body's outputs are scaled until the residual stream stays what the embedding put there. A token of phase c has the
embedding e_c (orthonormal), and the head reads from e_c: the tokens of phase c + 1, all equally likely, and the end
token with a probability of its own. The model is a Markov chain over phases, and phase c means "c tokens so far":
P(end | c) is the hazard of the wanted lengths at c + 1. No engine needs a special case to sample ragged lengths.
"""

from __future__ import annotations

from itertools import pairwise
from math import erf, exp, inf, log, sqrt
from pathlib import Path
from random import Random

import torch
from cases.values import Case, Lengths, Shape
from tokenizers import Tokenizer, models, pre_tokenizers
from transformers import (
    LlamaConfig,
    LlamaForCausalLM,
    LlamaForSequenceClassification,
    PreTrainedModel,
    PreTrainedTokenizerFast,
)

PAD, BOS, EOS = 0, 1, 2
SPECIAL = 3
"""Ids below this are special tokens; id n from here on is the word `tn`."""
SURE, NEVER = 20.0, -60.0
"""Logits, above that of a token of a wrong phase: of a token of the right one, and of an end that must not come."""


def phases_of(case: Case) -> int:
    return 32 if case.ending == "never" else case.lengths.high


def tokens_of(phase: int, phases: int, vocabulary: int) -> range:
    """The tokens of a phase."""
    return range(SPECIAL + phase, vocabulary, phases)


def hazards(lengths: Lengths) -> list[float]:
    """P(length = n | length ≥ n) for n = 1 … high."""

    def below(n: float) -> float:
        return 0.5 * (1 + erf((log(n) - log(lengths.median)) / (lengths.sigma * sqrt(2))))

    edges = [0.0, *(0.0 if n < lengths.low else below(n + 0.5) for n in range(1, lengths.high)), 1.0]
    return [(after - before) / (1 - before) for before, after in pairwise(edges)]


def draw_length(lengths: Lengths, rng: Random) -> int:
    if lengths.fixed:
        return lengths.high
    drawn = round(exp(rng.gauss(log(lengths.median), lengths.sigma)))
    return min(max(drawn, lengths.low), lengths.high)


def _end_logits(case: Case, phases: int, width: int) -> list[float]:
    """By phase, in the scale in which a token of the next phase has SURE; `width` tokens share the rest."""
    if case.ending == "never":
        return [NEVER] * phases
    chances = [0.0] * (phases - 1) + [1.0] if case.ending == "counted" else hazards(case.lengths)
    odds = [p / (1 - p) if p < 1 else inf for p in chances]
    return [NEVER if o == 0 else min(SURE + log(width * o), 3 * SURE) for o in odds]


def word_tokenizer(vocabulary: int) -> PreTrainedTokenizerFast:
    """Words `t3`, `t4`, … between spaces."""
    words = {"<pad>": PAD, "<bos>": BOS, "<eos>": EOS} | {f"t{n}": n for n in range(SPECIAL, vocabulary)}
    tokenizer = Tokenizer(models.WordLevel(words, unk_token="<pad>"))
    tokenizer.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    return PreTrainedTokenizerFast(
        tokenizer_object=tokenizer,
        pad_token="<pad>",
        bos_token="<bos>",
        eos_token="<eos>",
        clean_up_tokenization_spaces=False,
    )


@torch.no_grad()
def chain_model(case: Case) -> LlamaForCausalLM:
    shape, phases = case.shape, phases_of(case)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(case.seed)
        model = LlamaForCausalLM(_config(shape))
        basis = torch.linalg.qr(torch.randn(shape.hidden, shape.hidden))[0]
    for layer in model.model.layers:
        layer.self_attn.o_proj.weight.mul_(1e-3)
        layer.mlp.down_proj.weight.mul_(1e-3)
    if phases >= shape.hidden:
        raise ValueError(f"{case.name}: {phases} phases need a hidden size above that, not {shape.hidden}")
    token_phase = (torch.arange(shape.vocabulary) - SPECIAL) % phases
    embedding = basis[token_phase]
    embedding[:SPECIAL] = basis[phases]  # a direction that no phase has
    # the norms make every stream √hidden long
    scale = SURE / sqrt(shape.hidden)
    width = (shape.vocabulary - SPECIAL) // phases
    ends = torch.tensor(_end_logits(case, phases, width)) / sqrt(shape.hidden)
    # a tied head can only repeat the phase, which is all that a model without an end needs
    head = scale * (embedding if shape.tied else basis[(token_phase - 1) % phases])
    head[EOS] = ends @ basis[:phases]
    head[PAD] = head[BOS] = torch.full_like(ends, NEVER / sqrt(shape.hidden)) @ basis[:phases]
    model.lm_head.weight.copy_(head)
    if not shape.tied:
        model.model.embed_tokens.weight.copy_(embedding)
    return model


def _config(shape: Shape, **others: int) -> LlamaConfig:
    return LlamaConfig(
        vocab_size=shape.vocabulary,
        hidden_size=shape.hidden,
        intermediate_size=shape.intermediate,
        num_hidden_layers=shape.layers,
        num_attention_heads=shape.heads,
        num_key_value_heads=shape.heads,
        max_position_embeddings=shape.context,
        tie_word_embeddings=shape.tied,
        pad_token_id=PAD,
        bos_token_id=BOS,
        eos_token_id=EOS,
        **others,
    )


def scoring_model(case: Case) -> LlamaForSequenceClassification:
    """The chain's body below a score head of random numbers: every engine starts from the same one."""
    chain = chain_model(case)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(case.seed)
        model = LlamaForSequenceClassification(_config(case.shape, num_labels=1))
    model.model.load_state_dict(chain.model.state_dict())
    return model


def model_folder(case: Case, cache: Path) -> Path:
    """The case's model and tokenizer in Hugging Face layout, made once."""
    ending = case.ending if case.ending == "never" else f"{case.ending}-{case.lengths.low}-{case.lengths.high}"
    scores = case.kind == "reward_model"
    folder = cache / "models" / f"{case.shape.name}-{'scores' if scores else ending}"
    if not (folder / "tokenizer.json").is_file():
        model: PreTrainedModel = scoring_model(case) if scores else chain_model(case)
        model.save_pretrained(folder)
        word_tokenizer(case.shape.vocabulary).save_pretrained(folder)
    return folder
