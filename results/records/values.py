"""A measured number as results knows it: the value, its 95 % interval and its items."""

import math
from dataclasses import dataclass


# It is not frozen because of the time: to make one would take six times as long, and a run of
# thousands of trials holds a million.
@dataclass(slots=True, unsafe_hash=True)
class Value:
    """A number with the ends of its 95 % interval and the number of items behind it."""

    value: float
    low: float
    high: float
    n: int

    def __post_init__(self) -> None:
        # Asked of the sum first, for the same reason.
        if not math.isfinite(self.value + self.low + self.high) and not all(
            math.isfinite(number) for number in (self.value, self.low, self.high)
        ):
            raise ValueError(f"a value and its interval must be finite, but got {self}")

    def plain(self) -> dict[str, float]:
        """Return it as {value, low, high, n}."""
        return {"value": self.value, "low": self.low, "high": self.high, "n": self.n}

    def text(self) -> str:
        """Write it as `0.843 [0.801, 0.877]`."""
        return f"{number_text(self.value)} {self.interval_text()}"

    def interval_text(self) -> str:
        """Write the interval alone as `[0.801, 0.877]`."""
        return f"[{number_text(self.low)}, {number_text(self.high)}]"


def number_text(number: float) -> str:
    """Write a number with three decimals; a tiny one with two digits, a large one with four."""
    if number == 0 or 0.001 <= abs(number) < 100:
        return f"{number:.3f}"
    return f"{number:.2g}" if abs(number) < 1 else f"{number:.4g}"


def signed_text(number: float) -> str:
    """Write a difference with its sign."""
    return f"{'+' if number >= 0 else ''}{number_text(number)}"


def counted(count: int, noun: str) -> str:
    """Write a count with its noun, such as `1 trial` and `2 trials`."""
    return f"{count:,} {noun}" if count == 1 else f"{count:,} {noun}s"
