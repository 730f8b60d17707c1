"""What is asked for a completion, and what the answer must be: anything else is a fault, never a sample."""

from __future__ import annotations

from collections.abc import Collection, Sequence
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
        named: the server calls weights by the trainer's versions; else it is not asked for them.
    """

    sampling: Sampling
    end_ids: Collection[int]
    vocabulary: int
    named: bool


def question(prompt: Sequence[int], seed: int, wanted: Wanted, *, first: bool = False) -> dict[str, Any]:
    """Every setting that changes the draw is said, so that no default of the server's counts.

    Args:
        first: before all that waits there: of a server that goes by priorities.
    """
    sampling = wanted.sampling
    urgent = {"priority": -1} if first else {}
    return urgent | {
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


def completion_of(answer: Any, wanted: Wanted, versions: Sequence[int]) -> Completion:
    """The completion of an answer.

    Args:
        versions: of the weights that were the server's while it was drawn, in their order.

    Raises: Fault naming what the answer is instead.
    """
    try:
        (choice,) = answer["choices"]
        ids, reason, content = choice["token_ids"], choice["finish_reason"], choice["logprobs"]["content"]
        named, values = [item["token_id"] for item in content], [item["logprob"] for item in content]
    except (KeyError, TypeError, ValueError) as error:
        raise Fault(f"its answer has not the form of a completion ({type(error).__name__}: {error})") from None
    _check_ids(ids, named, wanted)
    _check_logprobs(values, len(ids))
    spans = (choice.get("weight_versions") or answer.get("weight_versions")) if wanted.named else None
    (_, version), *changes = _drawn_from(spans, len(ids), versions)
    return Completion(
        tokens=tuple(ids), logprobs=tuple(min(value, 0.0) for value in values), stop=_stop(reason, ids, wanted),
        version=version, changes=tuple(changes),
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


def _drawn_from(spans: Any, count: int, versions: Sequence[int]) -> list[tuple[int, int]]:
    """(place, version), from the token at that place on: the server's spans, which must follow each other from the
    first token to the last, through weights that it had, in the order in which it had them.

    A server that says nothing has drawn all from the weights it had, where those are the same throughout.
    """
    if not spans:
        if len(versions) > 1:
            raise Fault(
                "it does not say which weights each token was drawn from (weight_versions), and they were updated on "
                "the way. Fix: --in-flight finish",
                hopeless=True,
            )
        return [(0, versions[0])]
    try:
        named = [(str(span["version"]), span["start"], span["end"]) for span in spans]
    except (KeyError, TypeError) as error:
        raise Fault(f"its weight_versions {spans!r} have not the form of spans ({type(error).__name__})") from None
    if [0, *(end for _, _, end in named)] != [*(start for _, start, _ in named), count]:
        raise Fault(f"its weight_versions {spans!r} are not of the {count} tokens of its completion")
    ours = {str(version): place for place, version in enumerate(versions)}
    if others := sorted({name for name, _, _ in named} - ours.keys()):
        theirs = f"are {versions[0]}" if len(versions) == 1 else f"were {', '.join(map(str, versions))} meanwhile"
        raise Fault(f"it drew tokens from weights {', '.join(others)}; the trainer's {theirs}", lasting=True)
    places = [ours[name] for name, _, _ in named]
    if places != sorted(set(places)):
        raise Fault(f"it went back to older weights: {', '.join(name for name, _, _ in named)}", lasting=True)
    return [(start, versions[place]) for place, (_, start, _) in zip(places, named, strict=True)]


def _stop(reason: Any, ids: Sequence[int], wanted: Wanted) -> StopReason:
    ended = ids[-1] in wanted.end_ids
    if reason == "stop" and ended:
        return StopReason.EOS
    if reason == "length" and len(ids) == wanted.sampling.max_new_tokens:
        return StopReason.EOS if ended else StopReason.LENGTH
    raise Fault(f"it stopped a completion of {len(ids)} tokens for {reason!r}, and its last token is {ids[-1]}")
