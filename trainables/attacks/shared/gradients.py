"""Gradients that an attack can go by, also where a network's own are not finite.

Axes: R rows (images), C channels, H, W.
"""

import torch
from torch import Tensor

from trainables.attacks.shared.rows import per_row

_STEEPEST = 1e10
"""Slope along signs that is believed at most: its square is far from what float32 holds."""


def usable(gradients: Tensor) -> Tensor:
    """Return gradients (R, C, H, W) with those of an image that has no finite length replaced by
    their signs.

    An infinite entry counts as one, NaN as zero: one such entry would make the whole step NaN. A
    length that overflows float32 is none to divide by either. What is finite is returned as it is,
    bit for bit, and no look at it waits for the device.
    """
    return torch.where(per_row(_sound(gradients), gradients), gradients, _signs(gradients))


def usable_slopes(gradients: Tensor) -> Tensor:
    """Return gradients (R, C, H, W) as `usable` does, the signs scaled to a slope.

    Who divides a gap by the length of its gradient gets the distance along the signs at which the
    finite entries alone would close it.
    """
    signs = _signs(gradients)
    finite = gradients.masked_fill(~gradients.isfinite(), 0).abs().flatten(1)
    slope = finite.clamp_max(_STEEPEST).sum(1) / signs.flatten(1).abs().sum(1).clamp_min(1)
    slope = slope.masked_fill(~(slope > 0), 1)
    scaled = per_row(slope, signs) * signs
    return torch.where(per_row(_sound(gradients), gradients), gradients, scaled)


def _sound(gradients: Tensor) -> Tensor:
    found: Tensor = torch.linalg.vector_norm(gradients.flatten(1), dim=1).isfinite()
    return found


def _signs(gradients: Tensor) -> Tensor:
    return gradients.sign().nan_to_num(nan=0.0)
