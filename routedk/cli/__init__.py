"""The command line: each command parses, loads sessions, calls its verb, writes and prints.

To add a command ``routedk foo``: write ``routedk/cli/foo.py`` with one function, decorated with
``routedk.cli.config_options.with_config_options``, whose parameters of config types become its
options; import its heavy modules inside the function; and add it in ``routedk/cli/app.py``. An
error that a user can fix is raised as a ``RouteDKError``.
"""

from routedk.cli.app import app, main

__all__ = ["app", "main"]
