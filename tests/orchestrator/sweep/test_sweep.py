"""Sweeps on a real local Ray, through the command line."""

import json
import signal
import time
from pathlib import Path

import optuna
import pytest
from optuna.storages import JournalStorage
from optuna.storages.journal import JournalFileBackend
from optuna.trial import TrialState

import results
from tests.orchestrator.command_line import end, run, start, wait_for
from tests.search_spaces.writing import write_space
from trainables.records.record import TrialRecord

pytestmark = pytest.mark.slow

TIMED = {"training_seconds", "peak_memory_mib"}


def records_of(run_folder: Path) -> dict[str, TrialRecord]:
    paths = (run_folder / "records").glob("*.json")
    return {path.stem: TrialRecord.from_json(path.read_text()) for path in paths}


def study_of(run_folder: Path) -> list[optuna.trial.FrozenTrial]:
    backend = JournalFileBackend(str(run_folder / "study.journal"))
    return optuna.load_study(study_name=None, storage=JournalStorage(backend)).get_trials()


def states_of(run_folder: Path) -> list[TrialState]:
    return [trial.state for trial in study_of(run_folder)]


@pytest.fixture(scope="module")
def finished(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    """A finished sweep of six trials, one of which diverges: (space file, runs folder)."""
    folder = tmp_path_factory.mktemp("finished")
    scenarios = [{"dataset": "digits", "training": {"epochs": 2, "learning_rate": [0.05, 100.0]}}]
    path = write_space(folder, scenarios=scenarios, threats={"membership": None})
    done = run("launch", "--no-audit", "--space", str(path), "--runs", str(folder / "runs"))
    assert done.returncode == 0, done.stderr
    return path, folder / "runs"


def test_a_sweep_leaves_records_tables_and_a_report(finished: tuple[Path, Path]) -> None:
    _, runs = finished
    run_folder = runs / "tiny"
    loaded = results.load(run_folder)
    assert len(loaded.records) == 6
    for name in ("index.html", "trials.csv", "front.csv", "report.json"):
        assert (run_folder / "report" / name).is_file()
    assert (run_folder / "trials.parquet").is_file()
    frame = loaded.trials()
    assert {"trial", "status", "clean_accuracy", "clean_accuracy_low"} <= set(frame.columns)


def test_a_failed_trial_never_ends_a_sweep_and_says_why(finished: tuple[Path, Path]) -> None:
    _, runs = finished
    failed = [r for r in records_of(runs / "tiny").values() if r.status == "failed"]
    assert 0 < len(failed) < 6
    for record in failed:
        assert record.error is not None and "epoch 1 of 2" in record.error
    assert TrialState.RUNNING not in states_of(runs / "tiny")


def test_the_same_command_on_a_finished_run_says_so_at_once(finished: tuple[Path, Path]) -> None:
    path, runs = finished
    before = {p: p.stat().st_mtime_ns for p in (runs / "tiny" / "records").iterdir()}
    started = time.monotonic()
    again = run("launch", "--no-audit", "--space", str(path), "--runs", str(runs))
    assert again.returncode == 0
    assert time.monotonic() - started < 15
    assert "finished" in again.stdout
    assert again.stdout.splitlines()[-1].endswith("index.html")
    assert {p: p.stat().st_mtime_ns for p in (runs / "tiny" / "records").iterdir()} == before


def test_a_changed_space_under_the_same_name_is_refused_with_the_difference(
    finished: tuple[Path, Path], tmp_path: Path
) -> None:
    _, runs = finished
    other = run(
        "launch",
        "--no-audit",
        "--space",
        str(write_space(tmp_path, max_stack=1)),
        "--runs",
        str(runs),
    )
    assert other.returncode == 2
    assert "max_stack: 2 there, 1 here" in other.stderr
    assert other.stderr.count("\n") == 1


def test_more_trials_extend_a_run(finished: tuple[Path, Path]) -> None:
    path, runs = finished
    before = set(records_of(runs / "tiny"))
    more = run("launch", "--no-audit", "--space", str(path), "--runs", str(runs), "--trials", "8")
    assert more.returncode == 0, more.stderr
    after = set(records_of(runs / "tiny"))
    assert before < after and len(after) == 8


def test_status_and_report_read_a_run(finished: tuple[Path, Path]) -> None:
    _, runs = finished
    status = run("status", str(runs / "tiny"))
    assert status.returncode == 0
    assert "failed" in status.stdout and "clean_accuracy" in status.stdout
    report = run("report", str(runs / "tiny"))
    assert report.returncode == 0
    assert report.stdout.splitlines()[-1].endswith("index.html")


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_signal_ends_a_sweep_cleanly_and_the_last_line_says_how_to_resume(
    number: signal.Signals, tmp_path: Path
) -> None:
    scenarios = [{"dataset": "digits", "training": {"epochs": 5}}]
    path = write_space(tmp_path, scenarios=scenarios, search={"algorithm": "tpe", "trials": 200})
    folder = tmp_path / "runs" / "tiny"
    process = start("launch", "--no-audit", "--space", str(path), "--runs", str(tmp_path / "runs"))
    wait_for(lambda: len(list(folder.glob("records/*.json"))) >= 2, "two records")
    code, output = end(process, number)
    assert code == 1
    last = output.strip().splitlines()[-1]
    assert last.startswith("Interrupted; resume with: python -m orchestrator launch")
    assert TrialState.RUNNING not in states_of(folder)
    assert 2 <= len(records_of(folder)) < 200


def test_trial_and_launch_give_the_same_metrics_curves_and_weights(tmp_path: Path) -> None:
    defenses = {"label_smoothing": {"alpha": [0.1]}}
    first = [{"label_smoothing": {"alpha": 0.1}}]
    path = write_space(
        tmp_path,
        scenarios=[{"dataset": "digits"}],
        defenses=defenses,
        first=first,
        threats={"evasion": None, "membership": None},
        search={"algorithm": "random", "trials": 1},
    )
    done = run("launch", "--no-audit", "--space", str(path), "--runs", str(tmp_path / "runs"))
    assert done.returncode == 0, done.stderr
    (swept,) = records_of(tmp_path / "runs" / "tiny").values()
    single = run(
        "trial", "--defense", "label_smoothing:alpha=0.1", "--threats", "evasion,membership",
        "--json",
    )  # fmt: skip
    assert single.returncode == 0, single.stderr
    alone = TrialRecord.from_json(single.stdout)
    assert alone.trial == swept.trial
    assert alone.metrics == swept.metrics
    assert alone.curves == swept.curves
    assert alone.artefacts["model"] == swept.artefacts["model"]
    assert alone.notes["training"] == swept.notes["training"]
    assert len(alone.notes["training"]["weights_sha256"]) == 64


def test_trial_imports_no_ray() -> None:
    import subprocess
    import sys

    program = (
        "import sys; from orchestrator.program import main; "
        "sys.argv = ['orchestrator', 'trial', '--threats', 'clean', '--json']; main(); "
        "assert 'ray' not in sys.modules"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout)["status"] == "completed"


def test_an_address_where_nothing_answers_is_refused_at_once(tmp_path: Path) -> None:
    started = time.monotonic()
    done = run(
        "launch",
        "--no-audit",
        "--space",
        "smoke",
        "--runs",
        str(tmp_path / "runs"),
        "--address",
        "127.0.0.1:9",
    )
    assert done.returncode == 2
    assert "nothing answers there" in done.stderr and done.stderr.count("\n") == 1
    assert time.monotonic() - started < 30
    assert not (tmp_path / "runs").exists()
