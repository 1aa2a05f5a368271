"""Loads what a server needs, and runs it until a signal ends it."""

import asyncio
import logging
import math
import socket
import sys
from collections.abc import AsyncIterator, Callable
from concurrent.futures import Future
from contextlib import asynccontextmanager, suppress
from importlib.util import find_spec
from threading import Event, Thread
from typing import TYPE_CHECKING, Any

from routedk.adapters.answering import GenerateConfig, resolve_program
from routedk.errors import MissingExtraError
from routedk.rules import read_rules
from routedk.server.config import ListenConfig, ServeConfig
from routedk.types import Item, Session

if TYPE_CHECKING:
    from routedk.programs.generator import BundleGenerator

logger = logging.getLogger(__name__)


def need_extra(name: str, *modules: str) -> None:
    """Check that the libraries of an extra are installed.

    Raises:
        MissingExtraError: They are not.
    """
    if missing := ", ".join(module for module in modules if find_spec(module) is None):
        raise MissingExtraError(f"{name}: {missing} not installed: pip install 'routedk[{name}]'")


def serve(config: ServeConfig) -> None:
    """Serve until SIGTERM or SIGINT; requests in progress are finished.

    Args:
        config: Settings.

    Raises:
        MissingExtraError: The server's libraries are not installed.
        OSError: The server cannot listen on the address.
    """
    need_extra("serve", "fastapi", "prometheus_client", "uvicorn")

    def load(url: str) -> Any:
        from routedk.server.app import make_app

        app = make_app(_program(config), config, config.token())
        logger.info("serving on port %s, documented at /docs", url.rpartition(":")[2])
        return app

    run(config, load, patience=config.timeout)


def run(config: ListenConfig, load: Callable[[str], Any], *, patience: float) -> None:
    """Listen, load an application, and serve it until SIGTERM or SIGINT.

    Args:
        config: Where to listen.
        load: Makes the application, given the URL. Early clients wait for it.
        patience: Seconds that requests in progress have to finish on shutdown.

    Raises:
        OSError: The server cannot listen on the address.
    """
    import uvicorn

    config.token()  # Before the model is loaded, so that an error shows at once.
    family = socket.AF_INET6 if ":" in config.host else socket.AF_INET
    with socket.create_server((config.host, config.port), family=family) as listener:
        name = f"[{config.host}]" if ":" in config.host else config.host
        settings = uvicorn.Config(
            load(f"http://{name}:{listener.getsockname()[1]}"),
            log_config=None,
            access_log=False,
            server_header=False,
            ws="none",
            lifespan="on",
            timeout_graceful_shutdown=math.ceil(patience),
        )
        with suppress(KeyboardInterrupt):
            uvicorn.Server(settings).run([listener])


def serve_stdio(config: ServeConfig) -> None:
    """Serve tools over stdin and stdout until stdin ends.

    Args:
        config: Which program; of the limits, only ``max_items`` applies.

    Raises:
        MissingExtraError: The library is not installed.
    """
    need_extra("mcp", "mcp")
    from routedk.server.mcp import make_mcp

    program: Future[BundleGenerator] = Future()
    program.set_running_or_notify_cancel()  # A caller that is canceled does not cancel it.
    diverted = Event()

    async def loaded() -> "BundleGenerator":
        return await asyncio.wrap_future(program)

    @asynccontextmanager
    async def running(_: object) -> AsyncIterator[None]:
        diverted.set()  # From now on, anything else printed goes to stderr.
        yield
        sys.stdout.flush()

    rules = read_rules(config.rules) if config.rules else None
    server = make_mcp(loaded, config.max_items, rules, lifespan=running)

    def talk() -> None:
        try:
            asyncio.run(server.run_stdio_async())
        except* BrokenPipeError:
            logger.info("the client left")
        finally:
            diverted.set()

    # Clients wait only seconds for a first answer. A daemon: it may be reading stdin when a
    # signal or an error in loading ends this process.
    talking = Thread(target=talk, daemon=True)
    talking.start()
    diverted.wait()
    program.set_result(_program(config))
    logger.info("serving tools on stdin and stdout")
    talking.join()


def _program(config: ServeConfig) -> "BundleGenerator":
    from routedk.programs.grouping.protocol import ruled

    rules = read_rules(config.rules) if config.rules else None  # Before the model is loaded.
    named = {name: getattr(config, name) for name in ("program", "experts", "student", "dtype")}
    program = resolve_program(GenerateConfig(**named))
    if rules is not None:
        # Raises now if rules cannot be applied.
        ruled(program.groups_by()).answer(Session("any", (Item("any", ""),)), rules)
    return program
