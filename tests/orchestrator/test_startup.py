"""Commands import what they need: help, lists and a run's state wait for no library of torch's."""

import json
import subprocess
import sys
from pathlib import Path

import pytest

import results
from orchestrator.commands.list import LISTS
from orchestrator.request import LaunchRequest
from orchestrator.run.finished import note_finished
from orchestrator.run.paths import run_paths
from search_spaces import Overrides
from tests.orchestrator.command_line import REPOSITORY
from tests.results.audits import write_demo_audit

SLOW = ("torch", "lpips", "opacus", "matplotlib", "pandas", "sklearn", "ray", "optuna")
_CALL = (
    "import sys\n"
    "sys.argv = ['orchestrator', *sys.argv[1:]]\n"
    "from orchestrator.program import main\n"
    "code = main()\n"
    f"sys.stderr.write(' '.join(name for name in {SLOW!r} if name in sys.modules))\n"
    "sys.exit(code)"
)


def imported(*arguments: str) -> tuple[int, str, str]:
    """Return a command's exit code, what it printed, and which slow libraries it imported."""
    found = subprocess.run(
        [sys.executable, "-c", _CALL, *arguments], cwd=REPOSITORY, capture_output=True, text=True
    )
    return found.returncode, found.stdout, found.stderr


@pytest.mark.parametrize(
    "arguments",
    [("--help",), ("--version",), ("doctor", "--help"), ("launch", "--help"), ("list", "attacks"),
     ("list", "spaces")],
    ids=" ".join,
)  # fmt: skip
def test_a_command_that_computes_nothing_imports_no_slow_library(
    arguments: tuple[str, ...],
) -> None:
    code, printed, slow = imported(*arguments)
    assert (code, slow) == (0, "")
    assert printed


@pytest.mark.parametrize("command", ["status", "select"])
def test_a_run_is_read_without_any_slow_library(command: str, tmp_path: Path) -> None:
    code, printed, slow = imported(command, str(write_demo_audit(tmp_path / "run")))
    assert (code, slow) == (0, "")
    assert "demo" in printed


def test_a_launch_with_nothing_left_to_do_imports_no_slow_library(tmp_path: Path) -> None:
    results.write_report(write_demo_audit(tmp_path / "demo"))
    asked = LaunchRequest(
        space="smoke", overrides=Overrides(), runs=str(tmp_path), name="demo", data_dir=None,
        lpips_weights=None, address=None, max_concurrent=None, cpus_per_trial=None,
        gpus_per_trial=None, max_gpu_hours=None, time_budget=None, trial_time_limit=None,
        trial_memory_gib=None, dry_run=False, download=False,
    )  # fmt: skip
    note_finished(asked, run_paths(str(tmp_path), "demo"), "as many as were asked for")
    code, printed, slow = imported(
        "launch", "--space", "smoke", "--runs", str(tmp_path), "--name", "demo"
    )
    assert (code, slow) == (0, "")
    assert "Run demo is finished" in printed


def test_results_and_bundles_load_without_what_draws_and_fits() -> None:
    code = (
        "import sys, results\n"
        "assert 'numpy' not in sys.modules, 'results'\n"
        "import results.bundle\n"
        "slow = ('matplotlib', 'pandas', 'sklearn', 'lpips', 'opacus', 'torchvision')\n"
        "print([name for name in slow if name in sys.modules])"
    )
    found = subprocess.run(
        [sys.executable, "-c", code], cwd=REPOSITORY, capture_output=True, text=True, check=True
    )
    assert found.stdout.strip() == "[]"


def test_lists_without_the_libraries_are_those_with_them_and_nothing_is_left() -> None:
    code = (
        "import json, sys\n"
        "import trainables.errors\n"
        "from orchestrator.commands.list import LISTS, rows_at_once\n"
        "before = set(sys.modules)\n"
        "print(json.dumps({what: rows_at_once(what) for what in LISTS}))\n"
        "left = {name.partition('.')[0] for name in set(sys.modules) - before}\n"
        "assert not left & {'torch', 'trainables', 'search_spaces', 'scipy'}, left\n"
        "assert not hasattr(trainables, 'attacks')\n"
    )
    found = subprocess.run(
        [sys.executable, "-c", code], cwd=REPOSITORY, capture_output=True, text=True, check=True
    )
    with_torch = {what: rows() for what, rows in LISTS.items()}
    assert json.loads(found.stdout) == json.loads(json.dumps(with_torch))


def test_a_piped_list_has_a_row_a_line_and_cuts_nothing() -> None:
    code, printed, _ = imported("list", "attacks")
    rows = LISTS["attacks"]()
    assert code == 0
    assert [line.split("\t") for line in printed.splitlines()] == [
        [row["name"], row["meaning"], ", ".join(row["parameters"]), row["source"]] for row in rows
    ]
