"""A run as one frozen value: what the command line fills in, what config.toml records, what resume compares."""

from __future__ import annotations

import sys
from dataclasses import asdict, dataclass, fields, replace
from difflib import get_close_matches
from typing import Annotated, Any, Literal

import tomli_w
from tyro.conf import Positional

from oneloop.classic import presets
from oneloop.combinations import MAX_TURNS, check_combinations
from oneloop.errors import ConfigError
from oneloop.finite import check_finite

MARK = "python:"
"""How a setting begins that describes what Python handed over in the place of words."""


@dataclass(frozen=True, kw_only=True)
class Run:
    """Train a language model with one algorithm."""

    algorithm: Annotated[str, Positional] = "grpo"
    """One of the names that `oneloop explain` lists."""
    model: str = "scratch:tiny"
    """Folder or hub id of a Hugging Face causal language model; scratch:tiny and scratch:small are made on the spot."""
    env: str = ""
    """Train an agent in a Gymnasium environment such as CartPole-v1, which sets the defaults too: docs/classic.md."""
    envs: int = 1
    """With --env: environments side by side."""
    steps_per_env: int = 2048
    """With --env: steps in each environment for one step of the loop."""
    normalize: tuple[Literal["observations", "rewards"], ...] = ()
    """With --env: what is divided by its running deviation."""
    hidden: tuple[int, ...] = (64, 64)
    """With --env: sizes of the hidden layers of policy and critic."""
    data: str = "task:chain_sum"
    """task:NAME; .jsonl .json .csv .parquet files (.gz and .zst too; several with commas between them, or a quoted
    pattern); a folder of them or of save_to_disk; or a hub id org/name[:config][@revision]. Columns: docs/data.md."""
    columns: tuple[str, ...] = ()
    """Rename columns of the data, old=new: question=prompt answer=completion."""
    split: str = ""
    """Split of a source that has several; left out, train."""
    on_bad_row: Literal["error", "skip"] = "error"
    """What an unusable row does: end the run before anything is loaded, or be left out, counted and named."""
    long_prompts: Literal["error", "skip", "truncate-left"] = "error"
    """What a row beyond the model's context does: end the run, be left out, or lose the beginning of its prompt."""
    out: str = "runs/run"
    """Run folder to create."""
    chat_template: str = ""
    """File with a Jinja chat template, used instead of the model's own and saved with the model."""
    chat_template_kwargs: tuple[str, ...] = ()
    """Variables of the chat template, such as enable_thinking=false; saved with the model as their defaults."""
    steps: int = 100
    """Steps to train: one batch of experience each."""
    reward: tuple[str, ...] = ()
    """Reward functions, file.py:function, package.module:function, or one that comes with oneloop, such as exact_match.
    Left out with task:NAME: the task's grader."""
    reward_weights: tuple[float, ...] = ()
    """One weight per reward (the learned one last); left out, all 1."""
    reward_model: str = ""
    """Folder or hub id of a sequence-classification model with one label, added to the rewards."""
    reward_timeout: float = 60.0
    """Seconds that a reward function may take for a batch before its process is killed; an environment for one call."""
    reward_workers: int = 1
    """Processes of each reward function. Above 1, functions called once per completion score so many at a time."""
    on_reward_error: Literal["stop", "unscored"] = "stop"
    """When a reward function or an environment raises, hangs, dies or gives no number: stop the run, or train without
    those samples (counted; more than 10 % of 20 steps' samples still stop it)."""
    environment: str = ""
    """Environment that answers the model in several turns and gives rewards: file.py:Class, package.module:Class,
    gymnasium:ID, verifiers:ID, or one that comes with oneloop, such as calculator: docs/environments.md. --reward is
    then optional."""
    max_turns: int = MAX_TURNS
    """With --environment: most turns of the model in an episode, each of at most --max-new-tokens."""
    max_episode_tokens: int = 0
    """With --environment: most tokens of an episode, its prompt and what the environment says included; 0: as many as
    the model's context holds."""
    teacher: str = ""
    """Folder or hub id of a model with the same vocabulary that takes the reference's place: the KL of `distill`, or of
    any method that has one on its samples, is the distance to it. Rewards are called only where --reward names one."""
    reference_cache: str = ""
    """Folder in which the reference's log-probs of pairs are kept by content: a later run with the same model, pairs,
    order and settings of passes reads them. Left out, they are computed before step 0."""
    eval_data: str = ""
    """Held-out data in the form of --data; with task:NAME its test split is the default."""
    eval_split: str = ""
    """Held-out rows taken from --data: a share such as 5%, a number of rows, or the name of a split."""
    eval_reward: tuple[str, ...] = ()
    """Reward functions of the evaluation; left out, those of --reward, or the task's grader."""
    resume: bool = False
    """Go on from the last checkpoint in --out; starts afresh when there is no run, or one without a finished step."""
    accept_loss: bool = False
    """With --resume: where no checkpoint of the recorded steps can be read, start at step 0 again, and where lines of
    the record are gone, go on without them. Otherwise both are errors, which say what is lost."""
    overwrite: bool = False
    """Delete the run in --out, if there is one, and start afresh."""

    prompts_per_step: int = 32
    """Prompts (for SFT demonstrations, for preferences pairs, for KTO rated answers) in a step's batch."""
    group_size: int = 8
    """Completions per prompt."""
    minibatch: int = 0
    """Prompts per optimizer step, each with its whole group, and with --env its steps; 0 takes the whole batch."""
    epochs: int = 1
    """Passes over each batch."""
    max_tokens: int = 4096
    """Most tokens in one forward and backward pass, a shared prompt counted once: memory only, never the result."""
    gradient_checkpointing: bool = False
    """Forget what a layer computed and compute it again in the backward pass: less memory, about a third more time in
    the update, the same numbers. Sampling keeps its cache."""
    compile: bool = False
    """Run the layers of training passes through torch.compile: worth it on a GPU, and with --dtype bfloat16; seconds to
    minutes before step 0. Needs a C++ compiler. Sampling runs without."""
    max_refills: int = 4
    """Dynamic sampling: how often groups with equal rewards are drawn again in a step."""
    score_early: bool = True
    """Call reward functions with each group as soon as it is complete, in a thread beside the sampling. Off: once with
    everything, after it. A reward model always scores after it."""
    log_entropy: bool = True
    """Compute the policy's entropy for the log when training on rollouts."""
    trace: bool = True
    """Keep what the updates saw for pages that show the mathematics: ratios/, tokens/ and pairs/ in the run folder."""
    max_new_tokens: int = 64
    """Length limit of a completion, in tokens."""
    temperature: float = 1.0
    """Sampling temperature; every log-prob of the trainer uses it too."""
    top_k: int = 0
    """Sample from the k most likely tokens; 0 = all. Training refuses a truncated distribution."""
    top_p: float = 1.0
    """Sample from the most likely tokens that reach this probability. Training refuses a truncated distribution."""
    engine: str = "builtin"
    """What draws completions while training: builtin; vllm, a server that the run starts; or http://HOST:PORT, one that
    is there (its key in ONELOOP_ENGINE_KEY)."""
    vllm_python: str = ""
    """Python of an environment with vLLM, for --engine vllm; left out, .venv-vllm/bin/python of `make vllm`."""
    vllm_devices: tuple[int, ...] = ()
    """GPUs of --engine vllm, by the numbers that --device cuda:N has for them; several share the model out. Left out,
    it lies beside the trainer (of several ranks the first) and takes 0.4 of that GPU's memory."""
    staleness: int = 0
    """Steps that sampling may run ahead of training, beside it: completions come from weights up to so many steps old,
    and π_old/μ corrects for it. 0: sampling and training take turns."""
    in_flight: Literal["finish", "continue"] = "finish"
    """With --staleness, completions that an update meets on their way: finished under the old weights, which is
    repeatable, or continued with the new ones, which keeps the sampler busier."""
    replay: str = ""
    """Run folder of the same command with --in-flight continue: its completions meet each update at the same token."""

    learning_rate: float = 1e-6
    """Peak learning rate of the policy; with --optimizer adafactor, relative to the size of each matrix's numbers."""
    critic_learning_rate: float = 1e-5
    """Peak learning rate of the critic."""
    critic: Literal["shared", "separate"] = "shared"
    """A value head on the policy's backbone, or a model of its own."""
    lora: int = 0
    """Rank of adapters (LoRA) that are trained instead of the model's own matrices; 0: none. Learning rates about ten
    times those without adapters are usual."""
    lora_alpha: float = 32.0
    """The adapters' product counts alpha / rank times."""
    lora_targets: tuple[str, ...] = ()
    """Linear layers that get adapters, such as q_proj v_proj; left out, all but the head."""
    warmup: int = 0
    """Optimizer steps until the peak learning rate."""
    schedule: Literal["constant", "linear", "cosine"] = "constant"
    """How the learning rate goes to 0 over the run."""
    optimizer: Literal["adamw", "adamw-8bit", "adafactor"] = "adamw"
    """adamw-8bit: moments of 8 bits, needs bitsandbytes; adafactor: one moment, by rows and columns."""
    weight_decay: float = 0.0
    """The optimizer's decay of matrices."""
    max_grad_norm: float = 1.0
    """Gradients are scaled down to this norm."""
    set: tuple[str, ...] = ()
    """Change a piece of the algorithm: kl.coef=0.01, surrogate.high=0.28, kl=none, advantage=LeaveOneOut()."""

    seed: int = 0
    """Names every random number of the run."""
    save_every: int = 0
    """Steps between checkpoints; 0 saves at the end, and about every 15 minutes: less often where saving would take
    more than a twentieth of the time."""
    keep_checkpoints: int = 2
    """How many of the newest checkpoints stay as they are, to resume from."""
    keep_weights: int = 0
    """Of how many older checkpoints the weights stay, to evaluate or to start from."""
    eval_every: int = 0
    """Steps between evaluations, of which the first comes before step 0; 0 evaluates only at the end."""
    eval_samples: int = 1
    """Completions per held-out prompt."""
    eval_temperature: float = 0.0
    """Temperature of evaluation; 0 takes the most likely token."""
    eval_top_k: int = 0
    """As --top-k, for evaluation, which may truncate: nothing learns from its answers."""
    eval_top_p: float = 1.0
    """As --top-p, for evaluation."""
    eval_max_new_tokens: int = 0
    """Length limit of an evaluation's completions, in tokens; 0 takes --max-new-tokens."""
    keep_best: bool = False
    """Keep the model with the best evaluation so far in OUT/best."""
    keep_best_by: str = ""
    """What --keep-best compares, of the held-out data: eval/reward, eval/loss, ...; left out, the method's own."""
    data_size: int = 2048
    """Rows that a built-in task makes for training."""
    eval_size: int = 256
    """Rows that a built-in task makes for evaluation; with --env, episodes."""
    dtype: Literal["float32", "bfloat16"] = "float32"
    """Precision of forward passes. What is trained stays float32; a reference and a reward model are held in it."""
    device: str = "cpu"
    """cpu, cuda or cuda:N."""
    offload_idle: bool = False
    """Keep the reference, a reward model and a separate critic in the machine's memory while the GPU does not need
    them: less of its memory, more time, the same numbers. On a CPU there is nothing to move."""
    ranks: int = 1
    """Processes of this machine that share samples and passes; left out where torchrun starts them: docs/scaling.md."""
    shard: Literal["none", "grad", "full"] = "none"
    """What ranks share out of the models: nothing, so that each holds replicas; all but the weights of a pass, which
    are whole from a layer's forward pass to its backward pass; or all, with a layer whole only while it runs."""
    cpu_offload: bool = False
    """Keep a rank's shares in the machine's memory: far less of the GPU's, more time."""
    rank_timeout: float = 600.0
    """Seconds that a rank waits for the others, be it for the slowest reward, before the run is ended."""
    report_to: tuple[str, ...] = ()
    """Loggers that are told too, beside the files of the run folder: tensorboard, wandb, trackio."""

    def __post_init__(self) -> None:
        check_finite(self)
        for name in _POSITIVE:
            _wanted(getattr(self, name) >= 1, name, getattr(self, name), "at least 1")
        for name in _NOT_NEGATIVE:
            _wanted(getattr(self, name) >= 0, name, getattr(self, name), "0 or more")
        _wanted(self.learning_rate > 0, "learning_rate", self.learning_rate, "a positive number")
        _wanted(self.temperature > 0, "temperature", self.temperature, "a positive number")
        _wanted(self.max_grad_norm > 0, "max_grad_norm", self.max_grad_norm, "a positive number")
        _wanted(self.rank_timeout > 0, "rank_timeout", self.rank_timeout, "a positive number of seconds")
        _wanted(self.reward_timeout > 0, "reward_timeout", self.reward_timeout, "a positive number of seconds")
        _wanted(self.lora_alpha > 0, "lora_alpha", self.lora_alpha, "a positive number")
        if self.resume and self.overwrite:
            raise ConfigError("--resume goes on with the run in --out, --overwrite deletes it. Fix: one of the two")
        if self.accept_loss and not self.resume:
            raise ConfigError(
                "--accept-loss without --resume: a new run has nothing to lose. Fix: --resume --accept-loss"
            )
        if self.lora and self.model.startswith("scratch:"):
            raise ConfigError(
                f"--lora {self.lora} with --model {self.model}: random weights that stay as they are teach adapters "
                "nothing. Fix: train them first, or --lora 0"
            )
        if self.lora_targets and not self.lora:
            raise ConfigError(f"--lora-targets {' '.join(self.lora_targets)} without --lora. Fix: --lora 16")
        if self.eval_samples > 1 and self.eval_temperature == 0:
            raise ConfigError(
                f"--eval-samples {self.eval_samples} with --eval-temperature 0 would repeat one greedy answer. "
                "Fix: --eval-temperature 1, or --eval-samples 1"
            )
        _wanted(0 < self.eval_top_p <= 1, "eval_top_p", self.eval_top_p, "a probability in (0, 1]")
        least = min(self.vllm_devices, default=0)
        _wanted(least >= 0, "vllm_devices", least, "numbers of GPUs, from 0")
        check_combinations(self)
        self._check_best()
        for name in self.report_to:
            if name not in LOGGERS:
                near = get_close_matches(name, LOGGERS, 1)
                hint = f" Did you mean {near[0]}?" if near else ""
                raise ConfigError(f"--report-to {name}: the loggers are {', '.join(LOGGERS)}.{hint}")

    def _check_best(self) -> None:
        by = self.keep_best_by
        if by and not self.keep_best:
            raise ConfigError(f"--keep-best-by {by} without --keep-best. Fix: --keep-best --keep-best-by {by}")
        if by and not by.startswith("eval/"):
            raise ConfigError(
                f"--keep-best-by {by}: only held-out data can say which model is best; what is trained on rises by "
                f"itself. Fix: --keep-best-by eval/{by}"
            )
        if self.keep_best and not self.eval_every:
            raise ConfigError(
                "--keep-best with --eval-every 0 has one evaluation, at the end, and nothing to compare. "
                "Fix: --eval-every 10"
            )

    @property
    def samples_exactly(self) -> bool:
        """Whether the sampler's log-probs are the trainer's: the same modules and weights, in float32."""
        return self.engine == "builtin" and self.dtype == "float32" and not self.staleness

    @property
    def eval_limit(self) -> int:
        """Length limit of an evaluation's completions."""
        return self.eval_max_new_tokens or self.max_new_tokens

    @property
    def longest(self) -> int:
        """Most tokens that the policy can choose for one prompt."""
        return self.max_new_tokens * (self.max_turns if self.environment else 1)

    @property
    def groups_per_update(self) -> int:
        if self.env:  # 0 is the whole batch, however long its last episodes are
            return self.minibatch or sys.maxsize
        return min(self.minibatch or self.prompts_per_step, self.prompts_per_step)

    def to_toml(self) -> str:
        values = asdict(
            replace(self, overwrite=False, accept_loss=False)
        )  # whoever takes the file as a recipe deletes nothing
        return tomli_w.dumps({k: list(v) if isinstance(v, tuple) else v for k, v in values.items()})


LOGGERS = ("tensorboard", "wandb", "trackio")
"""What --report-to takes."""
_POSITIVE = (
    "steps", "prompts_per_step", "group_size", "epochs", "max_tokens", "max_new_tokens", "keep_checkpoints",
    "eval_samples", "data_size", "eval_size", "reward_workers", "ranks", "envs", "steps_per_env", "max_turns",
)  # fmt: skip
_NOT_NEGATIVE = (
    "minibatch", "max_refills", "top_k", "warmup", "save_every", "keep_weights", "eval_every", "eval_temperature",
    "eval_top_k", "eval_max_new_tokens", "weight_decay", "critic_learning_rate", "lora", "staleness",
    "max_episode_tokens",
)  # fmt: skip
MAY_CHANGE_ON_RESUME = frozenset(
    {
        "resume",
        "accept_loss",
        "overwrite",
        "steps",
        "out",
        "save_every",
        "keep_checkpoints",
        "keep_weights",
        "max_tokens",
        "gradient_checkpointing",
        "compile",
        "device",
        "offload_idle",
        "ranks",
        "shard",
        "cpu_offload",
        "rank_timeout",
        "score_early",
        "log_entropy",
        "trace",
        "reward_timeout",
        "reward_workers",
        "on_reward_error",
        "reference_cache",
        "keep_best",
        "keep_best_by",
        "report_to",
        "vllm_python",
        "vllm_devices",
    }
)
"""Settings that do not change what a step computes, rounding aside, as long as no reward function fails."""


def _wanted(holds: bool, name: str, value: object, wanted: str) -> None:
    if not holds:
        raise ConfigError(f"--{name.replace('_', '-')} is {value}; wanted {wanted}")


DEFAULTS: dict[str, dict[str, Any]] = {
    "sft": {"learning_rate": 2e-5, "group_size": 1},
    "reward_model": {"learning_rate": 1e-4, "group_size": 2},
    "dpo": {"group_size": 2},
    "ipo": {"group_size": 2},
    "simpo": {"group_size": 2},
    "orpo": {"group_size": 2},
    "kto": {"group_size": 1},
    "distill": {"group_size": 1, "prompts_per_step": 64},
    "ppo": {"group_size": 1, "epochs": 4, "prompts_per_step": 64, "minibatch": 16},
    "reinforce": {"group_size": 1},
    "reinforce_pp": {"group_size": 4},
    "rloo": {"group_size": 4},
    "trpo": {"group_size": 1, "prompts_per_step": 64},
    "npg": {"group_size": 1, "prompts_per_step": 64},
    "a2c": {"group_size": 1, "prompts_per_step": 64},
    "vpg": {"group_size": 1, "prompts_per_step": 64},
}
"""Where an algorithm's defaults differ from `Run`'s. Learning rates are TRL's, for models of billions of weights."""


def not_default(run: Run) -> dict[str, Any]:
    """The settings in which a run differs from its algorithm's defaults, with the default of each."""
    default = default_run(run.algorithm, run.env)
    names = (field.name for field in fields(Run) if field.name not in ("resume", "accept_loss", "overwrite"))
    return {name: getattr(default, name) for name in names if getattr(run, name) != getattr(default, name)}


def default_run(algorithm: str, env: str = "") -> Run:
    """The settings of an algorithm before anything is said about them; with `env`, in that environment."""
    if env:
        name = f"{algorithm}-{env}".replace("/", "-").replace(":", "-")
        return replace(Run(), algorithm=algorithm, env=env, out=f"runs/{name}", **presets.settings(env, algorithm))
    return replace(Run(), algorithm=algorithm, out=f"runs/{algorithm}", **DEFAULTS.get(algorithm, {}))
