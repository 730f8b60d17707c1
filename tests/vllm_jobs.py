"""Whole runs of ranks that share a server, a stand-in for vLLM; tests/parallel/test_one_server.py looks at them."""

import os
from dataclasses import replace
from pathlib import Path

import torch
from safetensors.torch import load_file
from torch.distributed.device_mesh import init_device_mesh
from transformers import PreTrainedModel

from oneloop.config import Run, default_run
from oneloop.errors import EngineError
from oneloop.model.load import load_policy, load_tokenizer
from oneloop.model.lora import Lora, add_adapters
from oneloop.model.save import describe_policy, weights_of, write_weights
from oneloop.parallel.fsdp import Sharding
from oneloop.parallel.launch import Ranks
from oneloop.recipes.execute import execute
from oneloop.recipes.given import Given
from oneloop.recipes.sampler import KEY
from oneloop.recipes.watched import Silent
from oneloop.rollout.vllm.server import Server
from vllm_stand import QUICK, fake_python

REWARD = "python:vllm_jobs.codes"
RUNS = {
    "none": {"engine": "vllm"},
    "full": {"shard": "full"},
    "ahead": {"shard": "grad", "staleness": 1, "lora": 2},
}
"""Of two ranks; those that name no engine use one that is there."""
WRITTEN = [("llama", 0, torch.float32), ("qwen3", 0, torch.bfloat16), ("llama", 4, torch.bfloat16)]
"""Models whose weights are written: the rank of their adapters, and how they are rounded. The second's head is tied."""


def codes(completions, **columns) -> list[float]:
    return [float(sum(map(ord, text))) for text in completions]


def run_of(folder: Path, out: str, address: str, **changes) -> Run:
    """Two steps whose weights move further than log-probs may lie apart, and an evaluation."""
    run = replace(default_run("grpo"), model=str(folder / "tiny"), data="task:addition", out=str(folder / out), steps=2)
    run = replace(run, prompts_per_step=3, group_size=3, data_size=12, eval_size=4, learning_rate=1e-3, save_every=1)
    run = replace(run, max_new_tokens=4, reward=(REWARD,), eval_reward=(REWARD,), engine=address)
    run = replace(run, **changes)
    return replace(run, vllm_python=str(folder / "python")) if run.engine == "vllm" else run


def carried_out(run: Run, world=None) -> str:
    """What it failed with, if it did."""
    try:
        execute(run, Silent(), Given(functions={REWARD: codes}), ranks=Ranks(world))
    except EngineError as error:
        return str(error)
    return ""


def server_there(folder: Path) -> Server:
    """One that is there before the runs, and goes on after them."""
    policy, tokenizer = load_policy(str(folder / "tiny")), load_tokenizer(str(folder / "tiny"))

    def describe(place: Path) -> None:
        describe_policy(place, policy, tokenizer)

    server = Server(str(folder / "python"), describe, (), folder / "there.log", QUICK, lambda text: None)
    server.start()
    return server


def adapted(folder: Path, name: str, rank: int) -> PreTrainedModel:
    torch.manual_seed(3)
    policy = load_policy(str(folder / name))
    if rank:
        add_adapters(policy, Lora(rank=rank), str(folder / name))
        for parameter in (one for one in policy.parameters() if one.requires_grad):
            torch.nn.init.normal_(parameter, std=0.1)
    return policy


def written(world, folder: Path) -> dict:
    """What two ranks write for a server, of replicas and of shares: files, wrong tensors, and names left out."""
    found = {}
    for name, rank, dtype in WRITTEN:
        policy = adapted(folder, name, rank)
        wanted = {key: value.to(dtype).clone() for key, value in weights_of(policy).items()}
        for how in ("replicas", "shares"):
            if how == "shares":
                Sharding(mesh=init_device_mesh("cpu", (world.ranks,)))(policy)
            place = folder / f"written {name} {rank} {how}"
            place.mkdir(exist_ok=True)
            write_weights(place, policy, dtype, world)
            world.collect([0])
            files = list(place.glob("*.safetensors"))
            there = {key: value for file in files for key, value in load_file(file).items()}
            wrong = [k for k, v in there.items() if v.dtype != dtype or not torch.equal(v, wanted[k])]
            found[f"{name} {rank} {how}"] = (len(files), wrong, sorted(wanted.keys() - there.keys()))
    return found


def two(world, folder: Path) -> dict:
    os.environ["FAKE_MODEL"] = "whole"
    server = None
    if world.rank == 0:
        fake_python(folder)
        server = server_there(folder)
        os.environ[KEY] = server.client.key  # the other rank has none: it is told
    address = world.agree(server.client.address if server else "")
    found = {"written": written(world, folder)}
    try:
        for name, changes in RUNS.items():
            found[name] = carried_out(run_of(folder, name, address, ranks=2, **changes), world)
        if server is not None:
            for name in ("alone", "ahead alone"):
                ahead = {"staleness": 1, "lora": 2} if "ahead" in name else {}
                found[name] = carried_out(run_of(folder, name, address, **ahead))
    finally:
        if server is not None:
            server.close()
    (folder / "counts").unlink(missing_ok=True)
    os.environ["FAKE_FAULT"] = "/collective_rpc:400:1:"
    found["broken"] = carried_out(run_of(folder, "broken", "vllm", ranks=2), world)
    return found
