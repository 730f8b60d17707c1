"""Conversations as ids: what is trained, one beginning of sequence, ends of turns; in the styles of three families."""

import json
from dataclasses import replace

import pytest
import torch
from tokenizers import Tokenizer, decoders, models, pre_tokenizers
from transformers import AutoTokenizer, PreTrainedTokenizerFast

from chat_models import LLAMA3, QWEN3, STYLES, chat_tokenizer
from oneloop.algorithms import SFT
from oneloop.batch import Size
from oneloop.errors import ConfigError, DataError
from oneloop.experience.demonstrations import demonstration_batch
from oneloop.model.chat import templated
from oneloop.model.learner import Learner, Optimization
from oneloop.model.load import load_policy
from oneloop.model.template import read_template, read_variables, with_defaults
from oneloop.model.text import Text
from oneloop.types import Tokens

NAMES = list(STYLES)


def said(role: str, content: str) -> dict[str, str]:
    return {"role": role, "content": content}


TALK = [said("user", "1+1"), said("assistant", "2"), said("user", "and 3"), said("assistant", "it is 5")]
THOUGHT = [said("user", "1+1"), said("assistant", "<think>\nadd\n</think>\n\n2"), said("user", "+3"),
           said("assistant", "<think>\nmore\n</think>\n\n5")]  # fmt: skip


def text_of(name: str, **changes) -> Text:
    tokenizer = chat_tokenizer(name)
    for field, value in changes.items():
        setattr(tokenizer, field, value)
    turn_end = tokenizer.convert_tokens_to_ids(STYLES[name].turn_end)
    return Text(tokenizer, tuple(dict.fromkeys((tokenizer.eos_token_id, turn_end))))


def shown(text: Text, ids) -> str:
    return text.tokenizer.decode(list(ids), skip_special_tokens=False)


def marked(text: Text, row: Tokens) -> str:
    """The row with what is trained in brackets."""
    pieces, before = [], False
    for number, trained in zip(row.ids, row.trained, strict=True):
        pieces += ["[" if trained else "]"] * (trained != before) + [shown(text, [number])]
        before = trained
    return "".join(pieces) + "]" * before


WANTED = {
    "llama3": (
        "<|begin_of_text|><|start_header_id|>user<|end_header_id|>\n\n1+1<|eot_id|>"
        "<|start_header_id|>assistant<|end_header_id|>\n\n[2<|eot_id|>]"
        "<|start_header_id|>user<|end_header_id|>\n\nand 3<|eot_id|>"
        "<|start_header_id|>assistant<|end_header_id|>\n\n[it is 5<|eot_id|>]"
    ),
    "gemma3": (
        "<bos><start_of_turn>user\n1+1<end_of_turn>\n<start_of_turn>model\n[2<end_of_turn>]\n"
        "<start_of_turn>user\nand 3<end_of_turn>\n<start_of_turn>model\n[it is 5<end_of_turn>]"
    ),
}


@pytest.mark.parametrize("name", WANTED)
def test_what_the_assistant_says_is_trained_and_nothing_else(name: str) -> None:
    """No template here has generation marks."""
    text = text_of(name)
    (row,) = text.demonstrations({"messages": TALK})
    assert marked(text, row) == WANTED[name]
    assert text.notes == ()
    (other,) = text.demonstrations({"prompt": TALK[:3], "completion": TALK[3:]})
    assert other.ids == row.ids
    assert marked(text, other).count("[") == 1 and marked(text, other).endswith(WANTED[name][-20:])


def test_a_template_that_rewrites_history_gives_a_row_a_turn() -> None:
    """Each turn is trained on the conversation as it stood when it was generated, its own thinking included."""
    text = text_of("qwen3")
    rows = text.demonstrations({"messages": THOUGHT})
    assert [marked(text, row) for row in rows] == [
        "<|im_start|>user\n1+1<|im_end|>\n<|im_start|>assistant\n[<think>\nadd\n</think>\n\n2<|im_end|>]",
        "<|im_start|>user\n1+1<|im_end|>\n<|im_start|>assistant\n2<|im_end|>\n<|im_start|>user\n+3<|im_end|>\n"
        "<|im_start|>assistant\n[<think>\nmore\n</think>\n\n5<|im_end|>]",
    ]
    for row, place in zip(rows, (1, 3), strict=True):
        assert row.ids[: row.trained.index(True)] == text.prompt(THOUGHT[:place])[0], "what the engine reads"
    (note,) = text.notes
    assert note.startswith("1 conversations became 2 rows")


def test_one_turn_needs_no_split() -> None:
    text = text_of("qwen3")
    (row,) = text.demonstrations({"messages": THOUGHT[:2]})
    assert marked(text, row).endswith("assistant\n[<think>\nadd\n</think>\n\n2<|im_end|>]") and text.notes == ()


@pytest.mark.parametrize("name", NAMES)
def test_the_slow_oracle(name: str) -> None:
    """Each turn by transformers alone: the chat up to it with the generation prompt, and the chat through it."""
    text = text_of(name)
    trained = []
    for row in text.demonstrations({"messages": TALK}):
        trained += [number for number, flag in zip(row.ids, row.trained, strict=True) if flag]
    wanted = []
    for place in (1, 3):
        before = text.tokenizer.apply_chat_template(TALK[:place], add_generation_prompt=True, return_dict=False)
        through = text.tokenizer.apply_chat_template(TALK[: place + 1], return_dict=False)
        assert through[: len(before)] == before
        end = text.tokenizer.convert_tokens_to_ids(STYLES[name].turn_end)
        wanted += through[len(before) : through.index(end, len(before)) + 1]
    assert trained == wanted


@pytest.mark.parametrize("name", NAMES)
def test_prompts_pairs_and_demonstrations_are_one_text(name: str) -> None:
    """SFT, preferences and sampling read the same ids before an answer, and the same answer ids."""
    text = text_of(name)
    row = {"prompt": TALK[:1], "completion": TALK[1:2], "chosen": TALK[1:2], "rejected": [said("assistant", "3")]}
    ids, (chosen, rejected) = text.answers(row, ("chosen", "rejected"))
    assert ids == text.prompt(TALK[:1])[0]
    (demonstration,) = text.demonstrations(row)
    assert demonstration.ids == (*ids, *chosen)
    assert shown(text, rejected) == shown(text, chosen).replace("2", "3")
    assert shown(text, chosen).endswith("2" + STYLES[name].turn_end)
    assert text.decode(chosen).endswith("2")


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("writes", [True, False], ids=["template writes it", "template does not"])
def test_one_beginning_of_sequence_everywhere(name: str, writes: bool) -> None:
    """None doubled, none lost, whether template, tokenizer or text brings it."""
    template = STYLES[name].template if writes else STYLES[name].template.replace("{{ bos_token }}", "")
    text = text_of(name, chat_template=template)
    bos = text.tokenizer.bos_token_id
    lead = "" if bos is None else text.tokenizer.bos_token
    rows = [
        text.prompt("1+1=")[0],
        text.prompt(lead + "1+1=")[0],
        text.prompt(TALK[:1])[0],
        text.demonstrations({"text": "1+1=2"})[0].ids,
        text.demonstrations({"text": lead + "1+1=2"})[0].ids,
        text.demonstrations({"prompt": "1+1=", "completion": "2"})[0].ids,
        *(row.ids for row in text.demonstrations({"messages": TALK})),
        *(row.ids for row in text.demonstrations({"prompt": TALK[:1], "completion": TALK[1:2]})),
        text.answers({"prompt": TALK[:1], "chosen": TALK[1:2]}, ("chosen",))[0],
    ]
    for row in rows:
        assert row.count(bos) == (bos is not None)
        assert bos is None or row[0] == bos


def test_plain_text_is_trained_whole_but_for_its_beginning() -> None:
    text = text_of("gemma3")
    assert marked(text, text.demonstrations({"text": "ab"})[0]) == "<bos>[ab<eos>]"
    assert marked(text, text.demonstrations({"text": "ab<eos>"})[0]) == "<bos>[ab<eos>]", "its end is there already"
    assert marked(text_of("qwen3"), text_of("qwen3").demonstrations({"text": "ab"})[0]) == "[ab<|im_end|>]"
    assert marked(text, text.demonstrations({"prompt": "ab", "completion": "c"})[0]) == "<bos>ab[c<eos>]"


def test_generation_marks_decide_where_there_are_some() -> None:
    """With the end of the turn, which these marks leave out; and without the reply the user quotes."""
    template = LLAMA3.replace(
        "{{ m.content | trim }}",
        "{% if m.role == 'assistant' %}{% generation %}{{ m.content | trim }}{% endgeneration %}"
        "{% else %}{{ m.content | trim }}{% endif %}",
    )
    text = text_of("llama3", chat_template=template)
    (row,) = text.demonstrations({"messages": TALK})
    assert marked(text, row) == WANTED["llama3"]
    (last,) = text.demonstrations({"prompt": TALK[:3], "completion": TALK[3:]})
    assert last.ids == row.ids and marked(text, last).count("[") == 1
    wider = template.replace("{% endgeneration %}", "<|eot_id|>{% endgeneration %}").replace(
        "{% endif %}<|eot_id|>", "<|eot_id|>{% endif %}"
    )
    text = text_of("llama3", chat_template=wider)
    (row,) = text.demonstrations({"messages": TALK})
    assert marked(text, row) == WANTED["llama3"], "marks that hold the end say the same"


def test_marks_in_a_template_that_rewrites_history() -> None:
    begin, end = "{%- generation %}", "{%- endgeneration %}"
    marks = QWEN3.replace("{{- m.content }}\n{%- endif %}", begin + "{{- m.content }}" + end + "\n{%- endif %}")
    marks = marks.replace("{{- m.content.split", begin + "{{- m.content.split")
    marks = marks.replace("lstrip('\\n') }}", "lstrip('\\n') }}" + end)
    assert marks.count(begin) == marks.count(end) == 2
    text = text_of("qwen3", chat_template=marks)
    plain = text_of("qwen3")
    rows = [marked(text, row).removesuffix("\n") for row in text.demonstrations({"messages": THOUGHT})]
    assert rows == [marked(plain, row) for row in plain.demonstrations({"messages": THOUGHT})]


def test_variables_change_the_prompt_and_travel_with_the_model(tmp_path) -> None:
    off = templated(chat_tokenizer("qwen3"), variables=["enable_thinking=false"])
    text = Text(off, text_of("qwen3").end_ids)
    assert text.prompt(TALK[:1])[1].endswith("assistant\n<think>\n\n</think>\n\n")
    (row,) = text.demonstrations({"messages": TALK[:2]})
    assert marked(text, row).endswith("</think>\n\n[2<|im_end|>]"), "what the prompt holds is not trained"
    off.save_pretrained(tmp_path)
    saved = AutoTokenizer.from_pretrained(tmp_path)
    assert Text(saved, text.end_ids).prompt(TALK[:1]) == text.prompt(TALK[:1])
    on = templated(saved, variables=["enable_thinking=true"])
    assert Text(on, text.end_ids).prompt(TALK[:1])[1].endswith("assistant\n"), "a later word counts more"


@pytest.mark.parametrize("template", ["  {% if x %}a{% endif %}\n  b", "\na{{ x }}", "{%- if x %}c{% endif -%}\n d"])
def test_defaults_change_nothing_else(template: str) -> None:
    tokenizer = chat_tokenizer("qwen3")

    def rendered(source: str, **values) -> str:
        return tokenizer.apply_chat_template(TALK, chat_template=source, tokenize=False, **values)

    for value in (True, False, 3, 2.5, 'a "quoted" \\ é😀 %} text'):
        assert rendered(with_defaults(template, {"x": value})) == rendered(template, x=value)


def test_variables_of_every_type() -> None:
    words = ["a=true", "b=False", "c=3", "d=-2.5", "e=high", "f=", "g=x=y", "h=007", "i=1e999"]
    values = {"a": True, "b": False, "c": 3, "d": -2.5, "e": "high", "f": "", "g": "x=y", "h": "007", "i": "1e999"}
    assert read_variables(words) == values


@pytest.mark.parametrize(
    ("words", "says"),
    [
        (["thinking"], "NAME=VALUE"),
        (["a-b=1"], "NAME=VALUE"),
        (["a=1", "a=2"], "twice"),
        (["messages=x"], "data gives"),
    ],
)
def test_variables_that_are_none(words: list[str], says: str) -> None:
    with pytest.raises(ConfigError, match=says):
        read_variables(words)


@pytest.mark.parametrize(
    ("content", "says"),
    [
        (b"a\n{% if x %}\nb", r"chat\.jinja:3: not Jinja .*endif"),
        (b"a\n\n{{ x | nothing }}", r"chat\.jinja:3: not Jinja .*nothing"),
        (b"", "empty"),
        (b"\xff\xfe", "not UTF-8"),
        (None, "No such file"),
    ],
)
def test_files_that_are_no_template(tmp_path, content: bytes | None, says: str) -> None:
    path = tmp_path / "chat.jinja"
    if content is not None:
        path.write_bytes(content)
    with pytest.raises(ConfigError, match=says):
        read_template(str(path))


def test_a_template_from_a_file(tmp_path) -> None:
    path = tmp_path / "chat.jinja"
    path.write_text(LLAMA3.replace("{{ m.content", "{% generation %}{{ m.content") + "{% endgeneration %}" * 0)
    with pytest.raises(ConfigError, match="endgeneration"):
        templated(chat_tokenizer("llama3"), str(path))
    path.write_text(LLAMA3)
    bare = chat_tokenizer("llama3")
    bare.chat_template = None
    text = Text(templated(bare, str(path)), text_of("llama3").end_ids)
    assert text.prompt(TALK) == text_of("llama3").prompt(TALK)
    assert bare.chat_template is None, "the tokenizer that was given stays as it is"
    with pytest.raises(ConfigError, match="no chat template that could read them"):
        templated(bare, variables=["enable_thinking=false"])


def test_without_a_template_three_ways_on() -> None:
    text = text_of("llama3", chat_template=None)
    for row in ({"messages": TALK}, {"prompt": TALK[:1], "completion": "2"}):
        with pytest.raises(DataError, match=r"--chat-template .*chat model .*--columns"):
            text.demonstrations(row)


@pytest.mark.parametrize(
    ("name", "messages", "says"),
    [
        ("gemma3", [said("user", "a"), said("user", "b"), said("assistant", "c")], "user, user.*roles must alternate"),
        ("gemma3", [said("user", "a"), said("assistant", "b"), said("assistant", "c")], "roles must alternate"),
        ("qwen3", [said("user", "a"), {"role": "assistant", "content": 5}], "refuses"),
    ],
)
def test_a_template_that_refuses_is_quoted(name: str, messages, says: str) -> None:
    with pytest.raises(DataError, match=says):
        text_of(name).demonstrations({"messages": messages})


def test_a_template_that_writes_turns_otherwise_than_it_begins_them() -> None:
    opened = LLAMA3.replace(
        "assistant<|end_header_id|>\n\n{% endif %}", "assistant<|end_header_id|>\n\n<think>{% endif %}"
    )
    with pytest.raises(DataError, match="not write an assistant's turn as it begins one"):
        text_of("llama3", chat_template=opened).demonstrations({"messages": TALK})


def test_answers_are_one_message_of_the_assistant() -> None:
    text = text_of("llama3")
    with pytest.raises(DataError, match="one message of the assistant"):
        text.answers({"prompt": TALK[:1], "chosen": TALK[1:]}, ("chosen",))
    with pytest.raises(DataError, match="prompt is text and the answer a list"):
        text.answers({"prompt": "1+1", "chosen": TALK[1:2]}, ("chosen",))


def test_rows_without_a_word_of_the_assistant_are_counted() -> None:
    text = text_of("llama3")
    (row,) = text.demonstrations({"messages": TALK[:1]})
    assert not any(row.trained)
    assert text.notes == ("1 rows have no word of the assistant's to train on and are left out",)
    (greeted,) = text.demonstrations({"messages": [said("assistant", "hi"), *TALK[:2]]})
    assert marked(text, greeted).count("[") == 1, "a greeting answers nothing: it is read only"


def test_tools_reach_the_template() -> None:
    text = text_of("qwen3")
    tools = [{"name": "adder"}]
    assert text.prompt(TALK[:1], tools)[1].startswith("<|im_start|>system\nadder<|im_end|>")
    (row,) = text.demonstrations({"messages": TALK[:2], "tools": tools})
    ids, _ = text.answers({"prompt": TALK[:1], "chosen": TALK[1:2], "tools": tools}, ("chosen",))
    assert row.ids[: len(ids)] == ids == text.prompt(TALK[:1], tools)[0]


def test_without_an_end_of_turn_each_answer_gets_the_end_of_texts() -> None:
    """The template writes nothing special behind a turn: what is sampled ends with EOS, which history does not hold."""
    plain = "{% for m in messages %}{{ m.role }}: {{ m.content }}\n{% endfor %}" \
            "{% if add_generation_prompt %}assistant: {% endif %}"  # fmt: skip
    text = text_of("gemma3", chat_template=plain)
    assert [marked(text, row) for row in text.demonstrations({"messages": TALK})] == [
        "<bos>user: 1+1\nassistant: [2<eos>]",
        "<bos>user: 1+1\nassistant: 2\nuser: and 3\nassistant: [it is 5<eos>]",
    ]


def merging_tokenizer() -> PreTrainedTokenizerFast:
    """Merges ": " + "2" → ": 2" and "a" + "b" → "ab": borders inside tokens."""
    pieces = ["<eos>", *"abcuser123:\n ", " 2", "ab"]
    vocabulary = {piece: number for number, piece in enumerate(dict.fromkeys(pieces))}
    tokenizer = Tokenizer(models.BPE(vocabulary, merges=[(" ", "2"), ("a", "b")]))
    tokenizer.pre_tokenizer = pre_tokenizers.Split("\n", behavior="isolated")
    tokenizer.decoder = decoders.Fuse()
    return PreTrainedTokenizerFast(tokenizer_object=tokenizer, eos_token="<eos>", clean_up_tokenization_spaces=False)


def test_a_border_inside_a_token_is_counted_and_never_moves() -> None:
    tokenizer = merging_tokenizer()
    text = Text(tokenizer, (tokenizer.eos_token_id,))
    (row,) = text.demonstrations({"prompt": "1a", "completion": "b"})
    assert tokenizer.convert_ids_to_tokens(list(row.ids)) == ["1", "a", "b", "<eos>"], "as a sampler would have it"
    text.demonstrations({"prompt": "1a", "completion": "c"})
    (note,) = text.notes
    assert note.startswith("1 answers begin inside a token")
    tokenizer.chat_template = (
        "{% for m in messages %}{{ m.role[0] }}: {{ m.content }}<eos>{% endfor %}"
        "{% if add_generation_prompt %}a: {% endif %}"
    )
    (turn,) = Text(tokenizer, (tokenizer.eos_token_id,)).demonstrations({"messages": TALK[:2]})
    said_ids = [number for number, flag in zip(turn.ids, turn.trained, strict=True) if flag]
    assert tokenizer.convert_ids_to_tokens(said_ids) == ["2", "<eos>"], "not the ' 2' that nobody could sample"


def test_sampled_text_keeps_its_thinking() -> None:
    """Marks of thinking are text; the end is not, whichever of several it is."""
    text = text_of("qwen3")
    encoded = text.chat.encode("<think>\nadd\n</think>\n\n2")
    for end in text.end_ids:
        assert text.decode((*encoded, end)) == "<think>\nadd\n</think>\n\n2"
    assert text.decode(encoded) == "<think>\nadd\n</think>\n\n2", "cut by the length limit: nothing to take off"


def turns(text: Text, name: str) -> list[Tokens]:
    return text.demonstrations({"messages": TALK}) + text.demonstrations({"messages": TALK[:2]})


@pytest.mark.parametrize("packs", [True, False])
def test_the_loss_is_the_mean_over_trained_tokens(packs: bool) -> None:
    """Several turns in one row: SFT = −mean log π over what the assistant says, packed or padded, by a slow loop."""
    text, model = text_of("gemma3"), load_policy("scratch:tiny", seed=1)
    model.resize_token_embeddings(len(text.tokenizer), mean_resizing=False)
    rows = turns(text, "gemma3")
    assert any(False in row.trained[row.trained.index(True) : -1] for row in rows), "a turn of the user's in between"
    learner = Learner(
        model, optimization=Optimization(learning_rate=1.0, critic_learning_rate=1.0, total_updates=1), entropy="none"
    )
    if not packs:
        learner._read = replace(learner._read, backbone=replace(learner._backbone, packs=False))
    batch = SFT.prepare(demonstration_batch(rows), learner)
    wanted = []
    for row in rows:
        table = model(torch.tensor([row.ids])).logits[0].log_softmax(-1)
        wanted += [-table[t - 1, row.ids[t]] for t in range(len(row.ids)) if row.trained[t]]
    expected = torch.stack(wanted)
    assert batch.size.tokens == len(expected)
    found = SFT.loss(learner.policy(batch), batch, batch.size).value
    torch.testing.assert_close(found, expected.mean())
    split = sum(SFT.loss(learner.policy(m), m, batch.size).value for m in batch.microbatches(1))
    torch.testing.assert_close(split, found)


def test_a_batch_ends_each_row_with_its_last_trained_token() -> None:
    batch = demonstration_batch(
        [Tokens((5, 6, 7, 8, 9), (False, True, False, True, False)), Tokens((5, 6), (False, True))]
    )
    assert batch.mask.tolist() == [[False, True, False, True], [False, True, False, False]]
    assert batch.rewards.tolist() == [[0.0, 0.0, 0.0, 1.0], [0.0, 1.0, 0.0, 0.0]]
    assert batch.lengths.tolist() == [4, 2] and batch.size == Size(3, 2)


def test_flags_that_do_not_fit() -> None:
    from oneloop.experience.pack import Row, collate

    with pytest.raises(ValueError, match="3 flags for 2 tokens"):
        Tokens((1, 2), (True, True, True))
    for chosen in ([True], [False, False]):
        with pytest.raises(ValueError, match="flags for 2 actions"):
            collate([Row(prompt=[1], actions=[2, 3], chosen=chosen, group=0, reward=1.0)])


def test_messages_as_parquet_has_them() -> None:
    """Every message has every key there, None where it has none; and tools come as JSON says."""
    text = text_of("qwen3")
    wide = [{**message, "tool_calls": None} for message in TALK]
    assert text.demonstrations({"messages": wide, "tools": None}) == text.demonstrations({"messages": TALK})
    assert json.loads(json.dumps(TALK)) == TALK
