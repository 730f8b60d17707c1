"""What is asked for a completion, and what the answer must be: anything else is a fault, never a sample."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from oneloop.rollout.vllm.faults import Fault
from oneloop.types import Completion, Sampling, StopReason

ROUTE = "/inference/v1/generate"
ABSENT = -9999.0
"""What vLLM writes where it has no log-prob, or one that is not a number."""


@dataclass(frozen=True)
class Wanted:
    """What every completion of a call must keep to.

    Args:
        end_ids: tokens that end one.
        vocabulary: ids lie below it.
        version: of the weights, as the server calls it; None: it is not asked.
    """

    sampling: Sampling
    end_ids: Collection[int]
    vocabulary: int
    version: int | None


def question(prompt: Sequence[int], seed: int, wanted: Wanted) -> dict[str, Any]:
    """Every setting that changes the draw is said, so that no default of the server's counts."""
    sampling = wanted.sampling
    return {
        "token_ids": list(prompt),
        "sampling_params": {
            "n": 1, "max_tokens": sampling.max_new_tokens, "min_tokens": 0, "seed": seed,
            "temperature": sampling.temperature, "top_k": sampling.top_k, "top_p": sampling.top_p, "min_p": 0.0,
            "repetition_penalty": 1.0, "presence_penalty": 0.0, "frequency_penalty": 0.0,
            "stop_token_ids": sorted(wanted.end_ids), "ignore_eos": True,  # the ends are the trainer's, not the model's
            "logprobs": 0, "detokenize": False,
        },
        "stream": False,
    }  # fmt: skip


def completion_of(answer: Any, wanted: Wanted, version: int) -> Completion:
    """Raises: Fault naming what the answer is instead."""
    try:
        (choice,) = answer["choices"]
        ids, reason, content = choice["token_ids"], choice["finish_reason"], choice["logprobs"]["content"]
        named, values = [item["token_id"] for item in content], [item["logprob"] for item in content]
    except (KeyError, TypeError, ValueError) as error:
        raise Fault(f"its answer has not the form of a completion ({type(error).__name__}: {error})") from None
    _check_ids(ids, named, wanted)
    _check_logprobs(values, len(ids))
    _check_version(choice, answer, wanted)
    return Completion(
        tokens=tuple(ids), logprobs=tuple(min(value, 0.0) for value in values), stop=_stop(reason, ids, wanted),
        version=version,
    )  # fmt: skip


def _check_ids(ids: Any, named: Sequence[Any], wanted: Wanted) -> None:
    most = wanted.sampling.max_new_tokens
    if not isinstance(ids, list) or not 1 <= len(ids) <= most:
        raise Fault(f"it answered {ids!r}, where 1 to {most} token ids were asked for")
    if strange := [token for token in ids if type(token) is not int or not 0 <= token < wanted.vocabulary]:
        raise Fault(f"it answered the token id {strange[0]!r}; the vocabulary has 0 to {wanted.vocabulary - 1}")
    # the log-probs say themselves whose they are
    if list(named) != ids:
        raise Fault(f"its log-probs are of {len(named)} tokens {named[:4]}…, its completion is {len(ids)}: {ids[:4]}…")
    if early := [token for token in ids[:-1] if token in wanted.end_ids]:
        raise Fault(f"it went on after the end token {early[0]}")


def _check_logprobs(values: Sequence[Any], count: int) -> None:
    bad = [value for value in values if not (isinstance(value, int | float) and ABSENT < value <= 1e-4)]
    if bad:
        raise Fault(f"it answered the log-prob {bad[0]!r} among {count}; wanted finite values ≤ 0")


def _check_version(choice: Mapping[str, Any], answer: Mapping[str, Any], wanted: Wanted) -> None:
    """Of each token, where the server says it."""
    spans = choice.get("weight_versions") or answer.get("weight_versions") or ()
    others = sorted({str(span.get("version")) for span in spans} - {str(wanted.version)})
    if wanted.version is not None and others:
        raise Fault(
            f"it drew tokens from weights {', '.join(others)}; the trainer's are {wanted.version}", lasting=True
        )


def _stop(reason: Any, ids: Sequence[int], wanted: Wanted) -> StopReason:
    ended = ids[-1] in wanted.end_ids
    if reason == "stop" and ended:
        return StopReason.EOS
    if reason == "length" and len(ids) == wanted.sampling.max_new_tokens:
        return StopReason.EOS if ended else StopReason.LENGTH
    raise Fault(f"it stopped a completion of {len(ids)} tokens for {reason!r}, and its last token is {ids[-1]}")
