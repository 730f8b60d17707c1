"""Episodes in an environment, for training and evaluation: what draws them, and what their rewards are."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from functools import partial

from transformers import PreTrainedTokenizerBase

from oneloop.config import Run
from oneloop.environments import Stage
from oneloop.errors import ConfigError
from oneloop.experience.drawing import Draw, OneTurn
from oneloop.experience.turns import Budget, Episodes
from oneloop.model.chat import conversing
from oneloop.model.text import Text
from oneloop.ports import BesideEngine, Finished, RolloutEngine, Turns
from oneloop.rewards import NamedReward, RewardScorer
from oneloop.rewards.played import PlayedScorer
from oneloop.rewards.score import OnError
from oneloop.rollout.engine import MOST_ROWS, Engine
from oneloop.rollout.turns import Rounds, rounds_in_step
from oneloop.rollout.vllm.engine import VllmEngine
from oneloop.tasks.named import is_played
from oneloop.types import Completion, Sampling


@dataclass(frozen=True, kw_only=True)
class Play:
    """How a run, or an evaluation, plays."""

    stage: Stage
    max_turns: int
    max_episode_tokens: int
    """0: as many as the model's context holds."""
    on_error: OnError
    weight: float = 1.0

    def draw(self, engine: RolloutEngine, text: Text, context: int | None) -> Episodes:
        """Raises: ConfigError where nothing bounds an episode."""
        most = bounded_by(context, self.max_episode_tokens)
        return Episodes(
            name=self.stage.name,
            scene=self.stage.scene,
            opened=partial(_opened, engine),
            opened_beside=partial(_beside, engine) if isinstance(engine, BesideEngine) else None,
            language=text,
            budget=Budget(turns=self.max_turns, tokens=most),
            on_error=self.on_error,
        )

    def scorer(self, functions: RewardScorer | None) -> PlayedScorer:
        return PlayedScorer(self.stage.name, self.weight, functions)


def shortest(*bounds: int | None) -> int | None:
    """Of limits, where 0 and None are none."""
    return min(filter(None, bounds), default=None)


def bounded_by(context: int | None, most: int) -> int:
    """Tokens of an episode with its prompt. Raises: ConfigError where nothing bounds it."""
    bound = shortest(context, most)
    if bound is None:
        raise ConfigError(
            "the model does not say how long its context is, so that an episode would have no end. "
            "Fix: --max-episode-tokens 4096"
        )
    return bound


def play_of(run: Run, stage: Stage | None, weights: Sequence[float] = ()) -> Play | None:
    """Of a run; held-out episodes have the environment's rewards as they are.

    Args:
        weights: of the run's rewards, the environment's first; none: 1.
    """
    return stage and Play(
        stage=stage,
        max_turns=run.max_turns,
        max_episode_tokens=run.max_episode_tokens,
        on_error=run.on_reward_error,
        weight=weights[0] if weights else 1.0,
    )


def _opened(engine: RolloutEngine, sampling: Sampling, most: int) -> AbstractContextManager[Turns]:
    """With caches that stay where the engine has them; others read everything again at each turn."""
    if isinstance(engine, Engine):
        return engine.turns(sampling, most)
    if isinstance(engine, VllmEngine) and engine.crew.ranks > 1:
        return rounds_in_step(engine.generate, sampling, engine.crew)
    return nullcontext(Rounds(engine.generate, sampling))


def _beside(engine: BesideEngine, sampling: Sampling, most: int) -> AbstractContextManager[Turns]:
    """By rounds, each of which is begun beside the trainer."""

    def generate(
        prompts: Sequence[Sequence[int]], sampling: Sampling, seeds: Sequence[int], finished: Finished
    ) -> list[Completion]:
        return engine.begin(prompts, sampling, seeds)(finished)

    return nullcontext(Rounds(generate, sampling))


def draw_of(engine: RolloutEngine, text: Text, context: int | None, play: Play | None) -> Draw:
    return OneTurn(engine.generate, text.decode) if play is None else play.draw(engine, text, context)


def slots_note(engine: RolloutEngine, context: int | None, play: Play | None, episodes: int) -> str:
    """What there is to say where a long context leaves room for a part of a step's episodes only."""
    most = play and shortest(context, play.max_episode_tokens)
    if not most or not isinstance(engine, Engine):
        return ""
    rows = engine.rows_of(most)
    if rows >= min(episodes, MOST_ROWS):
        return ""
    return (
        f"episodes may have {most:,} tokens, and the cache has room for {rows} such: so many of a step's {episodes} "
        "are played at once. --max-episode-tokens with what an episode needs makes room for more"
    )


def scorer_of(
    rewards: Sequence[NamedReward], on_error: OnError, play: Play | None, steps: int = 0
) -> RewardScorer | PlayedScorer:
    if play is None:
        return RewardScorer(tuple(rewards), on_error, steps)
    return play.scorer(RewardScorer(tuple(rewards), on_error, steps) if rewards else None)


def spoken(tokenizer: PreTrainedTokenizerBase, source: str, *, played: bool) -> PreTrainedTokenizerBase:
    """The tokenizer, with the plain format of conversations where it has none and is to speak in turns: in an
    environment, or to learn from the conversations of a task that is played in one. Other messages need a template.
    """
    return conversing(tokenizer) if played or is_played(source) else tokenizer
