"""How much of what the deployed model answers is proven, in the L2 norm.

Axes: N points, B batch.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from trainables.datasets import LabelledImages, stratified_subset
from trainables.deployed.predictor import REFUSED, Certificates, Predictor
from trainables.errors import InputError, PredictorError
from trainables.metrics import at_threshold, intervals
from trainables.parameters import parameter
from trainables.records.value import Measured, MetricValue, Missing
from trainables.threats.certificate_attack import attack_certified
from trainables.threats.threat import Findings, Threat
from trainables.trial.context import TrialContext

POINTS = {"screen": 64, "audit": 500}
"""Effort -> points that are certified where no number is given; 500 is that of Cohen et al."""
_BATCH = 32
"""Images that are certified at once; a predictor takes its draws in parts of its own."""
_NO_CERTIFICATES = "the deployed model certifies nothing"
Floats = NDArray[np.float64]
Bools = NDArray[np.bool_]


@dataclass(frozen=True, kw_only=True)
class Certification(Threat):
    """Ask the deployed model for the certificates of fixed points; every radius is L2.

    A point counts at a threshold T if the class that is certified is the right one and its radius
    is T at least. A model that certifies nothing has accuracy and radius 0 and always abstains.
    The curve over T says more than the average radius, which many draws of easy points raise.
    What is proven is the likeliest answer under noise: a deployed vote of few draws may waver near
    the edge of a ball. An audit attacks each certified point inside its own radius: see
    `attack_certified`.
    Source: Cohen et al., 2019, section 4; certified precision: Lecuyer et al., 2019, section 4.1.
    """

    name = "certification"
    meaning = (
        "How many points have a proven L2 ball in which no attack changes the likeliest answer of "
        "the smoothed model."
    )
    source = "Cohen et al., 2019; Lecuyer et al., 2019"
    VERSION = 3

    points: int | None = parameter(
        None, kind="int", low=1, high=1_000_000,
        meaning="points that are certified, stratified (default: 64 in a screen, 500 in an audit)",
    )  # fmt: skip
    thresholds: tuple[float, ...] = parameter(
        (0.1, 0.25, 0.5, 0.75, 1.0, 1.5), kind="float", low=1e-4, high=1000.0, many=True,
        unit="L2, pixel values of [0, 1]",
        meaning="radii that a certificate is asked to reach",
    )  # fmt: skip

    def __post_init__(self) -> None:
        super().__post_init__()
        if len({at_threshold("", T) for T in self.thresholds}) < len(self.thresholds):
            raise InputError("certification: two of thresholds are the same; drop one")

    def metric_names(self) -> tuple[str, ...]:
        """List the shares, of all certificates and at each threshold, the radius and the cost."""
        shares = ("certified_accuracy", "certified_precision")
        return (
            *shares,
            *(at_threshold(share, T) for T in self.thresholds for share in shares),
            "average_certified_radius",
            "abstention_rate",
            "certification_draws",
            "draws_per_certified_image",
        )

    def _measure(self, predictor: Predictor, ctx: TrialContext) -> Findings:
        """Certify the points a batch at a time, and compare with their labels."""
        points = self._points(ctx)
        found = _certify(predictor, points, ctx)
        radius = np.zeros(len(points)) if found is None else found.radius.cpu().numpy()
        right = np.zeros(len(points), dtype=np.bool_)
        if found is not None:
            right = (found.label == points.labels).cpu().numpy() & (radius > 0)
        metrics: dict[str, MetricValue] = {
            **_shares(radius > 0, right, ""),
            "average_certified_radius": _average(radius * right, found, points),
            "abstention_rate": intervals.proportion(int((radius == 0).sum()), len(points)),
            **_costs(found, radius > 0),
        }
        for T in self.thresholds:
            metrics |= _shares(radius >= T, right, at_threshold("", T))
        notes = {
            "norm": "l2",
            "points": len(points),
            "certifies": found is not None,
            "failure_probability": None if found is None else found.failure_probability,
            "radii": radius.tolist(),
            "right": right.tolist(),
        }
        if found is not None and ctx.spec.effort == "audit":
            notes["attacked"] = attack_certified(predictor, points, found, ctx)
        return Findings(metrics=metrics, notes=notes)

    def _points(self, ctx: TrialContext) -> LabelledImages:
        """Return the points: of those that attacks run on, or of their whole pool if more are
        asked.

        The notes say how many came out; a pool may hold fewer than were asked for.
        """
        count = POINTS[ctx.spec.effort] if self.points is None else self.points
        pool = ctx.points() if self.points is None or count <= len(ctx.points()) else ctx.held_out
        return pool.select(stratified_subset(pool.labels, count, seed=0))


def _certify(
    predictor: Predictor, points: LabelledImages, ctx: TrialContext
) -> Certificates | None:
    """Certify the points; None where the predictor proves nothing."""
    generator, parts = ctx.generator("certification"), []
    for start in range(0, len(points), _BATCH):
        x = points.images(slice(start, start + _BATCH))
        part = predictor.certificates(x, generator)
        if part is None:
            return None
        parts.append(_checked(part, type(predictor).__name__, len(x)))
    return Certificates(
        label=torch.cat([part.label for part in parts]),
        radius=torch.cat([part.radius for part in parts]),
        draws=torch.cat([part.draws for part in parts]),
        failure_probability=max(part.failure_probability for part in parts),
    )


def _checked(found: Certificates, name: str, count: int) -> Certificates:
    """Raise PredictorError where a certificate is none: a shape, a radius, a class."""
    for what in ("label", "radius", "draws"):
        tensor: Tensor = getattr(found, what)
        if tuple(tensor.shape) != (count,):
            raise PredictorError(
                f"{name} certifies with {what} of shape {tuple(tensor.shape)}, but it must be "
                f"{(count,)}"
            )
    if not bool((found.radius.isfinite() & (found.radius >= 0)).all()):
        raise PredictorError(f"{name} certifies a radius that is not a finite number from 0 up")
    if bool(((found.label == REFUSED) & (found.radius > 0)).any()):
        raise PredictorError(f"{name} certifies a radius where it abstains; return 0 there")
    return found


def _shares(certified: Bools, right: Bools, suffix: str) -> dict[str, MetricValue]:
    """Return accuracy over all points, and precision over the certified ones."""
    both, count = int((certified & right).sum()), int(certified.sum())
    reason = "no point is certified" + (suffix and f" at the threshold {suffix[len('_at_') :]}")
    return {
        f"certified_accuracy{suffix}": intervals.proportion(both, len(certified)),
        f"certified_precision{suffix}": intervals.proportion_or_missing(both, count, reason),
    }


def _average(radius: Floats, found: Certificates | None, points: LabelledImages) -> Measured:
    """Return the mean radius (N,), of which none is larger than the diagonal of the images' cube.

    It is 0 by definition of a model that certifies nothing.
    """
    if found is None:
        return intervals.exact(0.0, len(radius))
    return intervals.mean(radius, low=0.0, high=math.sqrt(points.pixels[0].numel()))


def _costs(found: Certificates | None, certified: Bools) -> dict[str, MetricValue]:
    names = ("certification_draws", "draws_per_certified_image")
    if found is None:
        return dict.fromkeys(names, Missing(_NO_CERTIFICATES))
    draws = found.draws.double().cpu().numpy()
    return {
        "certification_draws": intervals.mean(draws, low=0.0),
        "draws_per_certified_image": _per_certified(draws, certified),
    }


def _per_certified(draws: Floats, certified: Bools) -> Measured | Missing:
    """Return all draws over the number certified; a resample that holds none counts as one."""
    if not certified.any():
        return Missing("no point is certified")
    return intervals.bootstrap(
        lambda rows: float(draws[rows].sum() / max(1, certified[rows].sum())),
        len(draws),
        seed=0,
    )
