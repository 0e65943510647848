"""The report of a sweep that goes on: when it is written, at what cost, and how it ends."""

import logging
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from orchestrator.run.paths import RunPaths
from orchestrator.sweep.live_report import LiveReport
from results import write_report
from tests.results.run_folders import demo_records, manifest, write_run


def _writer(body: str) -> tuple[str, ...]:
    """Return a writer that reads the run's address and then does something."""
    return (sys.executable, "-c", f"import sys, time; run = sys.stdin.readline().strip(); {body}")


def _until(true: Callable[[], bool], live: LiveReport, seconds: float = 20.0) -> None:
    end = time.monotonic() + seconds
    while not true():
        assert time.monotonic() < end, "nothing happened"
        live.look()
        time.sleep(0.02)


def _idle(live: LiveReport) -> bool:
    return live.process is None


def test_the_page_of_a_running_sweep_is_written_beside_it_and_the_last_one_stays(
    tmp_path: Path,
) -> None:
    write_run(tmp_path, manifest(), demo_records()[:12])
    page = tmp_path / "report" / "index.html"
    finished = [0]
    with LiveReport(RunPaths(tmp_path), lambda: finished[0], every=0.0) as live:
        live.look()
        assert live.process is None, "nothing has finished since the start"
        finished[0] = 12
        live.look()
        assert live.process is not None
        _until(lambda: _idle(live), live)
    assert "Running: 12 of 40" in page.read_text().replace("<strong>", "")
    assert 'id="running"' not in write_report(tmp_path).read_text()


def test_one_report_is_written_at_a_time_and_the_next_waits_as_the_last_was_dear(
    tmp_path: Path,
) -> None:
    marks = tmp_path / "marks"
    body = f"open({str(marks)!r}, 'a').write('x'); [i * i for i in range(4_000_000)]"
    finished = [1]
    live = LiveReport(RunPaths(tmp_path), lambda: finished[0], every=0.0, writer=_writer(body))
    with live:
        finished[0] = 2
        live.look()
        first = live.process
        finished[0] = 3
        live.look()
        assert live.process is first
        _until(lambda: _idle(live), live)
        # It took more than 0.1 s of CPU: 5 % of one core is reached after 2 s at the soonest.
        assert live.next - time.monotonic() > 1.0
        live.look()
        assert _idle(live)
    assert marks.read_text() == "x"


def test_a_sweep_that_ends_leaves_no_writer_behind(tmp_path: Path) -> None:
    finished = [0]
    late = tmp_path / "late"
    body = f"time.sleep(60); open({str(late)!r}, 'w')"
    live = LiveReport(RunPaths(tmp_path), lambda: finished[0], every=0.0, writer=_writer(body))
    with live:
        finished[0] = 1
        live.look()
        process = live.process
        assert process is not None
    assert process.returncode is not None and not late.exists()


def test_a_report_that_cannot_be_written_is_told_once_and_ends_no_sweep(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    finished = [0]
    live = LiveReport(RunPaths(tmp_path / "nowhere"), lambda: finished[0], every=0.0)
    with live, caplog.at_level(logging.WARNING):
        finished[0] = 1
        live.look()
        _until(lambda: _idle(live), live)
        finished[0] = 2
        live.look()
        assert _idle(live)
    assert len(caplog.records) == 1
    assert "no run at" in caplog.text


def test_the_address_is_on_no_command_line(tmp_path: Path) -> None:
    seen = tmp_path / "seen"
    finished = [0]
    body = f"open({str(seen)!r}, 'w').write(run + '|' + ' '.join(sys.argv))"
    paths = RunPaths("s3://key:secret@bucket/run")
    with LiveReport(paths, lambda: finished[0], every=0.0, writer=_writer(body)) as live:
        finished[0] = 1
        live.look()
        _until(lambda: _idle(live), live)
    assert seen.read_text() == "s3://key:secret@bucket/run|-c"
