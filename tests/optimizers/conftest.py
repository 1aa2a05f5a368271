"""DSPy's cache out of the way, it is opened at import; what the shared suite asserts, in words."""

import os
import tempfile

import pytest

os.environ.setdefault("DSPY_CACHEDIR", tempfile.mkdtemp(prefix="routedk-dspy-"))

pytest.register_assert_rewrite("routedk.optimizers.testing")
