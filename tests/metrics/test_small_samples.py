"""Intervals of few items and at the ends of a range: by hand, and their coverage by simulation.

Axes: R repeats, M members, N non-members or items.
"""

import math
from collections.abc import Callable

import numpy as np
import pytest
from numpy.typing import NDArray
from scipy import stats

from benchmarks.interval_coverage import scores as normal
from trainables.metrics import intervals
from trainables.records.value import Measured

Floats = NDArray[np.float64]
Law = Callable[[float, tuple[int, int], np.random.Generator], tuple[Floats, Floats]]
"""An area and both sizes -> scores of members and non-members that have that area."""
REPEATS = 200
LEAST = 0.93 - 2 * math.sqrt(0.93 * 0.07 / REPEATS)
"""Coverage that a 95 % interval must show: 0.93, less two standard errors of the simulation."""


def outstanding(
    area: float, sizes: tuple[int, int], draw: np.random.Generator
) -> tuple[Floats, Floats]:
    """Draw scores of members of whom a share stands out and the rest are like the others."""
    members = draw.normal(0, 1, sizes[0])
    return members + 50 * (draw.random(sizes[0]) < 2 * area - 1), draw.normal(0, 1, sizes[1])


def two_valued(
    area: float, sizes: tuple[int, int], draw: np.random.Generator
) -> tuple[Floats, Floats]:
    """Draw scores of 0 or 1, as an attack by labels alone assigns: mostly ties."""
    members, others = (draw.random(sizes[0]) < area, draw.random(sizes[1]) < 1 - area)
    return members.astype(float), others.astype(float)


def delong(members: Floats, others: Floats) -> Measured:
    """Return DeLong's own interval: of no width at separation and ties. Wrong."""
    wins = (members[:, None] > others) + 0.5 * (members[:, None] == others)
    area, (m, n) = float(wins.mean()), wins.shape
    parts = (wins.mean(1).var(ddof=1) / m, wins.mean(0).var(ddof=1) / n) if min(m, n) > 1 else (0,)
    half = 1.96 * math.sqrt(sum(parts))
    return Measured(area, max(0.0, area - half), min(1.0, area + half), m + n)


def covered(
    interval: Callable[[Floats, Floats], Measured], law: Law, area: float, sizes: tuple[int, int]
) -> float:
    """Return how often an interval holds the true area."""
    draw = np.random.default_rng(0)
    found = [interval(*law(area, sizes, draw)) for _ in range(REPEATS)]
    return float(np.mean([each.low <= area <= each.high for each in found]))


@pytest.mark.parametrize("sizes", [(1, 1), (2, 2), (12, 4), (5, 5), (15, 15), (135, 135)])
@pytest.mark.parametrize("area", [0.5, 0.9, 0.99, 1.0])
@pytest.mark.parametrize("law", [normal, outstanding, two_valued])
def test_the_interval_of_an_area_covers_few_scores(
    law: Law, area: float, sizes: tuple[int, int]
) -> None:
    assert covered(intervals.auc, law, area, sizes) >= LEAST


@pytest.mark.parametrize(("area", "sizes"), [(0.99, (15, 15)), (0.9, (2, 2)), (0.9, (12, 4))])
def test_the_simulation_finds_delongs_interval_wrong(area: float, sizes: tuple[int, int]) -> None:
    assert covered(delong, normal, area, sizes) < 0.8


def test_an_area_has_a_width_where_all_are_apart_or_tied() -> None:
    for m, n in ((12, 4), (1, 1), (4, 4), (270, 270)):
        apart = intervals.auc(np.arange(1.0, m + 1), -np.arange(float(n)))
        assert apart.value == apart.high == 1.0
        # With probability at least 2.5 % in the worst case, where the fewer decide alone.
        assert 0 < apart.low < 1 - 1 / (2 * min(m, n))
        turned = intervals.auc(-np.arange(float(n)), np.arange(1.0, m + 1))
        assert (turned.value, turned.low) == (0.0, 0.0)
        assert turned.high == pytest.approx(1 - apart.low)
        tied = intervals.auc(np.ones(m), np.ones(n))
        assert tied.value == 0.5 and 0 <= tied.low < 0.5 < tied.high <= 1


def test_a_mean_stays_within_the_range_of_its_values() -> None:
    sure = np.array([0.999, 0.98, 0.6, 0.997])
    assert stats.t.interval(0.95, 3, loc=sure.mean(), scale=stats.sem(sure))[1] > 1
    found = intervals.mean(sure, low=0.0, high=1.0)
    assert 0 < found.low < 0.6 and sure.mean() < found.high < 1.0 + 1e-12
    losses = np.array([0.001, 0.02, 0.4, 0.003])
    assert 0 <= intervals.mean(losses, low=0.0, high=50.0).low < losses.mean()
    assert 0 <= intervals.mean(losses, low=0.0).low < losses.mean()


def test_a_mean_of_one_value_has_a_width() -> None:
    one = np.array([0.7])
    assert intervals.mean(one, low=0.0, high=1.0) == Measured(0.7, 0.0, 1.0, 1)
    found = intervals.mean(one, low=0.0)
    assert (found.low, found.high) == pytest.approx((0.0, 0.7 * 10.68))
    found = intervals.mean(np.array([-2.0]))
    assert (found.low, found.high) == pytest.approx((-2 * 10.68, 2 * 8.68))
    draw = np.random.default_rng(0)
    for ratio in (0.0, 0.5, 1.0, 3.0):
        drawn = [intervals.mean(draw.normal(ratio, 1, 1)) for _ in range(2000)]
        assert np.mean([each.low <= ratio <= each.high for each in drawn]) >= 0.94


def test_values_at_one_end_of_their_range_may_hide_others() -> None:
    # Of 64 draws none shows 2.5 % of the time where the share is 1 - .025 ** (1 / 64).
    hidden = 1 - 0.025 ** (1 / 64)
    found = intervals.mean(np.zeros(64), low=0.0, high=2.0)
    assert (found.value, found.low, found.high) == pytest.approx((0.0, 0.0, 2 * hidden))
    found = intervals.mean(np.ones(64), low=0.0, high=1.0)
    assert (found.value, found.low, found.high) == pytest.approx((1.0, 1 - hidden, 1.0))


def beta(size: int, draw: np.random.Generator) -> Floats:
    """Draw confidences of a sure network, of mean 8 / 9."""
    return draw.beta(8, 1, size)


def mostly_zero(size: int, draw: np.random.Generator) -> Floats:
    """Draw radii of which 5 % are not zero, of mean 0.025."""
    return np.where(draw.random(size) < 0.05, draw.uniform(0, 1, size), 0.0)


def plain_normal(values: Floats) -> Measured:
    """Return the normal interval of a mean. Wrong for few, skewed or zero values."""
    half = 1.96 * float(values.std(ddof=1)) / math.sqrt(len(values))
    centre = float(values.mean())
    return Measured(centre, centre - half, centre + half, len(values))


@pytest.mark.parametrize("n", [4, 10, 30, 64, 270])
@pytest.mark.parametrize(("law", "truth", "high"), [(beta, 8 / 9, 1.0), (mostly_zero, 0.025, 8.0)])
def test_the_interval_of_a_mean_covers_few_and_skewed_values(
    law: Callable[[int, np.random.Generator], Floats], truth: float, high: float, n: int
) -> None:
    draw = np.random.default_rng(0)
    values = [law(n, draw) for _ in range(REPEATS)]
    found = [intervals.mean(each, low=0.0, high=high) for each in values]
    assert np.mean([each.low <= truth <= each.high for each in found]) >= LEAST
    assert all(0 <= each.low <= each.value <= each.high <= high for each in found)
    if law is mostly_zero and n <= 64:
        plain = [plain_normal(each) for each in values]
        assert np.mean([each.low <= truth <= each.high for each in plain]) < LEAST - 0.02


@pytest.mark.parametrize("share", [0.5, 0.8, 0.95, 0.997])
@pytest.mark.parametrize(("classes", "n"), [(10, 27), (2, 5), (100, 100)])
def test_the_interval_of_the_worst_of_many_classes_covers(
    share: float, classes: int, n: int
) -> None:
    draw, hits, chosen = np.random.default_rng(0), 0, 0
    for _ in range(200):
        right = draw.binomial(n, share, classes)
        found = intervals.lowest([(int(successes), n) for successes in right])
        assert found.value == right.min() / n and found.n == n
        hits += found.low <= share <= found.high
        plain = intervals.proportion(int(right.min()), n)
        chosen += plain.low <= share <= plain.high
    assert hits / 200 >= 0.93
    if classes >= 10 and share <= 0.95:
        assert chosen / 200 < 0.8


def test_one_class_that_is_worst_by_far_has_its_own_interval() -> None:
    counts = [(100, 100)] * 9 + [(50, 100)]
    alone = intervals.exact_proportion(50, 100, 0.95 ** (1 / 10))
    assert intervals.lowest(counts) == alone


@pytest.mark.parametrize("share", [0.5, 0.8, 0.9])
@pytest.mark.parametrize("alike", [1.0, 0.5, 0.0])
def test_the_interval_of_clusters_covers_whether_or_not_their_items_are_alike(
    alike: float, share: float
) -> None:
    # Ten classes of six; an item is that of its class, or else its own.
    draw = np.random.default_rng(0)
    of_class, own = draw.random((1000, 10, 1)) < share, draw.random((1000, 10, 6)) < share
    right = np.where(draw.random((1000, 10, 6)) < alike, of_class, own)
    found = [intervals.clustered(each.mean(1)) for each in right]
    assert np.mean([each.low <= share <= each.high for each in found]) >= 0.93 - 2 * 0.008
    if alike == 1.0:
        plain = [intervals.proportion(int(each.sum()), 60) for each in right]
        assert np.mean([each.low <= share <= each.high for each in plain]) < 0.85


def test_one_class_of_ten_that_fails_is_one_item_of_ten() -> None:
    shares = np.array([1.0, 0, 1, 1, 1, 1, 1, 1, 1, 1])
    wilson = intervals.proportion(9, 10)
    found = intervals.clustered(shares)
    assert (found.value, found.n) == (0.9, 10)
    assert (found.low, found.high) == pytest.approx((wilson.low, wilson.high))
