"""A launch with nothing left to do: recognised by what it left, and by nothing less."""

import io
import json
import os
import shutil
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest
from rich.console import Console

import results
from orchestrator.request import LaunchRequest
from orchestrator.run.finished import found_finished, note_finished
from orchestrator.run.paths import RunPaths, run_paths
from results.page.freshness import note_written, written_from
from search_spaces import Overrides
from tests.results.audits import write_demo_audit

REASON = "as many as were asked for"


def request(runs: Path, **changes: object) -> LaunchRequest:
    """Return what `launch --space smoke --runs RUNS --name demo` asks for."""
    asked = LaunchRequest(
        space="smoke", overrides=Overrides(), runs=str(runs), name="demo", data_dir=None,
        lpips_weights=None, address=None, max_concurrent=None, cpus_per_trial=None,
        gpus_per_trial=None, max_gpu_hours=None, time_budget=None, trial_time_limit=None,
        trial_memory_gib=None, dry_run=False, download=False,
    )  # fmt: skip
    return replace(asked, **changes)  # type: ignore[arg-type]  # names of fields


@pytest.fixture(scope="module")
def runs(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Write an audited run with its report."""
    folder = tmp_path_factory.mktemp("runs")
    results.write_report(write_demo_audit(folder / "demo"))
    return folder


@pytest.fixture
def paths(runs: Path) -> RunPaths:
    """Note that the run is finished."""
    found = run_paths(str(runs), "demo")
    note_finished(request(runs), found, REASON)
    return found


def found(asked: LaunchRequest) -> tuple[int | None, str]:
    """Return the exit code of a launch that needs nothing, or None, and what is said."""
    console = Console(file=io.StringIO(), width=200)
    code = found_finished(asked, console)
    assert isinstance(console.file, io.StringIO)
    return code, console.file.getvalue()


def test_it_says_what_is_recorded_what_was_verified_and_where_the_report_is(
    runs: Path, paths: RunPaths
) -> None:
    code, said = found(request(runs))
    run = results.load(runs / "demo")
    failed = sum(record.status == "failed" for record in run.records)
    assert code == 0
    assert f"Run demo is finished: {len(run.records)} trials are recorded, {REASON}." in said
    assert f"{len(run.records)} of {run.manifest['trials']} trials recorded, {failed} fail" in said
    assert "\n  verified: " in said
    assert said.endswith(f"Report: {runs / 'demo' / 'report' / 'index.html'}\n")


@pytest.mark.parametrize(
    "changes",
    [{"space": "evasion"}, {"overrides": Overrides(trials=17)}, {"audit": False},
     {"audit_candidates": 3}, {"gpus_per_trial": 0.5}, {"time_budget": "1h"},
     {"max_gpu_hours": 2.0}, {"address": "auto"}, {"dry_run": True}, {"name": "other"}],
    ids=str,
)  # fmt: skip
def test_another_request_goes_the_whole_way(
    changes: dict[str, object], runs: Path, paths: RunPaths
) -> None:
    assert found(request(runs, **changes)) == (None, "")


def _touch(file: Path) -> None:
    before = file.stat()
    os.utime(file, ns=(before.st_atime_ns, before.st_mtime_ns + 1_000_000))


@pytest.mark.parametrize(
    "change",
    [
        lambda run: _touch(sorted((run / "records").glob("*.json"))[0]),
        lambda run: _touch(sorted((run / "audit" / "records").glob("*.json"))[0]),
        lambda run: (run / "records" / "new.json").write_text("{}"),
        lambda run: (run / "report" / "index.html").unlink(),
        lambda run: sorted((run / "report" / "figures").glob("*.png"))[0].unlink(),
        lambda run: (run / "manifest.json").write_text("{}"),
        lambda run: (run / ".finished.json").write_text("{"),
    ],
    ids=["record", "audit", "new record", "page", "figure", "manifest", "note"],
)
def test_a_run_or_report_that_changed_goes_the_whole_way(
    change: Callable[[Path], object], tmp_path: Path, runs: Path, paths: RunPaths
) -> None:
    run = tmp_path / "demo"
    shutil.copytree(runs / "demo", run)
    note_written(run, written_from(run))
    note_finished(request(tmp_path), run_paths(str(tmp_path), "demo"), REASON)
    assert found(request(tmp_path))[0] == 0
    change(run)
    assert found(request(tmp_path)) == (None, "")


def test_another_program_or_machine_goes_the_whole_way(
    runs: Path, paths: RunPaths, monkeypatch: pytest.MonkeyPatch
) -> None:
    noted = json.loads(paths.finished.read_text())
    for part in ("code", "machine", "data"):
        changed = {**noted, "state": {**noted["state"], part: ["another"]}}
        paths.finished.write_text(json.dumps(changed))
        assert found(request(runs)) == (None, "")
    paths.finished.write_text(json.dumps(noted))
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "another")
    assert found(request(runs)) == (None, "")


def test_a_launch_that_was_ended_early_is_not_noted(runs: Path, paths: RunPaths) -> None:
    note_finished(request(runs), paths, None)
    assert not paths.finished.exists()
    assert found(request(runs)) == (None, "")


def test_a_space_with_the_user_s_own_code_is_not_noted(runs: Path, paths: RunPaths) -> None:
    own = request(runs, overrides=Overrides(model="package.module:factory"))
    note_finished(own, paths, REASON)
    assert not paths.finished.exists()
