"""Who may ask: the right host, the right origin, the right token, to read and nothing else."""

from __future__ import annotations

import ipaddress
from collections.abc import Collection, Mapping
from dataclasses import dataclass
from http.cookies import CookieError, SimpleCookie
from secrets import compare_digest
from typing import Any
from urllib.parse import parse_qsl, urlencode

from oneloop.lab.answers import Refusal, encoded

POLICY = (
    "default-src 'none'; script-src 'self'; style-src 'self'; connect-src 'self'; img-src 'self' data:; "
    "font-src 'self'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
)
HEADERS = {
    "content-security-policy": POLICY,
    "x-content-type-options": "nosniff",
    "x-frame-options": "DENY",
    "referrer-policy": "no-referrer",
    "cross-origin-opener-policy": "same-origin",
    "cross-origin-resource-policy": "same-origin",
    "cache-control": "no-store",
}
"""With every answer, refusals included."""
COOKIE = "oneloop_lab"
LONGEST = 8192
"""Bytes of a path with its query."""


@dataclass(frozen=True)
class Door:
    """What a request must bring.

    A page of another site that a browser shows can send requests here, and after a change of its name's address it can
    read the answers (DNS rebinding). Its requests then bear the other site's name, in Host, and in Origin.

    Args:
        hosts: values of Host, exactly, port and all.
        addresses: a port; with it Host may be any bare address, which no name server can change. For servers that
            listen on all addresses.
        token: None: there is none.
    """

    hosts: Collection[str]
    addresses: int | None = None
    token: str | None = None

    def check(self, method: str, headers: Mapping[str, list[str]]) -> None:
        """Raises: Refusal, without a word about what runs there are."""
        if method not in ("GET", "HEAD"):
            raise Refusal(405, f"{method[:20]} changes things; here is only something to read", "GET")
        host = headers.get("host", [])
        if len(host) != 1 or not self._known(host[0]):
            raise Refusal(403, "this server does not go by that name", self._fix())
        for origin in headers.get("origin", []):
            scheme, _, name = origin.partition("://")
            if scheme != "http" or not self._known(name):
                raise Refusal(403, "another site's page may not read this", self._fix())
        if _has_body(headers):
            raise Refusal(413, "a request to read has no body", "leave it out")

    def knows(self, given: str | None) -> bool:
        """Whether a token is the right one; the time it takes does not tell how much of it is right."""
        return self.token is None or (given is not None and compare_digest(given.encode(), self.token.encode()))

    def _known(self, host: str) -> bool:
        if host.lower() in self.hosts:
            return True
        name, _, port = host.rpartition(":")
        if self.addresses is None or port != str(self.addresses):
            return False
        try:
            if name.startswith("["):
                return bool(ipaddress.IPv6Address(name[1:-1])) and name.endswith("]")
            return bool(ipaddress.IPv4Address(name))
        except ValueError:
            return False

    def _fix(self) -> str:
        port = next(iter(self.hosts)).rpartition(":")[2]
        return (
            f"open the address that oneloop lab printed; through ssh with the same port: ssh -L {port}:127.0.0.1:{port}"
        )


def _has_body(headers: Mapping[str, list[str]]) -> bool:
    return "transfer-encoding" in headers or any(size.strip() != "0" for size in headers.get("content-length", []))


class Guard:
    """ASGI: lets a request through the door or answers it, and puts its headers on every answer."""

    def __init__(self, app: Any, door: Door) -> None:
        self._app, self._door = app, door

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        if scope["type"] != "http":
            return await self._app(scope, receive, send) if scope["type"] == "lifespan" else None

        async def guarded(message: Any) -> None:
            if message["type"] == "http.response.start":
                given = [
                    (key, value) for key, value in message["headers"] if key.decode("latin-1").lower() not in HEADERS
                ]
                message["headers"] = [*given, *((key.encode(), value.encode()) for key, value in HEADERS.items())]
            await send(message)

        headers: dict[str, list[str]] = {}
        for key, value in scope["headers"]:
            headers.setdefault(key.decode("latin-1").lower(), []).append(value.decode("latin-1"))
        try:
            self._door.check(scope["method"], headers)
            if len(scope.get("raw_path") or b"") + len(scope["query_string"]) > LONGEST:
                raise Refusal(414, "that address is too long", "a shorter one")
            if self._door.token is not None and (cookie := self._enter(scope, headers)) is not None:
                return await _redirect(guarded, scope, cookie)
        except Refusal as refusal:
            return await _refuse(guarded, refusal, scope["method"])
        await self._app(scope, receive, guarded)
        return None

    def _enter(self, scope: Any, headers: Mapping[str, list[str]]) -> str | None:
        """Check the token, in a header, a cookie or the address; from there it moves into the returned cookie."""
        bearer = [value[7:] for value in headers.get("authorization", []) if value.lower().startswith("bearer ")]
        kept = [value for header in headers.get("cookie", []) if (value := _cookie(header)) is not None]
        if any(self._door.knows(one) for one in (*bearer, *kept)):
            return None
        asked = [value for key, value in parse_qsl(scope["query_string"].decode("latin-1")) if key == "token"]
        if asked and self._door.knows(asked[0]):
            return f"{COOKIE}={asked[0]}; Path=/; HttpOnly; SameSite=Strict"
        raise Refusal(
            401, "this server asks for its token", "open the address that oneloop lab printed, ?token=... and all"
        )


def _cookie(header: str) -> str | None:
    try:
        found = SimpleCookie(header).get(COOKIE)
    except CookieError:
        return None
    return None if found is None else found.value


async def _redirect(send: Any, scope: Any, cookie: str) -> None:
    """To the same address without the token, which would stay in the browser's history."""
    rest = [(key, value) for key, value in parse_qsl(scope["query_string"].decode("latin-1")) if key != "token"]
    # one slash: "//name" would lead to another host
    path = "/" + (scope.get("raw_path") or b"/").decode("latin-1").lstrip("/\\")
    place = path + ("?" + urlencode(rest) if rest else "")
    headers = [
        (b"location", place.encode("latin-1")),
        (b"set-cookie", cookie.encode("latin-1")),
        (b"content-length", b"0"),
    ]
    await send({"type": "http.response.start", "status": 303, "headers": headers})
    await send({"type": "http.response.body", "body": b""})


async def _refuse(send: Any, refusal: Refusal, method: str) -> None:
    body = encoded(refusal.body())
    headers = [
        (b"content-type", b"application/json"),
        (b"content-length", str(len(body)).encode()),
        (b"connection", b"close"),
    ]
    if refusal.status == 405:
        headers.append((b"allow", b"GET, HEAD"))
    await send({"type": "http.response.start", "status": refusal.status, "headers": headers})
    await send({"type": "http.response.body", "body": b"" if method == "HEAD" else body})
