"""Adversarial training on many-step examples only."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from trainables.attacks.pgd import pgd
from trainables.defenses.defense import Defense, View
from trainables.defenses.training.adversarial_examples import (
    draw_radii,
    frozen_in_train_mode,
    radii_parameter,
)
from trainables.parameters import PIXELS, parameter
from trainables.training.modes import frozen_for_attack


@dataclass(frozen=True, kw_only=True)
class PgdAdversarialTraining(Defense):
    """Train on the PGD examples of each batch instead of its images.

    The examples are the last iterates from a random start, made of the current weights and the
    true labels; no clean image is trained on. Where eps is a set, each image draws its own from
    it. The learning curve's training accuracy is that on the examples.
    Source: Madry et al., 2018, eq. 2.1; crafted in eval mode: Rice et al., 2020.
    """

    name = "pgd_adversarial_training"
    slot = "training_batch"
    guarantee = "empirical"
    meaning = "Train on many-step adversarial examples instead of the images themselves."
    source = "Madry et al., 2018; crafted in eval mode: Rice et al., 2020"
    limits = (
        "It holds, as far as it does, in the one Linf ball that it was trained in; other norms "
        "and larger balls are not covered.",
    )
    broken_by = (
        "Croce & Hein, 2020 (AutoAttack): the published CIFAR-10 network of Madry et al. falls "
        "from 47.0 % to 44.0 % robust accuracy, that of MNIST from 89.6 % to 88.5 %.",
        "Rice et al., 2020: on held-out images the robustness falls again as the training goes "
        "on (robust overfitting).",
        "Tramer & Boneh, 2019: robustness to one kind of change does not carry over to others.",
    )
    owns = ("inner_maximisation",)

    eps: tuple[float, ...] = radii_parameter()
    steps: int = parameter(7, kind="int", meaning="gradient steps", low=1, high=1000)
    step_size: float | None = parameter(
        None, kind="float", meaning="length of a step; not given: 2.5 eps / steps",
        low=1e-6, high=1.0, unit=PIXELS,
    )  # fmt: skip
    # Madry et al. craft in train mode, most who came after them in eval mode: both are published.
    crafting_mode: str = parameter(
        "eval", kind="word", words=("eval", "train"),
        meaning="mode of the model while examples are made; running statistics stay in both",
    )  # fmt: skip

    def views(
        self, model: nn.Module, views: Sequence[View], generator: torch.Generator
    ) -> Sequence[View]:
        """Return the adversarial twin of each view instead of it."""
        return [
            View(self._attack(model, view, generator), view.target, view.weight) for view in views
        ]

    def _attack(self, model: nn.Module, view: View, generator: torch.Generator) -> Tensor:
        radii = draw_radii(self.eps, len(view.x), generator, view.x.device)
        mode = frozen_for_attack if self.crafting_mode == "eval" else frozen_in_train_mode
        with mode(model):
            return pgd(
                model,
                view.x,
                view.target.argmax(1),
                eps=radii,
                steps=self.steps,
                step_size=self.step_size,
                early_stop=False,
                generator=generator,
            )
