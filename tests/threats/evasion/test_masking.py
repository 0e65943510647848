"""The arithmetic of the masking check's indicators."""

import numpy as np
import pytest
import torch
from scipy import stats

from tests.conftest import TrainedNet
from trainables.deployed.predictor import Predictor
from trainables.threats.evasion.masking import MARGIN, paired, share, verdict, without_gradient
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
