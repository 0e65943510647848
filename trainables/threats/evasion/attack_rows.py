"""What one attack's run says: accuracy, success, distances, queries.

Axes: N points.
"""

from __future__ import annotations

import math

import numpy as np
from torch import Tensor

from trainables.attacks import variant
from trainables.datasets import LabelledImages
from trainables.deployed.predictor import SMALLEST_LOG
from trainables.metrics import intervals
from trainables.metrics.perceptual import lpips_distance
from trainables.metrics.similarity import ssim
from trainables.records.value import MetricValue, Missing
from trainables.threats.evasion.run import Run, lengths
from trainables.trial.context import TrialContext

_EVERY = (
    "adversarial_accuracy",
    "attack_success_rate",
    "adversarial_nll",
    "lpips",
    "ssim",
    "l2_distance",
    "linf_distance",
)
_MINIMUM_NORM = ("unbounded_success_rate", "median_l2_distance")
_NO_TARGET = "no image is classified correctly before the attack"
_DECILES = tuple(round(0.1 * step, 1) for step in range(11))


def row_names(name: str) -> tuple[str, ...]:
    """List the metrics that an attack's run measures."""
    chosen = variant(name)
    kinds = list(_EVERY)
    if chosen.minimum_norm:
        kinds += _MINIMUM_NORM
    if chosen.takes("queries"):
        kinds.append("queries")
    if chosen.norm == "l0":
        kinds.append("changed_pixels")
    return tuple(f"{kind}_{name}" for kind in kinds)


def rows_of(
    name: str, run: Run, right: Tensor, points: LabelledImages, ctx: TrialContext
) -> dict[str, MetricValue]:
    """Return an attack's metrics; `right` (N,) are the points that are right before it."""
    clean, chosen = points.images(), variant(name)
    delta = run.adversarial - clean
    broken, largest = right & run.broken, math.sqrt(clean[0].numel())
    l2, linf = (lengths(delta, norm).double() for norm in ("l2", "linf"))
    found = {
        "adversarial_accuracy": intervals.proportion(int(run.withstood.sum()), len(points)),
        "attack_success_rate": intervals.proportion_or_missing(
            int(broken.sum()), int(right.sum()), _NO_TARGET
        ),
        "adversarial_nll": intervals.mean(
            run.nll.double().cpu().numpy(), low=0.0, high=-SMALLEST_LOG
        ),
        "lpips": lpips_distance(clean, run.adversarial, ctx.lpips_weights),
        "ssim": ssim(clean, run.adversarial),
    }
    if chosen.minimum_norm:
        fooled = right & run.fooled
        reason = f"{name} fools the model on no image"
        found |= {
            "l2_distance": _mean_or_missing(l2[fooled], reason, high=largest),
            "linf_distance": _mean_or_missing(linf[fooled], reason, high=1.0),
            "unbounded_success_rate": intervals.proportion_or_missing(
                int(fooled.sum()), int(right.sum()), _NO_TARGET
            ),
            "median_l2_distance": _median_or_missing(l2[fooled], reason),
        }
    else:
        found["l2_distance"] = intervals.mean(l2.cpu().numpy(), low=0.0, high=largest)
        found["linf_distance"] = intervals.mean(linf.cpu().numpy(), low=0.0, high=1.0)
    if run.queries is not None:
        found["queries"] = intervals.mean(run.queries.double().cpu().numpy(), low=0.0)
    if chosen.norm == "l0":
        changed = lengths(delta, "l0").double().cpu().numpy()
        found["changed_pixels"] = intervals.mean(changed, low=0.0, high=float(clean[0, 0].numel()))
    return {f"{kind}_{name}": value for kind, value in found.items()}


def distance_deciles(run: Run, right: Tensor, points: LabelledImages) -> dict[str, float]:
    """Return the deciles of the L2 distances at which a minimum-norm attack fools the model."""
    fooled = right & run.fooled
    distances = lengths(run.adversarial - points.images(), "l2")[fooled].double().cpu().numpy()
    if len(distances) == 0:
        return {}
    found = np.quantile(distances, _DECILES)
    return {f"{decile:.1f}": float(value) for decile, value in zip(_DECILES, found, strict=True)}


def _mean_or_missing(values: Tensor, reason: str, *, high: float) -> MetricValue:
    if not len(values):
        return Missing(reason)
    return intervals.mean(values.cpu().numpy(), low=0.0, high=high)


def _median_or_missing(values: Tensor, reason: str) -> MetricValue:
    return intervals.quantile(values.cpu().numpy(), 0.5) if len(values) else Missing(reason)
