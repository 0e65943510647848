"""From records to what they mean: tables, statistics, fronts, figures and the report."""

from results.errors import ResultsError
from results.page.report import write_report
from results.records.run import load

__all__ = ["ResultsError", "load", "write_report"]
