"""What a run holds in memory, model by model and phase by phase, in bytes. Nothing is loaded to find out."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from functools import partial

import torch
from torch import nn

from oneloop.algorithms import PolicyGradient, Unpaired
from oneloop.batch import Batch
from oneloop.config import Run
from oneloop.experience.pack import Row, collate
from oneloop.forward.attention import hidden_states
from oneloop.forward.fused import Fused, decode_linear, worth_a_copy
from oneloop.forward.packed import packed
from oneloop.model.lora import check_available, has_adapters
from oneloop.model.optimizer import Kind
from oneloop.objective.logprobs import table_bytes
from oneloop.plan.beside import Beside, beside
from oneloop.plan.rehearsal import Cast
from oneloop.plan.shapes import Shapes, shapes_of
from oneloop.plan.spread import Spread, copy_of
from oneloop.plan.standing import Standing
from oneloop.recipes.meter import keeps_freed
from oneloop.recipes.playing import bounded_by
from oneloop.recipes.region import bounded, check_second_derivative
from oneloop.recipes.resolve import Algorithm, kind_of, resolved
from oneloop.rollout.cache import FIRST_COLUMNS, Prefilled
from oneloop.rollout.decoding import PREFILL_TOKENS, WORTH_SHARING
from oneloop.rollout.engine import CACHE_BYTES, MOST_ROWS
from oneloop.rollout.sampler import draw
from oneloop.tasks.named import is_task
from oneloop.types import Sampling

HEAP_WASTE = {"own": 0.43, "adapters": 0.24, "shared": 0.2}
"""Holes in the heap, as a share of what passes hold, where `settle_malloc` has freed memory kept: for rows that have
their prompts to themselves, the same with adapters, and for rows that share prompts. torch asks for aligned memory, and
glibc 2.36 then wants a hole larger than the block, so one of the same size is not used again while small objects stand
on both sides of it. Shared prompts and adapters give blocks of more sizes, and the smaller ones fit. Measured over
token budgets of 2048 to 16384, as what a run takes above the ledger: 0.37 to 0.50; 0.19 to 0.35 with a median of 0.24;
0.06 to 0.41 (once 0.74) with a median of 0.2."""
STEP_COPIES: dict[tuple[Kind, str], int] = {("adamw-8bit", "cpu"): 5, ("adafactor", "cpu"): 1, ("adafactor", "cuda"): 1}
"""Copies of the largest trained parameter that the optimizer's own step makes for a moment, in float32."""


@dataclass(frozen=True, kw_only=True)
class Lengths:
    """Tokens that a bill assumes of every row."""

    prompt: int
    answer: int
    """That are drawn."""
    said: int = 0
    """That an environment says between the turns of an episode."""
    source: str = "given"
    """Where the numbers come from, in words."""

    @property
    def behind(self) -> int:
        """Behind the prompt."""
        return self.answer + self.said


@dataclass(frozen=True)
class Phase:
    """Everything that is in memory at one phase's worst moment."""

    name: str
    parts: Mapping[str, int]

    @property
    def bytes(self) -> int:
        return sum(self.parts.values())

    @property
    def in_use(self) -> int:
        """Without the holes of the heap."""
        return self.bytes - self.parts.get("heap", 0)


@dataclass(frozen=True)
class Bill:
    """Bytes by model and item, and by phase. Items reach their sizes at different moments: only a phase adds up."""

    table: Mapping[str, Mapping[str, int]]
    phases: tuple[Phase, ...]
    host: int = 0
    """What rests in the machine's memory instead of the device's, of one rank."""
    elsewhere: int = 0
    """Weights of the policy as another engine holds them, on GPUs or in a process that are not in this bill."""
    beside: Mapping[str, int] = field(default_factory=dict)
    """What a second process that samples holds on the same device, and what waits for it there."""

    @property
    def peak(self) -> Phase:
        return max(self.phases, key=lambda phase: phase.bytes)

    @property
    def bytes(self) -> int:
        return self.peak.bytes

    @property
    def in_all(self) -> int:
        """Of both processes."""
        return self.bytes + sum(self.beside.values())

    @property
    def in_use(self) -> int:
        return max(phase.in_use for phase in self.phases)


def bill(run: Run, lengths: Lengths) -> Bill:
    """The bill of `run` when every row is as long as `lengths` says.

    Raises: ConfigError for what `oneloop train` would refuse as well, as far as configurations show it.
    """
    algorithm = resolved(run)
    if run.lora:
        check_available(f"--lora {run.lora}")
    shapes = shapes_of(run, algorithm)
    check_second_derivative(algorithm, shapes.cast.policy)
    samples, cast = kind_of(algorithm) == "prompts", shapes.cast
    standing = Standing(run, algorithm, shapes, samples)
    spread, policy, critic = standing.spread, shapes.policy, shapes.critic
    batch = assumed_batch(run, algorithm, lengths)
    mini = next(batch.split(run.groups_per_update))
    update = cast.update(algorithm, mini, run.max_tokens)
    twice = cast.curving(mini, run.max_tokens) if bounded(algorithm) else 0
    reading = max(one.reading(batch, run.max_tokens) for one in (cast, shapes.teacher) if one)
    whole = max(spread.passing(cast.policy, shapes.critic_module), spread.passing(shapes.reference))
    draws = samples and run.engine == "builtin"
    ahead = draws and run.staleness > 0
    # beside a second process, only what replaces groups that were dropped is drawn here
    here = draws and (not ahead or (isinstance(algorithm, PolicyGradient) and algorithm.keep is not None))
    rollout = _sampled(run, lengths, cast, batch.num_groups, run.group_size) if here else {}
    evaluation = _evaluation(run, lengths, cast) if draws else {}
    phases = [
        *([_rollout(run, shapes, batch, standing, rollout)] if samples else []),
        *([Phase("evaluate", standing("evaluate") | evaluation)] if evaluation else []),
        Phase("prepare", standing("prepare") | _gathered(whole) | _with_waste("forward pass", reading, shapes, batch)),
        Phase("update", standing("update") | _update(run, shapes, spread, max(update.most, twice), mini)),
    ]
    table: dict[str, dict[str, int]] = {
        name: {
            "weights": spread.share(size.all),
            "gradients": spread.share(size.trained),
            "optimizer": spread.share(standing.held[name].moments),
            "activations": kept,
        }
        for name, size, kept in (("policy", policy, update.policy), ("critic", critic, update.critic))
        if size.all
    }
    table["policy"]["KV cache"] = rollout.get("KV cache", 0)
    second = Beside()
    if ahead:
        second = beside(run, cast, lambda steps: _sampled(run, lengths, cast, steps * batch.num_groups, run.group_size))
        table["sampler"] = {name: second.process[name] for name in ("weights", "KV cache")}
    table["policy"]["log-prob chunk"] = chunk_of(run, shapes, mini)
    table |= {name: {"weights": spread.share(one.weights)} for name, one in standing.held.items() if name not in table}
    elsewhere = copy_of(cast.policy, cast.dtype) if samples and not draws else 0
    waits = {"weights on their way": second.on_the_way} if ahead else {}
    if run.device == "cpu":
        return Bill(table, tuple(phases), standing.host, elsewhere, {**second.process, **waits})
    return Bill(table, tuple(phases), standing.host + second.on_the_way, elsewhere, second.process)


def _gathered(size: int) -> dict[str, int]:
    return {"gathered weights": size} if size else {}


def _update(run: Run, shapes: Shapes, spread: Spread, most: int, batch: Batch) -> dict[str, int]:
    """The passes of an optimizer step, or the step itself where that holds more.

    Gradients are in `most` whole; of several ranks that share them out, each has its own, and those on their way.
    """
    cast, trained = shapes.cast, shapes.policy.trained + shapes.critic.trained
    gradients = trained
    if spread.shares:
        gradients = spread.at_rest(trained)
        on_their_way = spread.passing(cast.policy, shapes.critic_module, gradients=True)
        most += gradients + on_their_way - trained
    largest = max(p.nbytes for p in cast.policy.parameters() if p.requires_grad)
    stepping = gradients + STEP_COPIES.get((run.optimizer, cast.device), 0) * spread.share(largest)
    whole = spread.passing(cast.policy, shapes.critic_module)
    return _gathered(whole) | _with_waste("gradients and activations", max(most, stepping), shapes, batch)


def assumed_batch(run: Run, algorithm: Algorithm, lengths: Lengths) -> Batch:
    """A step's batch with rows of the assumed lengths, as `algorithm.prepare` would leave it."""
    size = 1 if kind_of(algorithm) in ("demonstrations", "unpaired") else run.group_size
    rows = [
        Row(
            prompt=[0] * lengths.prompt,
            actions=[0] * lengths.behind,
            chosen=[True] * lengths.answer + [False] * lengths.said if lengths.said else None,
            group=group,
            reward=float(member == 0),
        )
        for group in range(run.prompts_per_step)
        for member in range(size)
    ]
    batch = collate(rows)
    zeros = torch.zeros(batch.mask.shape)
    several = algorithm.epochs > 1 or run.groups_per_update < run.prompts_per_step
    return replace(
        batch,
        advantages=zeros,
        old_logprobs=zeros if isinstance(algorithm, PolicyGradient) and algorithm.asks_old(not several) else None,
        ref_logprobs=zeros if "reference" in algorithm.needs else None,
        values=zeros if "values" in algorithm.needs else None,
        returns=zeros if "values" in algorithm.needs else None,
        offset=zeros[:, 0] if isinstance(algorithm, Unpaired) else None,
    )


def chunk_of(run: Run, shapes: Shapes, batch: Batch) -> int:
    """Log-probs of the whole vocabulary, for all actions of the largest microbatch or for one chunk of them."""
    if hasattr(shapes.cast.policy, "score"):
        return 0
    vocabulary = shapes.cast.policy.config.get_text_config().vocab_size
    actions = int(next(batch.microbatches(run.max_tokens)).mask.sum())
    return table_bytes(actions, vocabulary, shapes.cast.head_memory)


def _with_waste(name: str, most: int, shapes: Shapes, batch: Batch) -> dict[str, int]:
    """A pass's own memory, and the holes that it leaves in the CPU's heap."""
    largest = max(parameter.nbytes for parameter in shapes.cast.policy.parameters())
    wastes = shapes.cast.device == "cpu" and keeps_freed(largest, shapes.cast.recompute)
    rows = "shared" if bool(batch.shared.any()) else "adapters" if has_adapters(shapes.cast.policy) else "own"
    return {name: most, "heap": int(HEAP_WASTE[rows] * most) if wastes else 0}


def _rollout(run: Run, shapes: Shapes, batch: Batch, standing: Standing, sampled: dict[str, int]) -> Phase:
    """Sampling a step, or scoring it with a reward model, whatever holds more."""
    sampling = Phase("rollout", standing("rollout") | sampled)
    if shapes.reward is None:
        return sampling
    whole, reading = standing.spread.passing(shapes.reward.policy), shapes.reward.reading(batch, run.max_tokens)
    scoring = standing("score") | _gathered(whole) | {"reward model's forward pass": reading}
    return max(sampling, Phase("rollout", scoring), key=lambda phase: phase.bytes)


def _evaluation(run: Run, lengths: Lengths, cast: Cast) -> dict[str, int]:
    """What sampling answers to held-out prompts holds. A file of them is taken to fill every slot."""
    if run.eval_max_new_tokens:
        run = replace(run, max_new_tokens=run.eval_limit)
        lengths = lengths if run.environment else replace(lengths, answer=run.eval_limit)
    if run.eval_data:
        return _sampling(run, lengths, cast, MOST_ROWS, run.eval_samples)
    if is_task(run.data):
        return _sampled(run, lengths, cast, run.eval_size, run.eval_samples)
    return {}


def _sampled(run: Run, lengths: Lengths, cast: Cast, groups: int, size: int) -> dict[str, int]:
    """Of `groups` prompts over all ranks, the most that one of them has."""
    return _sampling(run, lengths, cast, -(-groups // run.ranks), size)


def _sampling(run: Run, lengths: Lengths, cast: Cast, groups: int, size: int) -> dict[str, int]:
    """One call of the engine for `groups` prompts, `size` answers each.

    KV cache = 2·layers·kv_heads·head_dim·bytes · (rows·columns + shared prompts·their tokens)

    Rows of several turns keep their slots between them, each with its prompt and room for its budget.
    """
    config = cast.policy.config.get_text_config()
    kv = getattr(config, "num_key_value_heads", None) or config.num_attention_heads
    width = getattr(config, "head_dim", None) or config.hidden_size // config.num_attention_heads
    of_token = 2 * config.num_hidden_layers * kv * width * cast.dtype.itemsize
    budget = tokens_of_episodes(run, cast.policy) if run.environment else None
    of_row = of_token * (budget or lengths.prompt + run.max_new_tokens)
    rows = max(min(MOST_ROWS, CACHE_BYTES // of_row, groups * size), 1)
    shares = budget is None and lengths.prompt * (size - 1) >= WORTH_SHARING * size
    if budget is None:
        columns = _columns(lengths.answer, run.max_new_tokens) + (0 if shares else lengths.prompt)
    else:
        columns = _columns(lengths.prompt + lengths.behind, budget)
    prompts = min(max(PREFILL_TOKENS // lengths.prompt, 1), groups)
    of_prompts = of_token * lengths.prompt * max(-(-rows // size), prompts) if shares else 0
    _, merged = cast.watch(partial(_merged, cast))
    read, kept = cast.watch(partial(_prefill, cast, prompts, lengths.prompt))
    drawn, _ = cast.watch(partial(_draw, cast, rows, run))
    scores = 3 * 4 * rows * config.num_attention_heads * (lengths.prompt + lengths.behind)
    said = -(-lengths.said // run.max_turns)  # what rows are told is read several at once, behind all that they hold
    told = min(rows, max(PREFILL_TOKENS // (said + 1), 1)) if lengths.said else 0
    heard = 2 * cast.dtype.itemsize * told * config.num_attention_heads * width * columns
    return {
        "merged weights": merged,
        "KV cache": of_token * rows * columns + of_prompts,
        "prefilled prompts": kept - merged,
        "logits and scores": max(read - kept, drawn + scores, heard),
    }


def tokens_of_episodes(run: Run, policy: nn.Module) -> int:
    """Most tokens of an episode with its prompt.

    Raises: ConfigError where nothing bounds it.
    """
    context: int | None = getattr(policy.config, "max_position_embeddings", None)
    return bounded_by(context, run.max_episode_tokens)


def _columns(answer: int, limit: int) -> int:
    """Columns of a slot once an answer is in it: they double, up to the limit."""
    columns = min(FIRST_COLUMNS, limit)
    while columns < answer:
        columns = min(max(2 * columns, 1), max(limit, answer))
    return columns


def _head(cast: Cast) -> nn.Linear:
    return cast.policy.get_output_embeddings()  # pyright: ignore[reportReturnType]


def _merged(cast: Cast) -> tuple[Fused, object] | None:
    """The backbone of a call of the engine, with the matrices that it copies for it; None where the modules run."""
    settings = cast.backbone.settings
    if not cast.fast or settings is None or cast.dtype != torch.float32:
        return None
    copied = worth_a_copy(cast.policy)
    head = decode_linear(_head(cast)) if copied else None
    return Fused(cast.policy, settings, decode=copied), head


def _prefill(cast: Cast, prompts: int, length: int) -> tuple[object, Prefilled]:
    """Prompts read end to end."""
    rows = [Row(prompt=[0] * length, actions=[], group=number, reward=0.0) for number in range(prompts)]
    sequence = packed(collate(rows))
    layout, merged = Prefilled(sequence), _merged(cast)
    backbone = partial(hidden_states, cast.policy) if merged is None else merged[0]
    backbone(sequence.tokens, sequence.positions, layout)
    return merged, layout


def _draw(cast: Cast, rows: int, run: Run) -> object:
    """The next token of every slot from its logits."""
    weight = _head(cast).weight
    states = weight.new_zeros(rows, weight.shape[1])
    sampling = Sampling(max_new_tokens=run.max_new_tokens, temperature=run.temperature)
    seeds = torch.zeros(rows, dtype=torch.int64)
    return draw(states @ weight.T, sampling, seeds, 0)
