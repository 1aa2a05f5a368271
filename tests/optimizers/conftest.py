"""What the shared suite asserts, in words."""

import pytest

pytest.register_assert_rewrite("routedk.optimizers.testing")
