"""`oneloop demo [--out DIR] [--seed N]`."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from oneloop.cli.parse import parse
from oneloop.errors import ConfigError, GateError
from oneloop.recipes.preflight import refuse_ranks


@dataclass(frozen=True, kw_only=True)
class DemoFlags:
    """SFT → reward model → PPO, then GRPO, DAPO, RLOO and DPO from the same SFT policy, on a built-in task."""

    out: str = "runs/demo"
    """Folder for the runs and report.html; a demo that is there already is replaced."""
    seed: int = 0
    """Names every random number."""


def main(arguments: list[str]) -> int:
    flags = parse(DemoFlags, arguments, prog="oneloop demo")
    refuse_ranks()
    out = Path(flags.out)
    _clear(out)
    import torch
    from rich.console import Console
    from rich.table import Table

    from oneloop.cli.terminal import Terminal
    from oneloop.recipes.demo import CAPTION, HEADER, demo

    # a model this small gains nothing from a second thread, and one thread gives everyone the same numbers
    torch.set_num_threads(1)
    console = Console(highlight=False)
    if not console.is_terminal:
        console.width = 140

    def observer(name: str, run):
        console.rule(name)
        return Terminal(run.steps, console, None, every=max(run.steps // 10, 1))

    shown = demo(out, flags.seed, observer)
    table = Table(*HEADER, title=CAPTION, title_justify="left")
    for result in shown.results:
        table.add_row(*result.cells())
    console.print(table)
    for gate in shown.gates:
        console.print(str(gate), markup=False, soft_wrap=True)
    console.print(f"{shown.seconds:.0f} seconds; report: {shown.report}", markup=False, soft_wrap=True)
    failed = [gate.text for gate in shown.gates if not gate.passed]
    if failed:
        raise GateError("gate failed: " + "; ".join(failed))
    console.print(f'next: oneloop sample --model {out}/grpo/final "3+1-2="', markup=False, soft_wrap=True)
    return 0


def _clear(out: Path) -> None:
    """Remove the runs of an earlier demo, and nothing else."""
    from oneloop.record.writer import remove_run

    if out.exists() and not out.is_dir():
        raise ConfigError(f"--out {out} is a file; wanted a folder")
    for name in ("sft", "reward_model", "ppo", "grpo", "dapo", "rloo", "dpo"):
        remove_run(out / name)
