"""``routedk serve``: bundles and the student over HTTP."""

from routedk.cli.config_options import with_config_options
from routedk.server.config import ServeConfig


@with_config_options
def serve(config: ServeConfig) -> None:
    """Serve bundles, and the student as a model for OpenAI's clients, over HTTP.

    POST /v1/bundles answers sessions as routedk generate does; /v1/chat/completions and /v1/models
    are OpenAI's; /healthz, /readyz and /metrics are for operators, and /docs shows all of them.
    Concurrent requests are batched. SIGTERM lets requests in progress finish.

    Example: routedk serve --program program.json --experts experts
    """
    from routedk.server.run import serve

    serve(config)
