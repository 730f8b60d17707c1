"""`oneloop.fit`: `oneloop train` as one call, for scripts and notebooks."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

from transformers import PreTrainedModel, PreTrainedTokenizerBase

from oneloop.algorithms import Preference
from oneloop.classic.presets import with_preset
from oneloop.cli.terminal import terminal
from oneloop.cli.train import advised
from oneloop.config import Run, default_run
from oneloop.data import Table, python_table
from oneloop.errors import ConfigError, Stopped, with_notes
from oneloop.model.lora import has_adapters
from oneloop.notebook import in_notebook, progress
from oneloop.parallel.launch import joined
from oneloop.recipes.execute import execute
from oneloop.recipes.given import Given, function_words, rows_words
from oneloop.recipes.meter import release_malloc
from oneloop.recipes.resolve import Algorithm
from oneloop.recipes.result import FinishedRun
from oneloop.recipes.watched import Observer, Silent
from oneloop.recipes.words import algorithm_words, model_words
from oneloop.toml import from_table

Reward = Callable[..., Any] | str
Weighted = Reward | tuple[Reward, float]


def fit(
    algorithm: str | Algorithm,
    *,
    model: str | Path | PreTrainedModel | None = None,
    data: Any = None,
    reward: Weighted | Sequence[Weighted] | None = None,
    eval_data: Any = None,
    eval_reward: Reward | Sequence[Reward] | None = None,
    tokenizer: PreTrainedTokenizerBase | None = None,
    out: str | Path | None = None,
    quiet: bool = False,
    observer: Observer | None = None,
    **settings: Any,
) -> FinishedRun:
    """Train, exactly as `oneloop train` does: the same settings give the same weights.

    Args:
        algorithm: a name, or a value such as `replace(GRPO, kl=None)`, whose pieces may be your own. The defaults of
            settings are those of the name that the value carries; `epochs` is the value's own unless it is given here.
        model: folder, hub id, scratch:NAME, or a loaded model, which stays as it is: the run trains a copy in float32.
        data, eval_data: what `--data` takes, a list of dicts, or a `datasets.Dataset`.
        reward: a function, "file.py:name", or a list of them, each alone or as (reward, weight).
        eval_reward: the same without weights; left out, those of `reward`.
        tokenizer: of a loaded model.
        out: run folder to create; runs/NAME where it is left out.
        quiet: show nothing. `observer` shows what it likes instead.
        settings: any other setting of `oneloop train` by its name: steps=200, group_size=16, resume=True. `environment`
            may be a class, a function that makes environments, or an `Env` of verifiers, beside a name. With
            env="CartPole-v1" an agent is trained, and model, data and rewards are left out. A value whose pieces are
            your own keeps them; one with a name takes the environment's, as on the command line.

    Under torchrun, or where a cluster sets what torchrun sets, all processes that call this train together.

    Returns: the run. Ctrl-C (SIGINT) ends it after the step, with everything saved. In a notebook the stopped run is
        returned; a script gets `Stopped`, so that it does not go on as if the run were done.

    Raises: ConfigError and DataError before step 0; RewardError, DivergedError and Stopped while training.
    """
    env = str(settings.get("env", ""))
    run, value = _start(algorithm, env)
    words: dict[str, Any] = {}
    if out is not None:
        words["out"] = str(out)
    rows: Table | None = None
    eval_rows: Table | None = None
    if not env:
        words["model"] = _model_words(model, tokenizer)
        rows, words["data"] = _rows(data, "data")
    elif any(given is not None for given in (model, data, reward, eval_data, eval_reward, tokenizer)):
        raise ConfigError(
            f"env={env!r} trains an agent, which has no model, data or reward function. Fix: leave them out"
        )
    if eval_data is not None:
        eval_rows, words["eval_data"] = _rows(eval_data, "eval_data")
    functions: dict[str, Callable[..., Any]] = {}
    if reward is not None:
        weighted = [_weighted(one) for one in _listed(reward)]
        words["reward"] = [_reward_words(one, functions, "reward") for one, _ in weighted]
        words |= _weights([weight for _, weight in weighted], settings)
    if eval_reward is not None:
        words["eval_reward"] = [_reward_words(one, functions, "eval_reward") for one in _listed(eval_reward)]
    environment = settings.get("environment")
    if environment is None or isinstance(environment, str):
        environment = None
    else:
        words["environment"] = function_words(environment)
    plain = {name: list(setting) if isinstance(setting, tuple) else setting for name, setting in settings.items()}
    run = replace(run, **from_table({**plain, **words}, "oneloop.fit"))
    run = replace(run, set=with_preset(env, run.algorithm, run.set)) if env else run
    given = Given(
        algorithm=value,
        model=model if isinstance(model, PreTrainedModel) else None,
        tokenizer=tokenizer,
        rows=rows,
        eval_rows=eval_rows,
        environment=environment,
        functions=functions,
    )
    with (
        joined(run.ranks, run.device, run.rank_timeout) as ranks,
        _watching(run, quiet or not ranks.first, observer if ranks.first else None) as watcher,
    ):
        try:
            with advised(run):
                return FinishedRun(execute(run, watcher, given, ranks=ranks))
        except Stopped as stop:
            if not in_notebook():
                raise
            watcher.say(with_notes(stop))
            return FinishedRun(Path(run.out))
        finally:
            release_malloc()


def _start(algorithm: Any, env: str) -> tuple[Run, Algorithm | None]:
    """The settings before anything is said about them, and the value where it is one."""
    if isinstance(algorithm, str):
        return default_run(algorithm, env), None
    if not isinstance(algorithm, Algorithm):
        raise ConfigError(
            f"algorithm is a {type(algorithm).__name__}; wanted a name such as 'grpo', or a value such as "
            "oneloop.GRPO or replace(oneloop.GRPO, kl=None)"
        )
    words = algorithm_words(algorithm)
    run = replace(default_run(algorithm.name, env), epochs=algorithm.epochs, algorithm=words)
    if env:
        return replace(run, set=with_preset(env, words, ())), algorithm
    return (replace(run, group_size=2) if isinstance(algorithm, Preference) else run), algorithm


def _model_words(model: Any, tokenizer: PreTrainedTokenizerBase | None) -> str:
    if model is None:
        raise ConfigError("which model? Fix: model=FOLDER and data=..., or env='CartPole-v1' for an agent")
    if isinstance(model, str | Path):
        if tokenizer is not None:
            raise ConfigError(
                f"tokenizer= belongs to a loaded model, and model={str(model)!r} has its own. "
                "Fix: leave it out, or model=AutoModelForCausalLM.from_pretrained(...)"
            )
        return str(model)
    if not isinstance(model, PreTrainedModel):
        raise ConfigError(
            f"model is a {type(model).__name__}; wanted a folder, a hub id, scratch:NAME or a transformers "
            "PreTrainedModel. Fix: of a peft model, model.merge_and_unload()"
        )
    if has_adapters(model):
        raise ConfigError("model holds adapters that are not merged. Fix: merge them, and lora=16 to train new ones")
    if tokenizer is None:
        raise ConfigError(
            "a loaded model comes without its tokenizer. Fix: tokenizer=AutoTokenizer.from_pretrained(...)"
        )
    return model_words(model)


def _rows(data: Any, name: str) -> tuple[Table | None, str]:
    """Rows that were handed over, and the words for them; of a path or a name, the words alone."""
    if data is None:
        raise ConfigError(f"which data? Fix: {name}=, a path, a hub id or a list of dicts")
    if isinstance(data, str | Path):
        return None, str(data)
    rows, _ = python_table(data, name)
    return rows, rows_words(rows)


def _listed(reward: Any) -> list[Any]:
    if isinstance(reward, list) or (isinstance(reward, tuple) and not _is_pair(reward)):
        return list(reward)
    return [reward]


def _is_pair(reward: Any) -> bool:
    return (
        isinstance(reward, tuple)
        and len(reward) == 2
        and isinstance(reward[1], int | float)
        and not isinstance(reward[1], bool)
    )


def _weighted(reward: Any) -> tuple[Any, float | None]:
    return (reward[0], float(reward[1])) if _is_pair(reward) else (reward, None)


def _reward_words(reward: Any, functions: dict[str, Callable[..., Any]], name: str) -> str:
    """The words for a reward; a function is kept under them."""
    if isinstance(reward, str):
        return reward
    if not callable(reward):
        raise ConfigError(
            f"{name} is a {type(reward).__name__}; wanted a function, 'file.py:function', or a list of them, each "
            "alone or as (reward, weight)"
        )
    words = function_words(reward)
    if functions.setdefault(words, reward) is not reward:
        raise ConfigError(f"{name}: two functions are named {words!r}, and values are logged by name. Fix: rename one")
    return words


def _weights(weights: Sequence[float | None], settings: Mapping[str, Any]) -> dict[str, list[float]]:
    if all(weight is None for weight in weights):
        return {}
    if "reward_weights" in settings:
        raise ConfigError("reward= has weights, and reward_weights= says others. Fix: one of the two")
    learned = [1.0] * bool(settings.get("reward_model"))
    return {"reward_weights": [1.0 if weight is None else weight for weight in weights] + learned}


@contextmanager
def _watching(run: Run, quiet: bool, observer: Observer | None) -> Iterator[Observer]:
    """Who watches: the one that was given, nobody, a notebook's cell or the terminal."""
    if observer is not None or quiet:
        yield observer or Silent()
    elif in_notebook():
        yield progress(run.steps)
    else:
        with terminal(run.steps) as watcher:
            yield watcher
