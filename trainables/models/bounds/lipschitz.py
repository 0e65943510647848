"""A rigorous upper bound of the L2 Lipschitz constant of modules in a row.

Runs of affine modules count by their operator norm, all else by a constant of its own. The product
bounds the whole. Source: Szegedy et al., Intriguing properties of neural networks, 2014, section
4.3; here with exact norms of whole affine runs.
"""

import itertools
import math
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import torch
from torch import nn

from trainables.errors import InputError
from trainables.models.bounds.operator_norm import (
    LARGEST_EXACT,
    affine,
    fault,
    operator_norm,
    output_shape,
)

CONSTANTS: Mapping[type[nn.Module], Callable[[Any], float]] = {
    nn.ReLU: lambda module: 1.0,
    nn.Tanh: lambda module: 1.0,
    nn.ELU: lambda module: max(1.0, abs(module.alpha)),
    # The largest slopes, rounded up: 1.128905 (1.128994 with approximate="tanh") and 1.099840.
    nn.GELU: lambda module: 1.1290,
    nn.SiLU: lambda module: 1.09984,
}
_BATCH_NORM = "take norm: batch or none, or place the noise earlier"
REMEDIES: Mapping[type[nn.Module], str] = {
    nn.GroupNorm: _BATCH_NORM,
    nn.LayerNorm: _BATCH_NORM,
    nn.InstanceNorm2d: _BATCH_NORM,
}


class Leaf(NamedTuple):
    """A module that is looked at as a whole, and where it stands."""

    place: str
    module: nn.Module


@dataclass(frozen=True, slots=True, eq=False)
class AffineRun:
    """Affine modules in a row: one linear map except for a constant."""

    place: str
    modules: tuple[nn.Module, ...]
    shape: tuple[int, ...]
    """Of one input."""

    def bound(self, largest_exact: int) -> float:
        """Return the operator norm, or an upper bound of it."""
        return operator_norm(self.modules, self.shape, largest_exact=largest_exact)


@dataclass(frozen=True, slots=True)
class Fixed:
    """A module whose constant does not depend on its weights."""

    place: str
    constant: float

    def bound(self, largest_exact: int) -> float:
        """Return the constant."""
        return self.constant


@dataclass(frozen=True, slots=True, eq=False)
class Residual:
    """A branch with a shortcut, added up, with an activation behind."""

    place: str
    branch: tuple["Segment", ...]
    shortcut: tuple["Segment", ...]
    constant: float

    def bound(self, largest_exact: int) -> float:
        """Return the sum of both sides times the activation's constant."""
        sides = [_product(side, largest_exact) for side in (self.branch, self.shortcut)]
        return self.constant * sum(sides)


Segment = AffineRun | Fixed | Residual


def lipschitz_bound(
    layers: Sequence[nn.Module], shape: tuple[int, ...], *, largest_exact: int = LARGEST_EXACT
) -> float:
    """Return an upper bound of ||f(x) - f(x')|| / ||x - x'|| over all inputs of `shape` (C, H, W).

    Batch norm counts with its running statistics, so the bound is of eval mode. Affine runs are
    exact where a side has at most `largest_exact` dimensions. No layers: 1. inf where a weight is
    not finite. Raises InputError, naming module and place, where a module has no bound.
    """
    return _product(split_path(layers, shape), largest_exact)


def split_path(layers: Sequence[nn.Module], shape: tuple[int, ...]) -> tuple[Segment, ...]:
    """Cut the layers into maximal affine runs and what stands between them.

    Raises InputError, naming module and place, for a module without a bound.
    """
    named = ((str(number), layer) for number, layer in enumerate(layers))
    return _segments(_leaves(named, ()), shape)


def _product(segments: Sequence[Segment], largest_exact: int) -> float:
    return math.prod(segment.bound(largest_exact) for segment in segments)


def _leaves(named: Iterable[tuple[str, nn.Module]], above: tuple[str, ...]) -> Iterator[Leaf]:
    """Walk through Sequentials in order; Identity is left out."""
    for name, module in named:
        names = (*above, name)
        if type(module) is nn.Sequential and not _hooked(module):
            # Unlike named_children(), this lists a module that stands twice twice.
            yield from _leaves(module._modules.items(), names)
        elif type(module) is not nn.Identity:
            # The numbers before the first name say nothing: "layer1.0", not "1.layer1.0".
            telling = tuple(itertools.dropwhile(str.isdigit, names)) or names
            yield Leaf(".".join(telling), module)


def _segments(leaves: Iterator[Leaf], shape: tuple[int, ...]) -> tuple[Segment, ...]:
    segments: list[Segment] = []
    for is_affine, group in itertools.groupby(leaves, key=lambda leaf: affine(leaf.module)):
        run = [_checked(leaf) for leaf in group]
        if is_affine:
            modules = tuple(leaf.module for leaf in run)
            segments.append(AffineRun(run[0].place, modules, shape))
            shape = output_shape(modules, shape)
            continue
        for leaf in run:
            segments.append(_single(leaf, shape))
            shape = _shape_after(leaf.module, shape)
    return tuple(segments)


def _checked(leaf: Leaf) -> Leaf:
    """Return the leaf back; raise InputError where it has no bound."""
    from torchvision.models.resnet import BasicBlock

    module, kind = leaf.module, type(leaf.module)
    if _hooked(module):
        raise _refusal(leaf, "it has forward hooks, which may change what it computes; remove them")
    if not affine(module) and kind not in (*CONSTANTS, nn.MaxPool2d, BasicBlock):
        raise _refusal(leaf, REMEDIES.get(kind, "place the noise earlier"))
    reason = fault(module)
    if isinstance(module, nn.MaxPool2d) and module.return_indices:
        reason = "it returns indices too; take return_indices=False"
    if reason:
        raise _refusal(leaf, reason)
    return leaf


def _hooked(module: nn.Module) -> bool:
    """Return whether hooks may change the output: so work the older weight and spectral norms."""
    return bool(module._forward_pre_hooks or module._forward_hooks)


def _refusal(leaf: Leaf, remedy: str) -> InputError:
    kind = type(leaf.module).__name__
    return InputError(f"pixeldp: cannot bound {kind} in {leaf.place}, before the noise; {remedy}")


def _single(leaf: Leaf, shape: tuple[int, ...]) -> Segment:
    """Return the segment of a module that is not affine."""
    from torchvision.models.resnet import BasicBlock

    module = leaf.module
    if isinstance(module, BasicBlock):
        main = ("conv1", "bn1", "relu", "conv2", "bn2")
        inner = [(name, getattr(module, name)) for name in main]
        beside = [] if module.downsample is None else [("downsample", module.downsample)]
        (activation,) = _segments(_leaves([("relu", module.relu)], (leaf.place,)), shape)
        return Residual(
            leaf.place,
            _segments(_leaves(inner, (leaf.place,)), shape),
            _segments(_leaves(beside, (leaf.place,)), shape),
            activation.bound(LARGEST_EXACT),
        )
    if isinstance(module, nn.MaxPool2d):
        return Fixed(leaf.place, _max_pool_constant(module, shape))
    return Fixed(leaf.place, CONSTANTS[type(module)](module))


def _shape_after(module: nn.Module, shape: tuple[int, ...]) -> tuple[int, ...]:
    from torchvision.models.resnet import BasicBlock

    if isinstance(module, BasicBlock):
        return output_shape([module.conv1, module.conv2], shape)
    if isinstance(module, nn.MaxPool2d):
        return tuple(module(torch.zeros(1, *shape)).shape[1:])
    return shape


def _max_pool_constant(module: nn.MaxPool2d, shape: tuple[int, ...]) -> float:
    """Return the root of the largest number of windows that hold one pixel.

    |max a - max b|^2 is at most the squared distance over the window; summed over the windows, each
    pixel counts once for each that holds it.
    """
    windows = 1
    sides = zip(shape[1:], _shape_after(module, shape)[1:], strict=True)
    for axis, (pixels, outputs) in enumerate(sides):
        taps, stride, padding, dilation = (
            value if isinstance(value, int) else value[axis]
            for value in (module.kernel_size, module.stride, module.padding, module.dilation)
        )
        held = [0] * pixels
        for output in range(outputs):
            for tap in range(taps):
                place = output * stride + tap * dilation - padding
                if 0 <= place < pixels:
                    held[place] += 1
        windows *= max(held)
    return math.sqrt(windows)
