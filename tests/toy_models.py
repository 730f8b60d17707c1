"""A language model small enough to check by hand, behind the ports of the loop.

State of token t: tanh of the mean embedding of tokens 0 … t − 1, so that every earlier token matters. One head
each for tokens, values and scores. The last two ports, `Memory` and `Fixed`, keep records and repeat a batch.
"""

import json
from dataclasses import replace
from itertools import zip_longest
from threading import Barrier, Thread

import torch
from torch import nn
from transformers import AutoModelForCausalLM, PretrainedConfig, PreTrainedModel

from oneloop.algorithms import Preference, Unpaired
from oneloop.batch import Batch, PolicyOutput
from oneloop.objective.distributions import Categorical
from oneloop.objective.natural import taken
from oneloop.ports import Report

VOCABULARY = 8


def decided(config: PretrainedConfig) -> PreTrainedModel:
    """A random model with weights large enough to prefer some tokens, and with biases and gains that show."""
    torch.manual_seed(0)
    model = AutoModelForCausalLM.from_config(config)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.mul_(3.0) if parameter.dim() > 1 else parameter.add_(0.01)
    return model


class Bigram(nn.Module):
    """Implements `oneloop.ports.Models`, and `TwiceDifferentiable`."""

    def __init__(self, seed=0, dtype=torch.float64, learning_rate=0.05, reference=None, hidden=6):
        super().__init__()
        rng = torch.Generator().manual_seed(seed)

        def parameter(*shape):
            return nn.Parameter(torch.randn(*shape, generator=rng, dtype=torch.float64).to(dtype))

        self.embedding, self.head = parameter(VOCABULARY, hidden), parameter(VOCABULARY, hidden)
        self.value_head, self.score_head = parameter(hidden), parameter(hidden)
        self.frozen = [reference]  # in a list: no submodule, no parameters to train
        self.optimizer = torch.optim.Adam(self.parameters(), lr=learning_rate)
        self.steps = 0

    def states(self, tokens):
        count = torch.arange(1, tokens.shape[1] + 1, device=tokens.device)[:, None]
        return torch.tanh(self.embedding[tokens].cumsum(1) / count)

    def policy(self, batch):
        after = self.states(batch.tokens)
        before = torch.cat([torch.zeros_like(after[:, :1]), after[:, :-1]], 1)
        table = torch.log_softmax(before @ self.head.T, -1)
        last = after[torch.arange(len(batch)), (batch.lengths - 1).clamp(min=0)]
        return PolicyOutput(
            logprobs=table.gather(-1, batch.tokens[..., None])[..., 0],
            entropy=-(table.exp() * table).sum(-1),
            values=before @ self.value_head,
            scores=last @ self.score_head,
            final_values=last @ self.value_head,
        )

    @torch.no_grad()
    def reference(self, batch):
        return (self.frozen[0] or self).policy(batch).logprobs.detach()

    def policy_parameters(self):
        return [self.embedding, self.head]

    def take_gradient(self):
        return taken(self.policy_parameters())

    def distribution(self, batch):
        after = self.states(batch.tokens)
        before = torch.cat([torch.zeros_like(after[:, :1]), after[:, :-1]], 1)
        return Categorical((before @ self.head.T)[batch.mask])

    def step(self):
        norms = [p.grad.norm() for p in self.parameters() if p.grad is not None]
        norm = torch.stack(norms or [torch.zeros(())]).norm()
        self.optimizer.step()
        self.optimizer.zero_grad()
        self.steps += 1
        return {"grad_norm": float(norm)}

    def forget(self):
        self.optimizer.zero_grad()

    def skip(self):
        self.optimizer.zero_grad()
        return {"grad_norm": float("nan"), "skipped_steps": 1}

    def nudge(self, size=0.3, seed=99):
        """Move away from π_old: ratios leave 1 on both sides of the band."""
        rng = torch.Generator().manual_seed(seed)
        with torch.no_grad():
            for parameter in self.parameters():
                parameter += size * torch.randn(parameter.shape, generator=rng, dtype=torch.float64).to(parameter.dtype)

    def add_gradients(self, world):
        """Over ranks."""
        for parameter in self.parameters():
            parameter.grad = torch.zeros_like(parameter) if parameter.grad is None else parameter.grad
            world.add(parameter.grad)

    def gradient(self):
        """All gradients end to end; clears them."""
        flat = torch.cat([torch.zeros_like(p).flatten() if p.grad is None else p.grad.flatten()
                          for p in self.parameters()])  # fmt: skip
        self.zero_grad()
        return flat

    def weights(self):
        return torch.cat([parameter.detach().flatten() for parameter in self.parameters()]).clone()

    @torch.no_grad()
    def sample(self, rows, length, rng):
        """Prompts of one token 0, then `length` actions: tokens and log μ."""
        tokens, logprobs = torch.zeros(rows, 1, dtype=torch.int64), torch.zeros(rows, 1, dtype=self.head.dtype)
        for _ in range(length):
            table = torch.log_softmax(self.states(tokens)[:, -1] @ self.head.T, -1)
            drawn = torch.multinomial(table.exp(), 1, generator=rng)
            tokens = torch.cat([tokens, drawn], 1)
            logprobs = torch.cat([logprobs, table.gather(1, drawn)], 1)
        return tokens, logprobs


class Memory:
    """Implements `oneloop.ports.Recorder`."""

    def __init__(self):
        self.rows, self.events, self.drawn = [], [], []

    def scalars(self, step, values):
        self.rows.append((step, dict(values)))

    def trajectories(self, step, items):
        self.drawn.append((step, items))

    def event(self, step, code, text, fix=""):
        self.events.append((step, code))

    def column(self, name):
        return [values[name] for _, values in self.rows]


class Silent:
    """Implements `oneloop.recipes.watched.Observer`: keeps what it is told, and shows nothing."""

    def __init__(self):
        self.lines = []

    def say(self, text):
        self.lines.append(text)

    def step(self, step, values):
        pass


def gradient(algorithm, models, micros, size):
    """Of the sum of the microbatches' losses, all parameters end to end."""
    for micro in micros:
        algorithm.loss(models.policy(micro), micro, size).value.backward()
    return models.gradient()


class Fixed:
    """Implements `oneloop.ports.Experience`: `draw(step)` gives each batch."""

    def __init__(self, draw):
        self.draw, self.updates = draw, []

    def batch(self, step):
        return self.draw(step)

    def update(self, models, step):
        self.updates.append(step)

    def report(self, batch):
        return Report({"reward": float(torch.where(batch.mask, batch.rewards, 0.0).sum(1).mean())}, ())

    def state(self):
        return {}

    def restore(self, state):
        pass


class Rank:
    """Implements `oneloop.ports.World` for one thread of several. A rank that calls out of order breaks the barrier."""

    def __init__(self, rank, board, barrier):
        self.rank, self.ranks, self.board, self.barrier = rank, len(board), board, barrier

    def exchange(self, kind, value):
        self.board[self.rank] = (kind, value)
        self.barrier.wait(timeout=20)
        everyone = list(self.board)
        self.barrier.wait(timeout=20)
        assert {kind for kind, _ in everyone} == {kind}, "ranks disagree on the collective"
        return [value for _, value in everyone]

    def share(self, items):
        rounds = range(self.rank, -(-len(items) // self.ranks) * self.ranks, self.ranks)
        return [items[place] if place < len(items) else None for place in rounds]

    def collect(self, mine):
        everyone = self.exchange("collect", json.loads(json.dumps(list(mine))))
        return [value for row in zip_longest(*everyone, fillvalue=NONE) for value in row if value is not NONE]

    def add(self, rows):
        return rows.copy_(sum(self.exchange(f"add {rows.dtype} {tuple(rows.shape)}", rows.clone())))

    def sum(self, stats):
        everyone = self.exchange("sum", dict(stats))
        return {
            name: (max if name.endswith("/max") else sum)(s[name] for s in everyone if name in s)
            for name in {name: 0 for s in everyone for name in s}
        }

    def agree(self, value):
        return self.exchange("agree", json.loads(json.dumps(value)))[0]


NONE = object()


def on_ranks(count, work):
    """`work(rank, world)` on that many threads at once; their results in rank order."""
    board, barrier, results, errors = [None] * count, Barrier(count), [None] * count, []

    def body(rank):
        try:
            results[rank] = work(rank, Rank(rank, board, barrier))
        except BaseException as error:
            errors.append(error)
            barrier.abort()

    threads = [Thread(target=body, args=(rank,)) for rank in range(count)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    if errors:
        raise errors[0]
    return results


def ragged_batch(seed=0, group_size=3, rows=12, dtype=torch.float64, truncate=True, tools=True, sort=False):
    """Rows with 1 … 12 actions after prompts of 1 … 3 tokens, in random order; tool tokens inside every third row.

    Pairs (`group_size=2`) get rewards 1 and 0, demonstrations (`group_size=1`) get 1, other groups a random reward.
    """
    rng = torch.Generator().manual_seed(seed)
    counts = list(range(1, rows + 1)) if sort else (torch.randperm(rows, generator=rng) + 1).tolist()
    prompts = torch.randint(1, 4, (rows,), generator=rng).tolist()
    spans = [2 if tools and count % 3 == 0 else 0 for count in counts]
    lengths = [p + a + s for p, a, s in zip(prompts, counts, spans, strict=True)]
    width = max(lengths)
    tokens = torch.randint(VOCABULARY, (rows, width), generator=rng)
    mask = torch.zeros(rows, width, dtype=torch.bool)
    rewards = torch.zeros(rows, width, dtype=dtype)
    for i in range(rows):
        mask[i, prompts[i] : lengths[i]] = True
        if spans[i]:
            mask[i, prompts[i] + 1 : prompts[i] + 1 + spans[i]] = False
        score = {1: 1.0, 2: float(i % 2 == 0)}.get(group_size, float(torch.rand((), generator=rng)))
        rewards[i, lengths[i] - 1] = score
    truncated = torch.tensor([truncate and i in (1, 4) for i in range(rows)])
    rollout = -3 * torch.rand(rows, width, generator=rng, dtype=torch.float64).to(dtype)
    return Batch(tokens, mask, torch.arange(rows) // group_size, rewards, truncated, rollout)


def rows_for(algorithm, seed=0, **options):
    """Ragged rows of the kind that an algorithm learns from: pairs, demonstrations, answers good and bad, or groups."""
    if isinstance(algorithm, Unpaired):
        batch = ragged_batch(seed, 1, **options)
        good = (batch.group % 3 != 1).to(batch.rewards.dtype)
        return replace(batch, rewards=batch.rewards * good[:, None])
    group_size = 1 if algorithm.name == "sft" else 2 if isinstance(algorithm, Preference) else 3
    return ragged_batch(seed, group_size, **options)
