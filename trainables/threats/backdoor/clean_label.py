"""Clean-label poison: images of the target class that are hard to recognise, rightly labelled.

Axes: N images.
"""

from __future__ import annotations

import torch

from trainables.attacks import attack
from trainables.datasets import LabelledImages
from trainables.defenses import Stack
from trainables.training.evaluation import batches
from trainables.trial.context import TrialContext

STEPS = 30


def obscured(
    images: LabelledImages, ctx: TrialContext, *, eps: float, generator: torch.Generator
) -> LabelledImages:
    """Move images (N) away from their class, within an Linf ball of `eps`, in pixel units.

    A network that learns from them cannot lean on what the image shows, and takes the trigger for
    the reason of its label. They are crafted by PGD on an undefended network that the attacker
    trained on the clean rows, which every trial of a seed shares. How well it works depends on the
    pair of classes far more than of a trigger whose rows change their label. Source: Turner et
    al., Label-consistent backdoor attacks, 2019, section 4.2.
    """
    surrogate = ctx.train(
        Stack(), ctx.pools.train, ctx.spec.seed, role="backdoor_surrogate", deployed=False
    )
    moved, start = [], 0
    for x in batches(images):
        y = images.labels[start : start + len(x)]
        start += len(x)
        # Climbed to the end: an image that barely crossed the boundary is rounded back over it.
        moved.append(
            attack("pgd")(
                surrogate.model, x, y, eps=eps, steps=STEPS, early_stop=False, generator=generator
            )
        )
    pixels = (torch.cat(moved) * images.scale).round().to(torch.uint8)
    return LabelledImages(pixels=pixels, labels=images.labels, scale=images.scale)
