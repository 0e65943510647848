"""The token that Ray asks for, in processes of their own: Ray reads it once."""

import json
import os
import stat
import subprocess
import sys
from pathlib import Path

import pytest

from orchestrator.sweep.sweep import _keep_token_private
from tests.orchestrator.command_line import REPOSITORY

HEX = "0123456789abcdef" * 4


def run_at(home: Path, *command: str, **variables: str) -> subprocess.CompletedProcess[str]:
    """Run Python for a user with this home and no token in the environment."""
    kept = {name: value for name, value in os.environ.items() if not name.startswith("RAY_")}
    return subprocess.run(
        [sys.executable, *command],
        cwd=REPOSITORY, env={**kept, "HOME": str(home), **variables},
        capture_output=True, text=True, timeout=120,
    )  # fmt: skip


def write_token(home: Path, mode: int) -> Path:
    file = home / ".ray" / "auth_token"
    file.parent.mkdir()
    file.write_text(HEX)
    file.chmod(mode)
    return file


def mode_of(file: Path) -> int:
    return stat.S_IMODE(file.stat().st_mode)


@pytest.mark.slow
def test_a_session_asks_for_the_token_and_lets_nobody_else_read_its_file(tmp_path: Path) -> None:
    file = write_token(tmp_path, 0o644)
    code = (
        "import json, os, ray\n"  # before us: what Ray has read by then must not count
        "from orchestrator.sweep.sweep import ray_session\n"
        "with ray_session(None):\n"
        "    print(json.dumps([os.environ['RAY_AUTH_MODE'], 'RAY_AUTH_TOKEN' in os.environ]))"
    )
    done = run_at(tmp_path, "-c", code)
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout.splitlines()[-1]) == ["token", False]
    assert mode_of(file) == 0o600 and file.read_text() == HEX
    assert HEX not in done.stdout + done.stderr


def test_without_a_token_file_a_session_has_a_token_that_no_file_holds(tmp_path: Path) -> None:
    code = "import orchestrator, os; print(len(os.environ['RAY_AUTH_TOKEN']))"
    assert run_at(tmp_path, "-c", code).stdout.strip() == "64"
    assert not (tmp_path / ".ray").exists()


def test_a_cluster_is_not_asked_without_a_token(tmp_path: Path) -> None:
    done = run_at(
        tmp_path, "-m", "orchestrator", "launch", "--space", "smoke", "--address", "auto",
        "--runs", str(tmp_path / "runs"),
    )  # fmt: skip
    assert done.returncode == 2
    assert "no token for the cluster here" in done.stderr and done.stderr.count("\n") == 1
    assert not (tmp_path / "runs").exists()


@pytest.mark.parametrize(("before", "after"), [(0o644, 0o600), (0o600, 0o600), (0o400, 0o400)])
def test_a_token_file_is_closed_to_others_and_else_left_as_it_is(
    before: int, after: int, tmp_path: Path
) -> None:
    file = write_token(tmp_path, before)
    _keep_token_private(file)
    assert mode_of(file) == after
    _keep_token_private(tmp_path / "is not there")
