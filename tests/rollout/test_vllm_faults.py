"""A server that dies, stalls or lies: asked again, started again once, then one typed error; never a sample."""

import socket
import sys
import time
from dataclasses import replace
from pathlib import Path

import pytest

from forked import Forked
from oneloop.errors import ConfigError, EngineError
from oneloop.rollout.vllm import server as servers
from oneloop.rollout.vllm.server import Elsewhere, check_python
from vllm_stand import PROMPTS, QUICK, SAMPLING, Trainer, server_in

GENERATE = "/inference/v1/generate"
ANSWERS = {
    "500": "answered 500", "cut": "not JSON", "none": "not the form", "two": "not the form", "few": "log-probs are of",
    "nan": "log-prob nan", "positive": "log-prob 0.5", "absent": "log-prob -9999.0",
    "beyond": "token id 1000000", "swapped": "log-probs are of",
    "abort": "'abort'", "close": "connection failed", "half": "connection failed", "old": "from weights default",
}  # fmt: skip
"""Faults of one answer, and what the error says of each."""


@pytest.fixture
def fresh(tmp_path, monkeypatch):
    """A trainer, its engine on a fake server with a fault on order, and the server's end."""
    engines = []

    def make(fault: str = "", patience=QUICK, **more):
        monkeypatch.setenv("FAKE_FAULT", fault)
        trainer = Trainer()
        engines.append(trainer.engine(server_in(tmp_path, patience, **more), patience))
        return trainer, engines[-1]

    yield make
    for engine in engines:
        engine.close()


def drawn(engine, seeds=range(8)):
    return engine.generate(PROMPTS, SAMPLING, list(seeds))


@pytest.fixture(scope="module")
def wanted(tmp_path_factory):
    """What a server without a fault answers."""
    engine = Trainer().engine(server_in(tmp_path_factory.mktemp("sound")))
    completions = drawn(engine)
    engine.close()
    return completions


@pytest.mark.parametrize("kind", [*(kind for kind in ANSWERS if kind != "old"), "slow"])
def test_two_bad_answers_are_asked_for_again(kind, fresh, wanted) -> None:
    """The first request is the probe after the weights: here it is sound."""
    trainer, engine = fresh(f"{GENERATE}:{kind}:1:2")
    assert drawn(engine) == wanted and trainer.told == []


@pytest.mark.parametrize("kind", ANSWERS)
def test_a_server_that_stays_ill_is_started_again_once_and_ends_the_run_with_one_error(kind, fresh) -> None:
    trainer, engine = fresh(f"{GENERATE}:{kind}:1:")
    with pytest.raises(EngineError, match=ANSWERS[kind]) as found:
        drawn(engine)
    assert "the vLLM server at http://127.0.0.1:" in str(found.value) and "Fix:" in str(found.value)
    assert len(trainer.told) == 1 and found.value.__suppress_context__


@pytest.mark.parametrize(
    ("kind", "says"), [("die", "exit code 9.*\n.*out of memory"), ("stall", "stalls: no completion")]
)
def test_a_server_that_dies_or_stalls_amid_its_answers(kind, says, fresh, wanted) -> None:
    """What had been answered stays; the rest is drawn by the next server, from the same seeds."""
    patience = replace(QUICK, silence=1.5)
    trainer, engine = fresh(f"{GENERATE}:{kind}:3:3", patience)
    heard: dict = {}
    assert engine.generate(PROMPTS, SAMPLING, list(range(8)), heard.__setitem__) == wanted
    assert [heard[place] for place in range(8)] == wanted and len(trainer.told) == 1
    trainer, engine = fresh(f"{GENERATE}:{kind}:3:", patience)
    with pytest.raises(EngineError, match=f"(?s){says}"):
        drawn(engine)


@pytest.mark.parametrize("metrics", ["stall", "404", "500"])
def test_a_server_that_stalls_altogether_is_told_from_one_that_does_not_count(metrics, fresh) -> None:
    """Without counters nobody can tell; with a route that hangs too, or fails, it is clear enough."""
    trainer, engine = fresh(f"{GENERATE}:slow:1:,/metrics:{metrics}:0:", replace(QUICK, silence=0.3, tries=1))
    if metrics == "404":
        assert len(drawn(engine)) == 8 and trainer.told == []
        return
    with pytest.raises(EngineError, match="stalls"):
        drawn(engine)


def test_a_slow_server_that_draws_tokens_does_not_stall(fresh, wanted) -> None:
    patience = replace(QUICK, silence=0.3)
    trainer, engine = fresh(f"{GENERATE}:slow:1:,/metrics:moves:0:", patience)
    assert drawn(engine) == wanted and trainer.told == []


UPDATES = {
    "/collective_rpc:500:1:3": "/collective_rpc answered 500",
    "/collective_rpc:400:1:1": "/collective_rpc answered 400",
    "/collective_rpc:damaged:1:3": "weights arrived damaged: 1 of 1 groups differ, the first model.layers.0",
    "/collective_rpc:stale:1:3": r"answers as other weights would: .* 0.5 nats",
    "/pause:stall:1:1": r"/pause\?mode=abort did not answer within 1 s",
    "/reset_prefix_cache:held:1:3": "keeps keys and values of the weights before",
    "/reset_prefix_cache:500:1:3": "/reset_prefix_cache answered 500",
    "/update_weight_version:other:1:1": "it has weights .*7777",
}
"""What can befall an update, until the server has been started again, and what the error says where that does not help.

The first weights, which are number 0, arrive."""


@pytest.mark.parametrize("order", UPDATES)
def test_weights_that_do_not_arrive_are_brought_again_and_never_used_unseen(order, fresh) -> None:
    patience = replace(QUICK, answer=1.0 if "stall" in order else QUICK.answer)
    trainer, engine = fresh(order, patience)
    before = drawn(engine)
    trainer.weight = 0.75
    engine.update(1)
    after = drawn(engine)
    assert {c.version for c in after} == {1} and after != before and len(trainer.told) == 1
    assert all(c.logprobs == pytest.approx([-(1.75 + t / 100) for t in c.tokens]) for c in after)
    trainer, engine = fresh(order.rpartition(":")[0] + ":", patience)
    drawn(engine)
    trainer.weight = 0.75
    with pytest.raises(EngineError, match=UPDATES[order]):
        engine.update(1)


def test_a_server_that_has_other_weights_than_it_was_given_is_noticed_before_it_answers(fresh, wanted) -> None:
    trainer, engine = fresh()
    assert drawn(engine) == wanted
    engine._server.client.json("POST", "/update_weight_version", 3.0, {"new_version": "41"})
    assert drawn(engine) == wanted
    assert "it has weights {'weight_version': '41'}; the trainer's are 0" in trainer.told[0]


def test_the_first_error_is_the_cause_and_a_warning_is_none(tmp_path) -> None:
    said = "WARNING limit; this can cause `OSError: [Errno 24] Too many`\n ERROR RuntimeError: head_dim=24\n"
    (tmp_path / "vllm.log").write_text(said + "ValueError: later\n" + "at the end\n" * 4, encoding="utf-8")
    words = server_in(tmp_path).last_words()
    assert "RuntimeError: head_dim=24" in words and "OSError" not in words and "later" not in words


def test_what_cannot_be_started_is_told_at_once(fresh, tmp_path) -> None:
    bare = tmp_path / "bare"
    bare.write_text(f'#!/bin/sh\nexec "{sys.executable}" "$@"\n', encoding="utf-8")
    bare.chmod(0o755)
    for python, says in ((str(bare), "vLLM is not installed there"), (str(tmp_path / "none"), "cannot be run")):
        with pytest.raises(ConfigError, match=f"--vllm-python {python}.*{says}.*make vllm"):
            check_python(python)
    for python, says in ((str(bare), "not installed"), (str(tmp_path / "none"), "cannot be run: No such file")):
        trainer, engine = fresh(python=python)
        with pytest.raises(EngineError, match=says):
            drawn(engine)
        assert trainer.told == [], "another start would not help"


def test_a_start_that_takes_too_long(fresh, monkeypatch) -> None:
    monkeypatch.setenv("FAKE_START", "30")
    _, engine = fresh(patience=replace(QUICK, start=0.3))
    with pytest.raises(EngineError, match="did not answer within 0 s of its start"):
        drawn(engine)


def test_a_port_that_somebody_took_meanwhile(fresh, monkeypatch, wanted) -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        ports = [taken.getsockname()[1]]
        free = servers.free_port
        monkeypatch.setattr(servers, "free_port", lambda: ports.pop() if ports else free())
        trainer, engine = fresh(patience=replace(QUICK, answer=0.5))
        assert drawn(engine) == wanted
        assert "it ended with exit code 1" in trainer.told[0]


def test_a_wrong_key_ends_the_run_at_once(fresh) -> None:
    _, engine = fresh()
    drawn(engine)
    own = engine._server.client
    elsewhere = Elsewhere(own.address, "not the key", Path("unused"))
    with pytest.raises(EngineError, match=r"answered 401.*The key is wrong"):
        Trainer().engine(elsewhere)


def test_an_engine_elsewhere_that_is_not_there(tmp_path) -> None:
    with pytest.raises(EngineError, match=r"the engine at http://127.0.0.1:9 \(--engine\): .*connection failed"):
        Trainer().engine(Elsewhere("http://127.0.0.1:9", "", tmp_path / "weights"))


def alive(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except FileNotFoundError:
        return False


def children(pid: int) -> list[int]:
    return [int(child) for child in Path(f"/proc/{pid}/task/{pid}/children").read_text().split()]


@pytest.mark.skipif(not Path("/proc/self/stat").exists(), reason="looks at processes in /proc")
def test_the_server_dies_with_a_run_that_is_killed(tmp_path) -> None:
    """kill -9 of the run: nobody is left to end the server, and yet it ends, with its weights in memory, and whom it
    started.
    """
    code = (
        "import time; from pathlib import Path; from vllm_stand import *\n"
        f"engine = Trainer().engine(server_in(Path({str(tmp_path)!r})))\n"
        "engine.generate(PROMPTS, SAMPLING, list(range(8)))\n"
        "print(engine._server._process.pid, engine._server.folder, flush=True); time.sleep(60)\n"
    )
    run = Forked(["-c", code], tmp_path, {"FAKE_HELPER": "1"})
    pid, folder = run.stdout.readline().split()
    (server,) = children(int(pid))
    (helper,) = children(server)
    started = [int(pid), server, helper]
    assert all(map(alive, started)) and Path(folder).exists()
    run.kill()
    run.communicate(timeout=15)
    for _ in range(200):
        if not (any(map(alive, started)) or Path(folder).exists()):
            return
        time.sleep(0.05)
    raise AssertionError("the server outlived the run")
