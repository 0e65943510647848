import torch

from trainables.threats.inversion.domain import GRID, latents, pixels

GREY = torch.full((1, 1, 1), 0.25)


def _generator() -> torch.Generator:
    return torch.Generator().manual_seed(0)


def test_points_among_pixels_are_images_in_their_range() -> None:
    domain = pixels((3, 5, 6), GREY)
    starts = domain.starts(4, _generator())
    assert starts.shape == (4, 3, 5, 6) and starts.min() >= 0 and starts.max() <= 1
    assert domain.images(starts) is starts
    moved = domain.inside(4 * starts - 2)
    assert moved.min() == 0 and moved.max() == 1 and bool(((moved > 0) & (moved < 1)).any())


def test_changes_have_length_one_a_coordinate_and_are_smooth_where_images_are_large() -> None:
    for side in (GRID, 28):
        points = torch.zeros(50, 1, side, side)
        found = pixels((1, side, side), GREY).changes(points, _generator())
        assert found.shape == points.shape
        assert abs(float(found.square().mean().sqrt()) - 1) < 0.05
        roughness = float(found.diff(dim=3).square().mean() / found.square().mean())
        # Of independent pixels it is 2.
        assert roughness > 1.8 if side == GRID else roughness < 0.3


def test_points_among_latents_stand_for_what_the_decoder_draws() -> None:
    def decode(latent: torch.Tensor) -> torch.Tensor:
        return latent[:, :4].sigmoid().view(-1, 1, 2, 2)

    domain = latents(decode, 6, torch.device("cpu"))
    starts = domain.starts(300, _generator())
    assert starts.shape == (300, 6, 1, 1) and abs(float(starts.std()) - 1) < 0.05
    assert torch.equal(domain.images(starts), decode(starts.flatten(1)))
    assert torch.equal(domain.inside(100 * starts), 100 * starts)
    assert domain.changes(starts, _generator()).shape == starts.shape
