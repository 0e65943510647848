import pytest
import torch

from tests.conftest import TrainedNet
from tests.making import EPS, LinearSoftmax
from trainables.attacks import attack
from trainables.defenses.detectors.detector import DetectingPredictor
from trainables.defenses.detectors.energy_detector import EnergyDetector, energy
from trainables.defenses.prediction.randomized_network import RandomizedPredictor
from trainables.deployed.predictor import REFUSED, Predictor
from trainables.metrics import intervals

GENERATOR = torch.Generator()


@pytest.fixture(scope="module")
def detecting(undefended: TrainedNet) -> DetectingPredictor:
    """Deploy the undefended net with the detector."""
    found = EnergyDetector().deploy(Predictor(undefended.model), undefended.ctx)
    assert isinstance(found, DetectingPredictor)
    return found


def _generator() -> torch.Generator:
    return torch.Generator().manual_seed(0)


@pytest.mark.parametrize("T", [0.01, 1.0, 3.0])
def test_the_score_is_the_energy(T: float) -> None:
    model = LinearSoftmax(16, 5).requires_grad_(False)
    x = torch.rand(30, 1, 4, 4, generator=_generator())
    found = energy(model, T)(x, GENERATOR)
    expected = -T * torch.log(torch.exp(model(x).double() / T).sum(1))
    torch.testing.assert_close(found.double(), expected, rtol=1e-5, atol=1e-5)
    assert bool((found <= -model(x).amax(1) + 1e-5).all())


def test_scores_raised_all_together_lower_the_energy() -> None:
    model, x = LinearSoftmax(16, 5).requires_grad_(False), torch.rand(9, 1, 4, 4)
    before = energy(model, 1.0)(x, GENERATOR)
    model.bias.add_(2)
    torch.testing.assert_close(energy(model, 1.0)(x, GENERATOR), before - 2)


@pytest.mark.parametrize("T", [1.0, 5.0])
@pytest.mark.parametrize("rate", [0.05, 0.2])
def test_it_rejects_no_more_of_the_calibration_pool_than_it_says(
    rate: float, T: float, undefended: TrainedNet
) -> None:
    calibration = undefended.ctx.pools.calibration
    assert calibration is not None
    defense = EnergyDetector(T=T, false_positive_rate=rate)
    predictor = defense.deploy(Predictor(undefended.model), undefended.ctx)
    label = predictor.predict(calibration.images(), GENERATOR).label
    assert rate / 2 < float((label == REFUSED).double().mean()) <= rate


def test_suspicious_images_score_higher(
    detecting: DetectingPredictor, undefended: TrainedNet
) -> None:
    model, x, y = undefended.model, undefended.x, undefended.y
    attacked = attack("pgd")(model, x, y, eps=EPS, steps=20, generator=_generator()).detach()
    with torch.no_grad():
        fooled = (model(x).argmax(1) == y) & (model(attacked).argmax(1) != y)
        clean = detecting.score(x, GENERATOR).double()
        noise = detecting.score(torch.rand(x.shape, generator=_generator()), GENERATOR).double()
        moved = detecting.score(attacked, GENERATOR).double()
    assert intervals.auc(noise.numpy(), clean.numpy()).value > 0.9
    # Attacked until they are just misclassified, they are near the border, where scores are low.
    assert intervals.auc(moved[fooled].numpy(), clean[fooled].numpy()).value > 0.75


def test_the_margin_has_the_sign_of_the_rejections_and_a_gradient(
    detecting: DetectingPredictor, undefended: TrainedNet
) -> None:
    noise = torch.rand(undefended.x.shape, generator=_generator())
    x = torch.cat([undefended.x, noise]).requires_grad_(True)
    (surface,) = detecting.surfaces()
    assert surface.reject_margin is not None
    margin = surface.reject_margin(x, GENERATOR)
    assert torch.equal(margin > 0, detecting.predict(x, GENERATOR).label == REFUSED)
    assert 0 < int((margin > 0).sum()) < len(x)
    (gradient,) = torch.autograd.grad(margin.sum(), x)
    assert bool(gradient.isfinite().all()) and bool((gradient != 0).flatten(1).any(1).all())


def test_averaged_probabilities_do_not_level_the_energy(
    detecting: DetectingPredictor, undefended: TrainedNet
) -> None:
    averaging = RandomizedPredictor(Predictor(undefended.model), draws=2)
    torch.testing.assert_close(
        averaging.scores(undefended.x, _generator()).logsumexp(1),
        torch.zeros(len(undefended.x)),
        atol=1e-5,
        rtol=0,
    )
    found = EnergyDetector().deploy(averaging, undefended.ctx)
    assert isinstance(found, DetectingPredictor)
    assert found.threshold == detecting.threshold
    assert found.forward_passes_per_prediction == 3
