from collections.abc import Callable

import pytest
import torch
from torch import Tensor

from tests.making import LinearSoftmax
from trainables.deployed.predictor import Surface
from trainables.errors import PredictorError
from trainables.threats.inversion.attack import Climb, invert, margins, surface_slope
from trainables.threats.inversion.domain import pixels

GREY = torch.full((1, 1, 1), 0.25)
CLASSES = torch.arange(10).repeat_interleave(2)
STARTS = torch.rand(20, 1, 4, 4, generator=torch.Generator().manual_seed(0))


def _linear(num_classes: int = 10) -> LinearSoftmax:
    return LinearSoftmax(16, num_classes).requires_grad_(False)


def _invert(
    scores: Callable[[Tensor], Tensor],
    starts: Tensor = STARTS,
    classes: Tensor = CLASSES,
    num_classes: int = 10,
    **changes: float,
) -> Tensor:
    settings = {"steps": 50, "step_size": 0.5, "tv": 0.3, "l2": 1.5} | changes
    climb = Climb(**settings)  # type: ignore[arg-type]
    domain = pixels((1, 4, 4), GREY)
    generator = torch.Generator().manual_seed(1)
    slope = surface_slope(Surface(lambda x, g: scores(x), "exact"), domain, generator, num_classes)
    return invert(slope, starts, classes, climb, domain)


def _variation(x: Tensor) -> float:
    return float(x.diff(dim=2).abs().sum() + x.diff(dim=3).abs().sum())


def test_the_margin_is_over_the_best_other_class() -> None:
    scores = torch.tensor([[1.0, 5.0, 3.0], [1.0, 5.0, 3.0]])
    assert margins(scores, torch.tensor([1, 0])).tolist() == [2.0, -4.0]


def test_without_priors_two_linear_classes_end_in_the_corner_of_their_difference() -> None:
    model = _linear(2)
    classes = torch.tensor([0, 1])
    found = _invert(model, STARTS[:2], classes, 2, tv=0.0, l2=0.0, steps=400)
    slope = (model.weight[0] - model.weight[1]).view(1, 4, 4)
    assert torch.equal(found[0], slope.gt(0).float())
    assert torch.equal(found[1], slope.lt(0).float())


def test_the_climb_raises_the_margin_and_stays_in_the_pixel_range() -> None:
    model = _linear()
    found = _invert(model)
    assert found.min() >= 0 and found.max() <= 1 and not found.requires_grad
    assert bool((margins(model(found), CLASSES) > margins(model(STARTS), CLASSES)).all())


@pytest.mark.parametrize("scale", [2.0**-60, 2.0**60])
def test_a_scale_on_the_scores_changes_nothing(scale: float) -> None:
    model = _linear()
    assert torch.equal(_invert(lambda x: scale * model(x)), _invert(model))


def test_the_distance_prior_draws_to_the_mean_colour() -> None:
    found = _invert(lambda x: 0 * x.flatten(1)[:, :10], tv=0.0, l2=10.0, steps=300)
    assert torch.allclose(found, GREY.expand_as(found), atol=0.02)


def test_a_stronger_distance_prior_keeps_the_image_nearer() -> None:
    model = _linear()
    near, far = (float((_invert(model, l2=l2) - GREY).norm()) for l2 in (6.0, 1.5))
    assert near < 0.7 * far


def test_the_variation_prior_smooths() -> None:
    model = _linear()
    assert _variation(_invert(model, tv=1.0)) < 0.8 * _variation(_invert(model, tv=0.0))


def test_an_image_does_not_hang_on_its_batch(monkeypatch: pytest.MonkeyPatch) -> None:
    model = _linear()
    whole = _invert(model)
    monkeypatch.setattr("trainables.threats.inversion.attack.BATCH", 3)
    assert torch.allclose(_invert(model), whole, atol=1e-4)


def test_scores_without_gradient_or_with_infinite_ones_give_images_all_the_same() -> None:
    def hard(x: Tensor) -> Tensor:
        with torch.no_grad():
            return torch.where(_linear()(x) > 0, 0.0, -torch.inf)

    def steep(x: Tensor) -> Tensor:
        scores: Tensor = _linear()(x)
        return scores.where(scores > 0, -torch.inf)

    for scores in (hard, steep):
        found = _invert(scores)
        assert bool(found.isfinite().all()) and found.min() >= 0 and found.max() <= 1


def test_nan_is_an_error() -> None:
    with pytest.raises(PredictorError, match="NaN"):
        _invert(lambda x: torch.nan * x.flatten(1)[:, :10])
    with pytest.raises(PredictorError, match="shape"):
        _invert(lambda x: x.flatten(1)[:, :9])
