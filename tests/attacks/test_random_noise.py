import pytest
import torch

from tests.attacks.shared.asked import ScoresOnly
from tests.conftest import TrainedNet
from tests.making import EPS, LinearSoftmax, accuracy
from trainables.attacks.queries.random_noise import random_noise
from trainables.attacks.shared.losses import margin
from trainables.errors import InputError


def _generator(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


GREY = torch.full((5, 1, 4, 4), 0.5)
LABELS = torch.arange(5) % 3


def test_half_of_the_linf_draws_fill_the_ball_and_half_lie_on_its_corners() -> None:
    model = ScoresOnly(LinearSoftmax(16, 3))
    random_noise(model, GREY, LABELS, eps=0.2, draws=10, early_stop=False, generator=_generator())
    assert len(model.images) == 10
    for number, asked in enumerate(model.images):
        size = (asked - GREY).abs()
        on_corner = torch.isclose(size, torch.tensor(0.2), atol=1e-6)
        assert bool(on_corner.all()) == (number % 2 == 1)
        assert float(size.max()) <= 0.2 + 1e-6
    inside = torch.cat([asked - GREY for asked in model.images[::2]])
    assert float(inside.std()) == pytest.approx(0.2 / 3**0.5, rel=0.1)  # uniform


def test_l2_draws_lie_on_the_sphere() -> None:
    model = ScoresOnly(LinearSoftmax(16, 3))
    random_noise(
        model, GREY, LABELS, eps=0.4, norm="l2", draws=6, early_stop=False, generator=_generator()
    )
    lengths = (torch.stack(model.images) - GREY).flatten(2).norm(dim=2)
    torch.testing.assert_close(lengths, torch.full((6, 5), 0.4), atol=1e-6, rtol=0)
    assert not torch.equal(model.images[0], model.images[1])


def test_the_draw_with_the_widest_margin_is_returned() -> None:
    model = ScoresOnly(LinearSoftmax(16, 3))
    noisy = random_noise(
        model, GREY, LABELS, eps=0.2, draws=20, early_stop=False, generator=_generator()
    )
    with torch.no_grad():
        margins = torch.stack([margin(model.model(asked), LABELS) for asked in model.images])
        torch.testing.assert_close(margin(model.model(noisy), LABELS), margins.amax(0))


def test_an_image_is_left_at_its_first_success(undefended: TrainedNet) -> None:
    x, y = undefended.x[:60], undefended.y[:60]
    model = ScoresOnly(undefended.model)
    noisy = random_noise(model, x, y, eps=0.5, draws=30, generator=_generator())
    batches = [len(asked) for asked in model.images]
    assert batches[0] == 60 and batches == sorted(batches, reverse=True) and batches[-1] < 60
    assert accuracy(undefended.model, noisy, y) == (batches[-1] - _last(model, y, x)) / 60


def _last(model: ScoresOnly, y: torch.Tensor, x: torch.Tensor) -> int:
    """Count the successes of the last draw, by the labels of the images that it was made of."""
    last = model.images[-1]
    nearest = torch.cdist(last.flatten(1), x.flatten(1), p=torch.inf).argmin(1)
    with torch.no_grad():
        return int((model.model(last).argmax(1) != y[nearest]).sum())


def test_noise_breaks_less_than_an_attack_and_more_with_more_draws(undefended: TrainedNet) -> None:
    model, x, y = undefended.model, undefended.x[:90], undefended.y[:90]
    left = [
        accuracy(model, random_noise(model, x, y, eps=EPS, draws=draws, generator=_generator()), y)
        for draws in (1, 100)
    ]
    assert 0.5 < left[1] < left[0]


def test_it_needs_a_generator_and_a_known_norm() -> None:
    model = LinearSoftmax(16, 3)
    with pytest.raises(ValueError, match="generator"):
        random_noise(model, GREY, LABELS, eps=0.1)
    with pytest.raises(InputError, match="linf, l2"):
        random_noise(model, GREY, LABELS, eps=0.1, norm="l7", generator=_generator())
