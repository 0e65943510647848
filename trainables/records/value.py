"""The value of a metric: measured with its interval, or missing with the reason."""

import math
from dataclasses import dataclass


# It is not frozen because of the time: to make one would take six times as long, and the records
# of a run of thousands of trials hold a million.
@dataclass(slots=True, unsafe_hash=True)
class Measured:
    """A measured value with the ends of its 95 % interval and the number of items behind it."""

    value: float
    low: float
    high: float
    n: int

    def __post_init__(self) -> None:
        # Asked of the sum first, for the same reason.
        if not math.isfinite(self.value + self.low + self.high) and not all(
            math.isfinite(number) for number in (self.value, self.low, self.high)
        ):
            raise ValueError(
                f"a metric must be finite, but got {self}; report Missing with a reason"
            )


@dataclass(frozen=True, slots=True)
class Missing:
    """A value that could not be measured, and why."""

    reason: str


MetricValue = Measured | Missing
