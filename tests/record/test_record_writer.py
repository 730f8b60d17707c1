"""The run folder while it is written."""

import json
import os
import signal
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest
import tomli_w

from oneloop.errors import CheckpointError, ConfigError, DiskError
from oneloop.record import writer
from oneloop.record.reader import read_run
from oneloop.record.writer import RunFolder, check_out, remove_run, untrained
from oneloop.types import Completion, Prompt, Reward, StopReason, Trajectory


def start(path: Path, *, resume: bool = False, config: str = 'algorithm = "grpo"\n') -> RunFolder:
    return RunFolder.open(path, resume=resume, config_text=config, facts={"seed": 7, "steps": 9})


def trajectory(sample: int = 0, text: str = "4", parts: dict | None = None, value: float | None = 1.0) -> Trajectory:
    return Trajectory(
        prompt=Prompt(id="0", text="2+2=", tokens=(1, 2)),
        group=0,
        sample=sample,
        completion=Completion(tokens=(3, 4), logprobs=(-0.5, -0.1), stop=StopReason.EOS),
        text=text,
        reward=Reward(value=value, parts=parts or {}),
        advantage=0.25,
    )


def lines(path: Path) -> list[dict]:
    return [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]


def test_a_fresh_run(tmp_path):
    with start(tmp_path / "run") as folder:
        info = json.loads((folder.path / "run.json").read_text())
        assert info["status"] == "running" and info["seed"] == 7 and info["pid"] == os.getpid()
        assert {"host", "started", "heartbeat", "argv", "failure"} <= info.keys()
        assert {"oneloop", "python", "torch", "transformers"} <= info["versions"].keys()
        folder.finish("failed", "DivergedError: ∞")
    info = read_run(tmp_path / "run").info
    assert (info["status"], info["failure"]) == ("failed", "DivergedError: ∞")
    assert read_run(tmp_path / "run").config == {"algorithm": "grpo"}


def test_scalars_are_one_line_in_the_given_order_and_nan_is_null(tmp_path):
    with start(tmp_path / "run") as folder:
        folder.scalars(3, {"reward": 0.5, "loss": float("nan"), "kl": float("inf")})
        # no close and no flush by the caller: the line is there
        text = (folder.path / "metrics.jsonl").read_text()
    assert text.endswith("\n") and text.count("\n") == 1
    row = json.loads(text, parse_constant=lambda name: pytest.fail(f"{name} is not JSON"))
    assert list(row) == ["step", "time", "reward", "loss", "kl", "time/step"]
    assert (row["step"], row["reward"], row["loss"], row["kl"]) == (3, 0.5, None, None)


def test_a_step_is_written_once_also_after_resume(tmp_path):
    with start(tmp_path / "run") as folder:
        folder.scalars(3, {})
        with pytest.raises(RuntimeError, match="step 3 was written already"):
            folder.scalars(3, {})
    with start(tmp_path / "run", resume=True) as folder, pytest.raises(RuntimeError, match="step 2"):
        folder.scalars(2, {})


def test_a_metric_cannot_take_the_name_of_the_step(tmp_path):
    with start(tmp_path / "run") as folder, pytest.raises(RuntimeError, match="'step'"):
        folder.scalars(0, {"step": 5.0})


def test_existing_run_needs_resume(tmp_path):
    with start(tmp_path / "run", config="seed = 1\n") as folder:
        folder.scalars(0, {"reward": 1.0})
    with pytest.raises(ConfigError, match=r"--resume .* another --out, or --overwrite"):
        start(tmp_path / "run")
    with start(tmp_path / "run", resume=True, config="seed = 2\n") as folder:
        assert (folder.path / "config.toml").read_text() == "seed = 1\n"


def test_a_run_that_failed_before_its_first_step_was_done_makes_way(tmp_path):
    out = tmp_path / "run"
    with start(out, config="seed = 1\n") as folder:
        folder.event(0, "A_TEST", "of the first attempt")
        (out / "rollouts").mkdir()
        (out / "rollouts" / "step_000000.parquet").touch()
        folder.finish("failed", "no such device")
    assert json.loads((out / "run.json").read_text())["failure"] == "no such device"  # it stays to be read
    check_out(out, resume=False, overwrite=False)
    with start(out, config="seed = 2\n") as folder:
        assert (folder.path / "config.toml").read_text() == "seed = 2\n"
    assert not (out / "rollouts").exists() and (out / "events.jsonl").read_text() == ""


@pytest.mark.parametrize("kept", ["a step", "a checkpoint", "weights amid a step", "another file", "an end"])
def test_a_run_with_anything_in_it_stays(tmp_path, kept):
    out = tmp_path / "run"
    with start(out) as folder:
        if kept == "a step":
            folder.scalars(0, {"reward": 1.0})
        if kept == "a checkpoint":
            folder.saved(3)
        if kept == "weights amid a step":
            (out / "unfinished").mkdir()
        if kept == "another file":
            (out / "notes.txt").touch()
        folder.finish("finished" if kept == "an end" else "failed")
    with pytest.raises(ConfigError, match="holds a run already"):
        start(out)
    with pytest.raises(ConfigError, match="holds a run already"):
        check_out(out, resume=False, overwrite=False)
    check_out(out, resume=True, overwrite=False)
    check_out(out, resume=False, overwrite=True)


def test_resume_without_a_folder_starts_fresh(tmp_path):
    with start(tmp_path / "deep" / "run", resume=True) as folder:
        assert (folder.path / "config.toml").read_text() == 'algorithm = "grpo"\n'


def test_foreign_files_are_left_alone(tmp_path):
    (tmp_path / "thesis.tex").write_text("x")
    for resume in (False, True):
        with pytest.raises(ConfigError, match="holds files, but no run"):
            start(tmp_path, resume=resume)
    with pytest.raises(ConfigError, match="is a file"):
        start(tmp_path / "thesis.tex")
    with pytest.raises(ConfigError, match="not a run folder"):
        remove_run(tmp_path)
    assert [entry.name for entry in tmp_path.iterdir()] == ["thesis.tex"]


def test_killed_before_run_json_blocks_nobody(tmp_path):
    (tmp_path / ".lock").touch()
    (tmp_path / ".tmp-run.json-4711").write_text("{")
    start(tmp_path).close()


HOLDER = """
import sys, time
from pathlib import Path
from oneloop.record.writer import RunFolder
folder = RunFolder.open(Path(sys.argv[1]), resume=False, config_text="", facts={})
folder.scalars(0, {"reward": 1.0})
print("ready", flush=True)
time.sleep(60)
"""


def test_lock_of_another_process_and_its_end_by_kill(tmp_path):
    path = tmp_path / "run"
    with subprocess.Popen([sys.executable, "-c", HOLDER, str(path)], stdout=subprocess.PIPE, text=True) as holder:
        assert holder.stdout is not None and holder.stdout.readline() == "ready\n"
        for resume in (False, True):
            with pytest.raises(ConfigError, match=f"process {holder.pid} on .* since 20"):
                start(path, resume=resume)
        with pytest.raises(ConfigError, match="is being written"):
            remove_run(path)
        holder.send_signal(signal.SIGKILL)
    with start(path, resume=True) as folder:
        folder.scalars(1, {"reward": 2.0})
    assert read_run(path).series("reward") == ([0, 1], [1.0, 2.0])
    remove_run(path)
    assert not path.exists()


def test_two_in_one_process_are_refused_too(tmp_path):
    with start(tmp_path / "run"), pytest.raises(ConfigError, match="is being written"):
        start(tmp_path / "run", resume=True)


def test_rewind_to_a_checkpoint_cuts_lines_torn_tail_and_tables(tmp_path):
    path = tmp_path / "run"
    with start(path) as folder:
        for step in range(4):
            folder.scalars(step, {"reward": float(step)})
            folder.event(step, "A_X", f"at {step}")
            folder.trajectories(step, [trajectory()])
            if step == 1:
                position = folder.position()
    with (path / "metrics.jsonl").open("a") as file:
        file.write('{"step": 4, "rew')
    with start(path, resume=True) as folder:
        folder.rewind(position, 2)
        assert folder.position() == position
        folder.scalars(2, {"reward": 20.0})
    run = read_run(path)
    assert run.series("reward") == ([0, 1, 2], [0.0, 1.0, 20.0])
    assert [event["step"] for event in run.events] == [0, 1]
    assert run.rollout_steps() == [0, 1]


def test_rewind_to_nothing_empties_everything(tmp_path):
    with start(tmp_path / "run") as folder:
        folder.scalars(0, {})
        folder.event(0, "A_X", "x")
        folder.evaluation(0, {"eval/reward": 0.5})
        folder.trajectories(0, [trajectory()])
        folder.rewind({}, 0)
        assert folder.position() == {"metrics": 0, "events": 0, "memory": 0, "evaluations": 0}
        folder.scalars(0, {"reward": 1.0})
    run = read_run(tmp_path / "run")
    assert (len(run.metrics), run.events, run.evaluations, run.rollout_steps()) == (1, [], [], [])


def test_what_a_step_says_of_held_out_data_has_a_line_of_its_own(tmp_path):
    with start(tmp_path / "run") as folder:
        assert folder.evaluated is None
        folder.evaluation(0, {"eval/reward": 0.25})
        folder.scalars(0, {"reward": 1.0})
        assert folder.evaluated == (0, {"eval/reward": 0.25}), "a step without a measure leaves the last one"
        folder.scalars(1, {"reward": 1.0, "eval/reward": 0.5, "eval/loss": float("nan")})
        assert folder.evaluated[0] == 2
    found = lines(tmp_path / "run" / "eval.jsonl")
    assert [{key: value for key, value in row.items() if key != "time"} for row in found] == [
        {"done": 0, "eval/reward": 0.25},
        {"done": 2, "eval/reward": 0.5, "eval/loss": None},
    ]
    assert read_run(tmp_path / "run").evaluations == found


@pytest.mark.parametrize("position", [{"metrics": 10_000}, {"metrics": 5}])
def test_rewind_never_pads_and_never_cuts_inside_a_line(tmp_path, position):
    """ftruncate beyond the end would fill the file with zero bytes."""
    with start(tmp_path / "run") as folder:
        folder.scalars(0, {"reward": 1.0})
        before = (folder.path / "metrics.jsonl").read_bytes()
        with pytest.raises(CheckpointError, match="lines that belong to the run are gone"):
            folder.rewind(position, 1)
        assert (folder.path / "metrics.jsonl").read_bytes() == before


def test_a_record_that_lost_lines_goes_on_where_that_is_accepted(tmp_path):
    """As after `sed -i 2d`, where the line behind the checkpoint now ends where its own last line did."""
    with start(tmp_path / "run") as folder:
        for step in range(4):
            folder.scalars(step, {"reward": float(step), "eval/reward": 1.0})
            folder.event(step, "A_X", f"at {step}")
            if step == 2:
                position = folder.position()
    for name in ("metrics.jsonl", "eval.jsonl"):
        kept = (tmp_path / "run" / name).read_bytes().splitlines(keepends=True)
        (tmp_path / "run" / name).write_bytes(b"".join([kept[0], *kept[2:]]))
    with start(tmp_path / "run", resume=True) as folder:
        with pytest.raises(CheckpointError, match="--accept-loss"):
            folder.rewind(position, 3)
        assert [text.count("gone") for text in folder.rewind(position, 3, accept_loss=True)] == [1, 1]
        folder.scalars(3, {"reward": 9.0})
    run = read_run(tmp_path / "run")
    assert run.series("reward") == ([0, 2, 3], [0.0, 2.0, 9.0])
    assert [row["done"] for row in run.evaluations] == [1, 3]
    assert [event["code"] for event in run.events] == ["A_X"] * 3


def test_rewind_cuts_nothing_unless_every_file_is_long_enough(tmp_path):
    with start(tmp_path / "run") as folder:
        folder.scalars(0, {"reward": 1.0})
        position = folder.position()
        folder.scalars(1, {"reward": 1.0})
        with pytest.raises(CheckpointError, match=r"events\.jsonl has 0 bytes"):
            folder.rewind(position | {"events": 10}, 1)
    assert [row["step"] for row in lines(tmp_path / "run" / "metrics.jsonl")] == [0, 1]


def test_a_torn_line_does_not_run_into_the_next(tmp_path):
    start(tmp_path / "run").close()
    (tmp_path / "run" / "metrics.jsonl").write_text('{"step": 0, "time": 1}\n{"step": 1, "ti')
    with start(tmp_path / "run", resume=True) as folder:
        folder.scalars(1, {"reward": 1.0})
    assert [row["step"] for row in lines(tmp_path / "run" / "metrics.jsonl")] == [0, 1]


def test_full_disk_stops_metrics_but_leaves_whole_lines(tmp_path):
    """A real limit on the size of files, as a full disk would give: the line is written in part, then refused."""
    script = (
        "import resource, signal, sys\n"
        "from pathlib import Path\n"
        "from oneloop.record.writer import RunFolder\n"
        "folder = RunFolder.open(Path(sys.argv[1]), resume=False, config_text='', facts={})\n"
        "folder.scalars(0, {'reward': 1.0})\n"
        "signal.signal(signal.SIGXFSZ, signal.SIG_IGN)\n"
        "size = folder.position()['metrics']\n"
        "resource.setrlimit(resource.RLIMIT_FSIZE, (size + 9, size + 9))\n"
        "try:\n"
        "    folder.scalars(1, {'reward': 1.0})\n"
        "except OSError:\n"
        "    assert folder.position()['metrics'] == size\n"
        "    folder.close()\n"
        "    sys.exit(9)\n"
    )
    done = subprocess.run([sys.executable, "-c", script, str(tmp_path / "run")], check=False)
    assert done.returncode == 9
    assert [row["step"] for row in lines(tmp_path / "run" / "metrics.jsonl")] == [0]


@pytest.mark.parametrize("error", [OSError(28, "No space left on device"), ValueError("not a float")])
def test_a_table_that_cannot_be_written_is_an_alert(tmp_path, monkeypatch, error):
    def fails(*_):
        raise error

    monkeypatch.setattr(writer, "rollout_table", fails)
    with start(tmp_path / "run") as folder:
        folder.trajectories(3, [trajectory()])
    (event,) = read_run(tmp_path / "run").events
    assert (event["step"], event["code"]) == (3, "A_ROLLOUTS")
    assert str(error) in event["text"] and event["fix"]


def test_an_alert_that_cannot_be_written_either_is_a_warning(tmp_path, monkeypatch, caplog):
    def fails(*_):
        raise OSError(28, "No space left on device")

    with start(tmp_path / "run") as folder:
        monkeypatch.setattr(writer, "rollout_table", fails)
        monkeypatch.setattr(writer.Lines, "append", fails)
        folder.trajectories(3, [trajectory()])
        with pytest.raises(OSError, match="No space"):
            folder.scalars(3, {})
    assert "A_ROLLOUTS step 3" in caplog.text


def test_heartbeat_is_at_most_every_ten_seconds(tmp_path, monkeypatch):
    clock = [1000.0]
    monkeypatch.setattr(writer, "monotonic", lambda: clock[0])
    monkeypatch.setattr(writer, "time", lambda: clock[0])
    beats = []
    with start(tmp_path / "run") as folder:
        for step in range(24):
            clock[0] += 1
            folder.scalars(step, {})
            beats.append(json.loads((folder.path / "run.json").read_text())["heartbeat"])
    assert list(dict.fromkeys(beats)) == [1000.0, 1011.0, 1022.0]


def test_durations_are_those_of_a_clock_that_nobody_sets(tmp_path, monkeypatch):
    """The clock on the wall goes back an hour between two steps."""
    wall, steady = iter([5000.0, 1400.0] + [1400.0] * 20), iter(range(0, 100, 2))
    with start(tmp_path / "run") as folder:
        monkeypatch.setattr(writer, "monotonic", lambda: float(next(steady)))
        folder.rewind({}, 0)
        monkeypatch.setattr(writer, "time", lambda: next(wall))
        folder.scalars(0, {})
        folder.scalars(1, {})
    rows = lines(tmp_path / "run" / "metrics.jsonl")
    assert [row["time/step"] for row in rows] == [2.0, 2.0]


SECRET = "hf_C4n4ryC4n4ryC4n4ry"


def test_a_secret_stands_in_no_file(tmp_path, monkeypatch):
    monkeypatch.setenv("MY_API_KEY", "entirely-plain-words")
    monkeypatch.setattr(sys, "argv", ["oneloop", "--model", f"https://me:{SECRET}@hub/m", "--token", SECRET])
    folder = RunFolder.open(
        tmp_path / "run", resume=False, config_text=f'model = "https://me:{SECRET}@hub/m"\n', facts={"model": SECRET}
    )
    with folder:
        folder.event(0, "A_REWARD", f"401 for token={SECRET}", f"export HF_TOKEN={SECRET}")
        folder.finish("failed", f"KeyError: {SECRET}, entirely-plain-words")
    for file in (tmp_path / "run").rglob("*"):
        content = file.read_bytes()
        assert SECRET.encode() not in content and b"entirely-plain-words" not in content, file
    assert "[hidden]" in (tmp_path / "run" / "run.json").read_text()


@pytest.mark.parametrize("deed", ["deleted", "cut", "longer", "replaced", "a folder away", "another folder there"])
def test_what_others_do_to_the_folder_is_noticed_at_the_next_step(tmp_path, deed):
    out = tmp_path / "run"
    with start(out) as folder:
        folder.scalars(0, {"reward": 1.0})
        folder.check_whole()
        file = out / "metrics.jsonl"
        if deed == "deleted":
            file.unlink()
        elif deed == "cut":
            file.write_bytes(b"")
        elif deed == "longer":
            with file.open("a") as other:
                other.write("{}\n")
        elif deed == "replaced":
            copy = file.read_bytes()
            file.unlink()
            file.write_bytes(copy)
        else:
            out.rename(tmp_path / "away")
            if deed == "another folder there":
                start(out).close()
        with pytest.raises(DiskError, match=r"run( folder)?\S* .*(gone|another|somebody)"):
            folder.scalars(1, {"reward": 1.0})
        with pytest.raises(DiskError):
            folder.check_whole()
        folder.event(1, "A_X", "ends nothing")
        folder.finish("failed", "")
    if deed == "another folder there":
        assert json.loads((out / "run.json").read_text())["status"] == "running", "the other run's is left alone"


def test_last_words_on_a_full_disk(tmp_path, monkeypatch):
    """The disk refuses every file until the reserve is gone."""
    with start(tmp_path / "run") as folder:
        real, reserve = writer.write_text, tmp_path / "run" / writer.RESERVE
        assert reserve.stat().st_size == writer.RESERVED

        def full(path, text):
            if reserve.exists():
                raise OSError(28, "No space left on device")
            real(path, text)

        monkeypatch.setattr(writer, "write_text", full)
        folder.finish("failed", "No space left on device", 1)
    info = read_run(tmp_path / "run").info
    assert (info["status"], info["failure"]) == ("failed", "No space left on device")
    assert not reserve.exists()


def test_a_torn_run_json_and_what_starts_there_next(tmp_path):
    out = tmp_path / "run"
    with start(out) as folder:
        folder.scalars(0, {"reward": 1.0})
        for text in ("", "{", "[]", "\0" * 99):
            (out / "run.json").write_text(text)
            with pytest.raises(ConfigError, match="written by another process"):
                start(out, resume=True)
    for text in ("", "[1]", "{}"):
        (out / "run.json").write_text(text)
        with pytest.raises(ConfigError, match=r"holds a run already\. Fix: --resume"):
            start(out)
        with start(out, resume=True) as folder:
            assert read_run(out).info["status"] == "running" and folder.checkpoint == 0


@pytest.mark.parametrize(
    ("place", "said"),
    [("file/run", "is a file"), ("file", "is a file"), ("a\0b", "control character"), ("a\nb", "control character"),
     ("x" * 300, "300 bytes"), ("/".join(["y" * 200] * 21), "wanted at most 4000"), (".tmp-run", "temporary files")],
)  # fmt: skip
def test_where_no_run_folder_can_be(tmp_path, place, said):
    (tmp_path / "file").write_text("x")
    for opened in (start, lambda path: check_out(path, resume=True, overwrite=False)):
        with pytest.raises(ConfigError, match=said) as error:
            opened(tmp_path / place)
        assert len(str(error.value)) < 5000 and "\0" not in str(error.value)
    assert [entry.name for entry in tmp_path.iterdir()] == ["file"]


@pytest.mark.parametrize("name", ["metrics.jsonl", "rollouts", "checkpoints", "run.json", "checkpoints/step_000001"])
def test_nothing_is_written_through_a_link(tmp_path, name):
    with start(tmp_path / "run") as folder:
        folder.scalars(0, {"reward": 1.0})
    link, outside = tmp_path / "run" / name, tmp_path / "outside"
    link.parent.mkdir(exist_ok=True)
    if link.exists():
        link.rename(outside)
    else:
        outside.mkdir()
    link.symlink_to(outside)
    with pytest.raises(ConfigError, match=f"{name} is a link"):
        start(tmp_path / "run", resume=True)


def test_a_folder_that_cannot_be_written_is_one_message(tmp_path, monkeypatch):
    def full(path, text):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(writer, "write_text", full)
    with pytest.raises(DiskError, match=r"--out .*run cannot be written: No space left on device\. Fix: make room"):
        start(tmp_path / "run")


STARTS = """
import os, sys
from pathlib import Path
from oneloop.errors import ConfigError
from oneloop.record.writer import RunFolder, check_out
out, (ready, go) = Path(sys.argv[1]), os.pipe()
said, told = os.pipe()
for _ in range(100):
    if os.fork() == 0:
        os.close(go)
        os.read(ready, 1)
        try:
            check_out(out, resume=False, overwrite=False)
            folder = RunFolder.open(out, resume=False, config_text="", facts={})
            folder.scalars(0, {})
            os.write(told, b"won\\n")
            os.read(os.pipe()[0], 1)
        except ConfigError as error:
            words = str(error)
            os.write(told, b"lost\\n" if "is being written by" in words or "holds a run" in words else b"odd\\n")
        except BaseException as error:
            os.write(told, f"{error!r}\\n".encode())
        os._exit(0)
os.close(go)
heard = b""
while heard.count(b"\\n") < 100:
    heard += os.read(said, 1 << 16)
print(sorted(set(heard.decode().splitlines())), heard.count(b"won"))
os.killpg(0, 9)
"""


def test_of_a_hundred_starts_one_wins(tmp_path):
    done = subprocess.run(
        [sys.executable, "-c", STARTS, str(tmp_path / "run")], capture_output=True, text=True, timeout=120,
        start_new_session=True, check=False,
    )  # fmt: skip
    assert done.stdout == "['lost', 'won'] 1\n", done.stderr


def test_events_hold_any_text(tmp_path):
    with start(tmp_path / "run") as folder:
        folder.event(0, "A_X", 'line\nbreak "quoted" \u2028 \ud800', "fix")
    (event,) = read_run(tmp_path / "run").events
    assert event["text"] == 'line\nbreak "quoted" \u2028 \ud800' and event["fix"] == "fix"


def test_parquet_round_trip(tmp_path):
    items = [
        trajectory(0, "4", {"exact": 1.0, "format": None}),
        trajectory(1, "five\n\ud800", {"exact": 0.0, "format": 0.5}, value=None),
    ]
    updated = Completion(
        tokens=(4, 5, 6), logprobs=(-1.0,) * 3, stop=StopReason.EOS, version=2, changes=((1, 3), (2, 4))
    )
    items[1] = replace(items[1], completion=updated)
    with start(tmp_path / "run") as folder:
        folder.trajectories(3, items)
        folder.trajectories(4, [])
    run = read_run(tmp_path / "run")
    assert run.rollout_steps() == [3]
    first, second = run.rollouts(3)
    assert first == {
        "step": 3, "prompt": "2+2=", "completion": "4", "exact": 1.0, "format": None, "reward": 1.0,
        "advantage": 0.25, "group": 0, "sample": 0, "length": 2, "stop": "eos", "kept": True,
        "version": 0, "changes": "",
    }  # fmt: skip
    assert second["version"] == 2 and second["changes"] == "1:3 2:4"
    assert second["completion"] == "five\n\\ud800" and second["reward"] is None and second["format"] == 0.5
    assert [entry.name for entry in (run.path / "rollouts").iterdir()] == ["step_000003.parquet"]


def test_a_reward_called_like_a_column_does_not_replace_it(tmp_path):
    with start(tmp_path / "run") as folder:
        folder.trajectories(0, [trajectory(parts={"prompt": 0.5, "reward": 0.5})])
    (row,) = read_run(tmp_path / "run").rollouts(0)
    assert (row["prompt"], row["reward"]) == ("2+2=", 1.0)
    assert (row["rewards/prompt"], row["rewards/reward"]) == (0.5, 0.5)


def test_columns_keep_their_type_when_all_values_are_missing(tmp_path):
    from pyarrow import parquet

    with start(tmp_path / "run") as folder:
        folder.trajectories(0, [trajectory(parts={"exact": None}, value=None)])
        folder.trajectories(1, [trajectory(parts={"exact": 1.0})])
    schemas = [parquet.read_schema(tmp_path / "run" / "rollouts" / f"step_00000{step}.parquet") for step in (0, 1)]
    assert schemas[0].equals(schemas[1], check_metadata=False)


@pytest.mark.parametrize("value", ['x?token="abc"', r'graded?pattern=key="(\d+)"', 'X(key="abc")'])
def test_what_hides_a_key_leaves_settings_that_can_be_read(tmp_path, value) -> None:
    with start(tmp_path / "run", config=tomli_w.dumps({"data": value, "steps": 3})):
        pass
    config = read_run(tmp_path / "run").config
    assert config["steps"] == 3 and "[hidden]" in config["data"] and "abc" not in config["data"]


def test_ratios_that_are_gone_are_missed(tmp_path) -> None:
    with start(tmp_path / "run") as folder:
        folder.scalars(0, {"loss": 1.0})
        folder.traced(0, {}, {"counts": [1]})
        position = folder.position()
    (tmp_path / "run" / "ratios.jsonl").unlink()
    with start(tmp_path / "run", resume=True) as folder:
        with pytest.raises(CheckpointError, match=r"ratios\.jsonl.*are gone"):
            folder.rewind(position, 1)
        assert folder.rewind(position, 1, accept_loss=True) != []


def test_overwriting_takes_a_run_that_lost_its_run_json_and_nobody_elses_folder(tmp_path) -> None:
    with start(tmp_path / "run"):
        pass
    (tmp_path / "run" / "run.json").unlink()
    (tmp_path / "link").symlink_to(tmp_path / "run")
    remove_run(tmp_path / "link")
    assert not (tmp_path / "run").exists()
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "config.toml").write_text("a = 1\n")
    with pytest.raises(ConfigError, match="not a run folder"):
        remove_run(tmp_path / "mine")
    assert (tmp_path / "mine" / "config.toml").exists()


def test_a_kill_amid_the_first_files_of_a_run_blocks_nobody(tmp_path) -> None:
    with start(tmp_path / "run"):
        pass
    (tmp_path / "run" / "config.toml").rename(tmp_path / "run" / ".tmp-config.toml-123")
    assert untrained(tmp_path / "run")
    (tmp_path / "run" / "notes.txt").write_text("somebody's")
    assert not untrained(tmp_path / "run")
