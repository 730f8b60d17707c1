"""The checkpoints of a run folder, by number, and how one goes."""

from __future__ import annotations

import os
import re
import shutil
from pathlib import Path

from oneloop.errors import CheckpointError, DiskError
from oneloop.record.atomic import new_folder, remove_folder, verify

_NAME = re.compile(r"step_(\d{6,})")


def checkpoint_path(run: Path, done: int) -> Path:
    """Where the checkpoint of so many finished steps lies."""
    return run / "checkpoints" / f"step_{done:06d}"


def checkpoints(run: Path) -> list[tuple[int, Path]]:
    """Finished steps and folder of each that is there, whole or not, in order; links and other names are none."""
    place = run / "checkpoints"
    try:
        with os.scandir(place) as entries:
            names = [entry.name for entry in entries if entry.is_dir(follow_symlinks=False)]
    except OSError:
        return []
    return sorted((int(found[1]), place / name) for name in names if (found := _NAME.fullmatch(name)))


def thin_out(run: Path, newest: int, full: int, weights: int) -> None:
    """Keep `full` checkpoints, the newest included, and of `weights` more the policy alone; older ones go.

    One with a higher number than `newest` is damaged and was passed over. It is not counted, and stays.
    """
    older = [path for done, path in checkpoints(run) if done < newest]
    left = older[: max(len(older) - (full - 1), 0)]
    gone = max(len(left) - weights, 0)
    for path in left[:gone]:
        remove_folder(path)
    for path in left[gone:]:
        if (path / "resume").exists():
            _to_weights(path)


def _to_weights(path: Path) -> None:
    """The folder with its policy alone, whose files are not copied where the file system has hard links.

    A damaged one stays as it is: a new manifest would call it whole.
    """
    try:
        verify(path)
    except CheckpointError:
        return
    with new_folder(path) as temporary:
        shutil.copytree(path / "policy", temporary / "policy", copy_function=_linked)


def _linked(source: str, target: str) -> None:
    try:
        os.link(source, target, follow_symlinks=False)
    except OSError:
        shutil.copy2(source, target, follow_symlinks=False)


def check_room(place: Path, needed: float, what: str) -> None:
    """Raises: DiskError where the disk has less room than `needed`, in bytes."""
    while not place.exists():
        place = place.parent
    facts = os.statvfs(place)
    free = facts.f_bavail * facts.f_frsize
    if free < needed:
        raise DiskError(
            f"{what} wants {needed / 1e9:,.3f} GB on the disk of {place}, which has {free / 1e9:,.3f} GB free. "
            "Fix: make room, or --out on another disk"
        )
