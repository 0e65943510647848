"""What a resume reads of a run: its records, without those that are to be run again."""

import json
from dataclasses import replace
from pathlib import Path

import pytest

from orchestrator.run.manifest import read_records
from orchestrator.run.paths import RunPaths
from trainables.records.record import LOST, TrialRecord, write_record

SPEC = {"data": {}, "model": {}, "training": {}, "stack": [], "effort": "screen", "seed": 0}
DONE = TrialRecord(trial="done", spec=SPEC, sampled={}, status="completed")
FAILED = replace(DONE, trial="failed", status="failed", error="no memory")
AWAY = replace(DONE, trial="away", status="failed", error=LOST, lost=True)


@pytest.fixture
def paths(tmp_path: Path) -> RunPaths:
    """Write a completed, a failed and a lost trial."""
    found = RunPaths(tmp_path)
    for record in (DONE, FAILED, AWAY):
        write_record(record, found.records)
    return found


def names(paths: RunPaths) -> list[str]:
    """Return the files among a run's records."""
    return sorted(path.name for path in (Path(paths.root) / "records").iterdir())


def test_a_lost_trial_runs_again_and_no_other(
    paths: RunPaths, caplog: pytest.LogCaptureFixture
) -> None:
    assert read_records(paths) == {"done": DONE, "failed": FAILED}
    assert names(paths) == ["done.json", "failed.json"]
    assert f"trial away runs again: {LOST}" in caplog.text


def test_so_does_one_that_an_older_program_lost(paths: RunPaths) -> None:
    file = Path(paths.root) / "records" / "away.json"
    plain = json.loads(file.read_text())
    del plain["lost"]
    file.write_text(json.dumps(plain))
    assert set(read_records(paths)) == {"done", "failed"}


@pytest.mark.parametrize(
    ("content", "words"),
    [(b"[]", "holds no JSON object"), (b'{"trial": "away"}', "lacks 'status'"), (b"\xff", "utf-8")],
)
def test_a_record_that_cannot_be_read_is_set_aside(
    paths: RunPaths, content: bytes, words: str, caplog: pytest.LogCaptureFixture
) -> None:
    (Path(paths.root) / "records" / "away.json").write_bytes(content)
    assert set(read_records(paths)) == {"done", "failed"}
    assert names(paths) == ["away.json.corrupt", "done.json", "failed.json"]
    assert words in caplog.text and "set aside" in caplog.text
