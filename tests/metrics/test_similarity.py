import numpy as np
import pytest
import torch
from skimage.metrics import structural_similarity

from trainables.metrics.similarity import ssim


@pytest.mark.parametrize("shape", [(5, 1, 8, 8), (3, 3, 32, 32), (2, 1, 28, 28), (2, 1, 4, 4)])
def test_equal_images_are_one_and_noise_is_less(shape: tuple[int, ...]) -> None:
    images = torch.rand(shape, generator=torch.Generator().manual_seed(0))
    assert ssim(images, images).value == pytest.approx(1.0)
    small, large = (ssim(images, (images + far).clamp(0, 1)).value for far in (0.05, 0.4))
    assert 1 > small > large
    assert ssim(images, images).n == shape[0]


def test_colour_images_are_compared_channel_by_channel() -> None:
    generator = torch.Generator().manual_seed(1)
    first, second = (torch.rand(1, 3, 16, 16, generator=generator) for _ in range(2))
    by_channel = [
        structural_similarity(one.numpy(), two.numpy(), data_range=1.0)  # type: ignore[no-untyped-call]
        for one, two in zip(first[0], second[0], strict=True)
    ]
    assert ssim(first, second).value == pytest.approx(float(np.mean(by_channel)))
