"""Models that leave the device while they are idle: here whenever they are used, and no bit differs."""

import pytest
import torch
from transformers import AutoModelForSequenceClassification, AutoModelForTokenClassification, LlamaConfig

from oneloop.errors import DivergedError
from oneloop.experience.pack import Row, collate
from oneloop.model import learner as learners
from oneloop.model.idle import AWAY, Guest
from oneloop.model.learner import Learner, Optimization
from oneloop.model.reward import LearnedReward
from oneloop.model.save import separate_critic
from poisoned import Poisoned
from toy_models import decided

SIZES = {
    "vocab_size": 60, "hidden_size": 16, "num_hidden_layers": 1, "num_attention_heads": 2, "num_key_value_heads": 2,
    "intermediate_size": 24, "max_position_embeddings": 64, "pad_token_id": 0, "num_labels": 1,
}  # fmt: skip
PLAN = Optimization(learning_rate=1e-2, critic_learning_rate=1e-2, total_updates=10)
GPU = torch.device("cuda")  # only its name is used


def test_a_guest_moves_when_its_place_changes_and_then_only() -> None:
    places: list[torch.device] = []
    guest = Guest(places.append, GPU)
    with guest:
        guest.come()
    guest.go()
    assert places == [GPU, AWAY]
    with pytest.raises(RuntimeError, match="inside"), guest:
        raise RuntimeError("inside")
    assert places == [GPU, AWAY, GPU, AWAY], "a failure does not leave it on the device"
    started = Guest(places.append, GPU, here=True)
    started.come()
    assert len(places) == 4


def batch():
    rows = [Row(prompt=[3, 4, 5], actions=[6 + n, 7, 8 + n], group=n // 2, reward=float(n)) for n in range(4)]
    return collate(rows)


def steps(**options) -> list[torch.Tensor]:
    """Three steps of something that asks everybody, with the phases that the loop tells of."""
    policy, reference = decided(LlamaConfig(**SIZES)), decided(LlamaConfig(**SIZES))
    torch.manual_seed(1)
    critic = separate_critic(AutoModelForTokenClassification.from_config(LlamaConfig(**SIZES)))
    learner = Learner(policy, reference=reference, critic=critic, optimization=PLAN, **options)
    said = []
    for _ in range(3):
        learner.phase("rollout")
        learner.phase("prepare")
        with torch.no_grad():
            out = learner.policy(batch())
            said += [out.logprobs, out.values, learner.reference(batch())]
        learner.phase("update")
        for _ in range(2):
            out = learner.policy(batch())
            ((out.logprobs + out.values.square()).sum() + out.final_values.sum()).backward()
            learner.step()
        learner.phase("saving")
    return [*said, *(p.detach().clone() for p in learner.named_parameters().values())]


def test_a_learner_has_everybody_here_when_it_asks(monkeypatch: pytest.MonkeyPatch) -> None:
    plain = steps()
    monkeypatch.setattr(learners, "Guest", Poisoned)
    Poisoned.moves.clear()
    away = steps(offload_idle=True)
    assert all(torch.equal(a, b) for a, b in zip(plain, away, strict=True)) and not any(x.isnan().any() for x in away)
    # the reference: away, tried out, three steps; the critic: three rollouts, and three times back for the values
    assert Poisoned.moves == {"go": 1 + 1 + 3 + 3, "come": 1 + 3 + 3}


@pytest.mark.parametrize("forgotten", ["reference", "critic"])
def test_a_model_that_nobody_fetched_shows(forgotten, monkeypatch: pytest.MonkeyPatch) -> None:
    """The comparison above can fail."""
    come = Poisoned.come

    def lazy(self) -> None:
        if ("critic" if self._learner else "reference") != forgotten:
            come(self)

    monkeypatch.setattr(learners, "Guest", Poisoned)
    monkeypatch.setattr(Poisoned, "come", lazy)
    if forgotten == "critic":
        with pytest.raises(DivergedError):
            steps(offload_idle=True)
    else:
        assert any(x.isnan().any() for x in steps(offload_idle=True))


def test_a_critic_takes_its_moments_along(monkeypatch: pytest.MonkeyPatch) -> None:
    """To a device that has shapes and no numbers, as every machine has one."""
    critic = separate_critic(AutoModelForTokenClassification.from_config(LlamaConfig(**SIZES)))
    learner = Learner(decided(LlamaConfig(**SIZES)), critic=critic, optimization=PLAN, offload_idle=True)
    out = learner.policy(batch())
    (out.values.sum() + out.logprobs.sum()).backward()
    learner.step()
    moved: list[torch.device] = []
    monkeypatch.setattr(type(critic.backbone), "to", lambda self, device: moved.append(device) or self)
    learner._move_critic(torch.device("meta"))
    assert moved == [torch.device("meta")]
    for name, parameter in learner.named_parameters().items():
        places = {key: value.device.type for key, value in learner.optimizer.state[parameter].items()}
        of_moments = "meta" if name.startswith("critic.") else "cpu"
        assert places == {"step": "cpu", "exp_avg": of_moments, "exp_avg_sq": of_moments}


def test_a_reward_model_is_here_while_it_scores() -> None:
    torch.manual_seed(0)
    model = AutoModelForSequenceClassification.from_config(LlamaConfig(**SIZES))
    rows = ([""] * 2, [[3, 4], [5]], [[6], [7, 8]])
    wanted = LearnedReward(model)(*rows)
    guest = Poisoned(model.to, GPU)
    reward = LearnedReward(model, here=guest)
    assert model.score.weight.isnan().all()
    assert reward(*rows) == wanted == reward(*rows)
    assert model.score.weight.isnan().all()
