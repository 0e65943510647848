import pytest
import torch

from trainables.attacks.shared.rounding import EIGHT_BITS, grey_levels, rounded


def _images(level: float, eps: float) -> tuple[torch.Tensor, torch.Tensor]:
    generator = torch.Generator().manual_seed(0)
    clean = (torch.rand(20, 1, 8, 8, generator=generator) * level).round() / level
    noise = (2 * torch.rand(clean.shape, generator=generator) - 1) * eps
    return clean, (clean + noise).clamp(0, 1)


def _on_levels(images: torch.Tensor, level: float) -> torch.Tensor:
    return (images * level - (images * level).round()).abs() < 1e-4


@pytest.mark.parametrize("level", [16.0, EIGHT_BITS])
@pytest.mark.parametrize("eps", [0.0, 0.01, 8 / 255, 0.15])
def test_in_linf_every_pixel_gets_a_level_inside_the_ball(level: float, eps: float) -> None:
    clean, images = _images(level, eps)
    found = rounded(images, clean, level, norm="linf", eps=eps)
    assert bool(_on_levels(found, level).all())
    assert float((found - clean).abs().max()) <= eps + 1e-6
    assert found.min() >= 0 and found.max() <= 1
    assert float((found - images).abs().max()) <= 1 / level


def test_the_nearest_level_inside_is_taken() -> None:
    clean = torch.tensor([0.5, 0.5, 0.5]).view(3, 1, 1, 1)
    images = torch.tensor([0.58, 0.64, 0.36]).view(3, 1, 1, 1)
    found = rounded(images, clean, 16.0, norm="linf", eps=0.14)
    # 0.64 is nearest to 10 / 16, and 6 / 16 is the lowest level that the ball holds.
    assert (found * 16).flatten().tolist() == [9.0, 10.0, 6.0]


def test_a_pixel_whose_ball_holds_no_level_stays() -> None:
    clean = torch.full((1, 1, 1, 2), 0.53)
    images = torch.tensor([0.535, 0.525]).view(1, 1, 1, 2)
    assert torch.equal(rounded(images, clean, 16.0, norm="linf", eps=0.01), images)


def test_each_image_may_have_a_radius_of_its_own() -> None:
    clean, images = _images(16.0, 0.15)
    eps = torch.tensor([0.0, 0.15]).repeat(10)
    found = rounded(images, clean, 16.0, norm="linf", eps=eps)
    assert torch.equal(found[::2], clean[::2])
    together = rounded(images, clean, 16.0, norm="linf", eps=0.15)
    assert torch.equal(found[1::2], together[1::2])


@pytest.mark.parametrize("level", [16.0, EIGHT_BITS])
def test_in_l2_an_image_is_rounded_inside_its_ball_or_stays(level: float) -> None:
    clean, images = _images(level, 0.2)
    eps = (images - clean).flatten(1).norm(dim=1)
    found = rounded(images, clean, level, norm="l2", eps=eps)
    assert bool(((found - clean).flatten(1).norm(dim=1) <= eps).all())
    assert bool(_on_levels(found, level).all())
    off_level = clean + 0.4 / level  # levels on both sides, none of them in so small a ball
    small = rounded(off_level, off_level, level, norm="l2", eps=0.1 / level)
    assert torch.equal(small, off_level)


def test_levels_are_those_of_a_file_and_of_the_data_once_each() -> None:
    assert grey_levels(16.0) == (255.0, 16.0)
    assert grey_levels(255) == (255.0,)
