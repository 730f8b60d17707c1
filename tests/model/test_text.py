"""What ends an answer: after plain text the tokenizer's end token, after messages what the chat template writes."""

import pytest

from oneloop.model.chat import turn_end
from oneloop.model.load import load_policy, load_tokenizer
from oneloop.model.text import Text, end_ids, name_ends
from oneloop.recipes.data import demonstrations, pairs

CHATML = (
    "{% for m in messages %}<|im_start|>{{ m.role }}\n{{ m.content }}<|im_end|>\n{% endfor %}"
    "{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
)
GEMMA = (
    "{% for m in messages %}<start_of_turn>{{ 'model' if m.role == 'assistant' else m.role }}\n"
    "{{ m.content | trim }}<end_of_turn>\n{% endfor %}{% if add_generation_prompt %}<start_of_turn>model\n{% endif %}"
)
LLAMA2 = (
    "{% for m in messages %}{% if m.role == 'user' %}[INST] {{ m.content }} [/INST]"
    "{% else %} {{ m.content }} {{ eos_token }}{% endif %}{% endfor %}"
)
PLAIN = (
    "{% for m in messages %}{{ m.role }}: {{ m.content }}\n{% endfor %}"
    "{% if add_generation_prompt %}assistant: {% endif %}"
)
STRICT = "{{ raise_exception('only tools here') }}"
QUESTION = [{"role": "user", "content": "1+1"}]


def chat(template: str, *special: str):
    tokenizer = load_tokenizer("scratch:tiny")
    tokenizer.add_special_tokens({"additional_special_tokens": list(special)})
    tokenizer.chat_template = template
    return tokenizer


def ended(tokenizer) -> Text:
    return Text(tokenizer, end_ids(load_policy("scratch:tiny"), tokenizer))


@pytest.mark.parametrize(
    ("template", "special", "end"),
    [
        (CHATML, ("<|im_start|>", "<|im_end|>"), ["<|im_end|>"]),
        (GEMMA, ("<start_of_turn>", "<end_of_turn>"), ["<end_of_turn>"]),
        (LLAMA2, (), [" ", "<eos>"]),
        (PLAIN, (), ["<eos>"]),
        (STRICT, (), ["<eos>"]),
    ],
    ids=["chatml", "gemma", "llama2", "no special token", "refuses"],
)
def test_an_answer_to_messages_ends_as_the_template_ends_a_turn(template, special, end) -> None:
    text = ended(chat(template, *special))
    tokens = text.tokenizer.convert_ids_to_tokens(text.completion("46", QUESTION))
    assert tokens == ["4", "6", *end]
    assert text.tokenizer.convert_ids_to_tokens(text.completion("46", "40+6=")) == ["4", "6", "<eos>"], "plain text"


def test_the_whole_is_what_the_template_says() -> None:
    """The slow oracle: the conversation rendered at once, up to its last special token."""
    text = ended(chat(CHATML, "<|im_start|>", "<|im_end|>"))
    prompt, _ = text.prompt(QUESTION)
    shown = text.tokenizer.apply_chat_template([*QUESTION, {"role": "assistant", "content": "2"}], tokenize=False)
    whole = text.tokenizer(shown.removesuffix("\n"), add_special_tokens=False)["input_ids"]
    assert [*prompt, *text.completion("2", QUESTION)] == whole


def test_sampling_stops_there_and_says_so_to_others() -> None:
    tokenizer, model = chat(CHATML, "<|im_start|>", "<|im_end|>"), load_policy("scratch:tiny")
    stop = tokenizer.convert_tokens_to_ids("<|im_end|>")
    assert end_ids(model, tokenizer) == (tokenizer.eos_token_id, stop)
    text = ended(tokenizer)
    assert text.decode(text.completion("46", QUESTION)) == "46"
    name_ends(model, text.end_ids)
    assert model.generation_config.eos_token_id == [tokenizer.eos_token_id, stop]


def test_rows_of_messages_get_it_in_sft_and_in_pairs() -> None:
    text = ended(chat(CHATML, "<|im_start|>", "<|im_end|>"))
    (stop,) = turn_end(text.tokenizer)
    rows = [{"prompt": QUESTION, "completion": "2", "chosen": "2", "rejected": "3"}]
    assert demonstrations(rows, text, None)[0][0].ids[-1] == stop
    (pair,) = pairs(rows, text, None)[0]
    assert pair.chosen[-1] == pair.rejected[-1] == stop
    assert demonstrations([rows[0] | {"prompt": "1+1="}], text, None)[0][0].ids[-1] == text.end_ids[0]


def test_without_a_template_there_is_no_turn() -> None:
    assert turn_end(load_tokenizer("scratch:tiny")) == ()
