"""Which sources the built page of the lab was made from: `python tests/lab/built.py` notes it, test_built.py asks."""

import hashlib
import json
from pathlib import Path

ROOT = Path(__file__).parents[2]
STATIC = ROOT / "src/oneloop/lab/static"
NOTE = STATIC / "built.json"
SOURCES = (
    "index.html",
    "package.json",
    "package-lock.json",
    "svelte.config.js",
    "tsconfig.json",
    "vite.config.ts",
    "src",
)


def now() -> dict[str, str]:
    """SHA-256 of the sources of the page, and of the files that were built of them."""
    web = ROOT / "web"
    sources = [
        path for name in SOURCES for path in ([web / name] if (web / name).is_file() else (web / name).rglob("*"))
    ]
    built = [path for path in STATIC.rglob("*") if path != NOTE]
    return {"sources": _digest(sources, web), "files": _digest(built, STATIC)}


def _digest(paths: list[Path], below: Path) -> str:
    digest = hashlib.sha256()
    for path in sorted(path for path in paths if path.is_file()):
        for part in (path.relative_to(below).as_posix().encode(), path.read_bytes()):
            digest.update(len(part).to_bytes(8, "big") + part)
    return digest.hexdigest()


if __name__ == "__main__":
    NOTE.write_text(json.dumps(now(), indent=1) + "\n", encoding="utf-8")
