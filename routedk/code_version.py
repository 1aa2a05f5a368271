"""The version of some code: a hash of its source, and of what it imports.

It stands in the name of all that is kept and was made by code: a trial's parts, a student's
answers. A table of version numbers would have to be kept by hand, and a number that was forgotten
would hand out what other code made. So modules are read, and those of this package that they
import, anywhere in them, and so on; the versions of other libraries that any of them imports come
along. A changed comment makes things anew, too: that costs time once, and no result.
"""

import ast
import hashlib
from collections.abc import Iterator, Sequence
from functools import cache
from importlib import metadata
from importlib.util import find_spec
from pathlib import Path

_OWN = "routedk"


@cache
def code_version(*modules: str, apart: tuple[str, ...] = ()) -> str:
    """The version of some modules: sixteen hex digits.

    Read once for each process: code that is changed while it runs is not what runs.

    Args:
        modules: Full names of the modules that begin the work.
        apart: Packages and modules that they import and that change nothing of what they make.
    """
    digest = hashlib.sha256()
    libraries: set[str] = set()
    for name, path in _closure(modules, apart).items():
        digest.update(f"{name}\n".encode() + path.read_bytes())
        # Prompts stand in text files beside the code.
        for text in sorted(path.parent.glob("*.txt")):
            digest.update(text.read_bytes())
        libraries |= {head for head in _imports(path) if "." not in head and head != _OWN}
    known = _distributions()
    for library in sorted(libraries & known.keys()):
        digest.update(f"{library}=={metadata.version(known[library])}\n".encode())
    return digest.hexdigest()[:16]


def modules_of(*modules: str, apart: tuple[str, ...] = ()) -> tuple[str, ...]:
    """The modules of this package that these are made of, themselves included, sorted."""
    return tuple(_closure(modules, apart))


def _closure(modules: Sequence[str], apart: Sequence[str]) -> dict[str, Path]:
    found: dict[str, Path] = {}
    left = list(modules)
    while left:
        name = left.pop()
        if name in found or any(name == one or name.startswith(f"{one}.") for one in apart):
            continue
        if (path := _source(name)) is None:
            continue
        found[name] = path
        left += [head for head in _imports(path) if head.startswith(f"{_OWN}.")]
    return dict(sorted(found.items()))


@cache
def _source(name: str) -> Path | None:
    """The file of a module; None for a name that is none, e.g. a class of one.

    Found without importing what the name is in, which may be slow.
    """
    parent, _, child = name.rpartition(".")
    if parent in ("", _OWN):
        spec = find_spec(name)
        return None if spec is None or spec.origin is None else Path(spec.origin)
    package = _source(parent)
    if package is None or package.name != "__init__.py":
        return None
    places = (package.parent / child / "__init__.py", package.parent / f"{child}.py")
    return next((path for path in places if path.is_file()), None)


@cache
def _imports(path: Path) -> frozenset[str]:
    """Full names of all that a file imports, its libraries by their first part alone."""
    return frozenset(_names(ast.parse(path.read_bytes())))


def _names(tree: ast.AST) -> Iterator[str]:
    for node in ast.walk(tree):
        names: list[str] = []
        if isinstance(node, ast.Import):
            names = [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom) and node.module and not node.level:
            names = [node.module, *(f"{node.module}.{alias.name}" for alias in node.names)]
        for name in names:
            yield name if name.startswith(f"{_OWN}.") else name.partition(".")[0]


@cache
def _distributions() -> dict[str, str]:
    return {name: found[0] for name, found in metadata.packages_distributions().items()}
