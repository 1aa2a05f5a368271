"""``routedk mcp``: bundles as tools of an agent."""

from typing import Annotated

import typer

from routedk.cli.config_options import with_config_options
from routedk.server.config import ServeConfig

_HTTP = (
    "Serve over streamable HTTP, at /mcp of what routedk serve serves, not over stdin and stdout."
)


@with_config_options
def mcp(
    config: ServeConfig, http: Annotated[bool, typer.Option("--http", help=_HTTP)] = False
) -> None:
    """Serve bundles as tools for agents over the Model Context Protocol (MCP).

    The tools are bundle_items and explain_bundle; the resource routedk://card says what the program
    is and what its limits are. An agent's client starts this command and talks to it over stdin and
    stdout; logs go to stderr. Options for addresses, tokens and requests apply to --http, except
    --max-items, which always applies.

    Example: routedk mcp --program program.json --experts experts
    """
    from routedk.server.run import need_extra, serve, serve_stdio

    if http:
        need_extra("mcp", "mcp")
        serve(config)
    else:
        serve_stdio(config)
