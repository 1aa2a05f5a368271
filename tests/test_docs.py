"""Every Python example of README, docs and public docstrings runs, on a tiny student.

Those of docs/dspy.md are run by tests/optimizers/test_dspy_document.py.
"""

import doctest
import io
import re
from contextlib import redirect_stdout
from importlib import import_module
from pathlib import Path
from typing import Any

import pytest

from .adapters.conftest import loaded, student_folder
from .test_api import DOCUMENTS, PACKAGES, ROOT

__all__ = ["loaded", "student_folder"]

_BLOCK = re.compile(r"```python\n(.*?)```(?:\n\n```text\n(.*?)```)?", re.DOTALL)
_ELSEWHERE = {"dspy.md"}
# Examples whose output is that of the demo's student.
_OF_THE_DEMO = {"README.md"}


def examples() -> dict[str, tuple[str, str]]:
    """Python blocks of the documents, with the output that follows each."""
    return {
        f"{path.name}-{number}": (block[0], block[1])
        for path in DOCUMENTS
        if path.name not in _ELSEWHERE
        for number, block in enumerate(_BLOCK.findall(path.read_text(encoding="utf-8")), start=1)
    }


EXAMPLES = examples()
PUBLIC = sorted(
    {
        (package, name)
        for package in PACKAGES
        for name in import_module(package).__all__
        if ">>>" in (getattr(getattr(import_module(package), name), "__doc__", None) or "")
    }
)


@pytest.fixture
def workplace(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, student_folder: Path, loaded: Any
) -> Path:
    """A folder with what `make demo` leaves behind, of the tiny student."""
    from routedk import BundleGenerator, student_lm
    from routedk.adapters import ExpertSettings, RoutedStudent

    from .adapters.conftest import copy_of
    from .embedded import embed

    monkeypatch.setenv("ROUTEDK_CACHE", str(tmp_path / "cache"))
    monkeypatch.chdir(tmp_path)
    embed(student_folder, monkeypatch)
    demo = tmp_path / "artifacts" / "demo"
    RoutedStudent(copy_of(loaded), ExpertSettings(r=2, layers=2), fusion="softmax").save(
        demo / "experts"
    )
    BundleGenerator().save(demo / "program.json")
    # The packaged bundler fits the real student only.
    monkeypatch.setattr(
        "routedk.adapters.lm.default_lm", lambda dtype: student_lm(demo / "experts")
    )
    return tmp_path


@pytest.mark.usefixtures("workplace")
@pytest.mark.parametrize("name", EXAMPLES)
def test_examples_of_documents(name: str) -> None:
    code, output = EXAMPLES[name]
    printed = io.StringIO()
    with redirect_stdout(printed):
        exec(compile(code, name, "exec"), {})
    if output and name.partition("-")[0] not in _OF_THE_DEMO:
        assert printed.getvalue() == output


@pytest.mark.usefixtures("workplace")
@pytest.mark.parametrize(("package", "name"), PUBLIC)
def test_examples_of_docstrings(package: str, name: str) -> None:
    public = getattr(import_module(package), name)
    runner = doctest.DocTestRunner(optionflags=doctest.NORMALIZE_WHITESPACE)
    for test in doctest.DocTestFinder(recurse=False).find(public, name, globs={}):
        runner.run(test)
    assert runner.summarize(verbose=False).failed == 0


def test_every_verb_has_an_example() -> None:
    names = {name for _, name in PUBLIC}
    assert names >= {"distill", "train", "compile_program", "generate", "evaluate"}


def test_links_lead_somewhere() -> None:
    for path in DOCUMENTS:
        text = path.read_text(encoding="utf-8")
        for target in re.findall(r"\]\((?!https?:)([^)#]+)(?:#[^)]*)?\)", text):
            assert (path.parent / target).exists() or (ROOT / target).exists(), (path, target)
