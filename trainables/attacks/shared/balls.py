"""The norm balls that attacks move in: one object a norm, so that no attack is written twice.

Axes: B batch, C channels, H, W. A radius is a float or one per image, shape (B,).
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass

import torch
from torch import Tensor

from trainables.attacks.shared.rows import per_row
from trainables.errors import InputError

Radius = float | Tensor
_TINY = 1e-12


def broadcast(radius: Radius, like: Tensor) -> Tensor:
    """Reshape the radius so that it multiplies images: (B, 1, 1, 1), or () for one radius."""
    if not isinstance(radius, Tensor):
        # Filled on the device: to copy a number there would wait for all that is under way.
        return torch.full((), radius, dtype=like.dtype, device=like.device)
    tensor = radius.to(like)
    return per_row(tensor, like) if tensor.dim() else tensor


def of_rows(radius: Radius, rows: Tensor) -> Radius:
    """Return the radii of some rows (R,) of a batch; one radius is that of every row."""
    return radius[rows] if isinstance(radius, Tensor) and radius.dim() else radius


@dataclass(frozen=True, slots=True)
class Ball:
    """How to start in, climb in and return to the ball of one norm."""

    direction: Callable[[Tensor], Tensor]
    """Gradient -> the steepest step of unit length."""
    project: Callable[[Tensor, Tensor], Tensor]
    """(perturbation, radius as broadcast) -> the nearest perturbation inside."""
    start: Callable[[Tensor, Tensor, torch.Generator], Tensor]
    """(images, radius as broadcast, generator) -> a random perturbation inside."""


def l2_norms(delta: Tensor) -> Tensor:
    """Return the Euclidean length of each perturbation (B, C, H, W), shape (B,)."""
    norms: Tensor = torch.linalg.vector_norm(delta.flatten(1), dim=1)
    return norms


def _lengths(delta: Tensor) -> Tensor:
    return per_row(l2_norms(delta), delta)


def _linf_project(delta: Tensor, radius: Tensor) -> Tensor:
    return torch.clamp(delta, -radius, radius)


def _linf_start(images: Tensor, radius: Tensor, generator: torch.Generator) -> Tensor:
    unit = torch.rand(images.shape, generator=generator, device=images.device, dtype=images.dtype)
    return (2 * unit - 1) * radius


def _l2_direction(gradient: Tensor) -> Tensor:
    return gradient / _lengths(gradient).clamp_min(_TINY)


def _l2_project(delta: Tensor, radius: Tensor) -> Tensor:
    return delta * torch.clamp(radius / _lengths(delta).clamp_min(_TINY), max=1.0)


def _l2_start(images: Tensor, radius: Tensor, generator: torch.Generator) -> Tensor:
    gaussian = torch.randn(
        images.shape, generator=generator, device=images.device, dtype=images.dtype
    )
    uniform = torch.rand(len(images), generator=generator, device=images.device)
    # Uniform in the ball: the length of a uniform point is U^(1/dimension) of the radius.
    length = uniform ** (1 / images[0].numel())
    return _l2_direction(gaussian) * broadcast(length, images) * radius


BALLS: Mapping[str, Ball] = {
    "linf": Ball(torch.sign, _linf_project, _linf_start),
    "l2": Ball(_l2_direction, _l2_project, _l2_start),
}


def ball(norm: str) -> Ball:
    """Look a norm's ball up; InputError names the known norms."""
    if norm not in BALLS:
        raise InputError(f"unknown norm {norm!r}; known: {', '.join(BALLS)}")
    return BALLS[norm]
