"""Input transformations: what they do to an image, and what an attacker may send backwards.

Axes: B batch, C channels, H, W.
"""

import io
from collections.abc import Callable, Mapping
from dataclasses import dataclass

import numpy as np
import torch
from PIL import Image
from torch import Tensor
from torch.nn import functional as F

from trainables.defenses.prediction.jpeg_model import BLOCK, differentiable_jpeg

Transform = Callable[[Tensor], Tensor]
"""Images (B, C, H, W) in [0, 1] -> images of the same shape, each by itself."""
JPEG_CHANNELS = (1, 3)
_LONGEST_SIDE = 65_500
"""Pixels that libjpeg takes in a row or a column."""


@dataclass(frozen=True, slots=True)
class Squeezer:
    """A transformation with the ways to differentiate it."""

    transform: Transform
    exact: bool
    """Whether autograd's gradient of `transform` is its true one."""
    surrogate: Transform | None = None
    """A smooth stand-in, whose gradient an attacker may pass backwards instead."""

    def ways(self) -> list[Transform]:
        """List the differentiable forms; all return what `transform` returns.

        The true gradient where there is one, that of the surrogate where there is one, and always
        the identity's (BPDA; Athalye et al., 2018).
        """
        ways = [self.transform] if self.exact else []
        if self.surrogate is not None:
            ways.append(_forwards_backwards(self.transform, self.surrogate))
        return [*ways, _forwards_backwards(self.transform, lambda x: x)]


def _forwards_backwards(forwards: Transform, backwards: Transform) -> Transform:
    def both(x: Tensor) -> Tensor:
        smooth = backwards(x)
        return forwards(x.detach()) + (smooth - smooth.detach())

    return both


def reduce_bit_depth(x: Tensor, bits: int) -> Tensor:
    """Round to 2^bits levels in [0, 1]. Source: Xu et al., 2018, section III-A."""
    levels = float(2**bits - 1)
    return (x * levels).round() / levels


def median_filter(x: Tensor, window: int) -> Tensor:
    """Return the median over window x window pixels, of a channel by itself.

    Borders are mirrored; of an even number the upper median is taken and the window reaches up and
    left, as in scipy.ndimage.median_filter, which Xu et al. use. window is 2 or 3, where mirroring
    is repeating the border. Source: Xu et al., 2018, section III-B.
    """
    before, after = window // 2, (window - 1) // 2
    padded = F.pad(x, (before, after, before, after), mode="replicate")
    patches = padded.unfold(2, window, 1).unfold(3, window, 1).flatten(4)
    return patches.kthvalue(window**2 // 2 + 1, dim=4).values


def jpeg(x: Tensor, quality: int) -> Tensor:
    """Compress to JPEG (libjpeg, 4:2:0) and back, each image by itself; C must be 1 or 3.

    Source: Das et al., 2017; Guo et al., 2018.
    """
    pixels = (x.detach() * 255).round().clamp(0, 255).to(torch.uint8).cpu()
    if len(pixels) == 0:
        return x.detach()
    if x.shape[1] == 1:
        return _grey_through_jpeg(pixels, quality).to(x) / 255
    return torch.stack([_colour_through_jpeg(image, quality) for image in pixels]).to(x) / 255


def _grey_through_jpeg(pixels: Tensor, quality: int) -> Tensor:
    """Encode and decode uint8 pixels (B, 1, H, W), many in one file, one below the other.

    Grey blocks of 8x8 know nothing of one another, so that each image comes out as it would alone:
    with rows repeated up to a whole block, as libjpeg does at the edge.
    """
    height = pixels.shape[2]
    rows = torch.arange(height + -height % BLOCK).clamp_max(height - 1)
    padded = pixels[:, 0, rows]
    parts = torch.split(padded, max(1, _LONGEST_SIDE // len(rows)))
    decoded = [_through_jpeg(part.flatten(0, 1), quality).view_as(part) for part in parts]
    return torch.cat(decoded)[:, None, :height]


def _colour_through_jpeg(pixels: Tensor, quality: int) -> Tensor:
    """Encode and decode uint8 pixels (3, H, W); their halved chroma is smoothed across blocks."""
    return _through_jpeg(pixels.permute(1, 2, 0), quality).permute(2, 0, 1)


def _through_jpeg(pixels: Tensor, quality: int) -> Tensor:
    """Encode and decode uint8 pixels, (H, W) or (H, W, 3)."""
    file = io.BytesIO()
    Image.fromarray(pixels.numpy()).save(file, "JPEG", quality=quality)
    return torch.from_numpy(np.array(Image.open(file)))


def bit_depth_squeezer(bits: int) -> Squeezer:
    """Squeeze by fewer bits.

    There is no surrogate: smooth steps, which change the sign of no gradient, broke no more images
    than the identity.
    """
    return Squeezer(lambda x: reduce_bit_depth(x, bits), exact=False)


def median_squeezer(window: int) -> Squeezer:
    """Squeeze by a median filter."""
    return Squeezer(lambda x: median_filter(x, window), exact=True)


def jpeg_squeezer(quality: int) -> Squeezer:
    """Squeeze by JPEG."""
    return Squeezer(
        lambda x: jpeg(x, quality), exact=False,
        surrogate=lambda x: differentiable_jpeg(x, quality),
    )  # fmt: skip


SQUEEZERS: Mapping[str, Callable[[int], Squeezer]] = {
    "bit_depth": bit_depth_squeezer,
    "median": median_squeezer,
    "jpeg": jpeg_squeezer,
}
"""Kind -> its squeezer, from bits, window or quality."""
