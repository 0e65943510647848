"""The 95 % intervals of metrics: from counts, means, ranks and resamples to Measured values."""

import math
from collections.abc import Callable, Sequence

import numpy as np
from numpy.typing import NDArray
from scipy import stats

from trainables.records.value import Measured, MetricValue, Missing

LEVEL = 0.95
_Z = float(stats.norm.ppf(0.5 + LEVEL / 2))
Floats = NDArray[np.float64]


def proportion(successes: int, n: int, level: float = LEVEL) -> Measured:
    """Return a share with its Wilson score interval (Wilson, 1927); n must be positive."""
    interval = stats.binomtest(successes, n).proportion_ci(level, method="wilson")
    return Measured(successes / n, float(interval.low), float(interval.high), n)


def mean(values: Floats) -> Measured:
    """Return the mean of one value an item (N,) with its normal interval."""
    centre = float(values.mean())
    half = _Z * float(values.std(ddof=1)) / math.sqrt(len(values)) if len(values) > 1 else 0.0
    return Measured(centre, centre - half, centre + half, len(values))


def total(values: Floats) -> Measured:
    """Return the sum of like-sized parts (N,), such as epochs, with the t interval of that sum."""
    n, sum_ = len(values), float(values.sum())
    half = 0.0
    if n > 1:
        half = float(stats.t.ppf(0.5 + LEVEL / 2, n - 1) * values.std(ddof=1) * math.sqrt(n))
    return Measured(sum_, max(0.0, sum_ - half), sum_ + half, n)


def sum_of(parts: Sequence[Measured]) -> Measured:
    """Add independent quantities, their intervals by the square-and-add rule."""
    value = sum(part.value for part in parts)
    low = value - math.hypot(*(part.value - part.low for part in parts))
    high = value + math.hypot(*(part.high - part.value for part in parts))
    return Measured(value, low, high, sum(part.n for part in parts))


def exact(value: float, n: int = 1) -> Measured:
    """Return a count or a single reading, which is its own interval."""
    return Measured(float(value), float(value), float(value), n)


def difference(a: Measured, b: Measured) -> Measured:
    """Return a - b of two independent shares by Newcombe's method (1998, method 10)."""
    value = a.value - b.value
    low = value - math.hypot(a.value - a.low, b.high - b.value)
    high = value + math.hypot(a.high - a.value, b.value - b.low)
    return Measured(value, max(-1.0, low), min(1.0, high), a.n + b.n)


def balanced(a: Measured, b: Measured) -> Measured:
    """Return the mean of two independent shares, its interval by the square-and-add rule."""
    value = (a.value + b.value) / 2
    low = value - math.hypot(a.value - a.low, b.value - b.low) / 2
    high = value + math.hypot(a.high - a.value, b.high - b.value) / 2
    return Measured(value, max(0.0, low), min(1.0, high), a.n + b.n)


def quantile(values: Floats, q: float) -> Measured:
    """Return a quantile of (N,) values with the interval of its order statistics."""
    ordered = np.sort(values)
    last = len(ordered) - 1
    low = max(0, int(stats.binom.ppf(0.5 - LEVEL / 2, len(ordered), q)) - 1)
    high = int(stats.binom.ppf(0.5 + LEVEL / 2, len(ordered), q))
    return Measured(
        float(np.quantile(ordered, q)),
        float(min(ordered[min(low, last)], np.quantile(ordered, q))),
        float(max(ordered[min(high, last)], np.quantile(ordered, q))),
        len(ordered),
    )


def bootstrap(
    statistic: Callable[[NDArray[np.intp]], float], n: int, *, seed: int, resamples: int = 1000
) -> Measured:
    """Return a statistic of n items, as a function of their indices, with its percentile
    interval.
    """
    generator = np.random.default_rng(seed)
    value = statistic(np.arange(n))
    draws = [statistic(generator.integers(0, n, n)) for _ in range(resamples)]
    low, high = np.quantile(draws, [0.5 - LEVEL / 2, 0.5 + LEVEL / 2])
    return Measured(value, float(min(low, value)), float(max(high, value)), n)


def auc(members: Floats, others: Floats, level: float = LEVEL) -> Measured:
    """Return the area under the ROC of scores (M,) against (N,), ties counting half.

    The interval is DeLong's (1988), by the placement values of Sun and Xu (2014).
    """
    m, n = len(members), len(others)
    pooled = stats.rankdata(np.concatenate([members, others]))
    among_members, among_others = stats.rankdata(members), stats.rankdata(others)
    placement_m = (pooled[:m] - among_members) / n
    placement_n = 1 - (pooled[m:] - among_others) / m
    area = float(placement_m.mean())
    variance = 0.0
    if m > 1 and n > 1:
        variance = float(placement_m.var(ddof=1) / m + placement_n.var(ddof=1) / n)
    half = float(stats.norm.ppf(0.5 + level / 2)) * math.sqrt(variance)
    return Measured(area, max(0.0, area - half), min(1.0, area + half), m + n)


def proportion_or_missing(successes: int, n: int, reason: str) -> MetricValue:
    """Return a share with its Wilson interval, or Missing where there are no items."""
    return proportion(successes, n) if n else Missing(reason)
