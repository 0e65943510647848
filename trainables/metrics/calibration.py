"""The calibration error of confidences, and what of it few points show by chance.

Axes: N points, B bins, R resamples.
"""

from collections.abc import Iterator

import numpy as np
from numpy.typing import NDArray

from trainables.metrics import intervals
from trainables.metrics.intervals import LEVEL, Floats
from trainables.records.value import Measured

BINS = 15
RESAMPLES = 1000
_AT_ONCE = 2**20
"""Entries of a table (R, N) that are held at once."""
_UPPER = 0.5 + LEVEL / 2
Bools = NDArray[np.bool_]


def expected_calibration_error(confidence: Floats, right: Bools, bins: int = BINS) -> float:
    """Return the gap between confidence and accuracy (N,), weighted over equal bins (Guo, eq.
    3).
    """
    gaps_B = (right - confidence) @ _bins_of(confidence, bins)
    return float(np.abs(gaps_B).sum() / len(confidence))


def calibration_error(
    confidence: Floats, right: Bools, *, seed: int, resamples: int = RESAMPLES
) -> Measured:
    """Return the expected calibration error with an interval of that of all points.

    The error of few points is above zero also where the confidences (N,) are true, so a percentile
    bootstrap never holds zero. The lower end is as far below the value as the bootstrap's upper end
    is above it, or as 97.5 % of true confidences show by chance, whichever is farther: it is zero
    where calibration is not rejected. The upper end is that of the bootstrap, or the gap between
    the mean confidence and the far end of the accuracy's interval, which allows for mistakes that
    no point shows. Source: the resampling of outcomes: Broecker and Smith, 2007.
    """
    generator = np.random.default_rng(seed)
    value, mean = expected_calibration_error(confidence, right), float(confidence.mean())
    by_chance = float(np.quantile(_of_true_confidences(confidence, generator, resamples), _UPPER))
    drawn = float(np.quantile(_of_resamples(confidence, right, generator, resamples), _UPPER))
    accuracy = intervals.exact_proportion(int(right.sum()), len(right))
    low = value - max(by_chance, drawn - value)
    high = max(value, drawn, mean - accuracy.low, accuracy.high - mean)
    return Measured(value, min(value, max(0.0, low)), min(1.0, high), len(confidence))


def _of_true_confidences(
    confidence: Floats, generator: np.random.Generator, resamples: int
) -> Floats:
    """Return the errors (R,) of outcomes drawn by the confidences themselves."""
    n, bins_NB = len(confidence), _bins_of(confidence, BINS)
    errors = [
        np.abs(((generator.random((count, n)) < confidence) - confidence) @ bins_NB).sum(1) / n
        for count in _counts(resamples, n)
    ]
    return np.concatenate(errors)


def _of_resamples(
    confidence: Floats, right: Bools, generator: np.random.Generator, resamples: int
) -> Floats:
    """Return the errors (R,) of points drawn with replacement."""
    n = len(confidence)
    gaps_NB = (right - confidence)[:, None] * _bins_of(confidence, BINS)
    errors = [
        np.abs(generator.multinomial(n, np.full(n, 1 / n), count) @ gaps_NB).sum(1) / n
        for count in _counts(resamples, n)
    ]
    return np.concatenate(errors)


def _bins_of(confidence: Floats, bins: int) -> Floats:
    """Return in which of equal bins each confidence is, (N, B) of 0 and 1."""
    place = np.minimum((confidence * bins).astype(int), bins - 1)
    return np.asarray(place[:, None] == np.arange(bins), dtype=np.float64)


def _counts(resamples: int, n: int) -> Iterator[int]:
    """Yield how many resamples of n points are drawn at once, until all are."""
    step = max(1, _AT_ONCE // n)
    for start in range(0, resamples, step):
        yield min(step, resamples - start)
