"""When a run saves: at its checkpoints, when it is asked to stop, and when it fails."""

from __future__ import annotations

from pathlib import Path
from time import monotonic
from typing import Any

from oneloop.algorithms import PolicyGradient
from oneloop.config import Run
from oneloop.errors import DiskError, Stopped
from oneloop.parallel.checkpoint import checkpoint_bytes, write_state
from oneloop.ports import Recorder, SingleProcess, World
from oneloop.recipes.agents import AgentParts
from oneloop.recipes.build import Parts
from oneloop.recipes.refused import refused_by_disk
from oneloop.recipes.signals import StopRequest
from oneloop.record.atomic import new_folder
from oneloop.record.checkpoints import check_room, checkpoint_path, thin_out
from oneloop.record.writer import RunFolder
from oneloop.together import by_first

EVERY, SHARE = 900.0, 20
"""Without --save-every: seconds between checkpoints, and that at most one part in so many goes to saving."""
IN_A_ROW = 3
"""Checkpoints that the disk may refuse, one after the other."""
AT_FIRST, BEFORE_EACH = 2.2, 1.05
"""Room that there must be before step 0 and before each save, in sizes of a checkpoint."""


class Saver:
    """Hook: writes a checkpoint when one is due, or when the run was asked to stop.

    One that the disk refuses ends no run before the third in a row: the older ones stand, and the next is tried when
    it is due.

    Args:
        recorder: told what could not be saved.
    """

    def __init__(
        self,
        run: Run,
        parts: Parts | AgentParts,
        folder: RunFolder,
        request: StopRequest,
        start: int,
        algorithm: Any,
        recorder: Recorder,
        world: World = SingleProcess(),  # noqa: B008
    ) -> None:
        self._run, self._parts, self._folder, self._request, self._world = run, parts, folder, request, world
        self._recorder = recorder
        self._saved = start
        self._refused, self._at, self._took = 0, monotonic(), 0.0
        self._bytes = checkpoint_bytes(parts.learner)
        self._remember(start, algorithm)

    def check_room(self) -> None:
        """Raises: DiskError where the disk has no room for two checkpoints, before anything is trained."""
        by_first(self._world, lambda: self._check_room(AT_FIRST))

    def __call__(self, step: int, algorithm: Any) -> None:
        self._remember(step + 1, algorithm)
        # a signal may reach one rank alone, and another one a step later: all stop after the same
        asked = self._world.sum({"signum/max": float(self._request.signum), "late/max": float(self._late)})
        signum, last = int(asked["signum/max"]), self._done == self._run.steps
        due = last or asked["late/max"] or (self._run.save_every > 0 and self._done % self._run.save_every == 0)
        if due or signum:
            self._try(last=last or signum > 0)
        if signum:
            raise Stopped(
                f"stopped by signal {signum} after step {self._done}; go on with the same command and --resume", signum
            )

    def rescue(self, gone: bool = False) -> str:
        """Save what a failure would lose; says where it is. "" where nothing was trained.

        Before the first update of the step that failed, the state is that of the last finished step: a checkpoint like
        any other. After it, the weights belong to no step; they are kept as a model to start from.

        Args:
            gone: a rank is.
        """
        learner = self._parts.learner
        if not self._takes_part:
            return ""
        if gone and learner.sharded:
            return "its share of the weights is gone with it, and what was trained since the last checkpoint"
        if len(set(learner.writers.collect([learner.updates]))) > 1:
            return "nothing could be saved: some ranks had made an update that others had not"
        if self._folder_is_gone():
            return self._to_model(_free(self._folder.path)) if learner.updates else ""
        if learner.updates == self._updates:
            if self._done == self._saved:
                path = self._path(self._saved)
                return f"{self._saved} finished steps are in {path}; --resume goes on" if path.is_dir() else ""
            learner.skipped_in_a_row = self._skipped
            self._save()
            return (
                f"{self._done} finished steps are saved in {self._path(self._done)}; when the cause is mended, the "
                "same command with --resume goes on"
            )
        return self._to_model(self._folder.path / "unfinished")

    def _to_model(self, path: Path) -> str:
        """The weights alone; says where they are."""
        learner = self._parts.learner
        path = Path(learner.writers.agree(str(path)))
        with new_folder(path, learner.writers) as temporary:
            self._parts.write_model(temporary)
        return (
            f"the weights after {learner.updates} updates, amid step {self._done}, are in {path}: "
            f"--model {path} starts from them"
        )

    def _remember(self, done: int, algorithm: Any) -> None:
        """The state beside the weights, now that `done` steps are finished: the next one moves it before it fails."""
        learner = self._parts.learner
        kl = algorithm.kl if isinstance(algorithm, PolicyGradient) else None
        self._done, self._updates, self._skipped = done, learner.updates, learner.skipped_in_a_row
        self._extra = {
            "step": done,
            "experience": self._parts.experience.state(),
            "kl_coef": None if kl is None else kl.coef,
            "position": self._folder.position(),
            "data": self._folder.fingerprint(),
        }

    def _path(self, done: int) -> Path:
        return checkpoint_path(self._folder.path, done)

    @property
    def _takes_part(self) -> bool:
        return self._folder.keeps or self._parts.learner.sharded

    @property
    def _late(self) -> bool:
        """Whether a run without --save-every has gone on long enough since its last save, or since it began.

        Who takes no part does not know how long a save takes.
        """
        return self._takes_part and not self._run.save_every and monotonic() - self._at > max(EVERY, self._took * SHARE)

    def _try(self, last: bool) -> None:
        """Save, or say what the disk refused.

        Raises: DiskError for the third time in a row, or where no other try would come; and where the folder is gone.
        """
        began = monotonic()
        by_first(self._world, self._folder.check_whole)
        refused = refused_by_disk(self._parts.learner.writers, self._save)
        self._at = monotonic()
        self._took = self._at - began
        self._folder.spent_saving(self._took)
        if refused is None:
            self._refused = 0
            return
        self._refused += 1
        text = f"the checkpoint of {self._done} finished steps could not be saved: {refused}"
        if last or self._refused == IN_A_ROW:
            times = f" ({self._refused} in a row)" if self._refused > 1 else ""
            raise DiskError(f"{text}{times}. Fix: make room, then the same command with --resume") from refused
        self._recorder.event(self._done - 1, "A_SAVE", text, "make room; it is tried again when the next one is due")

    def _save(self) -> None:
        if self._takes_part:
            self._write()
        self._saved = self._done

    def _write(self) -> None:
        path, learner = self._path(self._done), self._parts.learner
        writers = learner.writers
        by_first(writers, lambda: self._check_room(BEFORE_EACH))
        with new_folder(path, writers) as temporary:
            self._parts.write_checkpoint(temporary)
            write_state(temporary / "resume", learner, self._extra, writers)
        if self._folder.keeps:
            self._folder.saved(self._done)
            # older ones go only after the new one stands
            thin_out(self._folder.path, self._done, self._run.keep_checkpoints, self._run.keep_weights)

    def _check_room(self, sizes: float) -> None:
        if self._folder.keeps:
            check_room(self._folder.path, sizes * self._bytes, f"a checkpoint of {self._bytes / 1e9:,.3f} GB")

    def _folder_is_gone(self) -> bool:
        def look() -> bool:
            try:
                self._folder.check_there()
            except DiskError:
                return True
            return False

        return by_first(self._parts.learner.writers, look)


def _free(out: Path) -> Path:
    """A name beside a run folder that is gone, which another run may have by now."""
    names = (out.with_name(f"{out.name}.rescued{f'-{number}' if number else ''}") for number in range(1000))
    return next(name for name in names if not name.exists())
