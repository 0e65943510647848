"""Signs that a detector stops attacks only because they cannot follow it.

They are judged on what counts: images that are accepted and wrong. Source: Carlini and Wagner, 2017
(Bypassing ten detection methods); Tramer et al., 2020; Bryniarski et al., 2022.

Axes: N points, R of them that resist, C channels, H, W.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import dataclass

import torch
from torch import Tensor

from trainables.attacks import variant
from trainables.attacks.shared.balls import ball, broadcast
from trainables.attacks.shared.gradients import usable
from trainables.deployed.predictor import Surface, ask
from trainables.threats.evasion.attacking import BATCH, Attacker
from trainables.threats.evasion.masking import Indicator, share
from trainables.threats.evasion.run import Run

AWARE = "detector_aware_pgd"
BLIND_BEATS = "blind_beats_detector_aware"
ROUNDING_BEATS = "rounding_beats_reject_margin"
NO_GRADIENT = "reject_margin_without_gradient"
LEADS_NOWHERE = "reject_margin_leads_nowhere"
BORNE = 0.05
"""Share of points that is borne: of several attacks one meets the border by chance here and there.
On 270 digits, three honest detectors show 3 to 6 % of such points, and lower bounds below it."""
_FOOLING = ("pgd", "pgd_dlr", "targeted_margin_pgd")
"""Attacks whose images fool the classifier and meet the detector unprepared."""
_SIZES = (1 / 4, 1 / 16, 1 / 64)
"""Steps along the gradient that are tried, in units of the radius: a longer one goes past the
nearest minimum, a shorter one is lost where the score itself has steps."""


def rejection_indicators(
    attacker: Attacker, runs: Mapping[str, Run], robust: Tensor
) -> list[Indicator]:
    """Return the signs for a model that rejects; none for any other.

    `runs` are those in the standard Linf ball; `robust` (N,) are the points that none breaks.
    """
    if not attacker.target.predictor.rejects or AWARE not in runs:
        return []
    aware = runs[AWARE]
    blind = [run.broken for name, run in runs.items() if name != AWARE and _in_ball(name)]
    found = [
        share(
            BLIND_BEATS,
            "attacks that ignore the detector get past it where one that knows it does not",
            torch.stack(blind).any(0) & aware.withstood,
            limit=BORNE,
        )
    ]
    if not _aimed(attacker):
        return found
    gradients = margin_gradients(attacker, runs, robust)
    found += [
        share(
            ROUNDING_BEATS,
            "rounding images to grey levels gets them past the detector where the gradient of its "
            "reject_margin does not",
            aware.broken & aware.by_rounding,
            limit=BORNE,
        ),
        share(
            NO_GRADIENT,
            "the gradient of the detector's reject_margin is zero on rejected images of points "
            "that resist",
            gradients.zero[robust],
            limit=BORNE,
        ),
    ]
    if not attacker.target.stochastic:  # two draws of one image differ anyway
        found.append(
            share(
                LEADS_NOWHERE,
                "no step along the gradient of the detector's reject_margin lowers its score on "
                "rejected images of points that resist",
                gradients.useless[robust],
                limit=BORNE,
            )
        )
    return found


def not_aware_because(failed: Collection[str]) -> list[str]:
    """Say in words why no attack has followed the detector, from the signs that failed."""
    if {ROUNDING_BEATS, NO_GRADIENT, LEADS_NOWHERE} & set(failed):
        return [
            "the gradient of the detector's reject_margin leads no attack past it; give "
            "surfaces() a margin with a useful one (bpda)"
        ]
    if BLIND_BEATS in failed:
        return ["the attack that knows the detector is weaker than attacks that ignore it"]
    return []


@dataclass(frozen=True, slots=True, eq=False)
class MarginGradients:
    """What the gradient of a reject_margin is worth on rejected images that fool the classifier."""

    zero: Tensor
    """(N,) whether it is zero on all such images of a point; not where a point has none."""
    useless: Tensor
    """(N,) whether it is not, but no step along it lowers the deployed score of any of them."""


def margin_gradients(
    attacker: Attacker, runs: Mapping[str, Run], robust: Tensor
) -> MarginGradients:
    """Try the gradient of every surface's reject_margin on what attacks made of resisting points.

    `robust` (N,) are the points that resist.
    """
    seen, there, lowers = (torch.zeros_like(robust) for _ in range(3))
    for name in _FOOLING:
        if name not in runs:
            continue
        rows = (robust & runs[name].fooled).nonzero().flatten()
        seen[rows] = True
        for number, surface in enumerate(_aimed(attacker)):
            purpose = ("signs", name, str(number))
            for part in torch.split(rows, BATCH):
                step = _Step(attacker, surface, attacker.ctx.generator(*purpose))
                found, lower = step.tried(part, runs[name].adversarial[part])
                there[part] |= found
                lowers[part] |= lower
    return MarginGradients(seen & ~there, seen & there & ~lowers)


@dataclass(frozen=True, slots=True, eq=False)
class _Step:
    """A step along the gradient of one surface's margin."""

    attacker: Attacker
    surface: Surface
    generator: torch.Generator

    def tried(self, rows: Tensor, images: Tensor) -> tuple[Tensor, Tensor]:
        """Return of the images (R, C, H, W) of some points whether there is a gradient, and whether
        a step of any size lowers what the deployed model rejects by.
        """
        gradient = self._gradient(images)
        clean, shape = self.attacker.points.images(rows), ball("linf")
        eps = self.attacker.ctx.dataset.radius
        before, radius = self._score(images), broadcast(eps, images)
        lowers = torch.zeros(len(rows), dtype=torch.bool, device=images.device)
        for size in _SIZES:
            moved = images - size * eps * shape.direction(gradient)
            moved = (clean + shape.project(moved - clean, radius)).clamp(0, 1)
            lowers |= self._score(moved) < before
        return gradient.flatten(1).ne(0).any(1), lowers

    def _gradient(self, images: Tensor) -> Tensor:
        assert self.surface.reject_margin is not None
        images = images.detach().requires_grad_(True)
        with torch.enable_grad():
            rejected = self.surface.reject_margin(images, self.generator)
        if not rejected.requires_grad:
            return torch.zeros_like(images)
        (gradient,) = torch.autograd.grad(rejected.sum(), images)
        return usable(gradient)

    def _score(self, images: Tensor) -> Tensor:
        predictor, classes = self.attacker.target.predictor, self.attacker.ctx.dataset.num_classes
        score = ask(predictor, images, self.generator, classes).reject_score
        # One that abstains instead has no score to lower: no step does.
        return images.new_zeros(len(images)) if score is None else score


def _aimed(attacker: Attacker) -> list[Surface]:
    return [s for s in attacker.target.surfaces if s.reject_margin is not None]


def _in_ball(name: str) -> bool:
    chosen = variant(name)
    return chosen.in_ball and chosen.norm == "linf"
