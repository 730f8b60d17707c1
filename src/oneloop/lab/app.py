"""The routes: each reads the question, asks one function, and answers JSON."""

from __future__ import annotations

import logging
from collections.abc import Callable
from pathlib import Path
from typing import Any

from anyio import CapacityLimiter, to_thread
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from oneloop.errors import OneloopError
from oneloop.lab.answers import Refusal, encoded, real, whole
from oneloop.lab.catalog import Catalog
from oneloop.lab.folders import Folder, plain
from oneloop.lab.guard import Door, Guard
from oneloop.lab.routes import ROUTES, Question
from oneloop.secrets import redacted

STATIC = Path(__file__).parent / "static"
KINDS = {"js": "text/javascript", "css": "text/css", "svg": "image/svg+xml", "png": "image/png", "woff2": "font/woff2"}
THREADS = 16
"""Answers that are made at once. More would only share the cores, and each holds memory."""
_log = logging.getLogger(__name__)


def app(catalog: Catalog, door: Door, demo: Path | None = None) -> Guard:
    """The server as an ASGI application."""
    limit = CapacityLimiter(THREADS)
    routes = [Route(f"/api{path}", _endpoint(answer, catalog, demo, limit)) for path, answer in ROUTES.items()]
    routes += [
        Route("/api/{rest:path}", _nothing),
        Route("/assets/{name}", _asset),
        Route("/{rest:path}", _page),
    ]
    # a path with a line break matches no route; nothing is ever sent on to another address
    starlette = Starlette(routes=routes, exception_handlers={404: _missing})
    starlette.router.redirect_slashes = False
    return Guard(starlette, door)


def _endpoint(answer: Callable[[Question], Any], catalog: Catalog, demo: Path | None, limit: CapacityLimiter) -> Any:
    """An endpoint around a function, which runs in a thread: files may be slow, other readers need not wait."""

    def asked(request: Request) -> Any:
        return answer(_question(request, catalog, demo))

    async def endpoint(request: Request) -> Response:
        status, body = await to_thread.run_sync(_tried, asked, request, limiter=limit)
        return Response(body, status, media_type="application/json")

    return endpoint


def _question(request: Request, catalog: Catalog, demo: Path | None) -> Question:
    query, path = request.query_params, request.path_params
    return Question(
        catalog=catalog,
        demo=demo,
        run=path.get("run", ""),
        name=path.get("name", ""),
        row=whole(path.get("row") or query.get("row"), "row", 0, most=10**9),
        step=whole(query["step"], "step", 0, most=10**9) if query.get("step") else None,
        offset=whole(query.get("offset"), "offset", 0),
        mark=query.get("mark", ""),
        names=tuple(name for name in query.getlist("names") if name),
        points=whole(query.get("points"), "points", 1000, 4, 2000),
        limit=whole(query.get("limit"), "limit", 50, 1, 500),
        axis=query.get("x", "step"),
        low=real(query.get("from"), "from"),
        high=real(query.get("to"), "to"),
        runs=tuple(name for name in query.get("runs", "").split(",") if name),
        metric=query.get("metric", ""),
        by_token=query.get("tokens", "") not in ("", "0", "false"),
    )


def _tried(answer: Callable[[Request], Any], request: Request) -> tuple[int, bytes]:
    """Whatever a run's files are like, there is an answer in words."""
    try:
        return 200, encoded(answer(request))
    except Refusal as refusal:
        return refusal.status, encoded(refusal.body())
    except (OSError, OneloopError) as error:
        words = error.strerror if isinstance(error, OSError) and error.strerror else str(error)
        return 410, encoded(
            {"error": redacted(f"that cannot be read: {words}"), "fix": "reload; the run may be writing"}
        )
    except Exception as error:
        _log.exception("an answer failed: %s", request.url.path)
        words = f"that cannot be read: {type(error).__name__}; the terminal of oneloop lab says more"
        return 410, encoded({"error": words, "fix": "look at the files of the run"})


async def _nothing(request: Request) -> Response:
    return _words(404, "there is no such route", "/api/runs")


def _words(status: int, error: str, fix: str) -> Response:
    return Response(encoded({"error": error, "fix": fix}), status, media_type="application/json")


async def _missing(request: Request, error: Exception) -> Response:
    return _words(404, "there is nothing of that name", "/")


async def _asset(request: Request) -> Response:
    name = request.path_params["name"]
    kind = KINDS.get(name.rpartition(".")[2])
    if not plain(name) or kind is None:
        return _words(404, "there is no such file", "/")
    return await _file(("assets", name), kind)


async def _page(request: Request) -> Response:
    """Every other address is the page's own, which reads it."""
    return await _file(("index.html",), "text/html")


async def _file(parts: tuple[str, ...], kind: str) -> Response:
    try:
        content = await to_thread.run_sync(Folder(STATIC).read, *parts)
    except OSError:
        return _words(404, "that file is not among the pages that were built", "make web")
    return Response(content, media_type=kind)
