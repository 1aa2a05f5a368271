"""The command line.

To add a command ``routedk foo``: write ``routedk/cli/foo.py`` with one function ``foo``, import
its heavy modules inside that function, and register it in ``routedk/cli/app.py`` with two lines::

    from routedk.cli.foo import foo
    app.command(epilog="Example: routedk foo --data demo")(foo)

A command that reads sessions is decorated with ``routedk.cli.options.takes_sessions``, raises
``RouteDKError`` for whatever a user can mend, and prints through ``routedk.cli.output``.
"""

from routedk.cli.app import app, main

__all__ = ["app", "main"]
