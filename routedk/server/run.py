"""Loads what a server needs, and runs it until a signal ends it."""

import logging
import math
import socket
from contextlib import suppress
from importlib.util import find_spec

from routedk.adapters.generate import GenerateConfig, resolve_program
from routedk.errors import MissingExtraError
from routedk.server.config import ServeConfig

logger = logging.getLogger(__name__)


def serve(config: ServeConfig) -> None:
    """Serve until SIGTERM or SIGINT; what is under way is finished.

    Args:
        config: Settings.

    Raises:
        MissingExtraError: The server's libraries are not installed.
        OSError: The address cannot be listened on.
    """
    needed = ("fastapi", "prometheus_client", "uvicorn")
    if missing := [name for name in needed if find_spec(name) is None]:
        names = ", ".join(missing)
        raise MissingExtraError(f"serve: {names} not installed: pip install 'routedk[serve]'")
    import uvicorn

    from routedk.server.app import make_app

    token = config.token()
    family = socket.AF_INET6 if ":" in config.host else socket.AF_INET
    # Before the model is loaded: an address in use is said at once, early clients wait.
    with socket.create_server((config.host, config.port), family=family) as listener:
        named = {name: getattr(config, name) for name in ("program", "experts", "student", "dtype")}
        app = make_app(resolve_program(GenerateConfig(**named)), config, token)
        logger.info("serving on port %d, documented at /docs", listener.getsockname()[1])
        settings = uvicorn.Config(
            app,
            log_config=None,
            access_log=False,
            server_header=False,
            ws="none",
            lifespan="off",
            timeout_graceful_shutdown=math.ceil(config.timeout),
        )
        with suppress(KeyboardInterrupt):
            uvicorn.Server(settings).run([listener])
