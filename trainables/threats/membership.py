"""Who reads from the deployed model's answers which rows it was trained on.

Axes: M members, N non-members, K classes.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import torch
from numpy.typing import NDArray

from trainables import intervals
from trainables.datasets import LabelledImages, stratified_subset
from trainables.metrics import MetricValue, Missing
from trainables.predictor import Predictor
from trainables.threats.threat import Findings, Threat

if TYPE_CHECKING:
    from trainables.context import TrialContext

Floats = NDArray[np.float64]
_MOST = 5000
"""Rows of each side that are asked."""


@dataclass(frozen=True, kw_only=True)
class Membership(Threat):
    """Call a row a member if its loss is low; the score is minus the loss.

    Members are the rows that the model trained on after filtering, non-members the held-out pool.
    The threshold is the mean loss of the members, which the attacker is taken to know
    (Yeom et al., 2018, adversary 1).
    """

    name = "membership"
    meaning = "An attacker tells from the model's answers which rows it was trained on."
    source = "Yeom et al., 2018"

    def metric_names(self) -> tuple[str, ...]:
        """List what the attack is judged by."""
        return (
            "membership_auc",
            "membership_balanced_accuracy",
            "tpr_at_fpr_0_01",
            "tpr_at_fpr_0_001",
        )

    def measure(self, predictor: Predictor, ctx: TrialContext) -> Findings:
        """Score members and non-members and measure how well the scores tell them apart."""
        trained = ctx.train(ctx.spec.stack, ctx.pools.train, ctx.spec.seed)
        members = _scores(predictor, _sample(trained.members), ctx)
        others = _scores(predictor, _sample(ctx.held_out), ctx)
        threshold = float(members.mean())
        found = intervals.proportion(int((members >= threshold).sum()), len(members))
        spared = intervals.proportion(int((others < threshold).sum()), len(others))
        metrics: dict[str, MetricValue] = {
            "membership_auc": intervals.auc(members, others),
            "membership_balanced_accuracy": intervals.balanced(found, spared),
            "tpr_at_fpr_0_01": tpr_at_fpr(members, others, 0.01),
            "tpr_at_fpr_0_001": tpr_at_fpr(members, others, 0.001),
        }
        notes = {"members": len(members), "non_members": len(others), "attack": "loss threshold"}
        return Findings(metrics=metrics, notes=notes)


def tpr_at_fpr(members: Floats, others: Floats, fpr: float) -> MetricValue:
    """Give the share of member scores (M,) above the threshold that accuses `fpr` of others (N,).

    Missing where 1 / fpr exceeds N: such a rate cannot be told from so few.
    """
    accused = int(np.floor(fpr * len(others) + 1e-9))
    if accused < 1:
        return Missing(
            f"{len(others)} non-members cannot resolve a false positive rate of {fpr:g}; "
            f"at least {round(1 / fpr)} are needed"
        )
    threshold = np.sort(others)[-accused - 1] if accused < len(others) else -np.inf
    return intervals.proportion(int((members > threshold).sum()), len(members))


def _sample(images: LabelledImages) -> LabelledImages:
    if len(images) <= _MOST:
        return images
    return images.select(stratified_subset(images.labels, _MOST, seed=0))


def _scores(predictor: Predictor, images: LabelledImages, ctx: TrialContext) -> Floats:
    log_probabilities = ctx.log_probabilities(predictor, images).double()
    rows = torch.arange(len(images), device=images.labels.device)
    scores: Floats = log_probabilities[rows, images.labels].cpu().numpy()
    if np.isnan(scores).any():
        raise RuntimeError("the deployed model gives NaN as a probability")
    return np.maximum(scores, np.finfo(np.float32).min)
