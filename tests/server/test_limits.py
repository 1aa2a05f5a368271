"""Bounds of a server: what is refused, given up, canceled, and who is let in."""

import socket
import threading
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import httpx
import pytest

from routedk.errors import SettingError
from routedk.programs.generator import BundleGenerator
from routedk.rules import BundleRules
from routedk.server.config import ServeConfig
from routedk.types import Answer, Item, Session
from tests.running import PATIENCE, until

from .conftest import GatedEngine, Pairs, Start, record

CHAT = {"model": "routedk", "messages": [{"role": "user", "content": "Hello"}], "max_tokens": 3}


def message(found: httpx.Response) -> str:
    text: str = found.json()["error"]["message"]
    return text


def test_a_full_queue(start: Start, engine: GatedEngine, sessions: list[Session]) -> None:
    client = start(max_queue=2, max_sessions=2)
    engine.gate.clear()
    body = {"sessions": [record(session) for session in sessions[:2]]}
    with ThreadPoolExecutor(1) as clients:
        first = clients.submit(client.post, "/v1/bundles", json=body)
        until(lambda: bool(engine.batches))
        for path, asked in (("/v1/bundles", record(sessions[2])), ("/v1/chat/completions", CHAT)):
            refused = client.post(path, json=asked)
            assert refused.status_code == 429
            assert int(refused.headers["Retry-After"]) > 0
            assert message(refused) == "the queue is full: try again later"
        assert client.get("/readyz").status_code == 503
        assert client.get("/healthz").status_code == 200
        assert "routedk_under_way 2.0" in client.get("/metrics").text
        engine.gate.set()
        assert first.result().status_code == 200
    assert client.get("/readyz").status_code == 200
    assert client.post("/v1/bundles", json=record(sessions[2])).status_code == 200
    assert "routedk_under_way 0.0" in client.get("/metrics").text


class SlowPairs(Pairs):
    """Groups no session of many items while its gate is closed."""

    def __init__(self) -> None:
        self.gate = threading.Event()
        self.begun = 0

    def answer(self, session: Session, rules: BundleRules | None = None) -> Answer:
        if len(session.items) > 50:
            self.begun += 1
            assert self.gate.wait(PATIENCE)
            session = Session(session.id, session.items[:2])
        return super().answer(session, rules)


def test_a_large_request_leaves_room_for_small_ones(
    start: Start, program: BundleGenerator, sessions: list[Session]
) -> None:
    program.grouping = slow = SlowPairs()
    items = tuple(Item(f"{n}", f"tea cup {n}") for n in range(100))
    large = [record(Session(f"large {k}", items)) for k in range(64)]
    client = start(program=program)
    with ThreadPoolExecutor(1) as clients:
        try:
            first = clients.submit(client.post, "/v1/bundles", json={"sessions": large})
            until(lambda: slow.begun == 2)
            assert client.post("/v1/bundles", json=record(sessions[0])).json()["bundles"]
            assert client.post("/v1/chat/completions", json=CHAT).status_code == 200
            assert not first.done()
            assert slow.begun == 2
        finally:
            slow.gate.set()
        answers = first.result().json()["answers"]
    assert [answer["session_id"] for answer in answers] == [f"large {k}" for k in range(64)]
    assert {len(answer["bundles"]) for answer in answers} == {1}


@pytest.mark.parametrize("path", ["/v1/bundles", "/v1/chat/completions"])
def test_no_answer_in_time(
    start: Start, engine: GatedEngine, sessions: list[Session], path: str
) -> None:
    client = start(timeout=0.3)
    engine.gate.clear()
    late = client.post(path, json=CHAT if "chat" in path else record(sessions[0]))
    assert late.status_code == 504
    assert message(late) == "there was no answer within 0.3 seconds: send fewer sessions"
    until(lambda: all(job.future.cancelled() for batch in engine.batches for job in batch))
    assert "routedk_under_way 0.0" in client.get("/metrics").text


def test_a_client_that_leaves_is_canceled(
    start: Start, engine: GatedEngine, sessions: list[Session]
) -> None:
    client = start()
    engine.gate.clear()
    request = client.build_request("POST", "/v1/bundles", json=record(sessions[0]))
    head = [f"{request.method} {request.url.path} HTTP/1.1"]
    head += [f"{name}: {value}" for name, value in request.headers.items()]
    with socket.create_connection((client.base_url.host, client.base_url.port or 80)) as raw:
        raw.sendall("\r\n".join([*head, "", ""]).encode() + request.read())
        until(lambda: bool(engine.batches))
    until(lambda: all(job.future.cancelled() for job in engine.batches[0]))
    left = 'routedk_request_seconds_count{route="/v1/bundles",status="499"} 1.0'
    until(lambda: left in client.get("/metrics").text)
    assert "routedk_under_way 0.0" in client.get("/metrics").text


def test_a_failure_tells_nothing_and_ends_the_request(
    start: Start, engine: GatedEngine, sessions: list[Session], monkeypatch: pytest.MonkeyPatch
) -> None:
    client = start()
    engine.gate.clear()
    make, jobs = engine.job, []

    def fail_second(request: Any) -> Any:
        if jobs:
            raise RuntimeError("a secret")
        jobs.append(make(request))
        return jobs[0]

    monkeypatch.setattr(engine, "job", fail_second)
    found = client.post("/v1/bundles", json={"sessions": list(map(record, sessions[:2]))})
    assert found.status_code == 500
    assert message(found) == "the server failed: its log says why"
    assert found.json()["error"]["type"] == "server_error"
    until(lambda: bool(jobs[0].future.cancelled()))
    metrics = client.get("/metrics").text
    assert "routedk_under_way 0.0" in metrics
    assert 'routedk_request_seconds_count{route="/v1/bundles",status="500"} 1.0' in metrics


@pytest.mark.parametrize("chunked", [False, True])
def test_a_large_body(start: Start, sessions: list[Session], chunked: bool) -> None:
    client = start(max_body=2000)
    headers = {"Content-Type": "application/json"}
    large: Any = b" " * 2001
    found = client.post(
        "/v1/bundles",
        content=iter([large[:1000], large[1000:]]) if chunked else large,
        headers=headers,
    )
    assert found.status_code == 413
    assert client.post("/v1/bundles", json=record(sessions[0])).status_code == 200


def test_many_sessions(start: Start, engine: GatedEngine, sessions: list[Session]) -> None:
    client = start(max_sessions=2)
    found = client.post("/v1/bundles", json={"sessions": list(map(record, sessions[:3]))})
    assert (found.status_code, message(found)) == (413, "3 sessions: a request holds at most 2")
    assert engine.asked == 0


def test_a_token(start: Start, engine: GatedEngine, sessions: list[Session]) -> None:
    client = start(token="right")
    asked = record(sessions[0])
    for headers in ({}, {"Authorization": "Bearer wrong"}, {"Authorization": "Basic right"}):
        for found in (
            client.post("/v1/bundles", json=asked, headers=headers),
            client.post("/v1/chat/completions", json=CHAT, headers=headers),
            client.get("/v1/models", headers=headers),
            client.get("/metrics", headers=headers),
        ):
            assert found.status_code == 401
            assert found.headers["WWW-Authenticate"] == "Bearer"
            assert message(found) == "send the server's token, as Authorization: Bearer TOKEN"
    assert engine.asked == 0
    right = {"Authorization": "Bearer right"}
    assert client.post("/v1/bundles", json=asked, headers=right).status_code == 200
    for path in ("/healthz", "/readyz", "/docs", "/openapi.json"):
        assert client.get(path).status_code == 200


def test_pages_of_named_origins_only(start: Start, sessions: list[Session]) -> None:
    shop, other = {"Origin": "https://shop.example"}, {"Origin": "https://other.example"}
    for client, allowed in (
        (start(), None),
        (start(cors_origins=("https://shop.example",)), "https://shop.example"),
    ):
        name = "Access-Control-Allow-Origin"
        asked = record(sessions[0])
        assert client.post("/v1/bundles", json=asked, headers=shop).headers.get(name) == allowed
        assert name not in client.post("/v1/bundles", json=asked, headers=other).headers


def test_an_unknown_path_and_method(start: Start) -> None:
    client = start()
    assert client.get("/v1/nothing").json()["error"]["message"] == "Not Found"
    assert client.get("/v1/bundles").status_code == 405
    assert 'route="other",status="404"' in client.get("/metrics").text


def test_the_documentation_has_examples(start: Start) -> None:
    client = start()
    post = client.get("/openapi.json").json()["paths"]["/v1/bundles"]["post"]
    given = post["requestBody"]["content"]["application/json"]["examples"]
    answered = post["responses"]["200"]["content"]["application/json"]["examples"]
    assert given.keys() == answered.keys() == {"one", "many"}
    for example in given.values():
        assert client.post("/v1/bundles", json=example["value"]).status_code == 200


@pytest.mark.parametrize(
    ("settings", "problem"),
    [
        ({"host": "0.0.0.0"}, "host=0.0.0.0: others can reach this address, and there is no token"),
        ({"host": "::"}, "host=::: others can reach this address"),
        ({"host": "shop.example"}, "host=shop.example: others can reach this address"),
        ({"port": 70_000}, "port=70000: it must be at most 65535"),
        ({"timeout": 0.0}, "timeout=0.0: it must be a number of seconds above 0"),
        ({"max_items": 1}, "max_items=1: it must be at least 2"),
        ({"max_queue": 3}, "max_sessions=64: the queue holds max_queue=3"),
        ({"dtype": "int8"}, "dtype='int8': allowed are"),
    ],
)
def test_settings(settings: dict[str, Any], problem: str) -> None:
    with pytest.raises(SettingError, match=f"^{problem}"):
        ServeConfig(**settings)


@pytest.mark.parametrize("host", ["127.0.0.1", "127.1.2.3", "::1", "localhost"])
def test_loopback_needs_no_token(host: str) -> None:
    assert ServeConfig(host=host).token() is None
