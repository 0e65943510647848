"""Every snippet of README and docs/, as printed.

What takes a sweep is not run to its end here: each `launch` is run with `--dry-run` behind what is
printed, and commands of a cluster and of installations are listed in ELSEWHERE with what checks
them. Commands on a run get the run of tests/golden, under the names that the pages use.
"""

import json
import os
import re
import shlex
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
import typer.core
import typer.main
import yaml

from orchestrator.cli import app
from orchestrator.program import main
from search_spaces import load_space
from tests.conftest import TrainedNet
from tests.datasets.making import write_images
from tests.docs.pages import ROOT, blocks, calls, example, shell_lines
from tests.golden.run_numbers import RUN
from tests.making import EPS
from trainables.models import MODELS
from trainables.models.contract import ModelArguments

USERS_FILES = ("mine/models.py", "mine/defenses.py", "mine/space.yaml", "with_tune.py",
               "read_run.py", "load_bundle.py")  # fmt: skip
"""What the pages print as files of a user's own."""
OF_THE_TREE = ("trainables/attacks/margin_step.py",)
EXPORT = "select runs/full --require 'clean_accuracy>=0.9' --export model"
BACKDOOR = "--require 'backdoor_success_rate<=0.1'"
ELSEWHERE = {
    "python3 -m venv": "`.ci/run` installs into a fresh environment",
    "pip install -c": "`.ci/run` installs into a fresh environment",
    "pre-commit install": "tests/test_packaging.py holds its hooks",
    "python -m pytest -n 2": "`.ci/run` ends with it",
    "python -m pytest tests/attacks": "the attack's own test below",
    "python -m benchmarks.gpu": "tests/benchmarks/test_gpu_benchmark.py",
    "defense-sweep --install-completion": "it writes into a shell's start-up file",
    "ray up": "tests/test_cluster_yaml.py",
    "ray job submit": "its `launch` is parsed below",
    "ray down": "tests/test_cluster_yaml.py",
    "python -m orchestrator status s3://": "tests/orchestrator/sweep/test_remote_runs.py",
    "python -m orchestrator report s3://": "tests/orchestrator/sweep/test_remote_runs.py",
}
"""The beginnings of lines that are not run here, with what checks them."""

LINES = shell_lines()
ALL_CALLS = calls("\n".join(LINES))
LAUNCHES = [call for call in ALL_CALLS if call.startswith("launch") and "s3://" not in call]
OTHERS = [
    call
    for call in ALL_CALLS
    if not call.startswith(("launch", "--install-completion", "verify"))
    and "s3://" not in call
    and "--export" not in call
]


def write_examples(folder: Path) -> Path:
    """Write a user's files as the pages show them, and photos to train on."""
    (folder / "mine").mkdir(parents=True)
    for path in USERS_FILES:
        (folder / path).write_text(example(path))
    for name in ("cat", "dog"):
        write_images(folder / "photos" / name, 40)
    _write_weights(folder / "small_cnn.pt")
    return folder


def _write_weights(path: Path) -> None:
    """Save a network for the photos, as a user brings one."""
    arguments = ModelArguments(
        channels=3,
        height=8,
        width=8,
        num_classes=2,
        mean=(0.5, 0.5, 0.5),
        std=(0.25, 0.25, 0.25),
        norm="none",
        activation="relu",
    )
    torch.save(MODELS["small_cnn"].build(arguments).state_dict(), path)


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return a folder with a user's files and the recorded run, under the names of the pages."""
    folder = write_examples(tmp_path_factory.mktemp("home"))
    _write_runs(folder)
    (folder / "docs").mkdir()
    return folder


def _write_runs(folder: Path) -> None:
    """Put the recorded run there as it was: an audit by a newer version makes its records stale."""
    shutil.rmtree(folder / "runs", ignore_errors=True)
    for name in ("full", "first"):
        shutil.copytree(RUN, folder / "runs" / name)


@pytest.fixture
def at_home(home: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """Work in that folder, where `mine` can be imported."""
    yield from _working_in(home, monkeypatch)


@pytest.fixture
def with_files(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """Work in a folder with a user's files and no run."""
    yield from _working_in(write_examples(tmp_path / "new"), monkeypatch)


def _working_in(folder: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    monkeypatch.chdir(folder)
    monkeypatch.syspath_prepend(str(folder))
    yield folder
    for name in [name for name in sys.modules if name.partition(".")[0] == "mine"]:
        del sys.modules[name]


@pytest.fixture(scope="module")
def bundle(home: Path) -> Path:
    """Export a bundle by the command as printed."""
    assert EXPORT in ALL_CALLS
    _write_runs(home)
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(home)
        assert _call(EXPORT) == 0
    return home / "model"


def _call(words: str, *more: str) -> int:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(sys, "argv", ["orchestrator", *shlex.split(words), *more])
        return main()


def _python(file: str, folder: Path) -> str:
    done = subprocess.run(
        [sys.executable, file],
        cwd=folder, env={**os.environ, "HOME": str(folder), "PYTHONPATH": str(ROOT)}, timeout=300,
        capture_output=True, text=True,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    return done.stdout


def test_every_block_has_a_language_that_is_looked_at() -> None:
    found = blocks()
    assert len(found) > 25
    assert {block.language for block in found} == {"sh", "python", "yaml", "diff", "text"}
    named = [b.path for b in found if b.language in ("python", "yaml")]
    assert sorted(named) == sorted([*USERS_FILES, *OF_THE_TREE])


def test_every_line_of_a_shell_is_run_or_checked_elsewhere() -> None:
    assert set(LAUNCHES) | set(OTHERS) | {EXPORT, "verify model"} <= set(ALL_CALLS)
    for line in LINES:
        if not line.startswith(tuple(ELSEWHERE)):
            (call,) = calls(line)
            assert call in (*LAUNCHES, *OTHERS, EXPORT, "verify model"), line
    for beginning in ELSEWHERE:
        assert any(line.startswith(beginning) for line in LINES), beginning


@pytest.mark.parametrize("call", ALL_CALLS)
def test_a_printed_call_is_understood(call: str) -> None:
    group = typer.main.get_command(app)
    assert isinstance(group, typer.core.TyperGroup)
    name, *words = shlex.split(call)
    if name.startswith("--"):
        assert name in ("--version", "--install-completion")
    else:
        group.commands[name].make_context(name, words)


@pytest.mark.slow
@pytest.mark.usefixtures("with_files")
@pytest.mark.parametrize("call", LAUNCHES)
def test_a_printed_launch_finds_all_that_it_needs(
    call: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert _call(call, *([] if "--dry-run" in call else ["--dry-run"])) == 0
    assert "Nothing was started" in capsys.readouterr().out


@pytest.mark.slow
@pytest.mark.usefixtures("at_home")
@pytest.mark.parametrize("call", OTHERS)
def test_a_printed_call_runs(call: str, home: Path, capsys: pytest.CaptureFixture[str]) -> None:
    _write_runs(home)
    # The recorded run did not measure backdoors, so that nothing meets a requirement on them.
    assert _call(call) == (3 if BACKDOOR in call else 0)
    assert capsys.readouterr().out


@pytest.mark.slow
@pytest.mark.usefixtures("bundle")
def test_a_bundle_is_verified_and_loaded_as_printed(at_home: Path) -> None:
    assert _call("verify model") == 0
    assert "tensor(" in _python("load_bundle.py", at_home)


@pytest.mark.slow
def test_the_reader_of_a_run_prints_its_trials(at_home: Path) -> None:
    printed = _python("read_run.py", at_home).splitlines()
    assert len(printed) == 1 + 3
    assert printed[0].split() == [
        "trial", "defense", "clean_accuracy", "robust_accuracy", "robust_accuracy_low"
    ]  # fmt: skip


def test_the_space_loads(with_files: Path) -> None:
    space = load_space(str(with_files / "mine" / "space.yaml"))
    assert [objective.metric for objective in space.objectives][-1] == "latency_ms_p95"
    assert len(space.first_draws()) == 2


@pytest.mark.usefixtures("with_files")
def test_the_model_and_the_defense_make_a_trial(capsys: pytest.CaptureFixture[str]) -> None:
    words = "trial --threats clean --json --model mine.models:linear --defense"
    assert _call(f"{words} mine.defenses:PixelNoise:sigma=0.2") == 0
    record = json.loads(capsys.readouterr().out)
    assert record["status"] == "completed"
    assert record["spec"]["stack"][0]["sigma"] == 0.2


def test_the_attack_keeps_to_the_ball(undefended: TrainedNet) -> None:
    names: dict[str, Any] = {}
    exec(example("trainables/attacks/margin_step.py"), names)
    attack: Callable[..., torch.Tensor] = names["margin_step"]
    x, y = undefended.x[:32], undefended.y[:32]
    moved = attack(undefended.model, x, y, eps=EPS, generator=torch.Generator().manual_seed(0))
    assert float((moved - x).abs().max()) <= EPS + 1e-6
    assert float(moved.min()) >= 0 and float(moved.max()) <= 1


def _add(diff: str, root: Path) -> None:
    """Add a diff's new lines after the lines that are printed before them."""
    path = root / diff.splitlines()[0].removeprefix("# ")
    text, after = path.read_text(), ""
    for line in diff.splitlines()[1:]:
        if line.startswith("+"):
            assert text.count(f"\n{after}\n") == 1, after
            text = text.replace(f"\n{after}\n", f"\n{after}\n{line[1:]}\n")
        after = line[1:]
    path.write_text(text)


@pytest.mark.slow
def test_the_attack_joins_the_project_as_printed_and_keeps_the_contract(tmp_path: Path) -> None:
    for package in ("trainables", "tests"):
        ignored = shutil.ignore_patterns("__pycache__", "golden")
        shutil.copytree(ROOT / package, tmp_path / package, ignore=ignored)
    shutil.copy(ROOT / "pyproject.toml", tmp_path)
    (attack,) = OF_THE_TREE
    (tmp_path / attack).write_text(example(attack))
    for block in blocks("diff"):
        _add(block.text, tmp_path)
    (line,) = [line for line in LINES if "-k margin_step" in line]
    done = subprocess.run(
        [sys.executable, *shlex.split(line)[1:], "-p", "no:cacheprovider"],
        cwd=tmp_path, env={**os.environ, "PYTHONPATH": str(tmp_path)}, timeout=300,
        capture_output=True, text=True,
    )  # fmt: skip
    assert done.returncode == 0, done.stdout[-3000:] + done.stderr
    passed = re.search(r"(\d+) passed", done.stdout)
    assert passed is not None and int(passed[1]) > 5


@pytest.mark.slow
def test_the_example_of_a_plain_tune_runs(with_files: Path) -> None:
    printed = _python("with_tune.py", with_files)
    assert len([line for line in printed.splitlines() if line.startswith("{")]) == 2, printed


def test_the_settings_of_a_space_that_are_printed_in_a_line_are_yaml() -> None:
    text = " ".join(path.read_text() for path in sorted((ROOT / "docs").glob("*.md")))
    printed = re.findall(r"`(\w+: \{[^`]+\})`", text)
    assert len(printed) >= 3
    assert all(isinstance(yaml.safe_load(line), dict) for line in printed)
