"""The put-together backbone is the model's own function, in values and gradients, or it is refused."""

from dataclasses import replace

import pytest
import torch
from torch import nn
from transformers import AutoModelForCausalLM, GemmaConfig, LlamaConfig, MistralConfig, Qwen2Config, Qwen3Config

from oneloop.batch import Batch
from oneloop.forward import fused, pointwise
from oneloop.forward import packed as packed_sequence
from oneloop.forward.attention import hidden_states
from oneloop.forward.fused import Fused, block_width, decode_linear, settings_of
from oneloop.forward.packed import packed
from oneloop.forward.projection import Adapter, Projection
from oneloop.forward.reader import Backbone, at_ends, before_actions
from oneloop.rollout import decoding
from oneloop.rollout.engine import Engine
from oneloop.types import Sampling

SIZES = {
    "vocab_size": 60, "hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": 4, "num_key_value_heads": 2,
    "intermediate_size": 48, "max_position_embeddings": 256, "pad_token_id": 0,
}  # fmt: skip
CONFIGS = {
    "llama": LlamaConfig(**SIZES),
    "llama with biases": LlamaConfig(**SIZES, attention_bias=True, mlp_bias=True),
    "qwen2": Qwen2Config(**SIZES),
    "qwen3": Qwen3Config(**SIZES, head_dim=16),
    "mistral": MistralConfig(**SIZES, sliding_window=5, head_dim=8),
}


def make(config):
    torch.manual_seed(0)
    model = AutoModelForCausalLM.from_config(config)
    with torch.no_grad():  # gains of 1 and biases of 0 would hide a mistake
        for parameter in model.parameters():
            parameter.add_(torch.randn_like(parameter) * (0.3 if parameter.dim() == 1 else 0.1))
    return model.eval()


def batch_of(lengths, shared):
    """Rows of two groups; the first rows share a prompt."""
    width = max(lengths)
    tokens = torch.randint(60, (len(lengths), width), generator=torch.Generator().manual_seed(1))
    tokens[:, :shared] = tokens[0, :shared]
    columns = torch.arange(width)
    inside = columns < torch.tensor(lengths)[:, None]
    return Batch(
        tokens=tokens,
        mask=inside & (columns >= shared),
        group=torch.arange(len(lengths)) // 3,
        rewards=torch.zeros(tokens.shape),
        truncated=torch.zeros(len(lengths), dtype=torch.bool),
        lengths=torch.tensor(lengths),
    )


BATCHES = {"ragged": batch_of([9, 4, 7, 12, 3], 1), "long shared prompts": batch_of([30, 26, 28, 25, 33], 20)}


def states_and_gradients(model, run, sequence):
    model.zero_grad()
    states = run(sequence.tokens, sequence.positions, sequence)
    slopes = torch.randn(states.shape, generator=torch.Generator().manual_seed(2))
    (states * slopes).sum().backward()
    return states.detach(), {name: p.grad for name, p in model.named_parameters() if p.grad is not None}


def same(model, ours, theirs, sequence):
    ours, theirs = (states_and_gradients(model, run, sequence) for run in (ours, theirs))
    torch.testing.assert_close(ours[0], theirs[0], rtol=1e-5, atol=1e-5)
    assert ours[1].keys() == theirs[1].keys() and len(ours[1]) > 5
    for name, gradient in theirs[1].items():
        torch.testing.assert_close(ours[1][name], gradient, rtol=1e-4, atol=1e-4, msg=lambda m, n=name: f"{n}: {m}")


@pytest.mark.parametrize("batch", BATCHES)
@pytest.mark.parametrize("name", CONFIGS)
def test_the_states_and_all_gradients_are_the_modules_own(name, batch):
    model, sequence = make(CONFIGS[name]), packed(BATCHES[batch])
    settings = settings_of(model)
    assert settings is not None

    def plain(tokens, positions, layout):
        return hidden_states(model, tokens, positions, layout)

    same(model, Fused(model, settings), plain, sequence)
    with torch.no_grad():
        states = [
            run(sequence.tokens, sequence.positions, sequence) for run in (Fused(model, settings, decode=True), plain)
        ]
    torch.testing.assert_close(*states, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("columns", [range(16, 3, -1), range(9, 3, -1), range(0)])
@pytest.mark.parametrize("name", CONFIGS)
def test_decoding_from_narrow_and_wide_blocks(name, columns, monkeypatch):
    monkeypatch.setattr(fused, "COLUMNS", columns)
    model, sequence = make(CONFIGS[name]), packed(BATCHES["ragged"])
    settings = settings_of(model)
    assert settings is not None
    with torch.no_grad():
        ours = Fused(model, settings, decode=True)(sequence.tokens, sequence.positions, sequence)
        torch.testing.assert_close(
            ours, hidden_states(model, sequence.tokens, sequence.positions, sequence), rtol=1e-5, atol=1e-5
        )


def test_the_width_of_blocks():
    """At most 512 columns, a part of each projection, whole heads; a width without such a part is one block."""

    def width(*features, unit=1):
        return block_width(features, unit)

    assert (width(384, 384, 384, unit=64), width(800, 800), width(1024, 256, 256, unit=64)) == (384, 400, 256)
    assert width(640, 640, 640) == 320 and width(640, 640, 640, unit=128) == 128
    assert (width(683, 683), width(48, 16), width(4096)) == (683, 16, 512)


def test_parameters_that_are_not_trained_get_no_gradient():
    model, sequence = make(CONFIGS["qwen2"]), packed(BATCHES["ragged"])
    frozen = {
        name for name, _ in model.named_parameters() if "k_proj" in name or "layernorm" in name or "layers.0" in name
    }
    for name, parameter in model.named_parameters():
        parameter.requires_grad_(name not in frozen)
    settings = settings_of(model)
    assert settings is not None
    same(model, Fused(model, settings), lambda *given: hidden_states(model, *given), sequence)
    assert all(model.get_parameter(name).grad is None for name in frozen)


@pytest.mark.parametrize("name", CONFIGS)
def test_a_learner_takes_it_and_sees_new_weights(name):
    """Matrices are put together for each pass: a step of the optimizer in between must show."""
    model, batch = make(CONFIGS[name]), BATCHES["ragged"]
    backbone = Backbone.of(model)
    assert backbone.settings is not None and Backbone.of(model, torch.bfloat16).settings is None
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.mul_(1.1)
        ours, theirs = backbone(batch), Backbone(model, packs=True)(batch)
    torch.testing.assert_close(ours.flat, theirs.flat, rtol=1e-5, atol=1e-5)


def hooked(model):
    model.model.layers[1].mlp.register_forward_hook(lambda module, args, out: out * 2)
    return model


def adapted(model):
    """A low-rank update beside a projection, as adapters do it."""
    layer = model.model.layers[0].self_attn

    class Adapted(nn.Module):
        def __init__(self, base):
            super().__init__()
            self.base, self.more = base, nn.Linear(32, base.out_features, bias=False)

        @property
        def weight(self):
            return self.base.weight

        bias = None

        def forward(self, x):
            return self.base(x) + self.more(x)

    layer.v_proj = Adapted(layer.v_proj)
    return model


REFUSED = {
    "another activation": lambda: make(LlamaConfig(**SIZES, hidden_act="gelu")),
    "another norm": lambda: make(GemmaConfig(**SIZES, head_dim=8, hidden_activation="silu")),
    "a hook": lambda: hooked(make(CONFIGS["llama"])),
    "an adapter": lambda: adapted(make(CONFIGS["llama"])),
    "half precision": lambda: make(CONFIGS["llama"]).bfloat16(),
}


@pytest.mark.parametrize("name", REFUSED)
def test_whatever_would_change_the_function_is_refused(name):
    assert settings_of(REFUSED[name]()) is None


def test_a_large_backbone_is_not_copied_for_decoding(monkeypatch):
    model, copies, real = make(CONFIGS["llama"]), [], decoding.Fused
    monkeypatch.setattr(decoding, "Fused", lambda *a, decode: copies.append(decode) or real(*a, decode=decode))
    drawn = []
    for limit in (10**9, 10_000):
        monkeypatch.setattr(fused, "MOST_BYTES", limit)
        drawn.append(Engine(model, []).generate([[5, 6, 7]] * 3, Sampling(max_new_tokens=5), range(3)))
    assert copies == [True, False]
    assert [c.tokens for c in drawn[0]] == [c.tokens for c in drawn[1]]


def unsigned(heads, cos, sin, direction):
    half = heads.shape[-1] // 2
    return heads * cos + torch.cat([heads[..., half:], heads[..., :half]], -1) * sin * direction


@pytest.mark.parametrize(
    ("name", "wrong"),
    [
        ("_scale", lambda x, eps: 1 / (x.abs().mean(-1, keepdim=True) + eps)),
        ("_gated", lambda gate, up: gate.sigmoid() * up),
        ("_rotated", unsigned),
    ],
)
def test_a_wrong_function_is_noticed_and_the_modules_run(name, wrong, monkeypatch):
    monkeypatch.setattr(pointwise, name, wrong)
    assert settings_of(make(CONFIGS["llama"])) is None


def wide(*shape):
    return torch.randn(*shape, dtype=torch.float64, requires_grad=True)


def test_each_function_is_its_definition_and_its_gradient_too():
    torch.manual_seed(0)
    x, gain, heads = wide(5, 6), wide(6), wide(1, 5, 3, 4)
    gate, up, eps = wide(5, 4), wide(5, 4), torch.tensor(0.1, dtype=torch.float64)
    angles = torch.rand(1, 5, 1, 2, dtype=torch.float64).repeat(1, 1, 1, 2)
    cos, sin = angles.cos(), angles.sin()
    rotated = torch.cat([-heads[..., 2:], heads[..., :2]], -1)
    root = (x.square().mean(-1, keepdim=True) + eps).sqrt()
    torch.testing.assert_close(pointwise.normed(x, eps, gain), gain * x / root)
    torch.testing.assert_close(pointwise.normed(x, eps, None), x / root)
    torch.testing.assert_close(pointwise.gated(gate, up), gate * gate.sigmoid() * up)
    torch.testing.assert_close(pointwise.apply_rotary(heads, cos, sin), heads * cos + rotated * sin)
    assert torch.autograd.gradcheck(lambda t, g: pointwise.normed(t, eps, g), (x, gain))
    assert torch.autograd.gradcheck(pointwise.gated, (gate, up))
    assert torch.autograd.gradcheck(lambda t: pointwise.apply_rotary(t, cos, sin), heads)
    with torch.no_grad():
        torch.testing.assert_close(pointwise.apply_rotary(pointwise.apply_rotary(heads, cos, sin), cos, -sin), heads)


def test_projections_of_one_input_add_their_gradients_up():
    torch.manual_seed(0)
    linears = [nn.Linear(6, width, bias=bias).double() for width, bias in ((4, True), (2, False), (3, True))]
    parameters = [p for linear in linears for p in linear.parameters()]
    x = wide(5, 6)
    plain = [Projection(linear.weight, linear.bias) for linear in linears]
    for ours, linear in zip(pointwise.projected(x, plain), linears, strict=True):
        torch.testing.assert_close(ours, linear(x))
    assert torch.autograd.gradcheck(lambda t, *_: pointwise.projected(t, plain), (x, *parameters))


def test_adapters_add_their_part_to_the_projections_that_have_one():
    torch.manual_seed(0)
    weights, downs, ups = [wide(4, 6), wide(3, 6), wide(2, 6)], [wide(2, 6), wide(3, 6)], [wide(4, 2), wide(2, 3)]
    first, last = Adapter(downs[0], ups[0], 0.5), Adapter(downs[1], ups[1], -2.0)
    parts = [Projection(weight, None, part) for weight, part in zip(weights, (first, None, last), strict=True)]
    x, residual = wide(5, 6), wide(5, 4)
    wanted = (
        x @ (weights[0] + 0.5 * ups[0] @ downs[0]).T,
        x @ weights[1].T,
        x @ (weights[2] - 2 * ups[1] @ downs[1]).T,
    )
    torch.testing.assert_close(pointwise.projected(x, parts), wanted)
    torch.testing.assert_close(tuple(x @ part.merged.T for part in parts), wanted)
    everything = (x, *weights, *downs, *ups)
    assert torch.autograd.gradcheck(lambda t, *_: pointwise.projected(t, parts), everything)
    torch.testing.assert_close(fused._Out(parts[0])(residual, x), residual + wanted[0])
    assert torch.autograd.gradcheck(lambda r, t, *_: fused._Out(parts[0])(r, t), (residual, *everything))
    for weight in weights:
        weight.requires_grad_(False)
    assert torch.autograd.gradcheck(lambda t, *_: pointwise.projected(t, parts), (x, *downs, *ups))
    with torch.no_grad():
        torch.testing.assert_close(pointwise.projected(x, parts), wanted)
        torch.testing.assert_close(fused._Out(parts[0])(residual.clone(), x), residual + wanted[0])


def test_a_product_of_decode_linear():
    for bias in (True, False):
        linear, x = nn.Linear(7, 5, bias=bias), torch.randn(3, 7)
        torch.testing.assert_close(decode_linear(linear)(x), linear(x))


def reads_of(batch, which):
    return {"ends": at_ends(batch), "actions": before_actions(batch.mask), "none": torch.zeros_like(batch.mask)}[which]


READS = [(name, which, False) for name in CONFIGS for which in ("ends", "actions")]


@pytest.mark.parametrize("batch", BATCHES)
@pytest.mark.parametrize(("name", "which", "recompute"), [*READS, ("llama", "actions", True), ("llama", "none", False)])
def test_states_that_alone_are_read_are_those_of_the_whole_pass(name, which, recompute, batch):
    model, batch = make(CONFIGS[name]), BATCHES[batch]
    backbone, read = Backbone.of(model, recompute=recompute), reads_of(batch, which)
    slopes = torch.randn(int(read.sum()), 32, generator=torch.Generator().manual_seed(2))

    def states_and_gradients(states):
        model.zero_grad()
        found = states.flat.index_select(0, states.index[read])
        (found * slopes).sum().backward()
        return found.detach(), {name: p.grad for name, p in model.named_parameters() if p.grad is not None}

    picked = backbone(batch, read)
    assert len(picked.flat) < len(backbone(batch).flat) and (which != "ends" or len(picked.flat) == len(batch))
    ours, theirs = states_and_gradients(picked), states_and_gradients(Backbone(model, packs=True)(batch))
    torch.testing.assert_close(ours, theirs, rtol=1e-4, atol=1e-4)
    with torch.no_grad():
        torch.testing.assert_close(backbone(batch, read).flat, picked.flat.detach())


def test_a_state_that_nobody_asked_for_cannot_be_read():
    batch = BATCHES["ragged"]
    states = Backbone.of(make(CONFIGS["llama"]))(batch, at_ends(batch))
    assert states.last(batch.lengths).shape == (5, 32)
    with pytest.raises((IndexError, RuntimeError), match="index"):
        states.before(batch.mask)


@pytest.mark.parametrize("which", ["ends", "actions"])
def test_queries_of_some_tokens_in_one_call_and_by_buckets(which, monkeypatch):
    batch = BATCHES["long shared prompts"]
    backbone, calls = Backbone.of(make(CONFIGS["mistral"])), []
    run = packed_sequence.attended
    monkeypatch.setattr(packed_sequence, "attended", lambda *given: calls.append(given) or run(*given))
    with torch.no_grad():
        backbone(batch, reads_of(batch, which))
    assert len(calls) == (which == "ends")


def test_which_states_are_read():
    """By hand: those before actions, and after the last tokens; an empty row counts as one of one token."""
    mask = torch.tensor([[0, 0, 1, 1, 0], [0, 1, 0, 0, 1], [0, 0, 0, 0, 0]]).bool()
    assert before_actions(mask).int().tolist() == [[0, 1, 1, 0, 0], [1, 0, 0, 1, 0], [0, 0, 0, 0, 0]]
    rows = replace(BATCHES["ragged"].rows(torch.tensor([0, 1, 2])), lengths=torch.tensor([3, 9, 0]))
    assert at_ends(rows).nonzero().tolist() == [[0, 2], [1, 8], [2, 0]]
