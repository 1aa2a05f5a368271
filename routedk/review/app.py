"""The application: a page per session, rendered here, and the edits that it sends."""

import secrets
from base64 import b64decode
from collections.abc import Awaitable, Callable
from contextlib import suppress
from pathlib import Path
from typing import Annotated
from urllib.parse import urlsplit

from fastapi import Depends, FastAPI, HTTPException, Query, Request, Response
from fastapi.exceptions import RequestValidationError
from fastapi.responses import HTMLResponse, PlainTextResponse
from fastapi.staticfiles import StaticFiles
from jinja2 import Environment, FileSystemLoader, StrictUndefined
from starlette.middleware.base import RequestResponseEndpoint

from routedk.errors import DataError
from routedk.review.desk import Change, Desk, View, one_visible_line
from routedk.server.guard import refused
from routedk.types import Session

_MAX_BODY = 2**20
_POLICY = "default-src 'none'; script-src 'self'; style-src 'self'; connect-src 'self'; "
_POLICY += "form-action 'self'; base-uri 'none'; frame-ancestors 'none'; img-src 'self'"
_HEADERS = {"Cache-Control": "no-store", "X-Content-Type-Options": "nosniff"}
_View = Annotated[View, Query()]
_STALE = "Someone else saved first. This is the current version; your change was not applied but "
_STALE += "is kept in the history."


def make_app(desk: Desk, user: str, token: str | None = None) -> FastAPI:
    """Make the ASGI application.

    Args:
        desk: The sessions.
        user: Who edits if a browser gives no name.
        token: The password that browsers must send; None if none is required.
    """
    loader = FileSystemLoader(Path(__file__).parent)
    templates = Environment(loader=loader, autoescape=True, undefined=StrictUndefined)
    templates.filters["line"] = one_visible_line
    template = templates.get_template("page.html", globals={"desk": desk})
    known = Depends(_knows(token, user))

    def show(view: View, name: str, status: int = 200, notice: str = "") -> Response:
        page = desk.page(view)
        session = desk.sessions[page.current.session_id] if page.current else None
        text = template.render(page=page, session=session, view=view, user=name, notice=notice)
        policy = " ".join([_POLICY, *(_hosts(session) if session else ())])
        return HTMLResponse(text, status, {**_HEADERS, "Content-Security-Policy": policy})

    app = FastAPI(docs_url=None, redoc_url=None, openapi_url=None, max_body_size=_MAX_BODY)

    @app.get("/")
    def page(view: _View, name: str = known) -> Response:
        return show(view, name)

    @app.post("/")
    def edit(view: _View, change: Change, name: str = known) -> Response:
        if desk.save(change, one_visible_line(change.user) or name):
            return show(view, name)
        return show(view, name, 409, _STALE)

    @app.exception_handler(DataError)
    async def invalid(_: Request, error: DataError) -> Response:
        return PlainTextResponse(str(error), 422, _HEADERS)

    @app.exception_handler(RequestValidationError)
    async def malformed(_: Request, error: RequestValidationError) -> Response:
        # FastAPI would repeat the input, which may not be JSON or UTF-8.
        found = (f"{one['loc'][-1]}: {one['msg']}" for one in error.errors())
        return PlainTextResponse("; ".join(found), 422, _HEADERS)

    app.mount("/page", StaticFiles(directory=Path(__file__).with_name("page")))

    @app.middleware("http")
    async def guard(request: Request, answer: RequestResponseEndpoint) -> Response:
        if fault := refused(request.headers, token is not None):
            return PlainTextResponse(fault[1], fault[0])
        return await answer(request)

    return app


def _knows(token: str | None, user: str) -> Callable[..., Awaitable[str]]:
    """A dependency that authenticates a user and returns the name."""

    async def check(request: Request) -> str:
        if token is None:
            return user
        # FastAPI's HTTPBasic rejects a name such as Jörg.
        given = request.headers.get("authorization", "").partition(" ")[2]
        with suppress(ValueError):
            name, _, password = b64decode(given).decode(errors="replace").partition(":")
            if secrets.compare_digest(password.encode(), token.encode()):
                return one_visible_line(name) or user
        asked = {"WWW-Authenticate": 'Basic realm="routedk review", charset="UTF-8"'}
        raise HTTPException(401, "give your name, and the token as password", asked)

    return check


def _hosts(session: Session) -> list[str]:
    """The origins of a session's pictures."""
    urls = [urlsplit(item.image) for item in session.items if item.image]
    return sorted({f"{url.scheme}://{url.netloc}" for url in urls})
