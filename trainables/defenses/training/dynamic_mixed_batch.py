"""Batches of which a share of the images is replaced by fresh adversarial examples."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from trainables.defenses.defense import Defense, View
from trainables.defenses.training.adversarial_examples import (
    CRAFTED_BY,
    craft,
    draw_radii,
    radii_parameter,
)
from trainables.parameters import parameter


@dataclass(frozen=True, kw_only=True)
class DynamicMixedBatch(Defense):
    """Replace a share of each batch's images by adversarial examples of the current weights.

    round(fraction B) of the B images, drawn again in every batch, are attacked in eval mode with
    their true labels; the loss is the plain mean over the mixed batch. So an image is seen either
    clean or attacked in an epoch, whereas fgsm_adversarial_training shows each in both forms.
    Source: Kurakin et al., 2017, algorithm 1, with k = fraction m; its weight lambda is 1 here,
    and no label is predicted. Where eps is a set, each image draws its own from it.
    """

    name = "dynamic_mixed_batch"
    slot = "training_batch"
    guarantee = "empirical"
    meaning = "Replace a share of every training batch by freshly made adversarial examples."
    source = "Kurakin et al., 2017, algorithm 1"
    limits = (
        "It is trained against few steps in one Linf ball; other norms and larger balls are not "
        "covered.",
    )
    broken_by = (
        "Kurakin et al., 2017: networks trained on single steps learn the label from the attack "
        "(label leaking).",
        "Madry et al., 2018: training on a single step leaves the network open to attacks of "
        "several steps.",
    )
    owns = ("inner_maximisation",)

    attack: str = parameter(
        "fgsm", kind="word", words=CRAFTED_BY, meaning="attack that makes the examples"
    )
    eps: tuple[float, ...] = radii_parameter()
    fraction: float = parameter(
        0.5, kind="float", meaning="share of a batch's images that are attacked", low=0.0, high=1.0
    )
    # bim and pgd need a number of steps; an attack's own default is meant for measuring.
    steps: int = parameter(
        10, kind="int", meaning="gradient steps of bim and pgd", low=1, high=1000
    )

    def views(
        self, model: nn.Module, views: Sequence[View], generator: torch.Generator
    ) -> Sequence[View]:
        """Return each view with some of its images attacked."""
        return [View(self._mix(model, v, generator), v.target, v.weight) for v in views]

    def _mix(self, model: nn.Module, view: View, generator: torch.Generator) -> Tensor:
        order = torch.randperm(len(view.x), generator=generator, device=view.x.device)
        rows = order[: round(self.fraction * len(view.x))]
        mixed = view.x.clone()
        if len(rows) == 0:
            return mixed
        mixed[rows] = craft(
            model,
            view.x[rows],
            view.target[rows].argmax(1),
            attack_name=self.attack,
            radii=draw_radii(self.eps, len(rows), generator, view.x.device),
            steps=self.steps,
            generator=generator,
        )
        return mixed
