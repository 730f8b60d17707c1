"""Finite or nothing: whatever is not finite, the weights stay as they are to the bit, and the reason is named."""

import json
from dataclasses import replace
from hashlib import sha256

import pytest
import torch

from oneloop.algorithms import ALGORITHMS, DAPO, GRPO, PPO, SFT
from oneloop.errors import DivergedError
from oneloop.loop import train
from oneloop.objective.advantage import Credit
from oneloop.recipes.skipped import MOST_BYTES, Skipped
from oneloop.record.writer import RunFolder
from oneloop.sound import Unsound
from toy_models import Bigram, Fixed, Memory, on_ranks, ragged_batch, rows_for


class Checked(Bigram):
    """As the learner does, it takes no step along a gradient that is not finite, and gives up after three."""

    skipped = 0

    def step(self):
        for parameter in self.parameters():
            parameter.grad = torch.zeros_like(parameter) if parameter.grad is None else parameter.grad
        if self.world is not None:
            self.add_gradients(self.world)
        if all(bool(torch.isfinite(p.grad).all()) for p in self.parameters()):
            self.skipped = 0
            return super().step()
        return self.skip()

    def skip(self):
        self.skipped += 1
        if self.skipped == 3:
            raise DivergedError("three in a row")
        return super().skip()

    world = None


def digest(models) -> str:
    return sha256(models.weights().numpy().tobytes()).hexdigest()


class Poisoned(Checked):
    """Row `row` gets `value` in `name`, in passes with gradient (or without) of the steps that are named."""

    def __init__(self, name, value, steps=(1,), graded=True, row=4):
        super().__init__(0, reference=Bigram(7))
        self.name, self.value, self.bad_steps, self.graded, self.row, self.now = name, value, steps, graded, row, 0

    def policy(self, batch):
        out = super().policy(batch)
        found = getattr(out, self.name, None)
        if self.now not in self.bad_steps or torch.is_grad_enabled() != self.graded or found is None:
            return out
        rows = batch.place == self.row
        where = rows if found.dim() == 1 else rows[:, None] & batch.mask
        return out._replace(**{self.name: torch.where(where, self.value, found)})


def trained(algorithm, models, steps=3, told=None, world=None, batch=None, **options):
    heard, hashes = [], []
    rows = batch or rows_for(algorithm, truncate=False, dtype=torch.float64)

    def draw(step):
        models.now = step
        hashes.append(digest(models))
        return replace(rows)

    settings = {"steps": steps, "minibatch": 100, "max_tokens": 30, "seed": 0} | options
    if world is not None:
        settings["world"] = world
    recorder = Memory()
    try:
        train(
            algorithm,
            Fixed(draw),
            models,
            recorder,
            unsound=told or (lambda found, batch: heard.append(found)),
            **settings,
        )
    finally:
        hashes.append(digest(models))
    return heard, hashes, recorder


GRADED = [
    ("grpo", "logprobs", torch.nan), ("grpo", "logprobs", torch.inf), ("sft", "logprobs", torch.nan),
    ("dpo", "logprobs", -torch.inf), ("reward_model", "scores", torch.nan), ("reward_model", "scores", torch.inf),
    ("ppo", "values", torch.nan), ("ppo", "values", torch.inf), ("ppo", "logprobs", torch.nan),
]  # fmt: skip


@pytest.mark.parametrize(("name", "part", "value"), GRADED)
def test_in_a_pass(name: str, part: str, value: float) -> None:
    models = Poisoned(part, value)
    (found,), hashes, recorder = trained(ALGORITHMS[name], models)
    assert hashes[1] == hashes[2] and len(set(hashes)) == 3, "step 1 changed nothing, the others did"
    assert (found.step, found.what, found.row, found.rank) == (1, part, 4, 0)
    assert recorder.column("skipped_steps") == [0, 1, 0]


def test_before_the_passes() -> None:
    """π_old and values are asked without gradient; a number that is none there can leave no trace in a clipped loss."""
    for part, wanted in (("logprobs", "old_logprobs"), ("values", "values")):
        (found,), hashes, _ = trained(PPO, Poisoned(part, torch.inf, graded=False))
        assert hashes[1] == hashes[2] and len(set(hashes)) == 3
        assert (found.what, found.row, found.update) == (wanted, 4, 0), "the later updates of the step are not tried"


def test_an_advantage() -> None:
    def endless(rewards, values, mask, group, *, bootstrap=None):
        return Credit(torch.where(mask & (group == 2)[:, None], torch.inf, 0.1), None)

    endless.uses_values, endless.compares = False, False
    heard, hashes, _ = trained(replace(GRPO, advantage=endless), Checked(0, reference=Bigram(7)), steps=2)
    assert [(found.what, found.row) for found in heard] == [("advantages", 6)] * 2 and len(set(hashes)) == 1


def test_a_gradient_alone() -> None:
    """The loss is finite, its gradient is not: √x at 0."""

    class Steep(Checked):
        def policy(self, batch):
            out = super().policy(batch)
            return out._replace(logprobs=out.logprobs + torch.sqrt(out.logprobs - out.logprobs))

    heard, hashes, _ = trained(SFT, Steep(0), steps=2)
    assert [one.what for one in heard] == ["the gradient"] * 2 and len(set(hashes)) == 1
    assert str(heard[0]) == "the gradient on rank 0 is not finite"


def test_a_number_on_a_slot_that_nobody_reads_stops_nothing() -> None:
    rows = ragged_batch(0, 3, truncate=False)
    odd = torch.where(rows.mask, rows.rollout_logprobs, torch.nan)
    heard, hashes, _ = trained(DAPO, Checked(0, reference=Bigram(7)), batch=replace(rows, rollout_logprobs=odd))
    assert not heard and len(set(hashes)) == 4


def test_a_reward_model_has_no_log_probs() -> None:
    class Scores(Checked):
        def policy(self, batch):
            out = super().policy(batch)
            nothing = torch.full_like(out.logprobs, torch.nan).detach()
            return out._replace(logprobs=nothing, entropy=nothing)

    heard, hashes, _ = trained(ALGORITHMS["reward_model"], Scores(0))
    assert not heard and len(set(hashes)) == 4


def test_three_in_a_row_end_the_run_and_the_last_one_is_told() -> None:
    models = Poisoned("logprobs", torch.nan, steps=(1, 3, 4, 5, 6))
    heard: list[Unsound] = []
    with pytest.raises(DivergedError) as caught:
        trained(GRPO, models, steps=9, told=lambda found, batch: heard.append(found))
    assert [found.step for found in heard] == [1, 3, 4, 5]
    assert caught.value.__notes__ == ["the last one: logprobs of row 4 on rank 0 is not finite"]


def test_one_rank_s_is_every_rank_s_and_named() -> None:
    def work(rank, world):
        found = []
        for row in range(0, 12, 2):
            models = Poisoned("logprobs", torch.nan, row=row)
            models.world = world
            heard, hashes, recorder = trained(GRPO, models, world=world, max_tokens=14)
            assert hashes[1] == hashes[2] and len(set(hashes)) == 3 and recorder.column("skipped_steps")[1] == 1
            found += [(one.what, one.row, one.rank) for one in heard]
        return found

    first, second = on_ranks(2, work)
    assert first == second and [one[:2] for one in first] == [("logprobs", row) for row in range(0, 12, 2)]
    assert {rank for _, _, rank in first} == {0, 1}


class Folder(RunFolder):
    def __init__(self):
        self.files = {}

    def skipped(self, step, name, text):
        self.files[name] = text


def test_what_is_kept_of_the_batch_is_small_and_begins_with_the_row() -> None:
    folder, recorder = Folder(), Memory()
    batch = replace(ragged_batch(0, 3), old_logprobs=torch.full((12, ragged_batch(0, 3).mask.shape[1]), torch.nan))
    told = Skipped(folder, recorder, lambda ids: " ".join(map(str, ids)))
    told(Unsound(7, 1, "old_logprobs", 5, 2), batch)
    (text,) = folder.files.values()
    kept = json.loads(text)
    assert list(folder.files) == ["step_000007.json"] and recorder.events == [(7, "A_UNSOUND")]
    assert (kept["what"], kept["row"], kept["rank"], kept["rows_in_batch"]) == ("old_logprobs", 5, 2, 12)
    first = kept["rows"][0]
    assert first["row"] == 5 and set(first["old_logprobs"]) == {"nan"} and first["prompt"] and first["completion"]
    assert len(first["rewards"]) == int(batch.mask[5].sum()) == len(first["tokens"])
    wide = 4000
    tokens = torch.zeros(200, wide, dtype=torch.int64)
    mask = torch.ones_like(tokens, dtype=torch.bool)
    mask[:, 0] = False
    third = torch.full((200, wide), 1 / 3)
    large = replace(batch, tokens=tokens, mask=mask, group=torch.arange(200), rewards=third, truncated=mask[:, 0],
                    rollout_logprobs=third, old_logprobs=third, lengths=torch.full((200,), wide),
                    place=torch.arange(200))  # fmt: skip
    told(Unsound(8, 0, "loss", 150, 0), large)
    text = folder.files["step_000008.json"]
    kept = json.loads(text)
    assert len(text) < MOST_BYTES + 10**6 and kept["rows"][0]["row"] == 150 and 1 < kept["rows_here"] < 200
