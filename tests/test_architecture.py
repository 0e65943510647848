"""Data flows one way: which package may import which, and what an import may drag along."""

import ast
import subprocess
import sys
from pathlib import Path

import pytest

import trainables

ROOT = Path(trainables.__file__).parent
FILES = sorted(ROOT.rglob("*.py"))
MODULES = [
    ".".join(["trainables", *file.relative_to(ROOT).with_suffix("").parts]).removesuffix(
        ".__init__"
    )
    for file in FILES
]


def _imported(file: Path) -> set[str]:
    """Give the first parts of the names that a file imports, wherever in it."""
    found = set()
    for node in ast.walk(ast.parse(file.read_text())):
        if isinstance(node, ast.Import):
            found |= {alias.name.partition(".")[0] for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{file}: relative import"
            found.add((node.module or "").partition(".")[0])
    return found


@pytest.mark.parametrize("file", FILES, ids=lambda file: str(file.relative_to(ROOT)))
def test_trainables_imports_nothing_from_above(file: Path) -> None:
    imported = _imported(file)
    assert not imported & {"orchestrator", "search_spaces", "results", "tests"}
    assert "ray" not in imported or file == ROOT / "tune.py"


def test_only_the_adapter_brings_ray_in() -> None:
    assert "ray" in _imported(ROOT / "tune.py")
    modules = [module for module in MODULES if module != "trainables.tune"]
    assert len(modules) > 40
    code = (
        "import importlib, sys\n"
        f"for module in {modules!r}: importlib.import_module(module)\n"
        "above = ('ray', 'orchestrator', 'search_spaces', 'results', 'optuna', 'matplotlib')\n"
        "print([name for name in above if name in sys.modules])"
    )
    found = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert found.stdout.strip() == "[]"


def test_results_imports_nothing_of_ours_but_in_its_bundle() -> None:
    results = ROOT.parent / "results"
    files = sorted(results.rglob("*.py"))
    assert len(files) > 20
    for file in files:
        above = {"orchestrator", "search_spaces", "tests", "ray", "optuna"}
        ours = set() if file.is_relative_to(results / "bundle") else {"trainables", "torch"}
        assert not _imported(file) & (above | ours), file
