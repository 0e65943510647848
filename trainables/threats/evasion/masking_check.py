"""Which signs of gradient masking an effort looks for.

Axes: N points.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import replace

import torch
from torch import Tensor

from trainables.datasets import LabelledImages, stratified_subset
from trainables.deployed.predictor import Surface
from trainables.threats.evasion.attacking import Attacker, Settings
from trainables.threats.evasion.masking import (
    ZERO_GRADIENTS,
    Indicator,
    broken_alone,
    paired,
    share,
    without_gradient,
)
from trainables.threats.evasion.run import Run
from trainables.threats.evasion.target import Target
from trainables.trial.context import TrialContext

_GRADIENT = ("pgd", "pgd_dlr", "targeted_margin_pgd")
_CONVERGED = {"pgd": {"steps": 100}}
_LONGER = {"pgd": {"steps": 500}}
_LONGER_ON_RANDOM = {"pgd": {"steps": 200}}
_RESCALED = (0.1, 10.0)
CHECKED = 100
"""Points on which signs are looked for that take attacks of their own: 1,100 steps a point."""


def screen_indicators(
    attacker: Attacker, runs: Mapping[str, Run], robust: Tensor
) -> list[Indicator]:
    """Return the indicators that the attacks' runs answer for almost nothing.

    `robust` (N,) are the points that no attack broke.
    """
    target = attacker.target
    resisting = attacker.points.select(robust.nonzero().flatten())
    fooled = _fooled_by(target)
    gradients = _any(runs, _GRADIENT, fooled)
    zero, not_finite = without_gradient(target, resisting, attacker.ctx)
    found = [
        share(
            "zero_gradients",
            "the gradient of every loss is zero on points that resist",
            zero,
            limit=ZERO_GRADIENTS,
        ),
        share(
            "gradients_not_finite",
            "no loss has a finite gradient on points that resist, so that attacks knew its signs "
            "alone; keep roots and logarithms off zero",
            not_finite,
            limit=ZERO_GRADIENTS,
        ),
        broken_alone(
            "fgsm_beats_pgd",
            "a single step breaks points that many steps do not",
            gradients,
            fooled(runs["fgsm"]),
        ),
        paired(
            "cross_entropy_hides",
            "a margin loss breaks more than the cross-entropy does in as many steps; the margin's "
            "attacks count",
            fooled(runs["pgd"]),
            fooled(runs["pgd_dlr"]),
            # Softened labels do this. What is hidden from one loss the others have measured.
            strikes=False,
        ),
        broken_alone(
            "random_noise_beats_gradients",
            "random noise breaks points that gradients do not",
            gradients,
            fooled(runs["random_noise"]),
        ),
    ]
    if not target.stochastic:
        # Another draw answers otherwise anyway.
        found.append(_surface_disagrees(runs))
    return found


def audit_indicators(attacker: Attacker, runs: Mapping[str, Run]) -> list[Indicator]:
    """Return the indicators that need attacks of their own, on a CPU on CHECKED points at most."""
    target, ctx = attacker.target, attacker.ctx
    broken, radius = _fooled_by(target), ctx.dataset.radius
    chosen = checked(attacker.points, ctx)
    attacker = attacker.on(chosen)

    def fooled(run: Run) -> Tensor:
        """Take of a run on all points the chosen ones."""
        return broken(run)[chosen.to(ctx.device)]

    def pgd(settings: Settings, eps: float) -> Tensor:
        return broken(attacker.with_settings(settings).run("pgd", eps=eps))

    def rescaled(factor: float) -> Attacker:
        return attacker.of(_rescaled(target, factor)).with_settings(_DLR)

    gradients = _any(runs, _GRADIENT, fooled)
    # What no attack of the effort that follows gradients breaks at the whole radius.
    converged = gradients | pgd(_CONVERGED, radius)
    return [
        broken_alone(
            "square_beats_gradients",
            "a score-only search breaks points that gradients do not",
            gradients,
            fooled(runs["square"]),
        ),
        broken_alone(
            "more_steps_help",
            "many more steps break points that 100 do not: the attack had not converged",
            converged,
            pgd(_LONGER_ON_RANDOM if target.stochastic else _LONGER, radius),
        ),
        broken_alone(
            "not_monotone",
            "half the radius breaks points that the whole one does not",
            converged,
            pgd(_CONVERGED, radius / 2),
        ),
        share(
            "unbounded_fails",
            "points resist although the ball holds every image",
            ~(pgd(_CONVERGED, 1.0) | gradients),
        ),
        *(
            broken_alone(
                f"scale_{factor:g}_helps",
                f"scores times {factor:g} break points that scores as they are do not, though the "
                "loss does not see a scale",
                gradients,
                broken(rescaled(factor).run("pgd_dlr", eps=radius)),
            )
            for factor in _RESCALED
        ),
    ]


_DLR: Settings = {"pgd_dlr": {"steps": 100}}


def checked(points: LabelledImages, ctx: TrialContext) -> Tensor:
    """Return the rows of the points on which the further attacks run."""
    most = CHECKED if ctx.device.type == "cpu" else len(points)
    return stratified_subset(points.labels, most, seed=0)


def _fooled_by(target: Target) -> Callable[[Run], Tensor]:
    """Return what an indicator compares of a run (N,): which points the attack breaks.

    Of a model that rejects, which points fool its classifier: that a detector stops the images of
    the stronger attack and lets those of the weaker pass is its work, and masks no gradient.
    """
    if target.predictor.rejects:
        return lambda run: run.fooled
    return lambda run: run.broken


def _any(
    runs: Mapping[str, Run], names: tuple[str, ...], fooled: Callable[[Run], Tensor]
) -> Tensor:
    return torch.stack([fooled(runs[name]) for name in names if name in runs]).any(0)


def _surface_disagrees(runs: Mapping[str, Run]) -> Indicator:
    """Compare what was attacked with what is deployed, on the images of an attack."""
    return share(
        "surface_disagrees",
        "images that fool the surface do not fool the deployed model: the attack saw another one",
        runs["pgd"].disagrees,
    )


def _rescaled(target: Target, factor: float) -> Target:
    def rescale(surface: Surface) -> Surface:
        return replace(surface, scores=lambda x, g: factor * surface.scores(x, g))

    surfaces = tuple(rescale(surface) for surface in target.surfaces)
    return replace(target, surfaces=surfaces, changed=True)
