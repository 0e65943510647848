"""JPEG as a differentiable function: what an attacker sends backwards through compression.

Axes: B batch, C channels, H, W, P 8x8 blocks of a plane.
"""

import math
from functools import lru_cache

import torch
from torch import Tensor
from torch.nn import functional as F

BLOCK = 8
# ITU T.81, Annex K, tables K.1 and K.2.
_LUMINANCE = (
    16, 11, 10, 16, 24, 40, 51, 61, 12, 12, 14, 19, 26, 58, 60, 55,
    14, 13, 16, 24, 40, 57, 69, 56, 14, 17, 22, 29, 51, 87, 80, 62,
    18, 22, 37, 56, 68, 109, 103, 77, 24, 35, 55, 64, 81, 104, 113, 92,
    49, 64, 78, 87, 103, 121, 120, 101, 72, 92, 95, 98, 112, 100, 103, 99,
)  # fmt: skip
_CHROMINANCE = (
    17, 18, 24, 47, 99, 99, 99, 99, 18, 21, 26, 66, 99, 99, 99, 99,
    24, 26, 56, 99, 99, 99, 99, 99, 47, 66, 99, 99, 99, 99, 99, 99,
    *(99,) * 32,
)  # fmt: skip
_TO_YCBCR = ((0.299, 0.587, 0.114), (-0.168736, -0.331264, 0.5), (0.5, -0.418688, -0.081312))


def differentiable_jpeg(x: Tensor, quality: int) -> Tensor:
    """Compress x (B, C, H, W) in [0, 1] and back, C 1 or 3, with a smooth rounding.

    Rounding is round(c) + (c - round(c))^3, so that a coefficient which the quantisation discards
    passes little gradient. Chroma is halved both ways (4:2:0). Source: Shin and Song, 2017.
    """
    values = 255 * x
    if x.shape[1] == 1:
        return (_plane(values - 128, _LUMINANCE, quality) + 128) / 255
    matrix, inverse = _colours(x.device, x.dtype)
    converted = torch.einsum("dc,bchw->bdhw", matrix, values)
    y, chroma = converted[:, :1], converted[:, 1:]
    height, width = x.shape[2:]
    padded = F.pad(chroma, (0, width % 2, 0, height % 2), mode="replicate")
    halved = _plane(F.avg_pool2d(padded, 2), _CHROMINANCE, quality)
    doubled = F.interpolate(halved, scale_factor=2.0, mode="bilinear")[..., :height, :width]
    y = _plane(y - 128, _LUMINANCE, quality) + 128
    return torch.einsum("dc,bchw->bdhw", inverse, torch.cat([y, doubled], dim=1)) / 255


def smooth_round(values: Tensor) -> Tensor:
    """Round, with a gradient of 3 r^2 at distance r from the nearest integer."""
    nearest = values.detach().round()
    return nearest + (values - nearest) ** 3


def quantisation_table(table: tuple[int, ...], quality: int) -> Tensor:
    """Scale an 8x8 table to a quality in 1..100 as libjpeg does."""
    scale = 5000 // quality if quality < 50 else 200 - 2 * quality
    scaled = [min(max((entry * scale + 50) // 100, 1), 255) for entry in table]
    return torch.tensor(scaled, dtype=torch.float32).view(BLOCK, BLOCK)


def _plane(values: Tensor, table: tuple[int, ...], quality: int) -> Tensor:
    """Quantise planes (B, C, H, W), centred on zero, by blocks in the frequency domain."""
    height, width = values.shape[2:]
    padded = F.pad(values, (0, -width % BLOCK, 0, -height % BLOCK), mode="replicate")
    steps = _steps(table, quality, values.device, values.dtype)
    transform = _dct(values.device, values.dtype)
    rows, columns = (side // BLOCK for side in padded.shape[2:])
    blocks = padded.reshape(*values.shape[:2], rows, BLOCK, columns, BLOCK).transpose(3, 4)
    coefficients = transform @ blocks @ transform.T
    kept = smooth_round(coefficients / steps) * steps
    restored = (transform.T @ kept @ transform).transpose(3, 4).flatten(4, 5).flatten(2, 3)
    return restored[..., :height, :width]


# Constants are copied to a device once: a copy waits for all that is under way there.
@lru_cache(maxsize=16)
def _colours(device: torch.device, dtype: torch.dtype) -> tuple[Tensor, Tensor]:
    """Return the matrix from RGB to YCbCr, and its inverse."""
    matrix = torch.tensor(_TO_YCBCR, dtype=dtype)
    return matrix.to(device), matrix.inverse().to(device)


@lru_cache(maxsize=64)
def _steps(
    table: tuple[int, ...], quality: int, device: torch.device, dtype: torch.dtype
) -> Tensor:
    """Return a table scaled to a quality."""
    return quantisation_table(table, quality).to(device, dtype)


@lru_cache(maxsize=16)
def _dct(device: torch.device, dtype: torch.dtype) -> Tensor:
    """Return the orthonormal 8x8 matrix of the DCT-II."""
    place = torch.arange(BLOCK, dtype=torch.float64)
    matrix = torch.cos(math.pi / BLOCK * (place + 0.5) * place[:, None]) * math.sqrt(2 / BLOCK)
    matrix[0] /= math.sqrt(2)
    return matrix.to(device, dtype)
