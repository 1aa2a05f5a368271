"""DSPy's cache out of the way; it is opened at import."""

import os
import tempfile

os.environ.setdefault("DSPY_CACHEDIR", tempfile.mkdtemp(prefix="routedk-dspy-"))
