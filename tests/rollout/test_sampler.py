"""A draw from blocks of sums is the inversion of the whole distribution function, token by token."""

from itertools import islice

import pytest
import torch
from scipy.stats import chisquare

from oneloop.rollout import sampler
from oneloop.rollout.sampler import BLOCK, draw, uniform
from oneloop.types import Sampling


def logits_of(kind, vocabulary, rows):
    rng = torch.Generator().manual_seed(vocabulary)
    scale = {"flat": 0.0, "spread": 2.0, "peaked": 30.0, "holes": 2.0}[kind]
    logits = scale * torch.randn(rows, vocabulary, generator=rng)
    if kind == "holes":
        hidden = torch.rand(rows, vocabulary, generator=rng) < 0.6
        hidden[:, min(BLOCK, vocabulary) - 1] = True  # the last of a block, and of the vocabulary
        hidden[:, -1] = True
        hidden[:, BLOCK : 2 * BLOCK] = True  # a block without weight
        hidden[:, 0] = False
        logits = logits.masked_fill(hidden, -torch.inf)
    return logits


def oracle(logits, temperature, numbers):
    """Inversion over the whole distribution function, token by token; with how far the number is from a border."""
    tokens, margins = [], []
    for row, u in zip((logits.double() / temperature).softmax(-1).tolist(), numbers.tolist(), strict=True):
        reached, token, margin = 0.0, None, 1.0
        for place, probability in enumerate(row):
            reached += probability
            margin = min(margin, abs(reached - u))
            if token is None and u < reached:
                token = place
        tokens.append(token)
        margins.append(margin)
    return tokens, margins


@pytest.mark.parametrize("vocabulary", [5, 64, 65, 1000])
@pytest.mark.parametrize("kind", ["flat", "spread", "peaked", "holes"])
def test_a_draw_is_the_inversion_of_the_whole_distribution(kind, vocabulary):
    rows = 60
    logits, seeds = logits_of(kind, vocabulary, rows), torch.arange(rows)
    for temperature, position in ((1.0, 0), (0.7, 5), (1.6, 17)):
        tokens, logprobs = draw(logits, Sampling(temperature=temperature), seeds, position)
        wanted, margins = oracle(logits, temperature, uniform(seeds, position))
        clear = [margin > 1e-6 for margin in margins]
        assert sum(clear) >= rows - 3
        assert [a for a, sure in zip(tokens.tolist(), clear, strict=True) if sure] == [
            b for b, sure in zip(wanted, clear, strict=True) if sure
        ]
        table = (logits / temperature).log_softmax(-1)
        assert torch.allclose(logprobs, table.gather(-1, tokens[:, None])[:, 0], rtol=0, atol=2e-6)


@pytest.mark.parametrize("vocabulary", [5, 64, 65, 1000])
def test_draws_follow_the_distribution(vocabulary):
    """χ² of 20 000 draws; what has no probability is never drawn, although whole blocks have none."""
    count = 20_000
    row = logits_of("holes", vocabulary, 1)
    tokens, _ = draw(row.expand(count, -1), Sampling(temperature=1.3), torch.arange(count), 2)
    expected = (row[0].double() / 1.3).softmax(-1) * count
    observed = torch.bincount(tokens, minlength=vocabulary)
    assert (observed[expected == 0] == 0).all()
    large = expected >= 5
    rest = [observed[~large].sum()] if (~large & (expected > 0)).any() else []
    rest_expected = [expected[~large].sum()] if rest else []
    assert chisquare([*observed[large].tolist(), *map(float, rest)],
                     [*expected[large].tolist(), *map(float, rest_expected)]).pvalue > 1e-3  # fmt: skip


def test_extreme_numbers_stay_inside_the_support(monkeypatch):
    """u = 0 takes the first token with weight, u just below 1 the last one, at every place of the only weights."""
    ends = torch.tensor([0.0, 1 - 2.0**-53], dtype=torch.float64)
    monkeypatch.setattr(sampler, "uniform", lambda seeds, position: ends)
    for first, last in ((0, 3), (63, 64), (64, 127), (10, 128), (128, 129), (5, 5)):
        logits = torch.full((2, 130), -torch.inf)
        logits[:, first] = logits[:, last] = 0.3
        tokens, logprobs = draw(logits, Sampling(), torch.arange(2), 0)
        assert tokens.tolist() == [first, last]
        assert logprobs.tolist() == pytest.approx([0.0 if first == last else -0.6931472] * 2, abs=1e-6)


def splitmix64(state):
    """The generator as its paper has it, one number after the other."""
    while True:
        state = (state + 0x9E3779B97F4A7C15) % 2**64
        z = (state ^ (state >> 30)) * 0xBF58476D1CE4E5B9 % 2**64
        z = (z ^ (z >> 27)) * 0x94D049BB133111EB % 2**64
        yield z ^ (z >> 31)


@pytest.mark.parametrize("seed", [0, 1, 1234567, 2**63 - 1])
def test_the_numbers_of_a_row_are_those_of_its_generator(seed):
    wanted = list(islice(splitmix64(seed), 8))
    assert seed != 1234567 or wanted[0] == 6457827717110365317, "as everybody's"
    seeds = torch.full((8,), seed)
    assert uniform(seeds, torch.arange(8)).tolist() == [(number >> 11) * 2.0**-53 for number in wanted]
    assert uniform(seeds[:1], 5).tolist() == [(wanted[5] >> 11) * 2.0**-53]


def test_positions_may_differ_by_row():
    logits, seeds = logits_of("spread", 65, 8), torch.arange(8) * 1_000_003
    positions = torch.tensor([0, 1, 2, 3, 100, 7, 0, 5])
    together = draw(logits, Sampling(), seeds, positions)
    for row, position in enumerate(positions.tolist()):
        token, logprob = draw(logits[row : row + 1], Sampling(), seeds[row : row + 1], position)
        assert torch.equal(token[0], together[0][row]) and torch.equal(logprob[0], together[1][row])


def test_a_greedy_draw_takes_the_first_of_the_likeliest():
    sampling = Sampling(temperature=0.0)
    tokens, logprobs = draw(torch.tensor([[1.0, 3.0, 3.0, 0.0]]), sampling, torch.arange(1), 0)
    assert tokens.tolist() == [1]
    assert logprobs[0] == pytest.approx(torch.tensor([1.0, 3.0, 3.0, 0.0]).log_softmax(-1)[1].item(), abs=1e-6)
