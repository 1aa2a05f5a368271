"""``python -m routedk``: the command line, for launchers that start modules."""

from routedk.cli import main

main()
