import pytest
import torch
from torch import Tensor, nn

from trainables.defenses.prediction.diffusion_process import (
    diffuse,
    noise_prediction_loss,
    purify,
    signal_share,
)


class _PointOracle(nn.Module):
    """The best noise predictor where all images are the one constant `value`."""

    def __init__(self, value: float) -> None:
        super().__init__()
        self.value = value

    def forward(self, x: Tensor, time: Tensor) -> Tensor:
        share = signal_share(time)[:, None, None, None]
        return (x - share.sqrt() * self.value) / (1 - share).sqrt()


class _NormalOracle(nn.Module):
    """The best noise predictor where pixels are normal with mean 0 and deviation `std`."""

    def __init__(self, std: float) -> None:
        super().__init__()
        self.std = std

    def forward(self, x: Tensor, time: Tensor) -> Tensor:
        share = signal_share(time)[:, None, None, None]
        return (1 - share).sqrt() / (share * self.std**2 + 1 - share) * x


class _Silent(nn.Module):
    """Predicts no noise at all."""

    def forward(self, x: Tensor, time: Tensor) -> Tensor:
        return torch.zeros_like(x)


def _generator(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


@pytest.mark.parametrize("t", [0.05, 0.1, 0.3, 0.7])
def test_the_signal_share_is_the_limit_of_the_thousand_steps_of_ho(t: float) -> None:
    steps = torch.linspace(1e-4, 0.02, 1000, dtype=torch.float64)
    product = torch.cumprod(1 - steps, 0)[round(1000 * t) - 1]
    found = signal_share(torch.tensor(t, dtype=torch.float64))
    assert float(found) == pytest.approx(float(product), rel=0.03)


def test_the_signal_share_falls_from_one_to_almost_nothing() -> None:
    shares = signal_share(torch.linspace(0, 1, 101))
    assert float(shares[0]) == 1 and float(shares[-1]) < 1e-4
    assert bool((shares.diff() < 0).all())


def test_diffusion_has_the_closed_form() -> None:
    image = 2 * torch.rand(6, 1, 4, 4, generator=_generator()) - 1
    noise = torch.randn(image.shape, generator=_generator(1))
    time = torch.linspace(0.01, 0.99, 6)
    share = torch.exp(-(0.1 * time + 9.95 * time**2)).view(6, 1, 1, 1)
    expected = share**0.5 * image + (1 - share) ** 0.5 * noise
    torch.testing.assert_close(diffuse(image, time, noise), expected)


def test_the_loss_is_that_of_the_noise() -> None:
    x = torch.full((4000, 1, 2, 2), 0.75)
    perfect = noise_prediction_loss(_PointOracle(0.5), x, _generator())  # 2 * 0.75 - 1
    assert float(perfect) < 1e-6
    silent = noise_prediction_loss(_Silent(), x, _generator())
    assert float(silent) == pytest.approx(1, abs=0.03)


@pytest.mark.parametrize("steps", [1, 5])
@pytest.mark.parametrize("t", [0.1, 0.5, 0.999])
def test_with_one_possible_image_purification_gives_it(t: float, steps: int) -> None:
    x = torch.rand(5, 1, 4, 4, generator=_generator())
    found = purify(_PointOracle(0.4), x, t=t, steps=steps, generator=_generator())
    torch.testing.assert_close(found, torch.full_like(x, 0.7), atol=1e-3, rtol=0)


@pytest.mark.parametrize("std", [0.3, 0.8])
def test_from_pure_noise_purification_samples_the_distribution_of_the_images(std: float) -> None:
    x = torch.zeros(2000, 1, 4, 4)
    found = purify(_NormalOracle(std), x, t=0.999, steps=1000, generator=_generator())
    image = 2 * found - 1
    assert float(image.mean()) == pytest.approx(0, abs=0.02)
    assert float(image.std()) == pytest.approx(std, rel=0.03)


def test_a_vanishing_time_gives_the_image_back() -> None:
    x = torch.rand(50, 1, 4, 4, generator=_generator())

    def moved(t: float) -> float:
        return float(
            (purify(_NormalOracle(0.8), x, t=t, steps=5, generator=_generator()) - x).std()
        )

    assert moved(1e-3) < 0.01
    assert moved(1e-6) < moved(1e-3) < moved(0.1)


def test_randomness_comes_from_the_generator_alone() -> None:
    x, before = torch.rand(3, 1, 4, 4, generator=_generator()), torch.get_rng_state()
    first, same, other = (
        purify(_NormalOracle(0.5), x, t=0.3, steps=3, generator=_generator(seed))
        for seed in (0, 0, 1)
    )
    assert torch.equal(first, same) and not torch.allclose(first, other)
    assert torch.equal(torch.get_rng_state(), before)
