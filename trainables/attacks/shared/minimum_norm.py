"""What the attacks share that look for the smallest change: when an image counts as fooled.

Axes: B batch, R rows of it, C channels, H, W, K classes.
"""

import torch
from torch import Tensor

from trainables.attacks.shared.gradients import usable_slopes
from trainables.attacks.shared.losses import margin
from trainables.attacks.shared.rows import places

TINY = 1e-8
"""Added to lengths of gradients that are divided by."""
_ROUNDING = 1e-5
"""Share of the largest score that another batch's rounding may move a score by, in float32."""


def fooled(scores: Tensor, y: Tensor, confidence: float = 0.0) -> Tensor:
    """Return which rows (R,) of scores (R, K) are misclassified, by `confidence` at least.

    An image on the very boundary does not count: evaluated in another batch, where sums are
    rounded otherwise, it could be right again. Scores that are not finite do not count.
    """
    scores = scores.detach()
    return margin(scores, y) > confidence + _ROUNDING * scores.abs().amax(1)


def still_right(scores: Tensor, y: Tensor) -> Tensor:
    """Return the rows (R,) that are classified right, and so are to be attacked at all."""
    return places(scores.detach().argmax(1) == y)


def linearised(gaps: Tensor, images: Tensor) -> tuple[Tensor, Tensor]:
    """Return the distance (R, G) to where each gap (R, G) is zero to first order, and gradients.

    The gradients (R, G, C, H, W) are those of the gaps in the images (R, C, H, W) that they were
    computed from; zero, and the distances infinite or huge, where none reaches the images.
    """
    if not gaps.requires_grad:
        gradients = torch.zeros_like(images)[:, None].repeat(1, gaps.shape[1], 1, 1, 1)
    else:
        # One backward pass a gap through one forward pass: measured faster on a CPU than to repeat
        # the batch for each gap, and than is_grads_batched, whose convolutions are slow there.
        columns = [
            usable_slopes(torch.autograd.grad(gaps[:, g].sum(), images, retain_graph=True)[0])
            for g in range(gaps.shape[1])
        ]
        gradients = torch.stack(columns, dim=1)
    lengths = torch.linalg.vector_norm(gradients.flatten(2), dim=2)
    return (gaps.detach().abs() / (lengths + TINY)).nan_to_num(nan=torch.inf), gradients
