"""The tiny student behind a real server, and clients of it."""

import threading
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import replace
from typing import Any

import httpx
import pytest

from routedk.adapters.answering import GenerateConfig, resolve_program
from routedk.adapters.engine.engine import engine_lm
from routedk.adapters.experts.routed import RoutedStudent
from routedk.adapters.student import Student
from routedk.data.records import session_to_record
from routedk.programs.generator import BundleGenerator
from routedk.rules import BundleRules
from routedk.server.app import make_app
from routedk.server.config import ServeConfig
from routedk.types import Answer, Bundle, Session
from tests.adapters.conftest import loaded, routed, sessions, shared, student, student_folder
from tests.adapters.engine.conftest import CountingEngine
from tests.running import PATIENCE, running

__all__ = ["loaded", "routed", "sessions", "shared", "student", "student_folder"]

Start = Callable[..., httpx.Client]


class Pairs:
    """Bundles neighbouring items, two by two, with all that a grouping may say of them."""

    def answer(self, session: Session, rules: BundleRules | None = None) -> Answer:
        """Under rules, says which hold, and leaves out what they bar."""
        if rules is not None:
            return self._under(session, rules)
        names = [item.id for item in session.items]
        bundles = [
            Bundle(pair, kind="complements", confidence=0.5, kind_confidence=0.75)
            for pair in zip(names[::2], names[1::2], strict=False)
        ]
        return Answer(session.id, tuple(bundles), confidence=0.25)

    def _under(self, session: Session, rules: BundleRules) -> Answer:
        left = tuple(item for item in session.items if not rules.bar(item))
        answer = self.answer(replace(session, items=left))
        gone = [f"left out {i.id!r}: {rules.bar(i)}" for i in session.items if rules.bar(i)]
        bundles = tuple(replace(one, changed=tuple(gone)) for one in answer.bundles)
        given = [f"rules {name}={getattr(rules, name)}" for name in rules.model_fields_set]
        return replace(answer, bundles=bundles, changed=tuple(given))

    def known_intents(self, titles: Sequence[str]) -> Mapping[str, float] | None:
        return {}

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


def record(session: Session) -> dict[str, Any]:
    """A session as a client sends it."""
    return session_to_record(session)
