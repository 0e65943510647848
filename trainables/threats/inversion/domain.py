"""Where reconstructions are sought: among all images, or among those that a decoder draws.

Axes: B points, C channels, H, W, L latent dimensions.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn import functional as F

GRID = 8
"""Side of the grid on which a change of the pixels is drawn: larger images change smoothly."""


@dataclass(frozen=True, slots=True, eq=False, kw_only=True)
class Domain:
    """The points that a climb goes through, and the images that they stand for."""

    images: Callable[[Tensor], Tensor]
    """Points -> images (B, C, H, W) in [0, 1], differentiable."""
    starts: Callable[[int, torch.Generator], Tensor]
    """How many -> points to start from."""
    changes: Callable[[Tensor, torch.Generator], Tensor]
    """Points -> random changes of them, of their shape, about 1 in root mean square."""
    centre: Tensor
    """The likeliest point; it broadcasts to points."""
    low: float
    high: float
    """The range of a coordinate."""

    def inside(self, points: Tensor) -> Tensor:
        """Move points back into the domain."""
        return points.clamp(self.low, self.high)


def pixels(shape: tuple[int, int, int], colour: Tensor) -> Domain:
    """Return the domain of all images of a shape (C, H, W), `colour` (C, 1, 1) the likeliest.

    Its points are the images themselves. Of images larger than the grid, random changes are smooth,
    as images are: drawn on the grid and interpolated (Ilyas et al., 2019, the data-dependent
    prior).
    """

    def starts(count: int, generator: torch.Generator) -> Tensor:
        return torch.rand((count, *shape), generator=generator, device=generator.device)

    def changes(points: Tensor, generator: torch.Generator) -> Tensor:
        size = [min(GRID, side) for side in shape[1:]]
        drawn = torch.randn(
            (len(points), shape[0], *size), generator=generator, device=points.device
        )
        if tuple(size) == shape[1:]:
            return drawn
        smooth = F.interpolate(drawn, size=shape[1:], mode="bilinear")
        return smooth / smooth.square().mean().sqrt()

    return Domain(
        images=lambda points: points,
        starts=starts,
        changes=changes,
        centre=colour,
        low=0.0,
        high=1.0,
    )


def latents(decode: Callable[[Tensor], Tensor], dimensions: int, device: torch.device) -> Domain:
    """Return the domain of the images that a decoder draws from latents (B, L), normal a priori.

    Its points are (B, L, 1, 1), so that they have an image's axes.
    """

    def draw(count: int, generator: torch.Generator) -> Tensor:
        return torch.randn((count, dimensions, 1, 1), generator=generator, device=device)

    return Domain(
        images=lambda points: decode(points.flatten(1)),
        starts=draw,
        changes=lambda points, generator: draw(len(points), generator),
        centre=torch.zeros(1, device=device),
        low=-torch.inf,
        high=torch.inf,
    )
