"""Completions that new weights meet on their way at a server: each token of the weights it names, or drawn again."""

import time
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from threading import Thread

import pytest

from oneloop.config import Run
from oneloop.errors import ConfigError, EngineError
from oneloop.recipes.sampler import _flags
from oneloop.rollout.vllm import requests
from oneloop.rollout.vllm.client import Client
from oneloop.rollout.vllm.current import Current
from oneloop.rollout.vllm.faults import Fault
from oneloop.rollout.vllm.in_flight import InFlight
from oneloop.rollout.vllm.server import Elsewhere
from oneloop.rollout.vllm.wire import Wanted, completion_of
from oneloop.types import Sampling
from toy_models import on_ranks
from vllm_stand import PROMPTS, QUICK, SAMPLING, Trainer, fake_python, server_in

GENERATE = "/inference/v1/generate"
SEEDS = list(range(8))
HELD = f"{GENERATE}:hold1:1:8"
"""All that is begun first: number 0 is the probe after the first weights."""
WEIGHTS = {0: 0.25, 1: 0.75, 2: 1.5}


@pytest.fixture
def fresh(tmp_path, monkeypatch):
    """A trainer, and its engine on a fake server with faults on order."""
    engines = []

    def make(fault: str = "", patience=QUICK, keeps=True):
        monkeypatch.setenv("FAKE_FAULT", fault)
        (tmp_path / "counts").unlink(missing_ok=True)
        trainer = Trainer()
        engines.append(InFlight(trainer.engine(server_in(tmp_path, patience), patience, keeps=keeps)))
        return trainer, engines[-1]

    yield make
    for engine in engines:
        engine.close()


def drawn(engine):
    """Tokens, by the server's own count."""
    metrics = engine._engine._server.client.bytes("GET", "/metrics", 5.0)
    return int(metrics.split()[-1])


def held(engine, prompts=PROMPTS, seeds=SEEDS, every=8):
    """Begun, and all on their way: each has its first token."""
    engine.generate([], SAMPLING, [])  # the server is there
    before = drawn(engine)
    begun = engine.begin(prompts, SAMPLING, seeds)
    while drawn(engine) < before + every:
        time.sleep(0.01)
    return begun


def ended(begun):
    return begun(lambda place, completion: None)


def update(trainer, engine, version):
    trainer.weight = WEIGHTS[version]
    engine.update(version)


def check(completions) -> None:
    """Each token's log-prob is that of the weights that it names."""
    for completion in completions:
        versions = [version for version, count in completion.versions for _ in range(count)]
        wanted = [-(1 + WEIGHTS[v] + t / 100) for v, t in zip(versions, completion.tokens, strict=True)]
        assert completion.logprobs == pytest.approx(wanted)


def until(engine, begun):
    """Waited for as the thread that trains does."""
    with ThreadPoolExecutor(1) as pool:
        return engine.until(pool.submit(ended, begun))


def test_the_spans_of_a_completion_are_its_changes(fresh) -> None:
    """One token of each weights, then the rest of the newest; what ended before an update has none of it."""
    trainer, engine = fresh(f"{GENERATE}:hold2:1:8")
    begun = held(engine)
    update(trainer, engine, 1)
    second = ended(engine.begin(PROMPTS, SAMPLING, SEEDS))
    assert second == engine.generate(PROMPTS, SAMPLING, SEEDS), "what is begun later waits for none of it"
    update(trainer, engine, 2)
    first, plain = ended(begun), engine.generate(PROMPTS, SAMPLING, SEEDS)
    for completion in first:
        assert (completion.version, completion.changes) == (0, ((1, 1), (2, 2))[: len(completion.tokens) - 1])
    assert {c.version for c in second} == {1} and {c.version for c in plain} == {2}
    assert sum(len(completion.tokens) > 2 for completion in first) > 3
    check([*first, *plain])
    assert trainer.told == []


def test_finished_before_each_update_it_is_what_one_thread_draws(fresh) -> None:
    trainer, engine = fresh()
    drawn = [ended(engine.begin(PROMPTS, SAMPLING, SEEDS))]
    update(trainer, engine, 1)
    drawn.append(until(engine, engine.begin(PROMPTS, SAMPLING, SEEDS)))
    assert drawn[1] == engine.generate(PROMPTS, SAMPLING, SEEDS) and drawn[0] != drawn[1]
    assert [{c.version for c in each} for each in drawn] == [{0}, {1}] and not any(c.changes for c in drawn[0])
    assert ended(engine.begin([], SAMPLING, [])) == []
    with pytest.raises(ConfigError, match="exceed the model's context"):
        until(engine, engine.begin([[5] * 60], SAMPLING, [0]))


UPDATES = {
    "/pause:500:1:1": 0,
    "/collective_rpc:damaged:1:1": 0,
    "/collective_rpc:stale:1:1": 0,
    "/reset_prefix_cache:held:1:1": 0,
    "/resume:500:1:1": 0,
    "/collective_rpc:die:1:1": 1,
    "/reset_prefix_cache:die:1:1": 1,
    "/resume:die:1:1": 1,
    "/update_weight_version:other:1:1": 1,
    "/collective_rpc:stale:1:3": 1,
}
"""What befalls the second weights while completions wait for them, and how often the server is started again for it."""


@pytest.mark.parametrize("order", UPDATES)
def test_what_an_update_that_failed_may_have_touched_is_drawn_again(order, fresh) -> None:
    """Also what a server drew after it took other weights than those it named, and before it was found out."""
    trainer, engine = fresh(f"{HELD},{order}")
    begun = held(engine)
    update(trainer, engine, 1)
    completions = ended(begun)
    assert completions == engine.generate(PROMPTS, SAMPLING, SEEDS) and {c.version for c in completions} == {1}
    check(completions)
    assert len(trainer.told) == UPDATES[order]


def test_weights_that_never_arrive_end_the_run_with_one_error(fresh) -> None:
    trainer, engine = fresh(f"{HELD},/collective_rpc:stale:1:")
    begun = held(engine)
    with pytest.raises(EngineError, match=r"answers as other weights would: .* 0.75 nats.*started again before"):
        update(trainer, engine, 1)
    engine.close()
    with pytest.raises(EngineError, match="the run ended before this was drawn"):
        ended(begun)


def test_an_update_waits_for_what_the_old_weights_have_begun(fresh) -> None:
    trainer, engine = fresh(f"{GENERATE}:slow:1:8", keeps=False)
    begun = engine.begin(PROMPTS, SAMPLING, SEEDS)
    update(trainer, engine, 1)
    completions = ended(begun)
    check(completions)
    assert {c.version for c in completions} == {0}
    assert {c.version for c in engine.generate(PROMPTS, SAMPLING, SEEDS)} == {1} and trainer.told == []


@pytest.mark.parametrize("keeps", [True, False], ids=["continue", "finish"])
@pytest.mark.parametrize(
    ("kind", "waits"), [("die", True), ("stall", True), ("old", True), ("nan", True), ("die", False), ("old", False)]
)
def test_a_server_that_fails_beside_the_training_is_mended_by_who_trains(kind, waits, keeps, fresh) -> None:
    """While that thread waits, or at its next update: nothing is lost."""
    last = (
        5 if kind == "nan" else 3
    )  # an answer that is wrong is asked for again; for others the server is started again
    trainer, engine = fresh(f"{GENERATE}:{kind}:3:{last}", replace(QUICK, silence=1.5), keeps)
    if waits:
        completions = until(engine, engine.begin(PROMPTS, SAMPLING, SEEDS))
    else:
        begun = engine.begin(PROMPTS, SAMPLING, SEEDS)
        for call in engine._calls:
            call.join()
        update(trainer, engine, 1)
        completions = ended(begun)
    check(completions)
    assert {c.version for c in completions} <= ({0} if waits else {0, 1})
    assert len(trainer.told) == (kind != "nan") and len(completions) == 8


@pytest.mark.parametrize("kind", ["die", "old", "nan"])
def test_a_server_that_stays_ill_ends_the_step_that_waits_for_it(kind, fresh) -> None:
    trainer, engine = fresh(f"{GENERATE}:{kind}:3:")
    with pytest.raises(EngineError, match="It was started again before") as found:
        until(engine, engine.begin(PROMPTS, SAMPLING, SEEDS))
    assert "the vLLM server at" in str(found.value) and len(trainer.told) == 1


def test_what_the_trainer_waits_for_comes_first(fresh, monkeypatch) -> None:
    """The probe of an update, and completions of the newest weights; not what was begun ahead."""
    seen: dict[int, set] = {}
    sent = Client.json

    def json(self, method, path, timeout, body=None):
        if path == GENERATE:
            seen.setdefault(body["sampling_params"]["seed"], set()).add(body.get("priority"))
        if path.startswith(("/pause", "/reset")):
            seen.setdefault(path, set())
        return sent(self, method, path, timeout, body)

    monkeypatch.setattr(Client, "json", json)
    flags = [_flags(Run(engine="vllm", staleness=1, in_flight=switch)) for switch in ("continue", "finish")]
    assert [" ".join(each).count("--scheduling-policy priority") for each in flags] == [1, 0]
    trainer, engine = fresh()
    ended(engine.begin(PROMPTS[:1], SAMPLING, [70]))
    engine.generate(PROMPTS[:1], SAMPLING, [80])
    update(trainer, engine, 1)
    assert seen == {
        0: {-1}, 1: {-1}, 70: {None}, 80: {-1}, "/pause?mode=keep": set(),
        "/reset_prefix_cache?reset_running_requests=true": set(),
    }  # fmt: skip


def test_a_server_elsewhere_is_kept_in_step_too(tmp_path, monkeypatch) -> None:
    monkeypatch.setenv("FAKE_FAULT", f"{GENERATE}:hold1:2:9")
    own, trainer = Trainer().engine(server_in(tmp_path)), Trainer()
    own.update(0)
    client = own._server.client
    engine = InFlight(trainer.engine(Elsewhere(client.address, client.key, tmp_path / "w"), keeps=True))
    begun = held(engine)
    update(trainer, engine, 1)
    check(completions := ended(begun))
    assert {c.changes for c in completions} == {((1, 1),)}
    begun = engine.begin(PROMPTS, SAMPLING, SEEDS)
    own.close()
    with pytest.raises(EngineError, match=r"\(--engine\)"):
        update(trainer, engine, 2)
    engine.close()


WANTED = Wanted(Sampling(max_new_tokens=4), (), 8, True)


def answered(spans, versions, wanted=WANTED):
    content = [{"token_id": 5, "logprob": -1.0}] * 4
    choice = {"token_ids": [5] * 4, "finish_reason": "length", "logprobs": {"content": content}}
    return completion_of({"choices": [choice | {"weight_versions": spans}]}, wanted, versions)


def spans_of(*pieces):
    return [{"version": version, "start": start, "end": end} for version, start, end in pieces]


def test_what_spans_say_is_what_a_completion_says() -> None:
    one = answered(spans_of(("3", 0, 4)), [3, 4])
    two = answered(spans_of(("3", 0, 1), ("5", 1, 4)), [3, 4, 5])
    assert (one.version, one.changes) == (3, ()) and (two.version, two.changes) == (3, ((1, 5),))
    assert list(two.versions) == [(3, 1), (5, 3)]
    assert answered(None, [3]).version == 3, "a server that says nothing, and had nothing else"
    unnamed = answered(spans_of(("default", 0, 4)), [0], replace(WANTED, named=False))
    assert (unnamed.version, unnamed.changes) == (0, ())


@pytest.mark.parametrize(
    ("spans", "says"),
    [
        (spans_of(("2", 0, 4)), r"from weights 2; the trainer's were 3, 4 meanwhile$"),
        (spans_of(("3", 0, 2), ("5", 2, 4)), "from weights 5; the trainer's"),
        (spans_of(("default", 0, 4)), "from weights default"),
        (spans_of(("4", 0, 2), ("3", 2, 4)), "it went back to older weights: 4, 3"),
        (spans_of(("3", 0, 2), ("3", 2, 4)), "it went back"),
        (spans_of(("3", 0, 2), ("4", 3, 4)), "not of the 4 tokens"),
        (spans_of(("3", 1, 4)), "not of the 4 tokens"),
        (spans_of(("3", 0, 2)), "not of the 4 tokens"),
        (spans_of(("3", 0, None)), "not of the 4 tokens"),
        (None, "does not say which weights .*--in-flight finish"),
        ([["3", 0, 4]], "not the form of spans"),
        (7, "not the form of spans"),
    ],
)
def test_spans_that_cannot_be_are_refused(spans, says) -> None:
    with pytest.raises(Fault, match=says):
        answered(spans, [3, 4])


@pytest.mark.parametrize("kind", ["old", "short", "back", "unsaid"])
def test_a_server_that_says_wrong_versions_is_never_believed(kind, fresh, monkeypatch) -> None:
    """The held completions were drawn from weights 0 and 1; what the server says of them is spoilt on its way."""

    def spoilt(answer, wanted, versions):
        choice = answer["choices"][0]
        spans = choice.get("weight_versions")
        if len(versions) > 1 and spans and len(spans) > 1:
            if kind == "unsaid":
                choice["weight_versions"] = None
            elif kind == "short":
                spans[-1]["end"] -= 1
            else:
                spans[0]["version"], spans[1]["version"] = ("default", "0") if kind == "old" else ("1", "0")
        return completion_of(answer, wanted, versions)

    monkeypatch.setattr(requests, "completion_of", spoilt)
    trainer, engine = fresh(HELD)
    begun = held(engine)
    update(trainer, engine, 1)
    if kind == "unsaid":
        with pytest.raises(EngineError, match="does not say which weights"):
            until(engine, begun)
        return
    completions = until(engine, begun)
    check(completions)
    assert not any(c.changes for c in completions)
    assert len(trainer.told) == (kind != "short"), "what has no form is asked for again, what lies is started again"


def test_an_answer_counts_when_the_weights_are_known_to_be_right() -> None:
    current, heard = Current(), []
    first = current.asked(0)

    def listen():
        heard.append(list(current.answered(first)))

    with current.update(3):
        thread = Thread(target=listen, daemon=True)
        thread.start()
        time.sleep(0.05)
        assert heard == [] and current.asked(0) == first
    thread.join(5)
    assert heard == [[0, 3]] and current.answered(current.asked(0)) == [3]
    with pytest.raises(EngineError), current.update(4):
        raise EngineError("it did not arrive")
    assert current.answered(first) == [0, 3]
    with current.update(4):
        current.void()
        for stale in (lambda: current.answered(first), lambda: current.asked(0)):
            with pytest.raises(Fault, match="broken off"):
                stale()
    assert current.answered(current.asked(1)) == [4]


def together(folder, work, monkeypatch, fault):
    monkeypatch.setenv("FAKE_FAULT", fault)
    python = fake_python(folder)

    def body(rank, world):
        trainer = Trainer(crew=world)
        engine = InFlight(trainer.engine(server_in(folder, python=python), keeps=True))
        mine = list(range(rank, 8, 2))
        try:
            found = work(trainer, engine, [PROMPTS[n] for n in mine], mine)
            world.collect([rank])  # whoever is done first must not end the server of the other
            return found
        finally:
            engine.close()

    return on_ranks(2, body)


@pytest.mark.parametrize("fault", ["", "/collective_rpc:die:1:1", "/collective_rpc:stale:1:1"])
def test_ranks_that_share_a_server(fault, tmp_path, monkeypatch) -> None:
    """One update for all; what fails in it is mended for all, and each asks again for its own."""

    def work(trainer, engine, prompts, seeds):
        begun = held(engine, prompts, seeds, 4)
        trainer.crew.collect([0])
        update(trainer, engine, 1)
        return ended(begun), trainer.told

    found = together(tmp_path, work, monkeypatch, f"{HELD},{fault}")
    for completions, told in found:
        check(completions)
        assert len(completions) == 4 and len(told) == ("die" in fault)
        assert {c.version for c in completions} == ({1} if fault else {0})
    assert fault or all(c.changes for completions, _ in found for c in completions if len(c.tokens) > 1)


def test_ranks_cannot_meet_while_each_waits_for_its_own(tmp_path, monkeypatch) -> None:
    def work(trainer, engine, prompts, seeds):
        try:
            until(engine, engine.begin(prompts, SAMPLING, seeds))
        except EngineError as error:
            return str(error)
        return ""

    found = together(tmp_path, work, monkeypatch, f"{GENERATE}:die:1:1")
    assert any("the vLLM server at" in each and "Fix:" in each for each in found)
