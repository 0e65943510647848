"""Runs the tests that are marked `pretend_gpu`, a file at a time, in a process with the device.

The device cannot be taken out of a process again, so that no other test may share one with it. What
pytest reports in that process is reported here as it is, test by test.
"""

import json
import subprocess
import sys
from collections import defaultdict
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Literal

import pytest

REPORTS_VARIABLE = "PRETEND_GPU_REPORTS"
"""Names the file that the process writes its reports to."""
_OPTIONS = ("-q", "-p", "tests.pretend_gpu.reporting", "-p", "no:cacheprovider")
_LAST_WORDS = 4000

Reports = Mapping[str, Sequence[pytest.TestReport]]


def run_tests(
    nodeids: Sequence[str],
    config: pytest.Config,
    environment: Mapping[str, str],
    folder: Path,
    root: Path,
) -> Reports:
    """Run tests of pytest's root folder in a new process and return their reports by node id.

    Tests that the process left without a result, because it died or could not import them, fail
    with the last that it wrote.
    """
    written = folder / "reports.jsonl"
    written.touch()
    done = subprocess.run(
        [sys.executable, "-m", "pytest", *_OPTIONS, f"--basetemp={folder / 'tmp'}", *nodeids],
        env=_of_its_own(environment) | {REPORTS_VARIABLE: str(written)},
        cwd=root,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        check=False,
    )
    reports = _read(written, config)
    for nodeid in nodeids:
        if not any(report.when == "teardown" for report in reports[nodeid]):
            words = f"its process ended with {done.returncode}\n{done.stdout[-_LAST_WORDS:]}"
            reports[nodeid].append(_report(nodeid, "failed", words))
    return reports


def skipped(item: pytest.Item, reason: str) -> pytest.TestReport:
    """Return the report of a test that was not run."""
    path, line, _ = item.location
    return _report(item.nodeid, "skipped", (path, (line or 0) + 1, f"Skipped: {reason}"))


def _of_its_own(environment: Mapping[str, str]) -> dict[str, str]:
    """Return the environment without what pytest and its workers told each other."""
    return {name: value for name, value in environment.items() if not name.startswith("PYTEST_")}


def _read(path: Path, config: pytest.Config) -> defaultdict[str, list[pytest.TestReport]]:
    reports: defaultdict[str, list[pytest.TestReport]] = defaultdict(list)
    for line in path.read_text().splitlines():
        data = json.loads(line)
        if data["outcome"] == "skipped":
            data["longrepr"] = tuple(data["longrepr"])  # JSON has lists only
        report = config.hook.pytest_report_from_serializable(config=config, data=data)
        reports[report.nodeid].append(report)
    return reports


def _report(
    nodeid: str, outcome: Literal["failed", "skipped"], longrepr: str | tuple[str, int, str]
) -> pytest.TestReport:
    path = nodeid.split("::")[0]
    when: Literal["setup", "call"] = "setup" if outcome == "skipped" else "call"
    return pytest.TestReport(nodeid, (path, None, nodeid), {}, outcome, longrepr, when)
