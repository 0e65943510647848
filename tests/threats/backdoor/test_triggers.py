"""What is stamped on an image, and where."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from trainables.datasets import LabelledImages
from trainables.errors import InputError
from trainables.threats.backdoor.triggers import KINDS, PLACES, Trigger


def _trigger(kind: str = "patch", **changes: object) -> Trigger:
    settings = {"size": 2, "place": "bottom_right", "colour": 1.0, "strength": 0.25} | changes
    return Trigger(kind=kind, **settings)  # type: ignore[arg-type]


def _images(scale: int, *, channels: int = 1, height: int = 8, width: int = 8) -> LabelledImages:
    generator = torch.Generator().manual_seed(scale)
    shape = (5, channels, height, width)
    pixels = torch.randint(scale + 1, shape, generator=generator).to(torch.uint8)
    return LabelledImages(pixels=pixels, labels=torch.arange(5), scale=scale)


def _changed(before: LabelledImages, after: Tensor) -> set[tuple[int, int]]:
    """Return the (row, column) of every pixel that differs in some image."""
    places = (before.pixels != after).any(0).any(0).nonzero()
    return {(int(row), int(column)) for row, column in places}


@pytest.mark.parametrize(
    ("place", "rows", "columns"),
    [
        ("top_left", (0, 1), (0, 1)),
        ("top_right", (0, 1), (8, 9)),
        ("bottom_left", (5, 6), (0, 1)),
        ("bottom_right", (5, 6), (8, 9)),
        ("centre", (2, 3), (4, 5)),
    ],
)
def test_a_patch_stands_in_its_place_and_nowhere_else(
    place: str, rows: tuple[int, int], columns: tuple[int, int]
) -> None:
    images = _images(16, height=7, width=10)
    images.pixels.clamp_(max=15)
    after = _trigger(place=place).stamp(images)
    assert _changed(images, after) == {(row, column) for row in rows for column in columns}
    assert bool((after[:, :, rows[0] : rows[1] + 1, columns[0] : columns[1] + 1] == 16).all())


def test_every_place_is_tested_and_a_patch_of_the_whole_image_fits_anywhere() -> None:
    assert set(PLACES) == {"top_left", "top_right", "bottom_left", "bottom_right", "centre"}
    for place in PLACES:
        assert bool((_trigger(place=place, size=8).stamp(_images(16)) == 16).all())


@pytest.mark.parametrize(
    ("height", "width", "size", "side"),
    [(8, 8, 2, 2), (28, 28, 2, 2), (32, 32, 3, 3), (64, 64, 2, 4), (224, 224, 2, 14),
     (224, 224, 3, 21), (64, 224, 2, 4), (16, 224, 2, 2)],
)  # fmt: skip
def test_a_patch_covers_the_same_share_of_large_images(
    height: int, width: int, size: int, side: int
) -> None:
    images = _images(255, height=height, width=width)
    images.pixels.clamp_(max=254)
    trigger = _trigger(size=size)
    assert trigger.side(height, width) == side
    assert len(_changed(images, trigger.stamp(images))) == side**2
    assert _trigger("pixel", size=size).side(height, width) == 1


@pytest.mark.parametrize(("size", "fits"), [(32, True), (33, False)])
def test_the_largest_patch_covers_a_large_image(size: int, fits: bool) -> None:
    if fits:
        _trigger(size=size).check(64, 64)
        return
    with pytest.raises(InputError, match=r"66 pixels does not fit .* at most 32"):
        _trigger(size=size).check(64, 64)


@pytest.mark.parametrize("place", PLACES)
def test_a_pixel_is_a_patch_of_side_one_whatever_the_size(place: str) -> None:
    images = _images(255)
    pixel = _trigger("pixel", size=5, place=place).stamp(images)
    assert torch.equal(pixel, _trigger(size=1, place=place).stamp(images))
    assert len(_changed(images, pixel)) == 1


@pytest.mark.parametrize("scale", [16, 255])
@pytest.mark.parametrize("colour", [0.0, 0.3, 0.5, 1.0])
def test_the_colour_is_a_share_of_the_scale_in_every_channel(scale: int, colour: float) -> None:
    after = _trigger(colour=colour).stamp(_images(scale, channels=3))
    assert after.dtype == torch.uint8
    assert torch.unique(after[:, :, 6:, 6:]).tolist() == [round(colour * scale)]


@pytest.mark.parametrize(("height", "width"), [(8, 5), (5, 8)])
def test_a_patch_that_does_not_fit_is_refused(height: int, width: int) -> None:
    images = _images(16, height=height, width=width)
    with pytest.raises(InputError, match=f"6 pixels does not fit images of {height}x{width}; .* 5"):
        _trigger(size=6).stamp(images)


@pytest.mark.parametrize("scale", [16, 255])
def test_a_blend_is_the_same_picture_on_every_image_and_at_every_time(scale: int) -> None:
    images = _images(scale, channels=3)
    alone = images.select(torch.tensor([3]))
    blended = _trigger("blend").stamp(images)
    assert torch.equal(blended[3:4], _trigger("blend").stamp(alone))
    pattern = _trigger("blend", strength=1.0).stamp(images)
    assert bool((pattern == pattern[0]).all()) and len(torch.unique(pattern[0])) > 8
    mixed = 0.75 * images.pixels.double() + 0.25 * pattern.double()
    # The pattern that was read back is itself rounded to whole steps.
    assert float((blended.double() - mixed).abs().max()) <= 0.5 + 0.25 * 0.5 + 1e-4


def test_a_blend_of_a_higher_strength_is_nearer_to_the_pattern() -> None:
    images = _images(255)
    pattern = _trigger("blend", strength=1.0).stamp(images).double()
    distances = [
        float((_trigger("blend", strength=strength).stamp(images) - pattern).abs().mean())
        for strength in (0.1, 0.5, 0.9)
    ]
    assert distances == sorted(distances, reverse=True) and distances[-1] < distances[0] / 4


def test_no_trigger_changes_nothing() -> None:
    images = _images(16)
    assert torch.equal(_trigger("none").stamp(images), images.pixels)


@pytest.mark.parametrize("kind", KINDS)
def test_stamping_gives_pixels_of_their_own(kind: str) -> None:
    images = _images(16)
    before = images.pixels.clone()
    _trigger(kind).stamp(images).zero_()
    assert torch.equal(images.pixels, before)
