"""DeepFool: the nearest of the linearised decision boundaries, step by step."""

import torch
from torch import Tensor

from trainables.attacks.shared.ascent import Scores
from trainables.attacks.shared.balls import l2_norms
from trainables.attacks.shared.batching import in_batches
from trainables.attacks.shared.minimum_norm import (
    TINY,
    fooled,
    linearised,
    still_right,
)
from trainables.attacks.shared.rows import keep, per_row, places

_BEYOND = 1e-4
"""Added to each distance, as the authors do, so that a step crosses the boundary."""


@in_batches
def deepfool(
    model: Scores,
    x: Tensor,
    y: Tensor,
    *,
    steps: int = 50,
    candidates: int = 10,
    overshoot: float = 0.02,
    generator: torch.Generator | None = None,
) -> Tensor:
    """Step over the nearest linearised boundary of the true class until the image is wrong.

    x (B, C, H, W) in [0, 1], y (B,). The boundaries are those to the `candidates` - 1 wrong classes
    with the highest clean scores. `overshoot` lengthens the whole perturbation, not each step, so
    that clipping cannot leave an image on the boundary. An image that is misclassified already,
    or that all steps leave right, is returned clean. No randomness: `generator` is there for the
    common call. Source: Moosavi-Dezfooli et al., 2016, algorithm 2.
    """
    del generator
    if steps < 1 or candidates < 2:
        raise ValueError(f"deepfool needs steps >= 1, candidates >= 2; got {steps}, {candidates}")
    with torch.no_grad():
        clean = model(x)
    rows, result = still_right(clean, y), x.clone()
    wrong = clean.scatter(1, y[:, None], -torch.inf)
    classes = wrong.topk(min(candidates, clean.shape[1]) - 1, dim=1).indices[rows]
    origin, truth, images = x[rows], y[rows], x[rows]
    total = torch.zeros_like(origin)
    for _ in range(steps):
        if len(rows) == 0:
            return result
        done, left, step = _step(model, images, truth, classes)
        keep(result, rows, images, done)
        if len(left) < len(rows):
            rows, truth, classes = rows[left], truth[left], classes[left]
            origin, total = origin[left], total[left]
        total = total + step
        images = (origin + (1 + overshoot) * total).clamp(0, 1)
    with torch.no_grad():
        done = fooled(model(images), truth)
    keep(result, rows, images, done)
    return result


def _step(
    model: Scores, images: Tensor, y: Tensor, classes: Tensor
) -> tuple[Tensor, Tensor, Tensor]:
    """Return which images (R,) are wrong, where the others are, and their shortest steps.

    A step leads to the nearest linearised boundary; there is one an image that is still right.
    """
    images = images.detach().requires_grad_(True)
    with torch.enable_grad():
        scores = model(images)
        done = fooled(scores, y)
        left = at = places(~done)
        if len(left) == 0:
            return done, left, images.detach()[:0]
        if classes.shape[1] * (len(done) - len(left)) > len(left):
            # One more forward pass of those that are left is cheaper than the backward passes,
            # one a candidate, of those that are done.
            images, y, classes = images.detach()[left].requires_grad_(True), y[left], classes[left]
            scores, at = model(images), torch.arange(len(left), device=images.device)
        # (R, K'): how far each candidate's score lies above the true one, which is below zero.
        gaps = scores.gather(1, classes) - scores.gather(1, y[:, None])
        distances, gradients = linearised(gaps, images)
    nearest = distances[at].argmin(1)
    gradient = gradients[at, nearest]
    length = distances[at, nearest] + _BEYOND
    return done, left, per_row(length / (l2_norms(gradient) + TINY), gradient) * gradient
