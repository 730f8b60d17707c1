"""Killed at any moment and resumed, a run is the uninterrupted one: metrics, weights, order, random numbers."""

import json
import os
import shutil
import signal
import subprocess
import sys
from dataclasses import replace
from importlib.util import find_spec
from itertools import product
from pathlib import Path
from time import sleep

import pytest

from forked import Forked
from oneloop.config import Run, default_run
from oneloop.errors import CheckpointError, ConfigError
from oneloop.recipes.execute import execute
from oneloop.record.atomic import verify
from oneloop.record.reader import read_run
from same_run import metrics, recorded, weights
from spawned import once
from toy_models import Silent

STEPS = 6


@pytest.fixture(scope="module")
def policy(tmp_path_factory) -> str:
    """A saved model that the runs start from: a separate critic needs one."""
    out = tmp_path_factory.mktemp("start") / "sft"
    run = replace(default_run("sft"), out=str(out), steps=2, prompts_per_step=8, learning_rate=1e-3, data_size=20)
    execute(replace(run, eval_size=8), Silent())
    # graded, so that an untrained policy has groups with a spread, and its weights move
    (out / "digits.py").write_text(REWARD)
    return str(out / "final")


def graded(model: str) -> str:
    return f"{Path(model).parent / 'digits.py'}:share"


def small(algorithm: str, model: str, out: Path, **changes) -> Run:
    """10 rows in batches of 4: epochs end inside batches, and steps inside epochs."""
    run = replace(
        default_run(algorithm),
        model=model,
        data="task:addition",
        out=str(out),
        steps=STEPS,
        prompts_per_step=4,
        minibatch=2,
        max_tokens=60,
        max_new_tokens=5,
        learning_rate=1e-3,
        schedule="cosine",
        warmup=2,
        data_size=10,
        eval_size=8,
        eval_every=2,
        save_every=2,
        reward=() if algorithm in ("sft", "dpo", "reward_model") else (graded(model),),
    )
    return replace(run, **changes)


REWARD = """
def share(completions, **columns):
    return [sum(character.isdigit() for character in text) / 5 for text in completions]
"""


class Killed(Exception):
    """Stands for a death after some step."""


def killed_after(run: Run, step: int, monkeypatch) -> None:
    """Run until the record of `step` is written, and die there: after it, before or without its checkpoint."""
    from oneloop.record.writer import RunFolder

    write = RunFolder.scalars

    def dying(self, at: int, values) -> None:
        write(self, at, values)
        if at == step:
            raise Killed

    with monkeypatch.context() as patch:
        patch.setattr(RunFolder, "scalars", dying)
        with pytest.raises(Killed):
            execute(run, Silent())


needs_bitsandbytes = pytest.mark.skipif(find_spec("bitsandbytes") is None, reason="bitsandbytes is an extra")
CASES = [
    ("ppo", {"set": ("kl.adaptive=AdaptiveKL(target=0.01, horizon=50)",), "epochs": 2}),
    ("ppo", {"critic": "separate"}),
    ("grpo", {"group_size": 3}),
    ("trpo", {"learning_rate": 1e-6, "set": ("region.critic_steps=2",)}),
    ("trpo", {"learning_rate": 1e-6, "critic": "separate", "set": ("region.cg_iterations=3",)}),
    ("dapo", {"group_size": 3}),
    ("dpo", {}),
    ("sft", {}),
    ("reward_model", {}),
    ("sft", {"optimizer": "adafactor"}),
    pytest.param("ppo", {"critic": "separate", "optimizer": "adamw-8bit"}, marks=needs_bitsandbytes),
    ("grpo", {"lora": 4, "group_size": 3}),
    ("ppo", {"lora": 4, "critic": "separate"}),
    ("dpo", {"lora": 4}),
    ("reward_model", {"lora": 4, "lora_targets": ("q_proj", "v_proj")}),
]


@pytest.mark.parametrize(("algorithm", "changes"), CASES, ids=lambda value: str(value)[:30])
def test_resumed_equals_uninterrupted(policy, tmp_path, monkeypatch, algorithm, changes) -> None:
    whole = small(algorithm, policy, tmp_path / "whole", **changes)
    execute(whole, Silent())
    broken = replace(whole, out=str(tmp_path / "broken"), resume=True, accept_loss=True)
    # before the first checkpoint, after one, after the last but one; of most methods once, between two
    for step in (0, 2, 4) if algorithm == "grpo" else (2,):
        killed_after(broken, step, monkeypatch)
    execute(broken, Silent())
    assert metrics(tmp_path / "broken") == metrics(tmp_path / "whole")
    assert [row["step"] for row in metrics(tmp_path / "broken")] == list(range(STEPS))
    assert weights(tmp_path / "broken") == weights(tmp_path / "whole")
    assert recorded(tmp_path / "broken") == recorded(tmp_path / "whole")


FROM_HERE = """
import sys
import matplotlib.pyplot, pyarrow.dataset, scipy.stats
from pathlib import Path
from oneloop.recipes.execute import execute
from oneloop.config import Run
from oneloop.toml import read_recipe
class Silent:
    def say(self, text): pass
    def step(self, step, values): pass
for out in map(Path, sys.argv[1:]):
    execute(Run(**(read_recipe(out / "config.toml") | {"out": str(out), "resume": True})), Silent())
"""


ADAPTIVE = {"critic": "separate", "set": ("kl.adaptive=AdaptiveKL(target=0.01, horizon=50)",), "epochs": 2}
CHANGES = {"ppo": ADAPTIVE, "grpo": {"group_size": 3}, "dapo": {"group_size": 3}}
ADAPTERS = [{}, {"lora": 4}]


METHODS = ["sft", "reward_model", "ppo", "grpo", "dapo", "dpo"]
ENDED = 4
"""Steps of the runs that another process goes on with."""
KEPT = (1, 3)
"""Steps of the checkpoints that it goes on from."""


def place(home: Path, algorithm: str, adapters: dict) -> Path:
    return home / "-".join([algorithm, *adapters])


def resumed(home: Path, policy: str) -> None:
    """Each method's run, and beside it one from each of its checkpoints, which one other process has gone on with."""
    folders = []
    for algorithm, adapters in product(METHODS, ADAPTERS):
        whole = place(home, algorithm, adapters) / "whole"
        changes = CHANGES.get(algorithm, {}) | adapters
        changes |= {"steps": ENDED, "save_every": 1, "keep_checkpoints": ENDED}
        execute(small(algorithm, policy, whole, **changes), Silent())
        for kept in KEPT:
            folders.append(whole.parent / ("a" * 7 * kept) / "run")
            shutil.copytree(whole, folders[-1])
            shutil.rmtree(folders[-1] / "final")
            for later in range(kept + 1, ENDED + 1):
                shutil.rmtree(folders[-1] / "checkpoints" / f"step_{later:06d}")
    environment = os.environ | {"OMP_NUM_THREADS": "1", "MALLOC_ARENA_MAX": "1"}
    line = [sys.executable, "-c", FROM_HERE, *map(str, folders)]
    done = subprocess.run(line, capture_output=True, text=True, env=environment, timeout=300)
    assert done.returncode == 0, done.stderr


@pytest.mark.parametrize("adapters", ADAPTERS, ids=["all weights", "adapters"])
@pytest.mark.parametrize("algorithm", METHODS)
def test_a_checkpoint_resumes_to_the_same_bits_in_another_process(
    policy, tmp_path_factory, algorithm, adapters
) -> None:
    """Other modules loaded first, one arena of malloc, and a folder at a path of another length."""
    home = place(once(tmp_path_factory, "resumed", lambda home: resumed(home, policy)), algorithm, adapters)
    for kept in KEPT:
        folder = home / ("a" * 7 * kept) / "run"
        assert metrics(folder) == metrics(home / "whole")
        assert weights(folder) == weights(home / "whole")


def test_another_seed_is_another_run(policy, tmp_path) -> None:
    """The comparison above can fail."""
    for seed in (0, 1):
        execute(small("grpo", policy, tmp_path / str(seed), group_size=3, seed=seed, steps=2), Silent())
    assert metrics(tmp_path / "0") != metrics(tmp_path / "1")
    assert weights(tmp_path / "0") != weights(tmp_path / "1")


def command(run: Run) -> list[str]:
    flags = [
        "--model",
        run.model,
        "--data",
        run.data,
        "--out",
        run.out,
        "--steps",
        str(run.steps),
        "--resume",
        "--accept-loss",
    ]
    flags += ["--prompts-per-step", "4", "--minibatch", "2", "--max-new-tokens", "5", "--learning-rate", "1e-3"]
    flags += ["--data-size", "10", "--eval-size", "8", "--eval-every", "2", "--save-every", "1", "--group-size", "3"]
    flags += ["--reward", graded(run.model)]
    return ["-m", "oneloop", "train", run.algorithm, *flags]


def test_sigkill_at_odd_moments(policy, tmp_path) -> None:
    """kill −9 of the real command right after its first, a sixth and a later step; then again until it is done."""
    run = small("grpo", policy, tmp_path / "broken", steps=30)
    whole = replace(run, out=str(tmp_path / "whole"))
    done = Forked(command(whole), tmp_path)
    done.communicate(timeout=300)
    assert done.returncode == 0
    kills = 0
    for lines in (0, 5, 16):  # killed as soon as the record holds that many steps
        process = Forked(command(run), tmp_path)
        record = tmp_path / "broken" / "metrics.jsonl"
        while process.poll() is None and (not record.exists() or record.read_bytes().count(b"\n") <= lines):
            sleep(0.003)
        if process.poll() is None:
            os.killpg(process.pid, signal.SIGKILL)
            kills += 1
        process.communicate(timeout=60)
    done = Forked(command(run), tmp_path)
    told, _ = done.communicate(timeout=300)
    assert done.returncode == 0 and kills == 3 and "resuming at step" in told
    assert metrics(tmp_path / "broken") == metrics(tmp_path / "whole")
    assert weights(tmp_path / "broken") == weights(tmp_path / "whole")


@pytest.mark.parametrize(("signum", "code"), [(signal.SIGTERM, 143), (signal.SIGINT, 130)])
def test_a_signal_saves_and_stops(policy, tmp_path, signum, code) -> None:
    run = small("grpo", policy, tmp_path / "run", steps=400)
    line = [word if word != "1" else "0" for word in command(run)]  # no checkpoint but the one the signal asks for
    process = Forked(line, tmp_path)
    record = tmp_path / "run" / "metrics.jsonl"
    while process.poll() is None and (not record.exists() or not record.read_bytes()):
        sleep(0.01)
    process.send_signal(signum)
    _, errors = process.communicate(timeout=60)
    assert process.returncode == code
    assert "--resume" in errors and "Traceback" not in errors
    info = json.loads((tmp_path / "run" / "run.json").read_text())
    assert info["status"] == "stopped"
    done = len(record.read_text().splitlines())
    assert (tmp_path / "run" / "checkpoints" / f"step_{done:06d}" / "manifest.json").is_file()


def test_resuming_another_run_or_other_data_is_refused(policy, tmp_path) -> None:
    data = tmp_path / "data.jsonl"
    rows = [json.dumps({"prompt": f"{n}+1=", "completion": str(n + 1)}) for n in range(8)]
    data.write_text("\n".join(rows))
    run = small("sft", policy, tmp_path / "run", data=str(data), eval_data="", steps=2, resume=True)
    execute(run, Silent())
    with pytest.raises(ConfigError, match="learning_rate"):
        execute(replace(run, learning_rate=2e-3), Silent())
    with pytest.raises(ConfigError, match="bend the cosine schedule"):
        execute(replace(run, steps=4), Silent())
    data.write_text("\n".join(rows[1:]))
    with pytest.raises(ConfigError, match="not those"):
        execute(run, Silent())
    assert json.loads((tmp_path / "run" / "run.json").read_text())["status"] == "finished", "refused, not harmed"


def contents(folder: Path) -> dict[str, tuple[bytes, int]]:
    """Every byte, and when it was written."""
    files = (path for path in folder.rglob("*") if path.is_file())
    return {str(path.relative_to(folder)): (path.read_bytes(), path.stat().st_mtime_ns) for path in files}


def test_a_finished_run_says_so_and_stays_as_it_is(policy, tmp_path) -> None:
    run = small("dpo", policy, tmp_path / "run", steps=2, resume=True, schedule="constant")
    execute(run, Silent())
    before, again = contents(tmp_path / "run"), Silent()
    execute(run, again)
    assert any("nothing to train" in line for line in again.lines)
    with pytest.raises(ConfigError, match=r"has 2 finished steps, and --steps 1 is before that\. Fix: --steps 2 or"):
        execute(replace(run, steps=1), Silent())
    assert contents(tmp_path / "run") == before
    final = tmp_path / "run" / "final" / "model.safetensors"
    final.write_bytes(final.read_bytes()[:-1])
    execute(run, Silent())
    assert contents(tmp_path / "run")["final/model.safetensors"][0] == before["final/model.safetensors"][0]
    execute(replace(run, steps=3), Silent())
    assert [row["step"] for row in metrics(tmp_path / "run")] == [0, 1, 2]


def torn(out: Path) -> None:
    (out / "run.json").write_text('{"status": "runn')


def missing(out: Path) -> None:
    (out / "run.json").unlink()


def a_broken_line(out: Path) -> None:
    """The same number of bytes, as where a disk gives back another block."""
    file = out / "metrics.jsonl"
    first, second, *rest = file.read_bytes().splitlines(keepends=True)
    file.write_bytes(first + b"?" * (len(second) - 1) + b"\n" + b"".join(rest))


def a_line_less(out: Path) -> None:
    """What `sed -i 2d` leaves."""
    file = out / "metrics.jsonl"
    first, _, *rest = file.read_bytes().splitlines(keepends=True)
    file.write_bytes(first + b"".join(rest))


def zeros(out: Path) -> None:
    """A block that a machine without power never wrote."""
    with (out / "metrics.jsonl").open("ab") as file:
        file.write(b'{"step": 3, "ti' + b"\0" * 512)


@pytest.mark.parametrize("damage", [torn, missing, a_broken_line, a_line_less, zeros], ids=lambda one: one.__name__)
def test_a_damaged_record_does_not_end_a_run(policy, tmp_path, monkeypatch, damage) -> None:
    whole = small("sft", policy, tmp_path / "whole")
    execute(whole, Silent())
    broken = replace(whole, out=str(tmp_path / "broken"), resume=True)
    killed_after(broken, 4, monkeypatch)
    damage(tmp_path / "broken")
    watcher = Silent()
    if damage is a_line_less:
        with pytest.raises(CheckpointError, match=r"lines that belong to the run are gone\. Fix: .*--accept-loss"):
            execute(broken, watcher)
    execute(replace(broken, accept_loss=damage is a_line_less), watcher)
    assert weights(tmp_path / "broken") == weights(tmp_path / "whole")
    lost = damage in (a_broken_line, a_line_less)
    steps = [row["step"] for row in read_run(tmp_path / "broken").metrics]
    assert steps == [step for step in range(STEPS) if step != 1 or not lost]
    assert any("A_RECORD" in line and "metrics.jsonl" in line for line in watcher.lines) == lost
    info = json.loads((tmp_path / "broken" / "run.json").read_text())
    assert info["status"] == "finished" and info["checkpoint"] == STEPS


def test_a_torn_run_json_does_not_let_other_data_in(policy, tmp_path, monkeypatch) -> None:
    data = tmp_path / "data.jsonl"
    data.write_text("".join(json.dumps({"prompt": f"{n}+1=", "completion": str(n + 1)}) + "\n" for n in range(8)))
    run = small("sft", policy, tmp_path / "run", data=str(data), eval_data="", resume=True)
    killed_after(run, 4, monkeypatch)
    torn(tmp_path / "run")
    data.write_text(data.read_text().replace("1+1=", "3+3="))
    with pytest.raises(ConfigError, match="not those"):
        execute(run, Silent())


@pytest.mark.parametrize("again", [{}, {"resume": True}], ids=["new", "resumed"])
def test_a_run_that_failed_before_step_0_blocks_no_corrected_command(policy, tmp_path, monkeypatch, again) -> None:
    """It failed when everything was there: the folder, the loggers, the best model so far."""
    run = small("sft", policy, tmp_path / "run", steps=2, keep_best=True)
    with monkeypatch.context() as patch:
        patch.setattr("oneloop.recipes.execute.train", lambda *_, **__: 1 / 0)
        with pytest.raises(ZeroDivisionError):
            execute(run, Silent())
    assert (tmp_path / "run" / "best").is_dir()
    execute(replace(run, learning_rate=2e-3, **again), Silent())
    assert read_run(tmp_path / "run").config["learning_rate"] == 2e-3


@pytest.mark.parametrize("piece", ["resume/state.json", "resume/optimizer.safetensors", "policy/config.json"])
def test_a_piece_that_neither_folder_nor_manifest_has_is_no_fresh_start(policy, tmp_path, monkeypatch, piece) -> None:
    run = small("sft", policy, tmp_path / "run", resume=True, save_every=1)
    killed_after(run, 3, monkeypatch)
    newest = tmp_path / "run" / "checkpoints" / "step_000003"
    manifest = json.loads((newest / "manifest.json").read_text())
    del manifest[piece]
    (newest / "manifest.json").write_text(json.dumps(manifest))
    watcher = Silent()
    with pytest.raises(CheckpointError, match=r"is not in manifest"):
        verify(newest)
    (newest / piece).unlink()
    execute(run, watcher)
    assert any("step_000003" in line and "is needed" in line and "falling back" in line for line in watcher.lines)


def test_a_damaged_checkpoint_falls_back_to_the_one_before(policy, tmp_path, monkeypatch) -> None:
    whole = small("grpo", policy, tmp_path / "whole", group_size=3)
    execute(whole, Silent())
    broken = replace(whole, out=str(tmp_path / "broken"), resume=True)
    killed_after(broken, 4, monkeypatch)
    newest = tmp_path / "broken" / "checkpoints" / "step_000004" / "policy" / "model.safetensors"
    content = bytearray(newest.read_bytes())
    content[-1] ^= 1
    newest.write_bytes(bytes(content))
    watcher = Silent()
    execute(broken, watcher)
    assert any("step_000004" in line and "falling back" in line for line in watcher.lines)
    assert metrics(tmp_path / "broken") == metrics(tmp_path / "whole")
