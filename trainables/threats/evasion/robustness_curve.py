"""Robust accuracy over the radius, up to the ball that holds every image.

Axes: N points.
"""

from __future__ import annotations

from torch import Tensor

from trainables.metrics import CURVE_MULTIPLES, UNBOUNDED, curve_metric, intervals
from trainables.records.value import MetricValue
from trainables.threats.evasion.attacking import Attacker, Settings

_ON_RANDOM: Settings = {"pgd": {"steps": 10}}
CURVE_NAMES = (*(curve_metric(multiple) for multiple in CURVE_MULTIPLES), UNBOUNDED)


def robustness_curve(attacker: Attacker, right: Tensor, robust: Tensor) -> dict[str, MetricValue]:
    """Measure robust accuracy at multiples of the standard Linf radius and without a bound.

    `right` (N,) are the points that are right without an attack, `robust` (N,) those that withstand
    all attacks at the standard radius. A point that a smaller ball breaks is broken in a larger one
    (its image lies in both), so that only the points which still resist are attacked.
    """
    metrics: dict[str, MetricValue] = {}
    standard = attacker.ctx.dataset.radius
    standing = right.clone()
    radii = [(curve_metric(m), m * standard) for m in CURVE_MULTIPLES]
    for name, radius in [*radii, (UNBOUNDED, 1.0)]:
        if radius > standard:
            standing &= robust
        standing = _still_standing(attacker, standing, min(radius, 1.0))
        metrics[name] = intervals.proportion(int(standing.sum()), len(attacker.points))
    return metrics


def _still_standing(attacker: Attacker, standing: Tensor, radius: float) -> Tensor:
    standing = standing.clone()
    names = ["pgd", "targeted_margin_pgd"]
    if attacker.target.stochastic:
        names, attacker = ["pgd"], attacker.with_settings(_ON_RANDOM)
    for name in names:
        rows = standing.nonzero().flatten()
        if len(rows) == 0:
            break
        run = attacker.on(rows).run(name, eps=radius)
        standing[rows[run.broken]] = False
    return standing
