"""The value of a metric: measured with its interval, or missing with the reason."""

import math
from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Measured:
    """A measured value with the ends of its 95 % interval and the number of items behind it."""

    value: float
    low: float
    high: float
    n: int

    def __post_init__(self) -> None:
        if not all(math.isfinite(number) for number in (self.value, self.low, self.high)):
            raise ValueError(
                f"a metric must be finite, but got {self}; report Missing with a reason"
            )


@dataclass(frozen=True, slots=True)
class Missing:
    """A value that could not be measured, and why."""

    reason: str


MetricValue = Measured | Missing
