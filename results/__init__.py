"""From records to what they mean: tables, statistics, fronts, figures and the report."""

from results.errors import ResultsError
from results.records.run import load
from results.report import write_report

__all__ = ["ResultsError", "load", "write_report"]
