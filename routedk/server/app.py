"""The application: HTTP routes to a program and its student, and error responses."""

import asyncio
import secrets
from collections.abc import Awaitable, Callable
from contextlib import suppress
from http import HTTPStatus
from importlib.util import find_spec
from typing import Annotated, Any, TypeAlias

import dspy
from dspy.utils.exceptions import ContextWindowExceededError
from fastapi import APIRouter, Body, Depends, FastAPI, HTTPException, Request, Response
from fastapi.exceptions import RequestValidationError
from fastapi.middleware.cors import CORSMiddleware
from fastapi.security import HTTPAuthorizationCredentials, HTTPBearer
from prometheus_client import CONTENT_TYPE_LATEST, generate_latest
from pydantic import TypeAdapter
from starlette.exceptions import HTTPException as StarletteHTTPException
from starlette.types import Receive, Scope, Send

import routedk
from routedk.adapters.answering import answer_async
from routedk.data.records import session_from_record
from routedk.data.validation import Id
from routedk.errors import DataError, SettingError
from routedk.eval.predictions import prediction_record
from routedk.programs.batch import in_thread
from routedk.programs.generator import BundleGenerator
from routedk.rules import BundleRules, read_rules, rules_of
from routedk.server.chat import MODEL, completion, events, read_request
from routedk.server.config import ServeConfig
from routedk.server.guard import Guard, Metrics, Queue, problem
from routedk.types import Answer, Session

_ID: TypeAdapter[str] = TypeAdapter(Id)
_ITEMS = [{"id": "a", "title": "Pour-over kettle", "price": 39.9}, {"id": "b", "title": "Filters"}]
_SESSION = {"session_id": "s1", "items": _ITEMS}
_BUNDLE = {"items": ["a", "b"], "intent": "brew coffee", "kind": "complements", "confidence": 0.7}
_ANSWER = {"session_id": "s1", "bundles": [_BUNDLE], "confidence": 0.7}
_CHAT = {"model": MODEL, "messages": [{"role": "user", "content": "What goes with a kettle?"}]}
_ERRORS: dict[int | str, Any] = {
    status: {"description": HTTPStatus(status).description}
    for status in (400, 401, 403, 413, 421, 422, 429, 504)
}


def _examples(**values: Any) -> Any:
    return {name: {"value": value} for name, value in values.items()}


_Sessions = Annotated[
    dict[str, Any], Body(openapi_examples=_examples(one=_SESSION, many={"sessions": [_SESSION]}))
]
_Chat = Annotated[dict[str, Any], Body(openapi_examples=_examples(chat=_CHAT))]
_Asked: TypeAlias = tuple[Session, BundleRules | None]
_ANSWERS = _examples(one=_ANSWER, many={"answers": [_ANSWER]})
_ANSWERED = {"description": "Answered", "content": {"application/json": {"examples": _ANSWERS}}}


class Service:
    """The endpoints.

    Args:
        program: The program, with its language model set.
        config: Its limits apply.
    """

    def __init__(self, program: BundleGenerator, config: ServeConfig) -> None:
        self.program = program
        self.lm = program.generate.lm
        self.config = config
        self.rules = read_rules(config.rules) if config.rules else None
        self.metrics = Metrics()
        self.queue = Queue(config.max_queue, self.metrics.under_way)

    async def bundles(self, body: _Sessions) -> dict[str, Any]:
        """Group the items of one session, or of many, into bundles with intents.

        A session is answered with a prediction as routedk generate writes it, sessions with such
        answers in the same order; an invalid one gets an error and no bundles. Bundles break none
        of the rules that a session or the body states.
        """
        if "sessions" not in body:
            return (await self._answers([await self._asked(body, self.rules)]))[0]
        records = body["sessions"]
        if not isinstance(records, list) or not records:
            raise DataError("sessions: expected a list of at least one session")
        if len(records) > (most := self.config.max_sessions):
            raise HTTPException(413, f"{len(records)} sessions: a request holds at most {most}")
        rules = await _own_rules(body, self.rules)
        read = [await self._read(record, rules) for record in records]
        found = iter(await self._answers([one for one in read if isinstance(one, tuple)]))
        return {"answers": [next(found) if isinstance(one, tuple) else one for one in read]}

    async def _read(self, record: Any, rules: BundleRules | None) -> _Asked | dict[str, Any]:
        """Parse a record into what is asked, or into the answer to an invalid session."""
        try:
            return await self._asked(record, rules)
        except DataError as error:
            refused: dict[str, Any] = {"session_id": None, "bundles": [], "error": str(error)}
        self.metrics.sessions.labels("refused").inc()
        with suppress(ValueError, LookupError, TypeError):
            refused["session_id"] = _ID.validate_python(record["session_id"])
        return refused

    async def _asked(self, record: Any, rules: BundleRules | None) -> _Asked:
        """The session and its own rules, else those given."""
        if not isinstance(record, dict):
            raise DataError('a session is an object: {"session_id": ..., "items": [...]}')
        session = session_from_record(record)
        count, most = len(session.items), self.config.max_items
        if count > most:
            raise DataError(f"session {session.id!r} has {count} items: at most {most} are allowed")
        return session, await _own_rules(record, rules)

    async def _answers(self, asked: list[_Asked]) -> list[dict[str, Any]]:
        """Answer sessions with predictions."""
        answers = list[Answer]()
        with self.queue.room(len(asked)):
            for part in _parts(asked, self.config.max_items):
                try:
                    async with asyncio.TaskGroup() as group:
                        tasks = [group.create_task(self._answer(*one)) for one in part]
                except ExceptionGroup as failed:
                    raise failed.exceptions[0] from None
                answers += [task.result() for task in tasks]
        return list(map(prediction_record, answers))

    async def _answer(self, session: Session, rules: BundleRules | None) -> Answer:
        return self.counted(await answer_async(session, self.program, rules))

    def counted(self, answer: Answer) -> Answer:
        """Count an answer in the metrics and return it."""
        self.metrics.sessions.labels("unread" if answer.error else "answered").inc()
        return answer

    async def chat(self, body: _Chat) -> Any:
        """Ask the student, in OpenAI's wire format; a stream sends the finished answer."""
        if body.get("model") != MODEL:
            raise HTTPException(404, f"there is no such model here: the only one is {MODEL!r}")
        request = read_request(body, self.lm.model)
        with self.queue.room(1), dspy.context(disable_history=True, trace=None):
            answer = completion(await self.lm.acall(request))
        if not body.get("stream"):
            return answer
        return Response("".join(events(answer, body)), media_type="text/event-stream")

    async def models(self) -> dict[str, Any]:
        """The models that chat completions may name."""
        return {"object": "list", "data": [await self.model()]}

    async def model(self) -> dict[str, Any]:
        """The model that chat completions may name."""
        return {"id": MODEL, "object": "model", "created": 0, "owned_by": "routedk"}

    async def measures(self) -> Response:
        """Metrics for Prometheus."""
        return Response(generate_latest(self.metrics.registry), media_type=CONTENT_TYPE_LATEST)

    async def healthy(self) -> dict[str, str]:
        """Whether the process answers."""
        return {"status": "ok"}

    async def ready(self) -> dict[str, str]:
        """Whether there is room for a request; 503 if not."""
        if self.queue.full:
            raise HTTPException(503, "the queue is full")
        return {"status": "ok"}


def make_app(program: BundleGenerator, config: ServeConfig, token: str | None = None) -> FastAPI:
    """Make the ASGI application.

    Args:
        program: The program, with its language model set; it groups items and names bundles as
            `generate` does.
        config: Limits and origins.
        token: What clients must send; None if no token is required.
    """
    service = Service(program, config)
    tools = _Tools(service) if find_spec("mcp") else None
    app = FastAPI(
        lifespan=tools.lifespan if tools else None,
        title="RouteDK",
        summary="Shopping sessions into bundles with a small language model.",
        version=routedk.__version__,
        redoc_url=None,
        max_body_size=config.max_body,
    )
    guarded = APIRouter(dependencies=[Depends(_bearer(token))] if token else [])
    guarded.post("/v1/bundles", responses={200: _ANSWERED, **_ERRORS})(service.bundles)
    guarded.post("/v1/chat/completions", responses=_ERRORS)(service.chat)
    guarded.get("/v1/models")(service.models)
    guarded.get(f"/v1/models/{MODEL}")(service.model)
    guarded.get("/metrics")(service.measures)
    if tools:
        guarded.post("/mcp", include_in_schema=False)(tools.endpoint)
    app.include_router(guarded)
    app.get("/healthz")(service.healthy)
    app.get("/readyz")(service.ready)
    app.add_middleware(Guard, config=config, metrics=service.metrics)
    if origins := config.cors_origins:
        app.add_middleware(
            CORSMiddleware, allow_origins=origins, allow_methods=["*"], allow_headers=["*"]
        )
    _explain_errors(app, service.metrics)
    return app


class _Tools(Response):
    """Answers tool requests independently: no state is kept between them."""

    def __init__(self, service: Service) -> None:
        from mcp.server.transport_security import TransportSecuritySettings

        from routedk.server.mcp import make_mcp

        async def loaded() -> BundleGenerator:
            return service.program

        super().__init__()
        config, self.room = service.config, service.queue.room
        server = make_mcp(loaded, config.max_items, service.rules, service.counted)
        self.app = server.streamable_http_app(
            json_response=True,
            stateless_http=True,
            max_request_body_size=config.max_body,
            # `Guard` protects all routes.
            transport_security=TransportSecuritySettings(enable_dns_rebinding_protection=False),
        )
        self.lifespan = lambda _: server.session_manager.run()

    async def endpoint(self) -> Response:
        return self

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        with self.room(1):
            await self.app(scope, receive, send)


async def _own_rules(record: dict[str, Any], rules: BundleRules | None) -> BundleRules | None:
    """The record's own rules, else those given; in a thread, as there may be many to validate."""
    stated = record.get("rules")
    return rules if stated is None else await in_thread(rules_of, stated)


def _parts(asked: list[_Asked], most: int) -> list[list[_Asked]]:
    """Split sessions into parts of at most so many items, so that no request takes all threads."""
    parts, count = list[list[_Asked]](), most
    for session, rules in asked:
        count += len(session.items)
        if count > most:
            parts.append([])
            count = len(session.items)
        parts[-1].append((session, rules))
    return parts


def _bearer(token: str) -> Callable[..., Awaitable[None]]:
    """A dependency that checks the token of a request."""
    scheme = HTTPBearer(auto_error=False)

    async def check(given: Annotated[HTTPAuthorizationCredentials | None, Depends(scheme)]) -> None:
        if given is None or not secrets.compare_digest(given.credentials.encode(), token.encode()):
            text = "send the server's token, as Authorization: Bearer TOKEN"
            raise HTTPException(401, text, {"WWW-Authenticate": "Bearer"})

    return check


def _explain_errors(app: FastAPI, metrics: Metrics) -> None:
    """Return every error in the same format."""
    expected = "expected a JSON object as body, sent as application/json"

    @app.exception_handler(StarletteHTTPException)
    async def refused(_: Request, error: StarletteHTTPException) -> Response:
        if isinstance(error.__cause__, UnicodeDecodeError | RecursionError):  # While reading JSON.
            return problem(422, f"{expected}: {error.__cause__}")
        return problem(error.status_code, str(error.detail), headers=error.headers)

    @app.exception_handler(RequestValidationError)
    async def malformed(_: Request, error: RequestValidationError) -> Response:
        fault = error.errors()[0]
        return problem(422, f"{expected}: {fault.get('ctx', {}).get('error') or fault['msg']}")

    @app.exception_handler(DataError)
    async def invalid(_: Request, error: DataError) -> Response:
        metrics.sessions.labels("refused").inc()
        return problem(422, str(error))

    @app.exception_handler(SettingError)
    async def unable(_: Request, error: SettingError) -> Response:
        return problem(400, str(error))

    @app.exception_handler(ContextWindowExceededError)
    async def too_long(_: Request, error: ContextWindowExceededError) -> Response:
        # LiteLLM recognizes this error by these words, other clients by its code.
        text = f"this model's maximum context length is exceeded: {error}"
        return problem(400, text, code="context_length_exceeded")
