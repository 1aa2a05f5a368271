"""`POST /v1/bundles` under load: throughput against `generate`, latency, memory, wrong answers.

    python -m benchmarks.load --seconds 600

starts `routedk serve` on loopback with the packaged bundler and sends it requests for that long
twice: first from clients that wait for their answers, then with a tenth of the requests malformed
or oversized and a tenth of the others abandoned. Every answer is compared with what `generate`
answered before, with its own store. No answer can come from a cache: a server keeps none, and no
two requests have a session id or an item id in common. Prints one JSON document; exits with 1 if a
bound does not hold.
"""

import asyncio
import json
import os
import signal
import socket
import statistics
import subprocess
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from itertools import count
from random import Random
from typing import Annotated, Any

import httpx
import psutil
import typer

from benchmarks.command import run_command
from routedk import Item, Session, generate, load_sessions
from routedk.adapters.answering import GenerateConfig
from routedk.eval.predictions import prediction_record
from routedk.types import Answer

_LEAST_THROUGHPUT = 0.8
_MOST_OFF = 0.05
_LEAVING = 0.1
_START = 600.0
_PATIENCE = 600.0
_JSON = {"Content-Type": "application/json"}
_BAD: tuple[tuple[str, bytes, int], ...] = (
    ("no JSON", b'{"session_id": 1, "items"', 422),
    ("no session", b'{"session_id": "x", "items": []}', 422),
    ("deep", b"[" * 50_000, 422),
    ("too large", b" " * (2 << 20), 413),
    ("too many", json.dumps({"sessions": [{}] * 65}).encode(), 413),
)


def composed(number: int, seed: int) -> list[Session]:
    """Sessions of two to ten of the demo's items, titles distinct within each."""
    titles = sorted({item.title for session in load_sessions("demo") for item in session.items})
    random = Random(seed)
    return [
        Session(
            f"load-{k}",
            tuple(
                Item(f"{place}", title)
                for place, title in enumerate(random.sample(titles, random.randint(2, 10)))
            ),
        )
        for k in range(number)
    ]


def library(sessions: list[Session]) -> tuple[list[Answer], float]:
    """What `generate` answers, and how many sessions per second, without loading."""
    from routedk.adapters.lm import default_lm

    lm, config = default_lm(None), GenerateConfig()
    with tempfile.TemporaryDirectory() as store:
        generate(composed(8, seed=1), config, lm=lm, store=store)
        began = time.monotonic()
        answers = generate(sessions, config, lm=lm, store=store)
        seconds = time.monotonic() - began
    lm.engine.close()
    return answers, len(sessions) / seconds


@dataclass
class Load:
    """Clients of one server, and what they saw.

    Args:
        url: URL of the server.
        sessions: Sessions to ask about, again and again.
        answers: The right answer to each.
        numbers: Numbers that tell requests apart.
    """

    url: str
    sessions: list[Session]
    answers: list[Answer]
    numbers: Iterator[int]
    seconds: list[float] = field(default_factory=list)
    seen: Counter[str] = field(default_factory=Counter)
    wrong: list[Any] = field(default_factory=list)

    async def run(self, clients: int, seconds: float, rough: bool) -> dict[str, Any]:
        """Ask for ``seconds``, then wait for what is under way."""
        began = time.monotonic()
        limits = httpx.Limits(max_connections=None)
        async with httpx.AsyncClient(base_url=self.url, timeout=_PATIENCE, limits=limits) as http:
            work = (self._client(http, k, began + seconds, rough) for k in range(clients))
            await asyncio.gather(*work)
            elapsed = time.monotonic() - began
            metrics = (await http.get("/metrics")).text
        found = sorted(self.seconds) or [0.0]
        return {
            "seconds": round(elapsed, 1),
            "answers": len(self.seconds),
            "per_second": round(len(self.seconds) / elapsed, 3),
            "p50_seconds": round(statistics.median(found), 3),
            "p95_seconds": round(found[int(0.95 * (len(found) - 1))], 3),
            "wrong": len(self.wrong),
            "first_wrong": self.wrong[:3],
            "seen": dict(self.seen),
            "nothing_left_under_way": "routedk_under_way 0.0" in metrics,
        }

    async def _client(self, http: httpx.AsyncClient, k: int, end: float, rough: bool) -> None:
        random = Random(k)
        while time.monotonic() < end:
            if rough and random.random() < _LEAVING:
                await self._misbehave(http, *random.choice(_BAD))
            elif rough and random.random() < _LEAVING:
                await self._ask(http, leave=random.uniform(0.01, 1.0))
            else:
                await self._ask(http)

    async def _misbehave(self, http: httpx.AsyncClient, kind: str, body: bytes, due: int) -> None:
        try:
            found = await http.post("/v1/bundles", content=body, headers=_JSON)
        except httpx.WriteError:  # A server may close before it has read an oversized body.
            self.seen[f"{kind}: closed"] += 1
            return
        self.seen[f"{kind}: {found.status_code}"] += 1
        if found.status_code != due:
            self.wrong.append([kind, found.status_code, found.text[:300]])

    async def _ask(self, http: httpx.AsyncClient, leave: float | None = None) -> None:
        number = next(self.numbers)
        place = number % len(self.sessions)
        items = [
            {"id": f"{number}-{item.id}", "title": item.title}
            for item in self.sessions[place].items
        ]
        body = {"session_id": f"load-{number}", "items": items}
        began = time.monotonic()
        try:
            async with asyncio.timeout(leave):
                found = await http.post("/v1/bundles", json=body)
        except TimeoutError:
            self.seen["left"] += 1
            return
        self.seen[str(found.status_code)] += 1
        self.seconds.append(time.monotonic() - began)
        right = prediction_record(self.answers[place]) | {"session_id": f"load-{number}"}
        for bundle in right["bundles"]:
            bundle["items"] = [f"{number}-{one}" for one in bundle["items"]]
        if found.status_code != 200 or found.json() != right:
            self.wrong.append([found.status_code, found.text[:600], right])


@contextmanager
def server() -> Iterator[tuple[str, psutil.Process]]:
    """The address and the process of a server that is ready."""
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    command = [sys.executable, "-m", "routedk", "serve", "--port", str(port)]
    with subprocess.Popen([*command, "--timeout", str(_PATIENCE)], env={**os.environ}) as process:
        try:
            url = f"http://127.0.0.1:{port}"
            _wait(f"{url}/readyz", process)
            yield url, psutil.Process(process.pid)
        finally:
            process.send_signal(signal.SIGTERM)
            process.wait(60)


def _wait(url: str, process: subprocess.Popen[bytes]) -> None:
    """Wait until a server answers; it listens before its model is loaded."""
    end = time.monotonic() + _START
    while process.poll() is None:
        try:
            httpx.get(url, timeout=_START)
            return
        except httpx.ConnectError:
            if time.monotonic() > end:
                raise
            time.sleep(0.5)
    raise RuntimeError(f"the server ended with {process.returncode}")


async def watched(load: Any, process: psutil.Process, seconds: float) -> dict[str, Any]:
    """A load's figures, with those of the server process's memory."""
    sizes: list[tuple[float, int]] = []
    began = time.monotonic()

    async def watch() -> None:
        while True:
            sizes.append((time.monotonic() - began, process.memory_info().rss))
            await asyncio.sleep(0.5)

    watching = asyncio.ensure_future(watch())
    try:
        found: dict[str, Any] = await load
    finally:
        watching.cancel()
    minute = min(60.0, seconds / 3)
    peaks: dict[int, float] = {}
    for at, size in sizes:
        # Within a minute, memory goes up and down with the size of batches.
        peaks[int(at // minute)] = max(size / 2**20, peaks.get(int(at // minute), 0.0))
    # The last minute is cut short.
    after = [peaks[number] for number in sorted(peaks)[1:-1]]
    mean = statistics.fmean(after)
    found["rss_mib_peak_of_each_minute"] = [round(peak) for peak in after]
    found["rss_off_mean"] = round(max(abs(peak / mean - 1) for peak in after), 4)
    return found


def main(
    seconds: Annotated[float, typer.Option(help="How long to ask, twice.")] = 600.0,
    clients: Annotated[int, typer.Option(help="Clients at once.")] = 64,
    sessions: Annotated[int, typer.Option(help="Sessions that are asked in turn.")] = 600,
) -> None:
    """Measure a server under load."""
    asked, numbers = composed(sessions, seed=0), count()
    answers, speed = library(asked)
    figures: dict[str, Any] = {
        "cores": os.cpu_count(),
        "omp_num_threads": os.environ.get("OMP_NUM_THREADS"),
        "clients": clients,
        "sessions": sessions,
        "generate_per_second": round(speed, 3),
    }
    with server() as (url, process):
        # A warm-up in which every client asks once.
        asyncio.run(Load(url, asked, answers, numbers).run(clients, 0.1, rough=False))
        for name, rough in (("steady", False), ("rough", True)):
            load = Load(url, asked, answers, numbers).run(clients, seconds, rough)
            figures[name] = asyncio.run(watched(load, process, seconds))
    steady, parts = figures["steady"], (figures["steady"], figures["rough"])
    figures["throughput_ratio"] = round(steady["per_second"] / speed, 3)
    figures["holds"] = {
        "throughput": figures["throughput_ratio"] >= _LEAST_THROUGHPUT,
        "memory": all(part["rss_off_mean"] <= _MOST_OFF for part in parts),
        "answers": not any(part["wrong"] for part in parts),
        "nothing_left": all(part["nothing_left_under_way"] for part in parts),
    }
    print(json.dumps(figures, indent=2))
    if not all(figures["holds"].values()):
        raise typer.Exit(1)


if __name__ == "__main__":
    run_command(main)
