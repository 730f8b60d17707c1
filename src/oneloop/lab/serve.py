"""The server: one socket, small limits, an address to open."""

from __future__ import annotations

import asyncio
import errno
import ipaddress
import logging
import socket
from collections.abc import Callable, Sequence
from pathlib import Path
from secrets import token_urlsafe

import uvicorn
from uvicorn.protocols.http.h11_impl import H11Protocol

from oneloop.errors import ConfigError
from oneloop.lab.app import app
from oneloop.lab.catalog import Catalog
from oneloop.lab.guard import Door

EVERYWHERE = ("0.0.0.0", "::")
"""All addresses of this machine."""
PORT, TRIED = 8765, 50
"""The port that is tried first, and how many after it."""
SLOW = 10.0
"""Seconds in which a connection must have sent its whole request."""
HEAD = 16 * 2**10
"""Bytes of a request's head."""
CONNECTIONS = 512


class Patient(H11Protocol):
    """A connection that is closed when no whole request came in time: slow ones could otherwise hold every socket."""

    _deadline: asyncio.TimerHandle | None = None

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        super().connection_made(transport)
        self._deadline = self.loop.call_later(SLOW, self._give_up)

    def _give_up(self) -> None:
        if self.cycle is None or self.cycle.response_complete:
            self.transport.close()

    def connection_lost(self, exc: Exception | None) -> None:
        if self._deadline is not None:
            self._deadline.cancel()
        super().connection_lost(exc)

    def data_received(self, data: bytes) -> None:
        super().data_received(data)
        if self.cycle is not None and self._deadline is not None:
            self._deadline.cancel()
            self._deadline = None

    def on_response_complete(self) -> None:
        super().on_response_complete()
        if self._deadline is None and not self.transport.is_closing():
            self._deadline = self.loop.call_later(SLOW, self._give_up)


def listening(host: str, port: int | None) -> socket.socket:
    """A socket on the port, or on the first free one from 8765 where none is asked for.

    Raises: ConfigError.
    """
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    for number in [port] if port is not None else range(PORT, PORT + TRIED):
        made = socket.socket(family, socket.SOCK_STREAM)
        made.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            made.bind((host, number))
            made.listen(128)
        except OSError as error:
            made.close()
            if port is None and error.errno == errno.EADDRINUSE:
                continue
            raise ConfigError(
                f"{host}:{number} cannot be listened on ({error.strerror}). Fix: another --port"
            ) from error
        return made
    raise ConfigError(f"the ports {PORT} to {PORT + TRIED - 1} are all taken. Fix: --port N with a free one")


def door(host: str, port: int, token: str | None) -> Door:
    """Who may ask a server that listens there."""
    names = {host} if ":" not in host else {f"[{host}]"}
    if is_loopback(host):
        names |= {"localhost"}
    else:
        names |= {socket.gethostname().lower()}
    hosts = {f"{name.lower()}:{port}" for name in names}
    if port == 80:
        hosts |= {name.lower() for name in names}
    return Door(frozenset(hosts), port if host in EVERYWHERE else None, token)


def is_loopback(host: str) -> bool:
    try:
        return host == "localhost" or ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False


def serve(
    roots: Sequence[Path],
    *,
    host: str,
    port: int | None,
    token: str | None,
    demo: Path | None,
    opened: Callable[[str], None],
) -> None:
    """Answer until interrupted.

    Args:
        token: asked for from everyone; None: none on this machine's own address, a random one elsewhere.
        opened: called with the address once it can be asked.
    """
    if not is_loopback(host):
        token = token or token_urlsafe(24)
    made = listening(host, port)
    number = made.getsockname()[1]
    shown = socket.gethostname() if host in EVERYWHERE else f"[{host}]" if ":" in host else host
    address = f"http://{shown}:{number}/" + (f"?token={token}" if token else "")
    config = uvicorn.Config(
        app(Catalog(roots), door(host, number, token), demo),
        http=Patient, ws="none", loop="asyncio", lifespan="off", interface="asgi3",
        log_level=logging.ERROR, access_log=False, server_header=False, proxy_headers=False,
        limit_concurrency=CONNECTIONS, backlog=128, timeout_keep_alive=5, timeout_graceful_shutdown=1,
        h11_max_incomplete_event_size=HEAD,
    )  # fmt: skip
    server = uvicorn.Server(config)

    async def run() -> None:
        opened(address)
        await server.serve(sockets=[made])

    with made:
        asyncio.run(run())
