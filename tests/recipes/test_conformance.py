"""docs/conformance.md: each value gives the number of the formula it stands beside; where it says none, none does."""

from itertools import combinations

import numpy as np
import peers
import pytest
import torch

from oneloop.batch import Batch, PolicyOutput
from oneloop.objective.critic import value_loss
from oneloop.objective.divergence import kl_estimate
from oneloop.objective.shaping import last_action
from oneloop.recipes.conformance import NOT_READ, PIECES, conformance_page
from pages import ROOT

SEEDS = range(5)
SOME_LENGTHS = np.arange(0, 25_000, 64)
LINES = [(piece, line) for piece in PIECES for line in piece.lines if line.setting]
WITHOUT = [
    (piece, line) for piece in PIECES for line in piece.lines if not line.setting and line.note not in ("", NOT_READ)
]


def padded(rows):
    """[8, T] in float64; NaN where no action stands."""
    out = torch.full((8, max(peers.LENGTHS)), torch.nan, dtype=torch.float64)
    for i, row in enumerate(rows):
        out[i, : len(row)] = torch.tensor(row, dtype=torch.float64)
    return out


def mask():
    return padded([np.ones(n) for n in peers.LENGTHS]) == 1


def acted(tensor):
    return tensor[mask()].numpy()


def number(kind, value, d, lengths=None):
    """What oneloop makes of the batch, token after token; of a reward shaping, what it makes of lengths."""
    live, group = mask(), torch.tensor(d.group)
    rows = torch.where(live, torch.tensor(d.credit)[:, None], torch.nan)
    if kind in ("advantage", "answer"):
        after = torch.tensor(d.after) if kind == "answer" else None
        return acted(value(padded(d.rewards), padded(d.values), live, group, bootstrap=after).advantages)
    if kind == "surrogate":
        return acted(value(padded(d.new), padded(d.old), rows, live)[0])
    if kind == "aggregate":
        return acted(value(live, batch(d).size)).astype(np.float64)
    if kind == "correction":
        return acted(value(padded(d.old), padded(d.rollout)))
    if kind == "kl":
        x = padded(d.new if value.at == "loss" else d.old) - padded(d.ref)
        return acted((1 if value.at == "loss" else -1) * value.coef * kl_estimate(x, value.estimator))
    if kind == "critic":
        goal = padded([row[::-1].cumsum()[::-1].copy() for row in d.rewards])
        loss = value_loss(padded(d.new_values), padded(d.values), goal, clip=value.clip, huber=value.huber)
        return value.coef * acted(loss)
    if kind == "controller":
        return np.array([value.update(0.05, kl, 256) for kl in peers.OBSERVED])
    if kind == "shape":
        answers = torch.tensor(SOME_LENGTHS if lengths is None else lengths)
        return value(torch.zeros(len(answers), dtype=torch.float64), answers).numpy()
    assert kind == "pairs"
    paired = batch(d)
    out = PolicyOutput(padded(d.new), scores=torch.tensor(d.scores))
    return value.loss(out, paired, paired.size).value.numpy()


def lengths_of(line):
    """Of answers: past the limit too, unless the line speaks of those up to it alone."""
    limit = getattr(line.value, "max_length", 0) if line.note.startswith("up to L") else SOME_LENGTHS[-1]
    return SOME_LENGTHS[limit >= SOME_LENGTHS]


def batch(d):
    """Its rows as pairs."""
    live = mask()
    better = torch.where(last_action(live), (torch.arange(8) % 2 == 0).double()[:, None], 0.0)
    tokens = torch.zeros(live.shape, dtype=torch.int64)
    truncated = torch.zeros(8, dtype=torch.bool)
    return Batch(tokens, live, torch.tensor(d.pair), better, truncated, ref_logprobs=padded(d.ref))


def formula(piece, line, d):
    written = peers.FORMULAS[piece.key][line.who]
    return written(lengths_of(line)) if piece.kind == "shape" else written(d)


def close(ours, theirs, within):
    return ours.shape == np.shape(theirs) and bool(np.all(np.abs(ours - theirs) <= within * np.abs(theirs) + 1e-12))


@pytest.mark.parametrize(("piece", "line"), LINES, ids=lambda part: getattr(part, "key", None) or part.who)
def test_each_setting_gives_the_number_of_the_formula(piece, line) -> None:
    for seed in SEEDS:
        d = peers.drawn(seed)
        assert close(number(piece.kind, line.value, d, lengths_of(line)), formula(piece, line, d), line.within), seed


@pytest.mark.parametrize(("piece", "line"), WITHOUT, ids=lambda part: getattr(part, "key", None) or part.who)
def test_where_there_is_none_no_value_of_the_page_gives_it(piece, line) -> None:
    d = peers.drawn(0)
    tried = [(other.kind, one.value) for other in PIECES for one in other.lines if one.setting]
    theirs = formula(piece, line, d)
    assert not any(close(number(kind, value, d), theirs, 1e-7) for kind, value in tried if kind == piece.kind)


@pytest.mark.parametrize("piece", PIECES, ids=lambda piece: piece.key)
def test_settings_that_differ_differ_in_their_number(piece) -> None:
    """The batch reaches what tells them apart: a formula could otherwise stand beside any value."""
    d = peers.drawn(0)
    values = [line.value for line in piece.lines if line.setting]
    for one, two in combinations(values, 2):
        if one != two:
            assert not close(number(piece.kind, one, d), number(piece.kind, two, d), 1e-10), (one, two)


def test_whitening_with_the_other_variance_differs_by_the_factor_that_the_page_names() -> None:
    d, n = peers.drawn(0), sum(peers.LENGTHS)
    piece = next(piece for piece in PIECES if piece.key == "whitening")
    ours = next(line for line in piece.lines if line.who == "oneloop")
    theirs = peers.FORMULAS["whitening"]["TRL"](d)
    assert np.allclose(theirs, number("advantage", ours.value, d) * np.sqrt((n - 1) / n), rtol=1e-7)


def test_the_page_is_what_its_table_says() -> None:
    assert (ROOT / "docs" / "conformance.md").read_text(encoding="utf-8") == conformance_page()


def test_every_line_says_what_there_is_or_why_there_is_nothing() -> None:
    for piece in PIECES:
        assert [line.who for line in piece.lines] == ["paper", "oneloop", "TRL", "verl", "OpenRLHF", "NeMo-RL"]
        assert piece.key in peers.FORMULAS
        for line in piece.lines:
            assert line.setting or line.note or line.definition.startswith("no "), (piece.key, line.who)
    assert len({piece.key for piece in PIECES}) == len(PIECES)
