"""Continuous batching draws what plain decoding draws, whatever the slots, prompts and lengths; and wastes no pass."""

from collections import Counter, deque
from itertools import pairwise

import pytest
import torch
from transformers import (
    DeepseekV3Config,
    DiffLlamaConfig,
    Gemma3TextConfig,
    GPT2Config,
    LlamaConfig,
    MistralConfig,
    Qwen2Config,
    Qwen3Config,
)

from oneloop.forward.attention import evaluating
from oneloop.rollout import cache, decoding
from oneloop.rollout.decoding import Request
from oneloop.rollout.engine import Engine
from oneloop.rollout.plain import PlainDecoding
from oneloop.types import Sampling, StopReason
from toy_models import decided

SMALL = {"vocab_size": 60, "hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": 4, "pad_token_id": 0}
ROPE = SMALL | {"intermediate_size": 48, "num_key_value_heads": 2, "max_position_embeddings": 256}
MIXED = ["sliding_attention", "full_attention"]
LATENT = {
    "num_key_value_heads": 4, "q_lora_rank": 16, "kv_lora_rank": 16, "qk_rope_head_dim": 8, "qk_nope_head_dim": 8,
    "v_head_dim": 12, "n_group": 1, "topk_group": 1, "num_experts_per_tok": 2, "first_k_dense_replace": 1,
    "n_shared_experts": 1, "n_routed_experts": 4, "moe_intermediate_size": 16,
}  # fmt: skip
CONFIGS = {
    "llama": LlamaConfig(**ROPE),
    "qwen2": Qwen2Config(**ROPE | {"num_key_value_heads": 1}),
    "qwen3": Qwen3Config(**ROPE, head_dim=8),
    "mistral": MistralConfig(**ROPE, sliding_window=6, head_dim=8),
    "gemma3": Gemma3TextConfig(**ROPE, head_dim=8, sliding_window=6, layer_types=MIXED),
    "gpt2": GPT2Config(vocab_size=60, n_embd=32, n_layer=2, n_head=4, n_positions=256, pad_token_id=0),
}
UNUSUAL = {
    "values narrower than keys": DeepseekV3Config(**ROPE | LATENT),
    "two attentions a layer": DiffLlamaConfig(**ROPE),
}
TINY = LlamaConfig(**ROPE | {"hidden_size": 16, "intermediate_size": 24, "num_attention_heads": 2})
ENDS = [1, 2, 3]
RNG = torch.Generator().manual_seed(0)


def prompt_of(length):
    return torch.randint(60, (length,), generator=RNG).tolist()


LONG, LONGER, SHORT, ONE, EVEN = (prompt_of(length) for length in (70, 90, 3, 1, 12))
# eleven rows of groups of 1, 2, 3, 5: nothing is worth sharing
MIXED_PROMPTS = [SHORT, ONE, SHORT, EVEN, EVEN, EVEN, EVEN, EVEN, LONG, SHORT, ONE]
# a group of eight and one of four, with two rows in between that share with nobody
SHARED_PROMPTS = [*[LONG] * 8, SHORT, EVEN, *[LONGER] * 4]
PROMPTS = {"copied": MIXED_PROMPTS, "shared": SHARED_PROMPTS}


def make(config):
    return decided(config).eval()


@torch.no_grad()
def plain(model, prompts, sampling, ends=ENDS, rows=8):
    """What the slow decoder draws."""
    requests = [Request(place, tuple(prompt), place) for place, prompt in enumerate(prompts)]
    with evaluating(model):
        done = dict(PlainDecoding(model, requests, sampling, torch.tensor(ends), rows, 0).run())
    return [done[place] for place in range(len(prompts))]


def fast(model, prompts, sampling, ends=ENDS, **options):
    engine = Engine(model, ends, **options)
    assert engine.note == "", "the fast path is meant"
    return engine.generate(prompts, sampling, range(len(prompts)))


def same(ours, theirs):
    for a, b in zip(ours, theirs, strict=True):
        assert (a.tokens, a.stop) == (b.tokens, b.stop)
        assert a.logprobs == pytest.approx(b.logprobs, abs=1e-4)


def shares(prompts):
    saved = sum(len(prompt) * (count - 1) for prompt, count in Counter(map(tuple, prompts)).items())
    return saved >= decoding.WORTH_SHARING * len(prompts)


@pytest.fixture(scope="module")
def tiny():
    return make(TINY)


@pytest.fixture(scope="module")
def drawn(tiny):
    """For each kind of prompts, what the tiny model draws in 20 tokens."""
    return {kind: plain(tiny, prompts, Sampling(max_new_tokens=20)) for kind, prompts in PROMPTS.items()}


def test_both_ways_of_keeping_prompts_are_meant():
    assert [shares(prompts) for prompts in PROMPTS.values()] == [False, True]


@pytest.mark.parametrize("name", CONFIGS)
def test_every_architecture_draws_what_plain_decoding_draws(name):
    model, sampling = make(CONFIGS[name]), Sampling(max_new_tokens=16, temperature=0.9)
    for prompts in PROMPTS.values():
        same(fast(model, prompts, sampling, max_rows=5), plain(model, prompts, sampling))


@pytest.mark.parametrize("name", UNUSUAL)
def test_unusual_attention_is_sampled_right_or_slowly(name):
    """A layer whose values are narrower than its keys, and one that attends twice: fast or not, the same tokens."""
    model, sampling = make(UNUSUAL[name]), Sampling(max_new_tokens=12)
    for prompts in PROMPTS.values():
        ours = Engine(model, ENDS, max_rows=5).generate(prompts, sampling, range(len(prompts)))
        same(ours, plain(model, prompts, sampling))


@pytest.mark.parametrize("rows", [1, 2, 3, 7])
@pytest.mark.parametrize("kind", PROMPTS)
def test_any_number_of_slots(tiny, drawn, kind, rows):
    """More requests than slots, ragged ends: each slot is used by several rows."""
    lengths = [len(completion.tokens) for completion in drawn[kind]]
    assert len(set(lengths)) > 4
    same(fast(tiny, PROMPTS[kind], Sampling(max_new_tokens=20), max_rows=rows), drawn[kind])


@pytest.mark.parametrize("size", [1, 2, 8])
@pytest.mark.parametrize("length", [2, 80])
def test_any_group_size(tiny, size, length):
    prompts = [[7 + group] * (length + group) for group in range(3) for _ in range(size)]
    assert shares(prompts) == (length == 80 and size > 1)
    sampling = Sampling(max_new_tokens=12)
    same(fast(tiny, prompts, sampling, max_rows=4), plain(tiny, prompts, sampling))


def test_scattered_members_of_a_group(tiny):
    prompts = [*[LONG, LONGER, EVEN] * 4, LONG]
    sampling = Sampling(max_new_tokens=12)
    same(fast(tiny, prompts, sampling, max_rows=5), plain(tiny, prompts, sampling))


@pytest.mark.parametrize("kind", PROMPTS)
def test_samples_do_not_depend_on_the_batch(tiny, drawn, kind):
    """Any subset in any order, each request with its own seed."""
    engine, prompts = Engine(tiny, ENDS, max_rows=4), PROMPTS[kind]
    order = torch.randperm(len(prompts), generator=torch.Generator().manual_seed(1)).tolist()
    for places in (order, order[:5], order[::-1][:3], *[[place] for place in order[:3]]):
        ours = engine.generate([prompts[place] for place in places], Sampling(max_new_tokens=20), places)
        same(ours, [drawn[kind][place] for place in places])


@pytest.mark.parametrize("kind", PROMPTS)
@pytest.mark.parametrize("tokens", [1, 100])
def test_prompts_read_in_several_passes(tiny, drawn, monkeypatch, kind, tokens):
    """While rows of older prompts still run."""
    monkeypatch.setattr(decoding, "PREFILL_TOKENS", tokens)
    for rows in (2, 5):
        same(fast(tiny, PROMPTS[kind], Sampling(max_new_tokens=20), max_rows=rows), drawn[kind])


@pytest.mark.parametrize(("name", "kind"), [("mistral", "copied"), ("llama", "shared")])
def test_columns_are_added_when_rows_get_there(monkeypatch, name, kind):
    """Rows of up to 150 tokens, which is more than twice the first columns."""
    prompts, sampling = PROMPTS[kind], Sampling(max_new_tokens=150)
    widths, real = [], cache._widened

    def watch(table, columns, known):
        widths.append((table.shape[2], columns))
        return real(table, columns, known)

    monkeypatch.setattr(cache, "_widened", watch)
    model = make(CONFIGS[name])
    ours = fast(model, prompts, sampling, ends=[1], max_rows=6)
    assert max(len(completion.tokens) for completion in ours) > 140 and widths
    monkeypatch.undo()
    same(ours, plain(model, prompts, sampling, ends=[1], rows=16))


def test_weights_in_half_precision_without_autocast():
    """A server's model: every operation takes what the weights give."""
    model = make(CONFIGS["llama"]).bfloat16()
    for prompts in PROMPTS.values():
        completions = fast(model, prompts, Sampling(max_new_tokens=6), max_rows=3)
        assert all(len(completion.tokens) > 0 for completion in completions)


def test_little_memory_means_few_slots(drawn):
    """2 tables · 2 layers · 2 heads · 8 wide · 4 bytes = 256 a token; rows of up to 70 + 20 tokens: 3 fit in 70 000."""
    model = make(TINY)
    engine, seen = Engine(model, ENDS, cache_bytes=70_000), steps_of(model)
    same(engine.generate(MIXED_PROMPTS, Sampling(max_new_tokens=20), range(len(MIXED_PROMPTS))), drawn["copied"])
    assert max(rows for rows, columns in seen if columns == 1) == 3
    seen.clear()
    same(fast(model, MIXED_PROMPTS, Sampling(max_new_tokens=20), cache_bytes=1), drawn["copied"])
    assert max(rows for rows, columns in seen if columns == 1) == 1, "a row has to fit"


def steps_of(model):
    """[rows, columns] of every pass."""
    seen: list[tuple[int, ...]] = []
    model.get_input_embeddings().register_forward_hook(lambda module, args, out: seen.append(tuple(args[0].shape)))
    return seen


def schedule(lengths, slots):
    """Passes of one token that a schedule without a lost step makes: a free slot takes the next request at once."""
    waiting, running, passes = deque(lengths), [], 0
    while True:
        while waiting and len(running) < slots:
            running.append(waiting.popleft())
        if not running:
            return passes
        running = [left - 1 for left in running if left > 1]
        passes += bool(running)


@pytest.mark.parametrize("slots", [2, 7, 50])
@pytest.mark.parametrize("kind", PROMPTS)
def test_a_free_slot_is_taken_at_once(drawn, kind, slots):
    """As many passes as the ideal schedule; never more rows than slots; each distinct prompt is read exactly once."""
    model = make(TINY)
    engine = Engine(model, ENDS, max_rows=slots)
    seen = steps_of(model)
    prompts = [prompt for prompt in PROMPTS[kind] if len(prompt) > 1]
    completions = engine.generate(prompts, Sampling(max_new_tokens=20), range(len(prompts)))
    by_prompt = {tuple(prompt): [] for prompt in prompts}  # requests of a prompt are served together
    for prompt, completion in zip(prompts, completions, strict=True):
        by_prompt[tuple(prompt)].append(len(completion.tokens))
    lengths = [length for members in by_prompt.values() for length in members]
    steps = [rows for rows, columns in seen if columns == 1]
    assert len(steps) == schedule(lengths, slots)
    assert len(steps) <= sum(lengths) / slots + max(lengths), "Graham's bound for lists"
    assert max(steps, default=0) <= slots
    assert sum(rows * columns for rows, columns in seen if columns > 1) == sum(map(len, by_prompt))


def test_the_batch_shrinks_when_nobody_waits():
    model = make(TINY)
    seen = steps_of(model)
    fast(model, MIXED_PROMPTS, Sampling(max_new_tokens=60), ends=[1])
    steps = [rows for rows, columns in seen if columns == 1]
    assert steps[0] > 1 and all(a >= b for a, b in pairwise(steps)) and steps[-1] < steps[0]


def test_each_completion_is_told_once_and_in_time(tiny):
    told: dict[int, object] = {}

    def finished(place, completion):
        assert place not in told
        told[place] = completion

    for prompts in PROMPTS.values():
        told.clear()
        sampling = Sampling(max_new_tokens=20)
        done = Engine(tiny, ENDS, max_rows=3).generate(prompts, sampling, range(len(prompts)), finished)
        assert [told[place] for place in range(len(prompts))] == done
        in_order = [len(told[place].tokens) for place in told]
        assert list(told) != sorted(told) and in_order != sorted(in_order), "as they end, not as they were asked"


def test_stop_reasons_and_limits(tiny):
    one = fast(tiny, SHARED_PROMPTS, Sampling(max_new_tokens=1), max_rows=4)
    assert {len(completion.tokens) for completion in one} == {1}
    for completion in fast(tiny, SHARED_PROMPTS, Sampling(max_new_tokens=20)):
        assert (completion.tokens[-1] in ENDS) == (completion.stop is StopReason.EOS)
        assert completion.stop is StopReason.EOS or len(completion.tokens) == 20
        assert not set(completion.tokens[:-1]) & set(ENDS)
    assert fast(tiny, [], Sampling()) == []


@pytest.mark.parametrize(("slots", "ends"), [(4, [1]), (5, [1, 2])])
def test_no_slot_runs_out_of_positions(slots, ends):
    """A slot that is free while others run must not walk past the last position that the model has."""
    model = make(GPT2Config(vocab_size=60, n_embd=32, n_layer=2, n_head=4, n_positions=64, pad_token_id=0))
    prompts = [[5 + place] * (1 + place % 5) for place in range(12)]
    sampling = Sampling(max_new_tokens=59)
    same(fast(model, prompts, sampling, ends, max_rows=slots), plain(model, prompts, sampling, ends, rows=12))


@pytest.mark.parametrize("name", ["llama", "gemma3", "gpt2"])
@pytest.mark.parametrize("kind", PROMPTS)
def test_half_precision_draws_what_the_trainer_scores(name, kind):
    """Autocast turns matrix products to bfloat16 and leaves rotary keys in float32: the cache takes both."""
    model, prompts = make(CONFIGS[name]), PROMPTS[kind]
    completions = fast(model, prompts, Sampling(max_new_tokens=8), max_rows=4, dtype=torch.bfloat16)
    for prompt, completion in zip(prompts, completions, strict=True):
        ids = torch.tensor([[*prompt, *completion.tokens]])
        with torch.no_grad(), torch.autocast("cpu", torch.bfloat16):
            table = model(ids).logits[0, :-1].float().log_softmax(-1)
        wanted = table.gather(-1, ids[0, 1:, None])[len(prompt) - 1 :, 0]
        assert (wanted - torch.tensor(completion.logprobs)).abs().mean() < 0.1


def test_shared_prompts_that_nobody_reads_any_more_are_dropped(tiny, monkeypatch):
    """Two slots read two prompts at most: the shared table does not keep all twelve."""
    monkeypatch.setattr(decoding, "PREFILL_TOKENS", 70)
    sizes, real = [], cache.SharedPrompts.point

    def watch(self, prompt_of):
        sizes.append(len(self.lengths))
        real(self, prompt_of)

    monkeypatch.setattr(cache.SharedPrompts, "point", watch)
    prompts = [[group + 5] * 70 for group in range(12) for _ in range(4)]
    fast(tiny, prompts, Sampling(max_new_tokens=4), max_rows=2)
    assert sizes and max(sizes) <= 6
