"""Tests that run in a process of their own are reported as they went there."""

import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from tests.pretend_gpu import building, conftest
from tests.pretend_gpu.running import Reports, run_tests

CASES = """
import os
import pytest
import torch

@pytest.mark.parametrize("kind", ["pretend", "cuda"])
def test_kind(kind):
    print("spoken in the test")
    assert torch.accelerator.current_accelerator().type == kind

def test_skip():
    pytest.skip("for a reason")

def test_setup(missing):
    pass

def test_death():
    os._exit(3)

def test_after_death():
    pass
"""
NAMES = ("kind[pretend]", "kind[cuda]", "skip", "setup", "death", "after_death")


@pytest.fixture(scope="module")
def reports(
    tmp_path_factory: pytest.TempPathFactory,
    pretend_environment: dict[str, str],
    pytestconfig: pytest.Config,
) -> Reports:
    """Run the cases above."""
    root, folder = tmp_path_factory.mktemp("root"), tmp_path_factory.mktemp("folder")
    (root / "test_cases.py").write_text(CASES)
    (root / "pytest.ini").write_text("[pytest]\n")  # else pytest looks for a root further up
    nodeids = [f"test_cases.py::test_{name}" for name in NAMES]
    return run_tests(nodeids, pytestconfig, pretend_environment, folder, root)


@pytest.mark.parametrize(
    ("name", "outcome", "words"),
    [
        ("kind[pretend]", "passed", ""),
        ("kind[cuda]", "failed", "assert 'pretend' == 'cuda'"),
        ("skip", "skipped", "for a reason"),
        ("setup", "failed", "fixture 'missing' not found"),
        ("death", "failed", "its process ended with 3"),
        ("after_death", "failed", "its process ended with 3"),
    ],
)
def test_a_test_has_its_own_result(reports: Reports, name: str, outcome: str, words: str) -> None:
    own = reports[f"test_cases.py::test_{name}"]
    telling = [report for report in own if report.outcome != "passed"] or own
    assert [report.outcome for report in telling] == [outcome] * len(telling)
    assert words in str(telling[0].longrepr)
    assert name != "kind[cuda]" or "spoken in the test" in telling[0].capstdout


def test_without_a_compiler_nothing_is_run_and_the_reason_is_said(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, request: pytest.FixtureRequest
) -> None:
    monkeypatch.setenv("CXX", "no-such-compiler")
    monkeypatch.setattr(building, "FOLDER", tmp_path)
    (report,) = conftest.reports_of(request.node)
    assert report.outcome == "skipped"
    assert "there is no no-such-compiler" in str(report.longrepr)


BEFORE = """
import pytest

@pytest.fixture(scope="module")
def lent():
    yield
    print("given back")

def test_here(lent):
    pass

@pytest.mark.pretend_gpu
def test_there():
    pass
"""


def test_what_a_file_sets_up_ends_before_the_next_file_though_a_marked_test_ran_last(
    tmp_path: Path, pretend_environment: dict[str, str], pytestconfig: pytest.Config
) -> None:
    """Pytest failed the next file's first test: "previous item was not torn down properly"."""
    (tmp_path / "pytest.ini").write_text("[pytest]\nmarkers = pretend_gpu\n")
    for folder, text in (("first", BEFORE), ("second", "def test_next():\n    pass\n")):
        (tmp_path / folder).mkdir()
        (tmp_path / folder / f"test_{folder}.py").write_text(text)
    command = ["-q", "-p", "tests.pretend_gpu.conftest", "-p", "no:cacheprovider", str(tmp_path)]
    done = subprocess.run(
        [sys.executable, "-m", "pytest", *command],
        env=os.environ | {"PYTHONPATH": str(pytestconfig.rootpath)},
        cwd=tmp_path,
        capture_output=True,
        text=True,
        check=False,
    )
    assert "3 passed" in done.stdout, done.stdout


def test_a_compilation_is_shared_and_only_a_whole_one_is_kept(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    compiler = tmp_path / "compiler"
    # Writes what it is asked for and a line for each call; fails where it is told to.
    compiler.write_text(
        '#!/bin/sh\necho call >> "$CALLS"\n[ -n "$FAIL" ] && echo broken >&2 && exit 1\n'
        'while [ "$1" != "-o" ]; do shift; done\necho made > "$2"\n'
    )
    compiler.chmod(0o700)
    calls = tmp_path / "calls"
    monkeypatch.setattr(building, "FOLDER", tmp_path / "built")
    for name, value in {"CXX": str(compiler), "CALLS": str(calls), "FAIL": "1"}.items():
        monkeypatch.setenv(name, value)
    with pytest.raises(RuntimeError, match="does not compile:\nbroken"):
        building.build()
    assert {path.name for path in building.FOLDER.iterdir()} == {"lock"}
    calls.unlink()
    monkeypatch.setenv("FAIL", "")
    library = building.build()
    assert library.read_text() == "made\n"
    assert building.build() == library
    assert len(calls.read_text().splitlines()) == 3  # two sources, and one library of both


def test_this_process_is_left_alone() -> None:

    assert torch._C._get_privateuse1_backend_name() == "privateuseone"
