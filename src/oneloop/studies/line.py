"""A walk to a goal behind the ports of the loop: an answer of many tokens whose reward stands at its end.

A row is a prompt, which says where the walk begins, and up to `LONGEST` tokens: back, stay, on. It ends at the goal, or
when its tokens are used up. Values, advantages and the gradient of every policy follow from the walk's own equations.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import NamedTuple

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor, nn

from oneloop.batch import Batch, PolicyOutput
from oneloop.ports import Models
from oneloop.seeds import named_seed
from oneloop.studies.once import Once

GOAL, LONGEST = 8, 12
STARTS = (0, 1, 2, 3)
"""Where each prompt begins."""
BACK, STAY, ON = 0, 1, 2


class Walk(NamedTuple):
    """Rows of walks, before their rewards."""

    prompt: Int[Tensor, " B"]
    actions: Int[Tensor, "B T"]
    places: Int[Tensor, "B S"]
    """Before each token, and after the last."""
    live: Bool[Tensor, "B T"]

    @property
    def last(self) -> Int[Tensor, " B"]:
        """Where the last token of each row stands."""
        return self.live.sum(1) - 1

    @property
    def end(self) -> Int[Tensor, " B"]:
        """The place that each row ends at."""
        return self.places[:, -1]


Reward = Callable[[Walk], Float[Tensor, "B T"]]
Chances = Float[Tensor, "G A"]
"""π(a | place), for each place before the goal."""


def moved(places: Tensor, actions: Tensor) -> Tensor:
    return (places + actions - STAY).clamp(0, GOAL)


def sparse(walk: Walk) -> Float[Tensor, "B T"]:
    """1 at the token that reaches the goal, and nothing else."""
    return at_end(walk, (walk.end == GOAL).double())


def at_end(walk: Walk, value: Float[Tensor, " B"]) -> Float[Tensor, "B T"]:
    rewards = torch.zeros(walk.live.shape, dtype=torch.float64)
    return rewards.scatter(1, walk.last[:, None], value[:, None])


def values(chances: Chances) -> Float[Tensor, "S P"]:
    """V of the sparse reward: the chance to arrive, by the tokens that are gone and the place."""
    arrived = torch.zeros(GOAL + 1, dtype=torch.float64)
    arrived[GOAL] = 1.0
    after = moved(torch.arange(GOAL)[:, None], torch.arange(3)[None])
    found = [arrived]
    for _ in range(LONGEST):
        here = (chances * found[0][after]).sum(1)
        found.insert(0, torch.cat([here, arrived[GOAL:]]))
    return torch.stack(found)


def advantages(chances: Chances, walk: Walk) -> Float[Tensor, "B T"]:
    """A = V(after the token) − V(before it), exactly: the reward is V of the goal, 1."""
    table, time = values(chances), torch.arange(walk.live.shape[1])
    return torch.where(walk.live, table[time + 1, walk.places[:, 1:]] - table[time, walk.places[:, :-1]], 0.0)


def success(logits: Float[Tensor, "G A"]) -> Float[Tensor, ""]:
    """The expected sparse reward, a mean over prompts; differentiable."""
    return values(logits.softmax(-1))[0, list(STARTS)].mean()


class Walker(nn.Module):
    """Implements `oneloop.ports.Models`: logits for each place, a value for each place and time, Adam.

    Args:
        begin: logit of going on, before training; the others have 0.
        exact: the values are those of the policy as it is, instead of learned ones.
    """

    def __init__(self, learning_rate: float, critic_rate: float = 0.1, *, begin: float, exact: bool = False) -> None:
        super().__init__()
        self.logits = nn.Parameter(torch.tensor([0.0, 0.0, begin], dtype=torch.float64).repeat(GOAL, 1))
        self.values = nn.Parameter(torch.zeros(LONGEST + 1, GOAL + 1, dtype=torch.float64))
        self._exact = exact
        rates = [{"params": [self.logits], "lr": learning_rate}, {"params": [self.values], "lr": critic_rate}]
        self._optimizer = torch.optim.Adam(rates)

    def policy(self, batch: Batch) -> PolicyOutput:
        walk = walk_of(batch)
        before = walk.places[:, :-1]
        logprobs = self.logits.log_softmax(-1)[before.clamp(max=GOAL - 1), walk.actions]
        table = values(self.logits.detach().softmax(-1)) if self._exact else self.values
        blank = torch.zeros(len(batch), 1, dtype=torch.float64)
        each = (logprobs, table[torch.arange(before.shape[1]), before])
        logprobs, known = (torch.cat([blank, one], 1) for one in each)
        return PolicyOutput(logprobs, values=known)

    def reference(self, batch: Batch) -> Float[Tensor, "B T"]:
        raise NotImplementedError("no study of the walk has a KL")

    def step(self) -> Mapping[str, float]:
        self._optimizer.step()
        self._optimizer.zero_grad()
        return {}

    def table(self) -> Float[Tensor, "G A"]:
        return self.logits.detach().clone()


def walk_of(batch: Batch) -> Walk:
    """Again, from the tokens alone."""
    return _walked(batch.tokens[:, 0], batch.tokens[:, 1:].unbind(1))


def _walked(prompt: Int[Tensor, " B"], actions: tuple[Tensor, ...]) -> Walk:
    places = [torch.tensor(STARTS)[prompt]]
    for action in actions:
        places.append(torch.where(places[-1] == GOAL, GOAL, moved(places[-1], action)))
    stacked = torch.stack(places, 1)
    return Walk(prompt, torch.stack(actions, 1), stacked, stacked[:, :-1] != GOAL)


class Walks(Once):
    """Implements `oneloop.ports.Experience`: `groups` of walks from every prompt, drawn from the policy as it is."""

    def __init__(self, models: Walker, seed: int, reward: Reward, *, groups: int, group_size: int) -> None:
        self._models, self._seed, self._reward = models, seed, reward
        self._groups, self._size = groups, group_size
        self.steps = [models.table()]
        """The policy's logits before the first update and after each step."""

    def batch(self, step: int) -> Batch:
        rng = torch.Generator().manual_seed(named_seed("line", self._seed, step))
        group = torch.arange(len(STARTS) * self._groups).repeat_interleave(self._size)
        walk = drawn(self._models.table().softmax(-1), group % len(STARTS), rng)
        blank = torch.zeros(len(group), 1)
        return Batch(
            tokens=torch.cat([walk.prompt[:, None], walk.actions], 1),
            mask=torch.cat([blank.bool(), walk.live], 1),
            group=group,
            rewards=torch.cat([blank.double(), self._reward(walk)], 1),
            truncated=torch.zeros(len(group), dtype=torch.bool),
        )

    def update(self, models: Models, step: int) -> None:
        self.steps.append(self._models.table())


def drawn(chances: Chances, prompt: Int[Tensor, " B"], rng: torch.Generator) -> Walk:
    """A walk from each prompt. What would come after the goal is drawn, too, and counts for nothing."""
    place, actions = torch.tensor(STARTS)[prompt], []
    for _ in range(LONGEST):
        actions.append(torch.multinomial(chances[place.clamp(max=GOAL - 1)], 1, generator=rng)[:, 0])
        place = torch.where(place == GOAL, GOAL, moved(place, actions[-1]))
    return _walked(prompt, tuple(actions))
