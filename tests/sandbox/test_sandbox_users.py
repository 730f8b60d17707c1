"""The same walls for root and for a user, with namespaces and where the kernel refuses them."""

import json
import os
import shutil
import stat
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

import oneloop

HERE = Path(__file__).parent
USER = 54321
"""An id that has no account."""


@pytest.fixture(scope="module")
def anywhere() -> Iterator[Path]:
    """The package and the program, where every user can read them."""
    with tempfile.TemporaryDirectory(prefix="sandbox-users-") as name:
        folder = Path(name)
        package = Path(oneloop.__file__).parent
        for file in ("__init__.py", "errors.py"):
            (folder / "oneloop").mkdir(exist_ok=True)
            shutil.copy(package / file, folder / "oneloop")
        shutil.copytree(
            package / "sandbox", folder / "oneloop" / "sandbox", ignore=shutil.ignore_patterns("__pycache__")
        )
        for file in ("as_anybody.py", "confined_text.py"):
            shutil.copy(HERE / file, folder)
        for path in (folder, *folder.rglob("*")):
            path.chmod(0o755 if path.is_dir() else 0o644)
        yield folder


def interpreter_of_all() -> str:
    """One that every user may run: ours lies in the home of root in many containers."""
    for candidate in (sys._base_executable, "/usr/bin/python3"):  # pyright: ignore[reportAttributeAccessIssue]
        path = Path(candidate).resolve()
        if path.exists() and all(folder.stat().st_mode & stat.S_IXOTH for folder in (path, *path.parents)):
            asked = [str(path), "-c", "import sys; sys.exit(sys.version_info < (3, 11))"]
            if subprocess.run(asked).returncode == 0:
                return str(path)
    pytest.skip("no Python of 3.11 or newer that every user may run")


def asked(folder: Path, who: str, namespaces: str) -> dict:
    command, more = [sys.executable], {}
    if who == "user":
        command = [interpreter_of_all()]
        more = {"user": USER, "group": USER, "extra_groups": []} if os.geteuid() == 0 else {}
    environment = {"PYTHONPATH": str(folder), "PATH": os.environ["PATH"], "PYTHONDONTWRITEBYTECODE": "1"}
    done = subprocess.run(
        [*command, str(folder / "as_anybody.py"), namespaces],
        env=environment, cwd="/", capture_output=True, text=True, timeout=120, **more,
    )  # fmt: skip
    if done.returncode and "nothing here can isolate them" in done.stderr:
        pytest.skip(done.stderr[-1000:])
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout)


@pytest.mark.parametrize("namespaces", ["allowed", "refused"])
@pytest.mark.parametrize("who", ["root", "user"])
def test_walls_hold(anywhere: Path, who: str, namespaces: str) -> None:
    if who == "root" and os.geteuid() != 0:
        pytest.skip("the tests are not run by root")
    found = asked(anywhere, who, namespaces)
    if namespaces == "refused":
        assert found["tier"] == "landlock"
    elif found["tier"] != "namespaces":
        pytest.skip("this kernel gives out no namespaces: see the case where they are refused")
    assert found["escapes"] == []
    users, groups, files = found["ids"]
    assert 0 not in users + groups and files == 0
    # in namespaces the name of the other's folder is that of one's own
    assert found["meeting"] == ["OSError", "OSError" if found["tier"] == "landlock" else None]
    assert found["loop"] == "cpu" and found["threads"] in ("refused", "threads")
    assert not found["folder"] and found["children"] == ""
