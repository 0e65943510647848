"""What images of its classes can be climbed out of the deployed model.

Axes: B images (classes x starts), C channels, H, W, K classes.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from trainables import intervals
from trainables.errors import InputError
from trainables.metrics import Measured, MetricValue
from trainables.parameters import parameter
from trainables.predictor import SMALLEST_LOG, Predictor, ask
from trainables.threats.evaluators import Evaluators, evaluators
from trainables.threats.inversion_attack import BATCH, Climb, invert, margins
from trainables.threats.pictures import encoded
from trainables.threats.points import SLOW_POINTS
from trainables.threats.reconstructions import ClassReference, class_references, likeness
from trainables.threats.threat import Findings, Threat

if TYPE_CHECKING:
    from trainables.context import TrialContext

_STARTS = {"screen": 12, "audit": 48}
_STEPS = {"screen": 50, "audit": 300}
_RANDOM_IMAGES = 32
"""Images that a screen climbs of a random model: each gradient is of many draws."""
_SHOWN = 20
"""Classes whose reconstructions a record keeps as pictures."""


@dataclass(frozen=True, slots=True, eq=False)
class _Reconstructions:
    """What the attack gives back, the best of a class first."""

    images: Tensor
    """(B, C, H, W)"""
    classes: Tensor
    """(B,) the class that each was climbed for."""
    labels: Tensor
    """(B,) what the deployed model says of it, or REFUSED."""
    confidence: Tensor
    """(B,) the deployed probability of the class."""


@dataclass(frozen=True, kw_only=True)
class Inversion(Threat):
    """Climb every class' margin from random starts, with priors, and let independent judges look.

    The attacker knows the defense: every surface is climbed, and of a class' images those are kept
    of which the deployed model itself is surest. The evaluators only judge. Source: Fredrikson et
    al., 2015; the independent evaluator: Zhang et al., 2020.
    """

    name = "inversion"
    meaning = "An attacker climbs images of the classes out of the model."
    source = "Fredrikson et al., 2015; Zhang et al., 2020"

    starts: int | None = parameter(
        None, kind="int", low=1, high=100_000,
        meaning="random starts a class; by default the effort's own: 12 in a screen, 48 in an "
        "audit; fewer in a screen of a model that is slow to differentiate",
    )  # fmt: skip
    kept: int = parameter(
        6, kind="int", low=1, high=100_000,
        meaning="reconstructions a class that are judged: those of which the model is surest",
    )  # fmt: skip
    steps: int | None = parameter(
        None, kind="int", low=1, high=1_000_000,
        meaning="steps of the climb; by default the effort's own: 50 in a screen, 300 in an audit",
    )  # fmt: skip
    step_size: float = parameter(
        0.5, kind="float", low=1e-6, high=100.0, unit="root mean square of pixel values",
        meaning="first step, which falls to zero",
    )  # fmt: skip
    tv: float = parameter(
        0.3, kind="float", low=0.0, high=100.0,
        meaning="weight of the total variation against the margin",
    )  # fmt: skip
    l2: float = parameter(
        1.5, kind="float", low=0.0, high=1000.0,
        meaning="weight of the distance from the data's mean colour: 1 / l2 is about the root "
        "mean square distance at which a climb comes to rest",
    )  # fmt: skip

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.starts is not None and self.kept > self.starts:
            raise InputError(
                f"inversion: kept is {self.kept}, more than the {self.starts} starts of a class; "
                "keep fewer or start more"
            )

    def metric_names(self) -> tuple[str, ...]:
        """List what the attack is judged by."""
        return (
            "inversion_accuracy",
            "inversion_accuracy_network",
            "inversion_accuracy_svm",
            "inversion_feature_distance",
            "inversion_ssim",
            "inversion_ssim_baseline",
        )

    def measure(self, predictor: Predictor, ctx: TrialContext) -> Findings:
        """Reconstruct every class and have the reconstructions judged."""
        judges = evaluators(ctx)
        clean = judges.clean_accuracy()
        found = self._reconstruct(predictor, ctx)
        references = class_references(ctx.pools.train, judges.held_out, ctx.dataset.num_classes)
        like = likeness(found.images, found.classes, references, judges.features)
        said = judges.judge(found.images)
        shares = {name: _share(labels, found.classes) for name, labels in said.items()}
        metrics: dict[str, MetricValue] = {
            "inversion_accuracy": min(shares.values(), key=lambda share: share.value),
            **{f"inversion_accuracy_{name}": share for name, share in shares.items()},
            "inversion_feature_distance": like.feature_distance,
            "inversion_ssim": like.ssim,
            "inversion_ssim_baseline": like.ssim_baseline,
        }
        notes = {
            **self._settings(predictor, ctx),
            "surfaces": [surface.kind for surface in predictor.surfaces()],
            "reconstructions": len(found.classes),
            "target_accuracy": _share(found.labels, found.classes).value,
            "target_confidence": float(found.confidence.mean()),
            "nearest_in_features": like.nearest,
            "evaluators": _described(judges, clean, references),
            "pictures": _pictures(found, said, references),
        }
        return Findings(metrics=metrics, notes=notes)

    def _settings(self, predictor: Predictor, ctx: TrialContext) -> dict[str, Any]:
        """Fill in what the effort decides."""
        effort = ctx.spec.effort
        starts = self.starts or _STARTS[effort]
        if self.starts is None and effort == "screen":
            starts = min(starts, max(1, _affordable(predictor) // ctx.dataset.num_classes))
        return {
            "starts": starts,
            "kept": min(self.kept, starts),
            "steps": self.steps or _STEPS[effort],
            "step_size": self.step_size,
            "tv": self.tv,
            "l2": self.l2,
        }

    def _reconstruct(self, predictor: Predictor, ctx: TrialContext) -> _Reconstructions:
        settings = self._settings(predictor, ctx)
        count, num_classes = settings["starts"], ctx.dataset.num_classes
        climb = Climb(steps=settings["steps"], step_size=self.step_size, tv=self.tv, l2=self.l2)
        classes = torch.arange(num_classes, device=ctx.device).repeat_interleave(count)
        generator = ctx.generator("inversion", "starts")
        starts = torch.rand(
            (len(classes), *ctx.dataset.shape), generator=generator, device=ctx.device
        )
        colour = torch.tensor(ctx.dataset.mean, device=ctx.device).view(-1, 1, 1)
        climbed = [
            invert(
                surface,
                starts,
                classes,
                climb,
                colour=colour,
                num_classes=num_classes,
                generator=ctx.generator("inversion", str(number)),
            )
            for number, surface in enumerate(predictor.surfaces())
        ]
        if not climbed:
            raise RuntimeError(f"{type(predictor).__name__} has no surface to climb")
        every = classes.repeat(len(climbed))
        return _surest(predictor, torch.cat(climbed), every, settings["kept"], ctx)


def _affordable(predictor: Predictor) -> int:
    """Give the number of images that a screen climbs at most."""
    limits = [BATCH]
    if len(predictor.surfaces()) > 1:
        limits.append(SLOW_POINTS)
    if predictor.stochastic:
        limits.append(_RANDOM_IMAGES)
    if predictor.max_screen_points is not None:
        limits.append(predictor.max_screen_points)
    return min(limits)


def _surest(
    predictor: Predictor, images: Tensor, classes: Tensor, kept: int, ctx: TrialContext
) -> _Reconstructions:
    """Keep the images of a class of which the deployed model is surest."""
    generator, num_classes = ctx.generator("inversion", "asked"), ctx.dataset.num_classes
    answers = [ask(predictor, x, generator, num_classes) for x in torch.split(images, BATCH)]
    logs = torch.cat([answer.log_probabilities for answer in answers]).clamp_min(SMALLEST_LOG)
    labels = torch.cat([answer.label for answer in answers])
    order = margins(logs, classes).argsort(descending=True, stable=True)
    rows = torch.cat([order[classes[order] == label][:kept] for label in range(num_classes)])
    confidence = logs.gather(1, classes[:, None]).squeeze(1).exp()
    return _Reconstructions(images[rows], classes[rows], labels[rows], confidence[rows])


def _share(labels: Tensor, classes: Tensor) -> Measured:
    return intervals.proportion(int((labels == classes).sum()), len(classes))


def _described(
    judges: Evaluators, clean: dict[str, Measured], references: list[ClassReference]
) -> dict[str, Any]:
    """Say who judged: what they learnt from, how good they are, what they say of class means."""
    means = torch.stack([one.mean for one in references])
    labels = torch.tensor([one.label for one in references], device=means.device)
    on_means = {name: _share(said, labels).value for name, said in judges.judge(means).items()}
    return {
        "trained_on": judges.source,
        "rows": judges.rows,
        "network": judges.network_name,
        "clean_accuracy": {name: found.value for name, found in clean.items()},
        "clean_images": clean["svm"].n,
        "accuracy_on_class_means": on_means,
    }


def _pictures(
    found: _Reconstructions, said: dict[str, Tensor], references: list[ClassReference]
) -> dict[str, Any]:
    """Give the surest reconstruction of each class beside its mean and a training image."""
    shape = found.images.shape[1:]
    rows = []
    for one in references[:_SHOWN]:
        row = int((found.classes == one.label).nonzero()[0])
        rows.append(
            {
                "label": one.label,
                "reconstruction": encoded(found.images[row]),
                "target": int(found.labels[row]),
                **{name: int(labels[row]) for name, labels in said.items()},
                "mean": encoded(one.mean),
                "training": encoded(one.training[0]),
            }
        )
    return {"shape": [shape[1], shape[2], shape[0]], "classes": rows}
