"""What a stranger finds: files, dependencies, and lists. README and docs have tests/docs."""

import ast
import json
import os
import re
import sys
import tomllib
from pathlib import Path

import pytest
import yaml
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

from orchestrator.commands.list import LISTS
from search_spaces import available
from trainables.attacks import VARIANTS
from trainables.datasets import DATASETS
from trainables.defenses import DEFENSES
from trainables.metrics import METRICS
from trainables.models import MODELS
from trainables.threats import THREATS

ROOT = Path(__file__).parent.parent
PACKAGES = ("orchestrator", "results", "search_spaces", "trainables")
OURS = {*PACKAGES, "benchmarks", "tests"}

DISTRIBUTIONS = {
    "PIL": "pillow",
    "skimage": "scikit-image",
    "sklearn": "scikit-learn",
    "xdist": "pytest-xdist",
    "yaml": "pyyaml",
}
"""Module -> distribution, where their names differ."""
PARTS = {"markupsafe": "jinja2"}
"""Module -> the distribution whose interface gives its objects, and which brings it along."""

CHECKS = ("ruff check", "ruff format --check", "mypy")


def _declared() -> list[tuple[Requirement, str]]:
    """Return every declared dependency with its comment."""
    lines = re.findall(r'^    "([^"]+)",(.*)$', (ROOT / "pyproject.toml").read_text(), re.MULTILINE)
    return [(Requirement(text), comment.strip()) for text, comment in lines]


def _requirements(*extras: str) -> set[str]:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    texts = project["dependencies"] + [
        text for extra in extras for text in project["optional-dependencies"][extra]
    ]
    return {canonicalize_name(Requirement(text).name) for text in texts}


def _imported(path: Path) -> set[str]:
    """Return the third-party distributions that a file, or the files of a folder, import."""
    files = [path] if path.is_file() else path.rglob("*.py")
    modules: set[str] = set()
    for file in files:
        for node in ast.walk(ast.parse(file.read_text())) if file.suffix == ".py" else ():
            if isinstance(node, ast.Import):
                modules |= {alias.name.partition(".")[0] for alias in node.names}
            elif isinstance(node, ast.ImportFrom) and node.module and not node.level:
                modules.add(node.module.partition(".")[0])
    foreign = modules - OURS - set(sys.stdlib_module_names)
    return {DISTRIBUTIONS.get(name, PARTS.get(name, name)) for name in foreign}


def _named_paths(comment: str) -> list[Path]:
    """Return the files and folders that a comment begins with, before what it says of them."""
    words = comment.lstrip("# ").replace(";", ",").split(",")
    firsts = [word.strip().partition(":")[0].split(" ")[0] for word in words]
    return [ROOT / first for first in firsts if "/" in first or first.startswith(".")]


def test_the_top_level_is_as_prescribed() -> None:
    files = {
        "LICENSE",
        "README.md",
        "CONTRIBUTING.md",
        "CHANGELOG.md",
        "cluster.yaml",
        "constraints.txt",
        "pyproject.toml",
    }
    for name in {*files, *PACKAGES, "tests", "docs", ".ci/run", ".pre-commit-config.yaml"}:
        assert (ROOT / name).exists(), name
    assert not list(ROOT.glob("*.py"))
    assert {path.parent.name for path in ROOT.glob("*/__init__.py")} <= OURS
    assert "Apache License" in (ROOT / "LICENSE").read_text()


def test_ci_is_executable_and_runs_what_pre_commit_runs() -> None:
    assert os.access(ROOT / ".ci" / "run", os.X_OK)
    steps = (ROOT / ".ci" / "run").read_text().splitlines()
    hooks = yaml.safe_load((ROOT / ".pre-commit-config.yaml").read_text())["repos"]
    assert [repo["repo"] for repo in hooks] == ["local"]
    assert tuple(hook["entry"] for hook in hooks[0]["hooks"]) == CHECKS
    assert set(CHECKS) <= set(steps)
    assert steps[-1] == "python -m pytest -n 2"


def test_every_dependency_names_the_files_that_need_it() -> None:
    declared = _declared()
    assert {canonicalize_name(r.name) for r, _ in declared} == _requirements("test", "timm")
    for requirement, comment in declared:
        paths = _named_paths(comment)
        assert paths, f"{requirement.name}: {comment!r} names no file"
        for path in paths:
            assert path.exists(), f"{requirement.name}: {path} does not exist"


def test_every_dependency_is_imported_where_its_comment_says() -> None:
    needed = _requirements()
    for requirement, comment in _declared():
        if requirement.name not in needed:
            continue
        for path in _named_paths(comment):
            assert requirement.name in _imported(path), f"{path} imports no {requirement.name}"


def test_every_import_is_a_declared_dependency() -> None:
    for package in PACKAGES:
        assert _imported(ROOT / package) <= _requirements(), package
    assert _imported(ROOT / "tests") <= _requirements("test")


def test_constraints_pin_every_dependency_to_an_allowed_version() -> None:
    lines = (ROOT / "constraints.txt").read_text().splitlines()
    pinned = [line.split("==") for line in lines if not line.startswith("#")]
    assert all(len(pin) == 2 for pin in pinned)
    versions = {canonicalize_name(name): version for name, version in pinned}
    assert len(versions) == len(pinned)
    for requirement, _ in _declared():
        version = versions[canonicalize_name(requirement.name)]
        assert version in requirement.specifier, f"{requirement} is pinned to {version}"


@pytest.mark.parametrize("kind", LISTS)
def test_every_entry_of_every_list_is_described(kind: str) -> None:
    rows = LISTS[kind]()
    assert json.loads(json.dumps(rows))
    names = [row["name"] for row in rows]
    assert len(set(names)) == len(names)
    registries = {
        "defenses": DEFENSES, "attacks": VARIANTS, "threats": THREATS, "datasets": DATASETS,
        "models": MODELS, "metrics": METRICS, "spaces": available(),
    }  # fmt: skip
    assert names == list(registries[kind])
    for row in rows:
        assert row["meaning"], row["name"]
        if kind != "spaces":
            assert all(about["meaning"] for about in row["parameters"].values()), row["name"]
