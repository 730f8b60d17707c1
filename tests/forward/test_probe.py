"""What may run end to end is tried on the model: what the trial refuses is padded, and the trial leaves no trace."""

import pytest
import torch
from test_packed import CONFIGS, GPT2, LAYOUTS, ROPE, alone, layout, make, make_learner, same_outputs
from transformers import BloomConfig, Gemma2Config, GPT2Config

from oneloop.forward.attention import evaluating, hidden_states
from oneloop.forward.probe import packs


def deaf(model):
    """A Llama whose attention takes the layout and does not use it."""
    for layer in model.model.layers:
        real = layer.self_attn.forward

        def attend(*args, _real=real, layout=None, **options):
            before, model.config._attn_implementation = model.config._attn_implementation, "sdpa"
            try:
                return _real(*args, **options)
            finally:
                model.config._attn_implementation = before

        layer.self_attn.forward = attend
    return model


def odd_layers(model):
    """The states are right today, but a layer type that nobody here knows may not mean what it seems to."""
    model.config.__dict__["layer_types"] = ["full_attention", "chunked_attention"]
    return model


def short_windows_unsaid(model):
    """Every layer gets a window that the configuration does not speak of."""
    model.config.__dict__["layer_types"] = ["full_attention", "full_attention"]
    return model


def own_positions(model):
    """Attention as the layout has it, and positions that run on from one row into the next."""
    real = model.model.forward
    model.model.forward = lambda *given, position_ids=None, **options: real(*given, **options)
    return model


REFUSED = {
    "own positions": lambda: own_positions(make(CONFIGS["llama"])),
    "deaf": lambda: deaf(make(CONFIGS["llama"])),
    "odd layers": lambda: odd_layers(make(CONFIGS["llama"])),
    "unsaid windows": lambda: short_windows_unsaid(make(CONFIGS["mistral"])),
    "gemma2": lambda: make(Gemma2Config(**ROPE, head_dim=8, attn_logit_softcapping=2.0)),
    "bloom": lambda: make(BloomConfig(vocab_size=60, hidden_size=32, n_layer=2, n_head=4)),
}


@pytest.mark.parametrize("name", REFUSED)
def test_what_the_probe_refuses_is_padded_and_still_right(name):
    model = REFUSED[name]()
    implementation = model.config._attn_implementation
    assert not packs(model)
    assert model.config._attn_implementation == implementation
    learner, batch = make_learner(model), layout(LAYOUTS["pairs"])
    assert learner.note and not learner._backbone.packs
    same_outputs(learner.policy(batch), alone(learner, batch), batch)


@pytest.mark.parametrize("training", [False, True])
def test_the_probe_leaves_no_trace(training):
    """Dropout neither changes the answer nor is drawn from; modes, configuration and gradients stay as they are."""
    model = make(GPT2Config(**GPT2, resid_pdrop=0.5, embd_pdrop=0.5, attn_pdrop=0.5)).train(training)
    model.lm_head.train(not training)
    modes = [module.training for module in model.modules()]
    implementation, state = model.config._attn_implementation, torch.get_rng_state()
    assert packs(model)
    assert [module.training for module in model.modules()] == modes
    assert model.config._attn_implementation == implementation and torch.equal(torch.get_rng_state(), state)
    assert all(parameter.grad is None for parameter in model.parameters())


class Broken:
    def attend(self, heads):
        raise FloatingPointError("in the middle of a layer")


def test_an_error_inside_the_layout_leaves_no_trace():
    model = make(CONFIGS["llama"]).train()
    implementation = model.config._attn_implementation
    ids = torch.tensor([[1, 2, 3]])
    with pytest.raises(FloatingPointError), evaluating(model):
        hidden_states(model, ids, torch.arange(3)[None], Broken())
    assert model.config._attn_implementation == implementation
    assert all(module.training for module in model.modules())
    assert packs(model)
