"""Completions over HTTP: token ids in and out, seeds, ends, versions; weights by digest; the key on every route."""

import asyncio
import json

import pytest
import torch
from safetensors.torch import save_file

from oneloop.errors import ConfigError
from oneloop.rollout.vllm.client import Client
from oneloop.rollout.vllm.faults import Fault
from oneloop.rollout.vllm.inside import oneloop_inside
from oneloop.rollout.vllm.server import Elsewhere
from oneloop.types import Sampling, StopReason
from vllm_stand import PROMPTS, SAMPLING, Trainer, server_in


@pytest.fixture(scope="module")
def stand(tmp_path_factory):
    trainer = Trainer()
    engine = trainer.engine(server_in(tmp_path_factory.mktemp("stand")))
    yield trainer, engine
    engine.close()


def test_draws_depend_on_the_seed_alone(stand) -> None:
    _, engine = stand
    once = engine.generate(PROMPTS, SAMPLING, list(range(8)))
    order = [3, 1, 7, 0, 2, 6, 5, 4]
    again = engine.generate([PROMPTS[n] for n in order], SAMPLING, order)
    assert again == [once[n] for n in order]
    assert engine.generate(PROMPTS, SAMPLING, list(range(8, 16))) != once
    assert engine.generate([], SAMPLING, []) == []
    assert engine.exact is False


def test_a_completion_says_where_it_ended(stand) -> None:
    _, engine = stand
    completions = engine.generate(PROMPTS * 4, SAMPLING, list(range(32)))
    assert {c.stop for c in completions} == {StopReason.EOS, StopReason.LENGTH}
    for completion in completions:
        ended = completion.tokens[-1] == 1
        assert completion.stop is (StopReason.EOS if ended else StopReason.LENGTH)
        assert 1 not in completion.tokens[:-1] and (ended or len(completion.tokens) == 6)


def test_each_is_heard_of_as_it_ends_and_who_listens_may_stop_it(stand) -> None:
    _, engine = stand
    heard = []

    def listen(place, completion):
        heard.append(place)
        if len(heard) == 3:
            raise RuntimeError("a reward failed")

    with pytest.raises(RuntimeError, match="a reward failed"):
        engine.generate(PROMPTS * 8, SAMPLING, list(range(64)), listen)
    assert len(heard) == 3
    assert len(engine.generate(PROMPTS, SAMPLING, list(range(8)))) == 8, "and it can go on"


def test_weights_follow_the_trainer(stand) -> None:
    trainer, engine = stand
    for version, weight in ((3, 0.5), (4, 1.5)):
        trainer.weight = weight
        engine.update(version)
        (completion,) = engine.generate([[5]], SAMPLING, [0])
        assert completion.version == engine.version == version
        assert completion.logprobs == pytest.approx([-(1 + weight + token / 100) for token in completion.tokens])
    assert trainer.told == [], "without a new server, which would have the new weights too"


def test_a_prompt_without_room_is_refused_as_by_the_built_in_engine(stand) -> None:
    _, engine = stand
    with pytest.raises(ConfigError, match=r"exceed the model's context of 64\. Fix: --max-new-tokens 4"):
        engine.generate([[5] * 60], SAMPLING, [0])
    with pytest.raises(ConfigError, match="no tokens"):
        engine.generate([[]], SAMPLING, [0])


def test_an_engine_elsewhere_gets_weights_by_their_folder(tmp_path) -> None:
    own = Trainer().engine(server_in(tmp_path))
    own.generate([[5]], SAMPLING, [0])
    client, trainer = own._server.client, Trainer(2.5)
    engine = trainer.engine(Elsewhere(client.address, client._headers["Authorization"].split()[1], tmp_path / "w"))
    assert "weights are sent after each update" in engine.note
    engine.update(9)
    (completion,) = engine.generate([[5]], SAMPLING, [0])
    assert completion.version == 9 and completion.logprobs[0] == pytest.approx(-3.5 - completion.tokens[0] / 100)
    assert not list((tmp_path / "w").iterdir()), "memory is given back"
    own.close()


def test_an_engine_elsewhere_without_routes_for_weights_stays_stale_and_says_so(tmp_path, monkeypatch) -> None:
    monkeypatch.setenv("FAKE_FAULT", "/weight_info:404:2:")
    own = Trainer().engine(server_in(tmp_path))
    own.generate([[5]], SAMPLING, [0])
    client, trainer = own._server.client, Trainer(0.25)
    engine = trainer.engine(Elsewhere(client.address, client._headers["Authorization"].split()[1], tmp_path / "w"))
    assert "weights are NOT sent" in engine.note and "VLLM_SERVER_DEV_MODE" in engine.note
    trainer.weight = 5.0
    engine.update(1)
    (completion,) = engine.generate([[5]], SAMPLING, [0])
    assert completion.version == engine.version == 0, "the weights' own version, not the step's"
    assert completion.logprobs[0] == pytest.approx(-1.25 - completion.tokens[0] / 100)
    own.close()


def test_digests_of_a_file_and_of_what_the_loader_handed_over(tmp_path) -> None:
    tensors = {
        "model.layers.0.up.weight": torch.randn(3, 2).bfloat16(), "model.layers.0.down.weight": torch.randn(2, 3),
        "model.layers.11.up.weight": torch.zeros(1), "model.embed_tokens.weight": torch.arange(6).reshape(2, 3),
        "scale": torch.tensor(2.0),
    }  # fmt: skip
    save_file(dict(list(tensors.items())[:3]), tmp_path / "model-00001.safetensors", {"format": "pt"})
    save_file(dict(list(tensors.items())[3:]), tmp_path / "model-00002.safetensors")
    found: dict = {}

    class Runner:
        def reload_weights(self, weights_iterator):
            found.update(weights_iterator)

    loader = oneloop_inside.Loader()
    loader.model_runner = Runner()
    sent = oneloop_inside.digests(tmp_path)
    assert loader.oneloop_load(str(tmp_path)) == sent
    assert set(sent) == {"model.layers.0", "model.layers.11", "model.embed_tokens.weight", "scale"}
    assert found.keys() == tensors.keys() and all(torch.equal(found[name], tensors[name]) for name in tensors)
    tensors["model.layers.0.up.weight"][0, 0] += 1
    save_file(dict(list(tensors.items())[:3]), tmp_path / "model-00001.safetensors")
    now = oneloop_inside.digests(tmp_path)
    assert [name for name in sent if now[name] != sent[name]] == ["model.layers.0"]


@pytest.mark.parametrize("given", [None, "Bearer wrong", "Bearer ", "secret", "Bearer secret2", "bearer secret"])
@pytest.mark.parametrize("route", ["/health", "/v1/models", "/pause", "/collective_rpc", "/update_weights", "/nothing"])
def test_no_route_is_reached_without_the_key(given, route, monkeypatch) -> None:
    assert reached(monkeypatch, route, given) == (False, 401)
    assert reached(monkeypatch, route, "Bearer secret") == (True, 0)


def test_neither_is_a_websocket_and_a_server_may_still_start(monkeypatch) -> None:
    assert reached(monkeypatch, "/v1/realtime", None, "websocket") == (False, 1008)
    assert reached(monkeypatch, "", None, "lifespan") == (True, 0)


def reached(monkeypatch, route, given, kind="http") -> tuple[bool, int]:
    monkeypatch.setenv(oneloop_inside.KEY, "secret")
    calls, sent = [], []

    async def app(scope, receive, send):
        calls.append(scope)

    async def send(message):
        sent.append(message.get("status") or message.get("code") or 0)

    headers = [] if given is None else [(b"authorization", given.encode())]
    scope = {"type": kind, "path": route, "headers": headers}
    asyncio.run(oneloop_inside.Guard(app)(scope, None, send))
    return bool(calls), max(sent, default=0)


def test_the_key_stands_in_no_command_line(stand) -> None:
    _, engine = stand
    engine.generate([[5]], SAMPLING, [0])
    key = engine._server._key
    assert key not in " ".join(engine._server._process.args) and len(key) >= 32


def test_what_is_sent_is_json_without_nan(stand) -> None:
    _, engine = stand
    client = Client(engine._server.client.address, "")
    with pytest.raises(ValueError, match="JSON compliant"):
        client.json("POST", "/health", 1.0, {"value": float("nan")})
    with pytest.raises(Fault, match="401"):
        client.json("GET", "/health", 1.0)
    assert json.dumps({}) == "{}"


def test_greedy_answers_of_an_evaluation(stand) -> None:
    _, engine = stand
    assert engine.generate([[5]], Sampling(max_new_tokens=3, temperature=0.0), [0])[0].tokens
