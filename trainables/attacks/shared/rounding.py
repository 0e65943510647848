"""Images as a file holds them: rounded to grey levels without leaving their ball.

Axes: B images, C channels, H, W.
"""

import torch
from torch import Tensor

from trainables.attacks.shared.balls import Radius, broadcast, l2_norms
from trainables.attacks.shared.rows import per_row

EIGHT_BITS = 255.0
"""The largest grey level of an 8-bit file; its levels are its multiples of 1 / 255."""
_TOLERANCE = 5e-7
"""How far a level may lie outside the ball: the rounding of float32."""


def grey_levels(scale: float) -> tuple[float, ...]:
    """Return the largest grey levels to round to: of an 8-bit file, and `scale` of the data."""
    return tuple(dict.fromkeys((EIGHT_BITS, scale)))


def rounded(images: Tensor, clean: Tensor, level: float, *, norm: str, eps: Radius) -> Tensor:
    """Round images (B, C, H, W) to multiples of 1 / level, within eps of the clean ones.

    In Linf a pixel gets the nearest level inside its interval, or stays where the interval holds
    none. In L2 each pixel is rounded towards the clean one, and an image that is outside the ball
    even so is returned as it is.
    """
    if norm == "linf":
        return _in_intervals(images, clean, level, broadcast(eps, images))
    scaled = images * level
    towards = torch.where(images >= clean, scaled.floor(), scaled.ceil()) / level
    inside = l2_norms(towards - clean) <= torch.as_tensor(eps, device=images.device)
    return torch.where(per_row(inside, images), towards, images)


def _in_intervals(images: Tensor, clean: Tensor, level: float, radius: Tensor) -> Tensor:
    lowest = ((clean - radius - _TOLERANCE) * level).ceil().clamp_min(0)
    highest = ((clean + radius + _TOLERANCE) * level).floor().clamp_max(level)
    nearest = torch.maximum(torch.minimum((images * level).round(), highest), lowest) / level
    return torch.where(lowest <= highest, nearest, images)
