"""Log-probs and entropy of given tokens against the full log-softmax, with gradients and chunk borders."""

from math import exp, log

import pytest
import torch

from oneloop.objective import logprobs as module
from oneloop.objective.logprobs import HeadMemory, before, logits_logprobs, table_bytes, token_logprobs

VOCABULARY, HIDDEN = 7, 4


def head(seed, count, dtype=torch.float64):
    rng = torch.Generator().manual_seed(seed)
    hidden = torch.randn(count, HIDDEN, generator=rng, dtype=torch.float64).to(dtype)
    weight = torch.randn(VOCABULARY, HIDDEN, generator=rng, dtype=torch.float64).to(dtype)
    targets = torch.randint(VOCABULARY, (count,), generator=rng)
    return hidden, weight, targets


def slow_logprobs(hidden, weight, targets, temperature):
    """Softmax by hand: one Python list of logits a token."""
    logprobs, entropies = [], []
    for state, target in zip(hidden.tolist(), targets.tolist(), strict=True):
        logits = [sum(h * w for h, w in zip(state, row, strict=True)) / temperature for row in weight.tolist()]
        total = sum(exp(z) for z in logits)
        table = [z - log(total) for z in logits]
        logprobs.append(table[target])
        entropies.append(-sum(exp(p) * p for p in table))
    return logprobs, entropies


def chunks_of(monkeypatch, rows, kept=0):
    """So many tokens a chunk, and tables of so many kept for backward."""
    monkeypatch.setattr(module, "HEAD_MEMORY", {"cpu": HeadMemory(4 * VOCABULARY * rows, 4 * VOCABULARY * kept)})
    monkeypatch.setattr(module, "LEAST_ROWS", 1)


each_way = pytest.mark.parametrize("rows,kept", [(2, 0), (2, 100), (100, 100), (100, 0)])


@pytest.mark.parametrize("temperature", [0.3, 1.0, 2.5])
@pytest.mark.parametrize("rows", [1, 3, 5, 11, 100])
def test_values_are_the_full_softmax_whatever_the_chunk(monkeypatch, rows, temperature):
    chunks_of(monkeypatch, rows)
    hidden, weight, targets = head(0, 11)
    wanted = slow_logprobs(hidden, weight, targets, temperature)
    for grad in (True, False):
        with torch.set_grad_enabled(grad):
            got = token_logprobs(hidden, weight, targets, temperature=temperature)
        assert got[0].tolist() == pytest.approx(wanted[0], rel=1e-12)
        assert got[1].tolist() == pytest.approx(wanted[1], rel=1e-12)


@each_way
def test_gradients_of_both_outputs(monkeypatch, rows, kept):
    """∇ through log-prob and entropy with respect to states and weights, against log_softmax and finite differences."""
    chunks_of(monkeypatch, rows, kept)
    hidden, weight, targets = head(1, 5)
    hidden.requires_grad_(), weight.requires_grad_()
    a, b = torch.randn(2, 5, generator=torch.Generator().manual_seed(2), dtype=torch.float64)

    def gradients(logprobs, entropy):
        return torch.autograd.grad((a * logprobs + b * entropy).sum(), (hidden, weight))

    table = torch.log_softmax(hidden @ weight.T / 0.7, -1)
    full = gradients(table[torch.arange(5), targets], -(table.exp() * table).sum(-1))
    ours = gradients(*token_logprobs(hidden, weight, targets, temperature=0.7))
    torch.testing.assert_close(ours, full, rtol=1e-10, atol=1e-12)
    without_temperature = gradients(*token_logprobs(hidden, weight, targets))
    assert not torch.allclose(without_temperature[0], full[0], rtol=1e-2)
    assert torch.autograd.gradcheck(lambda h, w: token_logprobs(h, w, targets, temperature=0.7), (hidden, weight))


def test_float32_and_bfloat16_answer_in_float32():
    hidden, weight, targets = head(3, 6)
    wanted, wanted_entropy = slow_logprobs(hidden, weight, targets, 1.0)
    logprobs, entropy = token_logprobs(hidden.float(), weight.float(), targets)
    assert logprobs.dtype == entropy.dtype == torch.float32
    assert logprobs.tolist() == pytest.approx(wanted, rel=1e-5)
    assert entropy.tolist() == pytest.approx(wanted_entropy, rel=1e-5)
    low, low_entropy = token_logprobs(hidden.bfloat16(), weight.bfloat16(), targets)
    assert low.dtype == low_entropy.dtype == torch.float32


def test_no_tokens():
    hidden, weight, _ = head(0, 0, torch.float32)
    logprobs, entropy = token_logprobs(hidden.requires_grad_(), weight, torch.zeros(0, dtype=torch.int64))
    assert logprobs.shape == entropy.shape == (0,)
    (logprobs.sum() + entropy.sum()).backward()  # an empty microbatch does not break the graph
    assert hidden.grad.shape == (0, HIDDEN)


def test_huge_logits_stay_finite():
    hidden = torch.tensor([[1e4, 0.0, 0.0, 0.0], [-1e4, 0.0, 0.0, 0.0]], requires_grad=True)
    weight = torch.eye(VOCABULARY, HIDDEN)
    logprobs, entropy = token_logprobs(hidden, weight, torch.tensor([0, 0]))
    (logprobs.sum() + entropy.sum()).backward()
    assert logprobs.tolist()[0] == 0.0 and entropy.tolist() == pytest.approx([0.0, log(6)], abs=1e-5)
    assert bool(hidden.grad.isfinite().all())


def test_tokens_outside_the_support():
    # two of four tokens are possible, equally: log ½ and entropy log 2
    logits = torch.tensor([[0.0, 0.0, -torch.inf, -torch.inf]], requires_grad=True)
    logprobs, entropy = logits_logprobs(logits, torch.tensor([1]))
    assert logprobs.item() == pytest.approx(log(0.5)) and entropy.item() == pytest.approx(log(2))


@each_way
def test_a_head_with_a_bias(monkeypatch, rows, kept):
    chunks_of(monkeypatch, rows, kept)
    hidden, weight, targets = head(5, 6)
    bias = torch.randn(VOCABULARY, generator=torch.Generator().manual_seed(3), dtype=torch.float64)
    inputs = (hidden.requires_grad_(), weight.requires_grad_(), bias.requires_grad_())
    ours = token_logprobs(hidden, weight, targets, bias=bias, temperature=0.7)
    plain = logits_logprobs(hidden @ weight.T + bias, targets, 0.7)
    torch.testing.assert_close(ours, plain, rtol=1e-12, atol=1e-12)
    a, b = (
        torch.autograd.grad(ours[0].sum() + 3 * ours[1].sum(), inputs),
        torch.autograd.grad(plain[0].sum() + 3 * plain[1].sum(), inputs),
    )
    torch.testing.assert_close(a, b, rtol=1e-10, atol=1e-12)


@each_way
def test_entropy_only_when_asked_for(monkeypatch, rows, kept):
    """The log-probs and their gradient are the same; the entropy is absent, or a number without a gradient."""
    chunks_of(monkeypatch, rows, kept)
    hidden, weight, targets = head(6, 5)
    hidden.requires_grad_()
    full, full_entropy = token_logprobs(hidden, weight, targets)
    wanted = torch.autograd.grad(full.sum(), hidden)[0]
    for entropy in ("none", "value"):
        logprobs, entropies = token_logprobs(hidden, weight, targets, entropy=entropy)
        assert torch.equal(logprobs, full) and not entropies.requires_grad
        assert entropies.isnan().all() if entropy == "none" else torch.equal(entropies, full_entropy)
        torch.testing.assert_close(torch.autograd.grad(logprobs.sum(), hidden)[0], wanted, rtol=1e-12, atol=1e-12)


@each_way
def test_a_graph_may_be_walked_twice(monkeypatch, rows, kept):
    chunks_of(monkeypatch, rows, kept)
    hidden, weight, targets = head(7, 5)
    logprobs, _ = token_logprobs(hidden.requires_grad_(), weight, targets)
    first, second = (torch.autograd.grad(logprobs.sum(), hidden, retain_graph=True)[0] for _ in range(2))
    assert torch.equal(first, second)


@each_way
def test_backward_in_autocast_runs_in_the_narrow_type(monkeypatch, rows, kept):
    """Products in bfloat16 give bfloat16's error, no more, and gradients of the weights' own type."""
    chunks_of(monkeypatch, rows, kept)
    hidden, weight, targets = head(8, 6, torch.float32)
    inputs = (hidden.requires_grad_(), weight.requires_grad_())
    exact = torch.autograd.grad(token_logprobs(hidden, weight, targets)[0].sum(), inputs)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        logprobs, _ = token_logprobs(hidden, weight, targets)
    rough = torch.autograd.grad(logprobs.sum(), inputs)
    for ours, wanted in zip(rough, exact, strict=True):
        assert ours.dtype == torch.float32 and not torch.equal(ours, wanted)
        torch.testing.assert_close(ours, wanted, rtol=3e-2, atol=3e-2)


@pytest.mark.parametrize("rows,kept,products", [(2, 0, 3), (2, 4, 3), (2, 5, 0), (5, 0, 1)])
def test_backward_computes_logits_again_only_where_they_are_not_kept(monkeypatch, rows, kept, products):
    """Five tokens: three chunks of two, or one."""
    chunks_of(monkeypatch, rows, kept)
    hidden, weight, targets = head(9, 5, torch.float32)
    calls = []
    monkeypatch.setattr(module, "_logits", lambda *args, plain=module._logits: calls.append(1) or plain(*args))
    loss = token_logprobs(hidden.requires_grad_(), weight, targets)[0].sum()
    saved = loss.grad_fn.next_functions[0][0].saved_tensors
    assert sum(len(x) for x in saved if x is not None and x.shape[1:] == (VOCABULARY,)) == (5 if kept >= 5 else 0)
    held = 5 if kept >= 5 else min(rows, 5)
    assert table_bytes(5, VOCABULARY, module.HEAD_MEMORY["cpu"]) == 4 * VOCABULARY * held
    calls.clear()
    loss.backward()
    assert len(calls) == products


@pytest.mark.parametrize("temperature", [0.0, -1.0])
def test_greedy_has_no_logprobs(temperature):
    with pytest.raises(ValueError, match="need a positive one"):
        token_logprobs(*head(0, 2), temperature=temperature)


def test_what_belongs_to_the_token_before():
    of_tokens = torch.arange(6.0).reshape(2, 3) + 1
    assert before(of_tokens).tolist() == [[1.0, 1.0, 2.0], [4.0, 4.0, 5.0]]
