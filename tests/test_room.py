"""Memory that runs out in a pass: smaller passes, once, and the same gradient; nothing else is taken for it."""

from dataclasses import replace

import pytest
import torch

from oneloop.algorithms import ALGORITHMS, GRPO
from oneloop.loop import train
from oneloop.room import Room, out_of_memory
from toy_models import Bigram, Fixed, Memory, rows_for

FULL = torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB.\nmore words")
CPU = RuntimeError(
    "[enforce fail at alloc_cpu.cpp:127] err == 0. DefaultCPUAllocator: can't allocate memory: you tried "
)


class Fails(torch.autograd.Function):
    """Memory that runs out in the backward pass, when some gradients have been added up."""

    @staticmethod
    def forward(ctx, x):
        return x.clone()

    @staticmethod
    def backward(ctx, *gradients):
        raise FULL


class Small(Bigram):
    """Runs out of memory in its passes with gradient number `bad`."""

    def __init__(self, bad=(), where="forward", error=FULL):
        super().__init__(0, reference=Bigram(7))
        self.bad, self.where, self.error, self.passes, self.sizes = bad, where, error, 0, []

    def policy(self, batch):
        out = super().policy(batch)
        if torch.is_grad_enabled():
            self.passes += 1
            self.sizes.append(int(batch.lengths.sum()))
            if self.passes in self.bad:
                if self.where == "forward":
                    raise self.error
                return out._replace(logprobs=Fails.apply(out.logprobs), scores=Fails.apply(out.scores))
        return out


def trained(models, algorithm=GRPO, **options):
    recorder = Memory()
    settings = {"steps": 2, "minibatch": 100, "max_tokens": 60, "seed": 0} | options
    train(algorithm, Fixed(lambda step: replace(rows_for(algorithm, truncate=False))), models, recorder, **settings)
    return models, recorder


@pytest.mark.parametrize("where", ["forward", "backward"])
@pytest.mark.parametrize("name", ["grpo", "sft", "dpo", "reward_model"])
def test_the_same_weights_with_half_the_tokens(name: str, where: str) -> None:
    calm, _ = trained(Small(), ALGORITHMS[name])
    models, recorder = trained(Small(bad=(2,), where=where), ALGORITHMS[name])
    torch.testing.assert_close(models.weights(), calm.weights(), rtol=1e-9, atol=1e-9)
    assert recorder.events == [(0, "A_ROOM")] and models.steps == calm.steps
    assert max(models.sizes[2:]) <= 30 < max(models.sizes[:2]), "from then on"


def test_a_second_time_it_is_told() -> None:
    models = Small(bad=(2, 5))
    with pytest.raises(torch.OutOfMemoryError):
        trained(models)


def test_models_that_cannot_forget_are_not_asked_again() -> None:
    class Plain:
        def __init__(self, models):
            self.policy, self.reference, self.step = models.policy, models.reference, models.step

    models = Small(bad=(2,))
    with pytest.raises(torch.OutOfMemoryError):
        trained(Plain(models))


@pytest.mark.parametrize(
    ("error", "is_it"),
    [(FULL, True), (CPU, True), (MemoryError(), True), (RuntimeError("HIP out of memory"), True),
     (RuntimeError("shapes do not match"), False), (ValueError("out of memory"), False), (OSError(12, "x"), False)],
)  # fmt: skip
def test_what_counts(error: BaseException, is_it: bool) -> None:
    assert out_of_memory(error) == is_it


def test_half_once() -> None:
    asked: list[int] = []

    def passes(tokens: int) -> int:
        asked.append(tokens)
        if tokens > 50:
            raise CPU
        return tokens

    again: list[None] = []
    room = Room(100)
    assert room(passes, lambda: again.append(None)) == 50 == room(passes) and asked == [100, 50, 50] and len(again) == 1
    room = Room(400)
    for tokens in (200, 200):  # the second time it is no smaller
        with pytest.raises(RuntimeError):
            room(passes)
        assert room.tokens == asked[-1] == tokens
    with pytest.raises(RuntimeError):
        Room(100, halves=False)(passes)


def test_passes_without_gradient_too() -> None:
    """Of the learner, which cuts them itself: the same log-probs, and it is told."""
    from oneloop.experience.pack import Row, collate
    from oneloop.model.learner import Learner, Optimization
    from oneloop.model.load import load_policy

    plan = Optimization(learning_rate=1e-3, critic_learning_rate=1e-3, total_updates=1)
    said: list[str] = []
    learner = Learner(load_policy("scratch:tiny"), optimization=plan, max_tokens=64, told=said.append)
    batch = collate([Row(prompt=(1, 2), actions=(3, 4, 5, 6, row), group=row, reward=0.0) for row in range(12)])
    with torch.no_grad():
        wanted, forward, sizes = learner.policy(batch).logprobs, learner._forward, []

        def full(micro, entropy):
            sizes.append(int(micro.lengths.sum()))
            if len(sizes) == 2:
                raise CPU
            return forward(micro, entropy)

        learner._forward = full
        torch.testing.assert_close(learner.policy(batch).logprobs, wanted, rtol=0, atol=1e-6)
    assert "at most 32 tokens" in said[0] and learner.max_tokens == 32 and max(sizes[2:]) <= 32 < sizes[0]
