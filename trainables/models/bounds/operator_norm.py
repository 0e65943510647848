"""The L2 operator norm of affine modules in a row, as one linear map at its real input size.

Axes: B batch, C channels, H, W; `shape` is that of one input, without the batch.
"""

import math
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from trainables.errors import InputError
from trainables.models.bounds.convolution_bound import convolution_bound
from trainables.models.contract import Normalization

LinearMap = Callable[[Tensor], Tensor]
"""(B, ..) -> (B, ..), without the bias."""

LARGEST_EXACT = 8192
"""Dimensions of the smaller side up to which the norm is exact: a Gram matrix of 512 MiB."""
_NUMBERS_AT_ONCE = 2**22
"""Floats that one block of unit vectors may take on the larger side."""
_ROUNDING = 1 + 1e-9
"""Covers what float64 rounds off, so that a bound is not below the norm by that much."""


def affine(module: nn.Module) -> bool:
    """Return whether a module is one of those that `operator_norm` takes; a subclass is not."""
    return type(module) in _MAPS


def diagonal(module: nn.Module) -> bool:
    """Return whether a module multiplies each channel by a number."""
    return type(module) in _DIAGONAL


def fault(module: nn.Module) -> str | None:
    """Return why an affine module has no norm of its own, and how to mend it; None where it has."""
    if isinstance(module, nn.Conv2d) and module.padding_mode != "zeros":
        return f"its padding_mode is {module.padding_mode!r}; take 'zeros'"
    if isinstance(module, nn.BatchNorm1d | nn.BatchNorm2d) and module.running_var is None:
        return "it keeps no running statistics; take track_running_stats=True"
    return None


def operator_norm(
    modules: Sequence[nn.Module], shape: tuple[int, ...], *, largest_exact: int = LARGEST_EXACT
) -> float:
    """Return the largest ||A v|| / ||v|| of the modules' linear part, or an upper bound of it.

    Exact where the smaller side has at most `largest_exact` dimensions: the root of the largest
    eigenvalue of its Gram matrix, in float64. Above it, or where each module only scales channels,
    the product of a bound for each module, with the scales next to a convolution inside its kernel.
    Batch norm counts with its running statistics in either mode; inf where a weight is not finite.
    Nothing about the modules changes. Raises InputError for a module that has no norm.
    """
    for module in modules:
        if not affine(module) or fault(module):
            reason = fault(module) or "it is not affine"
            raise InputError(f"{type(module).__name__} has no operator norm: {reason}")
    if not all(_finite(module) for module in modules):
        return math.inf
    modules = [module for module in modules if type(module) is not nn.Identity]
    outputs = math.prod(output_shape(modules, shape))
    smaller = min(math.prod(shape), outputs)
    plain = all(diagonal(module) or type(module) is nn.Flatten for module in modules)
    if plain or smaller > largest_exact:
        return _product_bound(modules, shape)
    largest = float(torch.linalg.eigvalsh(_gram_matrix(modules, shape))[-1])
    return math.sqrt(max(0.0, largest)) * _ROUNDING


def linear_map(modules: Sequence[nn.Module], dtype: torch.dtype) -> LinearMap:
    """Return what the modules do to a difference of two inputs; their weights get no gradient."""
    parts = [_MAPS[type(module)](module, dtype) for module in modules]

    def apply(x: Tensor) -> Tensor:
        for part in parts:
            x = part(x)
        return x

    return apply


def output_shape(modules: Sequence[nn.Module], shape: tuple[int, ...]) -> tuple[int, ...]:
    """Return the shape of an output, without the batch."""
    with torch.no_grad():
        zeros = torch.zeros(1, *shape, device=device_of(modules))
        return tuple(linear_map(modules, zeros.dtype)(zeros).shape[1:])


def device_of(modules: Sequence[nn.Module]) -> torch.device:
    """Return the device of the modules' weights; the CPU where they have none."""
    for module in modules:
        for tensor in (*module.parameters(), *module.buffers()):
            return tensor.device
    return torch.device("cpu")


def _finite(module: nn.Module) -> bool:
    return all(bool(t.isfinite().all()) for t in (*module.parameters(), *module.buffers()))


def _gram_matrix(modules: Sequence[nn.Module], shape: tuple[int, ...]) -> Tensor:
    """Return A^T A or A A^T, whichever is smaller, row block by row block; A itself is never
    held.
    """
    apply = linear_map(modules, torch.float64)
    outputs = output_shape(modules, shape)
    of_inputs = math.prod(shape) <= math.prod(outputs)
    side = min(math.prod(shape), math.prod(outputs))
    block = min(side, max(1, _NUMBERS_AT_ONCE // max(math.prod(shape), math.prod(outputs))))
    device = device_of(modules)
    gram = torch.empty(side, side, dtype=torch.float64, device=device)
    zeros = torch.zeros(block, *shape, dtype=torch.float64, device=device)
    with torch.enable_grad():
        # The map is linear: its vector-Jacobian product at zero is that at each point.
        y = apply(zeros.requires_grad_(True))
    for start in range(0, side, block):
        count = min(block, side - start)
        units = torch.zeros(block, side, dtype=torch.float64, device=device)
        units[range(count), range(start, start + count)] = 1
        with torch.no_grad():
            images = apply(units.view(block, *shape)) if of_inputs else units.view(y.shape)
            (rows,) = torch.autograd.grad(y, zeros, images, retain_graph=True)
            rows = rows if of_inputs else apply(rows)
        gram[start : start + count] = rows.flatten(1)[:count]
    return gram


def _product_bound(modules: Sequence[nn.Module], shape: tuple[int, ...]) -> float:
    """Multiply bounds of the single modules; scales go into the weights that belong to them."""
    bound = _ROUNDING
    scale = _ones(shape, modules)
    rest = list(modules)
    while rest:
        module = rest.pop(0)
        following = output_shape([module], shape)
        if diagonal(module):
            scale = scale * _scale(module, torch.float64, len(following))
        elif isinstance(module, nn.Flatten):
            scale = module(scale.expand(shape)[None])[0]
        elif isinstance(module, nn.Conv2d | nn.Linear):
            after = _ones(following, modules)
            while rest and diagonal(rest[0]):
                after = after * _scale(rest.pop(0), torch.float64, len(following))
            bound *= _weight_bound(module, shape, scale, after)
            scale = _ones(following, modules)
        else:
            bound *= _averaging_bound(module, shape)
        shape = following
    return bound * float(scale.abs().max())


def _ones(shape: tuple[int, ...], modules: Sequence[nn.Module]) -> Tensor:
    """Return a scale of one for each channel of `shape`, ready to broadcast."""
    sizes = (shape[0], *(1 for _ in shape[1:]))
    return torch.ones(sizes, dtype=torch.float64, device=device_of(modules))


def _weight_bound(
    module: nn.Conv2d | nn.Linear, shape: tuple[int, ...], before: Tensor, after: Tensor
) -> float:
    """Bound after * module * before, where both scales broadcast to the map on their side."""
    weight = module.weight.detach().double()
    if isinstance(module, nn.Conv2d):
        groups = module.groups
        weight = weight * after.view(-1, 1, 1, 1)
        # Each group sees its own part of the input channels.
        split = weight.view(groups, -1, *weight.shape[1:]) * before.view(groups, 1, -1, 1, 1)
        return convolution_bound(
            split.flatten(0, 1),
            (shape[1], shape[2]),
            stride=(module.stride[0], module.stride[1]),
            dilation=(module.dilation[0], module.dilation[1]),
            groups=groups,
        )
    if len(shape) == 1:
        return _matrix_bound(after[:, None] * weight * before)
    return float(before.abs().max() * after.abs().max()) * _matrix_bound(weight)


def _matrix_bound(matrix: Tensor) -> float:
    """Return the largest singular value of (O, I), or its bound by the sums of rows and columns."""
    if min(matrix.shape) > LARGEST_EXACT:
        sums = matrix.abs().sum(0).max() * matrix.abs().sum(1).max()
        return math.sqrt(float(sums))
    matrix = matrix if matrix.shape[0] <= matrix.shape[1] else matrix.T
    return math.sqrt(max(0.0, float(torch.linalg.eigvalsh(matrix @ matrix.T)[-1])))


def _averaging_bound(module: nn.Module, shape: tuple[int, ...]) -> float:
    """Bound a map without negative weights by the largest sums of its rows and columns (Schur)."""
    ones = torch.ones(1, *shape, dtype=torch.float64, requires_grad=True)
    with torch.enable_grad():
        rows = module(ones)
    (columns,) = torch.autograd.grad(rows.sum(), ones)
    return math.sqrt(float(rows.detach().max() * columns.max()))


def _scale(module: nn.Module, dtype: torch.dtype, axes: int) -> Tensor:
    """Return what each channel is multiplied by, (C, 1, ..), to broadcast to a map of `axes`
    axes.
    """
    if isinstance(module, Normalization):
        scale = 1 / module.std.to(dtype).flatten()
    else:
        assert isinstance(module, nn.BatchNorm1d | nn.BatchNorm2d)
        assert module.running_var is not None, "`fault` names a batch norm without statistics"
        scale = (module.running_var.to(dtype) + module.eps).rsqrt()
        if module.affine:
            scale = scale * module.weight.detach().to(dtype)
    return scale.view(-1, *(1 for _ in range(axes - 1)))


def _diagonal_map(module: nn.Module, dtype: torch.dtype) -> LinearMap:
    return lambda x: x * _scale(module, dtype, x.dim() - 1)


def _convolution_map(module: nn.Conv2d, dtype: torch.dtype) -> LinearMap:
    weight = module.weight.detach().to(dtype)
    return lambda x: F.conv2d(
        x, weight, None, module.stride, module.padding, module.dilation, module.groups
    )


def _dense_map(module: nn.Linear, dtype: torch.dtype) -> LinearMap:
    weight = module.weight.detach().to(dtype)
    return lambda x: F.linear(x, weight)


def _module_itself(module: nn.Module, dtype: torch.dtype) -> LinearMap:
    return module


_DIAGONAL = (Normalization, nn.BatchNorm1d, nn.BatchNorm2d)
# By exact type: a subclass may compute something else.
_MAPS: Mapping[type[nn.Module], Callable[[Any, torch.dtype], LinearMap]] = {
    **dict.fromkeys(_DIAGONAL, _diagonal_map),
    nn.Conv2d: _convolution_map,
    nn.Linear: _dense_map,
    nn.Flatten: _module_itself,
    nn.Identity: _module_itself,
    nn.AvgPool2d: _module_itself,
    nn.AdaptiveAvgPool2d: _module_itself,
}
