"""Rows of a batch on the device: those that still resist, and the best image of each so far.

A step of an attack waits for the device once at most: where it asks which rows are left.

Axes: B batch, R rows of it, C channels, H, W.
"""

import torch
from torch import Tensor


def places(mask: Tensor) -> Tensor:
    """Return where a mask (R,) holds, in order; the host waits for their number.

    Indexing by a mask does the same each time, so a step asks once and goes by places.
    """
    return mask.nonzero().squeeze(1)


def per_row(values: Tensor, like: Tensor) -> Tensor:
    """Return values (R,) in the shape that multiplies images: (R, 1, 1, 1)."""
    return values.view(-1, *[1] * (like.dim() - 1))


def keep(kept: Tensor, rows: Tensor, found: Tensor, where: Tensor) -> None:
    """Write what was found (R, ..) into the rows (R,) of kept (B, ..), where (R,) a mask holds.

    Each row is written, changed or not, so that nobody has to know how many are.
    """
    kept[rows] = torch.where(per_row(where, found), found, kept[rows])
