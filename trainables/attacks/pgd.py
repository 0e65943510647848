"""Projected gradient descent on the loss: the cross-entropy, or a ratio of margins."""

import torch
from torch import Tensor

from trainables.attacks.shared.ascent import Scores, ascend
from trainables.attacks.shared.balls import Radius, ball, broadcast, of_rows
from trainables.attacks.shared.batching import in_batches
from trainables.attacks.shared.losses import loss_on
from trainables.attacks.shared.rows import places


@in_batches
def pgd(
    model: Scores,
    x: Tensor,
    y: Tensor,
    *,
    eps: Radius,
    norm: str = "linf",
    loss: str = "ce",
    steps: int = 20,
    step_size: Radius | None = None,
    random_start: bool = True,
    restarts: int = 1,
    early_stop: bool = True,
    generator: torch.Generator | None = None,
) -> Tensor:
    """Climb a loss inside the ball, with restarts for the images that resist.

    `loss` is ce (cross-entropy) or dlr (difference-of-logits ratio; Croce and Hein, 2020).
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
        radius, step = of_rows(eps, rows), of_rows(size, rows)
        start = x_rows
        if generator is not None and (random_start or restart > 0):
            offset = shape.start(x_rows, broadcast(radius, x_rows), generator)
            start = (x_rows + offset).clamp(0, 1)
        attacked = ascend(
            model,
            x_rows,
            y_rows,
            loss_on(loss, y_rows),
            ball=shape,
            eps=radius,
            step_sizes=[step] * steps,
            start=start,
            early_stop=early_stop,
        )
        result[rows] = attacked
        if early_stop and restart + 1 < restarts:
            with torch.no_grad():
                rows = rows[places(model(attacked).argmax(1) == y_rows)]
            if len(rows) == 0:
                break
    return result
