import math

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from scipy.stats import beta, binom

from trainables.defenses.certified.clopper_pearson import lower, upper
from trainables.errors import InputError


@given(n=st.integers(1, 5000), share=st.floats(0, 1), level=st.floats(1e-9, 0.5))
def test_the_bounds_are_quantiles_of_beta_and_mirror_each_other(
    n: int, share: float, level: float
) -> None:
    k = round(share * n)
    low, high = float(lower(k, n, level)), float(upper(k, n, level))
    assert low == (0 if k == 0 else pytest.approx(beta.ppf(level, k, n - k + 1), rel=1e-9))
    assert high == (1 if k == n else pytest.approx(beta.ppf(1 - level, k + 1, n - k), rel=1e-6))
    assert low < k / n or k == 0
    assert high == pytest.approx(1 - float(lower(n - k, n, level)), abs=1e-9)


def test_at_the_bound_the_count_seen_has_the_probability_of_the_level() -> None:
    for k, n, level in ((1, 10, 0.05), (7, 10, 0.001), (299, 300, 0.005), (300, 300, 1e-6)):
        assert binom.sf(k - 1, n, lower(k, n, level)) == pytest.approx(level, rel=1e-6)
        if k < n:
            assert binom.cdf(k, n, upper(k, n, level)) == pytest.approx(level, rel=1e-6)


@pytest.mark.parametrize("p", [0.001, 0.03, 0.5, 0.985, 1.0])
def test_each_bound_fails_no_more_often_than_its_level(p: float) -> None:
    n, level = 200, 0.05
    counts = np.arange(n + 1)
    chance = binom.pmf(counts, n, p)
    assert chance[lower(counts, n, level) > p].sum() <= level
    assert chance[upper(counts, n, level) < p].sum() <= level


def test_levels_too_small_to_subtract_from_one_still_count() -> None:
    assert float(upper(0, 10, 1e-20)) == pytest.approx(1 - math.exp(math.log(1e-20) / 10))
    assert float(upper(3, 10, 1e-20)) < 1


def test_tensors_and_arrays_broadcast_to_float64() -> None:
    counts = torch.tensor([[0, 5], [10, 7]])
    low, high = lower(counts, 10, 0.05), upper(counts, torch.tensor([[10], [20]]), 0.05)
    assert low.shape == high.shape == (2, 2) and low.dtype == high.dtype == np.float64
    assert low[1, 1] == lower(7, 10, 0.05) and high[1, 1] == upper(7, 20, 0.05)


@pytest.mark.parametrize(("k", "n", "level"), [(11, 10, 0.1), (-1, 10, 0.1), (0, 0, 0.1)])
def test_counts_that_are_none_are_refused(k: int, n: int, level: float) -> None:
    for bound in (lower, upper):
        with pytest.raises(InputError, match=r"needs counts of 0\.\.n"):
            bound(k, n, level)


@pytest.mark.parametrize("level", [0.0, 1.0, math.nan])
def test_a_level_outside_its_range_is_refused(level: float) -> None:
    for bound in (lower, upper):
        with pytest.raises(InputError, match="needs a level above 0 and below 1"):
            bound(5, 10, level)
