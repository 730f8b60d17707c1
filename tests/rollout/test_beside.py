"""Sampling beside the trainer: a second process draws what one process would, token by token, and dies with the run."""

import os
import signal
import threading
import time
from copy import deepcopy
from pathlib import Path

import pytest
import torch
from transformers import GPT2Config, LlamaConfig

from forked import Forked
from oneloop.algorithms import GRPO
from oneloop.errors import ConfigError, EngineError
from oneloop.experience.ahead import Ahead, InTurn
from oneloop.experience.drawing import OneTurn
from oneloop.experience.rollouts import Rollouts
from oneloop.loop import train
from oneloop.model.learner import Learner, Optimization
from oneloop.objective.correction import TruncatedImportance
from oneloop.rollout.beside import weights
from oneloop.rollout.beside.arrivals import Arrivals, arrivals_file, script
from oneloop.rollout.beside.engine import SecondProcess
from oneloop.rollout.beside.process import Sampler
from oneloop.rollout.engine import Engine
from oneloop.types import Prompt, Reward, Sampling
from toy_models import Memory, decided

ROPE = {
    "vocab_size": 60, "hidden_size": 16, "intermediate_size": 24, "num_hidden_layers": 2, "num_attention_heads": 2,
    "num_key_value_heads": 1, "pad_token_id": 0, "max_position_embeddings": 512,
}  # fmt: skip
TINY = LlamaConfig(**ROPE)
TIED = LlamaConfig(**ROPE, tie_word_embeddings=True)
PADDED = GPT2Config(vocab_size=60, n_embd=16, n_layer=1, n_head=2, n_positions=512, pad_token_id=0, attn_pdrop=0.0)
PROMPTS, SEEDS = [[5, 6, 7], [8] * 40, [8] * 40, [9, 4]], [11, 12, 13, 14]
LONG = Sampling(max_new_tokens=200)
NO_END: list[int] = []


def other(model, scale=1.5):
    """The same model with other weights."""
    changed = deepcopy(model)
    with torch.no_grad():
        for parameter in changed.parameters():
            parameter.mul_(scale) if parameter.dim() > 1 else parameter.add_(0.02)
    return changed


def into(model, source):
    with torch.no_grad():
        for mine, theirs in zip(model.parameters(), source.parameters(), strict=True):
            mine.copy_(theirs)


@torch.no_grad()
def slowly(models, prompt, completion):
    """log μ of each token: keys and values of a token stay those of the weights it was read with."""
    logprobs, place, cache, read = [], 0, None, list(prompt)
    for version, count in completion.versions:
        for _ in range(count):
            out = models[version](torch.tensor([read]), past_key_values=cache, use_cache=True)
            cache, token = out.past_key_values, completion.tokens[place]
            logprobs.append(float(out.logits[0, -1].log_softmax(-1)[token]))
            read, place = [token], place + 1
    return logprobs


@pytest.mark.parametrize("shared", [False, True])
@pytest.mark.parametrize("rows", [8, 2])
def test_rows_on_their_way_go_on_with_new_weights(rows: int, shared: bool) -> None:
    """Each token's log-prob is that of the weights it names, over keys and values of those before it. Others join on
    the way, when the batch has been cut and when it has not."""
    model = decided(TINY).eval()
    models = {0: deepcopy(model), 3: other(model), 4: other(model, 0.7)}
    prompts = [[8] * 70] * 4 if shared else PROMPTS
    joining = [*prompts, [3] * 90, [8] * 70, [8] * 70, [4, 5]]
    engine = Engine(model, [], max_rows=rows)
    sampling, done = Sampling(max_new_tokens=12), {}
    with engine.reading():
        decoding = engine.decoding(prompts, sampling, SEEDS)
        passes = 0
        while decoding.left:
            ended = dict(decoding.step())
            assert not ended.keys() & done.keys()
            done |= ended
            passes += 1
            if passes in (7, 16):
                place = 4 if passes == 7 else 6
                engine.decoding(joining[place : place + 2], sampling, [20, place], first=place, running=decoding)
            if passes in (5, 9):
                version = 3 if passes == 5 else 4
                into(model, models[version])
                decoding.renew(9)  # one that no token is drawn from
                decoding.renew(version)
    assert any(completion.changes for completion in done.values())
    assert {v for c in done.values() for v, _ in c.versions} == ({0, 3, 4})
    assert sorted(done) == list(range(8)) and (done[7].version, done[7].changes) == (4, ())
    for place, completion in done.items():
        assert completion.logprobs == pytest.approx(slowly(models, joining[place], completion), abs=2e-5)


def test_padded_decoding_takes_new_weights_between_its_batches() -> None:
    model = decided(PADDED).eval()
    models = {0: deepcopy(model), 1: other(model)}
    engine = Engine(model, [], max_rows=2)
    engine._fast = False
    done = {}
    with engine.reading():
        decoding = engine.decoding(PROMPTS, Sampling(max_new_tokens=5), SEEDS)
        done |= dict(decoding.step())
        into(model, models[1])
        decoding.renew(1)
        done |= dict(decoding.run())
    assert sorted(completion.version for completion in done.values()) == [0, 0, 1, 1]
    for place, completion in done.items():
        assert completion.logprobs == pytest.approx(slowly(models, PROMPTS[place], completion), abs=2e-5)


def test_weights_cross_as_they_are(tmp_path) -> None:
    """Tied matrices once; another model's are refused."""
    model, blank = decided(TIED), decided(TIED)
    into(blank, other(model))
    weights.write(model.state_dict(), tmp_path / "w")
    weights.read(tmp_path / "w", blank)
    assert not (tmp_path / "w").exists()
    assert all(torch.equal(a, b) for a, b in zip(model.parameters(), blank.parameters(), strict=True))
    weights.write(model.state_dict(), tmp_path / "w")
    with pytest.raises(EngineError, match=r"not those of LlamaForCausalLM: lm_head\.weight is on one side only"):
        weights.read(tmp_path / "w", decided(TINY))


class Copies:
    """Implements `oneloop.ports.BesideEngine` in one thread: draws at once, from a copy of the newest weights."""

    def __init__(self, model) -> None:
        self.model, self.version, self.exact = model, 0, True
        self.generate = Engine(model, [1, 2]).generate
        self.update(0)

    def update(self, version):
        self.version = version
        self.engine = Engine(deepcopy(self.model), [1, 2])
        self.engine.update(version)

    def begin(self, prompts, sampling, seeds):
        drawn = self.engine.generate(prompts, sampling, seeds)

        def wait(finished):
            for place, completion in enumerate(drawn):
                finished(place, completion)
            return drawn

        return wait

    def until(self, done):
        return done.result()

    def close(self): ...


def sampler_of(model, taken=lambda passes: None, ends=(1, 2), **setup):
    setup = {"end_ids": ends, "dtype": "float32", "device": "cpu", "threads": torch.get_num_threads(), **setup}
    return Sampler(model.config, model.state_dict, setup, taken)


def by_length(items, step=0, scored=lambda count: None):
    scored(len(items))
    return [
        type(item)(**{**{f: getattr(item, f) for f in item.__slots__}, "reward": Reward(value=len(item.text) % 5 / 4)})
        for item in items
    ]


def trained(engine_of, staleness, steps=5):
    """A run of GRPO on a tiny model; its weights and what it logged."""
    model = decided(TINY)
    engine = engine_of(model)
    learner = Learner(model, optimization=Optimization(learning_rate=1e-2, critic_learning_rate=0, total_updates=9))
    rollouts = Rollouts(
        engine=engine,
        prompts=[Prompt(id=str(n), text=str(n), tokens=(5 + n, 6, 7)) for n in range(7)],
        draw=OneTurn(engine.generate, lambda ids: " ".join(map(str, ids))),
        scorer=InTurn(by_length),
        sampling=Sampling(max_new_tokens=24),
        prompts_per_step=2,
        group_size=4,
        seed=0,
        recorder=(memory := Memory()),
        score_early=True,
    )
    experience = Ahead(rollouts, engine, staleness=staleness, last=steps - 1)
    algorithm = GRPO.__class__(**{**vars(GRPO), "kl": None, "correction": TruncatedImportance()})
    try:
        train(algorithm, experience, learner, memory, steps=steps, minibatch=2, max_tokens=4096, seed=0)
    finally:
        experience.close()
    wanted = ("loss", "reward", "rollout/logprob_gap", "rollout/staleness", "grad_norm", "completions/mean_length")
    return [p.detach().clone() for p in model.parameters()], [memory.column(name) for name in wanted]


def test_a_second_process_trains_to_the_same_bits_as_one_thread() -> None:
    before = set(threading.enumerate())
    threaded, log = trained(lambda model: SecondProcess(Engine(model, [1, 2]), sampler_of(model)), 2)
    wanted, other_log = trained(Copies, 2)
    assert log == other_log and log[3] == [0, 1, 2, 2, 2]
    assert all(torch.equal(mine, theirs) for mine, theirs in zip(threaded, wanted, strict=True))
    assert max(log[2]) > 1e-3, "the samples are stale"
    deadline = time.monotonic() + 5
    while set(threading.enumerate()) - before and time.monotonic() < deadline:
        time.sleep(0.01)
    assert not set(threading.enumerate()) - before


def test_what_was_recorded_is_done_again_token_by_token_and_a_dead_process_is_told(tmp_path) -> None:
    model, path = decided(TINY), arrivals_file(tmp_path, 0)
    changed = other(model)
    sampler = sampler_of(model, Arrivals(path), ends=NO_END, continues=True, script=[0, 0, 25])
    sampler.start()
    sampler.update(0)
    begun = sampler.begin(PROMPTS, LONG, SEEDS)
    into(model, changed)
    sampler.update(1)
    first = begun(lambda place, completion: None)
    assert {completion.changes for completion in first} == {((25, 1),)} and script(path) == [0, 0, 25]
    waiting = sampler.begin(PROMPTS, LONG, SEEDS)
    os.kill(sampler._process.pid, signal.SIGKILL)
    start = time.monotonic()
    with pytest.raises(EngineError, match=r"ended by signal 9 \(Killed\).*--resume"):
        waiting(lambda place, completion: None)
    assert time.monotonic() - start < 1
    with pytest.raises(EngineError):
        sampler.update(2)
    sampler.close()
    assert not sampler._folder.exists()

    into(model, decided(TINY))
    recorded = script(path)
    again = sampler_of(model, ends=NO_END, continues=True, script=recorded[:3])
    try:
        again.start()
        again.update(0)
        begun = again.begin(PROMPTS, LONG, SEEDS)
        time.sleep(0.2)  # the sampler waits where it was, and only there
        into(model, changed)
        again.update(1)
        assert begun(lambda place, completion: None) == first
        waiting = again.begin(PROMPTS, LONG, SEEDS)
        start = time.monotonic()
        again.close()
        with pytest.raises(EngineError, match="the run ended"):
            waiting(lambda place, completion: None)
        assert time.monotonic() - start < 1
    finally:
        again.close()


def test_arrivals_of_a_resumed_run_are_refused(tmp_path) -> None:
    with pytest.raises(ConfigError, match="cannot be read"):
        script(tmp_path / "0.jsonl")
    for passes in (0, 0, 7, 0):
        Arrivals(tmp_path / "0.jsonl")(passes)
    with pytest.raises(ConfigError, match="was resumed"):
        script(tmp_path / "0.jsonl")


PARENT = """
import time
from test_beside import LONG, PROMPTS, SEEDS, TINY, decided, sampler_of
model = decided(TINY)
sampler = sampler_of(model, ends=[])
sampler.start()
sampler.update(0)
sampler.begin(PROMPTS[:1], LONG, SEEDS[:1])(lambda place, completion: None)
sampler.begin(PROMPTS * 50, LONG, list(range(200)))
print(sampler._process.pid, sampler._folder, flush=True)
time.sleep(60)
"""


def test_what_is_begun_after_the_end_starts_no_process(monkeypatch) -> None:
    """A thread that plays episodes may come late; nobody would end what it starts."""
    started = []
    monkeypatch.setattr(Sampler, "start", lambda self: started.append(self))
    model = decided(TINY)
    engine = SecondProcess(Engine(model, (1, 2)), sampler_of(model))
    engine.close()
    with pytest.raises(EngineError, match=r"^the run ended before this was begun$"):
        engine.begin([(5, 6)], Sampling(max_new_tokens=2), [0])
    assert not started


def test_the_process_dies_with_its_parent(tmp_path) -> None:
    parent = Forked(["-c", PARENT], tmp_path)
    pid, folder = parent.stdout.readline().split()
    parent.kill()
    parent.communicate(timeout=15)
    deadline = time.monotonic() + 15
    while (alive(int(pid)) or Path(folder).exists()) and time.monotonic() < deadline:
        time.sleep(0.02)
    assert not alive(int(pid)) and not Path(folder).exists()


def alive(pid):
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except OSError:
        return False
