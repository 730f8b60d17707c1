"""The machine as far as it explains a speed: processor, vector units, caches, memory."""

from __future__ import annotations

import os
import platform
from pathlib import Path
from typing import Any

import torch

CACHES = Path("/sys/devices/system/cpu/cpu0/cache")
VECTORS = ("avx2", "avx512f", "avx512_bf16", "amx_bf16", "asimd", "sve")


def machine() -> dict[str, Any]:
    cpu = Path("/proc/cpuinfo")
    flags = set(_field(cpu, "flags").split()) | set(_field(cpu, "Features").split())
    return {
        "cpu": _field(cpu, "model name") or platform.processor(),
        "vendor": _field(cpu, "vendor_id"),
        "vectors": [name for name in VECTORS if name in flags],
        "torch_uses": torch.backends.cpu.get_cpu_capability(),
        "caches": caches(),
        "cores": os.cpu_count(),
        "memory": _field(Path("/proc/meminfo"), "MemTotal"),
        "system": platform.platform(),
        "threads": 1,
    }


def caches() -> dict[str, str]:
    """Sizes of the first core's caches, as the kernel names them: L1 for data, L2, L3."""
    found: dict[str, str] = {}
    for folder in sorted(CACHES.glob("index*")):
        kind, level, size = (_text(folder / name) for name in ("type", "level", "size"))
        if kind in ("Data", "Unified"):
            found[f"L{level}"] = size
    return found


def _text(path: Path) -> str:
    return path.read_text().strip() if path.is_file() else ""


def _field(path: Path, name: str) -> str:
    if path.is_file():
        for line in path.read_text().splitlines():
            if line.partition(":")[0].strip() == name:
                return line.partition(":")[2].strip()
    return ""
