"""The points that a threat attacks: fewer of a model that is slow to differentiate."""

from __future__ import annotations

from trainables.datasets import LabelledImages, stratified_subset
from trainables.deployed.predictor import Predictor
from trainables.trial.context import TrialContext

SLOW_POINTS = 128
"""Points that a screen attacks of a model that is to be attacked on several surfaces."""
RANDOM_POINTS = 64
"""Points that are attacked of a random model: each gradient is averaged over many draws,
and each answer is a vote. An audit on a GPU attacks all of them."""


def points_for(predictor: Predictor, ctx: TrialContext, asked: int | None = None) -> LabelledImages:
    """Return the fixed, stratified points that attacks on this predictor run on at this effort.

    A number that was asked for counts up to the effort's own limit; in a screen however slow they
    are, in an audit up to what is attacked of a slow model.
    """
    points = ctx.points()
    most = len(points) if asked is None else asked
    if asked is None or ctx.spec.effort == "audit":
        most = min([most, *_limits(predictor, ctx)])
    if most >= len(points):
        return points
    return points.select(stratified_subset(points.labels, most, seed=0))


def _limits(predictor: Predictor, ctx: TrialContext) -> list[int]:
    if ctx.spec.effort == "audit" and ctx.device.type != "cpu":
        return []
    return limits_of_slow(predictor, ctx.spec.effort, when_random=RANDOM_POINTS)


def limits_of_slow(predictor: Predictor, effort: str, *, when_random: int) -> list[int]:
    """Return the most images that are attacked for each way in which a predictor is slow."""
    limits = []
    if effort == "screen" and len(predictor.surfaces()) > 1:
        limits.append(SLOW_POINTS)
    if predictor.stochastic:
        limits.append(when_random)
    if predictor.max_screen_points is not None:
        limits.append(predictor.max_screen_points)
    return limits
