"""The arithmetic of the masking check's indicators."""

import numpy as np
import pytest
import torch
from scipy import stats

from search_spaces import available, load_space
from tests.conftest import TrainedNet
from trainables.defenses.prediction.diffusion_purification import SCREEN_POINTS as SLOWEST
from trainables.deployed.predictor import Predictor
from trainables.threats.evasion.masking import (
    MARGIN,
    Indicator,
    broken_alone,
    paired,
    share,
    verdict,
    without_gradient,
)
from trainables.threats.evasion.masking_check import CHECKED
from trainables.threats.evasion.points import RANDOM_POINTS
from trainables.threats.evasion.signs.power import (
    ENOUGH,
    MASK,
    count_needed,
    points_needed,
    power,
)
from trainables.threats.evasion.target import target_of


def _pairs(both: int, first: int, second: int, neither: int) -> tuple[torch.Tensor, torch.Tensor]:
    rows = [(1, 1)] * both + [(1, 0)] * first + [(0, 1)] * second + [(0, 0)] * neither
    table = torch.tensor(rows, dtype=torch.bool)
    return table[:, 0], table[:, 1]


def test_a_paired_difference_counts_what_only_one_attack_breaks() -> None:
    found = paired("x", "words", *_pairs(100, 4, 20, 76))
    assert found.n == 200 and found.figure == pytest.approx((20 - 4) / 200)
    # Agresti and Min, 2005, section 4: Wald's bound on counts with half a point added to each.
    centre, spread = 16 / 202, np.sqrt((25 / 202 - (16 / 202) ** 2) / 202)
    assert found.low == pytest.approx(centre - stats.norm.ppf(0.95) * spread)
    assert found.failed is (found.low > MARGIN)


@pytest.mark.parametrize(("second", "failed"), [(0, False), (6, False), (40, True)])
def test_only_a_clear_difference_fails(second: int, failed: bool) -> None:
    assert paired("x", "words", *_pairs(50, 0, second, 270 - 50 - second)).failed is failed


def _alone(both: int, first: int, second: int, neither: int) -> Indicator:
    return broken_alone("x", "words", *_pairs(both, first, second, neither))


def test_what_the_stronger_attacks_break_hides_nothing_that_a_weaker_one_breaks_alone() -> None:
    # Five of forty that noise breaks and no gradient does, with one or thirty the other way.
    for first in (0, 1, 30):
        found = _alone(0, first, 5, 35 - first)
        assert found.figure == 5 / 40 and found.failed
        # Clopper and Pearson: at this share, five or more of 40 are seen in 5 % of all samples.
        assert stats.binom.sf(4, 40, found.low) == pytest.approx(0.05, abs=1e-9)
    assert not _alone(0, 0, 2, 38).failed
    # The difference of both directions saw nothing there.
    assert not paired("x", "words", *_pairs(0, 1, 5, 34)).failed


@pytest.mark.parametrize("alone", [0.0, 0.01, MARGIN])
@pytest.mark.parametrize("n", [40, 64, 150, 270])
def test_a_share_up_to_the_margin_raises_an_alarm_in_one_of_twenty_at_most(
    alone: float, n: int
) -> None:
    assert stats.binom.sf(count_needed(n, MARGIN) - 1, n, alone) <= 0.05


@pytest.mark.parametrize(
    ("n", "needed", "expected"), [(40, 3, 0.78), (64, 4, 0.89), (100, 6, 0.94), (150, 7, 0.99)]
)
def test_the_power_is_that_of_the_count_which_shows(n: int, needed: int, expected: float) -> None:
    assert count_needed(n, MARGIN) == needed
    assert _alone(0, 0, needed, n - needed).failed
    assert not _alone(0, 0, needed - 1, n - needed + 1).failed
    assert power(n, MARGIN) == pytest.approx(expected, abs=0.006)
    draws = np.random.default_rng(n).binomial(n, MASK, 20_000)
    seen = float((draws >= needed).mean())
    assert power(n, MARGIN) == pytest.approx(seen, abs=4 * np.sqrt(0.25 / 20_000))


def test_from_the_points_needed_on_the_power_is_enough() -> None:
    needed = points_needed(MARGIN)
    assert power(needed - 1, MARGIN) < ENOUGH
    assert all(power(n, MARGIN) >= ENOUGH for n in range(needed, 2000))
    assert power(0, MARGIN) == 0 and count_needed(1, MARGIN) == 1


def test_the_verdict_says_how_large_a_mask_its_weakest_sign_would_see() -> None:
    signs = [_alone(10, 0, 0, n - 10) for n in (150, 64)]
    signs.append(share("few", "of the resisting", torch.zeros(9, dtype=torch.bool)))
    found = verdict(signs)["sight"]
    assert (found["n"], found["mask"], found["enough"]) == (64, 0.1, 0.8)
    assert found["probability"] == pytest.approx(0.89, abs=0.01)
    assert found["points_needed"] == points_needed(MARGIN) <= 64
    assert verdict(signs[2:])["sight"] is None


@pytest.mark.parametrize("name", available())
def test_a_shipped_audit_attacks_enough_points_to_verify(name: str) -> None:
    file = load_space(name).file
    points = file.audit.points
    assert points is None or points >= points_needed(MARGIN)
    assert min(RANDOM_POINTS, CHECKED, SLOWEST) >= points_needed(MARGIN)


@pytest.mark.parametrize("excess", [0.0, 0.02])
def test_an_honest_difference_raises_few_alarms(excess: float) -> None:
    generator = np.random.default_rng(0)
    alarms = 0
    for _ in range(2000):
        kinds = generator.choice(4, 270, p=[0.5, 0.05, 0.05 + excess, 0.4 - excess])
        counts = np.bincount(kinds, minlength=4)
        alarms += paired("x", "words", *_pairs(*(int(count) for count in counts))).failed
    assert alarms / 2000 <= 0.05 + 3 * np.sqrt(0.05 * 0.95 / 2000)


def test_a_share_has_an_exact_lower_bound() -> None:
    found = share("x", "words", torch.arange(100) < 10, limit=0.05)
    assert found.figure == 0.1 and found.low == pytest.approx(0.0553, abs=1e-4) and found.failed
    assert not share("x", "words", torch.arange(100) < 8, limit=0.05).failed
    assert not share("x", "words", torch.zeros(0, dtype=torch.bool)).failed


def test_the_verdict_says_what_failed() -> None:
    good = paired("good", "nothing", *_pairs(10, 0, 0, 90))
    bad = paired("bad", "noise breaks more", *_pairs(10, 0, 50, 40))
    assert verdict([good])["words"] == "" and not verdict([good])["suspected"]
    found = verdict([good, bad])
    assert found["suspected"] and found["words"].startswith("noise breaks more (50.0 % of 100")
    assert [row["failed"] for row in found["indicators"]] == [False, True]


def test_points_without_a_gradient_are_found(undefended: TrainedNet) -> None:
    class HalfBlind(Predictor):
        def scores(self, x: torch.Tensor, generator: torch.Generator) -> torch.Tensor:
            bright = x.flatten(1).mean(1, keepdim=True) > 0.3
            scores = super().scores(x, generator)
            return torch.where(bright, scores.detach(), scores)

    ctx, points = undefended.ctx, undefended.ctx.points()
    target = target_of(HalfBlind(undefended.model), points, ctx)
    bright = points.images().flatten(1).mean(1) > 0.3
    assert 0 < int(bright.sum()) < len(bright)
    without, not_finite = without_gradient(target, points, ctx)
    assert torch.equal(without, bright) and not bool(not_finite.any())


def test_points_without_a_finite_gradient_are_found(undefended: TrainedNet) -> None:
    class SteepOnHalf(Predictor):
        def scores(self, x: torch.Tensor, generator: torch.Generator) -> torch.Tensor:
            bright = x.flatten(1).mean(1)[:, None, None, None] > 0.3
            # The root of what is always zero: its value is zero, its slope infinite.
            root = torch.where(bright, x - x.detach(), 1.0).sqrt()
            return super().scores(x + torch.where(bright, root, 0.0), generator)

    ctx, points = undefended.ctx, undefended.ctx.points()
    target = target_of(SteepOnHalf(undefended.model), points, ctx)
    bright = points.images().flatten(1).mean(1) > 0.3
    assert 0 < int(bright.sum()) < len(bright)
    without, not_finite = without_gradient(target, points, ctx)
    assert torch.equal(not_finite, bright) and not bool(without.any())
