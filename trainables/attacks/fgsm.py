"""Fast gradient sign method."""

import torch
from torch import Tensor

from trainables.attacks.shared.ascent import Scores, ascend
from trainables.attacks.shared.balls import Radius, ball, broadcast
from trainables.attacks.shared.batching import in_batches
from trainables.attacks.shared.losses import cross_entropy_loss


@in_batches
def fgsm(
    model: Scores,
    x: Tensor,
    y: Tensor,
    *,
    eps: Radius,
    random_start: bool = False,
    early_stop: bool = False,
    generator: torch.Generator | None = None,
) -> Tensor:
    """Take one signed gradient step of the cross-entropy to the border of the Linf ball.

    x (B, C, H, W) in [0, 1], y (B,), eps in pixel units, one or one per image. With a random
    start the step is 1.25 eps, projected (Wong et al., 2020). `early_stop` leaves images alone
    that are misclassified already. Source: Goodfellow et al., 2015, eq. in section 4.
    """
    linf, start, step = ball("linf"), x, eps
    if random_start:
        if generator is None:
            raise ValueError("a random start needs a generator")
        start = (x + linf.start(x, broadcast(eps, x), generator)).clamp(0, 1)
        step = 1.25 * eps
    return ascend(
        model,
        x,
        y,
        cross_entropy_loss(y),
        ball=linf,
        eps=eps,
        step_sizes=[step],
        start=start,
        early_stop=early_stop,
    )
