"""What applies to every request: time limit, client disconnects, failures and metrics."""

import asyncio
import logging
import time
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from http import HTTPStatus
from typing import Any
from urllib.parse import urlsplit

from fastapi import HTTPException
from fastapi.responses import JSONResponse
from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, ProcessCollector
from starlette.datastructures import Headers
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from routedk.server.config import ServeConfig, is_loopback

logger = logging.getLogger(__name__)

_LEFT = 499
_BUCKETS = (0.01, 0.03, 0.1, 0.3, 1, 3, 10, 30, 100)


def problem(
    status: int, message: str, *, code: str | None = None, headers: Any = None
) -> JSONResponse:
    """An error in the format that OpenAI's clients read."""
    kind = "server_error" if status >= HTTPStatus.INTERNAL_SERVER_ERROR else "invalid_request_error"
    error = {"message": message, "type": kind, "param": None, "code": code}
    return JSONResponse({"error": error}, status, headers)


class Metrics:
    """Prometheus metrics, in their own registry."""

    def __init__(self) -> None:
        self.registry = own = CollectorRegistry()
        ProcessCollector(registry=own)
        about = "Seconds per request by route and status; status 499: the client left."
        labels = ("route", "status")
        self.seconds = Histogram(
            "routedk_request_seconds", about, labels, buckets=_BUCKETS, registry=own
        )
        about = "Sessions: answered, unread (no readable answer), refused (not valid)."
        self.sessions = Counter("routedk_sessions", about, ("outcome",), registry=own)
        about = "Sessions and completions under way."
        self.under_way = Gauge("routedk_under_way", about, registry=own)


class Queue:
    """Counts what is in progress, on one event loop.

    Args:
        size: Maximum number of sessions and completions at once.
        gauge: Shows their number.
    """

    def __init__(self, size: int, gauge: Gauge) -> None:
        self._left = size
        self._gauge = gauge

    @property
    def full(self) -> bool:
        """Whether there is no room left."""
        return self._left < 1

    @contextmanager
    def room(self, count: int) -> Iterator[None]:
        """Reserve room for the duration of the block.

        Raises:
            HTTPException: There is not enough room; status 429.
        """
        if count > self._left:
            raise HTTPException(429, "the queue is full: try again later", {"Retry-After": "1"})
        self._left -= count
        self._gauge.inc(count)
        try:
            yield
        finally:
            self._left += count
            self._gauge.dec(count)


def refused(
    headers: Headers, any_host: bool, origins: Iterable[str] = ()
) -> tuple[int, str] | None:
    """Why a request is rejected, whatever it asks for: a status and a text; None if it is not.

    Args:
        headers: Of the request.
        any_host: Whether it may name any host, since it needs a token. Otherwise only loopback
            names are accepted: a page whose domain resolves to this machine could send any
            request.
        origins: Origins whose pages may send requests, besides the server's own.
    """
    host, origin = headers.get("host", ""), headers.get("origin")
    if not any_host and not is_loopback(_name(host)):
        return 421, f"Host {host!r}: without a token only the names of loopback are answered to"
    foreign = origin is not None and origin.partition("://")[2] != host
    if foreign and not {origin, "*"} & {*origins}:
        return 403, f"Origin {origin!r}: its pages may not ask this server"
    return None


def _name(host: str) -> str | None:
    """The name in a Host header, without a port."""
    try:
        return urlsplit(f"//{host}").hostname
    except ValueError:
        return None


class Guard:
    """ASGI middleware that rejects a request, or cancels it on a timeout or client disconnect.

    Args:
        app: The application that answers.
        config: Which requests are answered, and the time limit, which includes reading the
            body.
        metrics: Counts requests and their seconds.
    """

    def __init__(self, app: ASGIApp, config: ServeConfig, metrics: Metrics) -> None:
        self.app = app
        self.config = config
        self.metrics = metrics

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer one request."""
        if scope["type"] != "http":
            await self.app(scope, receive, send)
            return
        began, status = time.monotonic(), 0

        async def reply(message: Message) -> None:
            nonlocal status
            if message["type"] == "http.response.start":
                status = message["status"]
            await send(message)

        whole = asyncio.Event()

        async def read() -> Message:
            message = await receive()
            if not message.get("more_body"):
                whole.set()
            return message

        async def leave() -> None:
            await whole.wait()  # Until then the application reads.
            while (await receive())["type"] != "http.disconnect":
                pass
            work.cancel()

        fault = refused(
            Headers(scope=scope), self.config.token_file is not None, self.config.cors_origins
        )
        app = problem(*fault) if fault else self.app
        work = asyncio.ensure_future(app(scope, read, reply))
        left = asyncio.ensure_future(leave())
        try:
            await asyncio.wait_for(work, self.config.timeout)
        except asyncio.CancelledError:
            if not left.done():
                raise
            status = status or _LEFT
        except Exception as error:
            if status:
                raise
            seconds = f"{self.config.timeout:g} seconds"
            answer = problem(504, f"there was no answer within {seconds}: send fewer sessions")
            if not (isinstance(error, TimeoutError) and work.cancelled()):
                logger.exception("a request failed")
                answer = problem(500, "the server failed: its log says why")
            await answer(scope, receive, reply)
        finally:
            left.cancel()
            route = getattr(scope.get("route"), "path", "other")
            histogram = self.metrics.seconds.labels(route, status or 500)
            histogram.observe(time.monotonic() - began)
