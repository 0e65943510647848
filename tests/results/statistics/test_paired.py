"""Paired comparisons against exact tests, enumeration and simulation."""

import itertools
import math
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray
from scipy import stats
from scipy.special import expit, ndtri

from results.audit.audit import audited
from results.choosing.merging import merged, merged_audited
from results.records.run import load
from results.statistics.intervals import difference, two_way
from results.statistics.paired import compare, mcnemar, paired_bootstrap, resampled_means
from tests.results.audits import write_demo_audit

Floats = NDArray[np.float64]


@pytest.mark.parametrize(("only_first", "only_second"), [(0, 0), (1, 0), (5, 5), (3, 11), (40, 20)])
def test_mcnemar_is_the_exact_binomial_test_of_the_points_that_differ(
    only_first: int, only_second: int
) -> None:
    first = np.array([1.0] * only_first + [0] * only_second + [1] * 30 + [0] * 7)
    second = np.array([0.0] * only_first + [1] * only_second + [1] * 30 + [0] * 7)
    found = mcnemar(first, second)
    assert (found.only_first, found.only_second) == (only_first, only_second)
    assert found.n == only_first + only_second + 37
    differ = only_first + only_second
    exact = stats.binomtest(only_first, differ).pvalue if differ else 1.0
    assert found.p_value == pytest.approx(exact)


def test_mcnemar_agrees_with_direct_enumeration() -> None:
    # Of 5 points that differ 4 fall to the first: as lopsided or more are 0, 1, 4 and 5.
    first = np.array([1.0, 1, 1, 1, 0])
    splits = [sum(coins) for coins in itertools.product((0, 1), repeat=5)]
    expected = sum(split in (0, 1, 4, 5) for split in splits) / 32
    assert mcnemar(first, 1 - first).p_value == pytest.approx(expected)


def test_draws_of_agreeing_seeds_are_jeffreys_posterior_of_a_share() -> None:
    outcomes = np.tile([1.0, 0, 0, 1, 1], (2, 1))
    drawn = resampled_means([outcomes], draws=20_000)[:, 0]
    posterior = stats.beta(3.5, 2.5)
    for level in (0.025, 0.25, 0.5, 0.75, 0.975):
        assert posterior.cdf(np.quantile(drawn, level)) == pytest.approx(level, abs=0.02)


def test_candidates_share_the_weights_of_the_points() -> None:
    points = np.tile(np.arange(300) < 200, (2, 1)).astype(float)
    drawn = resampled_means([points, points, 1 - points], draws=4000)
    first, same, opposite = drawn.T
    assert np.corrcoef(first, same)[0, 1] > 0.95 and np.corrcoef(first, opposite)[0, 1] < -0.95


def test_metrics_on_the_same_points_share_them_but_not_the_luck_of_seeds() -> None:
    points = np.arange(300) < 200
    stable = np.tile(points, (3, 1)).astype(float)
    first = resampled_means([stable], draws=4000, metric="clean_accuracy")[:, 0]
    second = resampled_means([stable], draws=4000, metric="robust_accuracy")[:, 0]
    assert np.corrcoef(first, second)[0, 1] > 0.95
    unstable = np.stack([np.full(300, 1.0), points, np.full(300, 0.0)]).astype(float)
    one, other = (
        resampled_means([unstable], draws=4000, metric=name)[:, 0]
        for name in ("clean_accuracy", "robust_accuracy")
    )
    assert abs(np.corrcoef(one, other)[0, 1]) < 0.1
    fewer = resampled_means([stable[:, :150]], draws=4000, metric="robust_accuracy")[:, 0]
    assert abs(np.corrcoef(first, fewer)[0, 1]) < 0.1


def test_a_single_seed_varies_as_one_of_the_others() -> None:
    generator = np.random.default_rng(0)
    shares = np.array([0.55, 0.65, 0.75, 0.6, 0.7])[:, None]
    several = (generator.random((5, 400)) < shares).astype(float)
    lone = (generator.random((1, 400)) < 0.65).astype(float)
    drawn = resampled_means([several, lone], draws=4000)
    assert drawn[:, 1].std() > 1.6 * drawn[:, 0].std()  # a mean of five has a fifth of the variance
    # Student with 4 degrees of freedom has twice the variance of a normal.
    assert drawn[:, 1].std() == pytest.approx(np.hypot(0.024, math.sqrt(2) * 0.079), rel=0.4)


@pytest.mark.parametrize("seeds", [1, 2])
def test_a_difference_of_few_trainings_covers_the_luck_of_a_training(seeds: int) -> None:
    """Without it a single training each covered 63 % at a standard deviation of 0.5 logits."""
    generator = np.random.default_rng(seeds)
    covered = []
    for _ in range(150):
        points = generator.standard_normal(300)
        first, second = (_trained(logit, 0.5, seeds, points, generator) for logit in (0.8, 0.2))
        found = paired_bootstrap(first, second, draws=400)
        covered.append(found.low <= _mean_share(0.8) - _mean_share(0.2) <= found.high)
    assert np.mean(covered) >= 0.9


def _trained(
    logit: float, spread: float, seeds: int, points: Floats, generator: np.random.Generator
) -> Floats:
    """Simulate outcomes (K, N) of seeds whose accuracies vary by `spread` logits."""
    shares = expit(logit + spread * generator.standard_normal((seeds, 1)))
    own = generator.standard_normal((seeds, len(points)))
    hardness = math.sqrt(0.85) * points + math.sqrt(0.15) * own
    return np.where(hardness < ndtri(shares), 1.0, 0.0)


def _mean_share(logit: float) -> float:
    """Return the accuracy of a training on average over trainings, by quadrature."""
    places = ndtri((np.arange(2000) + 0.5) / 2000)
    return float(expit(logit + 0.5 * places).mean())


def test_resampled_shares_stay_shares() -> None:
    # Seeds of 1 and of .8 vary so much that draws of one go beyond 1 unless they are held.
    outcomes = np.stack([np.ones(100), np.arange(100) < 80]).astype(float)
    drawn = resampled_means([outcomes], draws=400)
    assert drawn.min() >= 0 and drawn.max() == 1


def test_two_defenses_that_differ_on_no_point_differ_by_little_but_not_surely_by_nothing() -> None:
    outcomes = np.tile(np.arange(100) < 70, (3, 1)).astype(float)
    found = paired_bootstrap(outcomes, outcomes)
    assert found.value == 0
    assert -0.06 < found.low < -0.005 and 0.005 < found.high < 0.06


def test_paired_differences_cover_and_are_narrower_than_unpaired_ones() -> None:
    generator = np.random.default_rng(0)
    paired, unpaired, covered = [], [], []
    for spread in (0.0, 0.01, 0.02):
        for _ in range(60):
            points = generator.standard_normal((1, 300))
            first, second = (_outcomes(truth, spread, points, generator) for truth in (0.7, 0.65))
            found = paired_bootstrap(first, second, draws=400)
            covered.append(found.low <= 0.05 <= found.high)
            paired.append(found.high - found.low)
            apart = difference(two_way(first), two_way(second))
            unpaired.append(apart.high - apart.low)
    assert np.mean(covered) >= 0.93
    assert np.mean(paired) < 0.85 * np.mean(unpaired)


def _outcomes(
    truth: float, spread: float, points: Floats, generator: np.random.Generator
) -> Floats:
    shares = truth + spread * generator.standard_normal((3, 1))
    hardness = math.sqrt(0.85) * points + math.sqrt(0.15) * generator.standard_normal(
        (3, points.shape[1])
    )
    return np.where(hardness < ndtri(shares), 1.0, 0.0)


def test_candidates_are_paired_where_their_points_are_the_same(tmp_path: Path) -> None:
    candidates = {each.trial: each for each in audited(load(write_demo_audit(tmp_path)))}
    plain, mild, partial = (candidates[name] for name in ("plain000", "mild0000", "partial0"))
    robust = compare(mild, plain, "robust_accuracy")
    assert robust is not None and robust.paired and robust.told_apart
    assert robust.difference.value == pytest.approx(0.34, abs=0.005)
    assert robust.mcnemar is not None and robust.mcnemar.p_value < 1e-6
    private = compare(mild, plain, "membership_auc")
    assert private is not None and not private.paired and private.mcnemar is None
    assert private.difference == difference(
        mild.values["membership_auc"], plain.values["membership_auc"]
    )
    assert compare(mild, plain, "latency_ms_p50") is None
    fewer_seeds = compare(partial, plain, "clean_accuracy")
    assert fewer_seeds is not None and fewer_seeds.paired


def test_what_is_of_one_training_each_is_said(tmp_path: Path) -> None:
    candidates = {each.trial: each for each in audited(load(write_demo_audit(tmp_path)))}
    plain, strong = (
        replace(each, records=each.records[:1], seeds=dict.fromkeys(each.seeds, 1))
        for each in (candidates["plain000"], candidates["strong00"])
    )
    found = compare(strong, plain, "robust_accuracy")
    assert found is not None and found.one_training
    assert found.verdict == "significant, one training each"
    several = compare(candidates["strong00"], plain, "robust_accuracy")
    assert several is not None and several.verdict == "significant"


def test_a_point_joins_the_first_group_whose_own_first_is_like_it() -> None:
    groups = merged([0.0, 0.9, 1.5, 2.0], lambda a, b: abs(a - b) <= 1)
    assert [(group.first, group.others) for group in groups] == [(0.0, (0.9,)), (1.5, (2.0,))]


def test_candidates_that_differ_in_no_goal_are_merged_but_never_with_the_undefended(
    tmp_path: Path,
) -> None:
    candidates = audited(load(write_demo_audit(tmp_path)))
    groups = merged_audited(candidates, ["clean_accuracy", "robust_accuracy"])
    joined = {group.first.trial: [other.trial for other in group.others] for group in groups}
    assert joined["mild0000"] == ["smooth00"]
    assert joined["plain000"] == joined["strong00"] == []
    apart = merged_audited(candidates, ["clean_accuracy", "backdoor_success_rate"])
    assert "smooth00" in {group.first.trial for group in apart}
    # At clean accuracy alone the undefended cannot be told from the first, but is not one of it.
    alone = merged_audited(candidates, ["membership_auc"])
    assert alone[0].first.undefended and alone[0].others == ()
    assert all(len(group.others) == 0 for group in merged_audited(candidates, ["dp_epsilon"]))
