"""Differences, means over seeds and comparisons of values that carry intervals. Pure.

Axes: K seeds, N points.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np
from numpy.typing import NDArray
from scipy.special import ndtri, stdtrit

from trainables.records.value import Measured

Floats = NDArray[np.float64]
Order = Literal["higher", "lower", "cannot be told"]
HIGHER: Order = "higher"
LOWER: Order = "lower"
UNTOLD: Order = "cannot be told"
SHARES = (0.0, 1.0)
_UPPER = 0.975
Z = float(ndtri(_UPPER))
"""Standard normal deviate of a two-sided 95 % interval."""
_INTERPLAY = 0.5
"""Share of the points' variance that is attributed to a seed and a point together, where only
summaries are known: as if the mistakes of two seeds correlated by 0.5 (phi)."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Components:
    """The variance of a mean over K seeds that were measured on the same N points."""

    points: float
    """Variance of the points, and of how each seed answers each of them."""
    seeds: float
    """Variance of the seeds beyond that; 0 where the points explain how they differ."""
    df: float
    """Degrees of freedom of the sum."""

    @property
    def quantile(self) -> float:
        """Student's t at 97.5 %."""
        return float(stdtrit(self.df, _UPPER))


def difference(a: Measured, b: Measured) -> Measured:
    """Return a - b, its interval by the square-and-add method from the two intervals.

    Holds for independent a and b; two trials that were measured on the same points vary together,
    so there it errs towards "not significant". n is the smaller of the two. Source: Newcombe, 1998
    (method 10, of shares); Zou and Donner, 2008 (any two intervals).
    """
    value = a.value - b.value
    low = value - math.hypot(a.value - a.low, b.high - b.value)
    high = value + math.hypot(a.high - a.value, b.value - b.low)
    return Measured(value, low, high, min(a.n, b.n))


def components(outcomes_KN: Floats) -> Components:
    """Split the variance of the mean of outcomes (K, N) by two-way analysis of variance.

    With s2 the variance of seeds, points and both together, Var(mean) = s2_seeds / K +
    s2_points / N + s2_both / (K N), estimated from the mean squares MS: MS_points / (K N) holds the
    second and third term, max(MS_seeds - MS_both, 0) / (K N) the first. The degrees of freedom are
    Satterthwaite's (1946), with the whole of MS_seeds as the part that K - 1 seeds show. ValueError
    for fewer than two seeds or points.
    """
    K, N = outcomes_KN.shape
    if K < 2 or N < 2:
        raise ValueError(f"variance between seeds takes 2 seeds and 2 points, but got {K} and {N}")
    mean = outcomes_KN.mean()
    seeds_K, points_N = outcomes_KN.mean(1), outcomes_KN.mean(0)
    ms_seeds = N * float(((seeds_K - mean) ** 2).sum()) / (K - 1)
    ms_points = K * float(((points_N - mean) ** 2).sum()) / (N - 1)
    rest_KN = outcomes_KN - seeds_K[:, None] - points_N + mean
    ms_both = float((rest_KN**2).sum()) / ((K - 1) * (N - 1))
    points, seeds = ms_points / (K * N), max(ms_seeds - ms_both, 0.0) / (K * N)
    return Components(
        points=points,
        seeds=seeds,
        df=_satterthwaite(points + seeds, (ms_seeds / (K * N), K - 1), (points, N - 1)),
    )


def two_way(outcomes_KN: Floats) -> Measured:
    """Return the share of outcomes (K, N) of 0 or 1 that are 1: seeds and points both vary.

    The interval is the set of shares p with (mean - p)^2 <= t^2 (c p (1 - p) + V), V the variance
    of the seeds and c that of the points over mean (1 - mean): Wilson's score interval (1927) with
    the two-way variance of `components`, so that it holds near 0 and 1 too. n is N.
    """
    N = outcomes_KN.shape[1]
    mean, parts = float(outcomes_KN.mean()), components(outcomes_KN)
    spread = mean * (1 - mean)
    # Where all outcomes are the same, as if all seeds had the same fate: N points.
    weight = parts.points / spread if spread > 0 else 1 / N
    return _score_interval(mean, weight, parts.seeds, parts.quantile, N)


def pool(values: Sequence[Measured], within: tuple[float, float] | None = None) -> Measured:
    """Return the mean over the K seeds of one spec, that were measured on the same items.

    Where only the seeds' intervals are known: the items' variance is the mean of theirs, as the
    items are shared; what the seeds' means vary by beyond half of it is the seeds' own. The
    interval is that of `two_way`, and for values that are not shares (`within` is not (0, 1))
    mean -+ t sqrt(V) on each side. `within` clips it. n is the smallest of the seeds' n.
    ValueError where there is no value.
    """
    if not values:
        raise ValueError("cannot pool no values at all")
    if len(values) == 1:
        return values[0]
    mean = math.fsum(single.value for single in values) / len(values)
    n = min(single.n for single in values)
    if within == SHARES:
        weight = math.fsum(_weight(single) for single in values) / len(values)
        parts = _summarized(values, mean, weight * mean * (1 - mean), n)
        return _score_interval(mean, weight, parts.seeds, parts.quantile, n)
    ends = []
    for sign, halves in (
        (-1, [single.value - single.low for single in values]),
        (1, [single.high - single.value for single in values]),
    ):
        variance = math.fsum(half**2 for half in halves) / len(values) / Z**2
        parts = _summarized(values, mean, variance, n)
        ends.append(mean + sign * parts.quantile * math.sqrt(parts.points + parts.seeds))
    low, high = ends
    if within is not None:
        low, high = max(low, min(within[0], mean)), min(high, max(within[1], mean))
    return Measured(mean, low, high, n)


def verdict_text(verdict: str) -> str:
    """Return a verdict on a difference in the words that a reader meets."""
    return "not significant" if verdict == UNTOLD else verdict


def compare(a: Measured, b: Measured) -> Order:
    """Return whether a is higher or lower than b, where the interval of a - b excludes zero."""
    return side(difference(a, b), 0.0)


def side(value: Measured, threshold: float) -> Order:
    """Return on which side of a threshold the whole interval lies."""
    if value.low > threshold:
        return HIGHER
    if value.high < threshold:
        return LOWER
    return UNTOLD


def _summarized(values: Sequence[Measured], mean: float, points: float, n: int) -> Components:
    count = len(values)
    between = math.fsum((single.value - mean) ** 2 for single in values) / (count - 1)
    seeds = max(between - _INTERPLAY * points, 0.0) / count
    df = _satterthwaite(points + seeds, (between / count, count - 1), (points, max(n - 1, 1)))
    return Components(points=points, seeds=seeds, df=df)


def _satterthwaite(total: float, *parts: tuple[float, int]) -> float:
    """Return the degrees of freedom of a sum of variances, each with its own; at least the
    fewest.
    """
    spread = math.fsum(part**2 / df for part, df in parts)
    fewest = float(min(df for _, df in parts))
    return max(fewest, total**2 / spread) if spread > 0 else float(max(df for _, df in parts))


def _weight(share: Measured) -> float:
    """Return c of which an interval of a share is the score interval: 1 / n of Wilson's own."""
    weights = [
        (share.value - end) ** 2 / (Z**2 * end * (1 - end))
        for end in (share.low, share.high)
        if 0 < end < 1
    ]
    return math.fsum(weights) / len(weights) if weights else 0.0


def _score_interval(mean: float, weight: float, seeds: float, t: float, n: int) -> Measured:
    """Solve (mean - p)^2 = t^2 (weight p (1 - p) + seeds) for p, within [0, 1]."""
    square = t * t * weight
    half = math.sqrt(
        max(0.0, (mean + square / 2) ** 2 - (1 + square) * (mean**2 - t * t * seeds))
    ) / (1 + square)
    centre = (mean + square / 2) / (1 + square)
    # Rounding must not push the mean itself out, as at 0 and 1.
    low, high = min(mean, max(0.0, centre - half)), max(mean, min(1.0, centre + half))
    return Measured(mean, low, high, n)
