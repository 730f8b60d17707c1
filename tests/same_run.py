"""What two runs have in common that are the same run: every number that no clock decides, every byte of tables."""

import json
from hashlib import sha256
from pathlib import Path

WALL_CLOCK = ("time", "tokens_per_second")
TABLES = ("rollouts", "ratios", "tokens", "pairs")


def metrics(out: Path, name: str = "metrics.jsonl") -> list[dict[str, float]]:
    rows = [json.loads(line) for line in (out / name).read_text().splitlines()]
    return [{name: value for name, value in row.items() if not name.startswith(WALL_CLOCK)} for row in rows]


def recorded(out: Path) -> dict[str, bytes]:
    """Tables of completions, ratios, tokens and pairs, and the counts of ratios, byte for byte."""
    files = [out / "ratios.jsonl", *(path for name in TABLES for path in (out / name).glob("*"))]
    return {str(path.relative_to(out)): path.read_bytes() for path in files if path.exists()}


def weights(out: Path) -> str:
    return digest(out / "final" / "model.safetensors")


def digest(file: Path) -> str:
    return sha256(file.read_bytes()).hexdigest()
