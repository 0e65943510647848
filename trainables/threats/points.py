"""The points that a threat attacks: fewer of a model that is slow to differentiate."""

from __future__ import annotations

from typing import TYPE_CHECKING

from trainables.datasets import LabelledImages, stratified_subset
from trainables.predictor import Predictor

if TYPE_CHECKING:
    from trainables.context import TrialContext

SLOW_POINTS = 128
"""Points that a screen attacks of a model that is to be attacked on several surfaces."""
RANDOM_POINTS = 64
"""Points that a screen attacks of a random model: each gradient is averaged over many draws."""


def points_for(predictor: Predictor, ctx: TrialContext, most: int | None = None) -> LabelledImages:
    """Give the fixed, stratified points that attacks on this predictor run on at this effort."""
    points = ctx.points()
    limits = [len(points), len(points) if most is None else most]
    if ctx.spec.effort == "screen":
        if len(predictor.surfaces()) > 1:
            limits.append(SLOW_POINTS)
        if predictor.stochastic:
            limits.append(RANDOM_POINTS)
        if predictor.max_screen_points is not None:
            limits.append(predictor.max_screen_points)
    if min(limits) == len(points):
        return points
    return points.select(stratified_subset(points.labels, min(limits), seed=0))
