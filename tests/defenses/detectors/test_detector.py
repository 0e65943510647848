import pytest
import torch
from torch import Tensor

from tests.conftest import TrainedNet
from trainables.defenses.detectors.detector import (
    DetectingPredictor,
    fit_threshold,
    threshold_on_calibration,
)
from trainables.deployed.predictor import REFUSED, Predictor
from trainables.errors import InputError, PredictorError

GENERATOR = torch.Generator()


def _brightness(x: Tensor, generator: torch.Generator) -> Tensor:
    del generator
    return x.flatten(1).mean(1)


@pytest.mark.parametrize(
    ("count", "rate", "kept"), [(19, 0.05, 19), (20, 0.05, 20), (99, 0.05, 95), (100, 0.1, 91)]
)
def test_the_threshold_is_the_conformal_order_statistic(count: int, rate: float, kept: int) -> None:
    shuffled = torch.randperm(count, generator=torch.Generator().manual_seed(0))
    assert fit_threshold(shuffled + 1.0, rate) == kept


def test_calibration_rejections_are_at_most_the_rate_and_within_one_image_of_it() -> None:
    for count in range(20, 400, 7):
        scores = torch.randn(count, generator=torch.Generator().manual_seed(count))
        for rate in (0.05, 0.1, 0.37):
            rejected = int((scores > fit_threshold(scores, rate)).sum())
            assert rate * count - 2 < rejected <= rate * count


def test_new_images_are_rejected_at_most_at_the_rate_on_average() -> None:
    generator = torch.Generator().manual_seed(0)
    shares = []
    for _ in range(3000):
        scores = torch.randn(39, generator=generator)
        new = torch.randn(100, generator=generator)
        shares.append(float((new > fit_threshold(scores, 0.05)).double().mean()))
    # 2 of 40 ranks: the bound is met exactly, to three standard errors of the mean of shares.
    assert torch.tensor(shares).mean() == pytest.approx(0.05, abs=3 * 0.034 / 3000**0.5)


def test_too_few_images_and_scores_that_are_no_numbers_are_refused() -> None:
    with pytest.raises(InputError, match=r"0\.05 cannot be set on 18 .* raise it to 0\.0527"):
        fit_threshold(torch.arange(18.0), 0.05)
    with pytest.raises(PredictorError, match="not finite"):
        fit_threshold(torch.tensor([0.0] * 30 + [float("nan")]), 0.05)


def test_an_image_is_refused_exactly_where_its_margin_is_positive(undefended: TrainedNet) -> None:
    plain, x = Predictor(undefended.model), undefended.x
    threshold = threshold_on_calibration(_brightness, 0.2, undefended.ctx)
    detecting = DetectingPredictor(plain, _brightness, threshold, passes=2)
    found, before = detecting.predict(x, GENERATOR), plain.predict(x, GENERATOR)
    refused = found.label == REFUSED
    assert 0 < int(refused.sum()) < len(x)
    assert torch.equal(refused, detecting.reject_margin(x, GENERATOR) > 0)
    assert torch.equal(found.label[~refused], before.label[~refused])
    assert torch.equal(found.log_probabilities, before.log_probabilities)
    assert found.reject_score is not None
    assert torch.equal(found.reject_score, _brightness(x, GENERATOR))
    assert detecting.rejects and detecting.forward_passes_per_prediction == 3


def test_every_inner_surface_is_attacked_with_the_margin(undefended: TrainedNet) -> None:
    plain, x = Predictor(undefended.model), undefended.x[:8].clone().requires_grad_(True)
    (surface,) = DetectingPredictor(plain, _brightness, 0.3, passes=0).surfaces()
    assert surface.kind == "exact" and surface.reject_margin is not None
    torch.testing.assert_close(surface.scores(x, GENERATOR), undefended.model(x))
    (gradient,) = torch.autograd.grad(surface.reject_margin(x, GENERATOR).sum(), x)
    torch.testing.assert_close(gradient, torch.full_like(gradient, 1 / 64))


def test_a_detector_before_a_detector_is_refused(undefended: TrainedNet) -> None:
    one = DetectingPredictor(Predictor(undefended.model), _brightness, 0.3, passes=0)
    with pytest.raises(PredictorError, match="rejects images already"):
        DetectingPredictor(one, _brightness, 0.3, passes=0)
