"""Images climbed out of a model, a class at a time: what does it take for that class?

Axes: B images (classes x starts), C channels, H, W, K classes.
"""

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn import functional as F

from trainables.attacks.shared.losses import margin
from trainables.deployed.predictor import Surface, surface_scores
from trainables.threats.inversion.domain import Domain

Slope = Callable[[Tensor, Tensor], Tensor]
"""Points of a domain (B, C, H, W) and classes (B,) -> the direction in which the classes' margins
grow, of the points' shape and any length."""

BATCH = 512
"""Images that are climbed at once."""
_MOMENTUM = 0.9
_SMOOTH = 1e-6
"""Under the root of the total variation, so that it has a gradient where nothing varies."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Climb:
    """How an image is climbed."""

    steps: int
    step_size: float
    """Root mean square change of a coordinate that a gradient of length one makes in all, at
    first."""
    tv: float
    """Weight of the total variation: of its gradient's length against that of the margin."""
    l2: float
    """Weight of the distance from the domain's centre, as a root mean square over coordinates."""


def invert(slope: Slope, starts: Tensor, classes: Tensor, climb: Climb, domain: Domain) -> Tensor:
    """Climb from points of the domain to images (B, C, H, W) that are classified as classes (B,).

    What is climbed is the margin of the class over the best other one, less the priors: the total
    variation of the points, and half the squared distance from the domain's centre. The margin's
    slope counts by its direction alone, so a scale on the scores, as a temperature is one, changes
    nothing. What is drawn again at every step, by a random model or for an estimate of the slope,
    the momentum averages (EOT). The step falls linearly to zero. BATCH images are climbed at a
    time.

    Raises PredictorError where the model returns no scores or NaN. Source: Fredrikson et al., 2015;
    the margin: Carlini and Wagner, 2017; total variation: Mahendran and Vedaldi, 2015.
    """
    parts = [
        domain.images(_climb(slope, x, y, climb, domain))
        for x, y in zip(torch.split(starts, BATCH), torch.split(classes, BATCH), strict=True)
    ]
    return torch.cat(parts)


def surface_slope(
    surface: Surface, domain: Domain, generator: torch.Generator, num_classes: int
) -> Slope:
    """Return the slope of who may differentiate the model: the gradient of the margin."""

    def slope(points: Tensor, classes: Tensor) -> Tensor:
        def value(points: Tensor) -> Tensor:
            images = domain.images(points)
            return margins(surface_scores(surface, images, generator, num_classes), classes)

        return _gradient(value, points)

    return slope


def margins(scores: Tensor, classes: Tensor) -> Tensor:
    """Return the score of a class (B,) less the best other one, of scores (B, K)."""
    return -margin(scores, classes)


def _climb(slope: Slope, x: Tensor, classes: Tensor, climb: Climb, domain: Domain) -> Tensor:
    velocity = torch.zeros_like(x)
    length = x[0].numel() ** 0.5
    for step in range(climb.steps):
        direction = _unit(slope(x, classes))
        if climb.tv:
            direction = direction - climb.tv * _unit(_gradient(_variation, x))
        direction = direction - climb.l2 / length * (x - domain.centre)
        velocity = _MOMENTUM * velocity + (1 - _MOMENTUM) * direction
        size = climb.step_size * length * (1 - step / climb.steps)
        x = domain.inside(x + size * velocity)
    return x


def _gradient(value: Callable[[Tensor], Tensor], x: Tensor) -> Tensor:
    """Return the gradient (B, C, H, W) of a value (B,) of each point."""
    x = x.detach().requires_grad_(True)
    with torch.enable_grad():
        found = value(x)
        if not found.requires_grad:
            return torch.zeros_like(x)  # nothing to climb: the rest alone moves the image
        (gradient,) = torch.autograd.grad(found.sum(), x)
    # Scores of plus or minus infinity have no slope.
    return gradient.nan_to_num(0, 0, 0)


def _variation(x: Tensor) -> Tensor:
    """Return the total variation (B,), isotropic."""
    down, right = x.diff(dim=2), x.diff(dim=3)
    squares = F.pad(down, (0, 0, 0, 1)).square() + F.pad(right, (0, 1)).square()
    found: Tensor = (squares + _SMOOTH).sqrt().flatten(1).sum(1)
    return found


def _unit(gradient: Tensor) -> Tensor:
    """Scale each image's gradient to length one; a zero one stays zero."""
    # By the largest entry first: the square of a tiny one is zero in float32.
    largest = gradient.flatten(1).abs().amax(1)[:, None, None, None]
    scaled = gradient / largest.masked_fill(~(largest > 0), 1)
    # The largest entry is one now, so the length is one at least, or zero.
    lengths = scaled.flatten(1).norm(dim=1).clamp_min(1)[:, None, None, None]
    found: Tensor = scaled / lengths
    return found
