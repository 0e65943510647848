"""Images changed within a ball so that the deployed model takes them for something else.

Axes: N points, C channels, H, W, K classes.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from trainables import intervals
from trainables.attacks import attack
from trainables.datasets import LabelledImages
from trainables.errors import InputError
from trainables.metrics import MetricValue, at_eps
from trainables.parameters import PIXELS, parameter
from trainables.perceptual import lpips_distance
from trainables.predictor import REFUSED, Predictor, Surface
from trainables.threats.threat import Findings, Threat

if TYPE_CHECKING:
    from trainables.context import TrialContext

_SETTINGS: Mapping[str, Mapping[str, Mapping[str, Any]]] = {
    "screen": {
        "pgd": {"steps": 20, "random_start": True},
        "targeted_margin_pgd": {"steps": 20, "targets": 3},
    },
    "audit": {
        "pgd": {"steps": 100, "random_start": True, "restarts": 5},
        "targeted_margin_pgd": {"steps": 100, "targets": 9},
    },
}
"""Effort -> attack -> its settings; what is not named runs with the attack's own defaults."""
_BATCH = 256
_TOLERANCE = 1e-6
"""Of the ball and the pixel range, in float32."""


@dataclass(frozen=True, kw_only=True)
class Evasion(Threat):
    """Attack every surface of the predictor; a point counts as robust if no attack breaks it."""

    name = "evasion"
    meaning = "Images are changed a little so that they are misclassified."
    source = "Szegedy et al., 2014; Carlini et al., 2019"

    attacks: str | tuple[str, ...] = parameter(
        ("fgsm", "pgd", "targeted_margin_pgd"), kind="word", many=True,
        meaning="attacks that run at the standard radius; the worst case counts",
    )  # fmt: skip
    eps: float | tuple[float, ...] | None = parameter(
        None, kind="float", low=0.0, high=1.0, unit=PIXELS, many=True,
        meaning="further radii at which the same attacks run",
    )  # fmt: skip

    def __post_init__(self) -> None:
        super().__post_init__()
        for name in self.attack_names:
            attack(name)
        names = {at_eps("", eps) for eps in self._further()}
        if len(names) < len(self._further()):
            raise InputError("evasion: two of eps are the same to four decimals; drop one")

    @property
    def attack_names(self) -> tuple[str, ...]:
        """The attacks, in the order in which they run."""
        return (self.attacks,) if isinstance(self.attacks, str) else self.attacks

    def metric_names(self) -> tuple[str, ...]:
        """List robust_accuracy and the rows of each attack, at each radius."""
        per_attack = [f"{kind}_{name}" for name in self.attack_names for kind in _PER_ATTACK]
        further = [at_eps(name, eps) for eps in self._further() for name in per_attack]
        return ("robust_accuracy", *per_attack, *further)

    def measure(self, predictor: Predictor, ctx: TrialContext) -> Findings:
        """Attack the effort's points at the standard radius and at the further ones."""
        points = ctx.points()
        generator = ctx.generator("evasion", "clean")
        right = _right(predictor, points.images(), points.labels, generator)
        metrics: dict[str, MetricValue] = {}
        robust, broken_by = right.clone(), ["clean"] * len(points)
        for name in self.attack_names:
            run = _run(name, predictor, points, ctx.dataset.radius, ctx)
            metrics |= _rows(name, run, right, points, ctx)
            for index in (robust & ~run.right).nonzero().flatten().tolist():
                broken_by[index] = name
            robust &= run.right
        for index in robust.nonzero().flatten().tolist():
            broken_by[index] = "none"
        metrics["robust_accuracy"] = intervals.proportion(int(robust.sum()), len(robust))
        for eps in self._further():
            for name in self.attack_names:
                rows = _rows(name, _run(name, predictor, points, eps, ctx), right, points, ctx)
                metrics |= {at_eps(metric, eps): value for metric, value in rows.items()}
        settings = _SETTINGS[ctx.spec.effort]
        notes = {
            "points": len(points),
            "radius": ctx.dataset.radius,
            "settings": {name: dict(settings.get(name, {})) for name in self.attack_names},
            "surfaces": [surface.kind for surface in predictor.surfaces()],
            "broken_by": broken_by,
        }
        return Findings(metrics=metrics, notes=notes)

    def _further(self) -> tuple[float, ...]:
        if self.eps is None:
            return ()
        return self.eps if isinstance(self.eps, tuple) else (self.eps,)


_PER_ATTACK = (
    "adversarial_accuracy",
    "attack_success_rate",
    "lpips",
    "l2_distance",
    "linf_distance",
)


@dataclass(frozen=True, slots=True, eq=False)
class _Run:
    """What one attack did at one radius: on the surface that suffered most, image by image."""

    adversarial: Tensor
    """(N, C, H, W)"""
    right: Tensor
    """(N,) whether the deployed model is right on it."""


def _run(
    name: str, predictor: Predictor, points: LabelledImages, eps: float, ctx: TrialContext
) -> _Run:
    adversarial = points.images()
    right = torch.ones(len(points), dtype=torch.bool, device=adversarial.device)
    for number, surface in enumerate(predictor.surfaces()):
        generator = ctx.generator("evasion", name, f"{eps:.9f}", str(number))
        for start in range(0, len(points), _BATCH):
            batch = slice(start, start + _BATCH)
            x, y = points.images(batch), points.labels[batch]
            attacked = _attack(name, surface, x, y, eps, ctx.spec.effort, generator)
            attacked = _checked(attacked, x, eps, name)
            stays = _withstands(predictor, attacked, y, generator)
            # Of several surfaces, an image that is broken on one stays broken.
            take = right[batch] if number else torch.ones_like(stays)
            adversarial[batch][take] = attacked[take]
            right[batch] &= stays
    return _Run(adversarial, right)


def _attack(
    name: str,
    surface: Surface,
    x: Tensor,
    y: Tensor,
    eps: float,
    effort: str,
    generator: torch.Generator,
) -> Tensor:
    return attack(name)(
        lambda images: surface.scores(images, generator),
        x,
        y,
        eps=eps,
        generator=generator,
        **_SETTINGS[effort].get(name, {}),
    ).detach()


def _checked(attacked: Tensor, x: Tensor, eps: float, name: str) -> Tensor:
    """Give the images, if they are inside the ball and the pixel range: no attack is believed."""
    far = float((attacked - x).abs().max())
    low, high = float(attacked.min()), float(attacked.max())
    if not (far <= eps + _TOLERANCE and low >= 0 and high <= 1):  # NaN fails here too
        raise RuntimeError(
            f"{name} left its ball: a pixel moved by {far:.6g} of {eps:.6g}, range [{low}, {high}]"
        )
    return attacked


def _right(
    predictor: Predictor, images: Tensor, labels: Tensor, generator: torch.Generator
) -> Tensor:
    return predictor.predict(images, generator).label == labels


def _withstands(
    predictor: Predictor, images: Tensor, labels: Tensor, generator: torch.Generator
) -> Tensor:
    """Tell where an attack fails: the answer is right, or a detector rejects the image.

    An abstention (no label, and no score to reject by) is wrong, as it is everywhere.
    """
    prediction = predictor.predict(images, generator)
    right = prediction.label == labels
    if prediction.reject_score is None:
        return right
    return right | (prediction.label == REFUSED)


def _rows(
    name: str, run: _Run, right: Tensor, points: LabelledImages, ctx: TrialContext
) -> dict[str, MetricValue]:
    clean, delta = points.images(), run.adversarial - points.images()
    attacked, broken = int(right.sum()), int((right & ~run.right).sum())
    l2 = delta.flatten(1).norm(dim=1).double().cpu().numpy()
    linf = delta.flatten(1).abs().amax(1).double().cpu().numpy()
    return {
        f"adversarial_accuracy_{name}": intervals.proportion(int(run.right.sum()), len(points)),
        f"attack_success_rate_{name}": intervals.proportion_or_missing(
            broken, attacked, "no image is classified correctly before the attack"
        ),
        f"lpips_{name}": lpips_distance(clean, run.adversarial, ctx.lpips_weights),
        f"l2_distance_{name}": intervals.mean(l2),
        f"linf_distance_{name}": intervals.mean(linf),
    }
