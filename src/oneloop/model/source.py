"""Whether there is a model of a name at all, asked before torch or transformers are loaded."""

from __future__ import annotations

import json
import os
from difflib import get_close_matches
from functools import cache
from pathlib import Path
from threading import Thread
from urllib.error import HTTPError
from urllib.request import Request, urlopen

from oneloop.errors import ConfigError

PATIENCE = 5.0
"""Seconds that the hub may take to answer at all."""
CONFIGURATIONS = ("config.json", "adapter_config.json")


LONGEST = 250
"""Characters of a name without a folder in it that a file system or a hub allows."""


def check_source(source: str | Path, flag: str = "--model") -> None:
    """A folder with a configuration, a model that the cache has, or a hub that answers.

    A hub that cannot be reached is not asked again by this process where the cache can stand in for it.

    Raises: ConfigError saying which of them is missing, with the nearest name there is.
    """
    name, folder = str(source), Path(source)
    if name.startswith("scratch:"):
        return
    if max(map(len, name.split("/"))) > LONGEST:
        raise ConfigError(
            f"{flag} has {len(name)} characters: {name[:40]}… Fix: a folder with config.json, or a hub id"
        )
    if folder.is_dir():
        return _check_folder(folder, flag)
    if folder.is_absolute() or name.startswith((".", "~")) or name.count("/") > 1:
        raise ConfigError(
            f"{flag} {source}: no such folder.{_near(folder)} Fix: a folder with config.json, or a hub id"
        )
    import huggingface_hub.constants as hub  # noqa: PLC0415  # only those who name a hub id wait for it

    cached = _cached(name)
    if hub.HF_HUB_OFFLINE:
        if not cached:
            raise ConfigError(
                f"{flag} {name}: no such folder here, HF_HUB_OFFLINE=1 is set, and it is not in "
                f"HF_HOME={hub.HF_HOME}.{_nearest(name)} Fix: unset HF_HUB_OFFLINE, or {flag} FOLDER"
            )
    elif not reachable(hub.ENDPOINT):
        if not cached:
            raise ConfigError(
                f"{flag} {name}: no such folder here, {hub.ENDPOINT} cannot be reached, and it is not in "
                f"HF_HOME={hub.HF_HOME}.{_nearest(name)} Fix: look at the network, or {flag} FOLDER"
            )
        hub.HF_HUB_OFFLINE = True


def _check_folder(folder: Path, flag: str) -> None:
    if env := environment_of(folder):
        raise ConfigError(
            f"{flag} {folder} holds an agent of {env}, and no language model. Fix: its returns are measured by oneloop "
            f"eval --model {folder} --env {env}"
        )
    if any((folder / name).is_file() for name in CONFIGURATIONS):
        return
    final = folder / "final"
    if (final / "config.json").is_file():
        raise ConfigError(f"{flag} {folder} is a run folder; its model is in {final}. Fix: {flag} {final}")
    if (folder / "run.json").is_file():
        raise ConfigError(
            f"{flag} {folder} is a run folder without final/: that run did not finish. Fix: go on with it by --resume, "
            f"or {flag} {folder}/checkpoints/STEP/policy"
        )
    raise ConfigError(f"{flag} {folder}: the folder has no config.json. Fix: a folder with config.json, or a hub id")


def architecture_of(folder: str | Path) -> str:
    """The first class that config.json names; "" where there is no such file here, or it names none."""
    try:
        config = json.loads((Path(folder) / "config.json").read_text(encoding="utf-8"))
        return str(config["architectures"][0])
    except (OSError, ValueError, KeyError, IndexError, TypeError):
        return ""


def environment_of(folder: str | Path) -> str:
    """Gymnasium's name of the environment that an agent was trained in; "" where config.json is not an agent's."""
    try:
        config = json.loads((Path(folder) / "config.json").read_text(encoding="utf-8"))
        return str(config["env"]) if "spaces" in config else ""
    except (OSError, ValueError, KeyError, TypeError):
        return ""


@cache
def reachable(endpoint: str) -> bool:
    """Whether anything answers there within `PATIENCE`, refusals included. Asked once in a process."""
    answered: list[bool] = []

    def ask() -> None:
        try:
            with urlopen(Request(endpoint, method="HEAD"), timeout=PATIENCE):
                answered.append(True)
        except HTTPError:
            answered.append(True)
        except (OSError, ValueError):
            answered.append(False)

    # looking up a name has no time limit of its own
    thread = Thread(target=ask, daemon=True)
    thread.start()
    thread.join(PATIENCE)
    return answered == [True]


def _cached(name: str) -> bool:
    from huggingface_hub import try_to_load_from_cache  # noqa: PLC0415
    from huggingface_hub.errors import HFValidationError  # noqa: PLC0415

    try:
        return any(isinstance(try_to_load_from_cache(name, file), str) for file in CONFIGURATIONS)
    except HFValidationError:
        raise ConfigError(f"--model {name}: neither a folder nor a name that a hub could have") from None


def _nearest(name: str) -> str:
    """The model in the cache with the most alike name."""
    import huggingface_hub.constants as hub  # noqa: PLC0415

    cache_folder = Path(hub.HF_HUB_CACHE)
    folders = os.listdir(cache_folder) if cache_folder.is_dir() else []
    there = [one.removeprefix("models--").replace("--", "/") for one in folders if one.startswith("models--")]
    near = get_close_matches(name, there, 1)
    return f" Nearest local: {near[0]}." if near else ""


def _near(folder: Path) -> str:
    there = [one.name for one in folder.parent.iterdir() if one.is_dir()] if folder.parent.is_dir() else []
    near = get_close_matches(folder.name, there, 1)
    return f" There is: {folder.parent / near[0]}." if near else ""
