"""An upper bound of a zero-padded convolution's L2 operator norm, from its frequencies.

Axes: G groups, O output and I input channels of a group, M taps a phase, N grid points, F
frequencies.
"""

import math

import torch
from torch import Tensor

_NUMBERS_AT_ONCE = 2**21
"""Complex numbers that one batch of frequencies may hold."""


def convolution_bound(
    kernel: Tensor,
    size: tuple[int, int],
    *,
    stride: tuple[int, int],
    dilation: tuple[int, int],
    groups: int,
) -> float:
    """Return the largest singular value over the frequencies of a grid on which nothing wraps
    around.

    kernel (G O, I, h, w), float64; size (H, W) of the input. Zero padding of any width only leaves
    out rows of the full convolution, so it does not enter. A kernel that spans K pixels gives at
    most ceil((H + K - 1) / stride) outputs along an axis: on a circle of that many points circular
    and full convolution are the same, and on a smaller one the norm could come out too small. A
    stride splits input and kernel into stride^2 phases, each a convolution of stride 1.
    Source: Sedghi et al., The singular values of convolutional layers, 2019 (stride 1, circular).
    """
    spans = [step * (taps - 1) + 1 for taps, step in zip(kernel.shape[2:], dilation, strict=True)]
    grid = [
        math.ceil((pixels + span - 1) / step)
        for pixels, span, step in zip(size, spans, stride, strict=True)
    ]
    phases = _phases(kernel, spans, stride, dilation, groups).to(torch.complex128)
    # The kernel is real: the frequencies of the other half have the same singular values.
    columns = _waves(grid[1], phases.shape[-1], phases.device)[: grid[1] // 2 + 1]
    across = torch.einsum("goimn,fn->goimf", phases, columns)
    rows = _waves(grid[0], phases.shape[-2], phases.device)
    count = max(1, _NUMBERS_AT_ONCE // across[..., 0, :].numel())
    largest = [
        _largest_singular_value(torch.einsum("goimf,em->efgoi", across, some))
        for some in torch.split(rows, count)
    ]
    return max(largest)


def _phases(
    kernel: Tensor,
    spans: list[int],
    stride: tuple[int, int],
    dilation: tuple[int, int],
    groups: int,
) -> Tensor:
    """Sort the taps by their place modulo the stride: (G, O, I stride^2, M, M)."""
    taps = [math.ceil(span / step) for span, step in zip(spans, stride, strict=True)]
    outputs, inputs = kernel.shape[:2]
    spread = kernel.new_zeros(outputs, inputs, taps[0] * stride[0], taps[1] * stride[1])
    spread[..., : spans[0] : dilation[0], : spans[1] : dilation[1]] = kernel
    spread = spread.view(
        groups, outputs // groups, inputs, taps[0], stride[0], taps[1], stride[1]
    ).permute(0, 1, 2, 4, 6, 3, 5)
    return spread.reshape(groups, outputs // groups, -1, *taps)


def _waves(points: int, taps: int, device: torch.device) -> Tensor:
    """Return exp(-2 pi i f m / N) for each of N frequencies, (N, M)."""
    numbers = torch.arange(points, device=device)
    angles = -2 * math.pi / points * (numbers[:, None] * numbers[:taps] % points).double()
    return torch.polar(torch.ones_like(angles), angles)


def _largest_singular_value(matrices: Tensor) -> float:
    """Return the largest over (.., O, I), through the Gram matrices of the smaller side."""
    if matrices.shape[-2] > matrices.shape[-1]:
        matrices = matrices.mT
    eigenvalues = torch.linalg.eigvalsh(matrices @ matrices.mH)
    return math.sqrt(max(0.0, float(eigenvalues.max())))
