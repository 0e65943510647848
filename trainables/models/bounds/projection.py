"""Keeps a path of layers 1-Lipschitz while it is trained.

Source: Lecuyer et al., 2019 (PixelDP projects its layers, Parseval networks); here whole affine
runs are scaled by their norm at the real input size.
"""

import math
from collections.abc import Sequence

import torch
from torch import Tensor, nn

from trainables.errors import InputError
from trainables.models.bounds.lipschitz import AffineRun, Residual, split_path
from trainables.models.bounds.operator_norm import LinearMap, device_of, linear_map

FIRST_ITERATIONS = 50
"""Iterations of the first step, from a random start."""
ITERATIONS = 2
"""Iterations of each later step, from where the last one ended."""
LARGEST_EXACT = 1280
"""Dimensions up to which `settle` takes the exact norm: above it the frequencies are cheaper."""
_SQUARINGS = 12
"""Of a small matrix, until it holds its 4096th power: vectors whose eigenvalue is 1 % smaller are
gone then."""
_MARGIN = 1e-6
"""Left below the target by `settle`, because float32 rounds the scaled weights."""


class PathProjection:
    """Scales the affine runs of a path down so that the path stays 1-Lipschitz.

    Each run's norm is held at or below 1 over the constants of the activations and pools behind it
    (of those before it too, for the first). A run is scaled through one weight: that of its last
    batch norm, convolution or dense layer. Raises InputError, naming the place, for a residual
    block, and where what must be scaled has no weight.
    """

    def __init__(self, layers: Sequence[nn.Module], shape: tuple[int, ...]) -> None:
        self._runs: list[_ScaledRun] = []
        waiting, place = 1.0, ""
        for segment in split_path(layers, shape):
            place = segment.place
            if isinstance(segment, Residual):
                raise _refusal("the residual block", place)
            if isinstance(segment, AffineRun):
                scaled = _scaled_module(segment)
                if scaled is not None:
                    self._runs.append(_ScaledRun(segment, scaled, 1 / waiting))
                    waiting = 1.0
                elif _may_exceed_one(segment):
                    raise _refusal("the layers without a weight to scale", place)
            elif self._runs:
                self._runs[-1].target /= segment.constant
            else:
                waiting *= segment.constant
        if waiting > 1:
            raise _refusal("a path without a weight to scale", place)

    def step(self) -> None:
        """Scale each run by an estimate of its norm, after a step of the optimiser.

        The estimate comes from below, by iterations that go on from the last call's.
        """
        for run in self._runs:
            run.scale_by_estimate()

    def iterates(self) -> list[Tensor | None]:
        """Return where the iteration of each run's norm stands."""
        return [run.space for run in self._runs]

    def set_iterates(self, iterates: Sequence[Tensor | None]) -> None:
        """Go on from where the iterations of another training of the path stood."""
        for run, space in zip(self._runs, iterates, strict=True):
            run.space = space

    def settle(self) -> None:
        """Scale each run by a rigorous bound of its norm: then the path's bound is at most 1.

        A run whose weights are not finite is left alone: its training has diverged.
        """
        for run in self._runs:
            run.scale_by_bound()


class _ScaledRun:
    """A run, the module whose weight is scaled, and the state of its norm's iteration."""

    def __init__(self, run: AffineRun, scaled: nn.Module, target: float) -> None:
        self.run = run
        self.scaled = scaled
        self.target = target
        self.space: Tensor | None = None
        """(3, C, H, W): the input stretched most so far, its gradient, the way it last moved."""

    def scale_by_estimate(self) -> None:
        modules = self.run.modules
        iterations = ITERATIONS
        if self.space is None:
            generator = torch.Generator().manual_seed(0)
            self.space = torch.randn(3, *self.run.shape, generator=generator)
            iterations = FIRST_ITERATIONS
        self.space = self.space.to(device_of(modules))
        apply = linear_map(modules, torch.float32)
        for _ in range(iterations):
            estimate = self._iterate(apply)
        # Without a comparison on the CPU, so that a GPU does not wait.
        self._multiply((self.target / estimate).clamp(max=1))

    def _iterate(self, apply: LinearMap) -> Tensor:
        """Improve the space; return the largest ||A v|| within the old one, v of length 1.

        LOBPCG for one vector (Knyazev, 2001): conjugate directions, which need far fewer steps than
        power iteration where, as in a convolution, the largest singular values lie close together.
        """
        assert self.space is not None
        basis, _ = torch.linalg.qr(self.space.flatten(1).T)
        with torch.enable_grad():
            v = basis.T.reshape(self.space.shape).requires_grad_(True)
            image = apply(v)
        (back,) = torch.autograd.grad(image, v, image.detach())
        # Weights that are not finite count as zeros: the training itself names the divergence.
        back = back.flatten(1).T.nan_to_num(0, 0, 0)
        value, vector = leading_pair((basis.T @ back).nan_to_num(0, 0, 0))
        best = basis @ vector
        residual = back @ vector - value * best
        before = basis[:, 1:] @ vector[1:]
        self.space = torch.stack([best, residual, before]).view(self.space.shape)
        return value.clamp_min(0).sqrt()

    def scale_by_bound(self) -> None:
        norm = self.run.bound(LARGEST_EXACT)
        if self.target < norm < math.inf:
            self._multiply(self.target * (1 - _MARGIN) / norm)

    def _multiply(self, factor: float | Tensor) -> None:
        weight = self.scaled.weight
        assert isinstance(weight, Tensor)
        with torch.no_grad():
            weight.mul_(factor)


def leading_pair(matrix: Tensor) -> tuple[Tensor, Tensor]:
    """Return the largest eigenvalue () and its vector (D,) of a symmetric matrix without any < 0.

    On the CPU by LAPACK. Elsewhere by squaring the matrix until that vector alone is left, or a
    mixture with one of nearly the same eigenvalue: torch's eigh looks at an error code there, and
    so waits for the device at each step of a training.
    """
    if matrix.device.type == "cpu":
        values, vectors = torch.linalg.eigh(matrix)
        return values[-1], vectors[:, -1]
    return squared_pair(matrix)


def squared_pair(matrix: Tensor) -> tuple[Tensor, Tensor]:
    """Return what `leading_pair` does, on any device without waiting for it; zeros for zeros."""
    tiny = torch.finfo(matrix.dtype).tiny
    power = matrix / matrix.trace().clamp_min(tiny)
    for _ in range(_SQUARINGS):
        power = power @ power
        power = power / power.trace().clamp_min(tiny)
    column = power.index_select(1, power.diagonal().argmax().view(1)).squeeze(1)
    vector = column / column.norm().clamp_min(tiny)
    return vector @ matrix @ vector, vector


def _scaled_module(run: AffineRun) -> nn.Module | None:
    """Return the module through whose weight a run is scaled: the last that has one.

    None too where a batch norm without a weight stands behind it: that would undo any scaling.
    """
    for module in reversed(run.modules):
        if isinstance(module, nn.BatchNorm1d | nn.BatchNorm2d):
            return module if module.affine else None
        if isinstance(module, nn.Conv2d | nn.Linear):
            return module
    return None


def _may_exceed_one(run: AffineRun) -> bool:
    """Return whether a run without a weight to scale is, or may become, longer than 1."""
    moving = any(isinstance(module, nn.BatchNorm1d | nn.BatchNorm2d) for module in run.modules)
    return moving or run.bound(LARGEST_EXACT) > 1 + _MARGIN


def _refusal(what: str, place: str) -> InputError:
    return InputError(
        f"pixeldp: cannot normalize {what} in {place}, before the noise; take sensitivity: "
        "measured, or place the noise earlier"
    )
