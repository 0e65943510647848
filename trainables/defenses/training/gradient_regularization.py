"""A penalty on the gradient of the loss with respect to the image."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from trainables.defenses.defense import Defense, View
from trainables.parameters import parameter


@dataclass(frozen=True, kw_only=True)
class GradientRegularization(Defense):
    """Add lam * mean over images of ||grad_x CE||_2^2, on the first (clean) view.

    The gradient is of each image's own loss: of a mean loss it would shrink with the batch.
    Source: Drucker and LeCun, 1992; Ross and Doshi-Velez, 2018, eq. 5.
    """

    name = "gradient_regularization"
    slot = "penalty"
    guarantee = "empirical"
    meaning = "Penalise the squared norm of the loss gradient with respect to the image."
    source = "Drucker & LeCun, 1992; Ross & Doshi-Velez, 2018"
    limits = (
        "It flattens the loss at the training images, which says nothing of the rim of the "
        "ball; a large weight masks gradients.",
    )
    broken_by = (
        "Papernot et al., 2017 (Practical black-box attacks): what only flattens a model around "
        "its training points is evaded by the examples of a substitute.",
    )

    lam: float = parameter(
        0.02, kind="float", meaning="weight of the penalty", low=0.0, high=100_000.0
    )

    def penalty(self, model: nn.Module, views: Sequence[View]) -> Tensor | None:
        """Return lam times the mean squared gradient norm, differentiable twice."""
        if self.lam == 0:
            return None
        x = views[0].x.detach().requires_grad_(True)
        losses = F.cross_entropy(model(x), views[0].target, reduction="sum")
        (gradient,) = torch.autograd.grad(losses, x, create_graph=True)
        return self.lam * gradient.flatten(1).square().sum(1).mean()
