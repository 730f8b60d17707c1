"""`oneloop eval`: a model, or two, on held-out data, with 95 % intervals."""

from __future__ import annotations

from dataclasses import dataclass, fields
from pathlib import Path
from typing import Literal

from oneloop.cli.parse import parse
from oneloop.combinations import MAX_TURNS
from oneloop.errors import ConfigError, GateError


@dataclass(frozen=True, kw_only=True)
class Eval:
    """Measure a model on held-out data, with 95 % intervals: answers by rewards, pairs by who ranks them right,
    demonstrations by their loss, and with --env an agent by the returns of whole episodes.
    """

    model: str
    """Folder or hub id of a Hugging Face causal language model, or of a reward model; with --env, RUN/final."""
    data: str = ""
    """Held-out rows in the forms of `oneloop train --data`, or task:NAME (its test split)."""
    env: str = ""
    """Gymnasium environment that an agent plays, instead of --data: docs/classic.md."""
    episodes: int = 100
    """With --env: whole episodes, played once with the most likely actions and once with drawn ones."""
    against: str = ""
    """Another model, on the same prompts: what is reported of the two is --model minus this one, prompt by prompt.
    With --env, episode by episode from the same seed."""
    columns: tuple[str, ...] = ()
    """Rename columns of the data, old=new: question=prompt answer=completion."""
    split: str = ""
    """Split of a source that has several; left out, test."""
    on_bad_row: Literal["error", "skip"] = "error"
    """What an unusable row does: end the evaluation before a model is loaded, or be left out, counted and named."""
    out: str = ""
    """Folder to create for results.json and completions.parquet; left out, nothing is written."""
    kind: Literal["auto", "prompts", "demonstrations", "preferences"] = "auto"
    """What the rows are. auto: pairs for a reward model, prompts with --reward or task:NAME, else by the columns."""
    reward: tuple[str, ...] = ()
    """Reward functions, file.py:function, package.module:function or a shipped name; a task has its own grader."""
    environment: str = ""
    """Environment that answers the model in several turns and gives rewards, as of `oneloop train`."""
    max_turns: int = MAX_TURNS
    """With --environment: most turns of the model in an episode, each of at most --max-new-tokens."""
    max_episode_tokens: int = 0
    """With --environment: most tokens of an episode with its prompt; 0: as many as the model's context holds."""
    reward_timeout: float = 60.0
    """Seconds that a reward function may take for all answers before its process is killed, and an environment for one
    call."""
    reward_workers: int = 1
    """Processes of each reward function. Above 1, functions called once per completion score so many at a time."""
    on_reward_error: Literal["stop", "unscored"] = "stop"
    """When a reward function raises, hangs, dies or returns no number: stop, or leave those answers out of the mean and
    say how many."""
    reference: str = ""
    """For pairs and a policy: π_ref of the implicit reward; left out, log π alone ranks them."""
    size: int = 512
    """Rows that a built-in task makes."""
    samples: int = 1
    """Completions per prompt; above 1 needs a positive temperature."""
    pass_at: tuple[int, ...] = ()
    """Report pass@k for these k, where rewards are 0 or 1: --samples 8 --pass-at 1 4 8."""
    temperature: float = 0.0
    """0 takes the most likely token."""
    top_k: int = 0
    """Sample from the k most likely tokens; 0 = all."""
    top_p: float = 1.0
    """Sample from the most likely tokens that reach this probability."""
    max_new_tokens: int = 64
    """Length limit of a completion, in tokens."""
    max_tokens: int = 16384
    """Most tokens of one pass over pairs or demonstrations: memory only, never the result."""
    chat_template: str = ""
    """File with a Jinja chat template, used instead of the model's own."""
    chat_template_kwargs: tuple[str, ...] = ()
    """Variables of the chat template, such as enable_thinking=false."""
    fail_under: float | None = None
    """End with exit code 3 when the mean reward (of pairs: the accuracy) is below this."""
    seed: int = 0
    """Names every random number."""
    dtype: Literal["float32", "bfloat16"] = "float32"
    """Precision of forward passes."""
    device: str = "cpu"
    """cpu, cuda or cuda:N."""


OF_AGENTS = ("model", "env", "episodes", "against", "out", "fail_under", "seed")
"""What means something with --env."""


def main(arguments: list[str]) -> int:
    options = parse(Eval, arguments, prog="oneloop eval")
    _check_world(options)
    from oneloop.recipes.agent_exam import AgentExam, evaluate_agent
    from oneloop.recipes.evaluate import Exam, evaluate
    from oneloop.recipes.results import check_out, save_evaluation

    if options.out:
        check_out(Path(options.out))
    models = [model for model in (options.model, options.against) if model]
    if options.env:
        exam = AgentExam(env=options.env, episodes=options.episodes, seed=options.seed)
        found = [evaluate_agent(model, exam) for model in models]
    else:
        exam = Exam(**{field.name: getattr(options, field.name) for field in fields(Exam)})
        found = [evaluate(model, exam) for model in models]
    for evaluation in found:
        if options.against:
            print(evaluation.model)
        for line in (*evaluation.notes, *evaluation.scores):
            print(line)
    differences = found[0].against(found[1]) if options.against else []
    if options.against:
        print(f"{options.model} minus {options.against}")
        for difference in differences:
            print(difference)
    if options.out:
        save_evaluation(Path(options.out), exam, found, differences)
        print(f"saved {options.out}")
    else:
        print("nothing was saved; --out DIR keeps the result and the completions")
    _gate(options.fail_under, found[0].kind, found[0].scores[0].mean)
    return 0


def _check_world(options: Eval) -> None:
    """Raises: ConfigError for what belongs to the other kind of model, where nobody would read it."""
    if not options.env and not options.data:
        raise ConfigError("on what? Fix: --data eval.jsonl or task:NAME, or for an agent --env CartPole-v1")
    for field in fields(options):
        if getattr(options, field.name) == field.default or field.name == "model":
            continue
        name = f"--{field.name.replace('_', '-')}"
        if options.env and field.name not in OF_AGENTS:
            raise ConfigError(
                f"{name} is for language models, and --env {options.env} asks an agent, which has none. Fix: leave "
                f"{name} out, or --env"
            )
        if not options.env and field.name == "episodes":
            raise ConfigError(f"{name} is for agents. Fix: --env CartPole-v1, or leave it out")


def _gate(least: float | None, kind: str, mean: float | None) -> None:
    if least is None:
        return
    if kind == "demonstrations":
        raise ConfigError("--fail-under is for rewards and accuracies, of which more is better; a loss is not one")
    if mean is None:
        raise ConfigError("--fail-under: no answer could be scored")
    if mean < least:
        name = "accuracy" if kind == "preferences" else "reward"
        raise GateError(f"{name} {mean:.4f} is below --fail-under {least:g}")
