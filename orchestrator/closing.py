"""What a launch says at its end, whether it ran anything or found everything done."""

from collections.abc import Iterable
from pathlib import Path
from typing import Protocol

from rich.console import Console
from rich.text import Text

import results
from orchestrator.run.paths import RunPaths, report_address
from results.audit.audit import VERIFIED, audited
from trainables.storage.folders import redacted

DONE, FAILED = 0, 1
NO_CANDIDATE = "no defended trial that completed may be on a front"


class HasStatus(Protocol):
    """A record of a trial: its own, or as results shows it."""

    @property
    def status(self) -> str: ...


def say_finished(console: Console, run: str, recorded: int, reason: str) -> None:
    """Print that nothing of a search is left to run, and why."""
    console.print(
        f"Run {run} is finished: {recorded} trials are recorded, {reason}.", soft_wrap=True
    )


def say_recorded(console: Console, recorded: int, trials: int, failed: int) -> None:
    """Print how many trials of a search are recorded."""
    console.print(f"{recorded} of {trials} trials recorded, {failed} failed.")


def say_why_failed(console: Console, paths: RunPaths) -> None:
    """Print where to read why trials failed."""
    console.print(f"Why trials failed: python -m orchestrator status {paths.shown}", soft_wrap=True)


def say_audit(
    console: Console, root: Path | str, *, recorded: int, trials: int, failed: int
) -> None:
    """Print how far the audit is, and what it found."""
    console.print(f"Audit: {recorded} of {trials} trials recorded, {failed} failed.")
    for each in audited(results.load(root)):
        style = "" if each.verdict == VERIFIED else "yellow"
        console.print(Text(f"  {each.verdict_line}", style=style), soft_wrap=True)


def say_report(
    console: Console, paths: RunPaths, page: Path | None, *, complete: bool = True
) -> None:
    """Print where a run's report is; it is written where no `page` is up to date."""
    where = report_address(paths.root, page or results.write_report(paths.root))
    console.print(f"{'Report' if complete else 'Report so far'}: {where}", soft_wrap=True)


def say_interrupted(console: Console, command: str) -> None:
    """Print how to go on."""
    console.print(f"Interrupted; resume with: {redacted(command)}", soft_wrap=True)


def count_failed(records: Iterable[HasStatus]) -> int:
    """Count the trials that failed."""
    return sum(record.status == "failed" for record in records)


def exit_code(recorded: int, failed: int) -> int:
    """Return the exit code of what is complete: 1 where every trial failed."""
    return FAILED if failed == recorded else DONE
