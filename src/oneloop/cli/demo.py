"""`oneloop demo [--out DIR] [--seed N]`."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import nullcontext
from dataclasses import dataclass
from pathlib import Path

from oneloop.cli.parse import parse
from oneloop.errors import ConfigError, GateError
from oneloop.parallel import launch


@dataclass(frozen=True, kw_only=True)
class DemoFlags:
    """SFT → reward model → PPO, then GRPO, DAPO, RLOO and DPO from the same SFT policy, on a built-in task."""

    out: str = "runs/demo"
    """Folder for the runs and report.html; a demo that is there already is replaced."""
    seed: int = 0
    """Names every random number."""


def main(arguments: list[str]) -> int:
    flags = parse(DemoFlags, arguments, prog="oneloop demo")
    if launch.place() is not None:
        raise ConfigError("oneloop demo is one process; WORLD_SIZE names others. Fix: env -u WORLD_SIZE oneloop demo")
    out = Path(flags.out)
    _clear(out)
    import torch
    from rich.console import Console
    from rich.live import Live

    from oneloop.cli.stages import Stages
    from oneloop.recipes.demo import CAPTION, EXPECTED_SECONDS, HEADER, demo

    # a model this small gains nothing from a second thread, and one thread gives everyone the same numbers
    torch.set_num_threads(1)
    console = Console(highlight=False)
    if not console.is_terminal:
        console.width = 80
    stages = Stages(EXPECTED_SECONDS, console)
    with Live(stages, console=console, transient=True) if console.is_terminal else nullcontext():
        shown = demo(out, flags.seed, lambda name, run: stages.begin(name, run.steps))
        stages.end()
    console.print(results_table(CAPTION, HEADER, [result.cells() for result in shown.results]))
    for gate in shown.gates:
        console.print(str(gate), markup=False, soft_wrap=True)
    console.print(f"{shown.seconds:.0f} seconds; report: {shown.report}", markup=False, soft_wrap=True)
    failed = [gate.text for gate in shown.gates if not gate.passed]
    if failed:
        raise GateError("gate failed: " + "; ".join(failed))
    console.print(f"look at it: oneloop lab {out}", markup=False, soft_wrap=True)
    console.print(f'next: oneloop sample --model {out}/grpo/final "3+1-2="', markup=False, soft_wrap=True)
    return 0


def results_table(caption: str, header: Sequence[str], rows: Sequence[Sequence[str]]):
    """The numbers whole, whatever the width; the models' names break between words."""
    from rich.box import SIMPLE_HEAD
    from rich.table import Table

    table = Table(title=caption, title_justify="left", box=SIMPLE_HEAD, pad_edge=False, show_edge=False)
    for place, name in enumerate(header):
        table.add_column(name, no_wrap=place != 1)
    for row in rows:
        table.add_row(*row)
    return table


def _clear(out: Path) -> None:
    """Remove the runs of an earlier demo, and nothing else."""
    from oneloop.record.writer import remove_run

    if out.exists() and not out.is_dir():
        raise ConfigError(f"--out {out} is a file; wanted a folder")
    for name in ("sft", "reward_model", "ppo", "grpo", "dapo", "rloo", "dpo"):
        remove_run(out / name)
