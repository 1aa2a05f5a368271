"""The package as it is installed: light to import, whole in a wheel, pinned."""

import re
import shutil
import subprocess
import sys
import tomllib
import zipfile
from importlib import metadata
from pathlib import Path
from typing import Any

import pytest
from packaging.requirements import Requirement
from packaging.version import Version

import routedk

_ROOT = Path(__file__).parent.parent
_HEAVY = {"datasets", "dspy", "litellm", "optuna", "pandas", "peft", "pyarrow", "sklearn"}
_HEAVY |= {"torch", "transformers", "trl"}
_PROJECT: dict[str, Any] = tomllib.loads((_ROOT / "pyproject.toml").read_text("utf-8"))
_SETUPTOOLS: dict[str, Any] = _PROJECT["tool"]["setuptools"]


def _python(code: str, *, cwd: Path) -> str:
    """What a fresh interpreter prints; it sees what is installed and not the working folder."""
    command = [sys.executable, "-I", "-c", code]
    done = subprocess.run(command, cwd=cwd, check=False, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    return done.stdout


def _folder(package: str) -> Path:
    """The folder of a package in the repository, from the mapping in pyproject.toml."""
    mapping = _SETUPTOOLS["package-dir"]
    parent, _, name = package.rpartition(".")
    return _ROOT / mapping[package] if package in mapping else _folder(parent) / name


@pytest.mark.parametrize(
    "module",
    ["routedk", "routedk.data", "routedk.programs", "routedk.optimizers", "routedk.cli.app"],
)
def test_import_is_light(module: str, tmp_path: Path) -> None:
    loaded = _python(f"import sys, {module}; print(*sys.modules)", cwd=tmp_path).split()
    assert _HEAVY.isdisjoint(loaded)


@pytest.mark.parametrize("name", ["programs", "optimizers", "adapters", "eval"])
def test_root_folders_are_installed_only_inside_routedk(name: str, tmp_path: Path) -> None:
    code = (
        "from importlib.util import find_spec\n"
        f"print(find_spec({name!r}) is None, find_spec('routedk.{name}') is not None)"
    )
    assert _python(code, cwd=tmp_path).split() == ["True", "True"]


def test_version_and_licence_are_the_installed_ones() -> None:
    assert metadata.version("routedk") == routedk.__version__ == _PROJECT["project"]["version"]
    assert metadata.metadata("routedk")["License-Expression"] == "Apache-2.0"


def test_every_package_folder_is_listed() -> None:
    roots = [_ROOT / folder for folder in _SETUPTOOLS["package-dir"].values()]
    found = {init.parent for root in roots for init in root.rglob("__init__.py")}
    assert found == {_folder(package) for package in _SETUPTOOLS["packages"]}


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A wheel, built from a copy so that the repository stays clean."""
    source = tmp_path_factory.mktemp("source")
    for name in ("pyproject.toml", "README.md", "LICENSE"):
        shutil.copy(_ROOT / name, source)
    for folder in set(_SETUPTOOLS["package-dir"].values()):
        unwanted = shutil.ignore_patterns("__pycache__")
        shutil.copytree(_ROOT / folder, source / folder, ignore=unwanted)
    target = tmp_path_factory.mktemp("wheel")
    _python(
        f"from setuptools.build_meta import build_wheel; build_wheel({str(target)!r})", cwd=source
    )
    (path,) = target.glob("*.whl")
    return path


def test_wheel_holds_every_file_of_every_package(wheel: Path) -> None:
    expected = {
        f"{package.replace('.', '/')}/{path.name}"
        for package in _SETUPTOOLS["packages"]
        for path in _folder(package).iterdir()
        if path.is_file() and not path.name.startswith(".")
    }
    bundler = [path for path in (_ROOT / "routedk" / "bundler").rglob("*") if path.is_file()]
    page = (_ROOT / "routedk" / "review" / "page").iterdir()
    expected |= {str(path.relative_to(_ROOT)) for path in (*bundler, *page)}
    weights = [path.stat().st_size for path in bundler if path.suffix == ".safetensors"]
    assert 0 < sum(weights) <= 8 * 2**20
    with zipfile.ZipFile(wheel) as archive:
        names = {name for name in archive.namelist() if ".dist-info/" not in name}
        licences = [name for name in archive.namelist() if name.endswith("licenses/LICENSE")]
    assert names == expected
    assert "routedk/py.typed" in names
    assert len(licences) == 1


def test_wheel_imports_by_itself(wheel: Path, tmp_path: Path) -> None:
    with zipfile.ZipFile(wheel) as archive:
        archive.extractall(tmp_path / "site")
    code = (
        f"import sys; sys.path.insert(0, {str(tmp_path / 'site')!r})\n"
        "import routedk.adapters, routedk.data, routedk.eval\n"
        "import routedk.optimizers, routedk.programs\n"
        "print(len(routedk.data.load_sessions('demo')))\n"
        "print(*(m.__file__ for n, m in sys.modules.items() if n.startswith('routedk')), sep='\\n')"
    )
    sessions, *files = _python(code, cwd=tmp_path).splitlines()
    assert int(sessions) >= 240
    assert all(Path(file).is_relative_to(tmp_path / "site") for file in files)


def _pins() -> dict[str, Version]:
    lines = (_ROOT / "constraints.txt").read_text("utf-8").splitlines()
    pins = [Requirement(line) for line in lines if line and not line.startswith("#")]
    return {_name(pin): Version(re.sub("^==", "", str(pin.specifier))) for pin in pins}


def _name(requirement: Requirement) -> str:
    return re.sub(r"[-_.]+", "-", requirement.name).lower()


def test_constraints_pin_the_whole_tree() -> None:
    pins = _pins()
    project = _PROJECT["project"]
    wanted = [*project["dependencies"], *project["optional-dependencies"]["dev"]]
    seen: set[str] = set()
    queue = [Requirement(text) for text in [*wanted, *_PROJECT["build-system"]["requires"]]]
    while queue:
        requirement = queue.pop()
        name = _name(requirement)
        # A build of torch for a GPU names packages of its own, at versions it pins itself.
        if name in seen or name.startswith(("nvidia-", "cuda-", "triton")):
            continue
        seen.add(name)
        assert name in pins, f"{name} is not in constraints.txt"
        assert requirement.specifier.contains(pins[name], prereleases=True), requirement
        children = [Requirement(text) for text in metadata.requires(name) or ()]
        queue += [
            child
            for child in children
            if child.marker is None
            or any(child.marker.evaluate({"extra": e}) for e in ("", *requirement.extras))
        ]


def test_constraints_name_no_local_version() -> None:
    assert [name for name, version in _pins().items() if version.local] == []
