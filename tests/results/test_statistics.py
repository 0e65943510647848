"""Intervals of differences and pools against known values."""

import math

import pytest

from results.statistics import compare, difference, pool, side
from results.values import Value


def test_difference_is_newcombes_method_10() -> None:
    # Newcombe (1998), table II, case (a): 56/70 - 48/80 = 0.2 [0.0524, 0.3339].
    first = _wilson(56, 70)
    second = _wilson(48, 80)
    found = difference(first, second)
    assert found.value == pytest.approx(0.2)
    assert found.low == pytest.approx(0.0524, abs=5e-5)
    assert found.high == pytest.approx(0.3339, abs=5e-5)
    assert found.n == 70


def test_difference_of_extreme_shares_stays_in_range() -> None:
    found = difference(_wilson(10, 10), _wilson(0, 10))
    assert found.value == 1.0
    assert -1.0 <= found.low < 1.0
    assert found.high == pytest.approx(1.0)


def test_one_seed_is_its_own_pool() -> None:
    value = Value(0.5, 0.4, 0.6, 100)
    assert pool([value]) == value


def test_equal_seeds_do_not_shrink_the_items_interval() -> None:
    value = Value(0.5, 0.4, 0.65, 100)
    found = pool([value] * 5)
    assert (found.value, found.n) == (0.5, 100)
    assert found.low == pytest.approx(0.4)
    assert found.high == pytest.approx(0.65)


def test_pool_joins_the_t_interval_between_seeds_with_the_items_variance() -> None:
    found = pool([Value(0.4, 0.3, 0.5, 50), Value(0.6, 0.5, 0.7, 40)])
    # Two seeds: s = 0.1414, t_{0.975, 1} = 12.7062, s / sqrt(2) = 0.1.
    half = math.hypot(0.1, 12.7062047 * 0.1)
    assert found.value == pytest.approx(0.5)
    assert found.low == pytest.approx(0.5 - half)
    assert found.high == pytest.approx(0.5 + half)
    assert found.n == 40


def test_pool_is_clipped_to_the_metrics_range() -> None:
    found = pool([Value(0.4, 0.3, 0.5, 50), Value(0.6, 0.5, 0.7, 50)], within=(0.0, 1.0))
    assert (found.low, found.high) == (0.0, 1.0)


def test_pool_of_nothing_is_refused() -> None:
    with pytest.raises(ValueError, match="no values"):
        pool([])


def test_compare_tells_only_what_the_interval_tells() -> None:
    low, high = Value(0.2, 0.15, 0.25, 100), Value(0.8, 0.75, 0.85, 100)
    assert compare(high, low) == "higher"
    assert compare(low, high) == "lower"
    assert compare(low, Value(0.22, 0.17, 0.27, 100)) == "cannot be told"


def test_an_interval_that_touches_the_threshold_is_not_told() -> None:
    assert side(Value(0.1, 0.0, 0.2, 9), 0.0) == "cannot be told"


def test_a_value_must_be_finite() -> None:
    with pytest.raises(ValueError, match="finite"):
        Value(math.nan, 0.0, 1.0, 3)


def _wilson(successes: int, n: int) -> Value:
    z, share = 1.959964, successes / n
    centre = (share + z * z / (2 * n)) / (1 + z * z / n)
    half = z / (1 + z * z / n) * math.sqrt(share * (1 - share) / n + z * z / (4 * n * n))
    return Value(share, centre - half, centre + half, n)
