"""The critic's loss, and how good its values are."""

import torch
from jaxtyping import Bool, Float
from torch import Tensor
from torch.nn import functional as F


def value_loss(
    values: Float[Tensor, "*shape"],
    old_values: Float[Tensor, "*shape"],
    returns: Float[Tensor, "*shape"],
    *,
    clip: float | None = None,
    huber: float | None = None,
) -> Float[Tensor, "*shape"]:
    """Per-token ½(V − R)², unreduced.

    Args:
        clip: max(ℓ(V), ℓ(clip(V, V_old − clip, V_old + clip))), which keeps the critic near its old values.
        huber: δ of torch's `huber_loss` in place of the square.

    Reference: value clipping as in the PPO implementation of arXiv:2005.12729, section 3.
    """

    def error(prediction: Tensor) -> Tensor:
        if huber is not None:
            return F.huber_loss(prediction, returns, reduction="none", delta=huber)
        return (prediction - returns).square() / 2

    if clip is None:
        return error(values)
    near = old_values + (values - old_values).clamp(-clip, clip)
    return torch.maximum(error(values), error(near))


def explained_variance(
    values: Float[Tensor, "B T"], returns: Float[Tensor, "B T"], mask: Bool[Tensor, "B T"]
) -> Float[Tensor, ""]:
    """1 − Var(R − V)/Var(R) over action tokens: 1 perfect, 0 no better than the mean, negative worse.

    NaN when the returns do not vary, or without action tokens: there is nothing to explain.
    """
    if not bool(mask.any()):
        return torch.full((), torch.nan, device=mask.device)
    target = returns[mask].double()
    residual = target - values[mask].double()
    spread = target.var(correction=0)
    return torch.where(spread > 0, 1 - residual.var(correction=0) / spread, torch.nan).float()
