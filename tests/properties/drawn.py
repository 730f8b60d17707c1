"""What the properties are drawn over: numbers that are exact in binary, rows of any length, groups of any size."""

import torch
from hypothesis import settings
from hypothesis import strategies as st

few = settings(max_examples=20)
"""Of each property in every run of the suite, the same ones every time."""
quarters = st.integers(-40, 40).map(lambda n: n / 4)
seeds = st.integers(0, 10**6)


def double(values) -> torch.Tensor:
    return torch.tensor(values, dtype=torch.float64)


@st.composite
def groups(draw, least=1):
    """Rewards of one to four groups, and each row's group, in any order."""
    sizes = draw(st.lists(st.integers(least, 4), min_size=1, max_size=4))
    group = draw(st.permutations([name for name, size in enumerate(sizes) for _ in range(size)]))
    rewards = draw(st.lists(quarters, min_size=len(group), max_size=len(group)))
    return rewards, group


@st.composite
def rows(draw):
    """A mask of one to four rows with gaps, and generator that fills them."""
    shape = draw(st.integers(1, 4)), draw(st.integers(1, 7))
    rng = torch.Generator().manual_seed(draw(seeds))
    return torch.rand(shape, generator=rng) < 0.7, rng


def noise(mask, rng) -> torch.Tensor:
    return torch.randn(mask.shape, generator=rng, dtype=torch.float64)


def at_the_end(rewards, width=3):
    """One reward on the last of that many actions."""
    out = torch.zeros(len(rewards), width, dtype=torch.float64)
    out[:, -1] = double(rewards)
    return out, torch.ones(len(rewards), width, dtype=torch.bool)


def close(a, b) -> None:
    torch.testing.assert_close(a, b, rtol=1e-9, atol=1e-9)
