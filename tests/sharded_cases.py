"""What sharded ranks and one process are both given to train: small models, ragged rows, every method."""

from dataclasses import dataclass
from pathlib import Path

import torch
from torch.distributed.device_mesh import init_device_mesh
from transformers import AutoModelForCausalLM, LlamaConfig, Qwen3Config

from oneloop.algorithms import ALGORITHMS, Preference, Unpaired
from oneloop.experience.pack import Row, collate
from oneloop.loop import train
from oneloop.model.learner import Learner, Optimization
from oneloop.model.load import load_critic, load_policy, load_reward_model
from oneloop.model.lora import Lora, add_adapters
from oneloop.model.save import save_policy, separate_critic, shared_critic
from oneloop.model.sharded import whole
from oneloop.model.tiny import character_tokenizer
from oneloop.parallel.fsdp import Copied, Sharding
from oneloop.ports import SingleProcess
from toy_models import Fixed, Memory

SIZES = {
    "vocab_size": 120, "hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": 4, "num_key_value_heads": 2,
    "intermediate_size": 48, "max_position_embeddings": 64, "bos_token_id": None, "eos_token_id": 1, "pad_token_id": 0,
}  # fmt: skip
MODELS = {
    "llama": LlamaConfig(**SIZES, initializer_range=0.2),
    "qwen3": Qwen3Config(**SIZES, head_dim=8, tie_word_embeddings=True, initializer_range=0.2),
}
ALONE = SingleProcess()


@dataclass(frozen=True)
class Case:
    """One training."""

    method: str
    model: str = "llama"
    critic: str = "shared"
    lora: int = 0
    recompute: bool = False
    offload: bool = False
    steps: int = 2

    def __str__(self):
        marks = [self.method, self.model, self.critic if self.critic != "shared" else ""]
        marks += ["lora" if self.lora else "", "recomputed" if self.recompute else "", "offload" * self.offload]
        return " ".join(mark for mark in marks if mark)

    @property
    def algorithm(self):
        return ALGORITHMS[self.method]


def write_models(folder: Path) -> None:
    for name, config in MODELS.items():
        for kind, seed in (("", 0), ("-reference", 1)):
            torch.manual_seed(seed)
            model = AutoModelForCausalLM.from_config(config)
            save_policy(folder / f"{name}{kind}", model, character_tokenizer())


def batch(case: Case, step: int):
    """Twelve rows of 1 to 12 actions, in groups that share a prompt of six tokens: five to twelve microbatches."""
    single = case.method == "sft" or isinstance(case.algorithm, Unpaired)
    size = 1 if single else 2 if isinstance(case.algorithm, Preference) else 3
    rng = torch.Generator().manual_seed(step)
    rows = []
    for number, length in enumerate((torch.randperm(12, generator=rng) + 1).tolist()):
        group = number // size
        prompt = torch.randint(3, 110, (6,), generator=torch.Generator().manual_seed(100 * step + group)).tolist()
        score = {1: 1.0, 2: float(number % 2)}.get(size, float(torch.rand((), generator=rng)))
        if isinstance(case.algorithm, Unpaired):
            score = float(number % 3 != 1)
        actions = torch.randint(3, 110, (length,), generator=rng).tolist()
        rows.append(Row(prompt=prompt, actions=actions, group=group, reward=score, truncated=number == 5))
    return collate(rows)


def learner(
    case: Case, folder: Path, world=ALONE, mode: str | None = None, start: Path | None = None, copies=None, **settings
):
    """As `build` makes one.

    Args:
        mode: how it is cut over the ranks of `world`.
        start: a checkpoint.
        copies: gets a whole copy of the policy.
    """
    source = folder / case.model
    load = load_reward_model if case.method == "reward_model" else load_policy
    policy = load(source if start is None or case.lora else start / "policy")
    if case.lora:
        add_adapters(policy, Lora(rank=case.lora), str(source), saved=start and start / "policy")
        if start is None:
            _used(policy)
    if copies is not None:
        copies.append(Copied(policy, settings.get("dtype", torch.float32)))
    critic = None
    if case.method == "ppo" and case.critic == "shared":
        critic = shared_critic(policy, start and start / "critic")
    elif case.method == "ppo":
        critic = separate_critic(load_critic(source if start is None else start / "critic"))
    needs = "reference" in case.algorithm.needs and not case.lora
    shard = None
    if mode is not None:
        shard = Sharding(mesh=init_device_mesh("cpu", (world.ranks,)), mode=mode, offload=case.offload)
    plan = Optimization(
        learning_rate=1e-3, critic_learning_rate=1e-3, total_updates=20, weight_decay=0.1, max_grad_norm=0.5
    )
    return Learner(
        policy,
        reference=load_policy(f"{source}-reference") if needs else None,
        critic=critic,
        optimization=plan,
        max_tokens=40,
        recompute=case.recompute,
        world=world,
        shard=shard,
        **settings,
    )


def _used(policy) -> None:
    """Adapters that say something: fresh ones leave the policy what the reference is."""
    rng = torch.Generator().manual_seed(2)
    with torch.no_grad():
        for name, parameter in policy.named_parameters():
            if "lora_B" in name:
                parameter.add_(0.05 * torch.randn(parameter.shape, generator=rng))


def learned(case: Case, models: Learner, world=ALONE, steps=None):
    """Weights after training, whole, and what was logged."""
    recorder = Memory()
    first, last = steps or (0, case.steps)
    settings = {"minibatch": 3 if batch(case, 0).num_groups < 6 else 5, "max_tokens": 40, "seed": 0}
    train(
        case.algorithm, Fixed(lambda step: batch(case, step)), models, recorder, start=first, steps=last, world=world,
        **settings,
    )  # fmt: skip
    return weights(models), [values for _, values in recorder.rows]


def weights(models: Learner) -> dict[str, torch.Tensor]:
    return {name: whole(parameter).detach().clone() for name, parameter in models.named_parameters().items()}
