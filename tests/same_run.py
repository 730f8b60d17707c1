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


def differs(whole: Path, out: Path) -> str:
    """In what two finished runs differ; empty if in nothing."""
    for name in ("metrics.jsonl", "eval.jsonl"):
        if (one := metrics(whole, name)) != (other := metrics(out, name)):
            odd = next((a, b) for a, b in zip([*one, None], [*other, None], strict=False) if a != b)
            return f"{name}: {odd[0]} became {odd[1]}"
    one, other = recorded(whole), recorded(out)
    if odd := [name for name in one.keys() | other.keys() if one.get(name) != other.get(name)]:
        return f"{sorted(odd)[0]} is another table"
    one, other = tensors(whole), tensors(out)
    if odd := [name for name in one.keys() | other.keys() if one.get(name) != other.get(name)]:
        return f"{sorted(odd)[0]} has other bits"
    return ""


def tensors(out: Path) -> dict[str, str]:
    """Hashes of the weights at the end, and of the weights and moments of the last checkpoint."""
    folders = [out / "final", out / "adapter", max((out / "checkpoints").glob("step_*"))]
    files = [file for folder in folders for file in folder.rglob("*.safetensors")]
    return {str(file.relative_to(out)): digest(file) for file in files}
