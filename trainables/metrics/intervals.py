"""The 95 % intervals of metrics: from counts, means, ranks and resamples to Measured values."""

import math
from collections.abc import Callable, Sequence

import numpy as np
from numpy.typing import NDArray
from scipy import special, stats

from trainables.records.value import Measured, MetricValue, Missing

LEVEL = 0.95
_UPPER = 0.5 + LEVEL / 2
_OF_ONE = 9.68
"""Half of the 95 % interval of a mean of which one value is known, in units of that value."""
_LARGEST_STEP = 500.0
"""Of a logarithm: its exponential is still a float."""
_VIRTUAL = 2.0
"""Items whose worth the largest possible variance of an area has against the estimated one."""
_BISECTIONS = 32
Floats = NDArray[np.float64]


def proportion(successes: int, n: int, level: float = LEVEL) -> Measured:
    """Return a share with its Wilson score interval (Wilson, 1927); n must be positive."""
    interval = stats.binomtest(successes, n).proportion_ci(level, method="wilson")
    return Measured(successes / n, float(interval.low), float(interval.high), n)


def exact_proportion(successes: int, n: int, level: float = LEVEL) -> Measured:
    """Return a share with its interval by Clopper and Pearson (1934), which covers at any share."""
    failures, risk = n - successes, (1 - level) / 2
    low = special.betaincinv(successes, failures + 1, risk) if successes else 0.0
    high = special.betaincinv(successes + 1, failures, 1 - risk) if failures else 1.0
    return Measured(successes / n, float(low), float(high), n)


def clustered(shares: Floats) -> Measured:
    """Return the mean of the shares (K,) of like-sized clusters, whose items may be all alike.

    Wilson's score interval with n = K: items that agree with those of their cluster add nothing,
    and where they do not the variance between clusters is only smaller. n is K.
    """
    K, mean, z = len(shares), float(shares.mean()), float(special.ndtri(_UPPER))
    weight = z * z / K
    centre = (mean + weight / 2) / (1 + weight)
    half = math.sqrt(weight * (mean * (1 - mean) + weight / 4)) / (1 + weight)
    return Measured(mean, *_within((centre - half, centre + half), mean, 0.0, 1.0), K)


def mean_of_shares(counts: Sequence[tuple[int, int]], level: float = LEVEL) -> Measured:
    """Return the mean of the shares of K groups, of (successes, n) each, whatever their sizes.

    Interval: Price and Bonett, 2004, of a linear function of proportions, which adds z^2 / (2 K)
    successes and as many failures to each group. It is of these groups. n counts all items.
    """
    k_K, n_K = np.array(counts, dtype=np.float64).T
    K, value, z = len(n_K), float((k_K / n_K).mean()), float(special.ndtri(0.5 + level / 2))
    added = z**2 / (2 * K)
    size_K = n_K + 2 * added
    moved_K = (k_K + added) / size_K
    half = z * math.sqrt(float((moved_K * (1 - moved_K) / size_K).sum())) / K
    centre = float(moved_K.mean())
    ends = _within((centre - half, centre + half), value, 0.0, 1.0)
    return Measured(value, *ends, int(n_K.sum()))


def lowest(counts: Sequence[tuple[int, int]]) -> Measured:
    """Return the lowest of the shares of K groups, of (successes, n) each; n is that of its group.

    The group that looks worst is chosen by chance too. Clopper-Pearson intervals at the level
    .95 ** (1 / K) hold together (Sidak, 1967), so the lowest share of all lies between the lowest
    of their lower ends and the lowest of their upper ends.
    """
    level = LEVEL ** (1 / len(counts))
    shares = [exact_proportion(successes, n, level) for successes, n in counts]
    worst = min(shares, key=lambda share: share.value)
    low, high = min(share.low for share in shares), min(share.high for share in shares)
    return Measured(worst.value, low, high, worst.n)


def mean(values: Floats, *, low: float | None = None, high: float | None = None) -> Measured:
    """Return the mean of one value an item (N,), its interval within the range of the values.

    `low` and `high` are the ends of that range by the values' nature, None where it is open. The
    interval is Student's t, together with the t interval of the mean's logit within the range (of
    its logarithm where only `low` is known), which leans to the side of the long tail: a mean of
    mostly zeros needs it. Values that all lie at one end may hide a share of others, up to the
    upper Clopper-Pearson end of 0 of N. One value alone tells nothing within a known range, and
    else x -+ 9.68 |x|, which holds for any normal distribution. Source: the delta method; of one
    value: Wall, Boen and Tweedie, 2001.
    """
    n, centre = len(values), float(values.mean())
    # Rounding alone may push a mean past the end that all values share.
    centre = min(max(centre, -math.inf if low is None else low), math.inf if high is None else high)
    if n == 1:
        ends = _ends_of_one(centre, low, high)
    elif low is not None and high is not None and centre in (low, high):
        unseen = float(special.betaincinv(1, n, _UPPER))
        ends = (centre - unseen * (centre - low), centre + unseen * (high - centre))
    else:
        half = float(special.stdtrit(n - 1, _UPPER) * values.std(ddof=1)) / math.sqrt(n)
        ends = _ends_of_many(centre, half, low, high)
    return Measured(centre, *_within(ends, centre, low, high), n)


def _ends_of_one(x: float, low: float | None, high: float | None) -> tuple[float, float]:
    half = _OF_ONE * abs(x)
    if low is not None and high is not None:
        return low, high
    return x - half, x + half


def _ends_of_many(
    centre: float, half: float, low: float | None, high: float | None
) -> tuple[float, float]:
    """Return the ends of the t interval and of that on the scale of the range, both together."""
    below, above = centre - half, centre + half
    if low is None or centre <= low:
        return below, above
    if high is None:
        ratio = math.exp(min(half / (centre - low), _LARGEST_STEP))
        # The mean is a single value too, which bounds what few values say.
        most = centre + _OF_ONE * abs(centre)
        on_scale = (low + (centre - low) / ratio, min(low + (centre - low) * ratio, most))
    else:
        share = (centre - low) / (high - low)
        step = half / (high - low) / (share * (1 - share))
        shares = [special.expit(special.logit(share) + sign * step) for sign in (-1, 1)]
        on_scale = (low + (high - low) * float(shares[0]), low + (high - low) * float(shares[1]))
    return min(below, on_scale[0]), max(above, on_scale[1])


def _within(
    ends: tuple[float, float], value: float, low: float | None, high: float | None
) -> tuple[float, float]:
    below = ends[0] if low is None else max(low, ends[0])
    above = ends[1] if high is None else min(high, ends[1])
    return min(below, value), max(above, value)


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

    The interval holds the areas A that are within 1 / (2 min(M, N)) and z standard errors of the
    one found, where the variance is that of A itself: a score interval, which has a width also
    where the sides are separated or all tied. That variance is Hanley and McNeil's (1982),
    as in Newcombe's method 5 (2006), as many times larger as DeLong's (1988) is at the area found,
    if it is; by two virtual items drawn to the largest possible, A (1 - A) / min(M, N), as few
    items estimate none.
    """
    m, n = len(members), len(others)
    area, variance = _delong(members, others)
    usual = _hanley_mcneil(area, m, n)
    factor = max(1.0, variance / usual) if usual > 0 else 1.0
    fewer, z = min(m, n), float(special.ndtri(0.5 + level / 2))

    def agrees(truth: float) -> bool:
        largest = truth * (1 - truth) / fewer
        variance = (fewer * factor * _hanley_mcneil(truth, m, n) + _VIRTUAL * largest) / (
            fewer + _VIRTUAL
        )
        return abs(truth - area) <= 0.5 / fewer + z * math.sqrt(variance)

    return Measured(area, _last(agrees, area, 0.0), _last(agrees, area, 1.0), m + n)


def _delong(members: Floats, others: Floats) -> tuple[float, float]:
    """Return the area and DeLong's variance of it, by the placement values of Sun and Xu, 2014."""
    m, n = len(members), len(others)
    pooled = stats.rankdata(np.concatenate([members, others]))
    placement_m = (pooled[:m] - stats.rankdata(members)) / n
    placement_n = 1 - (pooled[m:] - stats.rankdata(others)) / m
    area = min(max(float(placement_m.mean()), 0.0), 1.0)
    if m == 1 or n == 1:
        return area, 0.0
    return area, float(placement_m.var(ddof=1) / m + placement_n.var(ddof=1) / n)


def _hanley_mcneil(area: float, m: int, n: int) -> float:
    """Return the variance of an area of exponential scores, by the mean size of both sides."""
    more = (m + n) / 2 - 1
    return (
        area * (1 - area) / (m * n)
        * (1 + more * (1 - area) / (2 - area) + more * area / (1 + area))
    )  # fmt: skip


def _last(agrees: Callable[[float], bool], start: float, end: float) -> float:
    """Return the last number from `start` towards `end` that agrees."""
    if agrees(end):
        return end
    for _ in range(_BISECTIONS):
        middle = (start + end) / 2
        start, end = (middle, end) if agrees(middle) else (start, middle)
    return start


def proportion_or_missing(successes: int, n: int, reason: str) -> MetricValue:
    """Return a share with its Wilson interval, or Missing where there are no items."""
    return proportion(successes, n) if n else Missing(reason)
