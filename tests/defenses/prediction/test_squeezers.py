import io

import numpy as np
import pytest
import torch
from PIL import Image
from scipy import fft, ndimage
from torch import Tensor
from torch.nn import functional as F

from trainables.defenses.prediction import jpeg_model, squeezers
from trainables.defenses.prediction.jpeg_model import (
    differentiable_jpeg,
    quantisation_table,
    smooth_round,
)
from trainables.defenses.prediction.squeezers import (
    SQUEEZERS,
    Squeezer,
    bit_depth_squeezer,
    jpeg,
    jpeg_squeezer,
    median_filter,
    median_squeezer,
    reduce_bit_depth,
)


def _smooth_images(count: int, channels: int, height: int, width: int) -> Tensor:
    """Return images as photographs are: JPEG is made for them; in whole 255ths."""
    generator = torch.Generator().manual_seed(channels * height)
    coarse = torch.rand(count, channels, 4, 4, generator=generator)
    images = F.interpolate(coarse, size=(height, width), mode="bicubic").clamp(0, 1)
    return (images * 255).round() / 255


def test_bits_are_reduced_as_by_hand() -> None:
    x = torch.tensor([0.0, 0.1, 0.24, 0.26, 0.49, 0.51, 0.9, 1.0])
    assert reduce_bit_depth(x, 1).tolist() == [0, 0, 0, 0, 0, 1, 1, 1]
    two = torch.tensor([0, 0, 1, 1, 1, 2, 3, 3]) / 3
    torch.testing.assert_close(reduce_bit_depth(x, 2), two)
    levels = torch.arange(256) / 255
    torch.testing.assert_close(reduce_bit_depth(levels, 8), levels)


@pytest.mark.parametrize("window", [2, 3])
def test_the_median_is_that_of_scipy(window: int) -> None:
    x = torch.rand(4, 3, 9, 7, generator=torch.Generator().manual_seed(window))
    expected = ndimage.median_filter(x.numpy(), size=(1, 1, window, window), mode="reflect")
    np.testing.assert_array_equal(median_filter(x, window).numpy(), expected)


def test_the_gradient_of_the_median_goes_to_the_pixel_that_was_taken() -> None:
    x = torch.tensor([[0.1, 0.2, 0.3], [0.4, 0.5, 0.6], [0.7, 0.8, 0.9]])
    image = x.view(1, 1, 3, 3).requires_grad_(True)
    (gradient,) = torch.autograd.grad(median_filter(image, 3)[0, 0, 1, 1], image)
    assert gradient.flatten().tolist() == [0, 0, 0, 0, 1, 0, 0, 0, 0]


@pytest.mark.parametrize("channels", [1, 3])
def test_jpeg_is_the_real_one_and_loses_more_at_a_lower_quality(channels: int) -> None:
    x = _smooth_images(6, channels, 32, 32)
    losses = [float((jpeg(x, quality) - x).abs().mean()) for quality in (95, 75, 50, 10)]
    assert 0 < losses[0] < losses[1] < losses[2] < losses[3] < 0.1
    found = jpeg(x, 50)
    torch.testing.assert_close((found * 255).round(), found * 255, atol=1e-4, rtol=0)
    assert torch.equal(jpeg(x[2:3], 50), found[2:3])
    assert jpeg(x[:0], 50).shape == (0, channels, 32, 32)


@pytest.mark.parametrize("size", [(1, 1), (5, 3), (8, 8), (9, 17), (28, 28), (30, 27)])
@pytest.mark.parametrize("quality", [1, 50, 75, 100])
def test_grey_images_in_one_file_come_out_as_from_files_of_their_own(
    size: tuple[int, int], quality: int
) -> None:
    x = _noise(12, *size)
    alone = torch.cat([_from_a_file_of_its_own(image, quality) for image in x])
    assert torch.equal(jpeg(x, quality), alone)


def test_more_grey_images_than_one_file_holds_take_several(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    x = _noise(5, 9, 6)  # 16 rows each, filled up: two in a file
    whole = jpeg(x, 50)
    monkeypatch.setattr(squeezers, "_LONGEST_SIDE", 40)
    assert torch.equal(jpeg(x, 50), whole)


def _noise(count: int, height: int, width: int) -> Tensor:
    """Return grey images (B, 1, H, W) whose neighbours differ most, in whole 255ths."""
    generator = torch.Generator().manual_seed(height * width)
    pixels = torch.randint(0, 256, (count, 1, height, width), generator=generator)
    return pixels.to(torch.float32) / 255


def _from_a_file_of_its_own(image: Tensor, quality: int) -> Tensor:
    """Compress a grey image (1, H, W) and return it (1, 1, H, W)."""
    file = io.BytesIO()
    pixels = (image[0] * 255).round().to(torch.uint8).numpy()
    Image.fromarray(pixels).save(file, "JPEG", quality=quality)
    return torch.from_numpy(np.array(Image.open(file))).to(image)[None, None] / 255


@pytest.mark.parametrize("quality", [10, 50, 75, 95])
@pytest.mark.parametrize("shape", [(1, 8, 8), (1, 28, 28), (3, 32, 32), (3, 30, 27)], ids=str)
def test_the_model_of_jpeg_with_hard_rounding_comes_near_the_real_one(
    shape: tuple[int, int, int], quality: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    x = _smooth_images(20, *shape)
    real = jpeg(x, quality)
    monkeypatch.setattr(jpeg_model, "smooth_round", torch.round)
    hard = differentiable_jpeg(x, quality).clamp(0, 1)
    monkeypatch.undo()
    error, loss = float((hard - real).abs().mean()), float((x - real).abs().mean())
    # libjpeg rounds pixels to whole 255ths and filters chroma in its own integers.
    assert error < (0.75 if shape[0] == 1 else 1.5) / 255
    assert error < 0.65 * loss or quality == 95
    smooth = float((differentiable_jpeg(x, quality) - real).abs().mean())
    assert smooth < loss or quality == 95


def test_the_transform_is_the_orthonormal_dct() -> None:
    block = np.random.default_rng(0).random((8, 8))
    matrix = jpeg_model._dct(torch.device("cpu"), torch.float64).numpy()
    np.testing.assert_allclose(matrix @ block @ matrix.T, fft.dctn(block, norm="ortho"))


def test_the_table_is_scaled_as_libjpeg_scales_it() -> None:
    table = (16, 11, 10, *(50,) * 61)
    assert quantisation_table(table, 50).flatten()[:3].tolist() == [16, 11, 10]
    assert quantisation_table(table, 75).flatten()[:3].tolist() == [8, 6, 5]
    assert quantisation_table(table, 10).flatten()[:4].tolist() == [80, 55, 50, 250]
    assert quantisation_table(table, 1).max() == 255 and quantisation_table(table, 100).max() == 1


def test_smooth_rounding_passes_three_r_squared_back() -> None:
    values = torch.tensor([2.0, 2.1, 2.4, 2.6, -0.3], dtype=torch.float64, requires_grad=True)
    rounded = smooth_round(values)
    expected = torch.tensor([2.0, 2.001, 2.064, 2.936, -0.027], dtype=torch.float64)
    torch.testing.assert_close(rounded, expected)
    (gradient,) = torch.autograd.grad(rounded.sum(), values)
    distance = torch.tensor([0.0, 0.1, 0.4, 0.4, 0.3], dtype=torch.float64)
    torch.testing.assert_close(gradient, 3 * distance**2)


@pytest.mark.parametrize(("kind", "setting"), [("bit_depth", 2), ("median", 2), ("jpeg", 40)])
def test_every_way_gives_what_the_transformation_gives(kind: str, setting: int) -> None:
    squeezer, x = SQUEEZERS[kind](setting), _smooth_images(5, 3, 16, 16)
    image = x.clone().requires_grad_(True)
    for way in squeezer.ways():
        torch.testing.assert_close(way(image), squeezer.transform(x), atol=1e-6, rtol=0)
        (gradient,) = torch.autograd.grad(way(image).sum(), image)
        assert gradient.isfinite().all() and float(gradient.abs().max()) > 0


@pytest.mark.parametrize(
    ("squeezer", "ways"),
    [(bit_depth_squeezer(1), 1), (median_squeezer(2), 2), (jpeg_squeezer(5), 2)],
)
def test_the_last_way_passes_the_gradient_at_the_transformed_image_back(
    squeezer: Squeezer, ways: int
) -> None:
    assert len(squeezer.ways()) == ways
    x = _smooth_images(4, 1, 8, 8).requires_grad_(True)
    (gradient,) = torch.autograd.grad(squeezer.ways()[-1](x).pow(3).sum(), x)
    torch.testing.assert_close(gradient, 3 * squeezer.transform(x.detach()) ** 2)
