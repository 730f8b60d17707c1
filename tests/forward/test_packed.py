"""Rows end to end are the rows alone, in outputs and gradients, for every kind of attention; mutants are not."""

from contextlib import contextmanager
from copy import copy, deepcopy
from dataclasses import replace

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch.nn import functional as F
from transformers import (
    AutoModelForCausalLM,
    AutoModelForSequenceClassification,
    Gemma3TextConfig,
    GPT2Config,
    LlamaConfig,
    MistralConfig,
    Qwen2Config,
    Qwen3Config,
)

from oneloop.batch import Batch, PolicyOutput
from oneloop.forward import buckets, packed, reader, segments
from oneloop.forward.reader import Backbone
from oneloop.model.learner import Critic, Learner, Optimization
from oneloop.model.reward import LearnedReward

TEMPERATURE = 0.8
SMALL = {"vocab_size": 60, "hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": 4, "pad_token_id": 0}
ROPE = SMALL | {"intermediate_size": 48, "num_key_value_heads": 2, "max_position_embeddings": 64}
MIXED = ["sliding_attention", "full_attention"]
GPT2 = {"vocab_size": 60, "n_embd": 32, "n_layer": 2, "n_head": 4, "n_positions": 512, "pad_token_id": 0}
CONFIGS = {
    "llama": LlamaConfig(**ROPE),
    "qwen2": Qwen2Config(**ROPE | {"num_key_value_heads": 1}),
    "qwen3": Qwen3Config(**ROPE, head_dim=8),
    "mistral": MistralConfig(**ROPE, sliding_window=6, head_dim=8),
    "gemma3": Gemma3TextConfig(**ROPE, head_dim=8, sliding_window=6, layer_types=MIXED),
    "gpt2": GPT2Config(**GPT2),
}
TINY = LlamaConfig(**ROPE | {"hidden_size": 16, "intermediate_size": 24, "num_attention_heads": 2})
# each row: its group, how many tokens of the group's prompt, and then A for an action, o for an observation
LAYOUTS = {
    "long prompts": [(0, 14, "AAA"), (0, 14, "AAAAA"), (0, 14, "A"), (1, 14, "AA"), (1, 14, "AAAA"), (2, 20, "AAA")],
    "short prompts": [(0, 3, "A" * 9), (0, 3, "A" * 4), (0, 3, "A" * 6), (1, 4, "A" * 12), (1, 4, "A" * 11)],
    "pairs": [(0, 9, "AAA"), (0, 9, "A" * 8), (1, 2, "A" * 20), (1, 2, "A" * 20), (2, 9, "A" * 8), (2, 9, "A" * 2)],
    "alone": [(0, 5, "AA"), (1, 3, "A" * 4), (2, 9, "A" * 5), (3, 1, "A")],
    "no actions": [(0, 7, ""), (0, 7, "AAA"), (1, 6, ""), (2, 8, ""), (2, 8, "")],
    "one token": [(0, 1, ""), (1, 1, ""), (2, 4, "AA")],
    "unequal": [(0, 1, ""), (1, 2, "A" * 46), (2, 3, "A"), (3, 1, "A" * 30), (4, 30, "A")],
    "tools": [(0, 8, "AAooA"), (0, 8, "AoooAA"), (0, 8, "AA"), (1, 4, "AAAooooooA"), (1, 4, "ooAA")],
}
LAYOUTS["everything"] = [
    (10 * index + group, prompt, actions)
    for index, rows in enumerate(LAYOUTS.values())
    for group, prompt, actions in rows[::-1]
]


def scaled(model):
    """Weights large enough that attention prefers some tokens to others."""
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.mul_(3.0) if parameter.dim() > 1 else parameter.add_(0.01)
    return model.eval()


def make(config):
    torch.manual_seed(0)
    return scaled(AutoModelForCausalLM.from_config(deepcopy(config)))


def make_learner(model, max_tokens=16384):
    torch.manual_seed(1)
    head = torch.nn.Linear(model.config.hidden_size, 1)
    plan = Optimization(learning_rate=1e-3, critic_learning_rate=1e-3, total_updates=10)
    how = {"temperature": TEMPERATURE, "entropy": "gradient", "max_tokens": max_tokens}
    return Learner(model, optimization=plan, critic=Critic(head), **how)


def layout(rows, seed=0):
    """A batch whose loss weights stand in fields that travel with its rows: of log-probs, entropy and values."""
    rng = torch.Generator().manual_seed(seed)
    prompts: dict[int, list[int]] = {}
    for group, length, _ in rows:
        prompts.setdefault(group, torch.randint(60, (length,), generator=rng).tolist())
    lengths = torch.tensor([length + len(actions) for _, length, actions in rows])
    shape = (len(rows), int(lengths.max()))
    tokens, mask = torch.randint(60, shape, generator=rng), torch.zeros(shape, dtype=torch.bool)
    for row, (group, length, actions) in enumerate(rows):
        tokens[row, :length] = torch.tensor(prompts[group])
        for index, kind in enumerate(actions):
            mask[row, length + index] = kind == "A"
        tokens[row, lengths[row] :] = 10_000  # no model has this id
    weights = [torch.randn(shape, generator=rng) for _ in range(4)]
    return Batch(
        tokens=tokens,
        mask=mask,
        group=torch.tensor([group for group, _, _ in rows]),
        rewards=weights[0],
        truncated=torch.zeros(len(rows), dtype=torch.bool),
        advantages=weights[1],
        old_logprobs=weights[2],
        returns=weights[3],
        lengths=lengths,
    )


def alone(learner, batch):
    """Each row by itself through the unchanged model, and the definitions written out."""
    model, rows = learner.model, []
    for tokens, length in zip(batch.tokens, batch.lengths.tolist(), strict=True):
        ids = tokens[None, :length]
        table = (model(ids, use_cache=False).logits[0, :-1] / TEMPERATURE).log_softmax(-1)
        state_values = learner.critic.head(model.base_model(ids, use_cache=False).last_hidden_state[0])[:, 0]
        logprobs = table.gather(-1, ids[0, 1:, None])[:, 0]
        rows.append((logprobs, -(table.exp() * table).sum(-1), state_values[:-1], state_values[-1]))

    def padded(column):
        width = batch.tokens.shape[1]
        return torch.stack([F.pad(row[column], (1, width - 1 - len(row[column]))) for row in rows])

    return PolicyOutput(padded(0), padded(1), padded(2), None, torch.stack([row[3] for row in rows]))


def objective(out, batch):
    of_tokens = batch.advantages * out.logprobs + 0.3 * batch.old_logprobs * out.entropy + batch.returns * out.values
    return of_tokens[batch.mask].sum() + (batch.rewards[:, 0] * out.final_values).sum()


def gradients(learner, loss):
    loss.backward()
    found = {name: p.grad for name, p in learner.named_parameters().items()}
    for parameter in learner.named_parameters().values():
        parameter.grad = None
    return found


def same_outputs(ours, theirs, batch):
    for name in ("logprobs", "entropy", "values"):
        a, b = (getattr(out, name)[batch.mask] for out in (ours, theirs))
        assert torch.allclose(a, b, rtol=1e-5, atol=1e-5), name
    assert torch.allclose(ours.final_values, theirs.final_values, rtol=1e-5, atol=1e-5)


def same_gradients(ours, theirs):
    assert ours.keys() == theirs.keys()
    for name, wanted in theirs.items():
        if wanted is None or ours[name] is None:
            assert wanted is ours[name], name
            continue
        assert (ours[name] - wanted).abs().max() <= 1e-5 * max(1.0, float(wanted.abs().max())), name


@contextmanager
def trees_up_to(tokens):
    """Trees of at most so many tokens, in however few rows."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(segments, "TREE_TOKENS", tokens)
        patch.setattr(segments, "MEAN_CONTINUATION", tokens)
        yield


def parity(learner, batch):
    """Packed, with and without trees, right padded and alone: the same numbers and the same gradient."""
    assert learner._backbone.packs
    wanted = alone(learner, batch)
    slope = gradients(learner, objective(wanted, batch))
    for reads, most in ((learner, 0), (learner, 30), (learner, 10**6), (padding(learner), 0)):
        with trees_up_to(most):
            out = reads.policy(batch)
        same_outputs(out, wanted, batch)
        same_gradients(gradients(learner, objective(out, batch)), slope)


def padding(learner):
    """The same models, rows padded to the longest."""
    other = copy(learner)
    other._backbone = other._critic_backbone = Backbone(learner.model, packs=False)
    other._read = replace(learner._read, backbone=other._backbone)
    return other


@pytest.fixture(scope="module")
def learner():
    return make_learner(make(CONFIGS["llama"]))


@pytest.mark.parametrize("name", CONFIGS)
def test_every_architecture_packs_as_it_stands_alone(name):
    """Windows shorter than the rows, grouped heads, learned and rotary positions, mixed layers."""
    parity(make_learner(make(CONFIGS[name])), layout(LAYOUTS["everything"]))


@pytest.mark.parametrize("name", list(LAYOUTS)[:-1])
def test_every_layout_packs_as_it_stands_alone(learner, name):
    parity(learner, layout(LAYOUTS[name]))


def test_a_window_reaches_into_a_shared_prompt():
    """A window of 6 over a prompt of 9: the first own tokens still see some of it, the sixth no more."""
    rows = [(0, 9, "A" * n) for n in (1, 3, 8)] + [(1, 7, "A" * n) for n in (9, 10)] + [(2, 9, "AA"), (2, 9, "AAA")]
    batch = layout(rows)
    assert batch.shared.tolist() == [9, 9, 9, 7, 7, 9, 9]
    for name in ("mistral", "gemma3"):
        parity(make_learner(make(CONFIGS[name])), batch)


@pytest.mark.parametrize("max_tokens", [1, 17, 60, 150])
def test_any_split_gives_the_same_gradient(learner, max_tokens):
    """Microbatches of single rows, cut groups, whole groups; the sum of their gradients is that of the whole."""
    batch = layout(LAYOUTS["everything"])
    whole = gradients(learner, objective(learner.policy(batch), batch))
    micros = list(batch.microbatches(max_tokens))
    assert len(micros) > 2
    same_gradients(gradients(learner, sum(objective(learner.policy(micro), micro) for micro in micros)), whole)


def test_passes_without_gradient_are_put_back_in_order():
    model, batch = make(CONFIGS["llama"]), layout(LAYOUTS["everything"])
    wanted = alone(make_learner(model), batch)
    for max_tokens in (9, 60, 10**6):
        learner = make_learner(model, max_tokens=max_tokens)
        with torch.no_grad():
            same_outputs(learner.policy(batch), wanted, batch)


@st.composite
def ragged(draw):
    groups = draw(st.lists(st.tuples(st.integers(1, 12), st.integers(1, 5)), min_size=1, max_size=5))
    actions = st.text("Ao", max_size=14)
    rows = [(group, prompt, draw(actions)) for group, (prompt, size) in enumerate(groups) for _ in range(size)]
    return draw(st.permutations(rows)), draw(st.integers(0, 99))


TINY_LEARNER: list[Learner] = []


@given(ragged())
@settings(max_examples=25)
def test_any_ragged_layout_packs_as_it_stands_alone(drawn):
    if not TINY_LEARNER:
        TINY_LEARNER.append(make_learner(make(TINY)))
    rows, seed = drawn
    parity(TINY_LEARNER[0], layout(rows, seed))


def test_rewards_read_after_the_last_token():
    """Scores, and `LearnedReward`, which groups equal prompts of its own accord."""
    torch.manual_seed(0)
    for config in (CONFIGS["llama"], CONFIGS["mistral"], CONFIGS["gpt2"]):
        one_label = type(config)(**config.to_dict() | {"num_labels": 1})
        model = scaled(AutoModelForSequenceClassification.from_config(one_label))
        plan = Optimization(learning_rate=1e-3, critic_learning_rate=1e-3, total_updates=10)
        reader, batch = Learner(model, optimization=plan), layout(LAYOUTS["everything"])
        assert reader.note == ""
        rows = [tokens[:length] for tokens, length in zip(batch.tokens, batch.lengths.tolist(), strict=True)]
        wanted = torch.stack([model.score(model.base_model(row[None]).last_hidden_state[0, -1])[0] for row in rows])
        slope = gradients(reader, (batch.rewards[:, 0] * wanted).sum())
        scores = reader.policy(batch).scores
        assert torch.allclose(scores, wanted, rtol=1e-5, atol=1e-5)
        same_gradients(gradients(reader, (batch.rewards[:, 0] * scores).sum()), slope)
        lengths = [prompt for _, prompt, _ in LAYOUTS["everything"]]
        prompts = [row[:n].tolist() for row, n in zip(rows, lengths, strict=True)]
        answers = [row[n:].tolist() for row, n in zip(rows, lengths, strict=True)]
        for max_tokens in (30, 10**6):
            found = LearnedReward(model, max_tokens=max_tokens)([""] * len(rows), prompts, answers)
            assert torch.allclose(torch.tensor(found), wanted.detach(), rtol=1e-5, atol=1e-5)


# mutants: each changes one thing about the packed sequence, and parity must notice


def unrestarted(monkeypatch):
    def wrapped(batch, one_kernel=False):
        sequence = packed.packed(batch, one_kernel)
        return replace(sequence, positions=torch.arange(sequence.positions.shape[1])[None])

    monkeypatch.setattr(reader, "packed", wrapped)


def one_causal_call(monkeypatch):
    def attend(self, heads):
        grouped = heads.query.shape[1] != heads.key.shape[1]
        out = F.scaled_dot_product_attention(heads.query, heads.key, heads.value, is_causal=True, enable_gqa=grouped)
        return out.transpose(1, 2)

    monkeypatch.setattr(packed.Packed, "attend", attend)


def shifted_in_the_sequence(monkeypatch):
    """The state before an own segment's first token is then the last one of some other row."""
    monkeypatch.setattr(
        reader.States, "before", lambda self, mask: self.flat.index_select(0, (self.index[mask] - 1).clamp(min=0))
    )


def another_groups_prompt(monkeypatch):
    real = packed.buckets

    def wrapped(order, starts, sequence):
        prompts = [index for index, segment in enumerate(order.segments) if segment.prompt < 0 and segment.begin == 0]
        length = {index: order.segments[index].length for index in prompts}

        def other(prompt):
            return next((p for p in prompts if p != prompt and length[p] == length[prompt]), prompt)

        swapped = [s if s.prompt < 0 else replace(s, prompt=other(s.prompt)) for s in order.segments]
        return real(order._replace(segments=swapped), starts, sequence)

    monkeypatch.setattr(packed, "buckets", wrapped)


def relatives_seen(monkeypatch):
    """In a tree, a row sees what another one goes on with."""

    def causal(sequence, query, key, window):
        return sequence.position[query] >= sequence.position[key]

    monkeypatch.setattr(buckets, "sees", causal)


def future_seen(monkeypatch):
    """The causal rule is dropped, so that a row sees what comes after it."""
    monkeypatch.setattr(
        buckets.Bucket, "visible", lambda self, q, k, window, device: torch.ones(q, k, dtype=torch.bool, device=device)
    )


ANYWHERE = [unrestarted, one_causal_call, shifted_in_the_sequence, future_seen]


@pytest.mark.parametrize(
    ("mutate", "most"),
    [*((mutate, most) for mutate in ANYWHERE for most in (0, 30)), (another_groups_prompt, 0), (relatives_seen, 30)],
)
@pytest.mark.parametrize("name", ["llama", "gpt2"])
def test_a_mutant_would_show(name, mutate, most, monkeypatch):
    learner, batch = make_learner(make(CONFIGS[name])), layout(LAYOUTS["long prompts"] + [(9, 4, "AA"), (8, 3, "AAA")])
    wanted = alone(learner, batch)
    with trees_up_to(most):
        same_outputs(learner.policy(batch), wanted, batch)
        mutate(monkeypatch)
        with pytest.raises(AssertionError):
            same_outputs(learner.policy(batch), wanted, batch)


def watched_calls(monkeypatch):
    calls, real = [], F.scaled_dot_product_attention

    def watch(query, key, value, attn_mask=None, **options):
        calls.append((tuple(query.shape), tuple(key.shape), None if attn_mask is None else attn_mask.numel()))
        return real(query, key, value, attn_mask=attn_mask, **options)

    monkeypatch.setattr(F, "scaled_dot_product_attention", watch)
    return calls


def tokens_read(model):
    """How many tokens each pass sends through the embedding."""
    seen: list[int] = []
    model.get_input_embeddings().register_forward_hook(lambda module, args, out: seen.append(args[0].numel()))
    return seen


@pytest.mark.parametrize("name", ["llama", "mistral"])
def test_no_mask_and_no_call_is_as_large_as_the_sequence(monkeypatch, name):
    """32 rows of 1 … 32 tokens: a sequence of 528. All calls of a layer together compare far fewer than 528² pairs."""
    learner = make_learner(make(CONFIGS[name]))
    batch = layout([(row, 1 + row // 2, "A" * (row - row // 2)) for row in torch.randperm(32).tolist()])
    calls, seen = watched_calls(monkeypatch), tokens_read(learner.model)
    learner.policy(batch)
    assert seen == [528]
    areas = [q[0] * q[2] * k[2] for q, k, _ in calls]
    # rows alone would compare Σ n² = 32 · 33 · 65 / 6 = 11440 pairs in each of 2 layers
    assert sum(areas) / 2 <= buckets.MOST_WASTE**2 * 11440
    assert max(areas) < 528**2 / 16
    assert all(mask is None or mask <= 32 * 32 for _, _, mask in calls)
    assert name == "mistral" or all(mask is None for _, _, mask in calls), "full attention needs no mask here"


@pytest.mark.parametrize("most", [0, 100])
@pytest.mark.parametrize("seed", range(5))
def test_padding_inside_a_call_stays_small(seed, most):
    """Slots for own tokens are ≤ 1.25 times the own tokens of a call; each token of the sequence is in one call."""
    rng = torch.Generator().manual_seed(seed)
    counts = torch.randint(0, 40, (40,), generator=rng).tolist()
    batch = layout([(index // 4, 1 + 8 * (index // 4 % 3), "A" * count) for index, count in enumerate(counts)])
    with trees_up_to(most):
        sequence = packed.packed(batch)
    assert any(bucket.tokens for bucket in sequence.buckets) == (most > 0)
    covered = []
    for bucket in sequence.buckets:
        tokens = bucket.stop - bucket.start
        queries = tokens if bucket.queries is None else bucket.queries.numel()
        kept = tokens if bucket.kept is None else bucket.kept.numel()
        assert kept == tokens <= queries <= buckets.MOST_WASTE * tokens
        if bucket.keys is not None:
            row = int((sequence.index == bucket.start).nonzero()[0, 0])
            begin = int(sequence.positions[0, bucket.start])
            assert begin == int(batch.shared[row]) and bucket.keys.numel() == queries + bucket.count * begin
        covered += range(bucket.start, bucket.stop)
    assert covered == list(range(sequence.tokens.shape[1]))


def test_short_answers_to_a_short_prompt_are_one_call():
    """3 groups of 6 + 8 · 3 tokens: one call of 3 trees, not one for 3 prompts and one for 24 answers."""
    short = layout([(group, 6, "AAA") for group in range(3) for _ in range(8)])
    (bucket,) = packed.packed(short).buckets
    assert (bucket.count, bucket.stop - bucket.start, bucket.queries) == (3, 90, None)
    long = layout([(group, 6, "A" * 12) for group in range(3) for _ in range(8)])
    assert [bucket.count for bucket in packed.packed(long).buckets] == [3, 24]
    assert [bucket.count for bucket in packed.packed(short, one_kernel=True).buckets] == []


def test_a_shared_prompt_passes_through_the_model_once():
    """Rows of 17 + 19 + 15, 16 + 18 and 23 tokens with prompts of 14, 14 and 20: 108 − 2 · 14 − 1 · 14 = 66."""
    learner, batch = make_learner(make(CONFIGS["llama"])), layout(LAYOUTS["long prompts"])
    seen = tokens_read(learner.model)
    learner.policy(batch)
    assert int(batch.lengths.sum()) == 108 and seen == [66]


def test_every_token_stands_where_its_index_says():
    batch = layout(LAYOUTS["everything"])
    sequence = packed.packed(batch)
    for row, length in enumerate(batch.lengths.tolist()):
        assert torch.equal(sequence.tokens[0, sequence.index[row, :length]], batch.tokens[row, :length])
        assert sequence.positions[0, sequence.index[row, :length]].tolist() == list(range(length))


def test_a_batch_without_any_token_gives_nothing(learner):
    """Rows whose lengths come from a mask without actions have no tokens at all."""
    batch = replace(layout([(0, 2, ""), (1, 2, "")]), lengths=torch.zeros(2, dtype=torch.int64))
    with torch.no_grad():
        out = learner.policy(batch)
    assert (out.logprobs == 0).all()
