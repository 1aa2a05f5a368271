import subprocess
import sys

import pytest

import routedk.adapters


def test_every_name_is_there() -> None:
    for name in routedk.adapters.__all__:
        assert getattr(routedk.adapters, name).__name__ == name
    with pytest.raises(AttributeError, match="nonsense"):
        routedk.adapters.nonsense  # noqa: B018


def test_the_package_imports_nothing_heavy() -> None:
    code = (
        "import sys, routedk.adapters\n"
        "sys.exit(bool({'dspy', 'torch', 'transformers', 'peft', 'trl'} & set(sys.modules)))"
    )
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
