"""Chat models too small to say anything, in the styles of three families: template, special tokens, several ends.

The templates are written here for the sake of what these families do, not copied from them.
"""

from dataclasses import dataclass
from pathlib import Path

import torch
from tokenizers.processors import TemplateProcessing
from transformers import AutoModelForCausalLM, Gemma3TextConfig, LlamaConfig, PretrainedConfig, Qwen3Config

from oneloop.model.load import load_tokenizer

LLAMA3 = (
    "{{ bos_token }}{% for m in messages %}<|start_header_id|>{{ m.role }}<|end_header_id|>\n\n"
    "{{ m.content | trim }}<|eot_id|>{% endfor %}"
    "{% if add_generation_prompt %}<|start_header_id|>assistant<|end_header_id|>\n\n{% endif %}"
)
"""Every turn alike, with its role in a header."""
QWEN3 = """\
{%- if tools %}<|im_start|>system
{{ tools | map(attribute='name') | join(' ') }}<|im_end|>
{% endif %}
{%- set asked = namespace(last=-1) %}
{%- for m in messages %}{% if m.role == 'user' %}{% set asked.last = loop.index0 %}{% endif %}{% endfor %}
{%- for m in messages %}
{{- '<|im_start|>' + m.role + '\\n' }}
{%- if m.role == 'assistant' and loop.index0 > asked.last and '</think>' not in m.content %}
{{- '<think>\\n\\n</think>\\n\\n' + m.content }}
{%- elif m.role == 'assistant' and loop.index0 < asked.last %}
{{- m.content.split('</think>')[-1].lstrip('\\n') }}
{%- else %}
{{- m.content }}
{%- endif %}
{{- '<|im_end|>\\n' }}
{%- endfor %}
{%- if add_generation_prompt %}
{{- '<|im_start|>assistant\\n' }}
{%- if enable_thinking is defined and enable_thinking is false %}
{{- '<think>\\n\\n</think>\\n\\n' }}
{%- endif %}
{%- endif %}"""
"""Thinking stays in the last turn only; `enable_thinking=false` writes an empty one into the prompt."""
GEMMA3 = """\
{{ bos_token }}
{%- if messages[0].role == 'system' %}
{%- set lead, turns = messages[0].content + '\\n\\n', messages[1:] %}
{%- else %}
{%- set lead, turns = '', messages %}
{%- endif %}
{%- for m in turns %}
{%- if (m.role == 'user') != (loop.index0 % 2 == 0) %}
{{- raise_exception('Conversation roles must alternate user/assistant/user/assistant/...') }}
{%- endif %}
{{- '<start_of_turn>' + ('model' if m.role == 'assistant' else m.role) + '\\n' }}
{{- (lead if loop.first else '') + m.content | trim }}
{{- '<end_of_turn>\\n' }}
{%- endfor %}
{%- if add_generation_prompt %}{{ '<start_of_turn>model\\n' }}{% endif %}"""
"""A system message goes into the first question; roles must alternate; a turn ends with another token than a text."""

SIZES = {
    "hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": 2, "num_key_value_heads": 1, "head_dim": 16,
    "intermediate_size": 48, "max_position_embeddings": 512,
}  # fmt: skip


@dataclass(frozen=True)
class Style:
    """What a family writes around its turns, and which of its tokens say so."""

    template: str
    config: type[PretrainedConfig]
    bos: str | None
    eos: str
    turn_end: str
    special: tuple[str, ...]
    plain: tuple[str, ...] = ()
    """Added tokens that are text all the same."""
    named_ends: tuple[str, ...] = ()
    """What generation_config.json names."""


STYLES = {
    "llama3": Style(
        LLAMA3,
        LlamaConfig,
        bos="<|begin_of_text|>",
        eos="<|eot_id|>",
        turn_end="<|eot_id|>",
        special=("<|begin_of_text|>", "<|end_of_text|>", "<|start_header_id|>", "<|end_header_id|>", "<|eot_id|>"),
        named_ends=("<|end_of_text|>", "<|eot_id|>"),
    ),
    "qwen3": Style(
        QWEN3,
        Qwen3Config,
        bos=None,
        eos="<|im_end|>",
        turn_end="<|im_end|>",
        special=("<|endoftext|>", "<|im_start|>", "<|im_end|>"),
        plain=("<think>", "</think>"),
        named_ends=("<|im_end|>", "<|endoftext|>"),
    ),
    "gemma3": Style(
        GEMMA3,
        Gemma3TextConfig,
        bos="<bos>",
        eos="<eos>",
        turn_end="<end_of_turn>",
        special=("<bos>", "<start_of_turn>", "<end_of_turn>"),
        named_ends=("<eos>",),
    ),
}


def chat_tokenizer(name: str):
    """One token per character, and the family's own; it begins every plain text with BOS where the family has one."""
    style, tokenizer = STYLES[name], load_tokenizer("scratch:tiny")
    tokenizer.add_special_tokens({"additional_special_tokens": list(style.special)})
    tokenizer.add_tokens(list(style.plain))
    tokenizer.eos_token = style.eos
    if style.bos is not None:
        tokenizer.bos_token = style.bos
        tokenizer.backend_tokenizer.post_processor = TemplateProcessing(
            single=f"{style.bos} $A", special_tokens=[(style.bos, tokenizer.bos_token_id)]
        )
    tokenizer.chat_template = style.template
    return tokenizer


def save_chat_model(folder: Path, name: str) -> Path:
    """A folder as one of the hub has it, with random weights."""
    style, tokenizer = STYLES[name], chat_tokenizer(name)
    ends = tokenizer.convert_tokens_to_ids(list(style.named_ends))
    config = style.config(
        **SIZES,
        vocab_size=len(tokenizer),
        bos_token_id=tokenizer.bos_token_id,
        eos_token_id=tokenizer.eos_token_id,
        pad_token_id=tokenizer.pad_token_id,
    )
    torch.manual_seed(0)
    model = AutoModelForCausalLM.from_config(config)
    model.generation_config.update(eos_token_id=ends, do_sample=True, top_k=20, repetition_penalty=1.1)
    model.save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    return folder
