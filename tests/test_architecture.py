"""The house: which package may import which, what an import drags along, and how full rooms are."""

import ast
import subprocess
import sys
from collections.abc import Iterator
from functools import cache
from itertools import pairwise
from pathlib import Path

import pytest

import trainables

ROOT = Path(trainables.__file__).parents[1]
PACKAGES = ("orchestrator", "results", "search_spaces", "trainables")
FILES = sorted(file for package in PACKAGES for file in (ROOT / package).rglob("*.py"))
MOST_FILES = 15
"""In a folder, besides its `__init__`: trainables/attacks, one file an attack, has as many."""
MOST_LINES = 400
MOST_FUNCTION_LINES = 60
"""Without the docstring."""
LONG_FUNCTIONS = {"orchestrator/cli.py: launch"}
"""Typer takes a command's options from its signature, and `launch` has many."""
OF_A_BUNDLE = "results.bundle"
FOR_RESULTS = ("trainables.records", "trainables.storage.folders")
"""What results may import of the trainables: how records are written, and where they lie."""


def _module(file: Path) -> str:
    """Return the dotted name of a file's module."""
    return ".".join(file.relative_to(ROOT).with_suffix("").parts).removesuffix(".__init__")


MODULES = {_module(file): file for file in FILES}


@cache
def _imported(file: Path) -> frozenset[str]:
    """Return the dotted names that a file imports, wherever in it, for type checking too.

    Of `from package import name` that is package.name where it is a module of ours, else package.
    """
    found = set()
    for node in ast.walk(ast.parse(file.read_text())):
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0 and node.module, f"{file}: relative import"
            for alias in node.names:
                whole = f"{node.module}.{alias.name}"
                found.add(whole if whole in MODULES else node.module)
    return frozenset(found)


def _tops(file: Path) -> set[str]:
    return {name.partition(".")[0] for name in _imported(file)}


def _circle(graph: dict[str, frozenset[str]]) -> list[str]:
    """Return the modules of an import circle, in order; none where there is no circle."""
    done: set[str] = set()
    for start in sorted(graph):
        path: list[str] = []
        waiting: list[Iterator[str]] = [iter([start])]
        while waiting:
            following = next(waiting[-1], None)
            if following is None:
                waiting.pop()
                if path:
                    done.add(path.pop())
            elif following in path:
                return path[path.index(following) :]
            elif following not in done:
                path.append(following)
                waiting.append(iter(sorted(graph[following])))
    return []


@pytest.mark.parametrize(
    ("graph", "length"),
    [
        ({"a": {"b", "c"}, "b": {"c"}, "c": set()}, 0),
        ({"a": {"b"}, "b": {"a"}}, 2),
        ({"a": {"b"}, "b": {"c", "d"}, "c": {"d"}, "d": {"b"}, "e": {"a"}}, 3),
        ({"a": set(), "b": {"b"}}, 1),
    ],
)
def test_a_circle_is_found_where_there_is_one(graph: dict[str, set[str]], length: int) -> None:
    found = _circle({name: frozenset(others) for name, others in graph.items()})
    assert len(found) == length
    assert all(after in graph[name] for name, after in pairwise(found))


def test_no_modules_import_each_other_in_a_circle() -> None:
    graph = {name: _imported(file) & MODULES.keys() for name, file in MODULES.items()}
    assert len(graph) > 200 and sum(len(others) for others in graph.values()) > 1000
    assert _circle(graph) == []


@pytest.mark.parametrize(
    "file", [file for file in FILES if file.is_relative_to(ROOT / "trainables")], ids=_module
)
def test_trainables_imports_nothing_from_above(file: Path) -> None:
    assert not _tops(file) & {"orchestrator", "search_spaces", "results", "tests"}
    assert "ray" not in _tops(file) or _module(file) == "trainables.tune"


def test_only_the_adapter_brings_ray_in() -> None:
    assert "ray" in _tops(MODULES["trainables.tune"])
    modules = [name for name in MODULES if name.startswith("trainables.")]
    modules.remove("trainables.tune")
    assert len(modules) > 40
    assert _loaded(
        modules, ("ray", "orchestrator", "search_spaces", "results", "optuna", "matplotlib")
    ) == "[]"  # fmt: skip


def test_records_are_read_without_torch() -> None:
    modules = [name for name in MODULES if name.startswith("trainables.records")]
    assert len(modules) == 6
    assert _loaded(modules, ("torch", "sklearn", "scipy", "pandas")) == "[]"
    assert _loaded(["trainables.models"], ("torch",)) == "['torch']"


def _loaded(modules: list[str], asked: tuple[str, ...]) -> str:
    """Import modules in a process of its own, and return which of the asked came along."""
    code = (
        "import importlib, sys\n"
        f"for module in {modules!r}: importlib.import_module(module)\n"
        f"print([name for name in {asked!r} if name in sys.modules])"
    )
    found = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    return found.stdout.strip()


@pytest.mark.parametrize("name", [name for name in MODULES if name.split(".")[0] == "results"])
def test_results_imports_the_records_and_folders_alone_but_in_its_bundle(name: str) -> None:
    imported = _imported(MODULES[name])
    above = {"orchestrator", "search_spaces", "tests", "ray", "optuna"}
    assert not above & _tops(MODULES[name])
    if not f"{name}.".startswith(f"{OF_A_BUNDLE}."):
        assert "torch" not in _tops(MODULES[name])
        ours = {other for other in imported if other.partition(".")[0] == "trainables"}
        rooms = tuple(f"{room}." for room in FOR_RESULTS)
        assert not [other for other in ours if not f"{other}.".startswith(rooms)]


def test_no_folder_is_crowded_and_none_is_for_one_file() -> None:
    for folder in {file.parent for file in FILES}:
        files = [file for file in folder.glob("*.py") if file.name != "__init__.py"]
        rooms = [room for room in folder.iterdir() if (room / "__init__.py").exists()]
        assert len(files) <= MOST_FILES, folder
        assert len(files) + len(rooms) > 1, folder
        assert ast.get_docstring(ast.parse((folder / "__init__.py").read_text())), folder


@pytest.mark.parametrize("file", FILES, ids=_module)
def test_files_and_functions_are_short(file: Path) -> None:
    text = file.read_text()
    assert len(text.splitlines()) <= MOST_LINES
    for node in ast.walk(ast.parse(text)):
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
            assert node.end_lineno is not None
            lines = node.end_lineno - node.lineno + 1
            if ast.get_docstring(node):
                lines -= (node.body[0].end_lineno or 0) - node.body[0].lineno + 1
            named = f"{file.relative_to(ROOT)}: {node.name}"
            assert lines <= MOST_FUNCTION_LINES or named in LONG_FUNCTIONS, named
