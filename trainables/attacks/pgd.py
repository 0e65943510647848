"""Projected gradient descent on the cross-entropy."""

import torch
from torch import Tensor

from trainables.attacks.ascent import Scores, ascend, cross_entropy_loss
from trainables.attacks.balls import Radius, ball, broadcast


def pgd(
    model: Scores,
    x: Tensor,
    y: Tensor,
    *,
    eps: Radius,
    norm: str = "linf",
    steps: int = 20,
    step_size: Radius | None = None,
    random_start: bool = True,
    restarts: int = 1,
    early_stop: bool = True,
    generator: torch.Generator | None = None,
) -> Tensor:
    """Climb the cross-entropy inside the ball, with restarts for the images that resist.

    x (B, C, H, W) in [0, 1], y (B,), eps and step_size in pixel units (step_size defaults to
    2.5 eps / steps). `early_stop=False` returns the last iterate of the last restart. Raises
    ValueError where a random start or a restart has no generator. Source: Madry et al., 2018.
    """
    if generator is None and (random_start or restarts > 1):
        raise ValueError("a random start needs a generator")
    shape, size = ball(norm), 2.5 * eps / steps if step_size is None else step_size
    result, rows = x.clone(), torch.arange(len(x), device=x.device)
    for restart in range(restarts):
        x_rows, y_rows = x[rows], y[rows]
        radius = eps[rows] if isinstance(eps, Tensor) and eps.dim() else eps
        step = size[rows] if isinstance(size, Tensor) and size.dim() else size
        start = x_rows
        if generator is not None and (random_start or restart > 0):
            offset = shape.start(x_rows, broadcast(radius, x_rows), generator)
            start = (x_rows + offset).clamp(0, 1)
        attacked = ascend(
            model,
            x_rows,
            y_rows,
            cross_entropy_loss(y_rows),
            ball=shape,
            eps=radius,
            step_sizes=[step] * steps,
            start=start,
            early_stop=early_stop,
        )
        result[rows] = attacked
        if early_stop and restart + 1 < restarts:
            with torch.no_grad():
                rows = rows[model(attacked).argmax(1) == y_rows]
            if len(rows) == 0:
                break
    return result
