"""Completions from vLLM, for the loop: a copy of the weights elsewhere, kept in step with the trainer's."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import closing
from functools import partial
from statistics import fmean
from typing import Any

from oneloop.errors import EngineError
from oneloop.ports import Finished
from oneloop.rollout.limits import check_lengths
from oneloop.rollout.vllm.alike import asked, each
from oneloop.rollout.vllm.faults import Fault, Patience, tried
from oneloop.rollout.vllm.requests import completions
from oneloop.rollout.vllm.server import Elsewhere, OfRank0, Server
from oneloop.rollout.vllm.weights import Source, check_version, send, takes_weights
from oneloop.rollout.vllm.wire import ROUTE, Wanted, completion_of, question
from oneloop.together import Alone, Crew
from oneloop.types import Completion, Sampling

ALONE = Alone()


class VllmEngine:
    """Implements `oneloop.ports.RolloutEngine`.

    Whatever fails is asked for again; then the server, if the run started it, is started again, once a call; then
    the run ends with one EngineError. Draws depend on prompt, seed and weights, so what is asked again is the same.

    Ranks share one server, and make the same calls in the same order. Rank 0 starts it, tells the others where it is,
    gives it the weights and ends it; each rank draws from it what it is asked for. What fails on one fails on all.

    Args:
        server: started at the first call, by rank 0.
        source: the trainer's weights.
        end_ids: tokens that end a completion.
        vocabulary: ids lie below it.
        context: most tokens of a prompt with its completion; None: unknown.
        told: hears what had to be mended.
        crew: the ranks.
        beside: completions are drawn while the ranks do something else together. Then several cannot meet to start
            the server again, and what fails on one ends the run.
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
        crew: Crew = ALONE,
        beside: bool = False,
    ) -> None:
        self.version = 0
        self._server: Server | Elsewhere | OfRank0 = server
        self._source, self._patience, self._told = source, patience, told
        self._crew, self._meets = crew, crew.ranks == 1 or not beside
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
        wanted = self._wanted(sampling)
        asked = zip(prompts, seeds, strict=True)
        left = {index: question(prompt, seed, wanted) for index, (prompt, seed) in enumerate(asked)}
        done: dict[int, Completion] = {}

        def draw() -> None:
            check_lengths(prompts, sampling, self._context)
            server = self._server
            if self._sends:
                check_version(server.client, self.version, self._patience)
            answers = completions(server.client, left, wanted, self.version, self._patience, server.check_alive)
            with closing(answers):
                for index, completion in answers:
                    del left[index]
                    done[index] = completion
                    finished(index, completion)

        if self._meets:
            self._surely(partial(each, self._crew, draw))
        else:
            self._surely(lambda: None)
            self._once(draw)
        return [done[index] for index in range(len(prompts))]

    def close(self) -> None:
        """End the server, if the run started it."""
        self._server.close()
        self._running, self._held = False, None

    def _wanted(self, sampling: Sampling) -> Wanted:
        return Wanted(sampling, self._end_ids, self._vocabulary, self.version if self._sends else None)

    def _surely(self, work: Callable[[], None]) -> None:
        """`work`, whose Faults are the same on all ranks, on a server with the weights.

        Raises: EngineError.
        """
        try:
            return self._with_weights(work)
        except Fault as fault:
            name, first = self._cause(fault)
            if first.hopeless or not self._ours:
                self.close()
                raise _error(name, first) from None
        what = str(first).partition("\n")[0]
        self._told(f"{name}: {what}")
        self.close()
        try:
            self._with_weights(work)
        except Fault as fault:
            error = _error(*self._cause(fault), f"It was started again before, for: {what}. ")
            self.close()
            raise error from None

    def _once(self, work: Callable[[], None]) -> None:
        """Raises: EngineError, on this rank: the server is left as the others know it."""
        try:
            work()
        except Fault as fault:
            raise _error(self._server.name, self._server.cause(fault)) from None

    def _cause(self, fault: Fault) -> tuple[str, Fault]:
        """Whose fault it is, as rank 0 knows it."""
        name, words = self._asked(lambda: [self._server.name, self._server.cause(fault).words()])
        return name, Fault(**words)

    def _with_weights(self, work: Callable[[], None]) -> None:
        if not self._running:
            self._start()
            self._running = True
        if self._held != self.version and self._sends:
            tried(self._send, self._patience, lambda: self._asked(self._server.check_alive))
        work()

    def _start(self) -> None:
        def started() -> list[str]:
            self._server.start()
            client = self._server.client
            return [client.address, client.key, self._server.name, str(self._server.folder)]

        where = self._asked(started)
        if self._crew.rank:
            self._server = OfRank0(*where)

    def _send(self) -> None:
        self._held = None
        server, how = self._server, {"ours": self._ours, "crew": self._crew}
        send(server.client, server.folder, self._source, self.version, self._patience, **how)
        self._check_probe()
        self._held = self.version

    def _check_probe(self) -> None:
        """Raises: Fault where the server answers as other weights would."""
        source = self._source
        tokens, drawn = self._asked(self._probed)
        trained = source.logprobs(source.probe, tokens)
        gap = self._crew.agree(fmean(abs(a - b) for a, b in zip(trained, drawn, strict=True)))
        if not gap <= source.most:
            raise Fault(
                f"after weights {self.version} were loaded it answers as other weights would: its log-probs of a probe "
                f"are {gap:.3g} nats a token from the trainer's, and may be {source.most:g}"
            )

    def _probed(self) -> list[list[Any]]:
        """The server's answer to the probe, and its log-probs."""
        client, wanted = self._server.client, self._wanted(self._source.sampling)
        check_version(client, self.version, self._patience)
        asked = question(self._source.probe, self.version, wanted)
        answer = client.json("POST", ROUTE, self._patience.silence, asked)
        completion = completion_of(answer, wanted, self.version)
        return [list(completion.tokens), list(completion.logprobs)]

    def _asked(self, work: Callable[[], Any]) -> Any:
        """Of rank 0, for all."""
        return asked(self._crew, work)

    def _takes_weights(self) -> bool:
        look = partial(takes_weights, self._server.client, self._patience)
        try:
            return self._asked(lambda: tried(look, self._patience, lambda: None))
        except Fault as fault:
            raise _error(self._server.name, fault) from None


def _error(name: str, fault: Fault, before: str = "") -> EngineError:
    return EngineError(
        f"{name}: {fault}. {before}Fix: what it says there; --resume goes on from the last checkpoint, and --engine "
        "builtin samples without it"
    )
