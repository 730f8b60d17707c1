"""The numbers of an objective by name, for pages that must not load torch."""

import json

import pytest

from oneloop.algorithms import ALGORITHMS
from oneloop.recipes.explain import facts


@pytest.mark.parametrize(
    ("name", "wanted"),
    [
        ("ppo", {"surrogate": "ClippedRatio", "eps_low": 0.2, "eps_high": 0.2, "beta": 0.05, "kl_at": "reward",
                 "lam": 0.95,
                 "gamma": 1.0, "value_coef": 0.5, "epochs": 4, "aggregate": "TokenMean", "target_kl": 0.1}),
        ("grpo", {"advantage": "GroupRelative", "scale": "std", "ddof": 0, "beta": 0.04, "kl_at": "loss", "lam": None}),
        ("dapo", {"eps_low": 0.2, "eps_high": 0.28, "beta": None, "kl_at": None}),
        ("dr_grpo", {"scale": "none", "aggregate": "FixedLength", "fixed_length": 3000}),
        ("dpo", {"link": "LogSigmoid", "beta": 0.1, "surrogate": None, "eps_low": None, "label_smoothing": 0.0}),
        ("cispo", {"surrogate": "ClippedWeight", "eps_low": None, "eps_high": 4.0}),
    ],
)  # fmt: skip
def test_facts(name, wanted):
    found = facts(ALGORITHMS[name])
    assert {key: found[key] for key in wanted} == wanted


@pytest.mark.parametrize("name", ALGORITHMS)
def test_every_method_has_the_same_names_and_plain_values(name):
    found = facts(ALGORITHMS[name])
    assert found.keys() == facts(ALGORITHMS["ppo"]).keys()
    assert json.loads(json.dumps(found, allow_nan=False)) == found
