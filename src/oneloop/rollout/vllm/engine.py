"""Completions from vLLM, for the loop: a copy of the weights elsewhere, kept in step with the trainer's."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import closing
from functools import partial
from itertools import chain, repeat
from statistics import fmean
from typing import Any

from oneloop.errors import EngineError
from oneloop.ports import Finished
from oneloop.rollout.limits import check_lengths
from oneloop.rollout.vllm.alike import asked, each
from oneloop.rollout.vllm.client import Client
from oneloop.rollout.vllm.current import Current
from oneloop.rollout.vllm.faults import Fault, Patience, tried
from oneloop.rollout.vllm.requests import Link, completions
from oneloop.rollout.vllm.server import Elsewhere, OfRank0, Server
from oneloop.rollout.vllm.weights import Pause, Source, check_version, send, takes_weights
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
        keeps: requests that others sent go on across an update. The server goes by priorities: what the trainer waits
            for comes before them.
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
        keeps: bool = False,
    ) -> None:
        self.version, self.current, self.crew = 0, Current(), crew
        self._server: Server | Elsewhere | OfRank0 = server
        self._source, self._patience, self._told = source, patience, told
        self.keeps = keeps
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
            with self.current.update(version):
                self.surely(lambda: None)

    def generate(
        self,
        prompts: Sequence[Sequence[int]],
        sampling: Sampling,
        seeds: Sequence[int],
        finished: Finished = lambda index, completion: None,
    ) -> list[Completion]:
        """Raises: ConfigError for a prompt that does not fit, EngineError."""
        left = self.questions(prompts, sampling, seeds, first=self.keeps)
        done: dict[int, Completion] = {}

        def came(index: int, completion: Completion) -> None:
            done[index] = completion
            finished(index, completion)

        def draw() -> None:
            self.check_version()
            self.draw(prompts, sampling, left, self.link(), came)

        self.surely(partial(each, self.crew, draw))
        return [done[index] for index in range(len(prompts))]

    def questions(
        self, prompts: Sequence[Sequence[int]], sampling: Sampling, seeds: Sequence[int], *, first: bool = False
    ) -> dict[int, dict[str, Any]]:
        """By the places of their prompts.

        Args:
            first: before what was begun and waits.
        """
        asked, wanted = zip(prompts, seeds, strict=True), self._wanted(sampling)
        return {index: question(prompt, seed, wanted, first=first) for index, (prompt, seed) in enumerate(asked)}

    def link(self) -> Link:
        """To the server, for a call of `draw`."""
        client = self._server.client
        return Link(Client(client.address, client.key), self.current.life)

    def draw(
        self,
        prompts: Sequence[Sequence[int]],
        sampling: Sampling,
        left: dict[int, dict[str, Any]],
        link: Link,
        came: Finished,
    ) -> None:
        """Draws what is left of some questions; `came` hears of each completion, whose question is left no more.

        Raises: ConfigError, Fault.
        """
        check_lengths(prompts, sampling, self._context)
        wanted, check_alive = self._wanted(sampling), self._server.check_alive
        with closing(completions(link, left, wanted, self.current, self._patience, check_alive)) as answers:
            for index, completion in answers:
                del left[index]
                came(index, completion)

    def check_version(self) -> None:
        """Raises: Fault where the server has other weights than it was given."""
        if self._sends:
            check_version(self._server.client, self.version, self._patience)

    def close(self) -> None:
        """End the server, if the run started it."""
        self.current.void()
        self._server.close()
        self._running, self._held = False, None

    def _wanted(self, sampling: Sampling) -> Wanted:
        return Wanted(sampling, self._end_ids, self._vocabulary, self._sends)

    def surely(self, work: Callable[[], None]) -> None:
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

    def failure(self, fault: Fault) -> EngineError:
        """What a fault is to this rank alone: the server is left as the others know it."""
        return _error(self._server.name, self._server.cause(fault))

    def _cause(self, fault: Fault) -> tuple[str, Fault]:
        """Whose fault it is, as rank 0 knows it."""
        name, words = self._asked(lambda: [self._server.name, self._server.cause(fault).words()])
        return name, Fault(**words)

    def _with_weights(self, work: Callable[[], None]) -> None:
        if not self._running:
            self._start()
            self._running = True
        if self._held != self.version and self._sends:
            pauses = chain[Pause](["keep"] if self.keeps else [], repeat("abort"))
            tried(lambda: self._send(next(pauses)), self._patience, self._once_more)
        work()

    def _once_more(self) -> None:
        """What the server drew after weights that failed their checks may be anybody's."""
        self.current.void()
        self._asked(self._server.check_alive)

    def _start(self) -> None:
        def started() -> list[str]:
            self._server.start()
            client = self._server.client
            return [client.address, client.key, self._server.name, str(self._server.folder)]

        where = self._asked(started)
        if self.crew.rank:
            self._server = OfRank0(*where)

    def _send(self, pause: Pause) -> None:
        self._held = None
        server, how = self._server, {"ours": self._ours, "crew": self.crew}
        send(server.client, server.folder, self._source, self.version, self._patience, pause, **how)
        self._check_probe()
        self._held = self.version

    def _check_probe(self) -> None:
        """Raises: Fault where the server answers as other weights would."""
        source = self._source
        tokens, drawn = self._asked(self._probed)
        trained = source.logprobs(source.probe, tokens)
        gap = self.crew.agree(fmean(abs(a - b) for a, b in zip(trained, drawn, strict=True)))
        if not gap <= source.most:
            raise Fault(
                f"after weights {self.version} were loaded it answers as other weights would: its log-probs of a probe "
                f"are {gap:.3g} nats a token from the trainer's, and may be {source.most:g}"
            )

    def _probed(self) -> list[list[Any]]:
        """The server's answer to the probe, and its log-probs."""
        client, wanted = self._server.client, self._wanted(self._source.sampling)
        self.check_version()
        asked = question(self._source.probe, self.version, wanted, first=self.keeps)
        answer = client.json("POST", ROUTE, self._patience.silence, asked)
        completion = completion_of(answer, wanted, [self.version])
        return [list(completion.tokens), list(completion.logprobs)]

    def _asked(self, work: Callable[[], Any]) -> Any:
        """Of rank 0, for all."""
        return asked(self.crew, work)

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
