"""Every code that a run may write to events.jsonl: what it means, when it fires, what to do."""

from __future__ import annotations

from difflib import get_close_matches
from typing import NamedTuple

from oneloop.errors import ConfigError
from oneloop.health.limits import Limits

_L = Limits()


class Entry(NamedTuple):
    """One row of docs/health.md."""

    means: str
    fires: str
    fix: str


CODES: dict[str, Entry] = {
    "A_TRUNCATED": Entry(
        "completions are cut before they end, so they hold no answer; rewards and losses are 0 for that reason alone",
        f"`completions/clipped_ratio` ≥ {_L.truncated:g} in a step, the first included",
        "a larger `--max-new-tokens` (the alert names the longest that finished), or SFT first: a model that stops",
    ),
    "A_NO_END": Entry(
        "the model has never produced its end token: it was not taught to, or it ends with another one",
        f"every completion of the first {_L.streak} steps was cut",
        "SFT on answers that end; for a chat model, list the token that closes a turn as `eos_token_id` in "
        "`generation_config.json`",
    ),
    "A_DEAD": Entry(
        "groups of equal rewards: no sample is better than its siblings, so none has an advantage",
        f"`frac_reward_zero_std` ≥ {_L.dead:g} in a step; with dynamic sampling, which draws them again, at 1",
        "all wrong: easier prompts, a graded reward, SFT first; all right: harder prompts; between: a larger "
        "`--group-size` (the alert says what it would change), or `dapo`",
    ),
    "A_FLAT": Entry(
        "every completion gets the same reward, step after step; also without groups (PPO, REINFORCE)",
        f"`reward_std` = 0 in {_L.streak} steps in a row",
        "test the reward on an answer known to be right; easier or harder prompts; a graded reward",
    ),
    "A_UNSCORED": Entry(
        "the reward could not score a single completion of the step",
        "`rewards/unscored` counts all of them",
        "look at the columns the reward reads; return a number wherever the sample can be judged",
    ),
    "A_REWARD": Entry(
        "a reward function raised, hung or broke its contract on some samples, which are left without its value",
        "it failed in this step, and `--on-reward-error` is `unscored`",
        "mend the reward function; `--on-reward-error stop` ends a run at its first failure",
    ),
    "I_LOSS_ZERO": Entry(
        "the loss is 0 and that is right: at ratio 1 it is "
        "minus the mean advantage, 0 by construction; its gradient is not 0",
        f"|`loss`| ≤ {_L.loss_zero:g} while `grad_norm` is not 0; said once",
        "nothing; watch `reward` and `grad_norm`",
    ),
    "A_STILL": Entry(
        "the gradient is 0 and no other check knows why",
        f"`grad_norm` = 0 in {_L.streak} steps in a row",
        "look at the rollouts; with LoRA at `--lora-targets`; at the mask of the data",
    ),
    "A_ENTROPY_LOW": Entry(
        "entropy collapse: the samples of a prompt are nearly the same, and exploration is over",
        f"median `entropy` of {_L.window} steps ≤ {_L.entropy_low:g} of the first {_L.window} steps' and ≤ "
        f"{_L.entropy_floor:g} nats; not where most groups are all right",
        "`--set surrogate.high=0.28`, `--set entropy=0.001`, a lower `--learning-rate`",
    ),
    "A_ENTROPY_HIGH": Entry(
        "the text turns to noise",
        f"median `entropy` of {_L.window} steps ≥ {_L.entropy_high:g} times the first {_L.window} steps', "
        "and a nat more",
        "a lower `--learning-rate`, no entropy bonus, the checkpoint before the rise",
    ),
    "A_KL": Entry(
        "the policy jumped away from the reference",
        f"`kl` ≥ {_L.kl_spike:g} times the median of the recent steps, and ≥ {_L.kl_floor:g} nats per token",
        "a lower `--learning-rate`, a larger `kl.coef`, the checkpoint before",
    ),
    "A_RATIO": Entry(
        "one step's updates moved the policy too far for the clip to hold it",
        f"`approx_kl` ≥ {_L.approx_kl:g} nats per token, or `ratio/max` ≥ {_L.ratio:g}",
        "a lower `--learning-rate`, fewer `--epochs`, `--set target_kl=0.05`",
    ),
    "A_REGION": Entry(
        "with a trust region: one step went beyond it",
        f"`trust/kl` > `region.max_kl`; without a line search (`npg`), > {_L.region:g} times that",
        "`trpo`, whose line search holds the bound; a smaller `--set region.max_kl`",
    ),
    "A_REJECTED": Entry(
        "with a trust region: no length of the step kept the bound and improved, and the policy stays as it is",
        f"`trust/accepted` = 0 in {_L.streak} steps in a row",
        "`--set region.backtracks=20`, a larger `region.damping`, more samples a step",
    ),
    "A_MISMATCH": Entry(
        "sampler and trainer give the same tokens other probabilities: every ratio is biased",
        f"`rollout/logprob_gap` ≥ {_L.logprob_gap:g} nats; with `--staleness`, ≥ {_L.stale_gap:g}",
        '`--dtype float32`; an `--engine` elsewhere that takes weights; `--set "correction=TruncatedImportance(2.0)"`, '
        "the default where sampler and trainer are not the same modules in float32; a lower `--learning-rate` or "
        "`--staleness`",
    ),
    "A_ENGINE": Entry(
        "a server that samples for the run failed and was started again; its completions are drawn with the same seeds",
        "it died, stalls, or answers what is no completion; a second time in one call ends the run",
        "look at `vllm.log` in the run folder",
    ),
    "A_LENGTH_UP": Entry(
        "completions grow and the reward does not",
        f"median length of {_L.window} steps ≥ {_L.length_up:g} times the first {_L.window} steps' and "
        f"{_L.length_tokens:g} tokens more, while the reward rose by less than {_L.rise:g} of its standard deviation",
        '`--set "aggregate=TokenMean()"`, a length penalty in the reward',
    ),
    "A_LENGTH_DOWN": Entry(
        "completions shrink and the reward does not rise",
        f"median length of {_L.window} steps ≤ {_L.length_down:g} of the first {_L.window} steps' and "
        f"{_L.length_tokens:g} tokens fewer, the reward as above",
        "read the completions; a reward that pays for brevity is the usual cause",
    ),
    "A_HELD_OUT": Entry(
        "the reward that is trained on rises while the held-out one falls: gamed, or learned by heart",
        f"`eval/reward` lies {_L.held_out:g} standard errors below its best, while the training reward rose",
        "the policy of the best evaluation; more prompts; a stronger KL; a reward without the loophole",
    ),
    "A_OVERFIT": Entry(
        "the same for fixed data: the training loss falls, the held-out loss rises",
        f"`eval/loss` ≥ {_L.held_out_loss:g} times its best in two evaluations in a row",
        "fewer `--steps`, more data, a lower `--learning-rate`",
    ),
    "A_REFILL": Entry(
        "dynamic sampling spent its budget; training went on with the groups there were",
        "`frac_groups_kept` · `num_groups` < `--prompts-per-step` after `--max-refills`",
        "prompts that are neither always right nor always wrong, a larger `--group-size`, or `--max-refills`",
    ),
    "A_SKIPPED": Entry(
        "optimizer steps were skipped",
        "`skipped_steps` > 0: no action token to learn from, or a gradient that was not finite",
        "look at `completions/clipped_ratio`, `grad_norm` and the rollouts of the step",
    ),
    "A_UNSOUND": Entry(
        "something that an optimizer step would be made of is not finite: the step is skipped, the weights stay",
        "NaN or infinity in rewards, log-probs, values, advantages, a loss or a gradient; the third such step in a row "
        "ends the run",
        "look at `skipped/` in the run folder: the batch, with the first bad tensor, row and rank",
    ),
    "A_ROOM": Entry(
        "memory ran out in a pass, which was made again at half the size: the same gradient",
        "torch refuses an allocation in a pass with gradient, once in a run (passes without one are halved once, too, "
        "and the terminal says so); the next time ends it",
        "a smaller `--max-tokens`; `oneloop plan` names what else helps",
    ),
    "A_LOST": Entry(
        "fixed data, a loss that is not 0, and no gradient: the weights are beyond learning",
        f"`loss` ≥ {_L.lost_loss:g} and `grad_norm` ≤ {_L.lost:g} of the first {_L.window} steps' largest",
        "a lower `--learning-rate`, from the checkpoint before",
    ),
    "A_CHECKPOINT": Entry(
        "a damaged checkpoint was passed over on resume", "a hash in `manifest.json` does not hold", "look at the disk"
    ),
    "A_SAVE": Entry(
        "a checkpoint, or the best model, could not be saved; the older one stands and the run goes on",
        "the disk refuses: full, a quota, an error of the device. The third checkpoint in a row ends the run",
        "make room; the next one is tried when it is due",
    ),
    "A_RECORD": Entry(
        "lines of the record cannot be read, or are gone; training itself has lost nothing",
        "on resume, a line that is no JSON, or with `--accept-loss` a file that is shorter than it was",
        "look at who writes to the folder",
    ),
    "A_REPLAY": Entry(
        "with `--env`, episodes that were running could not be put back; they begin anew and the run goes on",
        "on resume, an episode comes out otherwise when it is replayed from its seed and its actions",
        "an environment whose `reset(seed=...)` sets all that it draws from",
    ),
    "A_MACHINE": Entry(
        "a run was resumed on another CPU, torch, number of threads or of ranks: last bits may differ",
        "`run.json` names other ones",
        "the same machine, torch, ranks and `OMP_NUM_THREADS` for equal bits",
    ),
    "A_BEST": Entry(
        "an evaluation says nothing of the metric that `--keep-best` compares",
        "the metric is missing or not finite",
        "a reward that scores the held-out prompts",
    ),
    "A_LOGGER": Entry(
        "a logger of `--report-to` failed and is told no more; the files have everything",
        "the logger raises",
        "look at its message; `--resume` starts it again",
    ),
    "A_ROLLOUTS": Entry("a table of completions could not be written", "the disk refuses", "free disk space"),
    "A_TRACE": Entry(
        "ratios and tokens of a step could not be written",
        "the disk refuses, or something of one's own cannot be looked at",
        "free disk space; `--no-trace` if it goes on",
    ),
    "A_MEMORY": Entry("`memory.jsonl` could not be written", "the disk refuses", "free disk space"),
    "A_HEARTBEAT": Entry("`run.json` could not be updated", "the disk refuses", "free disk space"),
}
"""A: alert. I: information, which needs no action."""


def described(code: str) -> str:
    """The entry of a code, for a terminal.

    Raises: ConfigError for a code that there is not, with the nearest one.
    """
    if code not in CODES:
        near = get_close_matches(code, CODES, 1)
        hint = f" Did you mean {near[0]}?" if near else ""
        raise ConfigError(f"there is no code {code!r}.{hint} Codes: {', '.join(CODES)}")
    entry = CODES[code]
    plain = [text.replace("`", "") for text in entry]
    return f"{code}: {plain[0]}\n\n  fires when     {plain[1]}\n  fix            {plain[2]}"


def codes_table() -> str:
    """The table of docs/health.md."""
    rows = [f"| `{code}` | {entry.means} | {entry.fires} | {entry.fix} |" for code, entry in CODES.items()]
    return "\n".join(["| code | meaning | fires when | fix |", "|---|---|---|---|", *rows])
