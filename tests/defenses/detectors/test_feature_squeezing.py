import pytest
import torch

from tests.conftest import TrainedNet
from tests.making import EPS
from trainables.attacks.pgd import pgd
from trainables.defenses.detectors.feature_squeezing import FeatureSqueezing, SqueezingPredictor
from trainables.defenses.prediction.squeezers import median_filter, reduce_bit_depth
from trainables.deployed.predictor import REFUSED, Predictor

GENERATOR = torch.Generator()


def _deployed(net: TrainedNet, **parameters: float) -> SqueezingPredictor:
    found = FeatureSqueezing(**parameters).deploy(Predictor(net.model), net.ctx)  # type: ignore[arg-type]
    assert isinstance(found, SqueezingPredictor)
    return found


def test_the_score_is_the_largest_distance_between_probabilities(undefended: TrainedNet) -> None:
    model, x = undefended.model, undefended.x
    detector = _deployed(undefended, bits=1, window=3)
    plain, fewer, smoothed = (
        model(images).softmax(1) for images in (x, reduce_bit_depth(x, 1), median_filter(x, 3))
    )
    expected = torch.maximum((plain - fewer).abs().sum(1), (plain - smoothed).abs().sum(1))
    assert (plain - fewer).abs().sum(1).gt((plain - smoothed).abs().sum(1)).unique().numel() == 2
    torch.testing.assert_close(detector.score(x, GENERATOR), expected)
    found = detector.predict(x, GENERATOR)
    assert found.reject_score is not None
    torch.testing.assert_close(found.reject_score, expected)
    assert detector.forward_passes_per_prediction == 3


@pytest.mark.parametrize("rate", [0.05, 0.2])
def test_as_many_calibration_images_are_rejected_as_the_rate_allows(
    rate: float, undefended: TrainedNet
) -> None:
    detector, pool = _deployed(undefended, false_positive_rate=rate), undefended.ctx.pools
    assert pool.calibration is not None
    rejected = detector.predict(pool.calibration.images(), GENERATOR).label == REFUSED
    share = float(rejected.double().mean())
    assert rate - 2 / len(rejected) < share <= rate
    assert FeatureSqueezing().needs_calibration


def test_an_image_is_rejected_where_its_margin_is_positive_and_else_answered_as_before(
    undefended: TrainedNet,
) -> None:
    detector = _deployed(undefended, false_positive_rate=0.2)
    found = detector.predict(undefended.x, GENERATOR)
    (surface,) = detector.surfaces()
    assert surface.reject_margin is not None and surface.kind == "exact"
    refused = found.label == REFUSED
    assert 0 < int(refused.sum()) < len(refused)
    assert torch.equal(refused, surface.reject_margin(undefended.x, GENERATOR) > 0)
    plain = Predictor(undefended.model).predict(undefended.x, GENERATOR)
    assert torch.equal(found.label[~refused], plain.label[~refused])
    assert torch.equal(found.log_probabilities, plain.log_probabilities)


def test_descending_the_margin_gets_rejected_images_accepted(undefended: TrainedNet) -> None:
    detector = _deployed(undefended, false_positive_rate=0.2)
    x = undefended.x[detector.predict(undefended.x, GENERATOR).label == REFUSED]
    moved = x.clone()
    for _ in range(20):
        moved.requires_grad_(True)
        (gradient,) = torch.autograd.grad(detector.reject_margin(moved, GENERATOR).sum(), moved)
        moved = (moved.detach() - 0.02 * gradient.sign()).clamp(0, 1)
        moved = x + (moved - x).clamp(-EPS, EPS)
    accepted = detector.predict(moved, GENERATOR).label != REFUSED
    assert float(accepted.double().mean()) > 0.5


def test_a_plain_attack_is_rejected_more_often_than_clean_images(undefended: TrainedNet) -> None:
    detector, x, y = _deployed(undefended), undefended.x, undefended.y
    attacked = pgd(undefended.model, x, y, eps=0.1, generator=torch.Generator().manual_seed(0))
    clean, under_attack = (
        float((detector.predict(images, GENERATOR).label == REFUSED).double().mean())
        for images in (x, attacked)
    )
    assert under_attack > clean + 0.1


@pytest.mark.parametrize(
    ("shape", "bits", "window"),
    [((1, 28, 28), 1, 2), ((3, 32, 32), 5, 2), ((1, 8, 8), 2, None)],
    ids=str,
)
def test_squeezers_are_the_published_ones_of_the_data_set(
    shape: tuple[int, int, int], bits: int, window: int | None
) -> None:
    x = torch.rand(3, *shape, generator=torch.Generator().manual_seed(0))
    expected = [reduce_bit_depth(x, bits)] + ([median_filter(x, window)] if window else [])
    found = [squeezer.transform(x) for squeezer in FeatureSqueezing()._squeezers(shape)]
    assert len(found) == len(expected)
    assert all(torch.equal(one, other) for one, other in zip(found, expected, strict=True))
    (only,) = FeatureSqueezing(bits=3, window=1)._squeezers(shape)
    assert torch.equal(only.transform(x), reduce_bit_depth(x, 3))
