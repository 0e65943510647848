"""Soft targets instead of hard labels."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import nn

from trainables.defenses.defense import Defense, View
from trainables.parameters import parameter


@dataclass(frozen=True, kw_only=True)
class LabelSmoothing(Defense):
    """Train on (1 - alpha) y + alpha / K over all K classes; negative alpha sharpens.

    Source: Szegedy et al., 2016, section 7; negative values: Struppek et al., 2024.
    """

    name = "label_smoothing"
    slot = "labels"
    guarantee = "empirical"
    meaning = "Train on labels mixed with the uniform distribution."
    source = "Szegedy et al., 2016; negative values: Struppek et al., 2024"

    alpha: float = parameter(
        0.1, kind="float", meaning="share of the uniform distribution", low=-0.5, high=0.99
    )

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
