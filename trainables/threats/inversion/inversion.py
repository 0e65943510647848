"""What images of its classes can be climbed out of the deployed model.

Axes: B images (classes x starts), C channels, H, W, K classes.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor

from trainables.deployed.predictor import SMALLEST_LOG, Predictor, ask_in_batches
from trainables.errors import InputError
from trainables.metrics import intervals
from trainables.parameters import parameter
from trainables.records.value import Measured, MetricValue
from trainables.threats.evasion.pictures import encoded
from trainables.threats.inversion.attack import BATCH, Climb, Slope, invert, margins, surface_slope
from trainables.threats.inversion.domain import Domain, latents, pixels
from trainables.threats.inversion.evaluators import Evaluators, evaluators, prior_images
from trainables.threats.inversion.generative_prior import generative_prior
from trainables.threats.inversion.queries import Asked, asked_slope
from trainables.threats.inversion.reconstructions import ClassReference, class_references, likeness
from trainables.threats.inversion.work import Work, asking, differentiating
from trainables.threats.threat import Findings, Threat
from trainables.trial.context import TrialContext

WHITE_BOX, BLACK_BOX = "white_box", "black_box"
TOTAL_VARIATION, GENERATIVE = "total_variation", "generative"
_SHOWN = 20
"""Classes whose reconstructions a record keeps as pictures."""


@dataclass(frozen=True, slots=True, eq=False)
class _Reconstructions:
    """What the attack returns, the best of a class first."""

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

    The attacker who differentiates the model knows the defense: every surface is climbed. The one
    who may only ask goes by the deployed probabilities, and by refusals. Both know the deployed
    answers: of a class' images those are kept of which the deployed model itself is surest.

    Under the generative prior images are sought among those that a decoder draws, which learnt
    from images of the same source as the target's: this attacker knows more of them than most. The
    evaluators only judge, and never learn from an image that a decoder learnt from.

    Source: Fredrikson et al., 2015; the independent evaluator and the generative prior: Zhang et
    al., The secret revealer, 2020.
    """

    name = "inversion"
    meaning = "An attacker reconstructs images of the classes from the model."
    source = "Fredrikson et al., 2015; Zhang et al., 2020"
    VERSION = 3

    access: str = parameter(
        WHITE_BOX, kind="word", words=(WHITE_BOX, BLACK_BOX),
        meaning="white_box: the attacker differentiates the model; black_box: he asks it, and goes "
        "by the probabilities that it answers",
    )  # fmt: skip
    prior: str = parameter(
        TOTAL_VARIATION, kind="word", words=(TOTAL_VARIATION, GENERATIVE),
        meaning="total_variation: smooth images are likelier; generative: only images that a "
        "decoder draws, trained on others of the same source",
    )  # fmt: skip
    starts: int | None = parameter(
        None, kind="int", low=1, high=100_000,
        meaning="random starts a class; by default the effort's own: 12 in a screen, 48 in an "
        "audit, with queries alone 6 and 12; fewer of a model that is slow",
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
        meaning="first step, which falls to zero; under the generative prior of latent values",
    )  # fmt: skip
    tv: float = parameter(
        0.3, kind="float", low=0.0, high=100.0,
        meaning="weight of the total variation against the margin; it plays no part under the "
        "generative prior",
    )  # fmt: skip
    l2: float = parameter(
        1.5, kind="float", low=0.0, high=1000.0,
        meaning="weight of the distance from the data's mean colour, under the generative prior "
        "from the mean latent: 1 / l2 is about the root mean square distance at which a climb "
        "comes to rest",
    )  # fmt: skip
    queries: int | None = parameter(
        None, kind="int", low=2, high=100_000_000, unit="images",
        meaning="that a start may ask about where access is black_box; by default 2,000 in a "
        "screen, 12,000 in an audit; fewer in a screen of a model whose answer takes many passes",
    )  # fmt: skip

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.starts is not None and self.kept > self.starts:
            raise InputError(
                f"inversion: kept is {self.kept}, more than the {self.starts} starts of a class; "
                "keep fewer or start more"
            )
        if self.queries is not None and self.access == WHITE_BOX:
            raise InputError(
                "inversion: queries is for access: black_box; who differentiates the model counts "
                "steps"
            )
        if self.queries and self.steps and self.queries < 2 * self.steps:
            raise InputError(
                f"inversion: queries is {self.queries}, but each of the {self.steps} steps takes "
                "two at least; take fewer steps or ask more"
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

    def _measure(self, predictor: Predictor, ctx: TrialContext) -> Findings:
        """Reconstruct every class and have the reconstructions judged."""
        work = self._work(predictor, ctx)
        judges = evaluators(ctx, halved=self.prior == GENERATIVE)
        clean = judges.clean_accuracy()
        domain, learnt = self._domain(ctx)
        found, asked = self._reconstruct(predictor, ctx, work, domain)
        references = class_references(ctx.pools.train, judges.held_out, ctx.dataset.num_classes)
        like = likeness(found.images, found.classes, references, judges.features)
        said = judges.judge(found.images)
        shares = {name: _share_by_class(labels, found.classes) for name, labels in said.items()}
        judge = _headline(shares, clean)
        metrics: dict[str, MetricValue] = {
            "inversion_accuracy": shares[judge],
            **{f"inversion_accuracy_{name}": share for name, share in shares.items()},
            "inversion_feature_distance": like.feature_distance,
            "inversion_ssim": like.ssim,
            "inversion_ssim_baseline": like.ssim_baseline,
        }
        notes = {
            **self._settings(work),
            **learnt,
            **asked,
            "reconstructions": len(found.classes),
            "target_accuracy": _share(found.labels, found.classes).value,
            "target_confidence": float(found.confidence.mean()),
            "nearest_in_features": like.nearest,
            "evaluators": _described(judges, clean, references),
            "judge": judge,
            "judges_disagree": _disagree(*shares.values()),
            "pictures": _pictures(found, said, references),
        }
        return Findings(metrics=metrics, notes=notes)

    def _work(self, predictor: Predictor, ctx: TrialContext) -> Work:
        """Fill in what the effort decides."""
        given = {"starts": self.starts, "steps": self.steps}
        if self.access == WHITE_BOX:
            return differentiating(predictor, ctx, **given)
        return asking(predictor, ctx, **given, queries=self.queries)

    def _settings(self, work: Work) -> dict[str, Any]:
        return {
            "access": self.access,
            "prior": self.prior,
            "starts": work.starts,
            "kept": min(self.kept, work.starts),
            "steps": work.steps,
            "step_size": self.step_size,
            "tv": self._tv,
            "l2": self.l2,
        }

    @property
    def _tv(self) -> float:
        return 0.0 if self.prior == GENERATIVE else self.tv

    def _domain(self, ctx: TrialContext) -> tuple[Domain, dict[str, Any]]:
        """Return where images are sought, and what is to be noted of it."""
        if self.prior == TOTAL_VARIATION:
            colour = torch.tensor(ctx.dataset.mean, device=ctx.device).view(-1, 1, 1)
            return pixels(ctx.dataset.shape, colour), {}
        learnt = generative_prior(ctx, prior_images(ctx))
        noted = {"decoder": {"rows": learnt.rows, "latent": learnt.latent, "loss": learnt.loss}}
        return latents(learnt.decoder, learnt.latent, ctx.device), noted

    def _reconstruct(
        self, predictor: Predictor, ctx: TrialContext, work: Work, domain: Domain
    ) -> tuple[_Reconstructions, dict[str, Any]]:
        """Climb, keep what the model is surest of, and note what was climbed or asked."""
        classes = torch.arange(ctx.dataset.num_classes, device=ctx.device)
        classes = classes.repeat_interleave(work.starts)
        starts = domain.starts(len(classes), ctx.generator("inversion", "starts"))
        climb = Climb(steps=work.steps, step_size=self.step_size, tv=self._tv, l2=self.l2)
        asked = Asked(predictor, ctx.dataset.num_classes, ctx.generator("inversion", "answers"))
        slopes = (
            _of_surfaces(predictor, ctx, domain)
            if self.access == WHITE_BOX
            else [
                asked_slope(asked, domain, ctx.generator("inversion", "changes"), pairs=work.pairs)
            ]
        )
        images = torch.cat([invert(slope, starts, classes, climb, domain) for slope in slopes])
        kept = min(self.kept, work.starts)
        found = _surest(predictor, images, classes.repeat(len(slopes)), kept, ctx)
        if self.access == WHITE_BOX:
            return found, {"surfaces": [surface.kind for surface in predictor.surfaces()]}
        # Which images to keep is asked as well.
        return found, {"queries": {"of_a_start": work.queries, "asked": asked.count + len(images)}}


def _of_surfaces(predictor: Predictor, ctx: TrialContext, domain: Domain) -> list[Slope]:
    """Return the slope of each surface; RuntimeError where there is none."""
    surfaces = predictor.surfaces()
    if not surfaces:
        raise RuntimeError(f"{type(predictor).__name__} has no surface to climb")
    return [
        surface_slope(
            surface, domain, ctx.generator("inversion", str(number)), ctx.dataset.num_classes
        )
        for number, surface in enumerate(surfaces)
    ]


def _surest(
    predictor: Predictor, images: Tensor, classes: Tensor, kept: int, ctx: TrialContext
) -> _Reconstructions:
    """Keep the images of a class of which the deployed model is surest."""
    generator, num_classes = ctx.generator("inversion", "asked"), ctx.dataset.num_classes
    answer = ask_in_batches(predictor, torch.split(images, BATCH), generator, num_classes)
    logs, labels = answer.log_probabilities.clamp_min(SMALLEST_LOG), answer.label
    order = margins(logs, classes).argsort(descending=True, stable=True)
    rows = torch.cat([order[classes[order] == label][:kept] for label in range(num_classes)])
    confidence = logs.gather(1, classes[:, None]).squeeze(1).exp()
    return _Reconstructions(images[rows], classes[rows], labels[rows], confidence[rows])


def _share(labels: Tensor, classes: Tensor) -> Measured:
    return intervals.proportion(int((labels == classes).sum()), len(classes))


def _share_by_class(labels: Tensor, classes: Tensor) -> Measured:
    """Return the share that is right: as many are kept of each class, and they are alike."""
    right = (labels == classes).double()
    shares = [float(right[classes == label].mean()) for label in torch.unique(classes)]
    return intervals.clustered(np.array(shares))


def _headline(shares: dict[str, Measured], clean: dict[str, Measured]) -> str:
    """Name the evaluator that is right of more held-out images; of equals the one of the larger
    share.
    """
    return max(shares, key=lambda name: (clean[name].value, shares[name].value))


def _disagree(one: Measured, other: Measured) -> bool:
    """Return whether the intervals of two shares have nothing in common."""
    return one.low > other.high or other.low > one.high


def _described(
    judges: Evaluators, clean: dict[str, Measured], references: list[ClassReference]
) -> dict[str, Any]:
    """Return who judged: what they learnt from, how good they are, what they say of class means."""
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
    """Return the surest reconstruction of each class alongside its mean and a training image."""
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
