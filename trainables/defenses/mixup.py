"""Training on mixtures of two rows.

Axes: B batch, K classes.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import torch
from scipy import special
from torch import nn

from trainables.defenses.defense import Defense, View
from trainables.host_draws import on_host
from trainables.parameters import parameter


@dataclass(frozen=True, kw_only=True)
class Mixup(Defense):
    """Train on lam x_i + (1 - lam) x_j with targets mixed alike, lam ~ Beta(alpha, alpha).

    One lam a batch and one partner j a row, as in the authors' code; all views of a batch share
    them. lam is drawn by the inverse of the distribution function, from the training's generator.
    Source: Zhang et al., mixup: Beyond empirical risk minimization, 2018, section 2.
    """

    name = "mixup"
    slot = "labels"
    guarantee = "empirical"
    meaning = "Train on weighted means of two images, with labels mixed alike."
    source = "Zhang et al., 2018"
    limits = ("It was made to generalise better, not to withstand attacks of several steps.",)
    broken_by = (
        "Zhang et al., 2018, themselves: an iterated white-box attack broke their ImageNet "
        "networks with mixup as surely as those without.",
    )

    alpha: float = parameter(
        0.2, kind="float", low=1e-3, high=1000.0,
        meaning="of Beta(alpha, alpha), which the share is drawn from; larger mixes more evenly",
    )  # fmt: skip

    def views(
        self, model: nn.Module, views: Sequence[View], generator: torch.Generator
    ) -> Sequence[View]:
        """Mix images and targets of every view."""
        del model
        lam = self.draw(generator)
        partner = torch.randperm(len(views[0].x), generator=generator, device=generator.device)
        return [
            replace(
                view,
                x=lam * view.x + (1 - lam) * view.x[partner],
                target=lam * view.target + (1 - lam) * view.target[partner],
            )
            for view in views
        ]

    def draw(self, generator: torch.Generator) -> float:
        """Draw the share of a row's own image.

        It is the larger of the two shares: which of them is lam is a matter of names, and the
        curve of training accuracy then goes by the label that weighs more.
        """
        uniform = torch.rand((), generator=on_host(generator), dtype=torch.float64).item()
        lam = float(special.betaincinv(self.alpha, self.alpha, uniform))
        return max(lam, 1 - lam)
