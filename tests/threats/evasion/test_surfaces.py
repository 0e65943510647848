"""A screen attacks every way to differentiate a defense, and counts what any of them breaks."""

from dataclasses import dataclass

import pytest
import torch
from torch import Tensor, nn

from tests.conftest import TrainedNet
from tests.making import EPS
from trainables.defenses.prediction.input_transformation import TransformingPredictor
from trainables.defenses.prediction.squeezers import Squeezer, Transform
from trainables.deployed.predictor import Predictor, Surface
from trainables.threats.evasion.attacking import Attacker
from trainables.threats.evasion.efforts import core_attacks, headline_of, settings_of
from trainables.threats.evasion.target import target_of

POINTS = 20


def _inverted(x: Tensor) -> Tensor:
    return 1 - x


def _flat(x: Tensor) -> Tensor:
    """Return no image at all, with a gradient of zero."""
    return 0 * x


class _OfInverted(nn.Module):
    """Undoes the inversion, so that the net sees the image itself."""

    def __init__(self, model: nn.Module) -> None:
        super().__init__()
        self.model = model

    def forward(self, x: Tensor) -> Tensor:
        scores: Tensor = self.model(1 - x)
        return scores


@dataclass(frozen=True)
class _Planted:
    """A transformation of which one backward pass leads somewhere and the other nowhere."""

    transform: Transform
    surrogate: Transform
    leads: int
    """Number of the way that leads through; a squeezer lists its surrogate first."""

    def deployed(self, net: nn.Module) -> TransformingPredictor:
        inner = _OfInverted(net) if self.transform is _inverted else net
        squeezer = Squeezer(self.transform, exact=False, surrogate=self.surrogate)
        return TransformingPredictor(Predictor(inner), squeezer)


class _Through(Predictor):
    """The same deployed model with some of its surfaces."""

    def __init__(self, whole: TransformingPredictor, surfaces: list[Surface]) -> None:
        super().__init__(nn.Identity())
        self.whole, self.given = whole, surfaces

    def scores(self, x: Tensor, generator: torch.Generator) -> Tensor:
        """Answer as the whole one does."""
        return self.whole.scores(x, generator)

    def surfaces(self) -> list[Surface]:
        """Return those that were given."""
        return self.given


# The identity leads through a step that changes nothing, and against the gradient of 1 - x.
IDENTITY_LEADS = _Planted(lambda x: x, _flat, leads=1)
SURROGATE_LEADS = _Planted(_inverted, _inverted, leads=0)


def _robust(net: TrainedNet, predictor: Predictor) -> int:
    """Return how many points stand against all that a screen's robust accuracy takes."""
    points = net.ctx.points()
    points = points.select(torch.arange(POINTS))
    target = target_of(predictor, points, net.ctx)
    attacker = Attacker(target, points, net.ctx, settings_of("screen", target))
    standing = torch.ones(POINTS, dtype=torch.bool)
    for name in headline_of(core_attacks("screen", target)):
        standing &= attacker.run(name, eps=EPS).withstood
    return int(standing.sum())


@pytest.mark.parametrize("planted", [IDENTITY_LEADS, SURROGATE_LEADS], ids=["identity", "other"])
def test_a_screen_breaks_what_either_backward_pass_leads_to(
    planted: _Planted, undefended: TrainedNet
) -> None:
    whole = planted.deployed(undefended.model)
    surfaces = whole.surfaces()
    leading, flat = surfaces[planted.leads], surfaces[1 - planted.leads]
    by_one = _robust(undefended, _Through(whole, [leading]))
    misled = _robust(undefended, _Through(whole, [flat]))
    both = _robust(undefended, whole)
    # The second surface starts its attacks from other random points.
    assert both <= by_one + POINTS // 20
    assert misled > both + POINTS // 4


def test_a_screen_takes_more_steps_where_a_gradient_is_a_surrogates(
    undefended: TrainedNet,
) -> None:
    points = undefended.ctx.points()
    steps = [
        settings_of("screen", target_of(predictor, points, undefended.ctx))[name]["steps"]
        for predictor in (Predictor(undefended.model), IDENTITY_LEADS.deployed(undefended.model))
        for name in ("targeted_margin_pgd", "targeted_margin_pgd_l2")
    ]
    assert steps == [20, 20, 100, 100]
