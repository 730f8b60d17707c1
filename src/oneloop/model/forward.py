"""One forward pass over a batch, read out as log-probs, entropy, values and scores.

Right padding never changes a number: attention is causal, so no token sees what stands after it, ids beyond a row's
length are replaced before they are looked up, and every read-out goes by length.
"""

from dataclasses import dataclass

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn
from transformers import PreTrainedModel

from oneloop.batch import Batch, PolicyOutput
from oneloop.objective.logprobs import head_logprobs, logits_logprobs, states_before


def hidden_states(
    model: PreTrainedModel, tokens: Int[Tensor, "B T"], lengths: Int[Tensor, " B"]
) -> Float[Tensor, "B T H"]:
    """Last hidden states of the backbone, after its final norm."""
    inside = torch.arange(tokens.shape[1], device=tokens.device) < lengths[:, None]
    ids = torch.where(inside, tokens, torch.zeros_like(tokens))
    return model.base_model(input_ids=ids, use_cache=False).last_hidden_state


def last(hidden: Float[Tensor, "B T H"], lengths: Int[Tensor, " B"]) -> Float[Tensor, "B H"]:
    """The state after each row's last token."""
    return hidden[torch.arange(len(lengths), device=hidden.device), lengths.clamp(min=1) - 1]


@dataclass(frozen=True)
class CausalReader:
    """Log-probs and entropy of a causal language model at the actions of a batch, 0 elsewhere.

    Args:
        plain_head: logits are `lm_head(hidden)` and nothing else, checked once by `plain_head`. If not, the whole
            model is called: correct for any architecture, but it holds logits for every position.
    """

    model: PreTrainedModel
    temperature: float
    plain_head: bool

    def __call__(self, batch: Batch) -> tuple[Float[Tensor, "B T"], Float[Tensor, "B T"], Tensor | None]:
        mask, targets = batch.mask, batch.tokens[batch.mask]
        head = self.model.get_output_embeddings() if self.plain_head else None
        hidden = None
        if isinstance(head, nn.Linear):
            hidden = hidden_states(self.model, batch.tokens, batch.lengths)
            states = states_before(hidden)[mask]
            flat = head_logprobs(head, head.weight.shape[0], states, targets, self.temperature)
        else:
            inside = torch.arange(mask.shape[1], device=mask.device) < batch.lengths[:, None]
            ids = torch.where(inside, batch.tokens, torch.zeros_like(batch.tokens))
            logits = self.model(input_ids=ids, use_cache=False).logits
            flat = logits_logprobs(states_before(logits)[mask], targets, self.temperature)
        logprobs, entropy = (torch.zeros(mask.shape, device=mask.device).masked_scatter(mask, x) for x in flat)
        return logprobs, entropy, hidden


@torch.no_grad()
def plain_head(model: PreTrainedModel) -> bool:
    """Whether logits are the output embedding of the last hidden state and nothing else (no cap, no scale)."""
    head = model.get_output_embeddings()
    if not isinstance(head, nn.Linear):
        return False
    tokens = torch.arange(8, device=head.weight.device).remainder(head.weight.shape[0])[None]
    lengths = torch.full((1,), 8, device=tokens.device)
    try:
        ours = head(hidden_states(model, tokens, lengths))
    except (AttributeError, RuntimeError, TypeError):
        return False
    theirs = model(input_ids=tokens, use_cache=False).logits
    return ours.shape == theirs.shape and torch.allclose(ours, theirs, rtol=1e-4, atol=1e-4)


def values_of(head: nn.Module, hidden: Float[Tensor, "B T H"]) -> Float[Tensor, "B T"]:
    """V(s_t): the value head on the state before each token."""
    return head(states_before(hidden))[..., 0].float()


def final_values_of(head: nn.Module, hidden: Float[Tensor, "B T H"], lengths: Int[Tensor, " B"]) -> Float[Tensor, " B"]:
    return head(last(hidden, lengths))[..., 0].float()


def reward_scores(model: PreTrainedModel, batch: Batch) -> Float[Tensor, " B"]:
    """A reward model's score after each row's last token, found by length and never by token value."""
    hidden = hidden_states(model, batch.tokens, batch.lengths)
    return model.score(last(hidden, batch.lengths))[..., 0].float()  # pyright: ignore[reportCallIssue]


def score_only(scores: Float[Tensor, " B"], batch: Batch) -> PolicyOutput:
    """A reward model has no log-probs: reading them gives NaN."""
    undefined = torch.full(batch.mask.shape, torch.nan, device=batch.mask.device)
    return PolicyOutput(undefined, undefined, None, scores)
