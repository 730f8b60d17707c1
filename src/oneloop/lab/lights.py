"""A run's health as lights, each with its reason in words."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from math import isfinite
from statistics import fmean
from typing import Any

from oneloop.health import Limits
from oneloop.lab.columns import Columns
from oneloop.lab.lines import page
from oneloop.lab.own import FILES, OwnRun
from oneloop.lab.series import WAIT, read
from oneloop.lab.source import Source
from oneloop.secrets import redacted

L = Limits()
LATELY = 5
"""Steps whose mean a light shows."""


@dataclass(frozen=True, kw_only=True)
class Light:
    """One light: what it shows, and when it is not green.

    Args:
        metrics: the first of these that the run logs; other libraries have other names.
        codes: alerts that make it red for `Limits.quiet` steps, and yellow after.
        words: of the mean of the last steps.
        warn: whether that mean makes it yellow.
    """

    name: str
    metrics: Sequence[str]
    unit: str
    codes: Sequence[str]
    words: Callable[[float], str]
    warn: Callable[[float], bool] = lambda value: False


def _share(what: str) -> Callable[[float], str]:
    return lambda value: f"{value:.0%} of {what}"


LIGHTS = (
    Light(name="reward", metrics=("reward", "rewards/accuracies"), unit="",
          codes=("A_FLAT", "A_UNSCORED", "A_REWARD", "A_HELD_OUT"), words=lambda value: f"{value:.3g} on average"),
    Light(name="loss", metrics=("loss",), unit="", codes=("A_STILL", "A_SKIPPED", "A_OVERFIT"),
          words=lambda value: f"{value:.3g} on average"),
    Light(name="dead groups", metrics=("frac_reward_zero_std",), unit="share", codes=("A_DEAD", "A_REFILL"),
          words=_share("groups have equal rewards: no advantage"),
          warn=lambda value: value > 0.5),
    Light(name="truncated", metrics=("completions/clipped_ratio",), unit="share", codes=("A_TRUNCATED", "A_NO_END"),
          words=_share("completions were cut at the length limit"), warn=lambda value: value > 0.25),
    Light(name="length", metrics=("completions/mean_length",), unit="tokens", codes=("A_LENGTH_UP", "A_LENGTH_DOWN"),
          words=lambda value: f"{value:.0f} tokens on average"),
    Light(name="KL", metrics=("kl",), unit="nats per token", codes=("A_KL",),
          words=lambda value: f"{value:.3g} nats per token away from the reference",
          warn=lambda value: value > L.kl_floor),
    Light(name="entropy", metrics=("entropy",), unit="nats per token", codes=("A_ENTROPY_LOW", "A_ENTROPY_HIGH"),
          words=lambda value: f"{value:.3g} nats per token"),
    Light(name="step size", metrics=("trust/kl", "approx_kl"), unit="nats per token",
          codes=("A_RATIO", "A_REGION", "A_REJECTED"),
          words=lambda value: f"a step moves the policy by {value:.2g} nats per token",
          warn=lambda value: value > L.approx_kl / 3),
    Light(name="gradient zero", metrics=("clip/gradient_zero", "clip_ratio/region_mean"), unit="share", codes=(),
          words=_share("tokens have their gradient cut to 0 by the clip"), warn=lambda value: value > 0.3),
    Light(name="mismatch", metrics=("rollout/logprob_gap", "sampling/sampling_logp_difference/mean"),
          unit="nats per token", codes=("A_MISMATCH",),
          words=lambda value: f"sampler and trainer disagree by {value:.2g} nats per token"),
    Light(name="speed", metrics=("tokens_per_second",), unit="tokens per second", codes=("A_HEARTBEAT",),
          words=lambda value: f"{value:,.0f} tokens per second"),
)  # fmt: skip
OTHERS = "other alerts"
"""The light of codes that belong to no other: a disk, a checkpoint, a logger."""


def health(source: Source) -> dict[str, Any]:
    """All lights of a run."""
    read(source, WAIT)
    index = source.index()
    last = index.chart("last step", _last_step)
    events = _events(source)
    shown = [_light(light, index.chart(("lately", light.metrics), _lately(light)), events, last) for light in LIGHTS]
    mine = {code for light in LIGHTS for code in light.codes}
    rest = [event for code, event in events.items() if code not in mine and code.startswith("A_")]
    shown += [_said(OTHERS, None, "", event, last) for event in rest]
    return {"lights": shown}


def _light(light: Light, value: float | None, events: Mapping[str, dict[str, Any]], last: int) -> dict[str, Any]:
    said = [events[code] for code in light.codes if code in events]
    if said:
        newest = max(said, key=lambda event: event["step"])
        return _said(light.name, value, light.unit, newest, last)
    if value is None:
        words = f"not logged: {' or '.join(light.metrics)} is not among the metrics"
        return _shown(light.name, "none", None, light.unit, words)
    words = f"{light.words(value)}, last {LATELY} steps"
    return _shown(light.name, "warn" if light.warn(value) else "ok", value, light.unit, words)


def _said(name: str, value: float | None, unit: str, event: Mapping[str, Any], last: int) -> dict[str, Any]:
    """A light about which an alert was raised: red while it is fresh."""
    level = "bad" if last - event["step"] < L.quiet else "warn"
    words = f"step {event['step'] + 1}: {event.get('text', '')}"
    return _shown(name, level, value, unit, words) | {"code": event["code"], "fix": event.get("fix")}


def _shown(name: str, level: str, value: float | None, unit: str, words: str) -> dict[str, Any]:
    return {"name": name, "level": level, "value": value, "unit": unit, "words": words, "code": None, "fix": None}


def _events(source: Source) -> dict[str, dict[str, Any]]:
    """The newest event of each code."""
    found: dict[str, dict[str, Any]] = {}
    if isinstance(source, OwnRun):
        offset = 0
        while (part := page(source.folder, FILES["events"], offset)).rows:
            for row in part.rows:
                if isinstance(row.get("step"), int) and isinstance(row.get("code"), str):
                    found[row["code"]] = redacted(row)
            offset = part.offset
    return found


def _last_step(columns: Columns) -> int:
    steps = columns.get("step")
    return int(steps[-1]) if steps is not None and len(steps) and isfinite(steps[-1]) else 0


def _lately(light: Light) -> Callable[[Columns], float | None]:
    def mean(columns: Columns) -> float | None:
        for name in light.metrics:
            column = columns.get(name)
            # not every line has every metric, as where it is logged every few steps
            last = [] if column is None else [float(v) for v in column[-20 * LATELY :] if isfinite(v)][-LATELY:]
            if last:
                return fmean(last)
        return None

    return mean
