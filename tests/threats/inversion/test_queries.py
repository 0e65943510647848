import pytest
import torch
from torch import Tensor, nn

from tests.making import LinearSoftmax
from tests.threats.predictors import Rejecting, brightness
from trainables.deployed.predictor import Predictor
from trainables.errors import PredictorError
from trainables.threats.inversion.attack import Climb, invert, margins, surface_slope
from trainables.threats.inversion.domain import pixels
from trainables.threats.inversion.queries import Asked, asked_slope

DOMAIN = pixels((1, 4, 4), torch.full((1, 1, 1), 0.25))
CLASSES = torch.arange(10).repeat_interleave(2)
STARTS = 0.25 + 0.5 * torch.rand(20, 1, 4, 4, generator=torch.Generator().manual_seed(0))


def _asked(predictor: Predictor) -> Asked:
    return Asked(predictor, 10, torch.Generator().manual_seed(1))


def _slope(asked: Asked, pairs: int) -> Tensor:
    generator = torch.Generator().manual_seed(2)
    return asked_slope(asked, DOMAIN, generator, pairs=pairs)(STARTS, CLASSES)


def _true_slope(predictor: Predictor) -> Tensor:
    (surface,) = predictor.surfaces()
    generator = torch.Generator().manual_seed(1)
    return surface_slope(surface, DOMAIN, generator, 10)(STARTS, CLASSES)


def _cosines(first: Tensor, second: Tensor) -> Tensor:
    return torch.cosine_similarity(first.flatten(1), second.flatten(1))


def test_the_estimate_nears_the_gradient_as_more_is_asked() -> None:
    predictor = Predictor(LinearSoftmax(16, 10))
    true = _true_slope(predictor)
    few, many = (_cosines(_slope(_asked(predictor), pairs), true).mean() for pairs in (8, 400))
    assert 0.3 < few < 0.75 and many > 0.9


def test_every_image_that_is_asked_about_counts() -> None:
    asked = _asked(Predictor(LinearSoftmax(16, 10)))
    _slope(asked, 40)  # in more than one part
    assert asked.count == 20 * 2 * 40
    asked.margins(STARTS, CLASSES)
    assert asked.count == 20 * 2 * 40 + 20


class Hot(Predictor):
    """Answers with scores divided by a temperature."""

    def scores(self, x: Tensor, generator: torch.Generator) -> Tensor:
        scores: Tensor = self.model(x) / 256
        return scores


def test_neither_a_temperature_nor_the_number_of_parts_changes_the_estimate(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    model = LinearSoftmax(16, 10)
    plain = _slope(_asked(Predictor(model)), 40)
    # But for answers that the temperature makes equal in float32.
    assert _cosines(_slope(_asked(Hot(model)), 40), plain).min() > 0.9
    monkeypatch.setattr("trainables.threats.inversion.queries.BATCH", 10_000)
    torch.testing.assert_close(_slope(_asked(Predictor(model)), 40), plain)


def test_a_refusal_is_the_worst_of_answers() -> None:
    rejecting = Rejecting(LinearSoftmax(16, 10), brightness, 0.5)
    asked = _asked(rejecting)
    values = asked.margins(torch.cat([0.2 * STARTS, 0 * STARTS + 0.6]), CLASSES.repeat(2))
    assert values[20:].max() < values[:20].min()
    flat = torch.full_like(STARTS, 0.5)
    generator = torch.Generator().manual_seed(2)
    slope = asked_slope(asked, DOMAIN, generator, pairs=400)(flat, CLASSES)
    # What is refused is brighter: the way out is darker.
    assert slope.flatten(1).sum(1).max() < 0


def test_answers_that_are_all_alike_give_no_slope() -> None:
    class Constant(Predictor):
        def scores(self, x: Tensor, generator: torch.Generator) -> Tensor:
            return torch.zeros(len(x), 10)

    assert not _slope(_asked(Constant(nn.Identity())), 5).any()


def test_the_climb_by_queries_alone_raises_the_margin() -> None:
    model = LinearSoftmax(16, 10)
    asked = _asked(Predictor(model))
    slope = asked_slope(asked, DOMAIN, torch.Generator().manual_seed(2), pairs=5)
    climb = Climb(steps=30, step_size=0.5, tv=0.3, l2=1.5)
    found = invert(slope, STARTS, CLASSES, climb, DOMAIN)
    assert asked.count == 20 * 30 * 2 * 5
    with torch.no_grad():
        before, after = (margins(model(x), CLASSES) for x in (STARTS, found))
    assert bool((after > before).all())


def test_nan_is_an_error() -> None:
    class Broken(Predictor):
        def scores(self, x: Tensor, generator: torch.Generator) -> Tensor:
            return torch.full((len(x), 10), torch.nan)

    with pytest.raises(PredictorError, match="NaN"):
        _slope(_asked(Broken(nn.Identity())), 2)
