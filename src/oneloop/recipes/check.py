"""What `oneloop check` finds: everything that training would refuse, before it loads a weight, and what it should not.

Each check is training's own; here all of them are asked, where a run stops at the first that fails.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

from oneloop.config import Run, default_run
from oneloop.data import Kind, Loaded, Rows
from oneloop.errors import ConfigError, OneloopError
from oneloop.experience.rollouts import check_sampling
from oneloop.forward.compiled import check_compiler
from oneloop.methods import LEARNS_FROM
from oneloop.model.chat import templated
from oneloop.model.load import load_critic, load_described, load_reward_model, load_tokenizer
from oneloop.model.lora import check_available
from oneloop.model.optimizer import check_optimizer
from oneloop.model.source import architecture_of, check_source
from oneloop.model.text import Described, Text, end_ids
from oneloop.recipes import items
from oneloop.recipes.build import same_vocabulary
from oneloop.recipes.device import check_vllm_devices, device_of
from oneloop.recipes.graders import Graders, check_columns
from oneloop.recipes.inputs import check_held_out, read_environment, read_rewards, word_checks
from oneloop.recipes.playing import spoken
from oneloop.recipes.preflight import DEVICES, place_checks
from oneloop.recipes.resolve import Algorithm, resolved, scores
from oneloop.recipes.rows import read_rows
from oneloop.recipes.seen import SAMPLED, Answers, Looked, Seen, looked, oddities, sampled, seen
from oneloop.recipes.trial import Finding, Trial, problems, tried
from oneloop.record.writer import check_out
from oneloop.rewards import Limits, NamedReward
from oneloop.tasks.named import is_task, named_task
from oneloop.types import Sampling


@dataclass(frozen=True)
class Checked:
    """Everything that was found; what could not be found out is None or empty.

    Args:
        notes: what was read, and how.
        shown: the first rows.
        total: rows there are.
    """

    run: Run
    kind: Kind
    findings: tuple[Finding, ...]
    notes: tuple[str, ...] = ()
    model: Described | None = None
    text: Text | None = None
    shown: tuple[Seen, ...] = ()
    total: int = 0
    looked: Looked | None = None
    rewards: tuple[NamedReward, ...] = ()
    trial: Trial | None = None

    @property
    def refused(self) -> bool:
        return any(finding.stops for finding in self.findings)


def check(run: Run, first: int = 1, count: int = 3) -> Checked:
    """Everything about `run` that can be told without its weights.

    Args:
        first: the row to begin with, from 1.
        count: rows to show, and to try rewards on.

    Raises: ConfigError for a row that is not there.
    """
    checking = _Checking(run)
    checking.settings()
    model, text = checking.model()
    data, held_out = checking.data()
    rewards = checking.rewards(data, held_out)
    try:
        if data is None:
            return checking.result((), model=model, text=text, rewards=rewards)
        places = range(first - 1, min(first - 1 + count, len(data.rows)))
        if not 1 <= first <= len(data.rows) or count < 1:
            raise ConfigError(f"--row {first} --rows {count}: {run.data} has the rows 1 to {len(data.rows)}")
        if text is None or model is None:
            return checking.result(data.notes, model=model, total=len(data.rows), rewards=rewards)
        rows = checking.encoded(data.rows, text, model)
        checking.held_out(held_out, text, model)
        shown = [number for number in places if checking.readable(data.rows, number, text)]
        return checking.result(
            data.notes,
            model=model,
            text=text,
            shown=tuple(
                seen(data.rows[n], items.place(data.rows, n), checking.kind, text, checking.answers) for n in shown
            ),
            total=len(data.rows),
            looked=rows,
            rewards=rewards,
            trial=checking.tried(rewards, data.rows, shown, text),
        )
    finally:
        checking.close()


class _Checking:
    """Problems as they are found, each once."""

    def __init__(self, run: Run) -> None:
        self.run = run
        self.kind: Kind = LEARNS_FROM[run.algorithm]
        self.answers = answers_of(run, self.kind)
        self._findings: dict[str, Finding] = {}
        self._called: list[NamedReward] = []

    def result(self, notes: tuple[str, ...], **found: Any) -> Checked:
        return Checked(self.run, self.kind, tuple(self._findings.values()), notes, **found)

    def _add(self, text: str, *, stops: bool = True) -> None:
        self._findings.setdefault(text, Finding(text, stops))

    @contextmanager
    def _catching(self) -> Iterator[None]:
        """What is raised is one more finding."""
        try:
            yield
        except OneloopError as error:
            self._add(str(error))

    def settings(self) -> None:
        """All that needs no file of the model or the data."""
        run = self.run
        device = [partial(check, run) for check in (device_of, check_vllm_devices)]
        device = device if DEVICES.fullmatch(run.device) else []
        compiler = [partial(check_compiler, run.device)] if run.compile and device else []
        optimizer = partial(check_optimizer, run.optimizer, run.device)
        for asked in (*place_checks(run, self.kind), *word_checks(run), *device, *compiler, optimizer):
            with self._catching():
                asked()
        if run.out != default_run(run.algorithm).out:  # nobody who only looks has thought of a place
            with self._catching():
                check_out(Path(run.out), resume=run.resume, overwrite=run.overwrite)
        with self._catching():
            self._algorithm(resolved(run))
        if self.kind == "prompts":
            with self._catching():
                check_sampling(
                    Sampling(
                        max_new_tokens=run.max_new_tokens, temperature=run.temperature, top_k=run.top_k, top_p=run.top_p
                    )
                )

    def _algorithm(self, algorithm: Algorithm) -> None:
        """That the model is of a kind that the algorithm can begin with."""
        run, scratch = self.run, self.run.model.startswith("scratch:")
        if run.lora:
            check_available(f"--lora {run.lora}")
        if scratch and scores(algorithm):
            load_reward_model(run.model)  # refuses, as there is nothing to load
        if scratch and "values" in algorithm.needs and run.critic == "separate":
            load_critic(run.model)
        if not scores(algorithm) and architecture_of(run.model).endswith("ForSequenceClassification"):
            raise ConfigError(f"--model {run.model} is a reward model and answers nothing. Fix: a policy")

    def model(self) -> tuple[Described | None, Text | None]:
        """Configuration and tokenizer; None where there is no model of the name."""
        run, model = self.run, None
        with self._catching():
            check_source(run.model)
            model = load_described(run.model)
            tokenizer = templated(load_tokenizer(run.model), run.chat_template, run.chat_template_kwargs)
            tokenizer = spoken(tokenizer, run.data, played=bool(run.environment))
            for source, flag in ((run.teacher, "--teacher"), (run.reward_model, "--reward-model")):
                if source:
                    with self._catching():
                        same_vocabulary(flag, source, tokenizer, run)
            return model, Text(tokenizer, end_ids(model, tokenizer))
        return model, None

    def data(self) -> tuple[Loaded | None, Loaded | None]:
        """The rows; without the bad ones where those would end a run."""
        run = self.run
        with self._catching():
            data, held_out = read_rows(run, self.kind)
            with self._catching():
                check_held_out(run, held_out)
            return data, held_out
        with suppress(OneloopError):
            data, held_out = read_rows(replace(run, on_bad_row="skip"), self.kind)
            if data.skipped:
                self._add(f"{data.skipped} of {data.skipped + len(data.rows)} rows are bad. Fix: --on-bad-row skip")
            return data, held_out
        return None, None

    def rewards(self, data: Loaded | None, held_out: Loaded | None) -> tuple[NamedReward, ...]:
        """Those that can be called on the rows."""
        run = self.run
        graders = Graders(Limits(timeout=run.reward_timeout, workers=run.reward_workers))
        usable: list[NamedReward] = []
        with self._catching():
            rewards, others = read_rewards(run, self.kind, graders, held_out=held_out is not None)
            self._called += (*rewards, *others)
            read_environment(run, self.kind, self._called)
            for reward in rewards:
                with self._catching():
                    if data is not None:
                        check_columns((reward,), data)
                    usable.append(reward)
            if held_out is not None:
                check_columns(others, held_out)
        read = tuple(name for reward in usable for name in reward.grader.signature.names)
        self.answers = replace(self.answers, read=read)
        return tuple(usable)

    def close(self) -> None:
        """End the processes of reward functions."""
        for reward in self._called:
            reward.grader.close()

    def encoded(self, rows: Rows, text: Text, model: Described) -> Looked:
        """Rows as token ids, and what is odd about them."""
        found = looked(sampled(rows, self.run.seed), self.kind, text, self.answers)
        total = len(found.rows) + sum(count for _, count in found.refused.values())
        for reason, (place, count) in list(found.refused.items())[:NAMED]:
            self._add(f"{place}: {reason}" + (f" ({count} of {total} rows are so)" if count > 1 else ""))
        if len(found.rows):
            self._fits(found.rows, text, model, self.run.max_new_tokens)
        for problem in oddities(self.kind, found.seen, text, self.run.max_new_tokens):
            self._add(problem, stops=False)
        return found

    def held_out(self, data: Loaded | None, text: Text, model: Described) -> None:
        if data is not None:
            self._fits(sampled(data.rows, self.run.seed), text, model, self.run.eval_limit)

    def _fits(self, rows: Rows, text: Text, model: Described, limit: int) -> None:
        """What training does with rows beyond the limits, by its own functions."""
        apart = Text(text.tokenizer, text.end_ids)  # counts what it meets
        fitted: Mapping[Kind, Callable[[], tuple[Sequence[object], items.TooLong | None]]] = {
            "prompts": lambda: items.prompts(rows, apart, model.context, limit, self.run.long_prompts),
            "demonstrations": lambda: items.demonstrations(rows, apart, model.context, self.run.long_prompts),
            "preferences": lambda: items.pairs(rows, apart, model.context, self.run.long_prompts),
            "unpaired": lambda: items.unpaired(rows, apart, model.context, self.run.long_prompts),
        }
        with self._catching():
            _, long = fitted[self.kind]()
            if long is not None:
                self._add(f"{long}. Fix: shorter prompts, or a model with a longer context", stops=False)

    def readable(self, rows: Rows, number: int, text: Text) -> bool:
        """Whether a row can be encoded; one that is shown need not be among those that were looked at."""
        try:
            seen(rows[number], items.place(rows, number), self.kind, text, self.answers)
        except OneloopError as error:
            if len(rows) > SAMPLED:
                self._add(f"{items.place(rows, number)}: {error}")
            return False
        return True

    def tried(self, rewards: Sequence[NamedReward], rows: Rows, shown: Sequence[int], text: Text) -> Trial | None:
        if not rewards or not shown:
            return None
        trial = tried(self.run, rewards, rows, shown, text, self.answers)
        for problem in problems(self.run, rewards, trial):
            self._add(problem.text, stops=problem.stops)
        return trial


def answers_of(run: Run, kind: Kind) -> Answers:
    """What a task itself knows beside its rows."""
    if kind != "prompts" or not is_task(run.data):
        return Answers()
    try:
        pairs = named_task(run.data).preferences(run.data_size, run.seed, "train")
    except OneloopError:  # a task that has none, or that there is not: it is told when the rows are read
        return Answers()
    return Answers({pair["prompt"]: pair for pair in pairs})


NAMED = 5
"""Reasons why rows cannot be encoded that are told."""
