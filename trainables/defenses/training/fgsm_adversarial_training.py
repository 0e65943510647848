"""Adversarial training on single-step examples mixed with clean ones."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from trainables.attacks.fgsm import fgsm
from trainables.attacks.pgd import pgd
from trainables.defenses.defense import Defense, EpochData, EpochVerdict, View
from trainables.defenses.training.adversarial_examples import draw_radii, radii_parameter
from trainables.parameters import parameter
from trainables.training.modes import frozen_for_attack

WATCHED_IMAGES = (16, 128)
"""Training images that are watched for overfitting: few at first, more where those leave doubt."""
WATCHED_STEPS = 10
LEAST_WITHSTANDING = 0.2
"""Share of the watched images that withstand FGSM below which nothing is concluded."""
DOUBTFUL = 0.5
"""Share of those that fall to PGD up to which a few images are enough."""
OVERFITTED = 0.9
"""Share of those that fall to PGD above which a training ends."""


@dataclass(frozen=True, kw_only=True)
class FgsmAdversarialTraining(Defense):
    """Mix FGSM examples of the current weights into every batch.

    Loss = (1 - fraction) CE(clean) + fraction CE(adversarial). Where eps is a set, each image
    draws its own from it. Examples are crafted in eval mode, so batch norm's running statistics
    move once a step. Source: Goodfellow et al., 2015; with random start: Wong et al., 2020.

    Catastrophic overfitting (Wong et al., section 5.3) is that a net withstands FGSM by masking its
    gradient, and PGD no longer: `detect_overfitting` stops the training after the first epoch in
    which nearly every image that withstands FGSM falls to PGD, and keeps the epoch before. It is
    that share that is judged, not a fall of the PGD accuracy as in Wong et al.: with a learning
    rate that rises and falls, the PGD accuracy does so too. Nor is it the difference of the two
    accuracies, which grows with eps in trainings whose PGD accuracy rises to the end.
    """

    name = "fgsm_adversarial_training"
    slot = "training_batch"
    guarantee = "empirical"
    meaning = "Mix single-step adversarial examples into every training batch."
    source = "Goodfellow et al., 2015; random start: Wong et al., 2020"
    limits = (
        "It is trained against one step of one attack in one Linf ball; other norms and larger "
        "balls are not covered.",
    )
    broken_by = (
        "Kurakin et al., 2017: networks trained on single steps learn the label from the attack "
        "(label leaking).",
        "Tramer et al., 2018: single-step training can end in masked gradients, which a random "
        "first step or another network's examples get round.",
        "Wong et al., 2020: robustness against several steps can collapse to nothing within an "
        "epoch (catastrophic overfitting).",
    )
    owns = ("inner_maximisation",)

    eps: tuple[float, ...] = radii_parameter()
    fraction: float = parameter(
        0.5, kind="float", meaning="share of the loss on adversarial images", low=0.0, high=1.0
    )
    random_start: bool = parameter(
        False, kind="bool", meaning="start at a random point of the ball, step 1.25 eps"
    )
    detect_overfitting: bool = parameter(
        True, kind="bool",
        meaning="stop when what withstands FGSM falls to PGD, and keep the epoch before",
    )  # fmt: skip

    def views(
        self, model: nn.Module, views: Sequence[View], generator: torch.Generator
    ) -> Sequence[View]:
        """Return the clean views with weight 1 - fraction and their adversarial twins."""
        mixed = []
        for view in views:
            if self.fraction < 1:
                mixed.append(View(view.x, view.target, view.weight * (1 - self.fraction)))
            if self.fraction > 0:
                radii = draw_radii(self.eps, len(view.x), generator, view.x.device)
                attacked = self._attack(model, view.x, view.target.argmax(1), radii, generator)
                mixed.append(View(attacked, view.target, view.weight * self.fraction))
        return mixed

    def epoch_score(self, model: nn.Module, data: EpochData) -> float | None:
        """Return the share of the watched images that fall to PGD, of those that withstand FGSM.

        The images, the largest eps and the random numbers are the same after every epoch. 0 where
        so few withstand FGSM that the share would say nothing.
        """
        if not self.detect_overfitting:
            return None
        share = 0.0
        for count in WATCHED_IMAGES:
            watched = slice(0, count)
            share = self._fallen(model, data.train.images(watched), data.train.labels[watched])
            if share <= DOUBTFUL:
                break
        return share

    def after_epoch(self, scores: Sequence[float]) -> EpochVerdict | None:
        """Stop when nearly all fall to PGD, and keep the epoch before."""
        epoch = len(scores) - 1
        overfitted = scores[-1] > OVERFITTED
        return EpochVerdict(stop=overfitted, best_epoch=max(0, epoch - 1) if overfitted else epoch)

    def _attack(
        self, model: nn.Module, x: Tensor, y: Tensor, radii: Tensor, generator: torch.Generator
    ) -> Tensor:
        with frozen_for_attack(model):
            return fgsm(model, x, y, eps=radii, random_start=self.random_start, generator=generator)

    def _fallen(self, model: nn.Module, x: Tensor, y: Tensor) -> float:
        generator = torch.Generator(y.device).manual_seed(0)
        radii = torch.full((len(y),), max(self.eps), device=y.device)
        attacked = self._attack(model, x, y, radii, generator)
        with frozen_for_attack(model), torch.no_grad():
            withstood = model(attacked).argmax(1) == y
            if withstood.double().mean() < LEAST_WITHSTANDING:
                return 0.0
            x, y, radii = x[withstood], y[withstood], radii[withstood]
            stronger = pgd(model, x, y, eps=radii, steps=WATCHED_STEPS, generator=generator)
            return float((model(stronger).argmax(1) != y).double().mean())
