"""Compiled layers: the numbers of the modules, few compilations whatever the rows, and nothing left behind."""

import shutil
from collections.abc import Iterator

import pytest
import torch
from torch._dynamo.utils import counters
from transformers import BloomConfig, Gemma2Config, Gemma3TextConfig, LlamaConfig

from oneloop.batch import Batch
from oneloop.errors import ConfigError
from oneloop.experience.pack import Row, collate
from oneloop.forward.compiled import INDUCTOR, check_compiler
from oneloop.forward.recompute import layers_of
from oneloop.model.learner import Learner, Optimization
from oneloop.model.lora import Lora, add_adapters
from oneloop.model.save import shared_critic
from oneloop.rollout.engine import Engine
from oneloop.types import Sampling
from toy_models import decided

# torch warns itself while it traces what it compiles; as errors, these would end the tracing
pytestmark = [pytest.mark.filterwarnings(f"ignore::{kind}") for kind in ("DeprecationWarning", "UserWarning")]
BACKEND = "aot_eager"
"""Traces forward and backward pass as the real one does, and needs no compiler of C++."""
ROPE = {"vocab_size": 60, "hidden_size": 32, "num_attention_heads": 4, "num_key_value_heads": 2} | {
    "intermediate_size": 48, "max_position_embeddings": 64, "num_hidden_layers": 2,
}  # fmt: skip
LLAMA = LlamaConfig(**ROPE)
CONFIGS = {
    "llama, fused": (LLAMA, BACKEND),
    "gemma3, two kinds of layers": (
        Gemma3TextConfig(**ROPE, head_dim=8, sliding_window=6, layer_types=["sliding_attention", "full_attention"]),
        "eager",
    ),
    "gemma2, whole logits": (
        Gemma2Config(**ROPE, head_dim=8, final_logit_softcapping=3.0, sliding_window=6),
        "eager",
    ),
    "bloom, padded": (BloomConfig(vocab_size=60, hidden_size=32, n_layer=2, n_head=4), BACKEND),
}
"""Backward passes are traced once over rows that are packed, and once over padded ones."""
PLAN = Optimization(learning_rate=1e-3, critic_learning_rate=1e-3, total_updates=10)


@pytest.fixture(autouse=True)
def counted() -> Iterator[None]:
    """Compilations since the test began."""
    torch._dynamo.reset()
    counters.clear()
    yield
    torch._dynamo.reset()


def graphs() -> int:
    return counters["stats"]["unique_graphs"]


def batch(*answers: int) -> Batch:
    """Ragged rows, the first two of which share their prompt."""
    prompts = [[5, 6, 7, 8], [5, 6, 7, 8], *([9 + number] * (number + 1) for number in range(len(answers) - 2))]
    rows = [
        Row(prompt=prompt, actions=[(7 * place + answer) % 50 + 4 for place in range(answer)], group=group, reward=1.0)
        for prompt, answer, group in zip(prompts, answers, (0, 0, *range(1, len(answers) - 1)), strict=True)
    ]
    return collate(rows)


BATCHES = (batch(3, 5, 2), batch(1, 9, 4, 12, 12, 3), batch(20, 2, 7, 1))


def gradients(learner: Learner, rows: Batch) -> dict[str, torch.Tensor]:
    learner.optimizer.zero_grad()
    out = learner.policy(rows)
    total = out.logprobs.sum() if out.values is None else out.logprobs.sum() + out.values.square().sum()
    total.backward()
    return {name: x.grad.clone() for name, x in learner.named_parameters().items() if x.grad is not None}


def assert_close(ours: dict[str, torch.Tensor], theirs: dict[str, torch.Tensor]) -> None:
    assert ours.keys() == theirs.keys() and len(theirs) > 4
    for name, gradient in theirs.items():
        torch.testing.assert_close(ours[name], gradient, rtol=1e-3, atol=1e-4 * float(gradient.abs().max()), msg=name)
    assert any(gradient.abs().max() > 1e-2 for gradient in theirs.values())


@pytest.mark.parametrize("name", CONFIGS)
def test_numbers_are_those_of_the_modules_and_lengths_compile_nothing(name: str) -> None:
    config, backend = CONFIGS[name]
    model = decided(config)
    plain = Learner(model, optimization=PLAN)
    expected = [gradients(plain, rows) for rows in BATCHES]
    learner = Learner(model, optimization=PLAN, compiler=backend)
    tried_out = graphs()
    # with gradient and without; a layer is cut in four where its attention goes over buckets, and whole where rows are
    # padded, once for each kind of layer
    assert 2 <= tried_out <= 8
    for rows, theirs in zip(BATCHES, expected, strict=True):
        assert_close(gradients(learner, rows), theirs)
        with torch.no_grad():
            torch.testing.assert_close(learner.policy(rows).logprobs, plain.policy(rows).logprobs, rtol=1e-4, atol=1e-4)
    assert graphs() == tried_out

    assert not any("forward" in layer.__dict__ for layer in layers_of(model))


def test_all_layers_share_what_is_compiled() -> None:
    def compilations(layers: int) -> int:
        torch._dynamo.reset()
        counters.clear()
        learner = Learner(
            decided(LlamaConfig(**ROPE | {"num_hidden_layers": layers})), optimization=PLAN, compiler="eager"
        )
        gradients(learner, BATCHES[0])
        return graphs()

    assert compilations(1) == compilations(4) > 0


def test_recomputed_layers_run_compiled_and_give_the_same_bits() -> None:
    model = decided(LLAMA)
    kept, again = (Learner(model, optimization=PLAN, recompute=on, compiler=BACKEND) for on in (False, True))
    before = graphs()
    ours, theirs = gradients(again, BATCHES[1]), gradients(kept, BATCHES[1])
    assert all(torch.equal(ours[name], theirs[name]) for name in theirs)
    assert graphs() == before

    def states(learner: Learner) -> int:
        sizes: dict[int, int] = {}

        def note(x: torch.Tensor) -> torch.Tensor:
            sizes[x.untyped_storage().data_ptr()] = x.untyped_storage().nbytes()
            return x

        with torch.autograd.graph.saved_tensors_hooks(note, lambda x: x):
            learner.policy(BATCHES[1])
        return sum(sizes.values())

    assert states(again) < 0.9 * states(kept)


def test_a_value_head_and_a_frozen_reference() -> None:
    model, reference = decided(LLAMA), decided(LLAMA)
    critic = shared_critic(model)
    torch.nn.init.normal_(critic.head.weight, generator=torch.Generator().manual_seed(1))
    plain, learner = (
        Learner(model, optimization=PLAN, reference=reference, critic=critic, compiler=compiler)
        for compiler in (None, "eager")
    )
    before = graphs()
    assert_close(gradients(learner, BATCHES[1]), gradients(plain, BATCHES[1]))
    torch.testing.assert_close(learner.reference(BATCHES[2]), plain.reference(BATCHES[2]), rtol=1e-4, atol=1e-4)
    assert before < graphs() <= 12  # the reference's parameters ask for no gradient: a kind of its own
    gradients(learner, BATCHES[2])
    assert graphs() <= 12


def test_adapters_train_and_turn_off() -> None:
    pytest.importorskip("peft")
    model = decided(LLAMA)
    add_adapters(model, Lora(rank=2), "somewhere")
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            if "lora_B" in name:
                parameter.normal_(generator=torch.Generator().manual_seed(2))
    plain, learner = (Learner(model, optimization=PLAN, compiler=compiler) for compiler in (None, "eager"))
    for rows in BATCHES:
        assert_close(gradients(learner, rows), gradients(plain, rows))
        theirs = plain.reference(rows)
        torch.testing.assert_close(learner.reference(rows), theirs, rtol=1e-4, atol=1e-4)
        assert not torch.allclose(learner.reference(rows), plain.policy(rows).logprobs, atol=1e-2)
    # of the first layer the input needs no gradient, of the others it does; and a pass with adapters off
    assert graphs() <= 20


def test_modules_names_and_samples_are_as_before() -> None:
    model = decided(LLAMA)
    names, implementation = list(model.state_dict()), model.base_model.config._attn_implementation
    sampled = []
    for compiler in (None, "eager"):
        learner = Learner(model, optimization=PLAN, compiler=compiler)
        gradients(learner, BATCHES[0])
        before = graphs()
        sampled.append(Engine(model, (59,)).generate([[5, 6], [7]], Sampling(max_new_tokens=6), range(2)))
        assert graphs() == before  # nothing of the sampler's is compiled
    assert sampled[0] == sampled[1]
    assert list(model.state_dict()) == names
    assert model.base_model.config._attn_implementation == implementation


def test_what_the_compiler_cannot_do_is_told_before_training() -> None:
    def refusing(graph, inputs):
        raise RuntimeError("no such instruction")

    def wrong(graph, inputs):
        return lambda *inputs: [x + 1 if isinstance(x, torch.Tensor) else x for x in graph(*inputs)]

    for backend, told in ((refusing, "no such instruction"), (wrong, "say something else compiled than as they are")):
        name = f"oneloop_{backend.__name__}"
        if name not in torch._dynamo.list_backends(exclude_tags=()):
            torch._dynamo.register_backend(backend, name=name)
        with pytest.raises(ConfigError, match=told) as told_as:
            Learner(decided(LLAMA), optimization=PLAN, compiler=name)
        assert "Fix: leave " in str(told_as.value)


def test_no_compiler_is_named_with_its_fix() -> None:
    with (
        torch._inductor.config.patch({"cpp.cxx": (None, "/nowhere/g++")}),
        pytest.raises(ConfigError, match=r"No working C\+\+ compiler found.*Fix: install g\+\+ .*leave --compile out"),
    ):
        check_compiler("cpu")


@pytest.mark.skipif(shutil.which("g++") is None, reason="inductor needs g++")
def test_the_real_compiler() -> None:
    model = decided(LLAMA)
    check_compiler("cpu")
    plain = Learner(model, optimization=PLAN)
    expected = [gradients(plain, rows) for rows in BATCHES]
    counters.clear()
    learner = Learner(model, optimization=PLAN, compiler=INDUCTOR)
    for rows, theirs in zip(BATCHES, expected, strict=True):
        assert_close(gradients(learner, rows), theirs)
    assert graphs() <= 8
