"""WaNet's field and warp, against what they are by hand."""

from __future__ import annotations

import pytest
import torch

from trainables.threats.backdoor.wanet import jittered, warp, warping_field


@pytest.mark.parametrize("grid", [2, 4, 8])
def test_a_field_goes_through_its_control_points_whose_mean_size_is_one(grid: int) -> None:
    # A field as fine as its control points is those points.
    assert float(warping_field(grid, grid, grid=grid).abs().mean()) == pytest.approx(1, rel=1e-5)
    fine = warping_field(5 * (grid - 1) + 1, 5 * (grid - 1) + 1, grid=grid)
    torch.testing.assert_close(fine[::5, ::5], warping_field(grid, grid, grid=grid))
    assert not torch.equal(warping_field(8, 8, grid=grid, seed=1), warping_field(8, 8, grid=grid))


def test_a_field_of_zeros_warps_nothing_and_a_constant_one_shifts() -> None:
    images = torch.rand(2, 3, 5, 9, generator=torch.Generator().manual_seed(0))
    torch.testing.assert_close(warp(images, torch.zeros(5, 9, 2), strength=0.5), images)
    # A grid from -1 to 1 over 9 columns has steps of 1/4: 2.25 x 1 / 9 is one column to the right.
    right = torch.zeros(5, 9, 2)
    right[..., 0] = 1
    shifted = warp(images, right, strength=2.25)
    torch.testing.assert_close(shifted[..., :-1], images[..., 1:])
    torch.testing.assert_close(shifted[..., -1], images[..., -1])
    # Over 5 rows the steps are 1/2: 2.5 x 1 / 5 is one row down.
    down = torch.zeros(5, 9, 2)
    down[..., 1] = 1
    torch.testing.assert_close(warp(images, down, strength=2.5)[:, :, :-1], images[:, :, 1:])


def test_noise_moves_each_image_by_one_unit_over_its_side_at_most() -> None:
    field, generator = warping_field(8, 8, grid=4), torch.Generator().manual_seed(0)
    found = jittered(field, 50, strength=0.5, generator=generator)
    moved = 0.5 * (found - field)  # in units of the grid over the side
    assert found.shape == (50, 8, 8, 2) and 0.98 < float(moved.abs().max()) <= 1
    assert abs(float(moved.mean())) < 0.02 and not torch.equal(found[0], found[1])
