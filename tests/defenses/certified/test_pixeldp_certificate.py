import math
from itertools import product

import numpy as np
import numpy.typing as npt
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from scipy.stats import beta, multinomial, norm

from tests.defenses.pixeldp_sizes import largest_size, size_of_bounds
from trainables.defenses.certified.clopper_pearson import lower
from trainables.defenses.certified.pixeldp_certificate import (
    DELTAS,
    certified_sizes,
    label_bounds,
    noise_sigma,
)

Counts = npt.NDArray[np.int64]
SIGMA = noise_sigma(1.0, 1.0, 0.05)
"""The noise of the paper's defaults, for an attack bound of 1."""


def _size_by_bisection(counts: list[int], n: int, sigma: float, eta: float) -> float:
    """Compute a size from the counts of one image, with nothing of the code under test."""
    level = eta / len(counts)
    top = max(range(len(counts)), key=lambda label: counts[label])
    k = counts[top]
    p_lb = float(beta.ppf(level, k, n - k + 1)) if k else 0.0
    p_ub = max(
        1.0 if k == n else float(beta.ppf(1 - level, k + 1, n - k))
        for label, k in enumerate(counts)
        if label != top
    )
    return size_of_bounds(p_lb, p_ub, sigma)


def _split(n: int, share: float, labels: int = 10) -> Counts:
    k = round(n * share)
    return np.array([[k, n - k, *[0] * (labels - 2)]])


def test_sizes_equal_a_plain_computation_by_bisection() -> None:
    rng = np.random.default_rng(0)
    for labels, n, eta in ((10, 300, 0.05), (3, 2000, 0.001), (2, 50, 0.2), (10, 100_000, 0.05)):
        shares = rng.dirichlet(np.full(labels, 0.15), size=12)
        counts = np.stack([rng.multinomial(n, share) for share in shares])
        counts[0] = [n, *[0] * (labels - 1)]
        found = certified_sizes(counts, n, sigma=0.3, eta=eta, sensitivity=1.7)
        expected = [_size_by_bisection(row, n, 0.3, eta) / 1.7 for row in counts.tolist()]
        np.testing.assert_allclose(found, expected, rtol=0, atol=1e-9)
        assert (found > 0).sum() >= 4


@pytest.mark.parametrize(
    ("n", "sizes"),
    [
        (300, (0.420, 0.755, 1.301, 1.376)),
        (2000, (0.527, 0.898, 1.378, 1.436)),
        (10_000, (0.565, 0.949, 1.395, 1.443)),
    ],
)
def test_sizes_are_those_of_the_reference_code(n: int, sizes: tuple[float, ...]) -> None:
    """It bisects epsilon to 0.001 and keeps the lower end, so it is smaller by up to 0.1 %."""
    for share, expected in zip((0.8, 0.9, 0.99, 1.0), sizes, strict=True):
        (found,) = certified_sizes(_split(n, share), n, sigma=SIGMA, eta=0.05)
        assert expected - 0.0005 <= found <= expected * 1.001 + 0.0005


def test_draws_may_differ_from_image_to_image_and_counts_may_be_tensors() -> None:
    counts = np.concatenate([_split(300, 0.9), _split(2000, 0.9)])
    draws = np.array([300, 2000])
    found = certified_sizes(counts, draws, sigma=SIGMA, eta=0.05)
    alone = [certified_sizes(row[None], int(n), sigma=SIGMA, eta=0.05)[0]
             for row, n in zip(counts, draws, strict=True)]  # fmt: skip
    assert found.tolist() == alone
    tensors = certified_sizes(
        torch.from_numpy(counts), torch.from_numpy(draws), sigma=SIGMA, eta=0.05
    )
    assert tensors.tolist() == alone
    assert certified_sizes(counts[:0], 300, sigma=SIGMA, eta=0.05).shape == (0,)


def test_nothing_is_certified_of_a_tie_or_of_too_few_draws() -> None:
    tie = np.array([[150, 150, 0], [100, 100, 100], [0, 0, 300]])
    found = certified_sizes(tie, 300, sigma=1.0, eta=0.05)
    assert found[:2].tolist() == [0.0, 0.0] and found[2] > 0
    assert certified_sizes(np.array([[4, 0, 0]]), 4, sigma=1.0, eta=0.05).tolist() == [0.0]


@given(
    epsilon=st.floats(0.001, 1.0),
    delta=st.floats(1e-6, 0.3),
    n=st.integers(10, 10_000_000),
    share=st.floats(0, 1),
    eta=st.floats(1e-9, 0.5),
    sensitivity=st.floats(0.01, 100),
)
def test_no_size_passes_the_ceiling(
    epsilon: float, delta: float, n: int, share: float, eta: float, sensitivity: float
) -> None:
    sigma = noise_sigma(0.1, epsilon, delta)
    most = largest_size(sigma, sensitivity)
    counts = np.concatenate([_split(n, share), _split(n, 1.0)])
    sizes = certified_sizes(counts, n, sigma=sigma, eta=eta, sensitivity=sensitivity)
    assert sizes.max() < most


def test_the_ceiling_of_the_papers_defaults_is_1_447_attack_bounds() -> None:
    assert largest_size(SIGMA, 1.0) == pytest.approx(1.4471, abs=5e-5)
    # Up to 10,000 draws, whatever the counts, 1.446 is never reached.
    assert certified_sizes(_split(10_000, 1.0), 10_000, sigma=SIGMA, eta=0.05)[0] < 1.446


def test_the_noise_is_that_of_the_gaussian_mechanism() -> None:
    assert pytest.approx(2.5373, abs=5e-5) == SIGMA
    assert noise_sigma(0.1, 0.5, 0.01) == pytest.approx(0.2 * math.sqrt(2 * math.log(125)))


def test_each_epsilon_and_delta_of_the_grid_is_truly_private() -> None:
    """Delta of Gaussian noise by the exact formula (Balle and Wang, 2018, theorem 5)."""
    for delta, eps in product(DELTAS, (0.01, 0.1, 0.3, 0.6, 1.0)):
        move = eps / math.sqrt(2 * math.log(1.25 / delta))  # for a sigma of 1
        spent = norm.cdf(move / 2 - eps / move) - math.exp(eps) * norm.cdf(-move / 2 - eps / move)
        assert spent <= delta


@given(n=st.integers(10, 100_000), share=st.floats(0.5, 1), level=st.floats(1e-6, 0.2))
def test_a_size_is_below_cohens_radius_at_equal_noise_and_confidence(
    n: int, share: float, level: float
) -> None:
    counts = _split(n, share)
    (size,) = certified_sizes(counts, n, sigma=SIGMA, eta=10 * level)
    (p_lb,), _ = label_bounds(counts, n, 10 * level)
    assert p_lb == pytest.approx(float(lower(counts.max(), n, level)), rel=1e-12)
    assert size < max(SIGMA * norm.ppf(p_lb), 1e-12)


@pytest.mark.parametrize(
    "p", [(0.9, 0.06, 0.04), (0.34, 0.33, 0.33), (0.5, 0.5, 0.0), (0.6, 0.2, 0.2), (0.52, 0.48, 0)]
)
def test_certificates_of_three_labels_are_wrong_with_at_most_eta_by_enumeration(
    p: tuple[float, ...],
) -> None:
    n = 120
    counts = np.array([[a, b, n - a - b] for a in range(n + 1) for b in range(n + 1 - a)])
    for eta in (0.05, 0.5):
        wrong = _wrong(counts, np.array(p), n, eta)
        assert float(multinomial.pmf(counts[wrong], n, p).sum()) <= eta


@pytest.mark.parametrize(
    "p",
    [
        (0.9, 0.1, *[0.0] * 8),
        (0.52, 0.48, *[0.0] * 8),
        (0.5, 0.5, *[0.0] * 8),
        (0.3, 0.29, 0.28, *[0.13 / 7] * 7),
        (0.75, *[0.25 / 9] * 9),
    ],
)
def test_of_1000_certifications_no_more_than_eta_are_wrong(p: tuple[float, ...]) -> None:
    repeats, n, eta = 1000, 300, 0.05
    counts = np.random.default_rng(1).multinomial(n, p, size=repeats)
    share = float(_wrong(counts, np.array(p), n, eta).mean())
    assert share <= eta + 3 * math.sqrt(eta * (1 - eta) / repeats)


def _wrong(counts: Counts, p: npt.NDArray[np.float64], n: int, eta: float) -> npt.NDArray[np.bool_]:
    """Return which counts certify a label that is not the likeliest, or more than p proves."""
    found = certified_sizes(counts, n, sigma=1.0, eta=eta)
    best, second = np.sort(p)[::-1][:2]
    true = size_of_bounds(float(best), float(second), 1.0)
    other = p[counts.argmax(1)] < best
    return np.asarray((found > 0) & (other | (found > true)), dtype=np.bool_)
