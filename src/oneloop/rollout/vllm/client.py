"""HTTP to the server: JSON there and back, a connection a request, every failure one `Fault`.

The standard library's client in threads: sampling needs neither streams nor a pool (a connection on one machine takes
0.1 ms, a request many times that), and no dependency is worth two calls.
"""

from __future__ import annotations

import json
import socket
from collections.abc import Iterator, Mapping
from contextlib import closing, contextmanager, suppress
from http.client import HTTPConnection, HTTPException, HTTPSConnection
from threading import Lock
from typing import Any
from urllib.parse import urlsplit

from oneloop.rollout.vllm.faults import Fault

SHOWN = 300
"""Characters of an answer that an error quotes."""


class Client:
    """Requests to one address.

    Args:
        address: http://HOST:PORT, or https.
        key: sent with every request; empty: none.
    """

    def __init__(self, address: str, key: str) -> None:
        self.address, self.key = address, key
        self._parts = urlsplit(address)
        self._headers = {"Content-Type": "application/json", "Connection": "close"}
        if key:
            self._headers["Authorization"] = f"Bearer {key}"
        self._open: set[HTTPConnection] = set()
        self._lock = Lock()

    def json(self, method: str, path: str, timeout: float, body: Mapping[str, Any] | None = None) -> Any:
        """Raises: Fault."""
        data = self.bytes(method, path, timeout, body)
        try:
            return json.loads(data or b"null")
        except ValueError:
            raise Fault(f"{path} answered what is not JSON: {_quoted(data)}") from None

    def bytes(self, method: str, path: str, timeout: float, body: Mapping[str, Any] | None = None) -> bytes:
        """The answer's body.

        Raises: Fault for another status than 200 too.
        """
        content = None if body is None else json.dumps(body, allow_nan=False)
        try:
            with self._connection(timeout) as connection:
                connection.request(method, self._parts.path.rstrip("/") + path, content, self._headers)
                # it keeps the socket open where it is not read to its end
                with closing(connection.getresponse()) as response:
                    data = response.read()
        except TimeoutError:
            raise Fault(f"{path} did not answer within {timeout:g} s", lasting=True) from None
        except (OSError, HTTPException) as error:
            raise Fault(f"{path}: the connection failed ({type(error).__name__}: {error})", cut=True) from None
        if response.status == 200:
            return data
        text = f"{path} answered {response.status}: {_quoted(data)}"
        if response.status == 401:
            raise Fault(f"{text}. The key is wrong", hopeless=True)
        raise Fault(text, lasting=response.status < 500, status=response.status)

    @contextmanager
    def _connection(self, timeout: float) -> Iterator[HTTPConnection]:
        kind = HTTPSConnection if self._parts.scheme == "https" else HTTPConnection
        connection = kind(self._parts.hostname or "", self._parts.port, timeout=timeout)
        with self._lock:
            self._open.add(connection)
        try:
            yield connection
        finally:
            with self._lock:
                self._open.discard(connection)
            connection.close()

    def drop(self) -> None:
        """Break off what is under way: whoever waits for it hears a `Fault`, and the server stops to draw for it."""
        with self._lock:
            under_way = list(self._open)
        for connection in under_way:
            with suppress(OSError, AttributeError):  # not connected yet
                connection.sock.shutdown(socket.SHUT_RDWR)


def _quoted(data: bytes) -> str:
    text = data.decode("utf-8", "replace")
    return repr(text if len(text) <= SHOWN else f"{text[:SHOWN]}…")
