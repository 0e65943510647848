"""Basic iterative method."""

import torch
from torch import Tensor

from trainables.attacks.shared.ascent import Scores, ascend
from trainables.attacks.shared.balls import Radius, ball
from trainables.attacks.shared.batching import in_batches
from trainables.attacks.shared.losses import cross_entropy_loss


@in_batches
def bim(
    model: Scores,
    x: Tensor,
    y: Tensor,
    *,
    eps: Radius,
    steps: int = 10,
    step_size: Radius | None = None,
    early_stop: bool = True,
    generator: torch.Generator | None = None,
) -> Tensor:
    """Take signed gradient steps of the cross-entropy in the Linf ball, from the image itself.

    x (B, C, H, W) in [0, 1], y (B,), eps and step_size in pixel units. step_size defaults to
    2.5 eps / steps, so that the far side of the ball is in reach; the paper's own is 1/255 for
    min(255 eps + 4, 319 eps) steps. `early_stop=False` returns the last iterate. No randomness:
    `generator` is there for the common call. Source: Kurakin et al., 2017.
    """
    del generator
    size = 2.5 * eps / steps if step_size is None else step_size
    return ascend(
        model,
        x,
        y,
        cross_entropy_loss(y),
        ball=ball("linf"),
        eps=eps,
        step_sizes=[size] * steps,
        start=x,
        early_stop=early_stop,
    )
