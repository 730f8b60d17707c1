"""`kill -9` at random moments, and whether the run that is resumed is the one that nobody killed: `make chaos`.

Each of six methods, with and without adapters, is trained once in peace. Then it is started again and again in other
folders, killed there, resumed, killed, and at last left to finish: metrics, tables, and the hashes of the weights and
of the optimizer's moments must be those of the peaceful run. Nothing that a killed run started may outlive it.
"""

from __future__ import annotations

import os

# sums in one order on every x86 CPU, wherever the memory of a matrix begins: before torch is loaded
os.environ |= {"MKL_CBWR": "COMPATIBLE", "OMP_NUM_THREADS": "1", "HF_HUB_OFFLINE": "1"}

import argparse
import json
import signal
import sys
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from importlib import import_module
from pathlib import Path
from random import Random
from tempfile import mkdtemp
from time import monotonic, sleep
from uuid import uuid4

sys.path.insert(0, str(Path(__file__).parents[1]))

import torch
from transformers import LlamaForCausalLM

from oneloop.config import Run, default_run
from oneloop.model.save import save_policy
from oneloop.model.tiny import Scratch, character_tokenizer, scratch_config
from oneloop.recipes.execute import execute
from same_run import differs, metrics

STEPS = 6
IN_A_ROW = 3
"""Most kills of one run before it is left to finish."""
AT_THE_START = 0.1
"""Share of the kills before the run has its folder."""
GRACE = 20.0
"""Seconds in which everything that a killed run started must be gone."""
LIMIT = 300.0
"""Seconds after which a run hangs."""
MARK = "ONELOOP_CHAOS"
SAVES = (1, 2, 3)
SLOW = ("peft", "pyarrow.dataset", "pyarrow.parquet")
"""To import here, and in no fork again."""
REWARD = '''
def odd(completions, **columns):
    """Coarse, so that some groups have equal rewards and are drawn again."""
    return [float(sum(map(str.isdigit, text)) % 2) for text in completions]
'''
METHODS: dict[str, dict[str, object]] = {
    "sft": {},
    "reward_model": {},
    "ppo": {"critic": "separate", "set": ("kl.adaptive=AdaptiveKL(target=0.01, horizon=50)",), "epochs": 2},
    "grpo": {"group_size": 3},
    "dapo": {"group_size": 3},
    "dpo": {},
}


@dataclass(frozen=True)
class Case:
    """One way to train."""

    algorithm: str
    lora: int

    @property
    def name(self) -> str:
        return f"{self.algorithm}-adapters" if self.lora else self.algorithm

    def run(self, start: Path, out: Path) -> Run:
        """10 rows in batches of 4: epochs end inside batches, and steps inside epochs."""
        changes = {"lora": self.lora, **METHODS[self.algorithm]}
        if self.algorithm in ("ppo", "grpo", "dapo"):
            changes["reward"] = (f"{start / 'reward.py'}:odd",)
        run = replace(
            default_run(self.algorithm),
            model=str(start / "lesson" / "final"),
            data="task:addition",
            out=str(out),
            resume=True,
            accept_loss=True,
            steps=STEPS,
            prompts_per_step=4,
            minibatch=2,
            max_tokens=60,
            max_new_tokens=5,
            learning_rate=1e-2,
            schedule="cosine",
            warmup=2,
            data_size=10,
            eval_size=4,
            eval_every=2,
            save_every=1,
        )
        return replace(run, **changes)


CASES = [Case(algorithm, lora) for algorithm in METHODS for lora in (0, 2)]


@dataclass
class Started:
    """A run in a process of its own."""

    run: Run
    pid: int
    mark: str
    born: float = field(default_factory=monotonic)

    def alive(self) -> bool:
        return os.waitid(os.P_PID, self.pid, os.WEXITED | os.WNOHANG | os.WNOWAIT) is None

    def ready(self) -> bool:
        """Whether it has its folder."""
        try:
            return json.loads((Path(self.run.out) / "run.json").read_text())["pid"] == self.pid
        except (OSError, ValueError, KeyError):
            return False

    def until(self, true: Callable[[], bool]) -> float:
        """Seconds since its birth, when `true` is or when it has ended."""
        while self.alive() and not true():
            if monotonic() - self.born > LIMIT:
                os.kill(self.pid, signal.SIGKILL)
                raise Broken(f"{self.run.out}: still running after {LIMIT:g} seconds")
            sleep(0.001)
        return monotonic() - self.born

    def end(self) -> int:
        """Its exit code, negative for a signal; nothing that it started is left."""
        code = os.waitstatus_to_exitcode(os.waitpid(self.pid, 0)[1])
        until = monotonic() + GRACE
        while left := _marked(self.mark):
            if monotonic() > until:
                raise Broken(f"{self.run.out}: process {left[0]} outlived the run by {GRACE:g} seconds")
            sleep(0.01)
        return code


class Broken(Exception):
    """A promise that was not kept."""


def start(run: Run, fork: bool) -> Started:
    """Train in a child: the real command, or, seconds cheaper, a fork of this process with its modules loaded."""
    mark = uuid4().hex
    pid = os.fork()
    if pid:
        return Started(run, pid, mark)
    try:
        os.setsid()
        os.environ[MARK] = mark
        out = Path(run.out)
        log = os.open(out.with_name(f"{out.name}.log"), os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o666)
        os.dup2(log, 1)
        os.dup2(log, 2)
        if fork:
            execute(run, Told())
        else:
            recipe = out.with_name(f"{out.name}.toml")
            recipe.write_text(run.to_toml())
            # a recipe does not say for every later run that what is lost may be lost
            line = [sys.executable, "-m", "oneloop", "train", run.algorithm, "--recipe", str(recipe), "--accept-loss"]
            os.execv(sys.executable, line)
        os._exit(0)
    except BaseException as error:
        os.write(2, f"{type(error).__name__}: {error}\n".encode())
        os._exit(1)


class Told:
    """Implements `oneloop.recipes.watched.Observer`: all goes to the log."""

    def say(self, text: str) -> None:
        print(text, flush=True)

    def step(self, step: int, values: object) -> None: ...


def _marked(mark: str) -> list[int]:
    """Processes whose environment says that they descend from that start; a zombie has none."""
    found = []
    for folder in Path("/proc").glob("[0-9]*"):
        try:
            environment = (folder / "environ").read_bytes()
        except OSError:
            continue
        if f"{MARK}={mark}".encode() in environment:
            found.append(int(folder.name))
    return found


@dataclass(frozen=True)
class Peaceful:
    """The run that nobody killed."""

    run: Run
    birth: float
    """Seconds until it had its folder."""
    work: float
    """Seconds from there to its end."""


def in_peace(case: Case, start_from: Path, out: Path, fork: bool) -> Peaceful:
    run = case.run(start_from, out)
    child = start(run, fork)
    birth = child.until(child.ready)
    work = child.until(lambda: False) - birth
    _finished(child)
    _has_work(case, out)
    return Peaceful(run, birth, work)


def _finished(child: Started) -> None:
    if code := child.end():
        out = Path(child.run.out)
        log = out.with_name(f"{out.name}.log").read_text(errors="replace")
        raise Broken(f"{out}: ended with {code}: {log[-1500:]}")


def _has_work(case: Case, out: Path) -> None:
    """Raises: Broken where the case tests less than it says."""
    rows = metrics(out)
    if len({row.get("loss") for row in rows}) <= STEPS // 2:
        raise Broken(f"{case.name}: most steps have equal losses")
    if case.algorithm == "dapo" and not any(row["num_groups"] > 4 for row in rows):
        raise Broken(f"{case.name}: no group was drawn again")
    if case.algorithm == "ppo" and len({row["kl_coef"] for row in rows}) <= STEPS // 2:
        raise Broken(f"{case.name}: the KL coefficient stays")


@dataclass
class Kills:
    """Where runs were when they were killed."""

    wanted: int
    places: Counter[str] = field(default_factory=Counter)

    @property
    def done(self) -> int:
        return self.places.total()

    def note(self, out: Path) -> None:
        writing = any((out / "checkpoints").glob(".tmp-*"))
        steps = _steps(out)
        place = "amid a save" if writing else "before step 1" if steps == 0 else f"after step {steps}"
        self.places[place] += 1


def _steps(out: Path) -> int:
    """Steps that are recorded."""
    record = out / "metrics.jsonl"
    return record.read_bytes().count(b"\n") if record.exists() else 0


def torn(whole: Peaceful, out: Path, kills: Kills, rng: Random, fork: bool) -> None:
    """Kill a run up to so many times, let it finish, and compare."""
    run = replace(whole.run, out=str(out))
    for _ in range(min(rng.randint(1, IN_A_ROW), kills.wanted - kills.done)):
        child = start(replace(run, save_every=rng.choice(SAVES)), fork)
        if rng.random() < AT_THE_START:
            moment = whole.birth * rng.random()
        else:
            steps = rng.randrange(STEPS)
            since = child.until(lambda child=child, steps=steps: child.ready() and _steps(out) >= steps)
            moment = since + whole.work * rng.random() / STEPS
        child.until(lambda child=child, moment=moment: monotonic() - child.born >= moment)
        if not child.alive():  # it was faster than the peaceful one
            _finished(child)
            break
        os.kill(child.pid, signal.SIGKILL)
        if code := child.end():  # 0: it had just ended by itself
            if code != -signal.SIGKILL:
                raise Broken(f"{out}: ended with {code} while it was killed")
            kills.note(out)
    child = start(run, fork)
    child.until(lambda: False)
    _finished(child)
    if difference := differs(Path(whole.run.out), out):
        raise Broken(f"{out}: {difference}")


def begin(folder: Path) -> Path:
    """A reward, and a model that has learned when to end an answer: what every run starts from."""
    tokenizer = character_tokenizer()
    torch.manual_seed(0)
    model = LlamaForCausalLM(scratch_config(Scratch(hidden=16, layers=2, heads=2, context=64), tokenizer))
    save_policy(folder / "random", model, tokenizer)
    (folder / "reward.py").write_text(REWARD)
    lesson = replace(
        default_run("sft"), model=str(folder / "random"), data="task:addition", out=str(folder / "lesson"),
        steps=20, prompts_per_step=16, learning_rate=1e-2, data_size=64, eval_size=4,
    )  # fmt: skip
    child = start(lesson, fork=True)
    child.until(lambda: False)
    _finished(child)
    return folder


def chaos(kills: int, seed: int, folder: Path, fork: bool, cases: Sequence[Case] = CASES) -> Kills:
    """That many kills, dealt to the cases.

    Raises: Broken for the first run that is not the peaceful one; its folder stays.
    """
    for name in SLOW if fork else ():
        import_module(name)
    rng, counted = Random(seed), Kills(0)
    origin = begin(folder)
    for number, case in enumerate(cases):
        counted.wanted += kills // len(cases) + (number < kills % len(cases))
        (folder / case.name).mkdir()
        whole = in_peace(case, origin, folder / case.name / "whole", fork)
        before, torn_runs = counted.done, 0
        while counted.done < counted.wanted:
            torn(whole, folder / case.name / f"torn-{torn_runs}", counted, rng, fork)
            torn_runs += 1
        print(f"{case.name:<22}{counted.done - before:>4} kills in {torn_runs} runs, all equal", flush=True)
    return counted


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--kills", type=int, default=200)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--case", nargs="*", default=[], choices=[case.name for case in CASES], help="only these")
    parser.add_argument("--fork", action="store_true", help="forks of this process, seconds cheaper each")
    parser.add_argument("--folder", type=Path, help="where the runs are kept; left out, a new one below /tmp")
    options = parser.parse_args()
    folder = options.folder or Path(mkdtemp(prefix="chaos-"))
    chosen = [case for case in CASES if not options.case or case.name in options.case]
    try:
        kills = chaos(options.kills, options.seed, folder, options.fork, chosen)
    except Broken as broken:
        print(f"seed {options.seed}: {broken}", file=sys.stderr)
        return 1
    print(f"{kills.done} kills with seed {options.seed}: every run ended as the one that nobody killed")
    print("killed " + ", ".join(f"{place}: {count}" for place, count in sorted(kills.places.items())))
    return 0


if __name__ == "__main__":
    sys.exit(main())
