"""Environments of verifiers by name, and what all their episodes share: tasks, tool servers and the endpoint."""

from __future__ import annotations

import asyncio
import json
import sys
from collections.abc import Awaitable, Callable, Iterator, Mapping
from typing import Any

from oneloop.environments.verifiers import SCHEME
from oneloop.environments.verifiers.episode import Episode
from oneloop.errors import ConfigError
from oneloop.rewards.blame import described
from oneloop.rewards.load import found

_KNOWN: dict[str, Loaded] = {}
"""By name: the rows of --data and the environment are of the same tasks."""
_END = object()
KEY = "ONELOOP_POLICY_KEY"
"""Environment variable that verifiers would read a key from: the endpoint asks for none."""


class Loaded:
    """Implements `Origin`.

    Args:
        env: a `verifiers.v1.Env`.
    """

    def __init__(self, env: Any) -> None:
        self.env = env
        self.name = str(env.config.env_id).rpartition("/")[2]
        self._tasks: list[Any] = []
        self._iterator: Iterator[Any] | None = None
        self._broken = ""
        self._serving: asyncio.Task[None] | None = None
        self._ready: asyncio.Future[Any] | None = None
        self._over: asyncio.Event | None = None

    def task(self, number: int) -> Any:
        """Raises: ConfigError where the taskset has fewer, or fails at one."""
        if not self._has(number):
            raise ConfigError(f"the taskset of {self.name} has {len(self._tasks)} tasks, and no number {number}")
        return self._tasks[number]

    def _has(self, number: int) -> bool:
        """Raises: ConfigError where the taskset fails before it comes there."""
        while len(self._tasks) <= number:
            if self._broken:  # what raised once would say next that it is at its end
                raise ConfigError(self._broken)
            try:
                self._iterator = iter(self.env.taskset) if self._iterator is None else self._iterator
                following = next(self._iterator, _END)
            except Exception as error:  # of its own making: a row that is damaged, or lacks something
                self._broken = f"row {len(self._tasks)} of the taskset of {self.name}: {_reason(error)}"
                raise ConfigError(self._broken) from error
            if following is _END:
                return False
            self._tasks.append(following)
        return True

    def tasks(self) -> Iterator[tuple[int, Any]]:
        """All of them, by number; endless where the taskset is."""
        number = 0
        while self._has(number):
            yield number, self._tasks[number]
            number += 1

    def make(self) -> Episode:
        return Episode(self)

    async def running(self, row: Mapping[str, Any], minted: Callable[[Any], None]) -> asyncio.Task[Any]:
        if row.get("task") is None:
            raise ValueError(f"the row has no column task, the number of one of {self.name}'s. Fix: --data {SCHEME}...")
        task, context = self.task(int(row["task"])), await self._context()
        return asyncio.ensure_future(_kept(self.env.run_episode(task, context, on_trace=minted)))

    def expect(self, trace: Any, ask: Any) -> None:
        self._endpoint.expect(trace.id, ask)

    def forget(self, trace: Any) -> None:
        self._endpoint.forget(trace.id)

    async def close(self) -> None:
        """End the servers. Whoever plays again starts others."""
        serving, self._serving = self._serving, None
        if serving is not None and self._over is not None:
            self._over.set()
            await serving

    async def _context(self) -> Any:
        """Where the policy is asked, once it can be."""
        if self._serving is None:
            self._over, self._ready = asyncio.Event(), asyncio.get_running_loop().create_future()
            self._serving = asyncio.ensure_future(_kept(self._serve(self._ready, self._over)))
        assert self._ready is not None, "made with the task"
        return await asyncio.shield(self._ready)

    async def _serve(self, ready: asyncio.Future[Any], over: asyncio.Event) -> None:
        """One task that enters and leaves all of it, as its scopes want."""
        import verifiers.v1 as vf  # noqa: PLC0415  an extra

        from oneloop.environments.verifiers.endpoint import Endpoint  # noqa: PLC0415  aiohttp comes with it

        self._endpoint = Endpoint()
        try:
            await self._endpoint.start()
            async with self.env.serving():
                client = vf.EvalClientConfig(base_url=self._endpoint.address, api_key_var=KEY)
                ready.set_result(vf.ModelContext(model="policy", client=client))
                await over.wait()
        except (Exception, SystemExit) as error:
            if ready.done():
                raise
            ready.set_exception(RuntimeError(described(error)))
            ready.exception()  # whoever waits hears it; nobody need
            self._serving = None
        finally:
            await self._endpoint.stop()


async def _kept(work: Awaitable[Any]) -> Any:
    """asyncio would end the loop with it, and everybody's episodes."""
    try:
        return await work
    except SystemExit as error:
        raise RuntimeError(described(error)) from None


def loaded(spec: str, flag: str = "--environment") -> Loaded:
    """Of `verifiers:ID`, an installed taskset, with `?setting=value&...` of its configuration; or of
    `verifiers:file.py:NAME` and `verifiers:package.module:NAME`, an `Env`, an `EnvConfig`, or what returns one.

    Raises: ConfigError where verifiers is not installed, or there is no such environment.
    """
    try:
        import verifiers.v1 as vf  # noqa: PLC0415  an extra
    except ImportError as error:
        raise ConfigError(
            f'{flag} {spec} needs verifiers 0.4 ({error}). Fix: pip install "oneloop[verifiers]"'
        ) from error
    del vf
    if spec not in _KNOWN:
        _KNOWN[spec] = _loaded(spec, flag)
    return _KNOWN[spec]


def _loaded(spec: str, flag: str) -> Loaded:
    ident = spec.removeprefix(SCHEME)
    words = f"{flag} {spec}"
    plain, _, query = ident.partition("?")
    try:
        return Loaded(_of_object(ident, flag, words) if ":" in plain else _of_taskset(plain, query, words))
    except ConfigError:
        raise
    except ModuleNotFoundError as error:
        raise ConfigError(f"{words}: {str(error).rstrip('.')}. Fix: install the package that has it") from error
    except Exception as error:  # of its own making: a taskset's constructor, a configuration that does not fit
        raise ConfigError(f"{words}: {_reason(error)}") from error


def _reason(error: Exception) -> str:
    """In one line: pydantic's has several, and an address."""
    if not callable(wrong := getattr(error, "errors", None)):
        return described(error)
    return "; ".join(f"{'.'.join(map(str, one['loc']))}: {one['msg']}" for one in wrong())  # pyright: ignore[reportGeneralTypeIssues]


def _of_object(ident: str, flag: str, words: str) -> Any:
    import verifiers.v1 as vf  # noqa: PLC0415

    try:
        value = found(ident, flag, "NAME")
    except ConfigError as error:
        raise ConfigError(str(error).replace(f"{flag} {ident}", words, 1)) from error
    value = value() if callable(value) and not isinstance(value, vf.Env) else value
    if isinstance(value, vf.EnvConfig):
        value = vf.load_environment(value)
    if not isinstance(value, vf.Env):
        raise ConfigError(f"{words}: it is a {type(value).__name__}; wanted an Env or an EnvConfig of verifiers.v1")
    return value


def _of_taskset(ident: str, query: str, words: str) -> Any:
    """With `Chat` as its program, where it has none of its own."""
    import verifiers.v1 as vf  # noqa: PLC0415
    from verifiers.v1.configs.agent import agent_config_fields  # noqa: PLC0415

    from oneloop.environments.verifiers import program  # noqa: PLC0415

    settings: dict[str, Any] = {}
    for pair in query.split("&") if query else ():
        key, equals, text = pair.partition("=")
        if not equals or not key:
            raise ConfigError(f"{words}: {pair!r}; wanted setting=value")
        settings[key] = _value(text)
    config = vf.resolve_env_config({"taskset": {"id": ident, **settings}})
    if vf.default_harness_id(ident) == "bash":
        # verifiers finds plugins by the names of modules that stand in no package
        sys.modules.setdefault(program.PLUGIN.replace("-", "_"), program)
        here = not vf.task_type(ident).NEEDS_CONTAINER
        config = config.model_copy(
            update={name: _seated(seat, here=here) for name, seat in agent_config_fields(config).items()}
        )
    return vf.load_environment(config)


def _seated(seat: Any, *, here: bool) -> Any:
    """A seat that the taskset leaves open, with `Chat`; in a process of this machine, where it is not said."""
    import verifiers.v1 as vf  # noqa: PLC0415

    from oneloop.environments.verifiers.program import PLUGIN  # noqa: PLC0415

    if seat.harness is not None:
        return seat
    place = {"runtime": vf.SubprocessConfig()} if here and "runtime" not in seat.model_fields_set else {}
    program = vf.HarnessConfig.model_validate({"id": PLUGIN})
    return seat.model_copy(update={"harness": program, **place})


def _value(text: str) -> Any:
    try:
        return json.loads(text)
    except ValueError:
        return text
