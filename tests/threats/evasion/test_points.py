"""How many points are attacked of whom."""

from dataclasses import replace

import pytest
import torch
from torch import nn

from tests.conftest import TrainedNet
from trainables.deployed.predictor import Predictor
from trainables.threats.evasion.points import RANDOM_POINTS, points_for
from trainables.trial.settings import Effort


class Slow(Predictor):
    """Random, or dear to differentiate."""

    def __init__(self, *, stochastic: bool = False, most: int | None = None) -> None:
        super().__init__(nn.Identity())
        self.stochastic, self.max_screen_points = stochastic, most


@pytest.mark.parametrize("effort", ["screen", "audit"])
def test_random_and_slow_models_are_attacked_on_fewer_points_which_are_always_the_same(
    effort: Effort, undefended: TrainedNet
) -> None:
    ctx = replace(undefended.ctx, spec=replace(undefended.ctx.spec, effort=effort))
    everything = points_for(Slow(), ctx)
    assert len(everything) == len(ctx.points())
    random = points_for(Slow(stochastic=True), ctx)
    assert len(random) == RANDOM_POINTS < len(everything)
    slow = points_for(Slow(stochastic=True, most=20), ctx)
    assert len(slow) == 20
    again = points_for(Slow(most=20), ctx)
    assert torch.equal(slow.pixels, again.pixels)


def test_a_number_that_is_asked_for_counts_in_a_screen_and_bounds_an_audit(
    undefended: TrainedNet,
) -> None:
    slow = Slow(stochastic=True, most=20)
    assert len(points_for(slow, undefended.ctx, 100)) == 100
    audit = replace(undefended.ctx, spec=replace(undefended.ctx.spec, effort="audit"))
    assert [len(points_for(slow, audit, asked)) for asked in (100, 10)] == [20, 10]
    assert len(points_for(Slow(), audit, 100)) == 100
    everything = len(undefended.ctx.points())
    assert len(points_for(Slow(), undefended.ctx, 10**6)) == everything
