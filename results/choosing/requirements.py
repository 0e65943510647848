"""What a user asks of a defense: requirements and goals, read from text and judged by intervals."""

from __future__ import annotations

import difflib
import math
import operator
import re
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass

from results.errors import ResultsError
from results.records.values import number_text
from trainables.records.value import Measured

OPERATORS: Mapping[str, Callable[[float, float], bool]] = {
    ">=": operator.ge,
    "<=": operator.le,
    ">": operator.gt,
    "<": operator.lt,
}
_PARTS = re.compile(r"^\s*([A-Za-z][\w.]*)\s*([<>=!~]+)\s*(.*?)\s*$")
_NAMED = 12
"""Known names that an error lists; `list metrics` prints the rest."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Requirement:
    """What a metric must reach."""

    metric: str
    op: str
    """>=, <=, > or <."""
    threshold: float

    @property
    def at_least(self) -> bool:
        """Whether more is better for it."""
        return self.op in (">=", ">")

    def text(self) -> str:
        """Write it as it is typed."""
        return f"{self.metric}{self.op}{self.threshold:g}"

    def end(self, value: Measured, optimistic: bool = False) -> float:
        """Return the end of an interval that is held against it: the one farther from it.

        The nearer one where the reader is optimistic.
        """
        return value.low if self.at_least != optimistic else value.high

    def met(self, value: Measured, optimistic: bool = False) -> bool:
        """Return whether a value meets it, by the end that counts."""
        return OPERATORS[self.op](self.end(value, optimistic), self.threshold)

    def shortfall(self, value: Measured, optimistic: bool = False) -> float:
        """Return by how much a value misses it, in units of the metric; 0 where it meets it."""
        if self.met(value, optimistic):
            return 0.0
        return abs(self.end(value, optimistic) - self.threshold)


@dataclass(frozen=True, slots=True, kw_only=True)
class Goal:
    """What is to be as large or as small as can be."""

    metric: str
    maximized: bool

    def text(self) -> str:
        """Write it in words."""
        return f"{'highest' if self.maximized else 'lowest'} {self.metric}"

    def loss(self, value: Measured, optimistic: bool = False) -> float:
        """Return the end of an interval that counts as a loss: less is better."""
        end = value.low if self.maximized != optimistic else value.high
        return -end if self.maximized else end


def parse_requirement(text: str, known: Iterable[str]) -> Requirement:
    """Read METRIC>=NUMBER, or one of <=, >, <.

    ResultsError, with the closest known names, for another metric, operator or number.
    """
    parts = _PARTS.match(text)
    if parts is None:
        raise ResultsError(
            f"requirement {text!r}: write METRIC>=NUMBER (or <=, >, <), such as "
            "clean_accuracy>=0.9, in quotes"
        )
    metric, op, number = parts.groups()
    check_metric(metric, known, f"requirement {text!r}")
    if op not in OPERATORS:
        raise ResultsError(
            f"requirement {text!r}: unknown operator {op!r}; known: {', '.join(OPERATORS)}"
        )
    return Requirement(metric=metric, op=op, threshold=_number(number, text))


def check_metric(metric: str, known: Iterable[str], where: str) -> None:
    """Raise ResultsError, with the known names, closest first, where a metric is none of them."""
    names = list(known)
    if metric in names:
        return
    closest = difflib.get_close_matches(metric, names, n=_NAMED, cutoff=0)
    more = f" and {len(names) - _NAMED} more" if len(names) > _NAMED else ""
    raise ResultsError(
        f"{where}: unknown metric {metric!r}; known, the closest first: "
        f"{', '.join(closest)}{more} (`list metrics` explains them)"
    )


def _number(text: str, requirement: str) -> float:
    try:
        number = float(text)
    except ValueError:
        number = math.nan
    if not math.isfinite(number):
        raise ResultsError(
            f"requirement {requirement!r}: {text!r} is not a number; shares are written as "
            f"{number_text(0.9)}, not as percentages"
        )
    return number
