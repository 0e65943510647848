"""What the deployed model does on unattacked images: measured in every trial, before any threat.

Axes: N points, K classes.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import torch
from torch import Tensor
from torch.nn import functional as F

from trainables.datasets import LabelledImages, stratified_subset
from trainables.defenses.training.private_steps import DELTA_CURVE, EPSILON_CURVE
from trainables.deployed.predictor import SMALLEST_LOG, Predictor
from trainables.device import full_precision
from trainables.metrics import intervals
from trainables.metrics.calibration import BINS, calibration_error
from trainables.records.value import Measured, MetricValue, Missing
from trainables.threats.threat import Findings
from trainables.trial.context import TrialContext

VERSION = 4
_FEWER_MEMBERS_FROM = 20
"""Forward passes of an answer from which not all members are asked: a choice of cost alone."""
METRIC_NAMES = (
    "clean_accuracy",
    "balanced_accuracy",
    "worst_class_accuracy",
    "ece",
    "nll",
    "mean_confidence",
    "generalization_gap",
    "input_gradient_norm",
    "dp_epsilon",
)


def measure_clean(
    predictor: Predictor,
    members: LabelledImages,
    ctx: TrialContext,
    *,
    curves: Mapping[str, Sequence[float]],
) -> Findings:
    """Measure accuracy, calibration and smoothness on the whole held-out pool.

    `members` and `curves` are of the model's training; the latter say what privacy it spent.
    """
    held_out = ctx.held_out
    log_probabilities = ctx.answers(predictor, held_out).log_probabilities
    right = _right(predictor, held_out, ctx)
    confidence, predicted = (t.cpu() for t in log_probabilities.exp().max(1))
    labels = held_out.labels.cpu()
    nll = -log_probabilities.cpu()[torch.arange(len(labels)), labels].clamp_min(SMALLEST_LOG)
    accuracy = intervals.proportion(int(right.sum()), len(right))
    with full_precision(ctx.device):
        gradient_norm = _gradient_norm(predictor, ctx)
    metrics: dict[str, MetricValue] = {
        "clean_accuracy": accuracy,
        "balanced_accuracy": balanced_accuracy(right, labels),
        "worst_class_accuracy": _worst_class(right, labels),
        "ece": calibration_error(
            confidence.double().numpy(), (predicted == labels).numpy(), seed=0
        ),
        "nll": intervals.mean(nll.double().numpy(), low=0.0, high=-SMALLEST_LOG),
        "mean_confidence": intervals.mean(confidence.double().numpy(), low=0.0, high=1.0),
        "generalization_gap": _gap(predictor, members, ctx, accuracy),
        "input_gradient_norm": gradient_norm,
        "dp_epsilon": Missing("the training is not differentially private"),
    }
    notes: dict[str, float] = {"pool_points": len(held_out), "ece_bins": BINS}
    if EPSILON_CURVE in curves:
        # The last value, also where an earlier epoch's weights are kept: all steps were seen.
        metrics["dp_epsilon"] = intervals.exact(curves[EPSILON_CURVE][-1])
        notes["dp_delta"] = curves[DELTA_CURVE][-1]
    return Findings(metrics=metrics, notes=notes, outcomes={"clean_accuracy": right})


def _gap(
    predictor: Predictor, members: LabelledImages, ctx: TrialContext, accuracy: Measured
) -> MetricValue:
    """Compare with the accuracy on the rows that were trained on."""
    if not ctx.members_known:
        return Missing("the given weights were trained on none of these images")
    right = _right(predictor, _affordable(predictor, members, len(ctx.held_out)), ctx)
    return intervals.difference(intervals.proportion(int(right.sum()), len(right)), accuracy)


def _affordable(predictor: Predictor, members: LabelledImages, most: int) -> LabelledImages:
    """Return as many members as are measured elsewhere, where an answer takes many passes."""
    if predictor.forward_passes_per_prediction < _FEWER_MEMBERS_FROM or len(members) <= most:
        return members
    return members.select(stratified_subset(members.labels, most, seed=0))


def _right(predictor: Predictor, images: LabelledImages, ctx: TrialContext) -> Tensor:
    return (ctx.answers(predictor, images).label == images.labels).cpu()


def _worst_class(right: Tensor, labels: Tensor) -> MetricValue:
    return intervals.lowest(_right_by_class(right, labels))


def _right_by_class(right: Tensor, labels: Tensor) -> list[tuple[int, int]]:
    """Count the right answers and the points (N,) of each class that has points."""
    return [
        (int(right[labels == label].sum()), int((labels == label).sum()))
        for label in torch.unique(labels).tolist()
    ]


def balanced_accuracy(right: Tensor, labels: Tensor) -> Measured:
    """Return the mean of the accuracies of the K classes that have points (N,).

    A constant answer has 1 / K, whatever the sizes of the classes.
    """
    return intervals.mean_of_shares(_right_by_class(right, labels))


def _gradient_norm(predictor: Predictor, ctx: TrialContext) -> MetricValue:
    surface, points = predictor.surfaces()[0], ctx.points()
    generator = ctx.generator("clean", "gradient")
    norms = []
    for start in range(0, len(points), 128):
        batch = slice(start, start + 128)
        x = points.images(batch).requires_grad_(True)
        loss = F.cross_entropy(surface.scores(x, generator), points.labels[batch], reduction="sum")
        if not loss.requires_grad:
            return Missing("the deployed model gives no gradient")
        (gradient,) = torch.autograd.grad(loss, x)
        if not bool(gradient.flatten(1).norm(dim=1).isfinite().all()):
            return Missing("the gradient is not finite on every point")
        norms.append(gradient.flatten(1).norm(dim=1))
    return intervals.mean(torch.cat(norms).double().cpu().numpy(), low=0.0)
