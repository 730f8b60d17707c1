"""`kill -9` of one rank of two at random moments: `python tests/chaos/ranks.py --kills 20 --seed 0`.

Each time all others must end within 15 s with a message that names the rank and the phase, no process may be left, and
the run must go on: once done, its metrics, answers and weights are those of a run that nobody disturbed.
"""

from __future__ import annotations

import sys
import tempfile
from argparse import ArgumentParser
from pathlib import Path
from random import Random
from time import monotonic, sleep

sys.path.insert(0, str(Path(__file__).parents[1]))
sys.path.insert(0, str(Path(__file__).parents[1] / "parallel"))

from started import LONGEST, REWARDS, RUN, alive, ended, ranks, state, until_step

from same_run import differs

TRAIN = ["-m", "oneloop", *RUN.split(), "--steps", "10", "--save-every", "2", "--eval-every", "3"]
SPAN = 4.0
"""Seconds after the first step within which the kill falls: about the rest of the run."""


def main() -> None:
    parser = ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--kills", type=int, default=20)
    parser.add_argument("--seed", type=int, default=0)
    args = parser.parse_args()
    chance = Random(args.seed)
    with tempfile.TemporaryDirectory() as folder:
        whole = fresh(Path(folder) / "whole")
        assert [code for code, _, _ in ended(ranks(TRAIN, whole))] == [0, 0]
        for number in range(args.kills):
            place = fresh(Path(folder) / str(number))
            print(one(place, chance.randrange(2), chance.uniform(0, SPAN)), flush=True)
            assert not (odd := differs(whole / "run", place / "run")), odd


def fresh(place: Path) -> Path:
    place.mkdir()
    (place / "rewards.py").write_text(REWARDS)
    return place


def one(place: Path, killed: int, wait: float) -> str:
    """A run that loses a rank after its first step, and goes on."""
    processes = ranks(TRAIN, place)
    until_step(processes[0])
    sleep(wait)
    begin = monotonic()
    processes[killed].kill()
    code, _, said = ended(processes, LONGEST)[1 - killed]
    seconds = monotonic() - begin
    while left := alive(place):
        assert monotonic() - begin < LONGEST, f"left behind: {left}"
        sleep(0.1)
    if code == 0:  # it had done its part before the other was gone
        assert "is gone" not in said, said
        phase = "the end"
    else:
        assert code == 1 and f"rank {killed} of 2 is gone" in said and "in phase" in said, said
        phase = said.partition("in phase ")[2].split()[0].strip(".,;:")
        assert not killed or (state(place)["status"], state(place)["exit_code"]) == ("failed", 1)
    if state(place)["status"] != "finished":
        assert [code for code, _, _ in ended(ranks([*TRAIN, "--resume", "--accept-loss"], place))] == [0, 0]
    return f"rank {killed} after {wait:.2f} s in phase {phase}: ended in {seconds:.1f} s, nobody left, went on"


if __name__ == "__main__":
    main()
