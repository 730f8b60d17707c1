"""A real vLLM server: `make test-vllm`. What the stand-in cannot show: its routes, its ports, its packed weights."""

import json
import os
import time
import urllib.error
import urllib.request
from copy import deepcopy
from dataclasses import replace
from pathlib import Path

import pytest
import torch

from oneloop.config import Run, default_run
from oneloop.model.learner import Learner, Optimization
from oneloop.model.load import load_policy, load_tokenizer
from oneloop.model.text import Text
from oneloop.recipes.execute import execute
from oneloop.recipes.sampler import engine_of
from oneloop.record.reader import read_run
from oneloop.rollout.vllm.engine import VllmEngine
from oneloop.rollout.vllm.in_flight import InFlight
from oneloop.types import Sampling
from toy_models import Silent

PYTHON = os.environ.get("ONELOOP_VLLM_PYTHON", "")
pytestmark = pytest.mark.skipif(not PYTHON, reason="needs an environment with vLLM: make test-vllm")
PROMPTS = [[10 + place, 11, 12, 13] for place in range(24)]
SAMPLING = Sampling(max_new_tokens=24, temperature=0.7)


def engine_in(out: Path, ends=(1,), **changes):
    """A learner, its engine, and what was told of it."""
    run = replace(default_run("grpo"), model="scratch:small", out=str(out), engine="vllm", vllm_python=PYTHON)
    run = replace(run, temperature=0.7, **changes)
    policy = load_policy("scratch:small")
    plan = Optimization(learning_rate=1e-2, critic_learning_rate=0.0, total_updates=100)
    learner = Learner(policy, optimization=plan, temperature=0.7)
    text = Text(load_tokenizer("scratch:small"), ends)
    told: list[str] = []
    return learner, engine_of(run, learner, None, text, lambda: PROMPTS[0], lambda line: None, told.append), told


@pytest.fixture(scope="module")
def stand(tmp_path_factory):
    """A learner, and its engine on one server for all tests of this file that end what was begun."""
    learner, engine, told = engine_in(tmp_path_factory.mktemp("run"))
    yield learner, engine, told
    engine.close()


def move(learner) -> None:
    with torch.no_grad():
        for parameter in learner.model.parameters():
            parameter.add_(torch.randn_like(parameter), alpha=0.02)


def gaps(learner, completions) -> list[list[float]]:
    """|log π − log μ| of each token, by the weights that the learner has now."""
    from oneloop.experience.pack import Row, collate

    rows = [
        Row(prompt=prompt, actions=c.tokens, group=0, reward=0.0, logprobs=c.logprobs)
        for prompt, c in zip(PROMPTS, completions, strict=True)
    ]
    batch = collate(rows)
    with torch.no_grad():
        difference = (learner.policy(batch).logprobs - batch.rollout_logprobs).abs()
    return [row[mask].tolist() for row, mask in zip(difference, batch.mask, strict=True)]


def gap(learner, completions) -> float:
    return max(value for row in gaps(learner, completions) for value in row)


def test_fifty_updates_arrive(stand) -> None:
    """Digests and probe are compared inside; here every batch's log-probs are, after weights that moved far."""
    learner, engine, told = stand
    assert isinstance(engine, VllmEngine)
    torch.manual_seed(0)
    largest, first = 0.0, engine.generate(PROMPTS, SAMPLING, list(range(24)))
    for version in range(1, 51):
        move(learner)
        engine.update(version)
        completions = engine.generate(PROMPTS, SAMPLING, list(range(24)))
        assert {c.version for c in completions} == {version}
        largest = max(largest, gap(learner, completions))
    assert largest < 1e-4 and completions != first and told == []


def test_draws_depend_on_the_seed_alone(stand) -> None:
    _, engine, _ = stand
    once = engine.generate(PROMPTS, SAMPLING, list(range(24)))
    order = list(reversed(range(24)))
    again = engine.generate([PROMPTS[n] for n in order], SAMPLING, order)
    assert [c.tokens for c in again] == [once[n].tokens for n in order]


def test_every_route_asks_for_the_key(stand) -> None:
    _, engine, _ = stand
    engine.generate(PROMPTS[:1], SAMPLING, [0])
    client = engine._server.client
    paths = client.json("GET", "/openapi.json", 10.0)["paths"]
    assert {"/pause", "/collective_rpc", "/update_weight_version", "/inference/v1/generate", "/health"} <= set(paths)
    for path, methods in paths.items():
        for method in methods:
            for key in (None, "Bearer wrong"):
                request = urllib.request.Request(client.address + path, b"{}", {"Content-Type": "application/json"})
                request.method = method.upper()
                if key:
                    request.add_header("Authorization", key)
                with pytest.raises(urllib.error.HTTPError, match="401"):
                    urllib.request.urlopen(request, timeout=10)


def test_nothing_listens_beyond_this_machine(stand) -> None:
    _, engine, _ = stand
    engine.generate(PROMPTS[:1], SAMPLING, [0])
    leader = engine._server._process.pid
    inodes = set()
    for folder in Path("/proc").glob("[0-9]*"):
        try:
            if os.getsid(int(folder.name)) != leader:
                continue
            links = [os.readlink(link) for link in (folder / "fd").iterdir()]
        except OSError:
            continue
        inodes |= {link[8:-1] for link in links if link.startswith("socket:[")}
    listening = [
        line.split()[1].rpartition(":")[0]
        for table in ("tcp", "tcp6")
        for line in Path(f"/proc/{leader}/net/{table}").read_text().splitlines()[1:]
        if line.split()[3] == "0A" and line.split()[9] in inodes
    ]
    loopback = {"0100007F", "00000000000000000000000001000000", "0000000000000000FFFF00000100007F"}
    assert listening and set(listening) <= loopback, listening


def test_a_server_that_is_killed_comes_back_with_its_weights(stand) -> None:
    _, engine, told = stand
    before = engine.generate(PROMPTS, SAMPLING, list(range(24)))
    os.killpg(engine._server._process.pid, 9)
    assert [c.tokens for c in engine.generate(PROMPTS, SAMPLING, list(range(24)))] == [c.tokens for c in before]
    assert len(told) == 1


def test_completions_go_on_across_updates(tmp_path) -> None:
    """Each token's log-prob is that of the weights that it names, with everything before it read by them."""
    learner, engine, told = engine_in(tmp_path, (), staleness=2, in_flight="continue")
    try:
        assert isinstance(engine, InFlight)
        torch.manual_seed(0)
        engine.update(0)
        client, long = engine._engine._server.client, Sampling(max_new_tokens=200, temperature=0.7)
        begun = engine.begin(PROMPTS, long, list(range(24)))
        states = []
        for version in (1, 2):
            before = drawn(client)
            while drawn(client) < before + 24 * 8:
                time.sleep(0.1)
            states.append(deepcopy(learner.model.state_dict()))
            move(learner)
            engine.update(version)
            probed = engine.generate(PROMPTS, SAMPLING, list(range(24)))
            assert {c.version for c in probed} == {version} and gap(learner, probed) < 1e-4
        completions = begun(lambda place, completion: None)
        states.append(deepcopy(learner.model.state_dict()))
        found = []
        for state in states:
            learner.model.load_state_dict(state)
            found.append(gaps(learner, completions))
    finally:
        engine.close()
    changed = [c for c in completions if [version for _, version in c.changes] == [1, 2]]
    assert len(changed) == 24 and told == []
    for row, completion in enumerate(completions):
        versions = [version for version, count in completion.versions for _ in range(count)]
        assert max(found[version][row][place] for place, version in enumerate(versions)) < 1e-4
        assert max(found[0][row]) > 0.1 and max(found[2][row]) > 0.1, "the weights did move"


def drawn(client) -> float:
    lines = client.bytes("GET", "/metrics", 10.0).decode().splitlines()
    return sum(float(line.split()[-1]) for line in lines if line.startswith("vllm:generation_tokens_total"))


def small(algorithm: str, out: Path, **changes) -> Run:
    run = replace(default_run(algorithm), data="task:addition", out=str(out), eval_size=16)
    return replace(run, **changes)


@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
def test_grpo_learns_from_it(dtype, tmp_path) -> None:
    start = small("sft", tmp_path / "sft", model="scratch:small", steps=40, learning_rate=2e-3)
    policy = str(execute(start, Silent()) / "final")
    run = small("grpo", tmp_path / "grpo", model=policy, steps=4, learning_rate=1e-3, prompts_per_step=8)
    run = replace(run, max_new_tokens=8, engine="vllm", vllm_python=PYTHON, dtype=dtype)
    steps = read_run(execute(run, Silent())).metrics
    most = {"float32": 1e-4, "bfloat16": 0.05}[dtype]
    assert len(steps) == 4 and all(step["rollout/logprob_gap"] < most for step in steps)
    assert not [event for event in events(tmp_path / "grpo") if event["code"] in ("A_ENGINE", "A_MISMATCH")]


def events(out: Path) -> list[dict]:
    path = out / "events.jsonl"
    return [json.loads(line) for line in path.read_text().splitlines()] if path.exists() else []
