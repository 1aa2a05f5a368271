"""A slow OpenAI-compatible server on loopback that plays the teacher and counts what it computes.

Its answers depend on the prompt alone: bundles of adjacent items, causes of mistakes, rules in the
items' own words, and thoughts from which the given bundles follow (some only when asked again).
"""

import hashlib
import json
import threading
import time
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any


@dataclass
class Counts:
    """What the server saw, by the ``Idempotency-Key`` of requests.

    Args:
        asked: The key of each request, in order of arrival.
        computed: How often each question's answer was computed.
    """

    asked: list[str] = field(default_factory=list)
    computed: Counter[str] = field(default_factory=Counter)


class CountingServer:
    """Answers chat completions, each question after a delay of its own.

    Args:
        seconds: Mean delay of an answer.
        idempotent: Whether a question repeated with its ``Idempotency-Key`` gets the first answer,
            finished or in progress, instead of being computed again.
    """

    def __init__(self, seconds: float, *, idempotent: bool = True) -> None:
        self.counts = Counts()
        self._seconds = seconds
        self._idempotent = idempotent
        self._answers: dict[str, threading.Event] = {}
        self._changed = threading.Condition()
        server = self

        class Handler(BaseHTTPRequestHandler):
            def do_POST(self) -> None:
                server._serve(self)

            def log_message(self, format: str, *args: object) -> None:
                pass

        self._http = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self._http.daemon_threads = True
        self.address = f"http://127.0.0.1:{self._http.server_port}/v1"

    @contextmanager
    def running(self) -> Iterator["CountingServer"]:
        """Serve within the block."""
        threading.Thread(target=self._http.serve_forever, args=(0.05,), daemon=True).start()
        try:
            yield self
        finally:
            self._http.shutdown()
            self._http.server_close()

    def forget(self) -> None:
        """Reset the counts and forget all answers."""
        with self._changed:
            self.counts, self._answers = Counts(), {}

    def wait_for(self, asked: int, seconds: float) -> bool:
        """Wait for ``asked`` requests in all, at most ``seconds``; whether they have come."""
        with self._changed:
            return self._changed.wait_for(lambda: len(self.counts.asked) >= asked, seconds)

    def _serve(self, handler: BaseHTTPRequestHandler) -> None:
        body = json.loads(handler.rfile.read(int(handler.headers["Content-Length"])))
        key = handler.headers["Idempotency-Key"]
        with self._changed:
            self.counts.asked.append(key)
            known = self._answers.get(key) if self._idempotent else None
            done = known or self._answers.setdefault(key, threading.Event())
            self._changed.notify_all()
        messages = body["messages"]
        text = answer_to(messages)
        if known is None:
            time.sleep(self._seconds * (0.5 + _fraction(messages)))
            with self._changed:
                self.counts.computed[key] += 1
            done.set()
        done.wait()
        _send(handler, body["model"], messages, text)


def answer_to(messages: list[dict[str, str]]) -> str:
    """The answer to a prompt of the distillers."""
    blocks = _blocks(messages[-1]["content"])
    if "Bundles, item numbers and intent" in blocks:
        return _thought(blocks, careless=_fraction(messages) < 0.2)
    if "Causes of mistakes" in blocks:
        words = blocks["Causes of mistakes"].split()
        return f"- Bundle the {words[1]} with the {words[3]} when both serve one intent."
    if "Feedback" in blocks:
        first, second, *_ = (line.split()[-1] for line in blocks["Items"].splitlines())
        return f"The {first} and {second} were taken for what they are called."
    numbers = list(range(1, len(messages[-1]["content"].splitlines()) + 1))
    pairs = [numbers[place : place + 2] for place in range(0, len(numbers) - 1, 2)]
    return "\n".join(f"{first} {second} | things for home" for first, second in pairs) or "none"


def _thought(blocks: dict[str, str], careless: bool) -> str:
    served: dict[int, list[str]] = {}
    for line in blocks["Bundles, item numbers and intent"].splitlines():
        numbers, _, intent = line.partition("|")
        for number in filter(str.isdecimal, numbers.split()):
            served.setdefault(int(number), []).append(" ".join(intent.split()[:4]))
    items = range(1, len(blocks["Items"].splitlines()) + 1)
    entries = [f"{n} {' / '.join(served.get(n) or [f'alone {n}'])}" for n in items]
    again = "What was wrong with it" in blocks
    return "; ".join(entries if again or not careless else entries[1:])


def _blocks(content: str) -> dict[str, str]:
    """The named blocks of a plain-text prompt."""
    parts = (part.partition(":\n") for part in content.split("\n\n"))
    return {name: text for name, colon, text in parts if colon}


def _fraction(messages: list[dict[str, str]]) -> float:
    """A number in [0, 1) that depends only on the prompt."""
    return int(hashlib.sha256(json.dumps(messages).encode()).hexdigest()[:8], 16) / 16**8


def _send(
    handler: BaseHTTPRequestHandler, model: str, messages: list[dict[str, str]], text: str
) -> None:
    read = sum(len(message["content"].split()) for message in messages)
    answer: dict[str, Any] = {
        "id": "fake",
        "object": "chat.completion",
        "created": 1,
        "model": model,
        "choices": [
            {
                "index": 0,
                "message": {"role": "assistant", "content": text},
                "finish_reason": "stop",
            }
        ],
        "usage": {
            "prompt_tokens": read,
            "completion_tokens": len(text.split()),
            "total_tokens": read + len(text.split()),
        },
    }
    raw = json.dumps(answer).encode()
    try:
        handler.send_response(200)
        handler.send_header("Content-Type", "application/json")
        handler.send_header("Content-Length", str(len(raw)))
        handler.end_headers()
        handler.wfile.write(raw)
    except OSError:
        # The client was killed in the meantime.
        handler.close_connection = True
