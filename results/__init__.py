"""From records to what they mean: tables, statistics, fronts, figures and the report."""

from typing import TYPE_CHECKING, Any

from results.errors import ResultsError
from results.page.freshness import current_report
from results.records.run import load

if TYPE_CHECKING:
    from results.page.report import write_report

__all__ = ["ResultsError", "current_report", "load", "write_report"]


def __getattr__(name: str) -> Any:
    """Import `write_report` when it is first asked for: drawing takes seconds to import."""
    if name == "write_report":
        from results.page.report import write_report

        return write_report
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
