"""Robust accuracy over the radius, up to the ball that holds every image.

Axes: N points.
"""

from __future__ import annotations

from torch import Tensor

from trainables.datasets import LabelledImages
from trainables.metrics import CURVE_MULTIPLES, UNBOUNDED, curve_metric, intervals
from trainables.records.value import MetricValue
from trainables.threats.evasion.attacking import Settings, Target, run_attack
from trainables.trial.context import TrialContext

_ON_RANDOM: Settings = {"pgd": {"steps": 10}}
CURVE_NAMES = (*(curve_metric(multiple) for multiple in CURVE_MULTIPLES), UNBOUNDED)


def robustness_curve(
    target: Target,
    points: LabelledImages,
    ctx: TrialContext,
    settings: Settings,
    right: Tensor,
    robust: Tensor,
) -> dict[str, MetricValue]:
    """Measure robust accuracy at multiples of the standard Linf radius and without a bound.

    `right` (N,) are the points that are right without an attack, `robust` (N,) those that withstand
    all attacks at the standard radius. A point that a smaller ball breaks is broken in a larger one
    (its image lies in both), so that only the points which still resist are attacked.
    """
    metrics: dict[str, MetricValue] = {}
    standing = right.clone()
    radii = [(curve_metric(m), m * ctx.dataset.radius) for m in CURVE_MULTIPLES]
    for name, radius in [*radii, (UNBOUNDED, 1.0)]:
        if radius > ctx.dataset.radius:
            standing &= robust
        standing = _still_standing(target, points, ctx, settings, standing, min(radius, 1.0))
        metrics[name] = intervals.proportion(int(standing.sum()), len(points))
    return metrics


def _still_standing(
    target: Target,
    points: LabelledImages,
    ctx: TrialContext,
    settings: Settings,
    standing: Tensor,
    radius: float,
) -> Tensor:
    standing = standing.clone()
    names = ["pgd", "targeted_margin_pgd"]
    if target.stochastic:
        names, settings = ["pgd"], _ON_RANDOM
    for name in names:
        rows = standing.nonzero().flatten()
        if len(rows) == 0:
            break
        run = run_attack(name, target, points.select(rows), ctx, settings, eps=radius)
        standing[rows[run.broken]] = False
    return standing
