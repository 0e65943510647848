from dataclasses import replace

import pytest
import torch
from torch import Tensor
from torch.nn import functional as F

from tests.conftest import TrainedNet
from tests.making import FixedPredictor
from trainables.datasets import LabelledImages
from trainables.defenses.prediction.temperature import (
    Temperature,
    TemperedPredictor,
    fit_temperature,
)
from trainables.deployed.predictor import Predictor
from trainables.trial.context import TrialContext

GENERATOR = torch.Generator()


def _calibrated_on(ctx: TrialContext, labels: Tensor) -> TrialContext:
    """Return the context with a calibration pool of these labels; the pixels do not matter."""
    pixels = torch.zeros(len(labels), 1, 8, 8, dtype=torch.uint8)
    images = LabelledImages(pixels=pixels, labels=labels, scale=16)
    return replace(ctx, pools=replace(ctx.pools, calibration=images))


def _synthetic(T: float, count: int = 5000) -> tuple[Tensor, Tensor]:
    """Return scores that are T times those which the labels were drawn from."""
    generator = torch.Generator().manual_seed(0)
    honest = 2 * torch.randn(count, 10, generator=generator)
    labels = torch.multinomial(honest.softmax(1), 1, generator=generator).flatten()
    return T * honest, labels


@pytest.mark.parametrize("T", [0.3, 1.0, 2.5, 20.0])
def test_fitting_finds_a_known_temperature(T: float, undefended: TrainedNet) -> None:
    scores, labels = _synthetic(T)
    ctx = _calibrated_on(undefended.ctx, labels)
    assert fit_temperature(FixedPredictor(scores), ctx) == pytest.approx(T, rel=0.05)


@pytest.mark.parametrize("T", [1e-4, 0.5, 1e4])
def test_fitting_never_raises_the_loss(T: float, undefended: TrainedNet) -> None:
    scores, labels = _synthetic(T, 300)
    ctx = _calibrated_on(undefended.ctx, labels)
    fitted = fit_temperature(FixedPredictor(scores), ctx)
    assert 0.01 <= fitted <= 100
    after = F.cross_entropy(scores.double() / fitted, labels)
    assert float(after) <= float(F.cross_entropy(scores.double(), labels))


def test_fitting_on_a_real_net_lowers_the_loss_and_uses_calibration_alone(
    undefended: TrainedNet,
) -> None:
    ctx, plain = undefended.ctx, Predictor(undefended.model)
    tempered = Temperature(T="fit").deploy(plain, ctx)
    assert isinstance(tempered, TemperedPredictor)
    calibration = ctx.pools.calibration
    assert calibration is not None

    def nll(predictor: Predictor) -> float:
        found = ctx.log_probabilities(predictor, calibration)
        return float(F.nll_loss(found.double(), calibration.labels))

    assert nll(tempered) <= nll(plain) + 1e-9
    blind = replace(ctx, pools=replace(ctx.pools, train=calibration, test=calibration))
    assert fit_temperature(plain, blind) == tempered.T


@pytest.mark.parametrize("T", [0.001, 0.5, 1.5, 1000.0])
def test_the_predicted_class_never_changes(T: float, undefended: TrainedNet) -> None:
    # Near ties: in float32 they vanish among scores that are all divided by a large T.
    generator = torch.Generator().manual_seed(0)
    ties = 1 + 1e-6 * torch.rand(500, 10, generator=generator)
    for plain in (
        Predictor(undefended.model),
        FixedPredictor(ties),
        FixedPredictor(50 * torch.randn(500, 10, generator=generator)),
    ):
        x = undefended.ctx.pools.train.images()[:500]
        before = plain.predict(x, GENERATOR).label
        assert torch.equal(TemperedPredictor(plain, T).predict(x, GENERATOR).label, before)


@pytest.mark.parametrize("T", [0.5, 3.0])
def test_probabilities_and_surfaces_are_those_of_the_scores_over_t(
    T: float, undefended: TrainedNet
) -> None:
    x, plain = undefended.x, Predictor(undefended.model)
    tempered = TemperedPredictor(plain, T)
    expected = undefended.model(x) / T
    torch.testing.assert_close(tempered.probabilities(x), expected.softmax(1))
    (surface,) = tempered.surfaces()
    assert surface.kind == "exact"
    torch.testing.assert_close(surface.scores(x, GENERATOR), expected)
    assert tempered.certify(x, GENERATOR) is None
    assert tempered.forward_passes_per_prediction == 1 and not tempered.stochastic


def test_only_a_fitted_temperature_needs_the_calibration_pool() -> None:
    assert Temperature(T="fit").needs_calibration
    assert not Temperature(T=2.0).needs_calibration
