"""An OpenAI-compatible server on loopback that breaks calls as a script says."""

import json
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any, Literal


@dataclass(frozen=True)
class Reply:
    """An answer in place of a completion.

    Args:
        status: HTTP status.
        body: Its body.
        headers: Headers in addition to length and type.
    """

    status: int
    body: str
    headers: dict[str, str] = field(default_factory=dict)


Fault = Reply | Literal["drop", "stall"]


class FaultyServer:
    """Answers the first calls with its faults, then normally, or every call with one fault.

    Args:
        answer: From the last message of a request to the text of the completion.
    """

    def __init__(self, answer: Callable[[str], str] = lambda question: f"re: {question}") -> None:
        self.answer = answer
        self.faults: list[Fault] = []
        self.for_ever: Fault | None = None
        self.arrivals: list[float] = []
        self.headers: list[dict[str, str]] = []
        self.bodies: list[dict[str, Any]] = []
        self._lock = threading.Lock()
        self._closing = threading.Event()
        server = self

        class Handler(BaseHTTPRequestHandler):
            def do_POST(self) -> None:
                server._serve(self)

            def log_message(self, format: str, *args: object) -> None:
                pass

        self._http = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.address = f"http://127.0.0.1:{self._http.server_port}/v1"

    @contextmanager
    def running(self) -> Iterator["FaultyServer"]:
        """Serve within the block."""
        thread = threading.Thread(target=self._http.serve_forever, args=(0.05,), daemon=True)
        thread.start()
        try:
            yield self
        finally:
            self._closing.set()
            self._http.shutdown()
            self._http.server_close()
            thread.join()

    def _serve(self, handler: BaseHTTPRequestHandler) -> None:
        body = json.loads(handler.rfile.read(int(handler.headers["Content-Length"])))
        with self._lock:
            self.arrivals.append(time.monotonic())
            self.headers.append({name.lower(): value for name, value in handler.headers.items()})
            self.bodies.append(body)
            fault = self.faults.pop(0) if self.faults else self.for_ever
        if fault == "stall":
            self._closing.wait(30)
        if fault in ("stall", "drop"):
            handler.close_connection = True
            return
        text = self.answer(body["messages"][-1]["content"])
        reply = fault if isinstance(fault, Reply) else completion(text)
        raw = reply.body.encode()
        handler.send_response(reply.status)
        for name, value in {"Content-Type": "application/json", **reply.headers}.items():
            handler.send_header(name, value)
        handler.send_header("Content-Length", str(len(raw)))
        handler.end_headers()
        handler.wfile.write(raw)


def completion(text: str) -> Reply:
    """A chat completion of 15 tokens."""
    message = {"role": "assistant", "content": text}
    body = {
        "id": "x",
        "object": "chat.completion",
        "created": 1,
        "model": "fake",
        "choices": [{"index": 0, "finish_reason": "stop", "message": message}],
        "usage": {"prompt_tokens": 10, "completion_tokens": 5, "total_tokens": 15},
    }
    return Reply(200, json.dumps(body))
