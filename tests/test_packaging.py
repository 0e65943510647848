"""What a stranger finds: files, dependencies, lists, and a README that says what is true."""

import ast
import json
import os
import re
import shlex
import subprocess
import sys
import tomllib
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
import typer.core
import typer.main
import yaml
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

from orchestrator.cli import app
from orchestrator.commands.list import LISTS
from orchestrator.program import main
from search_spaces import available, load_space
from tests.conftest import TrainedNet
from tests.making import EPS
from trainables.attacks import ATTACKS, VARIANTS
from trainables.attacks.registry import attack_facts
from trainables.datasets import DATASETS
from trainables.defenses import DEFENSES
from trainables.defenses.defense import TRAINING_HOOKS
from trainables.metrics import METRICS
from trainables.models import MODELS
from trainables.threats import THREATS

ROOT = Path(__file__).parent.parent
README = (ROOT / "README.md").read_text()
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

BETTER = {"maximize": "higher", "minimize": "lower", "none": "-"}
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
    files = {"LICENSE", "README.md", "cluster.yaml", "constraints.txt", "pyproject.toml"}
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
    assert {canonicalize_name(r.name) for r, _ in declared} == _requirements("test")
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


def test_readme_names_everything_in_the_box() -> None:
    box = README.partition("## What is in the box")[2].partition("\n## ")[0]
    named = set(re.findall(r"`([\w-]+)`", box.partition("\nPlanned")[0]))
    for registry in (DEFENSES, ATTACKS, THREATS, DATASETS, MODELS, available()):
        assert set(registry) <= named, set(registry) - named


def test_readme_names_every_hook_of_a_defense() -> None:
    hooks = README.partition("The hooks, in the order")[2].partition(". Each")[0]
    assert tuple(re.findall(r"`(\w+)`", hooks)) == (*TRAINING_HOOKS, "deploy")


def test_readme_links_to_what_is_there() -> None:
    for target in re.findall(r"\]\(([^)#]+)\)", README):
        assert (ROOT / target).is_file(), target
    for path in re.findall(r"`((?:trainables|tests|search_spaces|results)/[\w/.]+)`", README):
        if "margin_step" not in path:
            assert (ROOT / path).exists(), path


def _glossary_row(name: str, meaning: str, direction: str, unit: str) -> str:
    return f"| `{name}` | {BETTER[direction]} | {unit} | {meaning} |"


def test_readme_s_glossary_is_the_metrics_own() -> None:
    glossary = README.partition("## Glossary")[2].partition("\n## ")[0]
    written = [line for line in glossary.splitlines() if line.startswith("| `")]
    rows: dict[str, str] = {}
    of_attacks: dict[str, str] = {}
    for m in METRICS.values():
        attacks = [attack for attack in VARIANTS if m.name.endswith(f"_{attack}")]
        if not attacks:
            rows[m.name] = _glossary_row(m.name, m.meaning, m.direction, m.unit)
            continue
        attack = max(attacks, key=len)
        name = m.name.removesuffix(attack) + "<attack>"
        meaning = m.meaning.replace(attack, "the attack")
        of_attacks.setdefault(name, _glossary_row(name, meaning, m.direction, m.unit))
    expected = [*rows.values(), *of_attacks.values()]
    assert written == expected, "README's glossary must read:\n" + "\n".join(expected)


def _commands() -> dict[str, set[str]]:
    """Return the long options of each command of the command line."""
    group = typer.main.get_command(app)
    assert isinstance(group, typer.core.TyperGroup)
    return {
        name: {option for p in command.params for option in p.opts if option.startswith("--")}
        for name, command in group.commands.items()
    }


def test_readme_s_commands_and_options_exist() -> None:
    commands = _commands()
    calls = re.findall(r"-m orchestrator ([^`\n&]+)", README)
    assert calls
    for call in calls:
        command, *words = shlex.split(call)
        assert command in commands, call
        assert {word for word in words if word.startswith("--")} <= commands[command], call
        if command == "list":
            assert words[0] in LISTS, call
        if "--space" in words:
            space = words[words.index("--space") + 1]
            assert space in available() or space == "mine/space.yaml", call
    for option in re.findall(r"`(--[\w-]+)", README):
        assert any(option in options for options in commands.values()), option


def test_readme_names_every_option_of_launch() -> None:
    table = README.partition("| options of `launch` |")[2].partition("\n\n")[0]
    assert set(re.findall(r"`(--[\w-]+)`", table)) == _commands()["launch"]


def _example(path: str) -> str:
    """Return README's block that begins with its path."""
    found = re.search(rf"```python\n# {re.escape(path)}\n(.*?)```", README, re.DOTALL)
    assert found is not None, path
    return found[1]


@pytest.fixture
def examples(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """Write a user's files as README shows them, where they can be imported from."""
    (tmp_path / "mine").mkdir()
    for path in ("mine/models.py", "mine/defenses.py", "with_tune.py"):
        (tmp_path / path).write_text(_example(path))
    spaces = re.findall(r"```yaml\n(.*?)```", README, re.DOTALL)
    (tmp_path / "mine" / "space.yaml").write_text(spaces[0])
    monkeypatch.syspath_prepend(str(tmp_path))
    yield tmp_path
    for name in [name for name in sys.modules if name.partition(".")[0] == "mine"]:
        del sys.modules[name]


def test_readme_s_space_loads(examples: Path) -> None:
    space = load_space(str(examples / "mine" / "space.yaml"))
    assert [objective.metric for objective in space.objectives][-1] == "latency_ms_p95"
    assert len(space.first_draws()) == 2


@pytest.mark.usefixtures("examples")
def test_readme_s_model_and_defense_make_a_trial(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    words = "trial --threats clean --json --model mine.models:linear --defense"
    defense = "mine.defenses:PixelNoise:sigma=0.2"
    monkeypatch.setattr(sys, "argv", ["orchestrator", *words.split(), defense])
    assert main() == 0
    record = json.loads(capsys.readouterr().out)
    assert record["status"] == "completed"
    assert record["spec"]["stack"][0]["sigma"] == 0.2


def test_readme_s_attack_keeps_to_the_ball(undefended: TrainedNet) -> None:
    names: dict[str, Any] = {}
    exec(_example("trainables/attacks/margin_step.py"), names)
    attack: Callable[..., torch.Tensor] = names["margin_step"]
    x, y = undefended.x[:32], undefended.y[:32]
    moved = attack(undefended.model, x, y, eps=EPS, generator=torch.Generator().manual_seed(0))
    assert float((moved - x).abs().max()) <= EPS + 1e-6
    assert float(moved.min()) >= 0 and float(moved.max()) <= 1
    assert attack_facts(attack).source


@pytest.mark.slow
def test_readme_s_tune_example_runs(examples: Path) -> None:
    done = subprocess.run(
        [sys.executable, "with_tune.py"],
        cwd=examples, env={**os.environ, "HOME": str(examples)}, timeout=300,
        capture_output=True, text=True,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    found = [line for line in done.stdout.splitlines() if line.startswith("{")]
    assert len(found) == 2, done.stdout


def test_readme_s_reader_names_columns_that_there_are() -> None:
    columns = re.search(r"columns = \[(.*?)\]", _example("read_run.py"))
    assert columns is not None
    known = {"trial", "defense", *METRICS, *(f"{name}_low" for name in METRICS)}
    assert set(re.findall(r'"(\w+)"', columns[1])) <= known
