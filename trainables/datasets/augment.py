"""Training-time augmentation on the device.

Legend: B batch, C channels, H height, W width.
"""

import torch
import torch.nn.functional as F
from torch import Tensor

from trainables.datasets.dataset import Augmentation

PADDING = 4
"""Black pixels added on each side before the random crop, as is usual for CIFAR-10."""


def augment(images: Tensor, kind: Augmentation, generator: torch.Generator) -> Tensor:
    """Augment a batch (B, C, H, W); 'none' returns the batch itself.

    'crop_flip' is a random crop after zero-padding by four pixels and a random horizontal flip.
    """
    if kind == "none":
        return images
    batch, channels, height, width = images.shape
    top = _draw(batch, 2 * PADDING + 1, generator, images.device)
    left = _draw(batch, 2 * PADDING + 1, generator, images.device)
    flipped = _draw(batch, 2, generator, images.device).bool()
    along_h = torch.arange(height, device=images.device)
    along_w = torch.arange(width, device=images.device)
    rows_BH = top[:, None] + along_h
    columns_BW = left[:, None] + torch.where(flipped[:, None], along_w.flip(0), along_w)
    padded = F.pad(images, (PADDING,) * 4)
    return padded[
        torch.arange(batch, device=images.device)[:, None, None, None],
        torch.arange(channels, device=images.device)[:, None, None],
        rows_BH[:, None, :, None],
        columns_BW[:, None, None, :],
    ]


def _draw(count: int, end: int, generator: torch.Generator, device: torch.device) -> Tensor:
    """Draw whole numbers in [0, end) on the generator's own device, then move them."""
    drawn = torch.randint(end, (count,), generator=generator, device=generator.device)
    return drawn.to(device)
