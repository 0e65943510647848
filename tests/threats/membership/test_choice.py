"""The strongest attack is chosen, and turned round, where its figure is not computed."""

import numpy as np
import pytest
from scipy import stats

from trainables.metrics import intervals
from trainables.records.value import Measured, MetricValue
from trainables.threats.membership.choice import (
    best_directed,
    strongest_auc,
    strongest_balanced,
    strongest_rate,
)
from trainables.threats.membership.rates import Scored

NAMES = ("loss_threshold", "entropy", "modified_entropy", "label_only")


def _measured(found: MetricValue) -> Measured:
    assert isinstance(found, Measured)
    return found


def _attacks(
    draw: np.random.Generator, *shifts: float, m: int = 90, n: int = 60
) -> dict[str, Scored]:
    """Return an attack for each shift, whose members' scores are that much higher."""
    return {
        name: Scored(draw.normal(shift, 1, m), draw.normal(0, 1, n))
        for name, shift in zip(NAMES, shifts, strict=False)
    }


def _area(shift: float) -> float:
    return float(stats.norm.cdf(shift / np.sqrt(2)))


def test_scores_the_wrong_way_round_count_as_those_the_right_way_round() -> None:
    for seed in range(5):
        attacks = _attacks(np.random.default_rng(seed), 1.5, 0.1)
        turned = {name: each.turned() for name, each in attacks.items()}
        found, mirrored = (
            strongest_auc(each, np.random.default_rng(0)) for each in (attacks, turned)
        )
        assert mirrored.value == pytest.approx(found.value)
        assert (mirrored.low, mirrored.high) == pytest.approx((found.low, found.high))
        assert found.low > 0.5
        assert best_directed(attacks) == ("loss_threshold", False)
        assert best_directed(turned) == ("loss_threshold", True)
        rates = [_measured(strongest_rate(each, 0.05)).value for each in (attacks, turned)]
        assert rates[0] == rates[1] > 0.1
        balanced = _measured(strongest_balanced(turned, np.random.default_rng(0)))
        assert balanced.low > 0.5


def test_a_choice_that_all_halves_agree_on_costs_nothing() -> None:
    attacks = _attacks(np.random.default_rng(0), 2.0, 0.0, -0.2)
    own = intervals.auc(attacks["loss_threshold"].members, attacks["loss_threshold"].others)
    assert strongest_auc(attacks, np.random.default_rng(1)).value == pytest.approx(own.value)


def test_without_a_leak_the_mean_is_one_half_whatever_is_chosen() -> None:
    draw = np.random.default_rng(0)
    shown: dict[str, list[float]] = {"chosen elsewhere": [], "balanced": [], "chosen here": []}
    covered = 0
    for _ in range(120):
        attacks = _attacks(draw, 0.0, 0.0, 0.0, 0.0)
        found = strongest_auc(attacks, draw)
        covered += found.low <= 0.5 <= found.high
        shown["chosen elsewhere"].append(found.value)
        shown["balanced"].append(_measured(strongest_balanced(attacks, draw)).value)
        areas = [intervals.auc(each.members, each.others).value for each in attacks.values()]
        shown["chosen here"].append(max(max(area, 1 - area) for area in areas))
    # The mean of 120 has a standard error of about 0.005.
    assert np.mean(shown["chosen elsewhere"]) == pytest.approx(0.5, abs=0.02)
    assert np.mean(shown["balanced"]) == pytest.approx(0.5, abs=0.02)
    assert np.mean(shown["chosen here"]) > 0.54
    assert covered >= 0.93 * 120


@pytest.mark.parametrize("shifts", [(0.5, 0.4, 0.0), (-0.5, 0.1, 0.0), (-0.1, 0.1, 0.05)])
def test_the_interval_covers_the_area_of_the_strongest_attack(shifts: tuple[float, ...]) -> None:
    truth = max(max(_area(shift), 1 - _area(shift)) for shift in shifts)
    draw, covered = np.random.default_rng(0), 0
    for _ in range(100):
        found = strongest_auc(_attacks(draw, *shifts), draw)
        assert 0 <= found.low <= found.value <= found.high <= 1
        covered += found.low <= truth <= found.high
    assert covered >= 92


def test_an_attack_that_asked_fewer_rows_is_halved_with_the_others() -> None:
    draw = np.random.default_rng(0)
    attacks = _attacks(draw, 0.0, 0.0)
    few, fewer = np.arange(0, 90, 9), np.arange(0, 60, 10)
    scores = Scored(draw.normal(5, 1, len(few)), draw.normal(0, 1, len(fewer)), few, fewer)
    found = strongest_auc({**attacks, "label_only": scores}, np.random.default_rng(0))
    assert found.value > 0.95 and found.n == len(few) + len(fewer)


def test_halves_are_drawn_by_class_as_the_pools_are() -> None:
    # A net that always answers class 0 is right on a tenth of each side: nothing to choose from.
    right = [np.arange(size) % 10 == 0 for size in (900, 270)]
    attacks = {name: Scored(*(side.astype(float) for side in right)) for name in NAMES}
    classes = (np.arange(900) % 10, np.arange(270) % 10)
    for seed in range(5):
        draw = np.random.default_rng(seed)
        assert strongest_auc(attacks, draw, classes).value == pytest.approx(0.5, abs=0.005)


@pytest.mark.parametrize(("m", "n"), [(1, 1), (1, 9), (2, 2), (3, 1)])
def test_few_rows_have_a_figure_within_a_wide_interval(m: int, n: int) -> None:
    for seed in range(5):
        attacks = _attacks(np.random.default_rng(seed), 0.0, 0.0, m=m, n=n)
        found = strongest_auc(attacks, np.random.default_rng(0))
        assert 0 <= found.low <= 0.5 <= found.high <= 1
        assert found.high > 0.9
