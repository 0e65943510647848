"""Each certified point is attacked inside its own radius; a false certificate is refuted there."""

from dataclasses import replace

import pytest
import torch
from torch import Tensor

from tests.conftest import TrainedNet
from tests.threats.predictors import OneRow
from trainables.attacks.shared.balls import l2_norms
from trainables.defenses.certified.randomized_smoothing import (
    RandomizedSmoothing,
    SmoothedPredictor,
)
from trainables.deployed.predictor import REFUSED, Certificates, Prediction, Predictor
from trainables.threats.certificate_attack import (
    INSIDE,
    _candidates,
    attack_certified,
    judge,
)
from trainables.threats.certification import Certification
from trainables.trial.context import TrialContext

SIGMA = 0.25
SETTINGS = RandomizedSmoothing(sigma=SIGMA, n0=50, n=500, draws=100)


class Liar(SmoothedPredictor):
    """Certifies eight times the radius that it could."""

    def certificates(self, x: Tensor, generator: torch.Generator) -> Certificates:
        """Return certificates that are false."""
        found = super().certificates(x, generator)
        return replace(found, radius=8 * found.radius)


def _audited(net: TrainedNet) -> TrialContext:
    return replace(net.ctx, spec=replace(net.ctx.spec, effort="audit"))


def test_honest_certificates_stand_and_false_ones_are_refuted(undefended: TrainedNet) -> None:
    inner, ctx = Predictor(undefended.model), _audited(undefended)
    refuted = {}
    for kind in (SmoothedPredictor, Liar):
        found = Certification(points=24).measure(kind(inner, SETTINGS), ctx).notes
        attacked = found["attacked"]
        assert attacked["inside"] == INSIDE
        certified = [i for i, radius in enumerate(found["radii"]) if radius > 1e-4]
        assert attacked["points"] == certified and len(certified) >= 10
        assert len(attacked["refuted"]) == len(attacked["wavered"]) == len(certified)
        refuted[kind] = sum(attacked["refuted"])
        assert sum(attacked["wavered"]) >= refuted[kind]
    assert refuted[SmoothedPredictor] == 0 and refuted[Liar] >= 3


def test_the_attacks_reach_the_radius_of_each_point_and_stay_inside(
    undefended: TrainedNet,
) -> None:
    predictor = SmoothedPredictor(Predictor(undefended.model), SETTINGS)
    x, y = undefended.x[:8], undefended.y[:8]
    radius = torch.linspace(0.05, 0.4, 8)
    generator = torch.Generator().manual_seed(0)
    made = list(_candidates(predictor, x, y, radius, undefended.ctx, generator))
    assert len(made) == 3  # PGD on averaged draws and on the network, Carlini and Wagner on that
    for images in made:
        far = l2_norms(images - x)
        assert bool((far <= radius + 1e-6).all()) and float((far / radius).median()) > 0.98
        assert float(images.min()) >= 0 and float(images.max()) <= 1


def test_a_screen_attacks_no_certificate(undefended: TrainedNet) -> None:
    predictor = SmoothedPredictor(Predictor(undefended.model), SETTINGS)
    assert "attacked" not in Certification(points=4).measure(predictor, undefended.ctx).notes
    plain = Certification(points=4).measure(Predictor(undefended.model), _audited(undefended))
    assert "attacked" not in plain.notes


def test_without_a_certified_point_nothing_is_attacked(undefended: TrainedNet) -> None:
    predictor = SmoothedPredictor(Predictor(undefended.model), SETTINGS)
    points = undefended.ctx.points().select(torch.arange(3))
    none = Certificates(torch.full((3,), REFUSED), torch.zeros(3).double(), torch.ones(3), 0.001)
    found = attack_certified(predictor, points, none, undefended.ctx)
    assert found["points"] == found["refuted"] == [] and found["settling"] is None


def test_an_answer_that_draws_nothing_is_refuted_at_once_and_an_abstention_only_wavers() -> None:
    row = OneRow(torch.tensor([0.0, 3.0, 1.0]))
    images, generator = torch.zeros(3, 1, 2, 2), torch.Generator()
    found = judge(row, images, torch.tensor([1, 0, 2]), 3, generator)
    assert found.refuted.tolist() == found.wavered.tolist() == [False, True, True]

    class Abstains(OneRow):
        def predict(self, x: Tensor, generator: torch.Generator) -> Prediction:
            answer = super().predict(x, generator)
            return replace(answer, label=torch.full_like(answer.label, REFUSED))

    found = judge(Abstains(row.row), images, torch.tensor([1, 0, 2]), 3, generator)
    assert not found.refuted.any() and bool(found.wavered.all())


class Coin(OneRow):
    """Answers class 1 with a probability, else class 0."""

    def __init__(self, p: float) -> None:
        super().__init__(torch.zeros(2))
        self.p, self.stochastic = p, True
        self.forward_passes_per_prediction = 10

    def scores(self, x: Tensor, generator: torch.Generator) -> Tensor:
        """Return scores (B, 2) of one draw an image."""
        heads = torch.rand(len(x), generator=generator) < self.p
        return torch.nn.functional.one_hot(heads.long(), 2).float()


@pytest.mark.parametrize(("p", "refuted"), [(0.2, True), (0.5, False), (0.9, False)])
def test_a_random_answer_is_refuted_only_by_many_draws(p: float, refuted: bool) -> None:
    generator = torch.Generator().manual_seed(3)
    found = judge(Coin(p), torch.zeros(4, 1, 2, 2), torch.ones(4).long(), 2, generator)
    assert found.refuted.tolist() == [refuted] * 4
