"""The checks: each a pure function of the steps so far that returns what is wrong, or None."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from math import sqrt

from oneloop.health.history import History
from oneloop.health.limits import Limits


@dataclass(frozen=True)
class Alert:
    """What is wrong, in words with the numbers, and what to do about it."""

    code: str
    text: str
    fix: str
    size: float = 0.0
    """How bad; positive and larger when worse. An alert twice as bad is not held back."""


@dataclass(frozen=True, kw_only=True)
class Setting:
    """What the checks must know of a run's settings."""

    max_new_tokens: int = 0
    max_turns: int = 0
    """Of an episode in an environment; 0: a completion is all there is."""
    group_size: int = 1
    resamples: bool = False
    """Dynamic sampling draws dead groups again."""
    prompts_per_step: int = 1
    eval_answers: int = 0
    """Completions of one evaluation; 0: unknown."""
    max_kl: float = 0.0
    """δ of a trust region, nats per action; 0: there is none."""
    searches: bool = True
    """A line search holds δ; without one the natural step is taken whole."""


@dataclass(frozen=True)
class Look:
    """What a check sees."""

    history: History
    setting: Setting
    limits: Limits

    def now(self, name: str, default: float = 0.0) -> float:
        return self.history.now.get(name, default)

    def has(self, *names: str) -> bool:
        return all(name in self.history.now for name in names)

    def streak(self, holds: Callable[[History], bool]) -> bool:
        """Whether something held in each of the last steps, this one included."""
        rows = self.history.recent[-self.limits.streak :]
        return len(rows) == self.limits.streak and all(holds(History(recent=(row,))) for row in rows)


def unscored(look: Look) -> Alert | None:
    if look.has("reward") or not look.now("rewards/unscored"):
        return None
    count = look.now("rewards/unscored")
    return Alert(
        "A_UNSCORED",
        f"none of {count:.0f} completions could be scored: the reward was None for each, and nothing is learned",
        "look at the columns the reward reads and at rollouts/ of this step; a reward returns a number where it can",
        1.0,
    )


def truncated(look: Look) -> Alert | None:
    share, setting = look.now("completions/clipped_ratio"), look.setting
    if share < look.limits.truncated:
        return None
    every = round(look.now("num_groups") * setting.group_size)
    if setting.max_turns:
        return Alert(
            "A_TRUNCATED",
            f"{round(share * every)} of {every} episodes were cut: by --max-turns {setting.max_turns}, by "
            f"--max-new-tokens {setting.max_new_tokens} amid a turn, or by the room for tokens",
            "more of what cut them, which the column stop of rollouts/ says: turns or length; or SFT first, on turns "
            "that end",
            share,
        )
    longest = look.now("completions/max_terminated_length")
    finished = f"longest finished: {longest:.0f}" if longest else "none finished"
    what = "it can" if every == 1 else "they can"
    return Alert(
        "A_TRUNCATED",
        f"{round(share * every)} of {every} completions hit --max-new-tokens {setting.max_new_tokens} before an end "
        f"token; {what} hardly hold a whole answer",
        f"--max-new-tokens {4 * setting.max_new_tokens} ({finished}), or a model that stops (SFT first)",
        share,
    )


def no_end(look: Look) -> Alert | None:
    if look.history.ended or not look.streak(lambda step: "completions/clipped_ratio" in step.now):
        return None
    return Alert(
        "A_NO_END",
        f"no completion has ended by itself in the first {look.limits.streak} steps: the model may never produce its "
        "end token, or produce another one",
        "SFT on answers that end first; for a chat model, eos_token_id in generation_config.json must list the token "
        "that closes a turn",
    )


def flat(look: Look) -> Alert | None:
    if not look.streak(lambda step: step.now.get("reward_std", 1.0) <= 1e-9):
        return None
    reward = look.now("reward")
    return Alert(
        "A_FLAT",
        f"every completion of the last {look.limits.streak} steps got reward {reward:g}: nothing tells a good one from "
        "a bad one",
        "harder prompts, or stop here: this is the most that the reward gives"
        if reward >= 1
        else "test the reward on an answer known to be right; easier prompts, a graded reward, or SFT first",
        1.0,
    )


def dead(look: Look) -> Alert | None:
    """Groups of equal rewards. Under dynamic sampling, which draws them again, only when nothing else is left."""
    share, groups, setting = look.now("frac_reward_zero_std"), look.now("num_groups"), look.setting
    if share < (1.0 if setting.resamples else look.limits.dead):
        return None
    wrong, right = look.now("frac_groups_all_wrong"), look.now("frac_groups_all_right")
    kinds = f" ({round(wrong * groups)} all wrong, {round(right * groups)} all right)" if wrong or right else ""
    many = f"{round(share * groups)} of {groups:.0f}"
    text = f"{many} groups have equal rewards{kinds}: {share:.0%} of samples have no advantage"
    expected, fix = _what_size_would_change(look, share)
    return Alert("A_DEAD", text + expected, fix, share)


def _what_size_would_change(look: Look, share: float) -> tuple[str, str]:
    """The expected share of dead groups at this pass rate, p^G + (1 − p)^G, and at twice the group size."""
    rate, size = _pass_rate(look), look.setting.group_size
    easier = "easier prompts, a graded reward, or SFT on worked answers first"
    if rate is None:
        return "", f"a graded reward, --group-size {2 * size}, or other prompts"
    if rate == 0:
        return "; at a pass rate of 0 no group size helps", easier
    if rate == 1:
        return "; every answer is right", "harder prompts, or stop here: this reward has no more to teach"
    now, then = dead_share(rate, size), dead_share(rate, 2 * size)
    words = f"; at a pass rate of {rate:.2f}, {now:.0%} are expected for groups of {size}, {then:.0%} for {2 * size}"
    if now < share / 2:
        return words, "prompts of middling difficulty: these are each always wrong or always right"
    resample = "" if look.setting.resamples else ", or dapo, which draws dead groups again"
    return words, f"--group-size {2 * size}, {'harder prompts' if rate > 0.5 else easier}{resample}"


def dead_share(rate: float, size: int) -> float:
    """p^G + (1 − p)^G: the share of groups all right or all wrong, where every prompt has the same pass rate.

    >>> [round(dead_share(0.1, size), 3) for size in (4, 8, 16)]
    [0.656, 0.43, 0.185]
    """
    return rate**size + (1 - rate) ** size


def _pass_rate(look: Look) -> float | None:
    """The mean reward, where rewards are 0 or 1. That is so just when E[r²] = E[r], for rewards within [0, 1]."""
    if not look.has("reward", "reward_std"):
        return None
    mean, std = look.now("reward"), look.now("reward_std")
    return min(max(mean, 0.0), 1.0) if abs(std**2 - mean * (1 - mean)) < 1e-6 else None


def refill(look: Look) -> Alert | None:
    """Dynamic sampling that found fewer groups than it was to find."""
    drawn, wanted = look.now("num_groups"), look.setting.prompts_per_step
    kept = round(look.now("frac_groups_kept") * drawn)
    if not look.setting.resamples or not look.has("frac_groups_kept") or kept >= wanted:
        return None
    return Alert(
        "A_REFILL",
        f"{kept} of {wanted} groups have mixed rewards after all --max-refills ({drawn:.0f} groups drawn); training on "
        "those",
        "prompts that are neither always right nor always wrong, a larger --group-size, or --max-refills",
        (wanted - kept) / wanted,
    )


def loss_zero(look: Look) -> Alert | None:
    if not look.has("reward", "loss", "grad_norm") or abs(look.now("loss")) > look.limits.loss_zero:
        return None
    if look.now("grad_norm") <= 1e-4:
        return None
    return Alert(
        "I_LOSS_ZERO",
        "loss 0.000 is expected here: with one optimizer step a batch the ratio is 1, and the loss is minus the mean "
        f'advantage, 0 by construction. It is not "no learning": grad_norm is {look.now("grad_norm"):.2g}',
        "watch reward",
    )


def entropy_low(look: Look) -> Alert | None:
    start, lately = look.history.at_first("entropy"), look.history.lately("entropy", look.limits.window)
    if start is None or lately is None or lately > min(look.limits.entropy_low * start, look.limits.entropy_floor):
        return None
    if look.now("frac_groups_all_right") > 0.5:
        return None  # sure because it is right
    return Alert(
        "A_ENTROPY_LOW",
        f"entropy fell from {start:.3g} to {lately:.3g} nats per token: samples of a prompt are nearly the same, and "
        "little is left to explore",
        "a lower --learning-rate, --set surrogate.high=0.28 (clip-higher), or --set entropy=0.001",
        start / max(lately, 1e-9),
    )


def entropy_high(look: Look) -> Alert | None:
    start, lately = look.history.at_first("entropy"), look.history.lately("entropy", look.limits.window)
    if start is None or lately is None or lately < max(look.limits.entropy_high * start, start + 1.0):
        return None
    return Alert(
        "A_ENTROPY_HIGH",
        f"entropy rose from {start:.3g} to {lately:.3g} nats per token: the text is turning to noise",
        "a lower --learning-rate, --set entropy=0, or the checkpoint before the rise",
        lately,
    )


def kl_spike(look: Look) -> Alert | None:
    before, now = look.history.values("kl")[:-1], look.now("kl")
    if not look.has("kl") or len(before) < look.limits.window or now < look.limits.kl_floor:
        return None
    usual = sorted(before)[len(before) // 2]
    if now < look.limits.kl_spike * usual:
        return None
    return Alert(
        "A_KL",
        f"KL to the reference is {now:.3g} nats per token, and was {usual:.3g} in the steps before",
        "a lower --learning-rate, a larger kl.coef (--set kl.coef=0.1), or the checkpoint before",
        now,
    )


def ratio_spike(look: Look) -> Alert | None:
    moved, ratio = look.now("approx_kl"), look.now("ratio/max")
    if moved < look.limits.approx_kl and ratio < look.limits.ratio:
        return None
    return Alert(
        "A_RATIO",
        f"one step moved the policy far: KL(π_old‖π_θ) is {moved:.3g} nats per token, the largest ratio {ratio:.3g}",
        "a lower --learning-rate, fewer --epochs, or --set target_kl=0.05",
        max(moved / look.limits.approx_kl, ratio / look.limits.ratio),
    )


def mismatch(look: Look) -> Alert | None:
    gap, age = look.now("rollout/logprob_gap"), look.now("rollout/staleness")
    if gap < (look.limits.stale_gap if age else look.limits.logprob_gap):
        return None
    if age:
        return Alert(
            "A_MISMATCH",
            f"samples are {age:.3g} steps old, and the policy has moved by {gap:.3g} nats per token since: the cap of "
            "the correction by π_old/μ cuts many of them",
            "a lower --learning-rate, or a smaller --staleness",
            gap,
        )
    return Alert(
        "A_MISMATCH",
        f"sampler and trainer disagree by {gap:.3g} nats per token about the same tokens: the ratio is off by a factor "
        f"of {2.718281828**gap:.2f} before anything was learned",
        "--dtype float32, or an --engine elsewhere that takes weights; the correction by π_old/μ holds small gaps only",
        gap,
    )


def length_drift(look: Look) -> Alert | None:
    """A drift that pays is learning; one without a rise of the reward is a flaw of the reward or of the loss."""
    window, name = look.limits.window, "completions/mean_length"
    start, lately = look.history.at_first(name), look.history.lately(name, window)
    if start is None or lately is None or abs(lately - start) < look.limits.length_tokens:
        return None
    if look.limits.length_down * start < lately < look.limits.length_up * start or _reward_rose(look):
        return None
    up = lately > start
    return Alert(
        "A_LENGTH_UP" if up else "A_LENGTH_DOWN",
        f"mean length went from {start:.0f} to {lately:.0f} tokens, and the reward did not rise with it",
        '--set "aggregate=TokenMean()" instead of a mean per sequence, or a length penalty in the reward'
        if up
        else "read the completions: a reward that pays for brevity, or a KL and entropy that pay for an early end",
        lately / start if up else start / lately,
    )


def _reward_rose(look: Look) -> bool:
    start, lately = look.history.at_first("reward"), look.history.lately("reward", look.limits.window)
    spread = look.history.at_first("reward_std") or 0.0
    return start is not None and lately is not None and lately - start > max(look.limits.rise * spread, 1e-9)


def held_out(look: Look) -> Alert | None:
    """The reward that is trained on rises, the one that is not falls by more than chance would have it."""
    best, n = look.history.best.get("eval/reward"), look.setting.eval_answers
    if best is None or n < 2 or not look.has("eval/reward") or "reward" not in best.trained:
        return None
    now, std = look.now("eval/reward"), look.now("eval/reward_std")
    error = sqrt((std**2 + best.measured.get("eval/reward_std", std) ** 2) / n)
    trained, fell = look.history.latest[-1].trained["reward"], best.measured["eval/reward"] - now
    if fell <= look.limits.held_out * error or fell <= 0 or trained <= best.trained["reward"]:
        return None
    return Alert(
        "A_HELD_OUT",
        f"the training reward rose from {best.trained['reward']:.3f} to {trained:.3f} since step {best.step + 1}, "
        f"while the held-out reward fell from {best.measured['eval/reward']:.3f} to {now:.3f}: the reward is "
        "being gamed, or the prompts learned by heart",
        f"the policy of step {best.step + 1}, more prompts, a stronger KL, or a reward without the loophole",
        fell,
    )


def held_out_loss(look: Look) -> Alert | None:
    best, latest = look.history.best.get("eval/loss"), look.history.latest
    if best is None or not look.has("eval/loss") or len(latest) < 2 or "loss" not in best.trained:
        return None
    worse = max(look.limits.held_out_loss * best.measured["eval/loss"], best.measured["eval/loss"] + 0.01)
    if any(one.measured.get("eval/loss", 0.0) <= worse for one in latest):
        return None
    if look.has("reward") or latest[-1].trained["loss"] >= best.trained["loss"]:
        return None
    return Alert(
        "A_OVERFIT",
        f"the training loss fell from {best.trained['loss']:.3g} to {latest[-1].trained['loss']:.3g} since step "
        f"{best.step + 1}, while the held-out loss rose from {best.measured['eval/loss']:.3g} to "
        f"{look.now('eval/loss'):.3g}",
        f"--steps {best.step + 1}, more data, or a lower --learning-rate",
        look.now("eval/loss"),
    )


def skipped(look: Look) -> Alert | None:
    count = look.now("skipped_steps")
    if not count:
        return None
    return Alert(
        "A_SKIPPED",
        f"{count:.0f} optimizer step(s) were skipped: no action token to learn from, or a gradient that was not finite",
        "look at completions/clipped_ratio, grad_norm and the rollouts of this step",
        count,
    )


def lost(look: Look) -> Alert | None:
    """A loss that is not 0, and has no gradient: of fixed data, where it says how far there is to go."""
    first = max((row.get("grad_norm", 0.0) for row in look.history.first), default=0.0)
    loss, gradient = look.now("loss"), look.now("grad_norm")
    if look.has("reward") or not look.has("loss", "grad_norm"):
        return None
    if loss < look.limits.lost_loss or not gradient <= look.limits.lost * first or not first:
        return None
    return Alert(
        "A_LOST",
        f"the loss is {loss:.3g} and its gradient {gradient:.2g}, after {first:.2g} at first: the weights are where "
        "nothing can be learned any more",
        "a lower --learning-rate, from the checkpoint before",
        loss,
    )


def still(look: Look) -> Alert | None:
    """No gradient, for a reason that no other check has found."""
    if not look.streak(lambda step: step.now.get("grad_norm", 0.0) == 0.0 and "optimizer_steps" in step.now):
        return None
    return Alert(
        "A_STILL",
        f"the gradient was 0 in each of the last {look.limits.streak} steps: nothing is learned",
        "look at frac_reward_zero_std, completions/clipped_ratio and rewards/unscored; with LoRA, at --lora-targets",
        1.0,
    )


CHECKS: tuple[Callable[[Look], Alert | None], ...] = (
    unscored, truncated, no_end, flat, dead, refill, skipped, loss_zero, entropy_low, entropy_high, kl_spike,
    ratio_spike, mismatch, length_drift, held_out, held_out_loss, lost,
)  # fmt: skip
"""In the order of cause and effect; `still` comes after them, when none has found a cause."""
