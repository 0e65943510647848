"""What a launch says at its end, whether it ran anything or found everything done."""

from pathlib import Path

from rich.console import Console
from rich.text import Text

import results
from orchestrator.run.paths import RunPaths
from results.audit.audit import VERIFIED, audited

DONE, FAILED = 0, 1
NO_CANDIDATE = "no defended trial that completed may be on a front"


def say_finished(console: Console, run: str, recorded: int, reason: str) -> None:
    """Return that nothing of a search is left to run, and why."""
    console.print(f"Run {run} is finished: {recorded} trials are recorded, {reason}.")


def say_recorded(console: Console, recorded: int, trials: int, failed: int) -> None:
    """Return how many trials of a search are recorded."""
    console.print(f"{recorded} of {trials} trials recorded, {failed} failed.")


def say_why_failed(console: Console, paths: RunPaths) -> None:
    """Return where to read why trials failed."""
    console.print(f"Why trials failed: python -m orchestrator status {paths.shown}", soft_wrap=True)


def say_audit(
    console: Console, root: Path | str, *, recorded: int, trials: int, failed: int
) -> None:
    """Return how far the audit is, and what it found."""
    console.print(f"Audit: {recorded} of {trials} trials recorded, {failed} failed.")
    for each in audited(results.load(root)):
        because = "" if each.verdict == VERIFIED else f": {each.because}"
        style = "" if each.verdict == VERIFIED else "yellow"
        console.print(Text(f"  {each.verdict}: {each.label}{because}", style=style), soft_wrap=True)


def exit_code(recorded: int, failed: int) -> int:
    """Return the exit code of a launch that is complete: 1 where every trial failed."""
    return FAILED if failed == recorded else DONE
