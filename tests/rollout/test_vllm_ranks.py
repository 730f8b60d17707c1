"""Ranks that share one server: each draws its own completions, weights go over once, and what fails, fails on all."""

from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from oneloop.config import Run
from oneloop.errors import ConfigError, EngineError
from oneloop.recipes.sampler import _devices, _flags
from oneloop.rollout.vllm.in_flight import InFlight
from oneloop.rollout.vllm.server import Elsewhere, OfRank0
from toy_models import on_ranks
from vllm_stand import PROMPTS, SAMPLING, Trainer, fake_python, server_in

GENERATE = "/inference/v1/generate"


@pytest.fixture(scope="module")
def wanted(tmp_path_factory):
    """What one rank draws, from its first weights and from its second."""
    trainer = Trainer()
    engine = trainer.engine(server_in(tmp_path_factory.mktemp("alone")))
    first = engine.generate(PROMPTS, SAMPLING, list(range(8)))
    trainer.weight = 0.75
    engine.update(1)
    second = engine.generate(PROMPTS, SAMPLING, list(range(8)))
    engine.close()
    return first, second


def own(rank, engine, finished=lambda place, completion: None):
    """Of a rank: every second prompt, under its number."""
    mine = list(range(rank, len(PROMPTS), 2))
    return dict(zip(mine, engine.generate([PROMPTS[n] for n in mine], SAMPLING, mine, finished), strict=True))


def together(folder, work, monkeypatch, fault=""):
    """`work(rank, trainer, engine)` on two ranks."""
    monkeypatch.setenv("FAKE_FAULT", fault)
    python = fake_python(folder)

    def body(rank, world):
        trainer = Trainer(crew=world)
        engine = trainer.engine(server_in(folder, python=python))
        try:
            return work(rank, trainer, engine)
        finally:
            engine.close()

    return on_ranks(2, body)


def both(found):
    """The completions of both ranks, by prompt."""
    return [(found[0] | found[1])[number] for number in range(len(PROMPTS))]


def ended(engine, begun):
    """Waited for as the thread that trains does."""
    with ThreadPoolExecutor(1) as pool:
        return engine.until(pool.submit(begun, lambda place, completion: None))


def twice(rank, trainer, engine):
    """What a rank draws before and after an update."""
    before = own(rank, engine)
    trainer.weight = 0.75
    engine.update(1)
    return before, own(rank, engine), engine, trainer.told


def test_ranks_draw_from_one_server_what_one_rank_draws(tmp_path, wanted, monkeypatch) -> None:
    asked = []

    def work(rank, trainer, engine):
        before, after, engine, told = twice(rank, trainer, engine)
        asked.append((engine._server.client.address, engine._server.client.key, engine._server.name))
        return before, after, engine._server, told

    found = together(tmp_path, work, monkeypatch)
    assert both([one[0] for one in found]) == wanted[0] and both([one[1] for one in found]) == wanted[1]
    assert {completion.version for one in found for completion in one[1].values()} == {1}
    assert asked[0] == asked[1] and found[0][3] == found[1][3] == []
    first, second = found[0][2], found[1][2]
    assert isinstance(second, OfRank0) and first._process.poll() is not None, "rank 0 ended it"
    text = (tmp_path / "vllm.log").read_text() if (tmp_path / "vllm.log").exists() else ""
    assert asked[0][1] not in text + asked[0][2]


FAULTS = {
    "/collective_rpc:500:1:3": "/collective_rpc answered 500",
    "/collective_rpc:stale:1:3": r"answers as other weights would: .* 0.5 nats",
    "/update_weight_version:other:1:1": "it has weights .*7777",
    f"{GENERATE}:die:5:5": "(?s)exit code 9.*out of memory",
    f"{GENERATE}:500:5:": "answered 500",
}
"""What befalls a server amid an update or the draws: 4 completions a rank and the probe are sound."""


@pytest.mark.parametrize("order", FAULTS)
def test_what_befalls_the_server_is_mended_for_all_or_ends_all_with_one_error(
    order, tmp_path, wanted, monkeypatch
) -> None:
    if not order.endswith(":"):
        found = together(tmp_path, twice, monkeypatch, order)
        assert both([one[0] for one in found]) == wanted[0] and both([one[1] for one in found]) == wanted[1]
        assert len(found[0][3]) == 1 and found[0][3] == found[1][3], "started again once, and all know"

    def work(rank, trainer, engine):
        with pytest.raises(EngineError, match=FAULTS[order]) as failure:
            twice(rank, trainer, engine)
        return str(failure.value)

    (tmp_path / "counts").unlink(missing_ok=True)
    one, other = together(tmp_path, work, monkeypatch, order.rpartition(":")[0] + ":")
    assert one == other and "the vLLM server at http://127.0.0.1:" in one and "Fix:" in one


@pytest.mark.parametrize("fault", ["", f"{GENERATE}:400:1:"])
def test_a_rank_that_fails_by_itself_leaves_nobody_waiting(fault, tmp_path, monkeypatch) -> None:
    """Beside a server that is sound, and beside one that is not, which is not mended for a step that is lost."""

    def work(rank, trainer, engine):
        if rank == 1:
            with pytest.raises(ConfigError, match="exceed the model's context"):
                engine.generate([[5] * 60], SAMPLING, [0])
        elif fault:
            with pytest.raises(EngineError, match="answered 400"):
                own(rank, engine)
        else:
            assert len(own(rank, engine)) == 4
        return trainer.told

    assert together(tmp_path, work, monkeypatch, fault) == [[], []]


def test_what_fails_beside_the_training_ends_the_step_and_not_the_order_of_calls(tmp_path, wanted, monkeypatch) -> None:
    """While each rank waits for its own they cannot meet to mend it, but an update can."""

    def work(rank, trainer, engine):
        beside, mine = InFlight(engine), list(range(rank, 8, 2))
        beside.generate([], SAMPLING, [])
        trainer.crew.collect([rank])
        begun = beside.begin([PROMPTS[n] for n in mine], SAMPLING, mine)
        failed = False
        try:  # all of a rank's answers may have come before the server died
            ended(beside, begun)
        except EngineError:
            failed = True
        trainer.weight = 0.75
        beside.update(1)
        begun = beside.begin([PROMPTS[n] for n in mine], SAMPLING, mine)
        drawn = dict(zip(mine, ended(beside, begun), strict=True))
        trainer.crew.collect([rank])  # whoever is done first must not end the server of the other
        return drawn, trainer.told, failed

    found = together(tmp_path, work, monkeypatch, f"{GENERATE}:die:1:1")
    assert both([one[0] for one in found]) == wanted[1]
    assert any(one[2] for one in found) and len(found[0][1]) == 1 and found[0][1] == found[1][1]


@pytest.mark.parametrize("takes", [True, False])
def test_ranks_share_a_server_that_somebody_else_started(takes, tmp_path, wanted, monkeypatch) -> None:
    """Rank 0 alone asks it whether it takes weights, and gives them; without routes all stay with the first ones."""
    monkeypatch.setenv("FAKE_FAULT", "" if takes else "/weight_info:404:2:")
    alone = Trainer().engine(server_in(tmp_path))
    alone.generate([[5]], SAMPLING, [0])
    client = alone._server.client

    def body(rank, world):
        trainer = Trainer(crew=world)
        engine = trainer.engine(Elsewhere(client.address, client.key if rank == 0 else "wrong", tmp_path / "w"))
        assert ("are NOT sent" in engine.note) is not takes
        before, after, engine, _ = twice(rank, trainer, engine)
        return before, after, engine.version

    found = on_ranks(2, body)
    alone.close()
    assert both([one[0] for one in found]) == wanted[0] and found[0][2] == found[1][2] == int(takes)
    after = both([one[1] for one in found])
    assert after == wanted[1] if takes else [c.tokens for c in after] == [c.tokens for c in wanted[0]]


@pytest.mark.skipif(not Path("/proc/self/environ").exists(), reason="looks at processes in /proc")
def test_a_server_gets_its_gpus_by_their_names(tmp_path, monkeypatch) -> None:
    """`--vllm-devices` counts as --device cuda:N does: in what CUDA_VISIBLE_DEVICES lists."""
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "GPU-a,GPU-b,4,5")
    run = Run(engine="vllm", device="cuda", ranks=2, vllm_devices=(2, 3))
    engine = Trainer().engine(server_in(tmp_path, flags=_flags(run), devices=_devices(run)))
    engine.generate([[5]], SAMPLING, [0])
    process = Path(f"/proc/{engine._server._process.pid}")
    environment, words = ((process / name).read_text().split("\0") for name in ("environ", "cmdline"))
    engine.close()
    assert "CUDA_VISIBLE_DEVICES=4,5" in environment
    assert words[words.index("--tensor-parallel-size") + 1] == "2" and "--gpu-memory-utilization" not in words


@pytest.mark.parametrize(
    ("changes", "seen", "devices", "share"),
    [
        (dict(device="cuda"), None, "", True), (dict(device="cuda:3"), None, "3", True),
        (dict(device="cuda:1"), "6,7", "7", True), (dict(device="cuda", vllm_devices=(1,)), None, "1", False),
        (dict(device="cuda", ranks=6, vllm_devices=(5, 6)), None, "5,6", True),
        (dict(device="cuda", ranks=6, vllm_devices=(6, 7)), "", "6,7", False),
    ],
)  # fmt: skip
def test_a_server_beside_a_rank_takes_a_share_of_its_gpu(changes, seen, devices, share, monkeypatch) -> None:
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)
    if seen is not None:
        monkeypatch.setenv("CUDA_VISIBLE_DEVICES", seen)
    run = Run(engine="vllm", **changes)
    assert _devices(run) == devices and ("--gpu-memory-utilization" in _flags(run)) is share
