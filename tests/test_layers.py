"""Imports point one way, files are short, and no private names of libraries are used."""

import ast
import json
import re
import shutil
import subprocess
import sys
from collections import defaultdict
from collections.abc import Iterator
from graphlib import CycleError, TopologicalSorter
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
ROOMS = {
    "routedk": "routedk",
    "eval": "routedk/eval",
    "programs": "routedk/programs",
    "adapters": "routedk/adapters",
    "optimizers": "routedk/optimizers",
}
# Lower layers never import higher ones; what is not named here is the core, below them all.
LAYERS = (
    "routedk.eval",
    "routedk.programs",
    "routedk.adapters",
    "routedk.optimizers",
    "routedk.server",
    "routedk.review",
    "routedk.cli",
)
MAX_LINES = 300

Imports = list[tuple[str, str]]

GRAPH = """
import grimp, json
graph = grimp.build_graph("routedk", exclude_type_checking_imports=True, cache_dir=None)
print(json.dumps([
    (module, imported)
    for module in sorted(graph.modules)
    for imported in sorted(graph.find_modules_directly_imported_by(module))
]))
"""


@pytest.fixture(scope="module")
def imports(tmp_path_factory: pytest.TempPathFactory) -> Imports:
    """All imports within the package, those inside functions, too: (module, imported module)."""
    # The packages lie in folders of other names: a copy of the tree as it is imported.
    tree = tmp_path_factory.mktemp("tree")
    for folder, home in ROOMS.items():
        shutil.copytree(ROOT / folder, tree / home, ignore=shutil.ignore_patterns("__pycache__"))
    done = subprocess.run(
        [sys.executable, "-c", f"import sys; sys.path.insert(0, {str(tree)!r})\n{GRAPH}"],
        capture_output=True,
        text=True,
        check=True,
    )
    found: Imports = [tuple(pair) for pair in json.loads(done.stdout)]
    return found


def layer(module: str) -> int:
    """The height of a module's layer; 0 for the core."""
    for height, name in enumerate(LAYERS, start=1):
        if module == name or module.startswith(f"{name}."):
            return height
    return len(LAYERS) if module == "routedk.__main__" else 0


def test_no_layer_imports_a_higher_one(imports: Imports) -> None:
    upward = [pair for pair in imports if layer(pair[0]) < layer(pair[1])]
    assert upward == []
    assert len({layer(module) for module, _ in imports}) == len(LAYERS) + 1


def test_packages_have_no_cycles(imports: Imports) -> None:
    parents = {module.rpartition(".")[0] for pair in imports for module in pair}
    split = {parent.rpartition(".")[0] for parent in parents}

    def room(module: str) -> str:
        """The package of a module; the module itself where its package has packages inside."""
        parent = module.rpartition(".")[0]
        return module if module in parents or parent in split else parent

    graph: dict[str, set[str]] = defaultdict(set)
    for module, imported in imports:
        # `routedk` is imported for its version alone.
        ends = room(module), room(imported)
        if ends[0] != ends[1] and imported != "routedk":
            graph[ends[0]].add(ends[1])
    try:
        TopologicalSorter(graph).prepare()
    except CycleError as error:
        pytest.fail(" <- ".join(error.args[1]))


def sources(*folders: str) -> Iterator[Path]:
    for folder in folders:
        yield from sorted((ROOT / folder).rglob("*.py"))


def test_no_file_is_too_long() -> None:
    lengths = {
        path.relative_to(ROOT).as_posix(): len(path.read_text(encoding="utf-8").splitlines())
        for path in sources(*ROOMS, "benchmarks", "tests")
    }
    assert {name: length for name, length in lengths.items() if length > MAX_LINES} == {}


# What hides behind an instance, where no import tells whose it is.
FORBIDDEN = re.compile(r"\._(storage|vendor|is_amx\w*|is_avx\w*)\b")


def private_names(path: Path) -> Iterator[str]:
    """Private names of other libraries that a file uses."""
    text = path.read_text(encoding="utf-8")
    yield from (match[0] for match in FORBIDDEN.finditer(text))
    foreign: set[str] = set()
    for node in ast.walk(ast.parse(text)):
        if isinstance(node, ast.Import):
            names = [alias.name for alias in node.names]
            foreign |= {alias.asname or alias.name.partition(".")[0] for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and not node.level:
            names = [f"{node.module}.{alias.name}" for alias in node.names]
            foreign |= {alias.asname or alias.name for alias in node.names}
        else:
            continue
        yield from (name for name in names if is_private(name))
    for node in ast.walk(ast.parse(text)):
        if isinstance(node, ast.Attribute):
            chain = ast.unparse(node)
            if chain.partition(".")[0] in foreign and is_private(chain) and "(" not in chain:
                yield chain


def is_private(name: str) -> bool:
    parts = name.split(".")
    ours = parts[0] in ("routedk", "tests", "benchmarks", "__future__")
    return not ours and any(re.match(r"_(?!_)", part) for part in parts)


def test_no_private_names_of_libraries() -> None:
    found = {
        path.relative_to(ROOT).as_posix(): sorted(set(private_names(path)))
        for path in sources(*ROOMS, "benchmarks")
    }
    assert {name: names for name, names in found.items() if names} == {}
