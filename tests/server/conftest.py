"""The tiny student behind a real server, and clients of it."""

import socket
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from typing import Any

import httpx
import pytest
import uvicorn

from routedk.adapters.engine.engine import engine_lm
from routedk.adapters.experts.routed import RoutedStudent
from routedk.adapters.generate import GenerateConfig, resolve_program
from routedk.adapters.student import Student
from routedk.data.records import session_to_record
from routedk.programs.generator import BundleGenerator
from routedk.rules import BundleRules
from routedk.server.app import make_app
from routedk.server.config import ServeConfig
from routedk.types import Answer, Bundle, Session
from tests.adapters.conftest import loaded, routed, sessions, shared, student, student_folder
from tests.adapters.engine.conftest import CountingEngine

__all__ = ["loaded", "routed", "sessions", "shared", "student", "student_folder"]

Start = Callable[..., httpx.Client]
# A test that waits longer than this for what must happen has failed.
PATIENCE = 60.0


class Pairs:
    """Bundles neighbouring items, two by two, with all that a grouping may say of them."""

    def answer(self, session: Session) -> Answer:
        names = [item.id for item in session.items]
        bundles = [
            Bundle(pair, kind="complements", confidence=0.5, kind_confidence=0.75)
            for pair in zip(names[::2], names[1::2], strict=False)
        ]
        return Answer(session.id, tuple(bundles), confidence=0.25)

    def answer_under(self, session: Session, rules: BundleRules | None) -> Answer:
        """Says which rules hold, and leaves out what they bar."""
        assert rules is not None
        left = tuple(item for item in session.items if not rules.bar(item))
        answer = self.answer(replace(session, items=left))
        gone = [f"left out {i.id!r}: {rules.bar(i)}" for i in session.items if rules.bar(i)]
        bundles = tuple(replace(one, changed=tuple(gone)) for one in answer.bundles)
        given = [f"rules {name}={getattr(rules, name)}" for name in rules.model_fields_set]
        return replace(answer, bundles=bundles, changed=tuple(given))

    def knows(self, titles: Sequence[str]) -> bool:
        return True

    def fingerprint(self) -> str:
        return "pairs"


class GatedEngine(CountingEngine):
    """Computes nothing while its gate is closed."""

    def __init__(self, student: RoutedStudent | Student, **options: Any) -> None:
        super().__init__(student, **options)
        self.gate = threading.Event()
        self.gate.set()
        self.asked = 0

    def job(self, request: Any) -> Any:
        self.asked += 1
        return super().job(request)

    def write(self, jobs: Any) -> Any:
        self.batches.append(list(jobs))
        assert self.gate.wait(PATIENCE)
        return self.generator.write(jobs)


@pytest.fixture
def engine(shared: RoutedStudent) -> Iterator[GatedEngine]:
    found = GatedEngine(shared, form="bundle-intent", grouping=Pairs())
    yield found
    found.gate.set()
    found.close()


@pytest.fixture
def program(engine: GatedEngine) -> BundleGenerator:
    return resolve_program(GenerateConfig(), lm=engine_lm(engine))


@contextmanager
def running(app: Any) -> Iterator[str]:
    """The address of an application that uvicorn serves."""
    listener = socket.create_server(("127.0.0.1", 0))
    server = uvicorn.Server(uvicorn.Config(app, log_config=None, lifespan="on", ws="none"))
    thread = threading.Thread(target=server.run, args=([listener],))
    thread.start()
    try:
        until(lambda: server.started)
        yield f"http://127.0.0.1:{listener.getsockname()[1]}"
    finally:
        server.should_exit = True
        thread.join()
        listener.close()


@pytest.fixture
def start(program: BundleGenerator) -> Iterator[Start]:
    """Starts a server with these settings, and gives a client of it."""
    opened: list[Any] = []

    def run(token: str | None = None, program: Any = program, **settings: Any) -> httpx.Client:
        context = running(make_app(program, ServeConfig(**settings), token))
        client = httpx.Client(base_url=context.__enter__(), timeout=PATIENCE)
        opened.extend((context, client))
        return client

    yield run
    for one in reversed(opened):
        one.__exit__(None, None, None)


def until(done: Callable[[], bool]) -> None:
    """Wait for what must happen."""
    end = time.monotonic() + PATIENCE
    while not done():
        assert time.monotonic() < end
        time.sleep(0.01)


def record(session: Session) -> dict[str, Any]:
    """A session as a client sends it."""
    return session_to_record(session)
