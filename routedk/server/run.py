"""Loads what a server needs, and runs it until a signal ends it."""

import logging
import math
import socket
from collections.abc import Callable
from contextlib import suppress
from importlib.util import find_spec
from typing import Any

from routedk.adapters.generate import GenerateConfig, resolve_program
from routedk.errors import MissingExtraError
from routedk.server.config import ListenConfig, ServeConfig

logger = logging.getLogger(__name__)


def serve(config: ServeConfig) -> None:
    """Serve until SIGTERM or SIGINT; what is under way is finished.

    Args:
        config: Settings.

    Raises:
        MissingExtraError: The server's libraries are not installed.
        OSError: The address cannot be listened on.
    """
    need("serve", "fastapi", "prometheus_client", "uvicorn")

    def load(url: str) -> Any:
        from routedk.server.app import make_app

        named = {name: getattr(config, name) for name in ("program", "experts", "student", "dtype")}
        app = make_app(resolve_program(GenerateConfig(**named)), config, config.token())
        logger.info("serving on port %s, documented at /docs", url.rpartition(":")[2])
        return app

    run(config, load, patience=config.timeout)


def need(extra: str, *modules: str) -> None:
    """Check that the libraries of an extra are installed.

    Raises:
        MissingExtraError: One is not.
    """
    if missing := [name for name in modules if find_spec(name) is None]:
        names = ", ".join(missing)
        raise MissingExtraError(f"{extra}: {names} not installed: pip install 'routedk[serve]'")


def run(config: ListenConfig, load: Callable[[str], Any], *, patience: float) -> None:
    """Listen, load an application, and serve it until SIGTERM or SIGINT.

    Args:
        config: Where to listen.
        load: Makes the application; it is told the URL. Early clients wait for it.
        patience: Seconds that requests under way have to finish at the end.

    Raises:
        OSError: The address cannot be listened on.
    """
    import uvicorn

    config.token()  # Before the model is loaded, what is wrong is said at once.
    family = socket.AF_INET6 if ":" in config.host else socket.AF_INET
    with socket.create_server((config.host, config.port), family=family) as listener:
        name = f"[{config.host}]" if ":" in config.host else config.host
        settings = uvicorn.Config(
            load(f"http://{name}:{listener.getsockname()[1]}"),
            log_config=None,
            access_log=False,
            server_header=False,
            ws="none",
            lifespan="off",
            timeout_graceful_shutdown=math.ceil(patience),
        )
        with suppress(KeyboardInterrupt):
            uvicorn.Server(settings).run([listener])
