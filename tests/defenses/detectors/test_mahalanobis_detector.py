import copy

import pytest
import torch
from sklearn.covariance import LedoitWolf
from torch import Tensor

from tests.conftest import TrainedNet
from tests.making import EPS
from trainables.attacks import attack
from trainables.defenses.detectors.detector import DetectingPredictor
from trainables.defenses.detectors.mahalanobis_detector import MahalanobisDetector, fit_distance
from trainables.defenses.prediction.randomized_network import RandomDropout
from trainables.deployed.predictor import REFUSED, Predictor
from trainables.metrics import intervals
from trainables.models.contract import Classifier


@pytest.fixture(scope="module")
def detecting(undefended: TrainedNet) -> DetectingPredictor:
    """Deploy the undefended net with the detector."""
    found = MahalanobisDetector().deploy(Predictor(undefended.model), undefended.ctx)
    assert isinstance(found, DetectingPredictor)
    return found


def _generator() -> torch.Generator:
    return torch.Generator().manual_seed(0)


def _features(count: int = 300, width: int = 6) -> tuple[Tensor, Tensor]:
    """Return features of three classes that share a skewed covariance."""
    labels = torch.arange(count) % 3
    mixing = torch.randn(width, width, generator=_generator())
    noise = torch.randn(count, width, generator=torch.Generator().manual_seed(1)) @ mixing
    return noise + 5 * torch.eye(3, width)[labels], labels


def _auc(suspicious: Tensor, clean: Tensor) -> float:
    return intervals.auc(suspicious.double().numpy(), clean.double().numpy()).value


def test_the_distance_is_scikit_learn_s() -> None:
    features, labels = _features()
    means = torch.stack([features[labels == label].mean(0) for label in range(3)])
    tied = LedoitWolf(assume_centered=True).fit((features - means[labels]).double().numpy())
    new = 3 * torch.randn(40, 6, generator=_generator())
    expected = torch.stack(
        [torch.tensor(tied.mahalanobis((new - mean).double().numpy())) for mean in means]
    ).amin(0)
    found = fit_distance(features, labels)(new)
    torch.testing.assert_close(found.double(), expected, rtol=1e-4, atol=1e-4)


def test_the_distance_does_not_hang_on_the_units_of_plentiful_features() -> None:
    features, labels = _features(30_000)
    mixing = torch.eye(6) + 0.3 * torch.randn(6, 6, generator=_generator())
    new = features[:50]
    plain = fit_distance(features, labels)(new)
    mixed = fit_distance(features @ mixing, labels)(new @ mixing)
    torch.testing.assert_close(mixed, plain, rtol=0.05, atol=0.05)


def test_the_nearest_class_counts_and_its_mean_is_at_distance_zero() -> None:
    features, labels = _features()
    distance = fit_distance(features, labels)
    for label in range(3):
        mean = features[labels == label].mean(0, keepdim=True)
        assert float(distance(mean)) == pytest.approx(0, abs=1e-6)


def test_features_that_are_never_active_and_absent_classes_do_no_harm() -> None:
    features, labels = _features()
    dead = torch.cat([features, torch.zeros(len(features), 4)], dim=1)
    distance = fit_distance(dead, 2 * labels)  # classes 1 and 3 have no image
    assert bool(distance(dead).isfinite().all())
    woken = dead[:5].clone()
    woken[:, -1] = 1.0
    assert bool((distance(woken) > distance(dead[:5])).all())


def test_it_rejects_no_more_of_the_calibration_pool_than_it_says(undefended: TrainedNet) -> None:
    calibration = undefended.ctx.pools.calibration
    assert calibration is not None
    for rate in (0.05, 0.2):
        predictor = MahalanobisDetector(false_positive_rate=rate).deploy(
            Predictor(undefended.model), undefended.ctx
        )
        label = predictor.predict(calibration.images(), _generator()).label
        assert rate / 2 < float((label == REFUSED).double().mean()) <= rate


def test_suspicious_images_score_higher(
    detecting: DetectingPredictor, undefended: TrainedNet
) -> None:
    model, x, y = undefended.model, undefended.x, undefended.y
    attacked = attack("pgd")(model, x, y, eps=EPS, steps=20, generator=_generator()).detach()
    with torch.no_grad():
        fooled = (model(x).argmax(1) == y) & (model(attacked).argmax(1) != y)
        clean = detecting.score(x, _generator())
        noise = detecting.score(torch.rand(x.shape, generator=_generator()), _generator())
        moved = detecting.score(attacked, _generator())
    assert _auc(noise, clean) > 0.95
    assert _auc(moved[fooled], clean[fooled]) > 0.65


def test_the_margin_has_the_sign_of_the_rejections_and_a_gradient(
    detecting: DetectingPredictor, undefended: TrainedNet
) -> None:
    noise = torch.rand(undefended.x.shape, generator=_generator())
    x = torch.cat([undefended.x, noise]).requires_grad_(True)
    (surface,) = detecting.surfaces()
    assert surface.reject_margin is not None
    margin = surface.reject_margin(x, _generator())
    found = detecting.predict(x, _generator())
    assert torch.equal(margin > 0, found.label == REFUSED)
    assert 0 < int((margin > 0).sum()) < len(x)
    (gradient,) = torch.autograd.grad(margin.sum(), x)
    assert bool(gradient.isfinite().all()) and bool((gradient != 0).flatten(1).any(1).all())


def test_what_is_accepted_is_answered_as_before(
    detecting: DetectingPredictor, undefended: TrainedNet
) -> None:
    plain = Predictor(undefended.model).predict(undefended.x, _generator())
    found = detecting.predict(undefended.x, _generator())
    accepted = found.label != REFUSED
    assert torch.equal(found.label[accepted], plain.label[accepted])
    assert torch.equal(found.log_probabilities, plain.log_probabilities)
    assert detecting.forward_passes_per_prediction == 2 and detecting.rejects


def test_under_a_randomised_network_the_score_is_that_of_the_mean_network(
    detecting: DetectingPredictor, undefended: TrainedNet
) -> None:
    model = copy.deepcopy(undefended.model)
    assert isinstance(model, Classifier)
    model.insert("layer1", RandomDropout(0.5))
    found = MahalanobisDetector().deploy(Predictor(model), undefended.ctx)
    assert isinstance(found, DetectingPredictor)
    assert found.threshold == detecting.threshold
