"""Chat models in the styles of three families: from their folders through SFT, preferences, sampling and evaluation."""

import json
from dataclasses import replace
from pathlib import Path

import pytest
import torch

from chat_models import STYLES, chat_tokenizer, save_chat_model
from oneloop.config import Run, default_run
from oneloop.errors import ConfigError, DataError
from oneloop.experience.rollouts import Rollouts
from oneloop.model.load import load_policy, load_tokenizer
from oneloop.recipes.build import Parts, assemble
from oneloop.recipes.evaluate import Exam, evaluate
from oneloop.recipes.execute import execute
from oneloop.recipes.inputs import read_inputs
from oneloop.recipes.resolve import kind_of, resolved
from oneloop.record.reader import read_run
from oneloop.rollout.engine import Engine
from oneloop.types import Sampling, StopReason
from toy_models import Memory, Silent

NAMES = list(STYLES)


MESSAGES = {
    "grpo": {"prompt": [{"role": "user", "content": "1+1="}], "answer": "2"},
    "sft": {"messages": [{"role": "user", "content": "1+1="}, {"role": "assistant", "content": "2"}]},
    "dpo": {"prompt": [{"role": "user", "content": "1+1="}], "chosen": "2", "rejected": "3"},
}


@pytest.mark.parametrize("method", MESSAGES)
def test_messages_without_a_template_are_told_before_weights_are_loaded(method, tmp_path, monkeypatch) -> None:
    """For training's rows, its held-out rows, and those of an evaluation."""

    def load(*arguments, **options):
        raise AssertionError("weights are loaded")

    monkeypatch.setattr("oneloop.recipes.build.load_policy", load)
    monkeypatch.setattr("oneloop.recipes.evaluate.load_policy", load)
    plain = {name: value if isinstance(value, str) else "1+1=" for name, value in MESSAGES[method].items()}
    if method == "sft":
        plain = {"prompt": "1+1=", "completion": "2"}
    for name, rows in {"chat": [MESSAGES[method]], "text": [plain]}.items():
        (tmp_path / f"{name}.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    chats, texts = f"{tmp_path / 'chat.jsonl'}", f"{tmp_path / 'text.jsonl'}"
    reward = ("exact_match",) if method == "grpo" else ()
    run = replace(default_run(method), model="scratch:tiny", reward=reward, steps=1)
    fixes = r"chat\.jsonl:1: .*--chat-template FILE\.jinja.*a chat model for --model.*--columns NAME=prompt"
    for given in (replace(run, data=chats), replace(run, data=texts, eval_data=chats)):
        with pytest.raises(DataError, match=fixes):
            execute(replace(given, out=str(tmp_path / "run"), overwrite=True), Silent())
    with pytest.raises(DataError, match=fixes):
        evaluate("scratch:tiny", Exam(data=chats, reward=reward, kind=kind_of(resolved(run))))
    with pytest.raises(AssertionError, match="weights are loaded"):
        execute(replace(run, data=texts, out=str(tmp_path / "run"), overwrite=True), Silent())


def said(role: str, content: str) -> dict[str, str]:
    return {"role": role, "content": content}


def talk(number: int) -> list[dict[str, str]]:
    return [
        said("user", f"{number}+1"),
        said("assistant", f"<think>\nadd\n</think>\n\n{number + 1}"),
        said("user", "and 2 more"),
        said("assistant", f"<think>\nmore\n</think>\n\n{number + 3}"),
    ]


ROWS = {
    "sft": [{"messages": talk(number)} for number in range(4)],
    "dpo": [
        {"prompt": talk(n)[:3], "chosen": talk(n)[3:], "rejected": [said("assistant", "I do not know")]}
        for n in range(4)
    ],
    "grpo": [{"prompt": talk(number)[:3], "answer": str(number + 3)} for number in range(4)],
}


@pytest.fixture(scope="module")
def models(tmp_path_factory) -> dict[str, Path]:
    return {name: save_chat_model(tmp_path_factory.mktemp(name) / "model", name) for name in NAMES}


def small(folder: Path, model: Path, algorithm: str, **changes) -> Run:
    folder.mkdir(parents=True, exist_ok=True)
    rows = folder / "rows.jsonl"
    rows.write_text("".join(json.dumps(row) + "\n" for row in ROWS[algorithm]))
    grader = folder / "grader.py"
    grader.write_text("def length(completions, **columns):\n    return [float(len(c)) for c in completions]\n")
    run = replace(default_run(algorithm), model=str(model), data=str(rows), out=str(folder / "run"), steps=2)
    if algorithm == "grpo":
        run = replace(run, group_size=2, max_new_tokens=6, reward=(f"{grader}:length",))
    return replace(run, prompts_per_step=4, learning_rate=1e-3, **changes)


def parts_of(run: Run) -> Parts:
    algorithm = resolved(run)
    return assemble(run, algorithm, read_inputs(run, kind_of(algorithm)), Memory())


def begins_once(name: str, ids) -> bool:
    tokenizer = chat_tokenizer(name)
    count = list(ids).count(tokenizer.bos_token_id)
    return count == (tokenizer.bos_token_id is not None) and (not count or ids[0] == tokenizer.bos_token_id)


@pytest.mark.parametrize("algorithm", ["sft", "dpo", "grpo"])
@pytest.mark.parametrize("name", NAMES)
def test_two_steps_end_in_a_model(name: str, algorithm: str, models, tmp_path) -> None:
    folder = execute(small(tmp_path, models[name], algorithm), Silent())
    assert len(read_run(folder).metrics) == 2
    saved, bought = load_tokenizer(folder / "final"), load_tokenizer(models[name])
    assert saved.chat_template == bought.chat_template
    ends = json.loads((folder / "final" / "generation_config.json").read_text())["eos_token_id"]
    assert saved.convert_tokens_to_ids(STYLES[name].turn_end) in ends, "others stop where this run does"


@pytest.mark.parametrize("name", NAMES)
def test_demonstrations_are_what_the_engine_would_have_read(name: str, models, tmp_path) -> None:
    """Before every trained turn stand the ids of the prompt of that turn; what is trained ends it."""
    parts = parts_of(small(tmp_path, models[name], "sft"))
    rewrites = name == "qwen3"
    assert any("became 8 rows" in note for note in parts.notes) == rewrites
    batch = parts.experience.batch(0)
    prompts = {parts.text.prompt(talk(n)[:place])[0] for n in range(4) for place in (1, 3)}
    end = parts.text.tokenizer.convert_tokens_to_ids(STYLES[name].turn_end)
    for tokens, mask, length in zip(batch.tokens.tolist(), batch.mask.tolist(), batch.lengths.tolist(), strict=True):
        ids, mask = tuple(tokens[:length]), mask[:length]
        assert begins_once(name, ids)
        starts = [t for t in range(1, length) if mask[t] and not mask[t - 1]]
        assert len(starts) == (1 if rewrites else 2)
        assert all(ids[:start] in prompts for start in starts)
        closed = [t for t in range(length) if mask[t] and (t + 1 == length or not mask[t + 1])]
        assert closed == [t for t in range(length) if mask[t] and ids[t] == end], "one end a turn, and it is trained"
        assert len(closed) == len(starts)


@pytest.mark.parametrize("name", NAMES)
def test_pairs_begin_as_the_engine_reads_and_end_as_a_turn_ends(name: str, models, tmp_path) -> None:
    parts = parts_of(small(tmp_path, models[name], "dpo"))
    batch = parts.experience.batch(0)
    prompts = {parts.text.prompt(talk(number)[:3])[0] for number in range(4)}
    for tokens, mask, length in zip(batch.tokens.tolist(), batch.mask.tolist(), batch.lengths.tolist(), strict=True):
        first = mask.index(True)
        assert begins_once(name, tokens[:length]) and tuple(tokens[:first]) in prompts
        assert parts.text.tokenizer.convert_ids_to_tokens(tokens[length - 1]) == STYLES[name].turn_end
        assert all(mask[first:length]) and not any(mask[length:])


@pytest.mark.parametrize("name", NAMES)
def test_trained_ids_are_the_sampled_ids(name: str, models, tmp_path, monkeypatch) -> None:
    """Nothing is decoded and encoded again on the way from the engine to the batch."""
    seen = []
    generate = Engine.generate

    def spied(self, prompts, *others, **named):
        completions = generate(self, prompts, *others, **named)
        seen.extend((*prompt, *one.tokens) for prompt, one in zip(prompts, completions, strict=True))
        return completions

    monkeypatch.setattr(Engine, "generate", spied)
    parts = parts_of(small(tmp_path, models[name], "grpo"))
    assert isinstance(parts.experience, Rollouts)
    batch = parts.experience.batch(0)
    rows = [tuple(row[:length]) for row, length in zip(batch.tokens.tolist(), batch.lengths.tolist(), strict=True)]
    assert sorted(rows) == sorted(seen) and len(rows) == 8
    assert all(begins_once(name, row[: mask.index(True)]) for row, mask in zip(rows, batch.mask.tolist(), strict=True))


@pytest.mark.parametrize("name", NAMES)
def test_every_end_stops_the_sampler(name: str, models, tmp_path) -> None:
    """The tokenizer's end, those of generation_config.json and the template's end of turn."""
    parts = parts_of(small(tmp_path, models[name], "grpo"))
    ends = parts.text.end_ids
    wanted = {*STYLES[name].named_ends, STYLES[name].eos, STYLES[name].turn_end}
    assert set(parts.text.tokenizer.convert_ids_to_tokens(list(ends))) == wanted
    prompt, uniform = parts.text.prompt(talk(1)[:3])[0], Sampling(max_new_tokens=40, temperature=1e4)
    drawn = parts.engine.generate([prompt] * 64, uniform, range(64))
    assert not any(token in ends for one in drawn for token in one.tokens[:-1])
    assert {one.tokens[-1] for one in drawn if one.stop is StopReason.EOS} == set(ends)
    assert not any(one.tokens[-1] in ends for one in drawn if one.stop.truncated)


@pytest.mark.parametrize("name", NAMES)
def test_evaluation_reads_the_same(name: str, models, tmp_path, monkeypatch) -> None:
    """The same prompts, and what stops training's samples stops those of an evaluation."""
    run = small(tmp_path, models[name], "grpo")
    parts, read, engines = parts_of(run), [], []
    generate = Engine.generate

    def spied(self, prompts, *others, **named):
        read.extend(prompts)
        engines.append(self)
        return generate(self, prompts, *others, **named)

    monkeypatch.setattr(Engine, "generate", spied)
    scores = evaluate(run.model, Exam(data=run.data, reward=run.reward, max_new_tokens=4)).scores
    assert scores[0].answers == 4
    assert [tuple(ids) for ids in read] == [parts.text.prompt(row["prompt"])[0] for row in ROWS["grpo"]]
    assert all(begins_once(name, ids) for ids in read)
    assert {tuple(engine._end_ids.tolist()) for engine in engines} == {tuple(sorted(parts.text.end_ids))}


def test_what_is_sampled_is_the_models_own_distribution(models) -> None:
    """The file generation_config.json asks for 20 tokens and a repetition penalty, and gets neither.

    χ² of the first token over the vocabulary, one degree of freedom less than tokens; 6 σ above its mean is refused.
    """
    model = load_policy(models["llama3"])
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.mul_(3.0) if parameter.dim() > 1 else parameter
    prompt, draws = [5, 6, 7, 5, 6], 6000
    drawn = Engine(model, [1]).generate([prompt] * draws, Sampling(max_new_tokens=1), range(draws))
    with torch.no_grad():
        wanted = model(torch.tensor([prompt])).logits[0, -1].softmax(-1) * draws
    counts = torch.bincount(torch.tensor([one.tokens[0] for one in drawn]), minlength=len(wanted))
    common = wanted >= 5
    rest = [(counts[~common].sum(), wanted[~common].sum())] if wanted[~common].sum() >= 5 else []
    pairs = [*zip(counts[common], wanted[common], strict=True), *rest]
    statistic, freedom = sum(float((n - m) ** 2 / m) for n, m in pairs), len(pairs) - 1
    assert freedom > 25, "a distribution cut to 20 tokens would show"
    assert statistic < freedom + 6 * (2 * freedom) ** 0.5


def test_generation_config_says_nothing_about_sampling(models, tmp_path) -> None:
    """Its top_k and repetition_penalty are ignored, and named."""
    notes = parts_of(small(tmp_path, models["llama3"], "grpo")).notes
    assert any("ignored" in note and "repetition_penalty" in note and "top_k" in note for note in notes)


def test_a_template_of_ones_own_is_used_and_saved(models, tmp_path) -> None:
    path = tmp_path / "chat.jinja"
    path.write_text(
        "{{ bos_token }}{% for m in messages %}{{ m.role }}> {{ m.content }}<|eot_id|>{% endfor %}"
        "{% if add_generation_prompt %}assistant>{% if loud %}!{% endif %} {% endif %}"
    )
    run = small(tmp_path, models["llama3"], "grpo", chat_template=str(path), chat_template_kwargs=("loud=true",))
    folder = execute(run, Silent())
    saved = (folder / "final" / "chat_template.jinja").read_text()
    assert saved.endswith(path.read_text()) and "loud" in saved.removesuffix(path.read_text())
    assert {row["prompt"][-13:] for row in read_run(folder).rollouts(0)} == {">assistant>! "}
    assert parts_of(run).text.prompt([said("user", "a")])[1] == "<|begin_of_text|>user> a<|eot_id|>assistant>! "
    plain = execute(replace(run, out=str(tmp_path / "plain"), chat_template_kwargs=()), Silent())
    assert (plain / "final" / "chat_template.jinja").read_text() == path.read_text()


def test_mistakes_are_found_before_anything_is_loaded(models, tmp_path) -> None:
    run = small(tmp_path, Path("nowhere/at/all"), "sft")
    with pytest.raises(ConfigError, match=r"--chat-template missing\.jinja"):
        read_inputs(replace(run, chat_template="missing.jinja"), kind_of(resolved(run)))
    with pytest.raises(ConfigError, match="--chat-template-kwargs thinking"):
        read_inputs(replace(run, chat_template_kwargs=("thinking",)), kind_of(resolved(run)))


def test_a_conversation_that_the_template_refuses_is_named(models, tmp_path) -> None:
    run = small(tmp_path, models["gemma3"], "sft")
    rows = [*ROWS["sft"], {"messages": [said("user", "a"), said("user", "b"), said("assistant", "c")]}]
    Path(run.data).write_text("".join(json.dumps(row) + "\n" for row in rows))
    with pytest.raises(DataError, match=r"5.*roles must alternate"):
        parts_of(run)


def test_a_model_without_a_template_needs_one(tmp_path) -> None:
    with pytest.raises(DataError, match=r"--chat-template .*chat model .*--columns"):
        parts_of(small(tmp_path, Path("scratch:tiny"), "sft"))
