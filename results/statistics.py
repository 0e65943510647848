"""Differences, pools and comparisons of values that carry intervals. Pure."""

import math
from collections.abc import Sequence
from typing import Literal

from scipy.special import stdtrit

from results.values import Value

Order = Literal["higher", "lower", "cannot be told"]
HIGHER: Order = "higher"
LOWER: Order = "lower"
UNTOLD: Order = "cannot be told"
_UPPER = 0.975


def difference(a: Value, b: Value) -> Value:
    """Give a - b, its interval by the square-and-add method from the two intervals.

    Holds for independent a and b; two trials that were measured on the same points vary together,
    so there it errs towards "cannot be told". n is the smaller of the two. Source: Newcombe, 1998
    (method 10, of shares); Zou and Donner, 2008 (any two intervals).
    """
    value = a.value - b.value
    low = value - math.hypot(a.value - a.low, b.high - b.value)
    high = value + math.hypot(a.high - a.value, b.value - b.low)
    return Value(value, low, high, min(a.n, b.n))


def pool(values: Sequence[Value], within: tuple[float, float] | None = None) -> Value:
    """Give the mean over the k seeds of one spec, that were measured on the same items.

    On each side half^2 = mean_i(item half_i^2) + (t_{0.975, k-1} s / sqrt(k))^2 with s the standard
    deviation between seeds: more seeds shrink only the second term, for the items are shared.
    `within` clips the interval, as to (0, 1). n is the smallest of the seeds' n. ValueError where
    there is no value.
    """
    if not values:
        raise ValueError("cannot pool no values at all")
    count = len(values)
    if count == 1:
        return values[0]
    mean = math.fsum(single.value for single in values) / count
    between = math.fsum((single.value - mean) ** 2 for single in values) / (count - 1)
    seeds = float(stdtrit(count - 1, _UPPER)) * math.sqrt(between / count)
    below = math.fsum((single.value - single.low) ** 2 for single in values) / count
    above = math.fsum((single.high - single.value) ** 2 for single in values) / count
    low, high = mean - math.sqrt(below + seeds**2), mean + math.sqrt(above + seeds**2)
    if within is not None:
        low, high = max(low, min(within[0], mean)), min(high, max(within[1], mean))
    return Value(mean, low, high, min(single.n for single in values))


def compare(a: Value, b: Value) -> Order:
    """Say whether a is higher or lower than b, where the interval of a - b excludes zero."""
    return side(difference(a, b), 0.0)


def side(value: Value, threshold: float) -> Order:
    """Say on which side of a threshold the whole interval lies."""
    if value.low > threshold:
        return HIGHER
    if value.high < threshold:
        return LOWER
    return UNTOLD
