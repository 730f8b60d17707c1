"""What an evaluation leaves on disk."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

from oneloop.errors import ConfigError
from oneloop.recipes.agent_exam import AgentExam
from oneloop.recipes.evaluate import Evaluation, Exam
from oneloop.recipes.measured import Difference, Score
from oneloop.record.atomic import new_folder
from oneloop.record.place import check_place
from oneloop.record.table import rollout_table


def save_evaluation(
    out: Path, exam: Exam | AgentExam, evaluations: Sequence[Evaluation], differences: Sequence[Difference] = ()
) -> None:
    """results.json, and a table of completions for each model, in the layout of a run's rollouts.

    Raises: ConfigError for a folder that holds anything: results belong to one command.
    """
    from pyarrow import parquet  # noqa: PLC0415  # slow to load

    check_out(out)
    with new_folder(out) as temporary:
        for place, evaluation in enumerate(evaluations):
            if evaluation.items:
                table = rollout_table(0, evaluation.items)
                parquet.write_table(table, temporary / ("against.parquet" if place else "completions.parquet"))
        results = {
            "exam": asdict(exam),
            "models": [
                {
                    "model": each.model,
                    "kind": each.kind,
                    "notes": each.notes,
                    "scores": [_plain(s) for s in each.scores],
                }
                for each in evaluations
            ],
            "differences": [_plain(difference) for difference in differences],
        }
        (temporary / "results.json").write_text(json.dumps(results, indent=1), encoding="utf-8")


def check_out(out: Path) -> None:
    check_place(out)
    if out.exists() and not (out.is_dir() and not any(out.iterdir())):
        raise ConfigError(f"--out {out} is there already. Fix: another folder, or rm -r {out}")


def _plain(value: Score | Difference) -> Mapping[str, Any]:
    return asdict(value) | {"interval": None if value.interval is None else list(value.interval)}
