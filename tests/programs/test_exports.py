import subprocess
import sys

import pytest

import routedk.optimizers
import routedk.programs


@pytest.mark.parametrize("package", [routedk.programs, routedk.optimizers])
def test_every_name_is_there(package: object) -> None:
    for name in package.__all__:  # type: ignore[attr-defined]
        assert getattr(package, name).__name__ == name
    with pytest.raises(AttributeError, match="attribute"):
        package.nonsense  # type: ignore[attr-defined]  # noqa: B018


def test_packages_import_nothing_heavy() -> None:
    code = (
        "import sys, routedk.programs, routedk.optimizers\n"
        "sys.exit(bool({'dspy', 'torch', 'transformers', 'sklearn'} & set(sys.modules)))"
    )
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
