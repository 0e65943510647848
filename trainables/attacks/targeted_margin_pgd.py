"""Projected gradient descent on the margin to each of the most likely wrong classes."""

import torch
from torch import Tensor

from trainables.attacks.shared.ascent import Scores, ascend
from trainables.attacks.shared.balls import Radius, ball, of_rows
from trainables.attacks.shared.batching import in_batches
from trainables.attacks.shared.losses import RowLoss, margin
from trainables.attacks.shared.rows import keep, places


@in_batches
def targeted_margin_pgd(
    model: Scores,
    x: Tensor,
    y: Tensor,
    *,
    eps: Radius,
    norm: str = "linf",
    steps: int = 20,
    step_size: Radius | None = None,
    targets: int = 3,
    early_stop: bool = True,
    generator: torch.Generator | None = None,
) -> Tensor:
    """Climb score(target) - score(true class) for the wrong classes with the highest clean scores.

    x (B, C, H, W) in [0, 1], y (B,), eps and step_size in pixel units. The step starts at
    `step_size` (default eps) and decays linearly to zero. A difference of scores does not saturate
    as cross-entropy does, so no temperature can hide its gradient. Without `early_stop` an image's
    last iterate for the target with the widest margin is returned. No randomness: `generator` is
    there for the common call. Source: the targeted margin of Gowal et al., 2019 (MultiTargeted).
    """
    del generator
    size = eps if step_size is None else step_size
    decay = [size * (1 - step / steps) for step in range(steps)]
    with torch.no_grad():
        wrong = model(x).scatter(1, y[:, None], -torch.inf)
    ranked = wrong.topk(min(targets, wrong.shape[1] - 1), dim=1).indices
    best, best_margin = x.clone(), torch.full((len(x),), -torch.inf, device=x.device)
    rows = torch.arange(len(x), device=x.device)
    for rank in range(ranked.shape[1]):
        target, truth = ranked[rows, rank], y[rows]
        attacked = ascend(
            model,
            x[rows],
            truth,
            _towards(target, truth),
            ball=ball(norm),
            eps=of_rows(eps, rows),
            step_sizes=[of_rows(step, rows) for step in decay],
            start=x[rows],
            early_stop=early_stop,
        )
        with torch.no_grad():
            reached = margin(model(attacked), truth)
        better = reached > best_margin[rows]
        keep(best, rows, attacked, better)
        keep(best_margin, rows, reached, better)
        if early_stop:
            rows = rows[places(best_margin[rows] <= 0)]
            if len(rows) == 0:
                break
    return best


def _towards(target: Tensor, truth: Tensor) -> RowLoss:
    """Return the margin to one wrong class as a loss to climb; `losses.margin` is to the best."""

    def loss(scores: Tensor, rows: Tensor) -> Tensor:
        wanted, true = target[rows, None], truth[rows, None]
        return (scores.gather(1, wanted) - scores.gather(1, true)).squeeze(1)

    return loss
