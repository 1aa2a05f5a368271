import re
from pathlib import Path

import pytest

from routedk import code_version as module
from routedk.code_version import code_version, modules_of


def test_a_version_follows_imports() -> None:
    made_of = modules_of("routedk.programs.teachers.annotation")
    # Imported, imported by what is imported, and not imported.
    assert "routedk.programs.teachers.patterns" in made_of
    assert "routedk.files" in made_of
    assert "routedk.artifacts.store" not in made_of
    # Inside a function.
    assert "routedk.similarity.encoders" in modules_of("routedk.programs.generator")


def test_a_version_is_of_the_source_and_what_stands_beside_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def version() -> str:
        for one in (code_version, module._source, module._imports):
            one.cache_clear()
        return code_version("routedk.made_up")

    before = (code_version, module._source, module._imports)
    package = tmp_path / "routedk"
    package.mkdir()
    source = package / "made_up.py"
    source.write_text("import numpy\nfrom routedk.errors import DataError\n")
    monkeypatch.setattr("routedk.__path__", [*__import__("routedk").__path__, str(package)])
    try:
        first = version()
        assert re.fullmatch("[0-9a-f]{16}", first)
        assert version() == first
        (package / "prompt.txt").write_text("Bundle these.")
        second = version()
        monkeypatch.setattr(module.metadata, "version", lambda name: "0.0")
        third = version()
        source.write_text("import numpy\nfrom routedk.errors import SettingError\n")
        assert len({first, second, third, version()}) == 4
    finally:
        for one in before:
            one.cache_clear()
