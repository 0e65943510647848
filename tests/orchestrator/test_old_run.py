"""A run that was recorded before the files moved still loads, reports, resumes and is audited.

tests/golden/run_85021ec/ is what `launch` of tests/golden/pinned.yaml left at commit 85021ec,
without artefacts and report; run_85021ec.json holds the numbers of the report that it wrote. Both
stand for the runs of users and are never written again.
"""

import json
import re
import shutil
import sys
from pathlib import Path
from typing import Any

import pytest

from orchestrator.program import main
from tests.golden.run_numbers import NUMBERS, RUN, SPACE, report_numbers, table_numbers
from tests.orchestrator.command_line import run as run_apart
from trainables.threats import THREATS
from trainables.trial.stages import stage_versions

pytestmark = pytest.mark.slow

PINNED: dict[str, Any] = json.loads(NUMBERS.read_text())
PAIRED = re.compile(
    r"(matrix\.audited\[\d+\]\.changes|pairs\[\d+\]\.metrics)"
    r"\.(clean|robust)_accuracy\.(difference\.)?(low|high)"
)
SHARE = re.compile(r"\w*front\.candidates\[\d+\]\.share")
UNDEFENDED_TRIAL = next(
    trial for trial, row in PINNED["trials"].items() if row["defense"] == "none"
)


@pytest.fixture
def old(tmp_path: Path) -> Path:
    """Return a copy of the recorded run, whose files keep their times."""
    return Path(shutil.copytree(RUN, tmp_path / RUN.name))


def call(*words: str) -> int:
    """Run the command line in this process and return its exit code."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(sys, "argv", ["orchestrator", *words])
        return main()


def launch(folder: Path, trials: int) -> tuple[str, ...]:
    """Return the arguments that launch the recorded run again."""
    named = ("--space", str(SPACE), "--runs", str(folder.parent), "--name", folder.name)
    return ("launch", *named, "--trials", str(trials), "--no-audit")


def records(folder: Path) -> dict[str, tuple[bytes, int]]:
    """Return file -> content and time of each record, of the search and of its audit."""
    files = [*folder.glob("records/*"), *folder.glob("audit/records/*")]
    return {
        str(file.relative_to(folder)): (file.read_bytes(), file.stat().st_mtime_ns)
        for file in files
    }


def assert_same_numbers(found: dict[str, float], recorded: dict[str, float]) -> None:
    """Hold found numbers against the recorded ones; further ones may have come."""
    assert recorded
    assert {place: found.get(place) for place in recorded} == pytest.approx(recorded, rel=1e-7)


def assert_same_report(found: dict[str, float], recorded: dict[str, float]) -> None:
    """Hold a report against the recorded one, but for the two statistics that were wrong there.

    The interval of a paired difference of one seed left out what another training would change, and
    objectives of equal n shared their seed's noise in the draws of a front.
    """
    widened = {place for place in recorded if PAIRED.fullmatch(place)}
    shares = {place for place in recorded if SHARE.fullmatch(place)}
    assert widened and shares
    for place in widened:
        was, now = recorded[place], found[place]
        assert now < was if place.endswith(".low") else now > was
    for place in shares:
        assert found[place] == pytest.approx(recorded[place], abs=0.05)
    assert_same_numbers(found, {k: v for k, v in recorded.items() if k not in widened | shares})


def assert_same_table(folder: Path) -> None:
    """Hold the rows of recorded trials against what was recorded."""
    table = table_numbers(folder / "report")
    for trial, recorded in PINNED["table"].items():
        assert_same_numbers(table[trial], recorded)


def test_status_counts_its_trials(old: Path, capsys: pytest.CaptureFixture[str]) -> None:
    before = records(old)
    assert call("status", str(old)) == 0
    assert "3 of 3" in capsys.readouterr().out
    assert records(old) == before


def test_select_chooses_as_it_did(old: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert call("select", str(old), "--json", "--allow-undefended") == 0
    plain = json.loads(capsys.readouterr().out)
    assert (plain["verified"], plain["knee"]) == (2, UNDEFENDED_TRIAL)
    assert {pick["trial"] for pick in plain["picks"]} <= set(PINNED["trials"])


def test_select_no_longer_suggests_its_undefended_model(
    old: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert call("select", str(old), "--json") == 0
    plain = json.loads(capsys.readouterr().out)
    assert [row["trial"] for row in plain["references"]] == [UNDEFENDED_TRIAL]
    assert plain["knee"] in set(PINNED["trials"]) - {UNDEFENDED_TRIAL}
    assert call("select", str(old), "--require", "robust_accuracy>=0.99") == 3


def test_report_writes_the_recorded_numbers(old: Path) -> None:
    assert call("report", str(old)) == 0
    assert_same_table(old)
    assert_same_report(report_numbers(old / "report"), PINNED["report"])


def test_audit_finds_nothing_left_to_do(old: Path, capsys: pytest.CaptureFixture[str]) -> None:
    before = records(old)
    assert call("audit", str(old)) == 0
    assert "2 of 2 trials recorded" in capsys.readouterr().out
    assert records(old) == before
    assert_same_table(old)
    recorded = json.loads((RUN / "manifest.json").read_text())["stage_versions"]
    if stage_versions() == recorded:  # else its records are of an older version, and say so
        assert_same_report(report_numbers(old / "report"), PINNED["report"])


def test_a_resume_runs_one_more_trial_and_leaves_the_others(old: Path) -> None:
    before = records(old)
    done = run_apart(*launch(old, 4))
    assert done.returncode == 0, done.stderr
    after = records(old)
    assert {name: after[name] for name in before} == before
    (added,) = set(after) - set(before)
    record = json.loads((old / added).read_text())
    assert (record["status"], record["error"]) == ("completed", None)
    assert record["sampled"]
    assert_same_table(old)
    assert len(table_numbers(old / "report")) == 4


def test_records_of_an_older_version_are_kept_and_shown_as_stale(
    old: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(THREATS["membership"], "VERSION", 1_000)
    before = records(old)
    assert call(*launch(old, 3)) == 0
    assert "3 trials are recorded" in capsys.readouterr().out
    assert records(old) == before
    assert_same_table(old)
    counts = json.loads((old / "report" / "report.json").read_text())["counts"]
    assert (counts["done"], counts["stale"]) == (0, 3)
