"""Completions from vLLM, for the loop: a copy of the weights elsewhere, kept in step with the trainer's."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import closing
from statistics import fmean
from typing import TypeVar

from oneloop.errors import EngineError
from oneloop.ports import Finished
from oneloop.rollout.limits import check_lengths
from oneloop.rollout.vllm.faults import Fault, Patience, tried
from oneloop.rollout.vllm.requests import completions
from oneloop.rollout.vllm.server import Elsewhere, Server
from oneloop.rollout.vllm.weights import Source, check_version, send, takes_weights
from oneloop.rollout.vllm.wire import ROUTE, Wanted, completion_of, question
from oneloop.types import Completion, Sampling

T = TypeVar("T")


class VllmEngine:
    """Implements `oneloop.ports.RolloutEngine`.

    Whatever fails is asked for again; then the server, if the run started it, is started again, once a call; then
    the run ends with one EngineError. Draws depend on prompt, seed and weights, so what is asked again is the same.

    Args:
        server: started at the first call.
        source: the trainer's weights.
        end_ids: tokens that end a completion.
        vocabulary: ids lie below it.
        context: most tokens of a prompt with its completion; None: unknown.
        told: hears what had to be mended.
    """

    exact = False

    def __init__(
        self,
        server: Server | Elsewhere,
        source: Source,
        end_ids: Sequence[int],
        *,
        vocabulary: int,
        context: int | None,
        patience: Patience,
        told: Callable[[str], None],
    ) -> None:
        self.version = 0
        self._server, self._source, self._patience, self._told = server, source, patience, told
        self._end_ids, self._vocabulary, self._context = frozenset(end_ids), vocabulary, context
        self._running = False
        self._held: int | None = None  # whose weights the server has; None: nobody's
        self._ours = isinstance(server, Server)
        self._sends = self._ours or self._takes_weights()
        sent = "are sent after each update" if self._sends else (
            "are NOT sent: it has no routes for them (vLLM's VLLM_SERVER_DEV_MODE=1), and every sample comes from the "
            "weights it was started with"
        )  # fmt: skip
        self.note = f"sampled by {server.name}: log-probs are its own, the weights {sent}"

    def update(self, version: int) -> None:
        """Raises: EngineError where the weights cannot be brought over."""
        if self._sends:
            self.version, self._held = version, None
            self._surely(lambda: None)

    def generate(
        self,
        prompts: Sequence[Sequence[int]],
        sampling: Sampling,
        seeds: Sequence[int],
        finished: Finished = lambda index, completion: None,
    ) -> list[Completion]:
        """Raises: ConfigError for a prompt that does not fit, EngineError."""
        check_lengths(prompts, sampling, self._context)
        wanted = self._wanted(sampling)
        asked = zip(prompts, seeds, strict=True)
        left = {index: question(prompt, seed, wanted) for index, (prompt, seed) in enumerate(asked)}
        done: dict[int, Completion] = {}

        def draw() -> None:
            server = self._server
            if self._sends:
                check_version(server.client, self.version, self._patience)
            answers = completions(server.client, left, wanted, self.version, self._patience, server.check_alive)
            with closing(answers):
                for index, completion in answers:
                    del left[index]
                    done[index] = completion
                    finished(index, completion)

        self._surely(draw)
        return [done[index] for index in range(len(prompts))]

    def close(self) -> None:
        """End the server, if the run started it."""
        self._server.close()
        self._running, self._held = False, None

    def _wanted(self, sampling: Sampling) -> Wanted:
        return Wanted(sampling, self._end_ids, self._vocabulary, self.version if self._sends else None)

    def _surely(self, work: Callable[[], T]) -> T:
        """Raises: EngineError."""
        try:
            return self._with_weights(work)
        except Fault as fault:
            first = self._server.cause(fault)
            if first.hopeless or not self._ours:
                raise self._error(first) from None
        what = str(first).partition("\n")[0]
        self._told(f"{self._server.name}: {what}")
        self.close()
        try:
            return self._with_weights(work)
        except Fault as fault:
            raise self._error(self._server.cause(fault), f"It was started again before, for: {what}. ") from None

    def _with_weights(self, work: Callable[[], T]) -> T:
        if not self._running:
            self._server.start()
            self._running = True
        if self._held != self.version and self._sends:
            tried(self._send, self._patience, self._server.check_alive)
        return work()

    def _send(self) -> None:
        self._held = None
        client = self._server.client
        send(client, self._server.folder, self._source, self.version, self._patience, ours=self._ours)
        check_version(client, self.version, self._patience)
        self._check_probe()
        self._held = self.version

    def _check_probe(self) -> None:
        """Raises: Fault where the server answers as other weights would."""
        source, wanted = self._source, self._wanted(self._source.sampling)
        asked = question(source.probe, self.version, wanted)
        answer = self._server.client.json("POST", ROUTE, self._patience.silence, asked)
        completion = completion_of(answer, wanted, self.version)
        trained = source.logprobs(source.probe, completion.tokens)
        gap = fmean(abs(a - b) for a, b in zip(trained, completion.logprobs, strict=True))
        if not gap <= source.most:
            raise Fault(
                f"after weights {self.version} were loaded it answers as other weights would: its log-probs of a probe "
                f"are {gap:.3g} nats a token from the trainer's, and may be {source.most:g}"
            )

    def _takes_weights(self) -> bool:
        try:
            return tried(lambda: takes_weights(self._server.client, self._patience), self._patience, lambda: None)
        except Fault as fault:
            raise self._error(fault) from None

    def _error(self, fault: Fault, before: str = "") -> EngineError:
        self.close()
        return EngineError(
            f"{self._server.name}: {fault}. {before}Fix: what it says there; --resume goes on from the last "
            "checkpoint, and --engine builtin samples without it"
        )
