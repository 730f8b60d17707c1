"""The attack suite and the honest suite, in every situation that this machine offers. `make attacks` runs all of it.

    python tests/rewards/attacks/suite.py                  # a table, and status 1 if anything got through
    python tests/rewards/attacks/suite.py --here --every 8 # what tests look at: this situation alone, one program in 8

Needs the standard library only: so it runs as another user with another interpreter.
"""

from __future__ import annotations

import argparse
import json
import os
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

HERE = Path(__file__).parent
ROOT = HERE.parents[2]
if __name__ == "__main__":
    sys.path.insert(0, str(ROOT / "src"))

from attack import FORMS, Attack, Honest, rows  # noqa: E402
from attack_fakes import FAKES  # noqa: E402
from attack_kernel import KERNEL  # noqa: E402
from attack_outlive import OUTLIVE  # noqa: E402
from attack_reach import REACH  # noqa: E402
from attack_resources import RESOURCES  # noqa: E402
from honest_library import LIBRARY  # noqa: E402
from honest_programs import PROGRAMS  # noqa: E402
from leftovers import adopt_orphans, left, own_temporaries, state  # noqa: E402
from world import World  # noqa: E402

from oneloop.rewards.code import UnitTests  # noqa: E402
from oneloop.sandbox.tiers import Tier, close, tier  # noqa: E402

ATTACKS = [*RESOURCES, *REACH, *KERNEL, *OUTLIVE, *FAKES]
HONEST = [*PROGRAMS, *LIBRARY]
_SECONDS = 1.0
"""Of CPU for an attack; the honest ones have what is usual."""
_WORKERS = 4
_USER = 61001
"""An id that no account has."""
_CONTROL = ("def f(a, b):\n    return a + b\n", FORMS["calls"], "f")
"""A right program between attacks: they must not disturb it."""


def attack(attacks: Sequence[Attack], forms: Sequence[str], share: bool = False) -> dict[str, Any]:
    """Grade them all, and look at what was reached."""
    found: dict[str, Any] = {"paid": [], "open": [], "escapes": [], "ungraded": [], "disturbed": 0, "rows": 0}
    with World() as world:
        _graded(attacks, forms, world, found)
        found["escapes"] = world.evidence()
    for one in attacks if found["escapes"] else ():
        with World() as world:
            _graded([one], forms, world, {**found, "paid": [], "open": [], "ungraded": []})
            found["escapes"] += [f"{one.name}: {what}" for what in world.evidence()]
    return found


def _graded(attacks: Sequence[Attack], forms: Sequence[str], world: World, found: dict[str, Any]) -> None:
    reward = UnitTests(seconds=_SECONDS, workers=_WORKERS)
    names, given = list[Attack | None](), list[tuple[str, Any, str | None]]()
    for one in attacks:
        cases = rows(one, forms)
        found["rows"] += len(cases)
        if one.after:
            for case in cases:
                found["disturbed"] += _grade(reward, [(one.after, *case[1:])]) != [1.0]
                _sort(one, _grade(reward, [case])[0], found)
            continue
        names += [None, *[one] * len(cases)]
        given += [_CONTROL, *[(world.filled(program), *rest) for program, *rest in cases]]
    for name, value in zip(names, _grade(reward, given), strict=True):
        if name is None:
            found["disturbed"] += value != 1.0
        else:
            _sort(name, value, found)


def _sort(one: Attack, value: float | None, found: dict[str, Any]) -> None:
    if value is None:
        found["ungraded"].append(one.name)
    elif value > 0:
        found["open" if tier() in one.open_in else "paid"].append(one.name)


def _grade(reward: UnitTests, given: Sequence[tuple[str, Any, str | None]]) -> list[float | None]:
    programs, tests, names = map(list, zip(*given, strict=True)) if given else ([], [], [])
    return reward(programs, tests, names)


def honest(programs: Sequence[Honest]) -> list[str]:
    """Names of those that were not paid."""
    values = _grade(UnitTests(workers=_WORKERS), [(one.program, one.tests, one.entry_point) for one in programs])
    return [f"{one.name}: {value}" for one, value in zip(programs, values, strict=True) if value != 1.0]


def here(every: int, first: int, forms: Sequence[str], only: str = "") -> dict[str, Any]:
    """One program in so many, in the situation that this process is in."""
    if tier() is Tier.UNSAFE:
        raise SystemExit("attacks run in a sandbox only, and there is none")
    begin = time.monotonic()
    close()
    adopt_orphans()
    attacks = [one for one in ATTACKS[first::every] if only in one.name]
    programs = [one for one in HONEST[first::every] if only in one.name]
    with own_temporaries():
        before = state()
        found = attack(attacks, forms)
        unpaid = honest(programs)
        close()
        remains = left(before)
    return {
        "tier": str(tier()),
        "attacks": len(attacks),
        **found,
        "honest": len(programs),
        "unpaid": unpaid,
        "left": remains,
        "seconds": round(time.monotonic() - begin, 1),
    }


def situations() -> dict[str, tuple[list[str], dict[str, Any]]]:
    """Command before the script, and settings of the process, by what it is in words."""
    without = [str(HERE / "without_namespaces.py")]
    if os.geteuid() != 0:
        return {"a user": ([sys.executable], {}), "a user without namespaces": ([sys.executable, *without], {})}
    found: dict[str, tuple[list[str], dict[str, Any]]] = {
        "root": ([sys.executable], {}),
        "root without namespaces": ([sys.executable, *without], {}),
    }
    other = {"user": _USER, "group": _USER, "extra_groups": []}
    for python in (sys.executable, "/usr/bin/python3", f"/usr/bin/python3.{sys.version_info.minor}"):
        try:
            said = subprocess.run(
                [python, "-c", "import sys; print(sys.version_info >= (3, 11))"], capture_output=True, **other
            )
        except OSError:
            continue
        if said.stdout == b"True\n":
            found |= {"a user": ([python], other), "a user without namespaces": ([python, *without], other)}
            break
    return found


def elsewhere(command: Sequence[str], settings: dict[str, Any], arguments: Sequence[str]) -> dict[str, Any]:
    """Run `here` in another situation, from a copy that everybody may read.

    Raises: RuntimeError with what it said where it ends badly.
    """
    with tempfile.TemporaryDirectory(prefix="suite-") as folder:
        os.chmod(folder, 0o755)
        skip = shutil.ignore_patterns("__pycache__")
        shutil.copytree(ROOT / "src" / "oneloop", f"{folder}/src/oneloop", ignore=skip)
        copy = shutil.copytree(HERE, f"{folder}/tests/rewards/attacks", ignore=skip)
        moved = [word.replace(str(HERE), copy) for word in command]
        environment = {"PATH": os.environ["PATH"], "PYTHONDONTWRITEBYTECODE": "1"}
        line = [*moved, f"{copy}/suite.py", "--here", *arguments]
        done = subprocess.run(line, capture_output=True, text=True, env=environment, cwd="/", **settings)
    if done.returncode:
        raise RuntimeError(f"{' '.join(line)}: {done.stdout}{done.stderr}")
    return json.loads(done.stdout.splitlines()[-1])


def failures(found: dict[str, Any]) -> list[str]:
    """Why it is not what it must be; empty where all is well."""
    said = [f"{name}: {found[name]}" for name in ("paid", "escapes", "ungraded", "unpaid", "left") if found[name]]
    return said + ([f"{found['disturbed']} right programs were disturbed"] if found["disturbed"] else [])


def _line(found: dict[str, Any]) -> str:
    paid, through = found["honest"] - len(found["unpaid"]), ", ".join(sorted(set(found["open"]))) or "-"
    return (
        f"{found['tier']:11} {found['attacks']:7} {found['rows']:5} {len(found['paid']):5} {len(found['escapes']):8}  "
        f"{paid:4} of {found['honest']:3}  {through}"
    )


def _main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--here", action="store_true", help="in this situation alone, as one line of JSON")
    parser.add_argument("--every", type=int, default=1, help="one program in so many")
    parser.add_argument("--from", dest="first", type=int, default=0, help="the first of them")
    parser.add_argument("--forms", nargs="+", default=list(FORMS), choices=list(FORMS), help="of tests")
    parser.add_argument("--only", default="", help="names that hold this text")
    given = parser.parse_args()
    if given.here:
        print(json.dumps(here(given.every, given.first, given.forms, given.only)))
        return 0
    bad = False
    arguments = ["--every", str(given.every), "--from", str(given.first), "--only", given.only, "--forms", *given.forms]
    print(f"{'situation':27} {'tier':11} attacks  rows  paid  escapes  honest paid  open", flush=True)
    for name, (command, settings) in situations().items():
        found = elsewhere(command, settings, arguments)
        print(f"{name:27} {_line(found)}", flush=True)
        for line in failures(found):
            print(f"  {line}")
            bad = True
    return int(bad)


if __name__ == "__main__":
    sys.exit(_main())
