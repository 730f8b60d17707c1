"""The memory bill: bytes worked out by hand, identities between bills, and a real run beside its plan."""

import json
import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from transformers import LlamaConfig

from oneloop.cli.main import run as command
from oneloop.config import Run, default_run
from oneloop.errors import ConfigError
from oneloop.plan.bill import HEAP_WASTE, Bill, Lengths, bill
from oneloop.plan.plan import compare, plan, text_of
from oneloop.plan.proposals import changes_of, proposals
from oneloop.plan.rehearsal import Cast, Ledger, size_of, weightless
from oneloop.plan.shapes import shapes_of
from oneloop.plan.standing import Standing
from oneloop.recipes.resolve import resolved
from toy_models import Silent

# hidden 8, 2 layers, 2 heads, intermediate 12, vocabulary 10
#   a layer:   q, k, v, o 4·8·8 = 256; gate, up, down 3·8·12 = 288; two norms 16            → 560
#   backbone:  embedding 10·8 = 80; 2·560 = 1120; last norm 8                               → 1208
#   policy:    backbone and an output embedding of 80                                       → 1288 parameters
BACKBONE, POLICY = 4 * 1208, 4 * 1288
LENGTHS = Lengths(prompt=6, answer=10)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A configuration, and nothing else."""
    path = tmp_path_factory.mktemp("model")
    settings: dict[str, Any] = {"hidden_size": 8, "intermediate_size": 12, "num_hidden_layers": 2, "vocab_size": 10}
    config = LlamaConfig(**settings, num_attention_heads=2, num_key_value_heads=2, tie_word_embeddings=False)
    config.architectures = ["LlamaForCausalLM"]
    config.save_pretrained(path)
    return path


def run_of(folder: Path, algorithm: str, **changes: Any) -> Run:
    small = {"prompts_per_step": 4, "minibatch": 0, "max_new_tokens": 10, "max_tokens": 32, "eval_size": 1}
    return replace(default_run(algorithm), model=str(folder), **(small | changes))


def billed(folder: Path, algorithm: str, **changes: Any) -> Bill:
    return bill(run_of(folder, algorithm, **changes), LENGTHS)


def standing(of: Bill) -> tuple[int, int]:
    """Weights and moments, which every phase holds."""
    (pair,) = {(phase.parts["weights"], phase.parts["optimizer"]) for phase in of.phases}
    return pair


@pytest.mark.parametrize(
    ("algorithm", "changes", "weights", "trained"),
    [
        ("sft", {}, POLICY, POLICY),
        ("dpo", {}, POLICY, POLICY),  # the reference is asked before step 0, and gone when training begins
        ("grpo", {}, 2 * POLICY, POLICY),
        ("grpo", {"set": ("kl=none",)}, POLICY, POLICY),
        ("dapo", {}, POLICY, POLICY),
        # V(s) = w·h + b: 8 + 1 parameters
        ("ppo", {}, 2 * POLICY + 36, POLICY + 36),
        # a backbone of its own with the same head
        ("ppo", {"critic": "separate"}, 2 * POLICY + BACKBONE + 36, POLICY + BACKBONE + 36),
        # the head has no bias, and there is no output embedding
        ("reward_model", {}, BACKBONE + 32, BACKBONE + 32),
    ],
)
def test_weights_and_moments_by_hand(
    folder: Path, algorithm: str, changes: dict[str, Any], weights: int, trained: int
) -> None:
    assert standing(billed(folder, algorithm, **changes)) == (weights, 2 * trained)


# adapters of rank 2, in a layer:   q, k, v, o 4·2·(8 + 8) = 128; gate, up, down 3·2·(8 + 12) = 120      → 248
ADAPTERS = 4 * 2 * 248


@pytest.mark.parametrize(
    ("algorithm", "changes", "weights", "trained"),
    [
        ("sft", {}, POLICY, 0),
        ("grpo", {}, POLICY, 0),  # the reference is the policy with its adapters off
        ("grpo", {"lora_targets": ("q_proj", "v_proj")}, POLICY - 4 * 2 * 184, -4 * 2 * 184),
        # the matrices that have adapters, in two bytes: 2 · (256 + 288)
        ("grpo", {"dtype": "bfloat16"}, POLICY - 2 * 1088, 0),
        ("ppo", {}, POLICY + 36, 36),
        # a second model with adapters of its own; a head is trained whole, beside the one it started from
        ("ppo", {"critic": "separate"}, POLICY + BACKBONE + 2 * 36 + ADAPTERS, 36 + ADAPTERS),
        ("reward_model", {}, BACKBONE + 2 * 32, 32),
    ],
)
def test_weights_and_moments_with_adapters_by_hand(
    folder: Path, algorithm: str, changes: dict[str, Any], weights: int, trained: int
) -> None:
    planned = billed(folder, algorithm, lora=2, **changes)
    assert standing(planned) == (weights + ADAPTERS, 2 * (trained + ADAPTERS))
    assert "reference" not in planned.table
    of_policy = planned.table["policy"]
    assert of_policy["optimizer"] == 2 * of_policy["gradients"] < of_policy["weights"]


def test_a_plan_proposes_adapters_where_they_can_be(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    run = run_of(folder, "grpo", prompts_per_step=1, group_size=2)

    def proposed(run: Run) -> list[str]:
        return [one.flag for one in proposals(run, LENGTHS) if one.flag.startswith("--lora")]

    assert proposed(run) == ["--lora 16"]
    assert proposed(replace(run, lora=4)) == [] == proposed(replace(run, model="scratch:tiny"))
    monkeypatch.setattr("oneloop.model.lora.find_spec", lambda name: None)
    assert proposed(run) == []
    with pytest.raises(ConfigError, match=r"--lora 2 needs peft.*pip install 'oneloop\[lora\]'"):
        billed(folder, "grpo", lora=2)


def test_the_table_names_every_model(folder: Path) -> None:
    table = billed(folder, "ppo", critic="separate", reward_model=str(folder)).table
    assert set(table) == {"policy", "critic", "reference", "reward model"}
    assert table["policy"]["gradients"] == POLICY and table["policy"]["optimizer"] == 2 * POLICY
    assert table["critic"]["gradients"] == BACKBONE + 36
    assert table["reference"] == {"weights": POLICY}
    assert table["reward model"] == {"weights": BACKBONE + 32}
    # 16 tokens a row, so 2 rows of 10 actions in a pass of 32: 20 actions of 10 logits, 4 bytes each
    assert table["policy"]["log-prob chunk"] == 20 * 10 * 4
    # keys and values of 2 layers and 8 numbers, 4 bytes: 128 a token; 4 rows of 6 + 10 columns
    assert table["policy"]["KV cache"] == 128 * 4 * 16


def test_tied_embeddings_count_once(folder: Path, tmp_path: Path) -> None:
    settings = json.loads((folder / "config.json").read_text())
    (tmp_path / "config.json").write_text(json.dumps(settings | {"tie_word_embeddings": True}))
    assert size_of(weightless(str(tmp_path))) == POLICY - 4 * 80


def test_without_kl_exactly_the_reference_goes(folder: Path) -> None:
    """Apart from the forward passes, whose loss has one term less."""
    full, less = (billed(folder, "grpo", set=changes) for changes in ((), ("kl=none",)))
    assert full.phases[0].bytes - less.phases[0].bytes == POLICY
    assert full.table.keys() - less.table.keys() == {"reference"}


def test_activations_grow_in_step_with_the_tokens_of_a_pass(folder: Path) -> None:
    """Merged matrices are kept once, everything else by token: twice the rows added, twice the bytes added."""
    # 16 tokens a row: passes of 2, 4 and 8 rows
    bills = [billed(folder, "sft", prompts_per_step=16, max_tokens=tokens) for tokens in (32, 64, 128)]
    two, four, eight = (each.table["policy"]["activations"] for each in bills)
    assert eight - four == pytest.approx(2 * (four - two), rel=0.02)


# linear layers of the policy: 2 layers of 256 + 288, and an output embedding of 80
LINEAR = 2 * 544 + 80


@pytest.mark.parametrize(("saved", "narrow"), [("float32", LINEAR), ("bfloat16", LINEAR + 80)])
def test_half_precision_halves_the_cache_and_what_nothing_trains(folder: Path, tmp_path, saved, narrow) -> None:
    """Of the reference, two of four bytes: of matrices, and of an embedding that was saved so. Not of the policy."""
    settings = json.loads((folder / "config.json").read_text())
    (tmp_path / "config.json").write_text(json.dumps(settings | {"dtype": saved}))
    wide, half = (billed(tmp_path, "grpo", dtype=dtype) for dtype in ("float32", "bfloat16"))
    assert standing(wide) == (2 * POLICY, 2 * POLICY)
    assert standing(half) == (2 * POLICY - 2 * narrow, 2 * POLICY)
    assert half.table["policy"]["weights"] == POLICY and half.table["reference"]["weights"] == POLICY - 2 * narrow
    assert half.table["policy"]["KV cache"] * 2 == wide.table["policy"]["KV cache"]
    scored = billed(tmp_path, "dapo", dtype="bfloat16", reward_model=str(tmp_path)).table
    # a backbone without the output embedding; its head stays wide
    assert scored["reward model"]["weights"] == BACKBONE + 32 - 2 * (narrow - 80)


def test_what_a_run_holds_is_what_was_planned(tmp_path: Path) -> None:
    """Bytes of the parameters of real models, loaded as a run loads them."""
    from transformers import AutoModelForCausalLM

    from oneloop.model.frozen import hold_in
    from oneloop.model.load import load_policy

    settings: dict[str, Any] = {"hidden_size": 8, "intermediate_size": 12, "num_hidden_layers": 2, "vocab_size": 10}
    config = LlamaConfig(**settings, num_attention_heads=2, num_key_value_heads=2, tie_word_embeddings=True)
    for dtype in (torch.float32, torch.bfloat16):
        source = tmp_path / str(dtype)
        AutoModelForCausalLM.from_config(config, dtype=dtype).save_pretrained(source)
        planned = billed(source, "grpo", dtype="bfloat16").table["reference"]["weights"]
        assert planned == size_of(hold_in(load_policy(source), torch.bfloat16))


@pytest.mark.parametrize(
    ("kind", "moments"), [("adamw", 2 * POLICY), ("adamw-8bit", 2 * POLICY), ("adafactor", 4 * 324)]
)
def test_optimizers_by_hand(folder: Path, kind: str, moments: int) -> None:
    """Every matrix here is too small for 8 bits. Adafactor has a number for each row and column, and each of a vector.

    a layer: q, k, v, o 4·16; gate, up, down 3·20; two norms 16: 140.  2·140; two embeddings 2·18; a norm 8: 324
    """
    assert standing(billed(folder, "dapo", optimizer=kind)) == (POLICY, moments)


@pytest.mark.parametrize("method,rows", [("sft", "own"), ("grpo", "shared")])
def test_a_gpu_has_no_heap_to_waste(folder: Path, method: str, rows: str) -> None:
    cpu, gpu = (billed(folder, method, device=device) for device in ("cpu", "cuda"))
    moment = "gradients and activations"
    assert gpu.phases[-1].parts["heap"] == 0
    assert cpu.phases[-1].parts["heap"] == int(HEAP_WASTE[rows] * cpu.phases[-1].parts[moment])


def test_what_autograd_keeps_is_what_a_real_pass_keeps(folder: Path) -> None:
    """The ledger beside real tensors: bytes of the storages that the real graph saves for backward."""
    from transformers import AutoConfig, AutoModelForCausalLM

    from oneloop.batch import Batch
    from oneloop.forward.reader import Backbone
    from oneloop.plan.bill import assumed_batch

    run = run_of(folder, "sft")
    batch: Batch = next(assumed_batch(run, resolved(run), LENGTHS).microbatches(32))
    real = AutoModelForCausalLM.from_config(AutoConfig.from_pretrained(folder), dtype=torch.float32).eval()
    own = {x.untyped_storage().data_ptr() for x in (*real.parameters(), *real.buffers())}
    kept: dict[int, int] = {}

    def keep(x: torch.Tensor) -> torch.Tensor:
        if x.untyped_storage().data_ptr() not in own and x.is_floating_point():
            kept[x.untyped_storage().data_ptr()] = x.untyped_storage().nbytes()
        return x

    with torch.autograd.graph.saved_tensors_hooks(keep, lambda x: x):
        states = Backbone(real, packs=True)(batch)
    cast = Cast(policy=weightless(str(folder)))
    ledger = Ledger(cast.policy)
    with ledger:
        planned = Backbone(cast.policy, packs=True)(batch)
    assert planned.flat.shape == states.flat.shape
    # the ledger also has what Python still holds: the last state, 32 tokens of 8 numbers
    assert ledger.live == pytest.approx(sum(kept.values()), rel=0.05)


def test_the_command_end_to_end(capsys: pytest.CaptureFixture[str]) -> None:
    assert command(["plan", "grpo", "--model", "scratch:tiny", "--max-tokens", "256", "--prompts-per-step", "4"]) == 0
    shown = capsys.readouterr().out
    assert "policy" in shown and "reference" in shown and "rollout" in shown and "update" in shown
    assert "fits: " in shown and " saves " not in shown


def test_what_does_not_fit_ends_with_3_and_says_what_would(capsys: pytest.CaptureFixture[str]) -> None:
    assert command(["plan", "sft", "--model", "scratch:tiny", "--available", "0.01", "--max-tokens", "128"]) == 3
    shown = capsys.readouterr().out
    assert "does not fit" in shown and "no single change is enough" in shown


def test_the_cheapest_change_that_fits(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Room for passes of half as many tokens, not for the whole: the first change that fits, not the largest saving."""
    run = run_of(folder, "sft", prompts_per_step=16, max_tokens=256)
    monkeypatch.setattr("oneloop.plan.plan.resident", lambda: 1000)
    whole, half, quarter = (bill(replace(run, max_tokens=tokens), LENGTHS).bytes for tokens in (256, 128, 64))
    assert whole > half > quarter
    roomy, tight, none = (
        plan(run, prompt=6, answer=10, available=(1000 + there) / 2**30) for there in (whole + 8, half + 8, 8)
    )
    assert roomy.fits and not tight.fits and not none.fits
    assert roomy.change is None, "nothing to look for, which takes a rehearsal each"
    assert not plan(run, prompt=6, answer=10, available=(whole + 8) / 2**30).fits, "the process was there before"
    assert tight.change is not None and tight.change.flag == "--max-tokens 128"
    assert none.change is not None and none.change.bill.bytes <= quarter


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--available", "much"], "--available much: wanted a positive number of GiB"),
        (["--prompt-tokens", "0"], "--prompt-tokens 0: wanted a positive whole number"),
        (["--against", "nowhere"], "nowhere is not a run folder"),
        (["--model", "./nowhere"], "--model ./nowhere"),
    ],
)
def test_what_is_wrong_is_named(arguments: list[str], message: str, capsys: pytest.CaptureFixture[str]) -> None:
    model = [] if "--model" in arguments else ["--model", "scratch:tiny"]
    assert command(["plan", "sft", *model, *arguments]) == 2
    assert message in capsys.readouterr().err


def test_a_separate_critic_of_a_model_from_nothing_is_refused() -> None:
    with pytest.raises(ConfigError, match="--critic shared"):
        plan(replace(default_run("ppo"), model="scratch:tiny", critic="separate"))


def test_a_real_run_beside_its_plan(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """A loose bound, since so small a model is mostly runtime. A process of its own has nothing to use again."""
    flags = ["sft", "--model", "scratch:tiny", "--prompts-per-step", "64", "--data-size", "64", "--eval-size", "8"]
    flags += ["--max-tokens", "512"]
    out = str(tmp_path / "run")
    subprocess.run([sys.executable, "-m", "oneloop", "train", *flags, "--steps", "2", "--out", out], check=True)
    rows = [json.loads(line) for line in (tmp_path / "run" / "memory.jsonl").read_text().splitlines()]
    assert command(["plan", *flags, "--against", out]) == 0
    kept = json.loads((Path(out) / "plan.json").read_text())
    assert kept["bytes"] == max(phase["bytes"] for phase in kept["phases"])
    assert all(phase["bytes"] == sum(phase["parts"].values()) for phase in kept["phases"])
    flags = {change["flag"]: change for change in kept["changes"]}
    assert {"--gradient-checkpointing", "--dtype bfloat16", "--max-tokens 256", "--max-tokens 1024"} <= flags.keys()
    assert flags["--max-tokens 1024"]["table"]["policy"]["activations"] > kept["table"]["policy"]["activations"]
    shown = capsys.readouterr().out
    assert "planned " in shown and "measured " in shown and "without the heap's holes" in shown
    run = replace(default_run("sft"), model="scratch:tiny", prompts_per_step=64, max_tokens=512, data_size=64)
    beside = compare(plan(run).bill, Path(out))
    assert beside.measured == max(row["peak_rss"] - row["start_rss"] for row in rows)
    assert 0.25 < beside.planned / beside.measured < 4 and beside.in_use < beside.planned
    assert kept["bytes"] == beside.planned and kept["table"]["policy"]["weights"] > 0 and kept["lengths"]["source"]


def peak_parts(of: Bill, name: str) -> dict[str, int]:
    return dict(next(phase.parts for phase in of.phases if phase.name == name))


# a layer 560; outside of layers an embedding, an output embedding and a norm: 168
LAYER, ROOT = 4 * 560, 4 * 168


@pytest.mark.parametrize(("shard", "gathered"), [("grad", POLICY), ("full", 2 * LAYER + ROOT)])
def test_ranks_share_out_by_hand(folder: Path, shard: Any, gathered: int) -> None:
    """Weights, gradients and moments by 4; what a pass needs whole beside them; a copy to sample from."""
    whole, part = billed(folder, "grpo", device="cuda"), billed(folder, "grpo", device="cuda", ranks=4, shard=shard)
    assert standing(part) == (2 * POLICY // 4, 2 * POLICY // 4)
    for phase in ("prepare", "update"):
        assert peak_parts(part, phase)["gathered weights"] == gathered
    assert {phase.parts["copy that samples"] for phase in part.phases} == {POLICY}
    table = part.table["policy"]
    assert (table["weights"], table["gradients"], table["optimizer"]) == (POLICY // 4, POLICY // 4, POLICY // 2)
    # gradients: a fourth, and whole those of a layer and of what is outside of layers, before they are added up
    moment = "gradients and activations"
    saved = peak_parts(whole, "update")[moment] - peak_parts(part, "update")[moment]
    assert saved == POLICY - POLICY // 4 - LAYER - ROOT
    assert peak_parts(whole, "prepare")["forward pass"] == peak_parts(part, "prepare")["forward pass"]
    # one of four prompts is sampled here
    assert part.table["policy"]["KV cache"] * 4 == whole.table["policy"]["KV cache"]


def test_replicas_share_out_samples_alone(folder: Path) -> None:
    one, four = (billed(folder, "grpo", device="cuda", ranks=ranks, eval_data="x") for ranks in (1, 4))
    assert standing(one) == standing(four) and one.phases[-1] == four.phases[-1]
    assert "copy that samples" not in four.phases[0].parts
    assert four.table["policy"]["KV cache"] * 4 == one.table["policy"]["KV cache"]


def test_what_vllm_samples_is_vllm_s_memory(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """No cache and no copy on the ranks; beside one of them it takes a part of that GPU."""
    monkeypatch.setattr("oneloop.plan.plan.installed", lambda device: 10**9)
    shared = {"device": "cuda", "ranks": 4, "shard": "full", "engine": "vllm"}
    part = billed(folder, "grpo", **shared)
    assert "KV cache" not in part.phases[0].parts and part.table["policy"]["KV cache"] == 0
    assert "copy that samples" not in part.phases[0].parts and part.elsewhere == POLICY
    assert billed(folder, "grpo", device="cuda", engine="vllm", lora=2).elsewhere == POLICY
    assert billed(folder, "grpo", device="cuda").elsewhere == billed(folder, "sft", device="cuda").elsewhere == 0
    for devices, there, says in ((), 6 * 10**8, "of which it takes 0.4"), ((4, 5), 10**9, "on 2 GPUs of its own"):
        run = run_of(folder, "grpo", **shared, vllm_devices=devices)
        planned = plan(run, prompt=6, answer=10)
        assert planned.available == there and says in text_of(run, planned)


def test_a_second_process_by_hand(folder: Path) -> None:
    """Its weights, cache and runtime; K + 1 copies on their way with `finish`, one with `continue`, whose rows meet."""
    turns = billed(folder, "grpo")
    finish = billed(folder, "grpo", staleness=2)
    go_on = billed(folder, "grpo", staleness=2, in_flight="continue")
    assert turns.beside == {} and turns.in_all == turns.bytes
    assert finish.beside["weights"] == go_on.beside["weights"] == POLICY
    assert finish.beside["weights on their way"] == 3 * POLICY and go_on.beside["weights on their way"] == POLICY
    cache = turns.table["policy"]["KV cache"]
    assert finish.beside["KV cache"] == cache and go_on.beside["KV cache"] == 3 * cache
    assert finish.in_all == finish.bytes + sum(finish.beside.values())
    # the trainer's own process is what it was, without sampling; what replaces dropped groups is sampled there
    assert finish.table["policy"]["KV cache"] == 0 and "KV cache" not in finish.phases[0].parts
    assert finish.phases[-1] == turns.phases[-1]
    assert finish.table["sampler"] == {"weights": POLICY, "KV cache": cache}
    assert billed(folder, "dapo", staleness=2).table["policy"]["KV cache"] == cache
    # vLLM's is another one
    assert billed(folder, "grpo", staleness=2, engine="vllm").beside == {}
    half = billed(folder, "grpo", staleness=1, dtype="bfloat16")
    assert half.beside["weights"] == POLICY and half.beside["KV cache"] == cache // 2
    gpu = billed(folder, "grpo", staleness=1, device="cuda")
    assert "weights on their way" not in gpu.beside and gpu.host == 2 * POLICY and gpu.beside["weights"] == POLICY
    shared = billed(folder, "grpo", staleness=1, device="cuda", ranks=4, shard="full", dtype="bfloat16")
    assert shared.beside["weights"] == POLICY and shared.host == 2 * POLICY // 2, "sent as the copy is held"


def test_whether_both_processes_fit(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    run = run_of(folder, "grpo", staleness=1, in_flight="continue", gradient_checkpointing=True, dtype="bfloat16")
    monkeypatch.setattr("oneloop.plan.plan.resident", lambda: 10**7)
    monkeypatch.setattr("oneloop.model.optimizer.find_spec", lambda name: None)
    needed = 2 * 10**7 + bill(run, LENGTHS).in_all
    roomy, tight = (plan(run, prompt=6, answer=10, available=there / 2**30) for there in (needed + 1, needed - 10**6))
    assert roomy.needed == needed and roomy.fits and not tight.fits
    text = text_of(run, roomy)
    assert "sampler " in text and "a second process, beside every phase" in text and "of each before it" in text
    assert tight.change is not None and tight.change.flag == "--staleness 0 --in-flight finish"


@pytest.mark.skipif(not Path("/proc/self/status").exists(), reason="looks at processes in /proc")
def test_a_real_second_process_beside_its_plan(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Weights that wait are as large as planned, and no more than planned; the process with a loose bound."""
    from oneloop.recipes.execute import execute
    from oneloop.rollout.beside.process import Sampler

    run = replace(default_run("grpo"), model="scratch:tiny", data="task:addition", out=str(tmp_path / "run"), steps=4)
    run = replace(run, prompts_per_step=2, group_size=4, max_new_tokens=8, data_size=8, eval_size=4, staleness=2)
    waiting: list[list[int]] = []
    resident: list[int] = []
    update = Sampler.update

    def seen(sampler: Sampler, version: int) -> None:
        update(sampler, version)
        waiting.append([path.stat().st_size for path in sampler._folder.glob("*.safetensors")])
        status = Path(f"/proc/{sampler._process.pid}/status").read_text()
        resident.append(1024 * int(next(line for line in status.splitlines() if "VmRSS" in line).split()[1]))

    monkeypatch.setattr(Sampler, "update", seen)
    execute(run, Silent())
    whole = plan(run)
    planned = whole.bill.beside
    sizes = [size for each in waiting for size in each]
    assert sizes and all(size == pytest.approx(planned["weights"], rel=0.01) for size in sizes)
    assert max(map(len, waiting)) * planned["weights"] <= planned["weights on their way"]
    own = whole.process + sum(planned.values()) - planned["weights on their way"]
    assert max(resident) > planned["weights"] and 0.25 < own / max(resident) < 4


def test_shares_that_rest_in_the_machine(folder: Path) -> None:
    there, away = (
        billed(folder, "grpo", device="cuda", ranks=4, shard="full", cpu_offload=offload) for offload in (False, True)
    )
    assert standing(away) == (0, 0) and there.host == 0 and away.host == sum(standing(there))
    moment = "gradients and activations"
    assert peak_parts(there, "update")[moment] - peak_parts(away, "update")[moment] == POLICY // 4
    assert there.table == away.table


def test_idle_models_count_in_the_phases_that_need_them(folder: Path) -> None:
    changes = {"critic": "separate", "reward_model": str(folder), "device": "cuda", "eval_data": "x"}
    at_home, idle = (billed(folder, "ppo", offload_idle=away, **changes) for away in (False, True))
    critic, reward = BACKBONE + 36, BACKBONE + 32
    everybody = 2 * POLICY + critic + reward
    assert standing(at_home) == (everybody, 2 * (POLICY + critic)) and at_home.host == 0
    found = {phase.name: (phase.parts["weights"], phase.parts["optimizer"]) for phase in idle.phases}
    assert found == {
        "rollout": (POLICY, 2 * POLICY),  # sampling holds more here than scoring
        "evaluate": (POLICY, 2 * POLICY),
        "prepare": (everybody - reward, 2 * (POLICY + critic)),
        "update": (POLICY + critic, 2 * (POLICY + critic)),
    }
    assert idle.host == POLICY + 3 * critic + reward
    run = run_of(folder, "ppo", offload_idle=True, **changes)
    scoring = Standing(run, resolved(run), shapes_of(run, resolved(run)), samples=True)("score")
    assert (scoring["weights"], scoring["optimizer"]) == (POLICY + reward, 2 * POLICY)
    on_cpu = billed(folder, "ppo", offload_idle=True, critic="separate")
    assert on_cpu.phases == billed(folder, "ppo", critic="separate").phases, "there is no other memory"


def test_what_changes_no_number_is_proposed_first(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("oneloop.model.optimizer.find_spec", lambda name: name)
    run = run_of(folder, "ppo", device="cuda", max_tokens=64, critic="separate")

    def flags(run: Run) -> list[str]:
        return [one.flag for one in proposals(run, LENGTHS)]

    assert flags(run) == [
        "--max-tokens 32", "--max-tokens 16", "--gradient-checkpointing", "--offload-idle", "--dtype bfloat16",
        "--optimizer adamw-8bit", "--ranks 2 --shard full", "--critic shared", "--lora 16", "--set kl=none",
        "--max-new-tokens 5",
    ]  # fmt: skip
    several = flags(replace(run, ranks=4))
    assert several[4:7] == ["--shard grad", "--shard full", "--shard full --cpu-offload"]
    assert "--ranks 8 --shard full" in several
    shared = flags(replace(run, ranks=4, shard="full", cpu_offload=True))
    assert not [flag for flag in shared if "shard grad" in flag or "offload" in flag]
    cpu = flags(replace(run, device="cpu"))
    assert not [flag for flag in cpu if "offload" in flag or "ranks" in flag]
    assert all(one.why for one in proposals(run, LENGTHS))
    monkeypatch.setattr("oneloop.model.optimizer.find_spec", lambda name: None)
    assert "--optimizer adamw-8bit" not in flags(run)


def test_a_run_that_saved_already_is_shown_what_it_saved(folder: Path) -> None:
    run = run_of(folder, "grpo", lora=2, lora_targets=("q_proj",), gradient_checkpointing=True, dtype="bfloat16")
    run = replace(run, optimizer="adafactor", reward_model=str(folder))
    flags = [one.flag for one in changes_of(run, LENGTHS)]
    assert flags[-6:] == [
        "--reward-model ''", "--lora 0", "--no-gradient-checkpointing", "--dtype float32", "--optimizer adamw",
        "--max-tokens 64",
    ]  # fmt: skip


def test_several_changes_where_no_single_one_is_enough(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Each kind once, on top of the others, until it fits."""
    run = run_of(folder, "sft", prompts_per_step=16, max_tokens=32, device="cuda")
    monkeypatch.setattr("oneloop.model.optimizer.find_spec", lambda name: None)
    half = replace(run, max_tokens=16)
    both = replace(half, gradient_checkpointing=True)
    single = min(bill(one.run, one.lengths).bytes for one in proposals(run, LENGTHS))
    enough = bill(both, LENGTHS).bytes
    assert enough < single
    planned = plan(run, prompt=6, answer=10, available=(enough + 1) / 2**30)
    assert planned.change is not None and planned.change.flags == ("--max-tokens 16", "--gradient-checkpointing")
    assert planned.change.bill.bytes == enough
    assert "no single change is enough; together: --max-tokens 16 --gradient-checkpointing" in text_of(run, planned)


def test_ranks_on_one_machine_share_its_memory(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("oneloop.plan.plan.installed", lambda device: 2**33)
    of = {
        (device, ranks): plan(run_of(folder, "sft", device=device, ranks=ranks), prompt=6, answer=10)
        for device in ("cpu", "cuda")
        for ranks in (1, 4)
    }
    assert [of[key].available for key in of] == [2**33, 2**31, 2**33, 2**33]
    text = text_of(run_of(folder, "sft", ranks=4), of["cpu", 4])
    assert "at the peak of each of 4 ranks" in text
