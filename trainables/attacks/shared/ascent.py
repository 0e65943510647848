"""Projected gradient ascent, the loop that every first-order attack inside a ball shares.

Axes: B batch, C channels, H, W, K classes.
"""

from collections.abc import Callable, Sequence

import torch
from torch import Tensor

from trainables.attacks.shared.balls import Ball, Radius, broadcast
from trainables.attacks.shared.gradients import usable
from trainables.attacks.shared.losses import RowLoss
from trainables.attacks.shared.rows import keep, places

Scores = Callable[[Tensor], Tensor]
"""Images (B, C, H, W) in [0, 1] -> class scores (B, K), softmax not yet applied."""


def ascend(
    model: Scores,
    x: Tensor,
    y: Tensor,
    loss: RowLoss,
    *,
    ball: Ball,
    eps: Radius,
    step_sizes: Sequence[float | Tensor],
    start: Tensor,
    early_stop: bool,
) -> Tensor:
    """Climb the loss from `start`, staying in the ball round x and in [0, 1].

    `early_stop` freezes an image as soon as it is misclassified and takes it out of the batch;
    of an image that resists, the iterate with the highest loss is returned. Without it all steps
    are taken by all images and the last iterate is returned. Source: Madry et al., 2018.
    """
    radius = broadcast(eps, x)
    current, rows = start, torch.arange(len(x), device=x.device)
    best, best_loss = start.clone(), torch.full((len(x),), -torch.inf, device=x.device)
    for size in step_sizes:
        scores, row_loss, gradient = _evaluate(model, current, rows, loss)
        if early_stop:
            fooled = scores.argmax(1) != y[rows]
            _keep_best(best, best_loss, rows, current, row_loss, fooled)
            left = places(~fooled)
            if len(left) == 0:
                return best
            current, rows, gradient = current[left], rows[left], gradient[left]
        step = broadcast(size, x)
        step = step[rows] if step.dim() else step
        limit = radius[rows] if radius.dim() else radius
        moved = current + step * ball.direction(gradient)
        current = (x[rows] + ball.project(moved - x[rows], limit)).clamp(0, 1)
    if not early_stop:
        return current
    with torch.no_grad():
        scores = model(current)
        fooled = scores.argmax(1) != y[rows]
        _keep_best(best, best_loss, rows, current, loss(scores, rows), fooled)
    return best


def _evaluate(
    model: Scores, images: Tensor, rows: Tensor, loss: RowLoss
) -> tuple[Tensor, Tensor, Tensor]:
    images = images.detach().requires_grad_(True)
    with torch.enable_grad():
        scores = model(images)
        row_loss = loss(scores, rows)
        if not row_loss.requires_grad:
            # Scores that no gradient reaches leave an attack nothing to climb; that is for the
            # masking check to say, not for the attack to die of.
            return scores, row_loss, torch.zeros_like(images)
        # A sum, not a mean: the gradient of an image must not depend on its batch.
        (gradient,) = torch.autograd.grad(row_loss.sum(), images)
    return scores.detach(), row_loss.detach(), usable(gradient)


def _keep_best(
    best: Tensor, best_loss: Tensor, rows: Tensor, images: Tensor, row_loss: Tensor, fooled: Tensor
) -> None:
    better = fooled | (row_loss > best_loss[rows])
    keep(best, rows, images.detach(), better)
    keep(best_loss, rows, row_loss, better)
