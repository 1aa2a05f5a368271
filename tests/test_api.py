"""The public names: what docs/api.md lists is what can be imported, and what the docs import."""

import re
from importlib import import_module
from pathlib import Path
from typing import Any

import pytest

ROOT = Path(__file__).parents[1]
DOCUMENTS = [ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md"))]
PACKAGES = ("routedk", *(f"routedk.{n}" for n in ("programs", "adapters", "optimizers", "eval")))


def listed(package: str) -> list[str]:
    """The names in a package's table."""
    text = (ROOT / "docs" / "api.md").read_text(encoding="utf-8")
    section = text.split(f"\n## {package}\n")[1].split("\n## ")[0]
    return re.findall(r"^\| `(\w+)` \|", section, re.MULTILINE)


@pytest.mark.parametrize("package", PACKAGES)
def test_the_table_lists_all_public_names(package: str) -> None:
    module: Any = import_module(package)
    assert listed(package) == sorted(module.__all__)
    assert all(getattr(module, name) is not None for name in module.__all__)
    assert set(module.__all__) <= set(dir(module))


@pytest.mark.parametrize("document", DOCUMENTS, ids=lambda path: path.name)
def test_documents_import_public_names_only(document: Path) -> None:
    text = document.read_text(encoding="utf-8")
    for package, names in re.findall(r"^ *(?:>>> )?from (routedk[\w.]*) import (.+)$", text, re.M):
        assert package in PACKAGES
        assert set(re.findall(r"\w+", names)) <= set(import_module(package).__all__)
    assert not re.search(r"^ *import routedk\.", text, re.MULTILINE)


def test_readme_is_short() -> None:
    lines = (ROOT / "README.md").read_text(encoding="utf-8").splitlines()
    assert len(lines) <= 150
