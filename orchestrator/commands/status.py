"""`status`: how far a run is, in lines for a terminal."""

from pathlib import Path

from rich.console import Group
from rich.table import Table
from rich.text import Text

from results import load
from results.audit.audit import audited
from results.records.run import Run
from results.sections.status import counts, summary

_MOST_FAILURES = 10


def status_lines(run: Path | str) -> Group:
    """Return a run's counts, the best of each objective, the front and the failures."""
    loaded = load(run)
    found = summary(loaded)
    counts = found.counts
    head = Text(
        f"{found.run}: {counts.done} of {counts.asked} trials done, {counts.failed} failed, "
        f"{counts.stopped} stopped, {counts.stale} stale, {counts.corrupt} unreadable, "
        f"{counts.struck_off} struck off for masked gradients; "
        f"front of {found.front_size}"
        + ("" if found.hypervolume is None else f", hypervolume {found.hypervolume:.4f}")
    )
    table = Table("objective", "best", "95 % interval", "n", "defense", box=None, pad_edge=False)
    for best in found.best:
        value = best.value
        table.add_row(
            best.metric,
            f"{value.value:.3f}",
            f"{value.low:.3f} - {value.high:.3f}",
            str(value.n),
            Text(best.label),
        )
    failures = [record for record in loaded.records if record.status == "failed"]
    lines = [Text(f"failed {r.trial} ({r.label}): {r.error}") for r in failures[:_MOST_FAILURES]]
    if len(failures) > _MOST_FAILURES:
        lines.append(Text(f".. and {len(failures) - _MOST_FAILURES} more; see the report"))
    return Group(head, table, *lines, *_audit_lines(loaded))


def _audit_lines(run: Run) -> list[Text]:
    """Return how far the audit is, and what became of each candidate; nothing where there is
    none.
    """
    if run.audit is None:
        return []
    found, planned = counts(run.audit), run.audit.manifest["trials"]
    lines = [Text(f"audit: {found.done} of {planned} trials done, {found.failed} failed")]
    return [*lines, *(Text(f"  {each.verdict_line}") for each in audited(run))]
