"""Intervals of differences and means over seeds: against known values, and by simulation.

Axes: K seeds, N points, R repeats.
"""

import math
from collections.abc import Callable, Sequence
from itertools import chain

import numpy as np
import pytest
from numpy.typing import NDArray
from scipy import stats
from scipy.special import ndtri

from results.sections.certificates import share
from results.statistics.intervals import compare, components, difference, pool, side, two_way
from trainables.metrics import intervals
from trainables.records.value import Measured

Floats = NDArray[np.float64]
Z = 1.959964
Interval = Callable[[Floats], Measured]
"""Outcomes (K, N) -> their mean with its interval."""


def test_difference_is_newcombes_method_10() -> None:
    # Newcombe (1998), table II, case (a): 56/70 - 48/80 = 0.2 [0.0524, 0.3339].
    found = difference(share(56, 70), share(48, 80))
    assert found.value == pytest.approx(0.2)
    assert found.low == pytest.approx(0.0524, abs=5e-5)
    assert found.high == pytest.approx(0.3339, abs=5e-5)
    assert found.n == 70


def test_difference_of_extreme_shares_stays_in_range() -> None:
    found = difference(share(10, 10), share(0, 10))
    assert found.value == 1.0
    assert -1.0 <= found.low < 1.0
    assert found.high == pytest.approx(1.0)


def test_components_are_those_of_a_two_way_table() -> None:
    # By hand: grand mean 0.5, seeds 0.75 0.25, points 1 1 0 0 and 0 1 0 0 -> 0.5 1 0 0.5 for rows
    # 1 1 0 1 and 0 1 0 0. SS_seeds = 4 * 2 / 16 = 0.5, SS_points = 2 * (0.25 + 0.25) = 1, total 2.
    found = components(np.array([[1.0, 1, 0, 1], [0, 1, 0, 0]]))
    ms_seeds, ms_points, ms_both = 0.5, 1 / 3, 0.5 / 3
    assert found.points == pytest.approx(ms_points / 8)
    assert found.seeds == pytest.approx((ms_seeds - ms_both) / 8)
    total = ms_points + ms_seeds - ms_both
    assert found.df == pytest.approx(total**2 / (ms_seeds**2 + ms_points**2 / 3))


def test_components_need_two_seeds_and_two_points() -> None:
    with pytest.raises(ValueError, match="2 seeds and 2 points"):
        components(np.ones((1, 9)))


def test_seeds_that_agree_on_every_point_give_wilsons_interval_of_the_points() -> None:
    outcomes = np.tile(np.arange(50) < 40, (3, 1)).astype(float)
    found, wilson = two_way(outcomes), share(40, 50)
    # Between estimated with N - 1 and t with 49 degrees, and Wilson's own z.
    assert found.low == pytest.approx(wilson.low, abs=6e-3)
    assert found.high == pytest.approx(wilson.high, abs=6e-3)
    assert (found.value, found.n) == (0.8, 50)


@pytest.mark.parametrize("outcome", [0.0, 1.0])
def test_outcomes_that_are_all_the_same_keep_an_interval_within_the_range(outcome: float) -> None:
    found = two_way(np.full((3, 200), outcome))
    assert found.value == outcome
    assert 0 <= found.low <= outcome <= found.high <= 1
    assert found.high - found.low == pytest.approx(Z**2 / (200 + Z**2), rel=0.05)


def test_one_seed_is_its_own_pool() -> None:
    value = Measured(0.5, 0.4, 0.6, 100)
    assert pool([value]) == value


@pytest.mark.parametrize("count", [0, 30, 59, 60])
def test_equal_seeds_do_not_shrink_the_items_interval(count: int) -> None:
    value = share(count, 60)
    found = pool([value] * 5, (0.0, 1.0))
    assert found.value == pytest.approx(value.value)
    assert found.n == 60
    assert found.low == pytest.approx(value.low, abs=4e-3)
    assert found.high == pytest.approx(value.high, abs=4e-3)
    assert found.low <= found.value <= found.high


def test_pool_of_exact_values_is_the_t_interval_of_the_seeds() -> None:
    found = pool([Measured(single, single, single, 1) for single in (2.0, 3.0, 4.0)])
    half = 4.3026527 / math.sqrt(3)
    assert found.low == pytest.approx(3 - half)
    assert found.high == pytest.approx(3 + half)
    same = pool([Measured(7.0, 7.0, 7.0, 1)] * 3)
    assert (same.low, same.value, same.high) == (7, 7, 7)


def test_pool_of_skewed_intervals_stays_skewed() -> None:
    found = pool([Measured(10.0, 9.0, 14.0, 50), Measured(10.2, 9.2, 14.2, 50)])
    assert found.high - found.value > 3 * (found.value - found.low)


def test_pool_is_clipped_to_the_metrics_range() -> None:
    found = pool([Measured(-0.9, -1.0, 0.1, 50), Measured(0.2, -0.8, 1.0, 50)], within=(-1.0, 1.0))
    assert (found.low, found.high) == (-1.0, 1.0)


def test_pool_of_nothing_is_refused() -> None:
    with pytest.raises(ValueError, match="no values"):
        pool([])


def test_compare_tells_only_what_the_interval_tells() -> None:
    low, high = Measured(0.2, 0.15, 0.25, 100), Measured(0.8, 0.75, 0.85, 100)
    assert compare(high, low) == "higher"
    assert compare(low, high) == "lower"
    assert compare(low, Measured(0.22, 0.17, 0.27, 100)) == "cannot be told"


def test_an_interval_that_touches_the_threshold_is_not_told() -> None:
    assert side(Measured(0.1, 0.0, 0.2, 9), 0.0) == "cannot be told"


def test_a_value_must_be_finite() -> None:
    with pytest.raises(ValueError, match="finite"):
        Measured(math.nan, 0.0, 1.0, 3)


SHARES = (0.2, 0.5, 0.8, 0.9, 0.97)
SPREADS = (0.0, 0.005, 0.01, 0.02)
SIZES = (270, 1000)


def simulated_outcomes(
    share: float, spread: float, n: int, *, repeats: int, generator: np.random.Generator
) -> Floats:
    """Simulate the outcomes (R, 3, N) of three seeds on the same points.

    Seeds differ by a normal of standard deviation `spread`; of two seeds the hardness of a point
    correlates by 0.85.
    """
    shares_RK1 = share + spread * generator.standard_normal((repeats, 3, 1))
    points = generator.standard_normal((repeats, 1, n))
    own = generator.standard_normal((repeats, 3, n))
    limits = ndtri(np.clip(shares_RK1, 1e-4, 1 - 1e-4))
    return np.where(math.sqrt(0.85) * points + math.sqrt(0.15) * own < limits, 1.0, 0.0)


def calibration(interval: Interval, repeats: int = 300) -> tuple[float, float, float]:
    """Return how an interval fares on simulated accuracies.

    The lowest coverage of a number of points and a spread of seeds, over all shares; the coverage
    over everything; and the mean width in units of the width with known variances. Where a seed's
    share could be above 1 there is no such spread.
    """
    generator = np.random.default_rng(1)
    cells, widths = [], []
    for n in SIZES:
        for spread in SPREADS:
            covered = []
            for truth in SHARES:
                if truth + 3 * spread > 1:
                    continue
                drawn = simulated_outcomes(truth, spread, n, repeats=repeats, generator=generator)
                found = [interval(outcomes) for outcomes in drawn]
                covered += [each.low <= truth <= each.high for each in found]
                ideal = 2 * Z * float(drawn.mean((1, 2)).std())
                widths.append(np.mean([each.high - each.low for each in found]) / ideal)
            cells.append(covered)
    coverages = [float(np.mean(cell)) for cell in cells]
    return min(coverages), float(np.mean(list(chain(*cells)))), float(np.mean(widths))


def holds(interval: Interval) -> bool:
    """Return whether an interval covers 93 % everywhere and is at most 1.3 times too wide."""
    # A cell has 1,200 or 1,500 repeats: 0.93 less two standard errors.
    lowest, overall, width = calibration(interval)
    return lowest >= 0.93 - 2 * 0.0074 and overall >= 0.93 and width <= 1.3


def _summaries(outcomes_KN: Floats) -> list[Measured]:
    return [share(int(row.sum()), len(row)) for row in outcomes_KN]


def pooled_shares(outcomes_KN: Floats) -> Measured:
    """Pool the seeds' own Wilson intervals, without a look at the points."""
    return pool(_summaries(outcomes_KN), (0.0, 1.0))


def points_alone(outcomes_KN: Floats) -> Measured:
    """Take the mean for one seed's: no variance between seeds. Wrong."""
    return share(round(float(outcomes_KN.mean()) * outcomes_KN.shape[1]), outcomes_KN.shape[1])


def all_independent(outcomes_KN: Floats) -> Measured:
    """Take every outcome for a point of its own. Wrong."""
    return share(int(outcomes_KN.sum()), outcomes_KN.size)


def seeds_alone(outcomes_KN: Floats) -> Measured:
    """Return the plain t interval of the seeds' means: the points that they share do not vary."""
    seeds = outcomes_KN.mean(1)
    half = 4.3026527 * float(seeds.std(ddof=1)) / math.sqrt(3)
    return Measured(float(seeds.mean()), float(seeds.mean()) - half, float(seeds.mean()) + half, 3)


def plain_t_with_points(outcomes_KN: Floats) -> Measured:
    """Add the t interval of two degrees of freedom to the points' interval: far too wide."""
    points, seeds = points_alone(outcomes_KN), seeds_alone(outcomes_KN)
    half = seeds.high - seeds.value
    low = points.value - math.hypot(points.value - points.low, half)
    return Measured(
        points.value, low, points.value + math.hypot(points.high - points.value, half), 3
    )


@pytest.mark.parametrize("interval", [two_way, pooled_shares])
def test_intervals_of_accuracies_cover_and_are_not_too_wide(interval: Interval) -> None:
    assert holds(interval)


@pytest.mark.parametrize("wrong", [points_alone, all_independent, seeds_alone, plain_t_with_points])
def test_the_simulation_finds_intervals_that_are_wrong(wrong: Interval) -> None:
    assert not holds(wrong)


def test_intervals_of_membership_areas_cover_and_are_not_too_wide() -> None:
    generator = np.random.default_rng(2)
    covered, widths = [], []
    for separation in (0.0, 0.3, 1.0):
        for spread in (0.0, 0.03):
            truth = float(stats.norm.cdf(separation / math.sqrt(2)))
            found = [_area_of_three_seeds(separation, spread, generator) for _ in range(150)]
            covered += [each.low <= truth <= each.high for each in found]
            ideal = 2 * Z * float(np.std([each.value for each in found]))
            widths.append(np.mean([each.high - each.low for each in found]) / ideal)
    assert np.mean(covered) >= 0.93
    assert np.mean(widths) <= 1.3


def _area_of_three_seeds(
    separation: float, spread: float, generator: np.random.Generator, rows: int = 135
) -> Measured:
    """Simulate DeLong's areas of three models that leak alike on the same rows, and pool them."""
    shared = generator.standard_normal((2, rows))
    areas: Sequence[Measured] = [
        Measured(area.value, area.low, area.high, area.n)
        for own in generator.standard_normal((3, 2, rows))
        for members, others in [math.sqrt(0.85) * shared + math.sqrt(0.15) * own]
        for area in [
            intervals.auc(members + separation + spread * generator.standard_normal(), others)
        ]
    ]
    return pool(areas, (0.0, 1.0))


def test_intervals_of_means_over_shared_points_cover_and_are_not_too_wide() -> None:
    generator = np.random.default_rng(3)
    covered, widths = [], []
    for spread in (0.0, 0.02, 0.05):
        found = []
        for _ in range(400):
            points = generator.gamma(2.0, 0.5, 300)
            seeds = spread * generator.standard_normal(3)
            rows = points + seeds[:, None] + 0.2 * generator.standard_normal((3, 300))
            means = [intervals.mean(row) for row in rows]
            found.append(pool([Measured(m.value, m.low, m.high, m.n) for m in means]))
        covered += [each.low <= 1.0 <= each.high for each in found]
        ideal = 2 * Z * float(np.std([each.value for each in found]))
        widths.append(np.mean([each.high - each.low for each in found]) / ideal)
    assert np.mean(covered) >= 0.93
    assert np.mean(widths) <= 1.3
