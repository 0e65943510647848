"""Whether the told shares of front membership come true, on fronts whose truth is known.

Axes: C candidates, K seeds, N points, D objectives.
"""

import math
from functools import cache
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from scipy.special import ndtri

from results.audit.audited_front import audited_front
from results.records.run import load
from results.statistics.fronts import front, front_shares
from results.statistics.paired import resampled_means
from tests.results.audits import demo_candidates, write_audited, write_demo_audit

Floats = NDArray[np.float64]
CANDIDATES, POINTS, FRONTS = 6, 600, 100


@cache
def told_and_true() -> tuple[Floats, NDArray[np.bool_], NDArray[np.bool_]]:
    """Give, for the candidates of many toy fronts, the told share, the observed and true front."""
    generator = np.random.default_rng(0)
    told, observed, true = [], [], []
    for _ in range(FRONTS):
        truth_CD = _trade_off(generator)
        outcomes = [_outcomes(truths_C, generator) for truths_C in truth_CD.T]
        drawn = np.stack([-resampled_means(each, draws=200) for each in outcomes], axis=-1)
        means_CD = np.array([[rows.mean() for rows in each] for each in outcomes]).T
        told.append(front_shares(drawn))
        observed.append(front(-means_CD))
        true.append(front(-truth_CD))
    return np.concatenate(told), np.concatenate(observed), np.concatenate(true)


def _trade_off(generator: np.random.Generator) -> Floats:
    """Draw true accuracies (C, 2): what is more robust is less accurate, give or take 0.03."""
    place_C = generator.random(CANDIDATES)
    trade_CD = np.stack([0.95 - 0.2 * place_C, 0.4 + 0.35 * place_C], axis=1)
    return np.clip(trade_CD + generator.normal(0, 0.03, trade_CD.shape), 0.02, 0.98)


def _outcomes(truths_C: Floats, generator: np.random.Generator) -> list[Floats]:
    """Simulate outcomes (3, N) of each candidate on the same points; seeds differ by 0.01."""
    points_N = generator.standard_normal(POINTS)
    shares_CK1 = truths_C[:, None, None] + 0.01 * generator.standard_normal((len(truths_C), 3, 1))
    own_CKN = generator.standard_normal((len(truths_C), 3, POINTS))
    hardness_CKN = math.sqrt(0.85) * points_N + math.sqrt(0.15) * own_CKN
    return list((hardness_CKN < ndtri(np.clip(shares_CK1, 0.01, 0.99))).astype(np.float64))


def test_of_the_candidates_told_a_share_about_that_share_is_truly_on_the_front() -> None:
    told, _, true = told_and_true()
    for low, high in ((0, 0.1), (0.1, 0.35), (0.35, 0.65), (0.65, 0.9), (0.9, 1.01)):
        bin_ = (told >= low) & (told < high)
        assert bin_.sum() >= 40
        assert abs(told[bin_].mean() - true[bin_].mean()) <= 0.12, (low, high)


def test_what_is_told_as_sure_is_surer_than_the_front_of_the_means() -> None:
    told, observed, true = told_and_true()
    assert true[told >= 0.9].mean() >= 0.97
    assert true[told < 0.1].mean() <= 0.06
    # To take the observed front for the true one is wrong more often than either.
    assert true[observed].mean() < 0.95
    assert true[~observed].mean() > 0.09


def test_the_front_of_the_audited_leaves_out_what_is_not_verified(tmp_path: Path) -> None:
    found = audited_front(load(write_demo_audit(tmp_path)))
    trials = [each.trial for each in found.candidates]
    assert trials == ["plain000", "mild0000", "smooth00", "strong00"]
    assert all(found.on_front)
    assert found.paired == ("clean_accuracy", "robust_accuracy")
    shares = dict(zip(trials, found.shares, strict=True))
    assert shares["strong00"] > 0.99
    assert shares["mild0000"] < shares["plain000"]


def test_a_run_of_which_nothing_is_verified_has_an_empty_front(tmp_path: Path) -> None:
    candidates = [each for each in demo_candidates() if each.trial in ("masked00", "partial0")]
    found = audited_front(load(write_audited(tmp_path, candidates)))
    assert (found.candidates, found.shares, found.on_front) == ((), (), ())
