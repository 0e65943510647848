"""What a metric is."""

from dataclasses import dataclass
from typing import Literal

Direction = Literal["maximize", "minimize", "none"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Metric:
    """One declared metric."""

    name: str
    meaning: str
    direction: Direction
    unit: str
    interval: str
    """How the 95 % interval is computed."""
    worst: float | None = None
    """The worst value possible, where there is one: the reference of the hypervolume."""
    source: str = ""
    may_be_missing: bool = False
    """Whether some deployed models have no value; such a metric can be no objective."""


WILSON = "Wilson score interval"
MEAN = "t interval of the mean and of its logit within the range of the values, both together"
CLUSTERED = "Wilson score interval of as many items as there are classes"
LOWEST = "Clopper-Pearson of all classes at once (Sidak), the lowest of their ends"
CALIBRATION = "bootstrap, 1,000 resamples; its low end is 0 where calibration is not rejected"
BY_CLASS = "Price and Bonett's interval of a linear function of proportions"
BOOTSTRAP = "percentile bootstrap, 1,000 resamples"
AREA = "score interval of an area (Newcombe's method 5), its variance no less than DeLong's"
EXACT = "exact: a count or a single reading, its interval is the value itself"
DIFFERENCE = "Newcombe's interval of a difference of two proportions"
ORDER = "order statistics (binomial ranks)"
BONFERRONI = (
    "largest ends of each attack's own interval at level 1 - 0.05 / (2 x number of attacks), for "
    "both directions of its scores (Bonferroni)"
)
FARTHEST = (
    "largest ends of each attack's own interval at level 1 - 0.05 / number of attacks "
    "(Bonferroni), what lies below 0.5 turned above"
)


def declare(
    name: str,
    direction: Direction,
    unit: str,
    interval: str,
    meaning: str,
    worst: float | None = None,
    source: str = "",
    may_be_missing: bool = False,
) -> Metric:
    """Declare a metric in one call."""
    return Metric(
        name=name,
        meaning=meaning,
        direction=direction,
        unit=unit,
        interval=interval,
        worst=worst,
        source=source,
        may_be_missing=may_be_missing,
    )
