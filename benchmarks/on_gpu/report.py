"""What the benchmark reports: rows with unit, n and spread, as a table and as JSON."""

import statistics
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

from trainables.metrics import intervals
from trainables.records.record import metric_to_plain
from trainables.records.value import Measured, MetricValue, Missing

WILSON = "95 % Wilson"
RANGE = "lowest to highest"
READING = "one reading"
_LARGE = 1000


@dataclass(frozen=True, slots=True, kw_only=True)
class Row:
    """One figure, or why there is none."""

    part: str
    name: str
    unit: str
    value: MetricValue
    spread: str = READING
    """What the ends of the value are: an interval, a range or the value itself."""
    note: str = ""
    passed: bool | None = None
    """Whether the figure is what it must be; None where nothing is demanded of it."""

    def plain(self) -> dict[str, Any]:
        """Return the row as plain JSON values."""
        return {
            "part": self.part,
            "name": self.name,
            "unit": self.unit,
            **metric_to_plain(self.value),
            "spread": self.spread,
            "note": self.note,
            "passed": self.passed,
        }


class Clock:
    """The time that is left, of the whole run or of a part's share."""

    def __init__(
        self,
        seconds: float,
        now: Callable[[], float] = time.perf_counter,
        until: float = float("inf"),
    ) -> None:
        self._now = now
        self.until = min(until, now() + seconds)
        """On the clock `now`, by default time.perf_counter."""

    def left(self) -> float:
        """Return the seconds that are left; negative once they are over."""
        return self.until - self._now()

    def share(self, seconds: float) -> "Clock":
        """Return a clock of at most so many seconds, which ends no later than this one."""
        return Clock(seconds, self._now, self.until)


def readings(values: Sequence[float]) -> Measured:
    """Return the median of repeated readings with their lowest and highest."""
    return Measured(statistics.median(values), min(values), max(values), len(values))


def share_row(
    part: str, name: str, successes: int, n: int, *, note: str = "", passed: bool | None = None
) -> Row:
    """Return a share with its Wilson interval."""
    value = intervals.proportion(successes, n)
    return Row(
        part=part, name=name, unit="share", value=value, spread=WILSON, note=note, passed=passed
    )


def missing(part: str, name: str, unit: str, reason: str) -> Row:
    """Return the row of a figure that was not measured."""
    return Row(part=part, name=name, unit=unit, value=Missing(reason))


def line(row: Row) -> str:
    """Return the row as a line of the table."""
    label = f"{row.part:12} {row.name:46}"
    if isinstance(row.value, Missing):
        return f"{label} {'not measured: ' + row.value.reason}"
    ends = f" [{number(row.value.low)}, {number(row.value.high)}]"
    ends = "" if row.spread == READING else ends
    figure = f"{number(row.value.value)}{ends} {row.unit}"
    verdict = "" if row.passed is None else "  pass" if row.passed else "  FAIL"
    note = f"  ({row.note})" if row.note else ""
    return f"{label} {figure:42} n={row.value.n:<6}{verdict}{note}"


def number(value: float) -> str:
    """Return a number in four digits, or all those of a large or whole one."""
    if value.is_integer() or abs(value) >= _LARGE:
        return f"{value:,.0f}"
    return f"{value:.4g}"


def one_line(error: BaseException) -> str:
    """Return an error's type and message as one line of at most 300 characters."""
    text = " ".join(str(error).split())
    return f"{type(error).__name__}: {text}"[:300]
