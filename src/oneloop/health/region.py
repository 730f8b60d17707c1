"""The checks of a trust region's steps."""

from __future__ import annotations

from oneloop.health.checks import Alert, Look


def beyond(look: Look) -> Alert | None:
    """A step of a trust region that went beyond it."""
    bound, moved = look.setting.max_kl, look.now("trust/kl")
    if not bound or moved <= bound * (1.0 if look.setting.searches else look.limits.region):
        return None
    return Alert(
        "A_REGION",
        f"one step moved the policy by KL(π_old‖π_θ) = {moved:.3g} nats per action, and the trust region ends at "
        f"{bound:g}",
        "trpo, whose line search holds the bound; or a smaller --set region.max_kl",
        moved / bound,
    )


def rejected(look: Look) -> Alert | None:
    if not look.setting.max_kl or not look.streak(lambda step: step.now.get("trust/accepted") == 0.0):
        return None
    return Alert(
        "A_REJECTED",
        f"the line search took no length of the step in any of the last {look.limits.streak} steps: the policy stays "
        "as it is",
        "--set region.backtracks=20, a larger region.damping, or more samples a step",
        1.0,
    )


REGION = (beyond, rejected)
