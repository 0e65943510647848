"""Random noise in the ball: what no attack may do worse than."""

import torch
from torch import Tensor

from trainables.attacks.shared.ascent import Scores
from trainables.attacks.shared.balls import Radius, ball, broadcast
from trainables.attacks.shared.batching import in_batches
from trainables.attacks.shared.search import random_search


@in_batches
def random_noise(
    model: Scores,
    x: Tensor,
    y: Tensor,
    *,
    eps: Radius,
    norm: str = "linf",
    draws: int = 100,
    early_stop: bool = True,
    generator: torch.Generator | None = None,
) -> Tensor:
    """Draw noise from the ball until one fools the model; asks for scores only.

    x (B, C, H, W) in [0, 1], y (B,), eps in pixel units. linf draws in turn from the whole ball and
    from its corners, l2 from the sphere. Where an image resists, or without `early_stop`, the draw
    with the widest margin of a wrong class is returned. Raises ValueError without a generator.
    Source: Carlini et al., 2019, section 5.2 (a check on evaluations).
    """
    if generator is None:
        raise ValueError("random noise needs a generator")
    shape, radius = ball(norm), broadcast(eps, x).expand(len(x), 1, 1, 1)

    def propose(best: Tensor, rows: Tensor, number: int) -> Tensor:
        clean, limit = x[rows], radius[rows]
        if norm == "linf" and number % 2 == 0:
            return (clean + shape.start(x, radius, generator)[rows]).clamp(0, 1)
        gaussian = torch.randn(x.shape, generator=generator, device=x.device, dtype=x.dtype)
        return (clean + limit * shape.direction(gaussian[rows])).clamp(0, 1)

    return random_search(model, x, y, propose, proposals=draws, early_stop=early_stop)
