"""A proxy on loopback that breaks calls to an OpenAI-compatible server as a script says."""

import http.client
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Literal


@dataclass(frozen=True)
class Reply:
    """An answer in place of the server's.

    Args:
        status: HTTP status.
        body: Its body.
        headers: Headers beside the length and type.
    """

    status: int
    body: str
    headers: dict[str, str] = field(default_factory=dict)


Fault = Reply | Literal["drop", "stall"]


class FaultProxy:
    """Breaks the first calls by its script, then passes calls on.

    Args:
        upstream: Port of the real server on loopback; None where none is reached.
    """

    def __init__(self, upstream: int | None = None) -> None:
        self.upstream = upstream
        self.faults: list[Fault] = []
        self.for_ever: Fault | None = None
        self.arrivals: list[float] = []
        self.headers: list[dict[str, str]] = []
        self.passed = 0
        self._lock = threading.Lock()
        self._closing = threading.Event()
        proxy = self

        class Handler(BaseHTTPRequestHandler):
            def do_POST(self) -> None:
                proxy._serve(self)

            def log_message(self, format: str, *args: object) -> None:
                pass

        self._server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.address = f"http://127.0.0.1:{self._server.server_port}/v1"

    @contextmanager
    def running(self) -> Iterator["FaultProxy"]:
        """Serve within the block."""
        thread = threading.Thread(target=self._server.serve_forever, args=(0.05,), daemon=True)
        thread.start()
        try:
            yield self
        finally:
            self._closing.set()
            self._server.shutdown()
            self._server.server_close()
            thread.join()

    def script(self, *faults: Fault) -> None:
        """Break the next calls so, and forget those before."""
        self.faults, self.for_ever = list(faults), None
        self.arrivals, self.headers, self.passed = [], [], 0

    def _serve(self, handler: BaseHTTPRequestHandler) -> None:
        body = handler.rfile.read(int(handler.headers["Content-Length"]))
        with self._lock:
            self.arrivals.append(time.monotonic())
            self.headers.append({name.lower(): value for name, value in handler.headers.items()})
            fault = self.faults.pop(0) if self.faults else self.for_ever
        if fault == "stall":
            self._closing.wait(30)
        if fault in ("stall", "drop"):
            handler.close_connection = True
            return
        reply = fault if isinstance(fault, Reply) else self._passed_on(handler.path, body)
        raw = reply.body.encode()
        handler.send_response(reply.status)
        for name, value in {"Content-Type": "application/json", **reply.headers}.items():
            handler.send_header(name, value)
        handler.send_header("Content-Length", str(len(raw)))
        handler.end_headers()
        handler.wfile.write(raw)

    def _passed_on(self, path: str, body: bytes) -> Reply:
        assert self.upstream is not None, "this proxy has no server behind it"
        with self._lock:
            self.passed += 1
        connection = http.client.HTTPConnection("127.0.0.1", self.upstream, timeout=60)
        try:
            connection.request("POST", path, body, {"Content-Type": "application/json"})
            answer = connection.getresponse()
            return Reply(answer.status, answer.read().decode())
        finally:
            connection.close()
