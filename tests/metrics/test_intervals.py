import math

import numpy as np
import pytest
from scipy import stats
from sklearn.metrics import roc_auc_score

from trainables.metrics import intervals
from trainables.records.value import Measured, Missing

RUNS = 1500
LEAST = 0.93
"""Coverage that a 95 % interval must reach in RUNS simulations (their standard error: 0.006)."""


def _covers(interval: Measured, truth: float) -> bool:
    return interval.low <= truth <= interval.high


@pytest.mark.parametrize(("k", "n"), [(0, 10), (3, 10), (10, 10), (486, 512), (1, 1)])
def test_a_proportion_has_wilsons_interval(k: int, n: int) -> None:
    z = 1.959963984540054
    p, centre = k / n, (k / n + z * z / (2 * n)) / (1 + z * z / n)
    half = z / (1 + z * z / n) * math.sqrt(p * (1 - p) / n + z * z / (4 * n * n))
    found = intervals.proportion(k, n)
    assert (found.value, found.n) == (p, n)
    assert found.low == pytest.approx(max(0.0, centre - half), abs=1e-12)
    assert found.high == pytest.approx(min(1.0, centre + half), abs=1e-12)
    assert found.low <= found.value <= found.high


@pytest.mark.parametrize(("k", "n"), [(0, 10), (3, 10), (10, 10), (1, 1)])
def test_an_exact_share_has_clopper_and_pearsons_interval(k: int, n: int) -> None:
    found, ci = intervals.exact_proportion(k, n), stats.binomtest(k, n).proportion_ci(0.95)
    assert (found.value, found.n) == (k / n, n)
    assert (found.low, found.high) == pytest.approx((ci.low, ci.high))


def test_a_mean_without_a_range_has_the_t_interval() -> None:
    values = np.array([1.0, 2.0, 4.0, 7.0])
    found = intervals.mean(values)
    low, high = stats.t.interval(0.95, 3, loc=3.5, scale=stats.sem(values))
    assert found.value == 3.5 and found.n == 4
    assert (found.low, found.high) == pytest.approx((low, high))


def test_a_total_has_the_t_interval_of_its_parts() -> None:
    values = np.array([1.0, 2.0, 3.0, 2.5, 1.5])
    found = intervals.total(values)
    low, high = stats.t.interval(0.95, 4, loc=values.mean(), scale=stats.sem(values))
    assert found.value == 10.0
    assert (found.low, found.high) == pytest.approx((5 * low, 5 * high))
    assert intervals.total(np.array([0.0, 9.0])).low == 0.0
    assert intervals.total(np.array([3.0])) == Measured(3.0, 3.0, 3.0, 1)


def test_an_exact_value_is_its_own_interval() -> None:
    assert intervals.exact(7) == Measured(7.0, 7.0, 7.0, 1)


def test_a_difference_has_newcombes_interval() -> None:
    # Newcombe (1998), table II, method 10: 56/70 against 48/80 gives .2 (.0524, .3339).
    found = intervals.difference(intervals.proportion(56, 70), intervals.proportion(48, 80))
    assert found.value == pytest.approx(0.2)
    assert (found.low, found.high) == pytest.approx((0.0524, 0.3339), abs=1e-4)
    extreme = intervals.difference(intervals.proportion(5, 5), intervals.proportion(0, 5))
    assert extreme.high == 1.0 and 0 < extreme.low < 1.0


def test_a_balanced_share_is_the_mean_of_both() -> None:
    a, b = intervals.proportion(30, 40), intervals.proportion(10, 50)
    found = intervals.balanced(a, b)
    assert found.value == pytest.approx((0.75 + 0.2) / 2)
    assert found.n == 90
    below = math.hypot(0.75 - a.low, 0.2 - b.low) / 2
    assert found.low == pytest.approx(found.value - below)


def test_a_share_of_nothing_is_missing_with_its_reason() -> None:
    assert intervals.proportion_or_missing(0, 0, "none here") == Missing("none here")
    assert intervals.proportion_or_missing(1, 2, "-") == intervals.proportion(1, 2)


@pytest.mark.parametrize("decimals", [1, 8])
def test_auc_equals_sklearns_ties_included(decimals: int) -> None:
    draw = np.random.default_rng(0)
    members, others = (
        draw.normal(0.4, 1, 150).round(decimals),
        draw.normal(0, 1, 90).round(decimals),
    )
    truth = np.r_[np.ones(150), np.zeros(90)]
    found = intervals.auc(members, others)
    assert found.value == pytest.approx(roc_auc_score(truth, np.r_[members, others]), abs=1e-12)
    reverse = intervals.auc(others, members)
    assert found.value + reverse.value == pytest.approx(1.0)
    assert found.n == 240 and found.low < found.value < found.high


def test_aucs_interval_is_newcombes_and_as_wide_as_delongs() -> None:
    # Both sides of 5000: by Hanley and McNeil of the ends, a hair wider for the correction.
    draw = np.random.default_rng(1)
    members, others = draw.normal(0.7, 1, 5000), draw.normal(0, 1, 5000)
    placed = stats.norm.cdf(members), stats.norm.cdf(others - 0.7)
    delong = math.sqrt(placed[0].var() / 5000 + placed[1].var() / 5000)
    found = intervals.auc(members, others)
    assert (found.high - found.low) / 2 == pytest.approx(1.96 * delong, rel=0.05)


def test_a_quantile_is_numpys_and_lies_between_order_statistics() -> None:
    values = np.random.default_rng(0).permutation(np.arange(100.0))
    found = intervals.quantile(values, 0.5)
    assert found.value == np.quantile(values, 0.5)
    # Ranks 40 and 61 (from 1): P(40 <= Binomial(100, 1/2) < 61) = 0.9648.
    assert (found.low, found.high) == (39.0, 60.0)
    assert stats.binom.cdf(60, 100, 0.5) - stats.binom.cdf(39, 100, 0.5) >= 0.95
    assert intervals.quantile(np.array([3.0]), 0.95) == Measured(3.0, 3.0, 3.0, 1)


def test_a_bootstrap_repeats_and_holds_its_value() -> None:
    values = np.random.default_rng(0).normal(size=200)
    first = intervals.bootstrap(lambda rows: float(values[rows].mean()), 200, seed=0)
    assert first == intervals.bootstrap(lambda rows: float(values[rows].mean()), 200, seed=0)
    normal = intervals.mean(values)
    assert first.value == pytest.approx(normal.value)
    assert (first.low, first.high) == pytest.approx((normal.low, normal.high), abs=0.03)


@pytest.mark.parametrize(("n", "p"), [(270, 0.98), (512, 0.5), (200, 0.03)])
def test_the_interval_of_a_proportion_covers(n: int, p: float) -> None:
    # Exact: the coverage is a sum over the binomial distribution.
    counts = np.arange(n + 1)
    inside = np.array([_covers(intervals.proportion(int(k), n), p) for k in counts])
    assert float(stats.binom.pmf(counts, n, p)[inside].sum()) >= LEAST


def test_the_interval_of_a_mean_covers() -> None:
    draw = np.random.default_rng(0)
    hits = [_covers(intervals.mean(draw.exponential(2.0, 270)), 2.0) for _ in range(RUNS)]
    assert np.mean(hits) >= LEAST


def test_the_interval_of_a_total_covers_a_few_epochs() -> None:
    draw = np.random.default_rng(0)
    hits = [_covers(intervals.total(draw.normal(1.0, 0.1, 5)), 5.0) for _ in range(RUNS)]
    assert np.mean(hits) >= LEAST


@pytest.mark.parametrize("shift", [0.0, 1.0])
def test_the_interval_of_an_auc_covers(shift: float) -> None:
    draw = np.random.default_rng(0)
    truth = float(stats.norm.cdf(shift / math.sqrt(2)))
    hits = [
        _covers(intervals.auc(draw.normal(shift, 1, 200), draw.normal(0, 1, 100)), truth)
        for _ in range(RUNS)
    ]
    assert np.mean(hits) >= LEAST


@pytest.mark.parametrize(("p", "q"), [(0.99, 0.95), (0.6, 0.5)])
def test_the_intervals_of_a_difference_and_of_a_balanced_share_cover(p: float, q: float) -> None:
    draw = np.random.default_rng(0)
    pairs = [
        (intervals.proportion(a, 898), intervals.proportion(b, 270))
        for a, b in zip(draw.binomial(898, p, RUNS), draw.binomial(270, q, RUNS), strict=True)
    ]
    assert np.mean([_covers(intervals.difference(a, b), p - q) for a, b in pairs]) >= LEAST
    assert np.mean([_covers(intervals.balanced(a, b), (p + q) / 2) for a, b in pairs]) >= LEAST


@pytest.mark.parametrize(("n", "q"), [(20, 0.5), (100, 0.5), (100, 0.95)])
def test_the_interval_of_a_quantile_covers(n: int, q: float) -> None:
    draw = np.random.default_rng(0)
    truth = float(stats.expon.ppf(q))
    hits = [_covers(intervals.quantile(draw.exponential(1.0, n), q), truth) for _ in range(RUNS)]
    assert np.mean(hits) >= LEAST
