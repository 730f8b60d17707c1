"""When a run saves: at its checkpoints, when it is asked to stop, and when it fails."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

from oneloop.algorithms import PolicyGradient
from oneloop.config import Run
from oneloop.errors import Stopped
from oneloop.model.save import save_critic, save_merged, save_policy
from oneloop.parallel.checkpoint import write_state
from oneloop.ports import SingleProcess, World
from oneloop.recipes.build import Parts
from oneloop.recipes.signals import StopRequest
from oneloop.record.atomic import new_folder
from oneloop.record.writer import RunFolder
from oneloop.together import together


class Saver:
    """Hook: writes a checkpoint when one is due, or when the run was asked to stop."""

    def __init__(
        self,
        run: Run,
        parts: Parts,
        folder: RunFolder,
        request: StopRequest,
        start: int,
        algorithm: Any,
        world: World = SingleProcess(),  # noqa: B008
    ) -> None:
        self._run, self._parts, self._folder, self._request, self._world = run, parts, folder, request, world
        self._saved = start
        self._remember(start, algorithm)

    def __call__(self, step: int, algorithm: Any) -> None:
        self._remember(step + 1, algorithm)
        due = self._done == self._run.steps or (self._run.save_every > 0 and self._done % self._run.save_every == 0)
        # a signal may reach one rank alone, and another one a step later: all stop after the same
        signum = int(self._world.sum({"signum/max": float(self._request.signum)})["signum/max"])
        if due or signum:
            self._save()
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
        path = self._folder.path / "unfinished"
        with new_folder(path, learner.writers) as temporary:
            together(learner.writers, learner.check_weights)
            save_merged(temporary, learner.model, self._parts.text.tokenizer, learner.writers)
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
        }

    def _path(self, done: int) -> Path:
        return self._folder.path / "checkpoints" / f"step_{done:06d}"

    @property
    def _takes_part(self) -> bool:
        return self._folder.keeps or self._parts.learner.sharded

    def _save(self) -> None:
        if self._takes_part:
            self._write()
        self._saved = self._done

    def _write(self) -> None:
        path, learner = self._path(self._done), self._parts.learner
        writers = learner.writers
        with new_folder(path, writers) as temporary:
            together(writers, learner.check_weights)
            save_policy(temporary / "policy", learner.model, self._parts.text.tokenizer, writers)
            if learner.critic is not None:
                save_critic(temporary / "critic", learner.critic, writers)
            write_state(temporary / "resume", learner, self._extra, writers)
        if not self._folder.keeps:
            return
        self._folder.saved(self._done)
        # older ones go only after the new one stands; one with a higher number is damaged and was passed over
        older = [one for one in sorted(path.parent.glob("step_*")) if one.name < path.name]
        for old in older[: max(len(older) + 1 - self._run.keep_checkpoints, 0)]:
            shutil.rmtree(old)
