"""Recorded passes draw what passes draw. Recording is emulated: operations run again on the very tensors they had."""

from typing import ClassVar

import pytest
import torch
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves
from transformers import LlamaConfig, MistralConfig, Qwen3Config

from oneloop.forward.attention import Heads
from oneloop.rollout import cache, decoding, engine, replay
from oneloop.rollout.cache import Prefilled, SharedPrompts, Slots, padded_index
from oneloop.rollout.engine import Engine
from oneloop.rollout.replay import Recorder, Recording, recorder_for
from oneloop.types import Sampling
from toy_models import decided

SIZES = {
    "vocab_size": 60, "hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": 4, "num_key_value_heads": 2,
    "intermediate_size": 48, "max_position_embeddings": 256, "pad_token_id": 0,
}  # fmt: skip
CONFIGS = {
    "llama": LlamaConfig(**SIZES),
    "qwen3": Qwen3Config(**SIZES, head_dim=16),
    "mistral": MistralConfig(**SIZES, sliding_window=6, head_dim=8),
}
COPIED = [[5, 6, 7], [8, 9], [10, 11, 12, 13, 14, 15], [5, 6, 7], [16], [17, 18]]
SHARED = [[5 + place % 9 for place in range(70)]] * 4 + [[8, 9], [7] * 60]
PROMPTS = {"copied": COPIED, "shared": SHARED}


class Emulated(TorchDispatchMode):
    """What a CUDA graph does: the same operations on the same memory, and none that waits for a number."""

    replays: ClassVar[int] = 0

    def __init__(self):
        super().__init__()
        self.operations = []

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        if func is torch.ops.aten._local_scalar_dense.default:
            raise RuntimeError("a recorded pass asked for a number")
        out = func(*args, **(kwargs or {}))
        self.operations.append((func, args, kwargs or {}, out))
        return out

    def replay(self):
        Emulated.replays += 1
        for func, args, kwargs, out in self.operations:
            for old, new in zip(tree_leaves(out), tree_leaves(func(*args, **kwargs)), strict=True):
                if old.data_ptr() != new.data_ptr():  # neither a view nor in place
                    old.copy_(new)


def emulated(run):
    with Emulated() as mode:
        states = run()
    return Recording(states, mode.replay)


def make(name):
    return decided(CONFIGS[name]).eval()


@pytest.fixture
def records(monkeypatch):
    """Passes are recorded from the second of a layout on, and shapes change every 16 columns."""
    monkeypatch.setattr(replay, "STEADY", 2)
    monkeypatch.setattr(decoding, "STRIDE", 16)
    monkeypatch.setattr(engine, "recorder_for", lambda device, tolerance: Recorder(emulated, tolerance))
    monkeypatch.setattr(Emulated, "replays", 0)


def drawn(model, kind, rows=4, **options):
    return Engine(model, [1], max_rows=rows, **options).generate(PROMPTS[kind], Sampling(max_new_tokens=60), range(6))


def same(ours, theirs):
    assert [c.tokens for c in ours] == [c.tokens for c in theirs]
    for mine, other in zip(ours, theirs, strict=True):
        torch.testing.assert_close(torch.tensor(mine.logprobs), torch.tensor(other.logprobs), rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("modules", [False, True])
@pytest.mark.parametrize("kind", PROMPTS)
@pytest.mark.parametrize("name", CONFIGS)
def test_replays_draw_what_passes_draw(name, kind, modules, records, monkeypatch):
    """Windows, prompts in slots and shared, slots refilled, columns added, the batch cut, the modules as on a GPU."""
    if modules:
        monkeypatch.setattr(engine, "settings_of", lambda model: None)
    model = make(name)
    plain = drawn(model, kind, replays=False)
    assert Emulated.replays == 0 and len({len(c.tokens) for c in plain}) > 2
    same(drawn(model, kind), plain)
    assert Emulated.replays > 30


@pytest.mark.parametrize(
    ("kind", "broken"),
    [
        ("copied", (Slots, "forget_masks", lambda self: None)),
        ("copied", (Slots, "layout", property(lambda self: self._changes))),
        ("shared", (Slots, "layout", property(lambda self: (self._changes, self._reach)))),
    ],
)
def test_a_stale_recording_would_show(kind, broken, records, monkeypatch):
    """Masks of the recorded step, and recordings that are kept when columns or shared prompts change."""
    model = make("llama")
    plain = drawn(model, kind, replays=False)
    monkeypatch.setattr(*broken)
    with pytest.raises((AssertionError, RuntimeError, IndexError)):
        same(drawn(model, kind), plain)


def test_the_layout_tells_of_every_change(monkeypatch):
    """Tables made, one token more than the stride, tables doubled, fewer slots; prompts added, pointed at, dropped."""
    monkeypatch.setattr(cache, "FIRST_COLUMNS", 8)
    shared = SharedPrompts()
    slots, found = Slots(2, 64, torch.device("cpu"), shared, stride=4), Prefilled(None)
    found.keys[0], found.values[0] = torch.ones(3, 1, 2), torch.ones(3, 1, 2)
    seen = [slots.layout]

    def note(changed):
        assert (slots.layout != seen[-1]) == changed
        seen.append(slots.layout)

    def step():
        slots.begin()
        slots.attend(Heads(0, *(torch.ones(len(slots.filled), 1, 1, 2) for _ in range(3)), None, None))
        slots.end()

    shared.add(found, padded_index([0, 2], [2, 1], torch.device("cpu")), torch.tensor([2, 1]))
    note(True)
    slots.link(torch.arange(2), torch.tensor([2, 1]))
    shared.point(torch.tensor([0, 1]))
    note(True)
    for tokens in range(1, 10):
        step()
        note(tokens in (1, 5, 9))  # 8 columns are there from the first on
    assert slots._keys[0].shape[2] == 16
    slots.keep(torch.tensor([1]))
    note(True)
    shared.keep(torch.tensor([1]))
    note(True)


def fails(run):
    raise RuntimeError("operation not permitted when stream is capturing")


def lies(run):
    states = run().clone()
    return Recording(states, lambda: states.zero_())


@pytest.mark.parametrize(
    ("record", "why"), [(fails, "not permitted when stream"), (lies, "other numbers than the pass")]
)
def test_what_cannot_be_recorded_is_launched_operation_by_operation(record, why, records, monkeypatch):
    asked = []
    monkeypatch.setattr(
        engine, "recorder_for", lambda *given: Recorder(lambda run: asked.append(1) or record(run), 1e-4)
    )
    model = make("llama")
    ours = Engine(model, [1], max_rows=4)
    with pytest.warns(RuntimeWarning, match=why):
        first = ours.generate(COPIED, Sampling(max_new_tokens=60), range(6))
    same(first, drawn(model, "copied", replays=False))
    same(ours.generate(COPIED, Sampling(max_new_tokens=60), range(6)), first)  # and without another warning
    assert len(asked) == 1


def test_recording_is_for_gpus():
    assert recorder_for(torch.device("cpu"), 1e-4) is None
    assert recorder_for(torch.device("cuda"), 1e-4) is not None
