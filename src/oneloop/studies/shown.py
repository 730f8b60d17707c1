"""Results as the lab shows them: judged, every number written out. The package carries them; the lab needs no torch."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from oneloop.lab.studied import LIST
from oneloop.record.atomic import write_text
from oneloop.studies.judge import said
from oneloop.studies.pages import judged, load, sentence
from oneloop.studies.study import Panel, Result, Study


def shown(study: Study, result: Result) -> dict[str, Any]:
    return {
        "name": study.name,
        "title": study.title,
        "setting": study.setting,
        "claims": [
            {"text": claim.text, "source": claim.source, "verdict": verdict, "because": sentence(because)}
            for claim, (verdict, because) in zip(study.claims, judged(study, result), strict=True)
        ],
        "told": study.told(result.table),
        "panels": [_panel(key, panel) for key, panel in result.table.items()],
        "command": f"oneloop study {study.name}{' --quick' if result.quick else ''}",
        "seeds": list(result.seeds),
        "date": result.date,
        "seconds": result.seconds,
        "machine": dict(result.machine),
    }


def _panel(key: str, panel: Panel) -> dict[str, Any]:
    points = [
        {
            "series": point.series, "x": point.x, "mean": _rounded(point.mean), "low": _rounded(point.interval.low),
            "high": _rounded(point.interval.high), "said": said(point),
        }
        for point in panel.points
    ]  # fmt: skip
    return {
        "key": key, "quantity": panel.quantity, "axis": panel.axis, "x_scale": panel.x_scale, "y_scale": panel.y_scale,
        "series": list(panel.series), "points": points,
    }  # fmt: skip


def _rounded(value: float) -> float:
    """Six digits: enough for a picture, and the same on every machine."""
    return float(f"{value:.6g}")


def ship(studies: Mapping[str, Study], results: Path, folder: Path) -> None:
    """Writes what the lab shows of a folder of results: a file a study, and the list of all."""
    folder.mkdir(parents=True, exist_ok=True)
    lines = []
    for name, study in studies.items():
        facts = shown(study, load(results / f"{name}.json"))
        _write(folder / f"{name}.json", facts)
        claims = [{"text": claim["text"], "verdict": claim["verdict"]} for claim in facts["claims"]]
        lines.append({"name": name, "title": study.title, "claims": claims})
    _write(folder / LIST, {"studies": lines})


def _write(file: Path, value: Any) -> None:
    write_text(file, json.dumps(value, ensure_ascii=False, separators=(",", ":")) + "\n")
