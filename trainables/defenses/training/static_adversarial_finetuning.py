"""Fine-tuning of the undefended model on one fixed set of its adversarial examples."""

from __future__ import annotations

import dataclasses
import time
from dataclasses import dataclass

import torch
from torch import Tensor

from trainables.datasets.images import LabelledImages
from trainables.defenses.defense import Defense, DefenseContext, Preparation
from trainables.defenses.stack import Stack
from trainables.defenses.training.adversarial_examples import (
    CRAFTED_BY,
    craft,
    draw_radii,
    radii_parameter,
)
from trainables.device import synchronize
from trainables.parameters import parameter
from trainables.storage.identity import seed_from

LEVELS = 255
"""Steps between black and white of the stored examples."""
_BATCH = 512


@dataclass(frozen=True, kw_only=True)
class StaticAdversarialFinetuning(Defense):
    """Train without defense, attack that model once, and go on training on what came out.

    The set holds adversarial examples only, of `num_examples` training images drawn at random (of
    all, where there are fewer), with their true labels. It is made once, of the undefended model
    that other trials share: against the weights that come out it is a transfer attack, so a fresh
    attack on them is needed to judge what the defense is worth. Other training defenses of the
    stack have their part in the fine-tuning alone, and so has augmentation, on the examples.
    Source: Szegedy et al., 2014; document E of the reproductions, which states neither eps nor
    epochs nor learning rate. The default rate is chosen for 99 % of the set to be classified right
    afterwards, as there: on the digits at eps 0.15, FGSM, 10 epochs at a tenth, three tenths and
    half of the training's rate get to 87, 98 and 99.9 %.

    The examples are stored in 256 levels a pixel, the nearest inside the ball; where eps is below
    half a level there may be none, and the nearest outside is taken.
    """

    name = "static_adversarial_finetuning"
    slot = "training_batch"
    guarantee = "empirical"
    meaning = "Fine-tune the undefended model on one fixed set of its adversarial examples."
    source = "Szegedy et al., 2014"
    limits = (
        "Its examples are made once, on an undefended network: it hardens against transferred "
        "examples.",
    )
    broken_by = (
        "Tramer et al., 2018: networks trained on the examples of fixed networks stay open to "
        "white-box attacks of several steps.",
    )
    owns = ("prepare", "inner_maximisation")

    attack: str = parameter(
        "fgsm", kind="word", words=CRAFTED_BY, meaning="attack that makes the examples"
    )
    eps: tuple[float, ...] = radii_parameter()
    num_examples: int = parameter(
        10_000, kind="int", meaning="adversarial examples, at most one a training image",
        low=1, high=10_000_000, unit="images",
    )  # fmt: skip
    # The published description is silent on the three below, so they are declared here.
    steps: int = parameter(
        10, kind="int", meaning="gradient steps of bim and pgd", low=1, high=1000
    )
    epochs: int = parameter(10, kind="int", meaning="passes over the examples", low=1, high=100_000)
    learning_rate: float | None = parameter(
        None, kind="float", low=1e-8, high=100.0,
        meaning="highest learning rate of the fine-tuning; not given: half of the training's",
    )  # fmt: skip

    def prepare(self, ctx: DefenseContext, data: LabelledImages, seed: int) -> Preparation | None:
        """Train the undefended model, or take it from the store, and attack it."""
        model = ctx.train(Stack(), data, seed, role="undefended").model
        started = time.perf_counter()
        generator = torch.Generator(ctx.device).manual_seed(seed_from(self.name, seed))
        order = torch.randperm(len(data), generator=generator, device=ctx.device)
        parts = [
            self._attacked(model, data.select(rows), generator)
            for rows in torch.split(order[: self.num_examples], _BATCH)
        ]
        examples = LabelledImages(
            pixels=torch.cat([part.pixels for part in parts]),
            labels=torch.cat([part.labels for part in parts]),
            scale=LEVELS,
        )
        synchronize(ctx.device)  # else the time below is that of queueing alone
        rate = self.learning_rate or ctx.training.learning_rate / 2
        return Preparation(
            weights=model.state_dict(),
            data=examples,
            settings=dataclasses.replace(ctx.training, epochs=self.epochs, learning_rate=rate),
            seconds=(time.perf_counter() - started,),
        )

    def _attacked(
        self, model: torch.nn.Module, clean: LabelledImages, generator: torch.Generator
    ) -> LabelledImages:
        x, y = clean.images(), clean.labels
        radii = draw_radii(self.eps, len(clean), generator, y.device)
        attacked = craft(
            model, x, y, attack_name=self.attack, radii=radii, steps=self.steps,
            generator=generator,
        )  # fmt: skip
        return LabelledImages(pixels=in_levels(attacked, x, radii), labels=y, scale=LEVELS)


def in_levels(attacked: Tensor, clean: Tensor, radii: Tensor) -> Tensor:
    """Return images (B, C, H, W) in [0, 1] in the nearest levels inside their balls, as uint8.

    radii (B,) are of the Linf balls round the clean images (B, C, H, W).
    """
    limit, centre = LEVELS * radii.view(-1, 1, 1, 1), LEVELS * clean
    # Float32 errs by some 3e-5 levels here: without tolerance a whole level would be lost to it.
    lowest, highest = (centre - limit - 1e-4).ceil(), (centre + limit + 1e-4).floor()
    nearest = (LEVELS * attacked).round()
    return nearest.clamp(lowest, highest).clamp(0, LEVELS).to(torch.uint8)
