"""Where RouteDK caches what it made or downloaded, such as the student's weights."""

import os
from pathlib import Path


def cache_folder() -> Path:
    """The cache folder: ``$ROUTEDK_CACHE``, ``$XDG_CACHE_HOME/routedk`` or ``~/.cache/routedk``.

    The first whose variable is set counts; the folder is not created here.
    """
    if own := os.environ.get("ROUTEDK_CACHE"):
        return Path(own).expanduser()
    if shared := os.environ.get("XDG_CACHE_HOME"):
        return Path(shared) / "routedk"
    return Path.home() / ".cache" / "routedk"
