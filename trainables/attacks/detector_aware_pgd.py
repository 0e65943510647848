"""Projected gradient descent against a classifier and the detector in front of it at once."""

from collections.abc import Callable

import torch
from torch import Tensor
from torch.nn import functional as F

from trainables.attacks.shared.ascent import Scores
from trainables.attacks.shared.balls import Radius, ball, broadcast
from trainables.attacks.shared.batching import in_batches
from trainables.attacks.shared.gradients import usable
from trainables.attacks.shared.losses import margin
from trainables.attacks.shared.rows import keep, places

RejectMargin = Callable[[Tensor], Tensor]
"""Images (B, C, H, W) -> (B,), positive where the detector rejects."""


@in_batches
def detector_aware_pgd(
    model: Scores,
    x: Tensor,
    y: Tensor,
    *,
    eps: Radius,
    norm: str = "linf",
    reject_margin: RejectMargin | None = None,
    steps: int = 40,
    step_size: Radius | None = None,
    random_start: bool = True,
    early_stop: bool = True,
    generator: torch.Generator | None = None,
) -> Tensor:
    """Climb the margin of the classifier where it holds, else descend the detector's score.

    Each step moves an image by the gradient of what still stands in its way: of the margin while
    it is classified right, of `reject_margin` once it is fooled but rejected, so that neither loss
    needs a weight against the other. Without `reject_margin` there is only the classifier. The
    step starts at `step_size` (default eps) and decays linearly to zero. x (B, C, H, W) in [0, 1],
    y (B,), eps and step_size in pixel units. `early_stop` freezes an image that is fooled and
    accepted. Of an image that resists, or of every image without it, the best iterate is returned
    (the last one may have fallen back over either border): one that fools before one that does not,
    and of those the one furthest past the detector. Raises ValueError where a random start has
    no generator. Source: Bryniarski et al., 2022 (selective PGD); Carlini and Wagner, 2017.
    """
    shape, size = ball(norm), eps if step_size is None else step_size
    radius, length = broadcast(eps, x), broadcast(size, x)
    current = x
    if random_start:
        if generator is None:
            raise ValueError("a random start needs a generator")
        current = (x + shape.start(x, radius, generator)).clamp(0, 1)
    best, best_value = current.clone(), torch.full((len(x),), -torch.inf, device=x.device)
    rows = torch.arange(len(x), device=x.device)
    for step in range(steps + 1):
        value, gradient = _barrier(model, reject_margin, current, y[rows])
        better = value > best_value[rows]
        keep(best, rows, current, better)
        keep(best_value, rows, value, better)
        if early_stop:
            left = places(best_value[rows] <= 0)
            rows, current, gradient = rows[left], current[left], gradient[left]
        if step == steps or len(rows) == 0:
            break
        limit = radius[rows] if radius.dim() else radius
        pace = (length[rows] if length.dim() else length) * (1 - step / steps)
        moved = current + pace * shape.direction(gradient)
        current = (x[rows] + shape.project(moved - x[rows], limit)).clamp(0, 1)
    return best


def _barrier(
    model: Scores, reject_margin: RejectMargin | None, images: Tensor, y: Tensor
) -> tuple[Tensor, Tensor]:
    """Return how far each image is past what stands in its way (R,), and the gradient of that.

    Positive: fooled and accepted, in (0, 1); fooled but rejected: in (-1, 0]; classified right: in
    (-3, -1). So an image that fools ranks before any that does not.
    """
    images = images.detach().requires_grad_(True)
    with torch.enable_grad():
        classified = margin(model(images), y)
        accepted = torch.ones_like(classified)
        if reject_margin is not None:
            accepted = -reject_margin(images)
        fooled = classified > 0
        climbed = torch.where(fooled, accepted, classified)
        gradient = torch.zeros_like(images)
        if climbed.requires_grad:
            (gradient,) = torch.autograd.grad(climbed.sum(), images)
    value = torch.where(fooled, F.softsign(accepted), F.softsign(classified) - 2)
    return value.detach(), usable(gradient)
