"""Where RouteDK keeps what it made or fetched once, such as the student's weights."""

import os
from pathlib import Path


def cache_folder() -> Path:
    """The cache folder: ``$ROUTEDK_CACHE``, else ``$XDG_CACHE_HOME/routedk``, else in the home.

    It is not made here.
    """
    if own := os.environ.get("ROUTEDK_CACHE"):
        return Path(own).expanduser()
    if shared := os.environ.get("XDG_CACHE_HOME"):
        return Path(shared) / "routedk"
    return Path.home() / ".cache" / "routedk"
