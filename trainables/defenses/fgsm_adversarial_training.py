"""Adversarial training on single-step examples mixed with clean ones."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from trainables.attacks.fgsm import fgsm
from trainables.defenses.defense import Defense, View, several
from trainables.modes import frozen_for_attack
from trainables.parameters import PIXELS, parameter


@dataclass(frozen=True, kw_only=True)
class FgsmAdversarialTraining(Defense):
    """Mix FGSM examples of the current weights into every batch.

    Loss = (1 - fraction) CE(clean) + fraction CE(adversarial). Where eps is a set, each image
    draws its own from it. Examples are crafted in eval mode, so batch norm's running statistics
    move once a step. Source: Goodfellow et al., 2015; with random start: Wong et al., 2020.
    """

    name = "fgsm_adversarial_training"
    slot = "training_batch"
    guarantee = "empirical"
    meaning = "Mix single-step adversarial examples into every training batch."
    source = "Goodfellow et al., 2015; random start: Wong et al., 2020"
    owns = ("inner_maximisation",)

    eps: float | tuple[float, ...] = parameter(
        8 / 255, kind="float", meaning="radius of the examples, or a set drawn per image",
        low=0.0, high=1.0, unit=PIXELS, many=True,
    )  # fmt: skip
    fraction: float = parameter(
        0.5, kind="float", meaning="share of the loss on adversarial images", low=0.0, high=1.0
    )
    random_start: bool = parameter(
        False, kind="bool", meaning="start at a random point of the ball, step 1.25 eps"
    )

    def views(
        self, model: nn.Module, views: Sequence[View], generator: torch.Generator
    ) -> Sequence[View]:
        """Give the clean views with weight 1 - fraction and their adversarial twins."""
        mixed = []
        for view in views:
            if self.fraction < 1:
                mixed.append(View(view.x, view.target, view.weight * (1 - self.fraction)))
            if self.fraction > 0:
                attacked = self._attack(model, view, generator)
                mixed.append(View(attacked, view.target, view.weight * self.fraction))
        return mixed

    def _attack(self, model: nn.Module, view: View, generator: torch.Generator) -> Tensor:
        choices = torch.tensor(several(self.eps), device=view.x.device)
        drawn = torch.randint(
            len(choices), (len(view.x),), generator=generator, device=view.x.device
        )
        with frozen_for_attack(model):
            return fgsm(
                model,
                view.x,
                view.target.argmax(1),
                eps=choices[drawn],
                random_start=self.random_start,
                generator=generator,
            )
