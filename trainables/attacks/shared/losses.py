"""What attacks climb: cross-entropy, and margins that no temperature can hide.

Axes: B batch, R rows of it that still resist, K classes.
"""

from collections.abc import Callable, Mapping

import torch
from torch import Tensor
from torch.nn import functional as F

from trainables.errors import InputError

RowLoss = Callable[[Tensor, Tensor], Tensor]
"""(scores (R, K), rows of the batch (R,)) -> what the attack maximises, one value a row (R,)."""
_TINY = 1e-12


def cross_entropy_loss(y: Tensor) -> RowLoss:
    """Return the cross-entropy with the true classes y (B,) as a loss to climb."""
    return lambda scores, rows: F.cross_entropy(scores, y[rows], reduction="none")


def margin(scores: Tensor, y: Tensor) -> Tensor:
    """Return the best wrong score minus the true one (R,): positive where y (R,) is not
    predicted.
    """
    true = scores.gather(1, y[:, None]).squeeze(1)
    return scores.scatter(1, y[:, None], -torch.inf).amax(1) - true


def dlr_loss(y: Tensor) -> RowLoss:
    """Return the difference-of-logits ratio of the true classes y (B,) as a loss to climb.

    Neither a shift nor a positive factor of the scores changes it. Of two classes there is no
    third score to divide by, so that it is the plain margin there.
    Source: Croce and Hein, 2020, eq. 6.
    """

    def loss(scores: Tensor, rows: Tensor) -> Tensor:
        difference = margin(scores, y[rows])
        if scores.shape[1] < 3:
            return difference
        top = scores.topk(3, dim=1).values
        return difference / (top[:, 0] - top[:, 2] + _TINY)

    return loss


LOSSES: Mapping[str, Callable[[Tensor], RowLoss]] = {"ce": cross_entropy_loss, "dlr": dlr_loss}


def loss_on(name: str, y: Tensor) -> RowLoss:
    """Look a loss up and set it on the true classes y (B,); InputError names the known ones."""
    if name not in LOSSES:
        raise InputError(f"unknown loss {name!r}; known: {', '.join(LOSSES)}")
    return LOSSES[name](y)
