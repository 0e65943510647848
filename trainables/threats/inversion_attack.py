"""Images climbed out of a model, a class at a time: what does it take for that class?

Axes: B images (classes x starts), C channels, H, W, K classes.
"""

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn import functional as F

from trainables.predictor import Surface, surface_scores

Scores = Callable[[Tensor], Tensor]
"""Images (B, C, H, W) in [0, 1] -> class scores (B, K), softmax not yet applied."""

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
    """Root mean square change of a pixel that a gradient of length one makes in all, at first."""
    tv: float
    """Weight of the total variation: of its gradient's length against that of the margin."""
    l2: float
    """Weight of the distance from the data's mean colour, as a root mean square over pixels."""


def invert(
    surface: Surface,
    starts: Tensor,
    classes: Tensor,
    climb: Climb,
    *,
    colour: Tensor,
    num_classes: int,
    generator: torch.Generator,
) -> Tensor:
    """Climb from starts (B, C, H, W) to images in [0, 1] that the surface takes for classes (B,).

    What is climbed is the margin of the class over the best other one, less the priors: the total
    variation, and half the squared distance from `colour` (C, 1, 1). The margin's gradient counts
    by its direction alone, so a scale on the scores, as a temperature is one, changes nothing. A
    random surface draws anew at every step, which the momentum averages (EOT). The step falls
    linearly to zero. BATCH images are climbed at a time.

    Raises PredictorError where the surface gives no scores or NaN. Source: Fredrikson et al., 2015;
    the margin: Carlini and Wagner, 2017; total variation: Mahendran and Vedaldi, 2015.
    """

    def scores(x: Tensor) -> Tensor:
        return surface_scores(surface, x, generator, num_classes)

    parts = [
        _climb(scores, x, y, climb, colour)
        for x, y in zip(torch.split(starts, BATCH), torch.split(classes, BATCH), strict=True)
    ]
    return torch.cat(parts)


def margins(scores: Tensor, classes: Tensor) -> Tensor:
    """Give the score of a class (B,) less the best other one, of scores (B, K)."""
    own = scores.gather(1, classes[:, None]).squeeze(1)
    return own - scores.scatter(1, classes[:, None], -torch.inf).amax(1)


def _climb(scores: Scores, x: Tensor, classes: Tensor, climb: Climb, colour: Tensor) -> Tensor:
    velocity = torch.zeros_like(x)
    length = x[0].numel() ** 0.5
    for step in range(climb.steps):
        direction = _unit(_gradient(lambda x: margins(scores(x), classes), x))
        if climb.tv:
            direction = direction - climb.tv * _unit(_gradient(_variation, x))
        direction = direction - climb.l2 / length * (x - colour)
        velocity = _MOMENTUM * velocity + (1 - _MOMENTUM) * direction
        size = climb.step_size * length * (1 - step / climb.steps)
        x = (x + size * velocity).clamp(0, 1)
    return x


def _gradient(value: Callable[[Tensor], Tensor], x: Tensor) -> Tensor:
    """Give the gradient (B, C, H, W) of a value (B,) of each image."""
    x = x.detach().requires_grad_(True)
    with torch.enable_grad():
        found = value(x)
        if not found.requires_grad:
            return torch.zeros_like(x)  # nothing to climb: the rest alone moves the image
        (gradient,) = torch.autograd.grad(found.sum(), x)
    # Scores of plus or minus infinity have no slope.
    return gradient.nan_to_num(0, 0, 0)


def _variation(x: Tensor) -> Tensor:
    """Give the total variation (B,), isotropic."""
    down, right = x.diff(dim=2), x.diff(dim=3)
    squares = F.pad(down, (0, 0, 0, 1)).square() + F.pad(right, (0, 1)).square()
    found: Tensor = (squares + _SMOOTH).sqrt().flatten(1).sum(1)
    return found


def _unit(gradient: Tensor) -> Tensor:
    """Scale each image's gradient to length one; a zero one stays zero."""
    # By the largest entry first: the square of a tiny one is zero in float32.
    largest = gradient.flatten(1).abs().amax(1)[:, None, None, None]
    scaled = gradient / largest.where(largest > 0, 1)
    # The largest entry is one now, so the length is one at least, or zero.
    lengths = scaled.flatten(1).norm(dim=1).clamp_min(1)[:, None, None, None]
    found: Tensor = scaled / lengths
    return found
