"""WaNet's trigger: images warped by one smooth field, too little to be seen.

Axes: N images, C channels, H, W.
"""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional as F

FIELD_SEED = 0
"""The field is one fixed one, the same in training and in use."""


def warping_field(height: int, width: int, *, grid: int, seed: int = FIELD_SEED) -> Tensor:
    """Return a smooth field of displacements (H, W, 2), of mean size 1 at its control points.

    `grid` x `grid` control points are drawn uniformly from [-1, 1], divided by their mean absolute
    value, and interpolated bicubically. Source: Nguyen & Tran, 2021, section 3.2.
    """
    generator = torch.Generator().manual_seed(seed)
    control = 2 * torch.rand(1, 2, grid, grid, generator=generator) - 1
    control = control / control.abs().mean()
    field = F.interpolate(control, size=(height, width), mode="bicubic", align_corners=True)
    return field[0].permute(1, 2, 0)


def warp(images: Tensor, field: Tensor, *, strength: float) -> Tensor:
    """Sample images (N, C, H, W) where a field (H, W, 2) or (N, H, W, 2) leads.

    A displacement of 1 is `strength` / H of a grid that runs from -1 to 1, at the default strength
    of 0.5 a quarter of a pixel; beyond the border the border is sampled.
    """
    number, _, height, width = images.shape
    rows, columns = (torch.linspace(-1, 1, side) for side in (height, width))
    y, x = torch.meshgrid(rows, columns, indexing="ij")
    scale = strength / torch.tensor([width, height])
    place = (torch.stack([x, y], -1) + scale * field.cpu()).clamp(-1, 1)
    place = place.expand(number, height, width, 2).to(images.device)
    return F.grid_sample(images, place, mode="bilinear", align_corners=True)


def jittered(field: Tensor, number: int, *, strength: float, generator: torch.Generator) -> Tensor:
    """Return the field (H, W, 2) with noise of up to one unit of the grid / H for each image.

    Images that are warped so keep their labels, which teaches a network the exact field (the
    paper's noise mode).
    """
    noise = 2 * torch.rand(number, *field.shape, generator=generator) - 1
    return field + noise / strength
