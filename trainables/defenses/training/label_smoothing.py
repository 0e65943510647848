"""Soft targets instead of hard labels."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import nn

from trainables.defenses.defense import Defense, StepPolicy, View
from trainables.parameters import parameter

MOST_GRADIENT = 0.3
"""Length that a gradient is cut to where alpha is negative."""


@dataclass(frozen=True, kw_only=True)
class LabelSmoothing(Defense):
    """Train on (1 - alpha) y + alpha / K over all K classes; negative alpha sharpens.

    A negative alpha rewards ever larger scores, without a bound, which ruins a network that has
    not learnt its classes: so a training begins with hard labels, and alpha falls linearly after
    `hard_share` of the epochs, down to its value in the last one. Struppek et al. too begin with
    hard labels and lower alpha by a schedule. That alone did not hold the digits at alpha = -0.3,
    so gradients are cut to a length of 0.3, from the first epoch on. Trainings of many steps an
    epoch still lose some accuracy: MNIST some two points. An alpha of 0 or more has neither
    schedule nor cut.

    Source: Szegedy et al., 2016, section 7; negative values: Struppek et al., 2024.
    """

    name = "label_smoothing"
    slot = "labels"
    guarantee = "empirical"
    meaning = "Train on labels mixed with the uniform distribution."
    source = "Szegedy et al., 2016; negative values: Struppek et al., 2024"
    limits = (
        "It makes the model less sure of itself; whoever reads the scores before the softmax "
        "loses little.",
    )
    broken_by = (
        "Fu et al., 2020 (Label smoothing and adversarial robustness): the robustness that it "
        "seems to add is volatile, and attacks made on another network pass.",
        "Struppek et al., 2024: smoothing with a positive alpha makes model inversion easier, "
        "not harder.",
    )

    alpha: float = parameter(
        0.1, kind="float", meaning="share of the uniform distribution", low=-0.5, high=0.99
    )
    hard_share: float = parameter(
        0.9, kind="float", low=0.0, high=0.99,
        meaning="share of the epochs before a negative alpha begins to fall from 0",
    )  # fmt: skip

    def in_epoch(self, epoch: int, epochs: int) -> LabelSmoothing:
        """Return a negative alpha's value in the epoch."""
        if self.alpha >= 0:
            return self
        hard = self.hard_share * epochs
        return replace(self, alpha=self.alpha * max(0.0, (epoch + 1 - hard) / (epochs - hard)))

    def views(
        self, model: nn.Module, views: Sequence[View], generator: torch.Generator
    ) -> Sequence[View]:
        """Smooth the targets of every view."""
        del model, generator
        return [
            View(
                view.x,
                (1 - self.alpha) * view.target + self.alpha / view.target.shape[1],
                view.weight,
            )
            for view in views
        ]

    def step_policy(self) -> StepPolicy | None:
        """Cut gradients where alpha is negative."""
        return StepPolicy(wrap_optimizer=_cut) if self.alpha < 0 else None

    def canonical(self) -> dict[str, Any]:
        """Return name and parameters; the schedule only where it has a part."""
        plain = super().canonical()
        if self.alpha >= 0:
            del plain["hard_share"]
        return plain


def _cut(optimizer: torch.optim.Optimizer) -> torch.optim.Optimizer:
    if hasattr(optimizer, "max_grad_norm"):
        return optimizer  # private steps, which cut the gradient of every row
    weights = [weight for group in optimizer.param_groups for weight in group["params"]]

    def cut(*step: object) -> None:
        del step
        nn.utils.clip_grad_norm_(weights, MOST_GRADIENT)

    optimizer.register_step_pre_hook(cut)
    return optimizer
