"""The scores and rates of membership attacks against definitions, ports and scikit-learn."""

import itertools
import math

import numpy as np
import pytest
from numpy.typing import NDArray
from scipy import stats
from sklearn.metrics import roc_auc_score, roc_curve

from trainables.metrics import intervals
from trainables.records.value import Measured, MetricValue, Missing
from trainables.threats.membership import lira
from trainables.threats.membership.membership import OF_ANSWERS, OF_SHADOWS
from trainables.threats.membership.rates import (
    Scored,
    as_many_as_members,
    balanced_accuracy,
    histogram,
    strongest,
    tpr_at_fpr,
)
from trainables.threats.membership.rmia import OFFLINE_A, fitted_a, relative_probability, rmia
from trainables.threats.membership.scores import (
    entropy,
    label_kept,
    loss_threshold,
    modified_entropy,
    softmax,
)
from trainables.threats.membership.shadow_classifier import shadow_classifier
from trainables.threats.membership.shadows import ShadowAnswers

Floats = NDArray[np.float64]
S, N, K = 8, 40, 5


def _measured(found: MetricValue) -> Measured:
    assert isinstance(found, Measured)
    return found


def _balanced(models: int, points: int, seed: int = 0) -> NDArray[np.bool_]:
    draw = np.random.default_rng(seed)
    columns = [draw.permutation(np.arange(models) % 2 == 0) for _ in range(points)]
    return np.stack(columns, axis=1)


def _answers(seed: int = 0, models: int = S, sharpness: float = 3.0) -> tuple[Floats, Floats]:
    """Return log-probabilities of an attacked model (N, K) and of shadow models (S, N, K)."""
    scores = np.random.default_rng(seed).normal(0, sharpness, (1 + models, N, K))
    found = np.log(np.exp(scores) / np.exp(scores).sum(-1, keepdims=True))
    return found[0], found[1:]


LABELS = np.arange(N) % K


def test_the_area_and_the_rates_are_scikit_learns() -> None:
    draw = np.random.default_rng(0)
    for decimals in (1, 9):
        scored = Scored(
            draw.normal(0.5, 1, 300).round(decimals), draw.normal(0, 1, 1200).round(decimals)
        )
        truth = np.r_[np.ones(300), np.zeros(1200)]
        scores = np.r_[scored.members, scored.others]
        area = intervals.auc(scored.members, scored.others).value
        assert area == pytest.approx(roc_auc_score(truth, scores), abs=1e-9)
        fpr, tpr, thresholds = roc_curve(truth, scores, drop_intermediate=False)
        for rate in (0.001, 0.01, 0.1):
            found = _measured(tpr_at_fpr(scored.members, scored.others, rate))
            assert found.value == pytest.approx(tpr[fpr <= rate].max(), abs=1e-9)
            assert found.low <= found.value <= found.high
        for threshold in thresholds[1::50]:
            at = np.flatnonzero(thresholds == threshold)[0]
            value = _measured(balanced_accuracy(scored, threshold)).value
            assert value == pytest.approx((tpr[at] + 1 - fpr[at]) / 2, abs=1e-9)


def test_an_intervals_level_may_be_chosen() -> None:
    draw = np.random.default_rng(0)
    sides = draw.normal(0.5, 1, 90), draw.normal(0, 1, 60)
    usual, wide = intervals.auc(*sides), intervals.auc(*sides, level=1 - 0.05 / 8)
    # Less than by the normal quantiles: a score interval gains less towards the end of the range.
    ratio = stats.norm.ppf(1 - 0.025 / 8) / stats.norm.ppf(0.975)
    assert 1.2 < (wide.high - wide.value) / (usual.high - usual.value) < ratio
    assert 1.2 < (wide.value - wide.low) / (usual.value - usual.low) < 1.1 * ratio
    share = stats.binomtest(30, 90).proportion_ci(1 - 0.05 / 8, method="wilson")
    found = intervals.proportion(30, 90, 1 - 0.05 / 8)
    assert (found.low, found.high) == pytest.approx((share.low, share.high))


def test_softmax_scores_follow_their_definitions() -> None:
    answers, _ = _answers()
    p = np.exp(answers)
    own = p[np.arange(N), LABELS]
    assert softmax(answers + 7) == pytest.approx(p, abs=1e-12)
    assert loss_threshold(answers, LABELS) == pytest.approx(np.log(own), abs=1e-12)
    assert entropy(answers, LABELS) == pytest.approx(-stats.entropy(p, axis=1), abs=1e-12)
    expected = [
        (1 - p[i, y]) * math.log(p[i, y])
        + sum(p[i, j] * math.log(1 - p[i, j]) for j in range(K) if j != y)
        for i, y in enumerate(LABELS)
    ]
    assert modified_entropy(answers, LABELS) == pytest.approx(expected, abs=1e-9)
    # Song and Mittal: 0 for a sure right answer, unbounded for a sure wrong one.
    sure = np.array([[0.0, -200.0], [-200.0, 0.0]])
    right, wrong = modified_entropy(sure, np.array([0, 0]))
    assert right == pytest.approx(0) and wrong < -80


def test_phi_is_the_logit_of_the_true_class_in_double_precision() -> None:
    answers, shadows = _answers()
    own = np.exp(answers)[np.arange(N), LABELS]
    assert lira.phi(answers, LABELS) == pytest.approx(np.log(own / (1 - own)), abs=1e-9)
    for row, expected in zip(lira.phi(shadows, LABELS), shadows, strict=True):
        assert (row == lira.phi(expected, LABELS)).all()
    # 1 - p rounds to 0 here; the sum over the other classes does not.
    assert lira.phi(np.array([[0.0, -50.0, -50.0]]), np.array([0])) == pytest.approx(
        50 - math.log(2), abs=1e-9
    )


def _port(
    phi_N: Floats, shadows_SN: Floats, inside_SN: NDArray[np.bool_], own_spread: bool
) -> tuple[list[float], list[float]]:
    """Return online and offline scores by the formulas of the paper, a point at a time."""
    points = range(len(phi_N))
    within = [[s[i] for s, k in zip(shadows_SN, inside_SN, strict=True) if k[i]] for i in points]
    without = [
        [s[i] for s, k in zip(shadows_SN, inside_SN, strict=True) if not k[i]] for i in points
    ]

    def median(values: list[float]) -> float:
        ordered, half = sorted(values), len(values) // 2
        return ordered[half] if len(values) % 2 else (ordered[half - 1] + ordered[half]) / 2

    def spread(values: list[float]) -> float:
        mean = math.fsum(values) / len(values)
        return math.sqrt(math.fsum((v - mean) ** 2 for v in values) / len(values))

    def log_density(x: float, mean: float, sd: float) -> float:
        return -0.5 * ((x - mean) / sd) ** 2 - math.log(sd) - 0.5 * math.log(2 * math.pi)

    all_in, all_out = (spread(list(itertools.chain(*group))) for group in (within, without))
    online, offline = [], []
    for x, inner, outer in zip(phi_N, within, without, strict=True):
        sd_in = (spread(inner) if own_spread else all_in) + 1e-30
        sd_out = (spread(outer) if own_spread else all_out) + 1e-30
        gaussians = log_density(x, median(inner), sd_in), log_density(x, median(outer), sd_out)
        online.append(gaussians[0] - gaussians[1])
        offline.append((x - median(outer)) / sd_out)
    return online, offline


@pytest.mark.parametrize(("models", "own_spread"), [(8, False), (62, False), (64, True)])
def test_lira_equals_a_port_of_its_formulas(models: int, own_spread: bool) -> None:
    answers, shadows = _answers(models=models)
    inside = _balanced(models, N)
    phi, of_shadows = lira.phi(answers, LABELS), lira.phi(shadows, LABELS)
    online, offline = _port(phi, of_shadows, inside, own_spread)
    found = lira.online(phi, of_shadows, inside)
    assert found == pytest.approx(online, rel=1e-9, abs=1e-9)
    beyond = lira.offline(phi, of_shadows, inside)
    assert beyond == pytest.approx(offline, rel=1e-9, abs=1e-9)
    # The paper's one-sided test orders the points in the same way.
    one_sided = stats.norm.cdf(offline)
    assert stats.spearmanr(beyond, one_sided).statistic == pytest.approx(1)
    swapped = intervals.auc(found[:20], found[20:]).value
    assert swapped == pytest.approx(roc_auc_score([1] * 20 + [0] * 20, online), abs=1e-9)


def test_lira_takes_points_that_one_shadow_more_was_given() -> None:
    answers, shadows = _answers(models=9)
    inside = _balanced(9, N)
    inside[:, ::3] ^= True
    assert set(inside.sum(0)) == {4, 5}
    phi, of_shadows = lira.phi(answers, LABELS), lira.phi(shadows, LABELS)
    online, offline = _port(phi, of_shadows, inside, own_spread=False)
    assert lira.online(phi, of_shadows, inside) == pytest.approx(online, rel=1e-9, abs=1e-9)
    assert lira.offline(phi, of_shadows, inside) == pytest.approx(offline, rel=1e-9, abs=1e-9)


def test_lira_refuses_points_in_unequal_numbers_of_shadows() -> None:
    inside = _balanced(S, N)
    inside[:, 3] = True
    with pytest.raises(ValueError, match="every point"):
        lira.online(np.zeros(N), np.zeros((S, N)), inside)


@pytest.mark.parametrize("gamma", [1.0, 2.0])
def test_rmia_counts_the_points_that_are_dominated(gamma: float) -> None:
    answers, shadows = _answers()
    inside = _balanced(S, N)
    own, of_shadows = np.exp(answers)[:, 0], np.exp(shadows)[:, :, 0]
    ratios = relative_probability(own, of_shadows, inside, a=0.3)
    for i in range(N):
        p_out = np.mean([of_shadows[s, i] for s in range(S) if not inside[s, i]])
        p_in = 0.3 * p_out + 1 - 0.3
        assert ratios[i] == pytest.approx(own[i] / ((p_in + p_out) / 2), abs=1e-12)
    population = ratios[: N // 2]
    expected = [np.mean([x / z >= gamma for z in population]) for x in ratios]
    found = rmia(ratios, population, gamma)
    assert found == pytest.approx(expected, abs=1e-12)
    order = np.argsort(ratios)
    assert (np.diff(found[order]) >= 0).all()


def test_rmia_needs_a_shadow_without_the_point() -> None:
    with pytest.raises(ValueError, match="unseen"):
        relative_probability(np.ones(2), np.ones((3, 2)), np.ones((3, 2), dtype=np.bool_), 0.5)


@pytest.mark.parametrize("a", [0.0, 0.6])
def test_rmia_fits_a_to_the_shadows(a: float) -> None:
    # Where p_in is a p_out + 1 - a, dividing by the mean of both is best; a wrong a mixes the
    # points' difficulty in.
    draw = np.random.default_rng(0)
    inside = _balanced(16, 2000)
    p_out = draw.uniform(0.05, 0.9, 2000)
    noise = 1 + draw.normal(0, 0.05, (16, 2000))
    shadows = np.where(inside, a * p_out + 1 - a, p_out) * noise
    found = fitted_a(shadows, inside)

    def area(value: float) -> float:
        ratios = relative_probability(shadows[9], shadows[:9], inside[:9], value)
        return float(roc_auc_score(inside[9], ratios))

    assert area(found) >= max(area(0.0), area(0.6), area(1.0)) - 0.005
    assert fitted_a(shadows[:2], np.stack([inside[0], ~inside[0]])) == OFFLINE_A
    # Where a point is out of one shadow model alone, that one cannot be attacked.
    once = np.ones((4, 2000), dtype=np.bool_)
    once[np.arange(2000) % 4, np.arange(2000)] = False
    assert fitted_a(shadows[:4], once) == OFFLINE_A


def test_a_wrong_label_has_no_distance_and_a_right_one_counts() -> None:
    right = np.array([True, True, True, False])
    kept = np.array([1.0, 0.5, 0.0, 1.0])
    assert label_kept(right, kept, 4).tolist() == [1.0, 0.6, 0.2, 0.0]


def _leaky(seed: int, leak: float) -> tuple[Floats, ShadowAnswers, NDArray[np.bool_]]:
    """Return answers that are surer of the rows that a model saw; the last is the attacked one."""
    draw = np.random.default_rng(seed)
    inside = _balanced(17, 400, seed)
    logits = draw.normal(0, 2, 400)[None] + draw.normal(0, 1, (17, 400)) + leak * inside
    scores = np.zeros((17, 400, K))
    np.put_along_axis(scores, (np.arange(400) % K)[None, :, None], logits[..., None], axis=2)
    # 17 models cannot be balanced with the attacked one left out of 16: draw theirs anew.
    shadows_inside = _balanced(16, 400, seed + 1000)
    kept = logits[:16] + leak * (shadows_inside.astype(float) - inside[:16])
    shadows = np.zeros((16, 400, K))
    np.put_along_axis(shadows, (np.arange(400) % K)[None, :, None], kept[..., None], axis=2)
    return scores[16], ShadowAnswers(shadows, shadows_inside, 200), inside[16]


@pytest.mark.parametrize("name", OF_SHADOWS)
def test_shadow_attacks_find_a_leak_and_no_other(name: str) -> None:
    labels = np.arange(400) % K
    answers, shadows, members = _leaky(0, leak=2.0)
    scores = OF_SHADOWS[name](answers, labels, shadows)
    leak = intervals.auc(scores[members], scores[~members])
    assert leak.low > 0.6
    covered = 0
    for seed in range(20):
        answers, shadows, members = _leaky(seed, leak=0.0)
        scores = OF_SHADOWS[name](answers, labels, shadows)
        area = intervals.auc(scores[members], scores[~members])
        covered += area.low <= 0.5 <= area.high
    assert covered >= 17


def test_lira_beats_a_threshold_where_rows_are_not_equally_hard() -> None:
    labels = np.arange(400) % K
    answers, shadows, members = _leaky(1, leak=2.0)
    areas = {}
    for name in ("lira_online", "lira_offline"):
        scores = OF_SHADOWS[name](answers, labels, shadows)
        areas[name] = intervals.auc(scores[members], scores[~members]).value
    losses = loss_threshold(answers, labels)
    plain = intervals.auc(losses[members], losses[~members]).value
    assert min(areas.values()) > plain + 0.05


def test_the_classifier_is_one_per_class() -> None:
    # Members of class 0 are surer, those of class 1 are less sure: one rule could not serve both.
    labels = np.arange(200) % 2
    inside = _balanced(4, 200)
    sign = np.where(labels == 0, 1.0, -1.0)
    draw = np.random.default_rng(0)
    shadows = np.zeros((4, 200, 2))
    column = np.broadcast_to(labels[None, :, None], (4, 200, 1))
    logits = 3 + sign * (2.0 * inside - 1) + draw.normal(0, 0.3, (4, 200))
    np.put_along_axis(shadows, column, logits[..., None], axis=2)
    scores = shadow_classifier(shadows[0], shadows[1:], inside[1:], labels)
    assert roc_auc_score(inside[0], scores) > 0.99


CONSTANT = np.zeros((N, K))
SATURATED = np.where(np.arange(K)[None] == (np.arange(N) * 3 % K)[:, None], 0.0, -np.inf)


@pytest.mark.parametrize("name", [*OF_ANSWERS, *OF_SHADOWS])
def test_constants_tell_nothing_and_a_saturated_softmax_stays_finite(name: str) -> None:
    for answers in (CONSTANT, SATURATED):
        if name in OF_ANSWERS:
            scores = OF_ANSWERS[name](answers, LABELS)
        else:
            shadows = np.broadcast_to(answers, (S, N, K))
            scores = OF_SHADOWS[name](answers, LABELS, ShadowAnswers(shadows, _balanced(S, N), 20))
        assert np.isfinite(scores).all()
        if answers is CONSTANT:
            assert intervals.auc(scores[:20], scores[20:]).value == 0.5


@pytest.mark.parametrize("name", [*OF_ANSWERS, *OF_SHADOWS])
def test_nan_and_rows_without_a_probability_are_refused(name: str) -> None:
    for value, message in ((np.nan, "NaN"), (-np.inf, "no class")):
        answers, shadows = CONSTANT.copy(), np.zeros((S, N, K))
        answers[3] = value
        with pytest.raises(ValueError, match=message):
            if name in OF_ANSWERS:
                OF_ANSWERS[name](answers, LABELS)
            else:
                OF_SHADOWS[name](answers, LABELS, ShadowAnswers(shadows, _balanced(S, N), 20))


def test_scores_that_are_not_finite_are_refused() -> None:
    with pytest.raises(ValueError, match="finite"):
        Scored(np.array([0.0, np.nan]), np.zeros(3))


def test_the_threshold_accuses_as_many_as_there_are_members() -> None:
    draw = np.random.default_rng(0)
    scored = Scored(draw.normal(1, 1, 90), draw.normal(0, 1, 30))
    threshold = as_many_as_members(scored)
    assert sum((side >= threshold).sum() for side in (scored.members, scored.others)) == 90
    apart = Scored(np.arange(10.0, 100.0), np.arange(-30.0, 0.0))
    assert _measured(balanced_accuracy(apart, as_many_as_members(apart))).value == 1.0
    same = Scored(np.ones(90), np.ones(30))
    assert _measured(balanced_accuracy(same, as_many_as_members(same))).value == 0.5


def test_the_strongest_attacks_interval_allows_for_the_choice() -> None:
    values: list[MetricValue] = [
        Measured(0.60, 0.50, 0.70, 20),
        Measured(0.58, 0.55, 0.61, 900),
        Missing("too few"),
    ]
    assert strongest(values) == Measured(0.60, 0.55, 0.70, 20)
    assert strongest([Missing("first"), Missing("second")]) == Missing("first")
    # Eight useless attacks: the largest of their areas hardly ever has 0.5 outside its interval.
    draw, covered, chosen = np.random.default_rng(0), 0, 0
    for _ in range(300):
        sides = [(draw.normal(size=90), draw.normal(size=60)) for _ in range(8)]
        found = _measured(strongest([intervals.auc(*side, level=1 - 0.05 / 8) for side in sides]))
        covered += found.low <= 0.5 <= found.high
        best = max((intervals.auc(*side) for side in sides), key=lambda area: area.value)
        chosen += best.low <= 0.5 <= best.high
    assert covered / 300 >= 0.93 > chosen / 300


def test_a_rates_interval_allows_for_the_uncertain_threshold() -> None:
    # Equal sides: the true share above the threshold of 1 % is 1 %.
    draw, covered, wilson = np.random.default_rng(0), 0, 0
    for _ in range(400):
        members, others = draw.normal(size=2000), draw.normal(size=200)
        found = _measured(tpr_at_fpr(members, others, 0.01))
        covered += found.low <= 0.01 <= found.high
        plain = intervals.proportion(round(found.value * 2000), 2000)
        wilson += plain.low <= 0.01 <= plain.high
    assert covered / 400 >= 0.93 > wilson / 400


@pytest.mark.parametrize(("shift", "spread"), [(0.36, 1.0), (1.8, 1.0), (4.0, 1.0), (2.0, 0.4)])
@pytest.mark.parametrize(("others", "rate"), [(270, 0.01), (60, 0.05)])
def test_the_interval_of_a_rate_covers(
    others: int, rate: float, shift: float, spread: float
) -> None:
    truth = float(stats.norm.sf((stats.norm.isf(rate) - shift) / spread))
    draw, covered = np.random.default_rng(0), 0
    for _ in range(300):
        sides = draw.normal(shift, spread, 270), draw.normal(0, 1, others)
        found = _measured(tpr_at_fpr(*sides, rate))
        assert 0 <= found.low <= found.value <= found.high <= 1
        covered += found.low <= truth <= found.high
    assert covered / 300 >= 0.93 - 2 * 0.0147


def test_an_attack_that_separates_all_has_a_rate_above_nothing() -> None:
    # 270 non-members do not show 1.36 % of them 2.5 % of the time: at worst the members' scores
    # are those of the 1.36 %, and a threshold drawn by chance finds 1 / 1.36 of them.
    found = _measured(tpr_at_fpr(np.full(270, 9.0), np.arange(270) / 270, 0.01))
    assert found.value == found.high == 1.0
    assert found.low == pytest.approx(0.01 / (1 - 0.025 ** (1 / 270)), abs=1e-3)
    # More of them show a threshold that accuses 1 % for sure.
    found = _measured(tpr_at_fpr(np.full(270, 9.0), np.arange(2000) / 2000, 0.01))
    assert found.low == pytest.approx(0.025 ** (1 / 270))


def test_a_histogram_counts_every_score_once() -> None:
    draw = np.random.default_rng(0)
    for scored in (
        Scored(np.r_[draw.normal(0, 1, 299), 1e9], draw.normal(0, 1, 70)),
        Scored(np.ones(300), np.ones(70)),
    ):
        found = histogram(scored)
        assert len(found["edges"]) == 31 and np.diff(found["edges"]).min() > 0
        assert sum(found["members"]) == 300 and sum(found["non_members"]) == 70
        assert abs(found["edges"][-1]) < 10
