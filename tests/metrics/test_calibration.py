"""The calibration error: its closed form, and the coverage of its interval by simulation."""

import math
from collections.abc import Callable

import numpy as np
import pytest
from numpy.typing import NDArray

from trainables.metrics import intervals
from trainables.metrics.calibration import calibration_error, expected_calibration_error
from trainables.records.value import Measured

Floats = NDArray[np.float64]
REPEATS = 120
LEAST = 0.93 - 2 * math.sqrt(0.93 * 0.07 / REPEATS)


def test_calibration_error_has_its_closed_form() -> None:
    # Bins of a tenth: (.05, .95) and (.55, .55, .58): gaps .05, .05 and |2 - 1.68| over 5 points.
    confidence = np.array([0.05, 0.95, 0.55, 0.55, 0.58])
    right = np.array([False, True, True, True, False])
    expected = (0.05 + 0.05 + abs(2 - 1.68)) / 5
    assert expected_calibration_error(confidence, right, bins=10) == pytest.approx(expected)
    assert expected_calibration_error(np.ones(4), np.ones(4, dtype=bool)) == 0.0
    assert expected_calibration_error(np.ones(4), np.zeros(4, dtype=bool)) == 1.0


def test_a_constant_confidence_errs_by_its_distance_from_the_accuracy() -> None:
    right = np.arange(100) < 70
    assert expected_calibration_error(np.full(100, 0.9), right) == pytest.approx(0.2)


def sure(size: int, draw: np.random.Generator) -> Floats:
    """Draw the confidences of a sure network."""
    return draw.beta(20, 1, size)


def unsure(size: int, draw: np.random.Generator) -> Floats:
    """Draw confidences of all sizes."""
    return 0.3 + 0.7 * draw.beta(2, 1.5, size)


def percentile(confidence: Floats, right: NDArray[np.bool_]) -> Measured:
    """Return the percentile bootstrap of the error, which never holds 0. Wrong."""
    return intervals.bootstrap(
        lambda rows: expected_calibration_error(confidence[rows], right[rows]),
        len(confidence),
        seed=0,
        resamples=200,
    )


def _few(confidence: Floats, right: NDArray[np.bool_]) -> Measured:
    return calibration_error(confidence, right, seed=0, resamples=200)


def covered(
    interval: Callable[[Floats, NDArray[np.bool_]], Measured],
    law: Callable[[int, np.random.Generator], Floats],
    excess: float,
    n: int,
) -> float:
    """Return how often an interval holds the true error of confidences too high by an excess."""
    draw = np.random.default_rng(0)
    many = law(200_000, draw)
    bins = np.minimum((many * 15).astype(int), 14)
    gaps = np.clip(many - excess, 0, 1) - many
    truth = np.abs(np.bincount(bins, weights=gaps)).sum() / len(many)
    hits = 0
    for _ in range(REPEATS):
        confidence = law(n, draw)
        found = interval(confidence, draw.random(n) < np.clip(confidence - excess, 0, 1))
        assert 0 <= found.low <= found.value <= found.high <= 1
        hits += found.low <= truth <= found.high
    return hits / REPEATS


@pytest.mark.parametrize("n", [30, 270])
@pytest.mark.parametrize("excess", [0.0, 0.03, 0.15])
@pytest.mark.parametrize("law", [sure, unsure])
def test_the_interval_of_a_calibration_error_covers(
    law: Callable[[int, np.random.Generator], Floats], excess: float, n: int
) -> None:
    assert covered(_few, law, excess, n) >= LEAST


def test_the_simulation_finds_the_percentile_bootstrap_wrong() -> None:
    assert covered(percentile, unsure, 0.0, 270) == 0.0


def test_an_error_that_is_no_chance_excludes_zero() -> None:
    confidence = np.full(270, 0.9)
    found = calibration_error(confidence, np.arange(270) < 135, seed=0)
    assert found.value == pytest.approx(0.4) and 0.3 < found.low < 0.4 < found.high < 0.5
    assert found == calibration_error(confidence, np.arange(270) < 135, seed=0)


def test_mistakes_that_no_point_shows_are_allowed_for() -> None:
    found = calibration_error(np.full(30, 1.0), np.ones(30, dtype=bool), seed=0)
    assert (found.value, found.low) == (0.0, 0.0)
    assert found.high == pytest.approx(1 - 0.025 ** (1 / 30))
