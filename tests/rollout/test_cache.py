"""Keys and values in slots: against attention written out per row, and gone when the call is over."""

import pytest
import torch
from transformers import GPT2Config, LlamaConfig, MistralConfig

from oneloop.batch import Batch
from oneloop.forward.attention import Heads
from oneloop.model.learner import Learner, Optimization
from oneloop.rollout import cache
from oneloop.rollout.cache import Prefilled, SharedPrompts, Slots, padded_index
from oneloop.rollout.engine import Engine
from oneloop.types import Sampling
from toy_models import decided

SMALL = {"vocab_size": 60, "hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": 4, "pad_token_id": 0}
ROPE = SMALL | {"intermediate_size": 48, "num_key_value_heads": 2, "max_position_embeddings": 256}
DROPS = {"resid_pdrop": 0.3, "embd_pdrop": 0.3, "attn_pdrop": 0.3}
CONFIGS = {
    "llama": LlamaConfig(**ROPE, attention_dropout=0.3),
    "mistral": MistralConfig(**ROPE, sliding_window=6, head_dim=8),
    "gpt2": GPT2Config(vocab_size=60, n_embd=32, n_layer=2, n_head=4, n_positions=256, pad_token_id=0, **DROPS),
}
COPIED = [[5, 6, 7], [8, 9], [10, 11, 12, 13, 14, 15], [5, 6, 7], [16]]
SHARED = [[5 + place % 9 for place in range(70)]] * 4 + [[8, 9]]
PROMPTS = {"copied": COPIED, "shared": SHARED}
KV, REPEATS, WIDTH = 2, 3, 4
CPU = torch.device("cpu")


@pytest.fixture(autouse=True)
def new_memory_holds_nan():
    """As the allocator may leave it: whoever reads what was never written, draws nonsense."""
    torch.use_deterministic_algorithms(True)
    yield
    torch.use_deterministic_algorithms(False)


class Written:
    """What the slots should hold, as one list of keys and values per row, and attention in so many words."""

    def __init__(self, slots, shared, window, seed=0):
        self.rng = torch.Generator().manual_seed(seed)
        self.slots, self.shared, self.window = slots, shared, window
        self.rows: dict[int, tuple[list, list]] = {}
        self.prompt_of = torch.zeros(len(slots.filled), dtype=torch.int64)

    def random(self, *shape):
        return torch.randn(*shape, generator=self.rng)

    def read(self, lengths):
        """A prefill of prompts of these lengths, in one layer."""
        found = Prefilled(None)
        found.keys[0], found.values[0] = (self.random(sum(lengths), KV, WIDTH) for _ in range(2))
        starts = [sum(lengths[:place]) for place in range(len(lengths))]
        if self.shared is not None:
            self.shared.add(found, padded_index(starts, lengths, CPU), torch.tensor(lengths))
        return found, starts, lengths

    def seat(self, prefill, pairs, first=0):
        """`pairs`: slot, and the number of its prompt inside the prefill."""
        found, starts, lengths = prefill
        where, prompt = torch.tensor(pairs).T
        counts = torch.tensor(lengths)[prompt]
        if self.shared is None:
            self.slots.insert(where, found, padded_index(starts, lengths, CPU)[prompt], counts)
        else:
            self.slots.link(where, counts)
            self.prompt_of[where] = prompt + first
            self.shared.point(self.prompt_of)
        for slot, number in pairs:
            span = slice(starts[number], starts[number] + lengths[number])
            self.rows[slot] = (list(found.keys[0][span]), list(found.values[0][span]))

    def step(self):
        """One token in every slot; the largest difference from the rows written out."""
        count = len(self.slots.filled)
        query, key, value = (self.random(count, heads, 1, WIDTH) for heads in (KV * REPEATS, KV, KV))
        self.slots.begin()
        positions = self.slots.positions.tolist()
        out = self.slots.attend(Heads(0, query, key, value, None, self.window))
        self.slots.end()
        worst = 0.0
        for slot, (keys, values) in self.rows.items():
            assert positions[slot] == len(keys)
            keys.append(key[slot, :, 0])
            values.append(value[slot, :, 0])
            seen = slice(0 if self.window is None else max(len(keys) - self.window, 0), None)
            for head in range(KV * REPEATS):
                k, v = (torch.stack(x[seen])[:, head // REPEATS] for x in (keys, values))
                weights = (k @ query[slot, head, 0] / WIDTH**0.5).softmax(0)
                gap = (weights @ v - out[slot, 0, head]).abs().max()
                worst = max(worst, float(gap.nan_to_num(torch.inf)))  # max of numbers would pass over a NaN
        return worst

    def keep(self, places):
        self.slots.keep(torch.tensor(places))
        self.rows = {new: self.rows[old] for new, old in enumerate(places) if old in self.rows}
        if self.shared is not None:
            kept, self.prompt_of = self.prompt_of[places].unique(return_inverse=True)
            self.shared.keep(kept)
            self.shared.point(self.prompt_of)


def written(count, shares, window, most=200):
    shared = SharedPrompts() if shares else None
    return Written(Slots(count, most, CPU, shared), shared, window)


@pytest.mark.parametrize("window", [None, 1, 5, 500])
@pytest.mark.parametrize("shares", [False, True])
def test_slots_attend_as_rows_written_out(shares, window):
    """Ragged prompts, a slot taken anew while the others run, a second prefill with a longer prompt, fewer slots."""
    rows = written(4, shares, window)
    first = rows.read([3, 7, 1])
    rows.seat(first, [(0, 1), (2, 1), (3, 2)])
    rows.seat(first, [(1, 0)])
    assert max(rows.step() for _ in range(4)) < 1e-5
    second = rows.read([9, 2])
    rows.seat(second, [(2, 0), (0, 0)], first=3)
    assert max(rows.step() for _ in range(4)) < 1e-5
    rows.keep([3, 0, 2])
    assert max(rows.step() for _ in range(3)) < 1e-5
    rows.keep([1])
    assert max(rows.step() for _ in range(3)) < 1e-5


@pytest.mark.parametrize("shares", [False, True])
def test_a_prompt_longer_than_all_before_moves_whole(shares):
    """Seated in the last slot and moved to the first before a step has been taken with it."""
    rows = written(3, shares, None)
    rows.seat(rows.read([2, 3, 1]), [(0, 0), (1, 1), (2, 2)])
    assert max(rows.step() for _ in range(2)) < 1e-5
    rows.seat(rows.read([20, 1]), [(2, 0)], first=3)
    rows.keep([2, 1])
    assert max(rows.step() for _ in range(3)) < 1e-5


@pytest.mark.parametrize("shares", [False, True])
def test_a_free_slot_keeps_step_with_the_others_until_it_is_taken(shares):
    """Equal rows need no mask, whoever has ended; where rows differ, a free slot is never past the longest."""
    rows = written(3, shares, None)
    rows.seat(rows.read([4, 4, 4]), [(0, 0), (1, 1), (2, 2)])
    rows.step()
    del rows.rows[1]
    rows.slots.release(torch.tensor([False, True, False]))
    assert max(rows.step() for _ in range(3)) < 1e-5
    assert len(set(rows.slots.filled.tolist())) == 1 and rows.slots.even
    rows.seat(rows.read([2, 1]), [(1, 0)], first=3)
    assert max(rows.step() for _ in range(2)) < 1e-5
    assert not rows.slots.even and len(set(rows.slots.filled.tolist())) == 2
    del rows.rows[0], rows.rows[2]
    rows.slots.release(torch.tensor([True, False, True]))
    assert max(rows.step() for _ in range(2)) < 1e-5
    assert len(set(rows.slots.filled.tolist())) == 1  # the others came back to the one that runs


@pytest.mark.parametrize("shares", [False, True])
def test_columns_double_and_stop_at_the_most(shares, monkeypatch):
    """64, 128, then 150 columns and not 256."""
    monkeypatch.setattr(cache, "FIRST_COLUMNS", 64)
    rows = written(2, shares, None, most=150)
    rows.seat(rows.read([5, 2]), [(0, 0), (1, 1)])
    capacities, errors = [], []
    for _ in range(145):
        errors.append(rows.step())
        capacities.append(rows.slots._keys[0].shape[2])
    assert max(errors) < 1e-5
    assert sorted(set(capacities)) == [64, 128, 150]


def forgotten_prompt(monkeypatch):
    """Positions start again after the prompt."""
    monkeypatch.setattr(Slots, "positions", property(lambda self: self.filled))


def stale_columns(monkeypatch):
    """What another row left in a slot is seen."""
    real = cache._additive
    monkeypatch.setattr(cache, "_additive", lambda seen, dtype: real(torch.ones_like(seen), dtype))


def empty_columns(monkeypatch):
    """Columns that a shorter row has not written are as they were allocated."""
    monkeypatch.setattr(Slots, "_fill_up_to", lambda self, columns, written: None)


def anothers_prompt(monkeypatch):
    """Every slot reads the first prompt."""
    real = SharedPrompts.point
    monkeypatch.setattr(SharedPrompts, "point", lambda self, prompt_of: real(self, torch.zeros_like(prompt_of)))


def wide_window(monkeypatch):
    """One token too many."""
    real = Slots._hidden
    monkeypatch.setattr(Slots, "_hidden", lambda self, window, *given: real(self, window + 1, *given))


MUTANTS = [
    (forgotten_prompt, True, None), (stale_columns, False, None), (anothers_prompt, True, None),
    (wide_window, False, 5), (wide_window, True, 5), (empty_columns, False, None),
]  # fmt: skip


@pytest.mark.parametrize(("mutate", "shares", "window"), MUTANTS)
def test_a_mutant_would_show(monkeypatch, mutate, shares, window):
    mutate(monkeypatch)
    rows = written(3, shares, window)
    rows.seat(rows.read([3, 7, 6]), [(0, 1), (1, 2), (2, 0)])
    with pytest.raises(AssertionError):
        assert max(rows.step() for _ in range(4)) < 1e-5


def test_a_taken_slot_sees_nothing_of_its_last_row():
    """A long row, then a short prompt in the same slot: what stood there has no weight, even if it is huge."""
    rows = written(1, False, None)
    rows.seat(rows.read([30]), [(0, 0)])
    rows.slots._keys[0].mul_(1e6)
    rows.slots._values[0].mul_(1e6)
    rows.seat(rows.read([2]), [(0, 0)])
    assert rows.step() < 1e-5


def test_places_of_prompts():
    """Padding repeats a prompt's own last token."""
    assert padded_index([0, 3, 4], [3, 1, 2], CPU).tolist() == [[0, 1, 2], [3, 3, 3], [4, 5, 5]]


def test_hidden_columns_of_a_shared_prompt():
    """Prompts of 4 and 2, a window of 3: at position 5 tokens 3 … 5 are seen, at position 2 tokens 0 … 2."""
    rows = written(2, True, 3)
    rows.seat(rows.read([4, 2]), [(0, 0), (1, 1)])
    seen = rows.shared.hidden_from(torch.tensor([5, 2]), 3, torch.float32)[:, 0, 0] == 0
    assert seen.tolist() == [[False, False, False, True], [True, True, False, False]]
    everything = rows.shared.hidden_from(torch.tensor([5, 2]), None, torch.float32)[:, 0, 0] == 0
    assert everything.tolist() == [[True] * 4, [True, True, False, False]]


# one call's cache is no other's


def make(name):
    return decided(CONFIGS[name])


def batch_of(prompts, completions):
    rows = [[*prompt, *completion.tokens] for prompt, completion in zip(prompts, completions, strict=True)]
    width = max(map(len, rows))
    tokens = torch.tensor([row + [0] * (width - len(row)) for row in rows])
    place = torch.arange(width)
    lengths, begins = torch.tensor([len(row) for row in rows]), torch.tensor([len(prompt) for prompt in prompts])
    mask = (place >= begins[:, None]) & (place < lengths[:, None])
    logprobs = torch.zeros(tokens.shape)
    logprobs[mask] = torch.tensor([number for completion in completions for number in completion.logprobs])
    group = torch.tensor([prompts.index(prompt) for prompt in prompts])
    return Batch(
        tokens, mask, group, torch.zeros(tokens.shape), torch.zeros(len(rows), dtype=torch.bool),
        rollout_logprobs=logprobs, lengths=lengths,
    )  # fmt: skip


def make_learner(model):
    plan = Optimization(learning_rate=1e-2, critic_learning_rate=1e-2, total_updates=10)
    learner = Learner(model, optimization=plan)
    assert learner.note == "", "the fast path is meant"
    return learner


@pytest.mark.parametrize("name", CONFIGS)
@pytest.mark.parametrize("kind", PROMPTS)
def test_new_weights_are_used_at_once(name, kind):
    """After an update the same engine draws as a new one does, and the trainer scores it alike."""
    model, prompts, sampling = make(name).eval(), PROMPTS[kind], Sampling(max_new_tokens=12)
    engine, learner = Engine(model, [1], max_rows=3), make_learner(model)
    before = engine.generate(prompts, sampling, range(5))
    batch = batch_of(prompts, before)
    for _ in range(2):
        learner.policy(batch).logprobs.sum().backward()
        learner.step()
    after = engine.generate(prompts, sampling, range(5))
    assert after == Engine(model, [1], max_rows=3).generate(prompts, sampling, range(5))
    assert [c.logprobs for c in after] != [c.logprobs for c in before]
    fresh, stale = batch_of(prompts, after), batch_of(prompts, before)
    with torch.no_grad():
        for wanted, agrees in ((fresh, True), (stale, False)):
            gap = (learner.policy(wanted).logprobs - wanted.rollout_logprobs)[wanted.mask].abs().max()
            assert (gap < 1e-4) == agrees


@pytest.mark.parametrize("name", CONFIGS)
@pytest.mark.parametrize("kind", PROMPTS)
def test_generating_leaves_no_trace(name, kind):
    """In train mode, with dropout and checkpointing on; and the draws are those of evaluation mode."""
    sampling, prompts = Sampling(max_new_tokens=12), PROMPTS[kind]
    wanted = Engine(make(name).eval(), [1], max_rows=3).generate(prompts, sampling, range(5))
    model = make(name).train()
    getattr(model, "activation_checkpointing_enable", model.gradient_checkpointing_enable)()  # the newer name first
    model.lm_head.eval()
    engine = Engine(model, [1], max_rows=3)
    assert engine.note == ""
    implementation, state = model.config._attn_implementation, torch.get_rng_state()
    modes = [module.training for module in model.modules()]
    flags = [getattr(module, "gradient_checkpointing", None) for module in model.modules()]
    assert True in flags
    assert engine.generate(prompts, sampling, range(5)) == wanted
    assert torch.equal(torch.get_rng_state(), state)
    assert [module.training for module in model.modules()] == modes
    assert [getattr(module, "gradient_checkpointing", None) for module in model.modules()] == flags
    assert model.config._attn_implementation == implementation
    assert all(parameter.grad is None and parameter.requires_grad for parameter in model.parameters())


def test_an_error_in_the_middle_leaves_no_trace():
    """The listener raises; modes and configuration are back, and the next call draws what it should."""
    model, sampling = make("gpt2").train(), Sampling(max_new_tokens=12)
    engine, implementation = Engine(model, [1]), model.config._attn_implementation
    wanted = engine.generate(COPIED, sampling, range(5))

    def stop(place, completion):
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        engine.generate(COPIED, sampling, range(5), stop)
    assert model.config._attn_implementation == implementation and all(m.training for m in model.modules())
    assert engine.generate(COPIED, sampling, range(5)) == wanted


@pytest.mark.parametrize("name", CONFIGS)
def test_training_after_generating_is_bitwise_the_same(name):
    weights = []
    for generates in (False, True):
        model = make(name)
        learner, engine = make_learner(model), Engine(model, [1], max_rows=3)
        completions = Engine(make(name), [1]).generate(SHARED, Sampling(max_new_tokens=6), range(5))
        batch = batch_of(SHARED, completions)
        for _ in range(2):
            for prompts in PROMPTS.values():
                _ = generates and engine.generate(prompts, Sampling(max_new_tokens=6), range(5))
            (-learner.policy(batch).logprobs.sum()).backward()
            learner.step()
        weights.append(torch.cat([parameter.detach().flatten() for parameter in model.parameters()]))
    assert torch.equal(*weights)
