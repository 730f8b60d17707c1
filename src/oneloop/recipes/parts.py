"""What a run of a language model is made of, and what it leaves on disk."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path

from oneloop.experience.ahead import Ahead
from oneloop.experience.evaluation import Every
from oneloop.model.learner import Learner
from oneloop.model.lora import has_adapters
from oneloop.model.save import save_critic, save_merged, save_policy
from oneloop.model.text import Text
from oneloop.ports import Experience, Measure
from oneloop.recipes.sampler import AnyEngine
from oneloop.rollout.vllm.engine import VllmEngine
from oneloop.together import together


@dataclass(frozen=True)
class Parts:
    """What `train` takes."""

    text: Text
    learner: Learner
    experience: Experience
    engine: AnyEngine | None
    """What samples; None where the data is fixed."""
    measures: tuple[Every, ...]
    counts: tuple[Measure, ...]
    """What is counted at every step: rows that were left out."""
    notes: tuple[str, ...]
    """What the user should know before step 0."""
    lost: tuple[str, ...] = ()
    """What could not be put back on resume; here everything can."""

    def decode(self, ids: Sequence[int]) -> str:
        return self.text.decode(ids)

    def write_checkpoint(self, folder: Path) -> None:
        """The weights, each writer its own."""
        learner = self.learner
        together(learner.writers, learner.check_weights)
        save_policy(folder / "policy", learner.model, self.text.tokenizer, learner.writers)
        if learner.critic is not None:
            save_critic(folder / "critic", learner.critic, learner.writers)

    def write_model(self, folder: Path) -> None:
        """A model to start from or to use."""
        learner = self.learner
        together(learner.writers, learner.check_weights)
        save_merged(folder, learner.model, self.text.tokenizer, learner.writers)

    def results(self) -> Mapping[str, Callable[[Path], None]]:
        """What a finished run leaves, by the name of its folder."""
        model, tokenizer, writers = self.learner.model, self.text.tokenizer, self.learner.writers
        adapters = partial(save_policy, model=model, tokenizer=tokenizer, world=writers)
        return {"final": self.write_model, **({"adapter": adapters} if has_adapters(model) else {})}

    def close(self) -> None:
        """End what runs outside of this process."""
        if isinstance(self.experience, Ahead):
            self.experience.close()
        elif isinstance(self.engine, VllmEngine):
            self.engine.close()
