"""When a number counts as ill."""

from dataclasses import dataclass


@dataclass(frozen=True, kw_only=True)
class Limits:
    """One value for each check; chosen so that the demo's own seven runs, which learn, raise no alert."""

    quiet: int = 50
    """Steps until an alert is repeated, unless it has become twice as bad."""
    window: int = 5
    """Steps whose median is compared with that of the first ones: one odd batch is no trend."""
    streak: int = 5
    """Steps in a row of what one step may show by chance: equal rewards, no gradient, no end token."""
    truncated: float = 0.9
    """Share of completions. Cut answers can hardly be right; below this some finished ones are left to learn from."""
    dead: float = 0.9
    """Share of groups with equal rewards. A step then learns from a tenth of what was sampled."""
    loss_zero: float = 1e-6
    """|loss| that is 0 but for rounding: advantages are about 1, and float32 has 7 digits."""
    lost: float = 1e-6
    """Share of the first steps' gradient. Learning makes it small by making the loss small."""
    lost_loss: float = 0.1
    """Of fixed data: a loss below it may have nothing left to learn."""
    entropy_low: float = 0.2
    """Share of the first steps' entropy. Halving it is what learning does; a fifth leaves samples all alike."""
    entropy_floor: float = 0.05
    """Nats per token, above which a low entropy is not called collapsed."""
    entropy_high: float = 3.0
    """Times the first steps' entropy, and at least one nat more: text turns to noise."""
    kl_spike: float = 10.0
    """Times the median of the steps before."""
    kl_floor: float = 0.5
    """Nats per token, below which a rise of the KL is no spike: it starts at 0."""
    approx_kl: float = 0.3
    """Nats per token between the policy before and after a step. Usual limits for an early stop are 0.01 to 0.1."""
    ratio: float = 1e3
    """Largest π_θ/π_old of a token. Healthy PPO meets single tokens of 60; the clip holds those."""
    region: float = 2.0
    """Times δ. A natural step without a line search ends near δ, as far as the KL is quadratic."""
    logprob_gap: float = 0.05
    """Mean |log π − log μ|, nats. float32 gives 1e-7, bfloat16 about 0.01; more means that two models are at work."""
    stale_gap: float = 0.35
    """The same where samples are older than the policy: half of log 2, which is where the correction's cap is met."""
    length_up: float = 2.0
    """Times the first steps' mean length."""
    length_down: float = 0.5
    """Times the first steps' mean length."""
    length_tokens: float = 8.0
    """Tokens of change, below which a drift of short answers does not matter."""
    rise: float = 0.1
    """Standard deviations of the reward: a smaller rise counts as none."""
    held_out: float = 3.0
    """Standard errors by which the held-out reward must lie below its best: the best of many is a lucky one."""
    held_out_loss: float = 1.1
    """Times the best held-out loss, in two evaluations in a row."""
