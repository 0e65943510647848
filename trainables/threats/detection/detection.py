"""How well a detector recognises attacked images, and how many get past it unseen.

Axes: N points.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np
import torch
from torch import Tensor

from trainables.deployed.predictor import REFUSED, Predictor, ask_in_batches
from trainables.metrics import intervals
from trainables.records.value import MetricValue, Missing
from trainables.threats.evasion.attacking import BATCH, Attacker
from trainables.threats.evasion.efforts import settings_of
from trainables.threats.evasion.points import points_for
from trainables.threats.evasion.target import target_of
from trainables.threats.threat import Findings, Threat
from trainables.trial.context import TrialContext

_FPR = 0.05
_NO_DETECTOR = "the deployed model rejects nothing"
_NO_SUCCESS = "no attack that ignores the detector succeeds, so there is nothing to detect"


@dataclass(frozen=True, kw_only=True)
class Detection(Threat):
    """Attack the classifier alone and ask the detector; then attack both at once.

    Detection is judged on adversarial images that fool the classifier, made from correctly
    classified images, against those images themselves. Getting past is judged by an attack that
    knows the detector, on all points.
    """

    name = "detection"
    meaning = "A detector looks for attacked images; an attacker tries to get past unseen."
    source = "Carlini & Wagner, 2017; Lee et al., 2018; Bryniarski et al., 2022"
    VERSION = 4

    def metric_names(self) -> tuple[str, ...]:
        """List the detection metrics."""
        return (
            "detection_auroc",
            "detection_tpr_at_fpr_0_05",
            "undetected_success_rate",
            "clean_rejection_rate",
        )

    def _measure(self, predictor: Predictor, ctx: TrialContext) -> Findings:
        """Measure at the effort's points and the standard Linf radius."""
        points = points_for(predictor, ctx)
        target = target_of(predictor, points, ctx)
        attacker = Attacker(target, points, ctx, settings_of(ctx.spec.effort, target))
        clean = _answers(predictor, points.images(), ctx)
        right = clean.label == points.labels
        undetected = _undetected(attacker, right)
        rejected = int((clean.label == REFUSED).sum())
        metrics: dict[str, MetricValue] = {
            "undetected_success_rate": intervals.proportion(int(undetected.sum()), len(points)),
            "clean_rejection_rate": intervals.proportion(rejected, len(points)),
        }
        successes = 0
        if clean.score is None:
            auroc: MetricValue = Missing(_NO_DETECTOR)
            found: MetricValue = Missing(_NO_DETECTOR)
        else:
            auroc, found, successes = _detected(attacker, clean)
        metrics |= {"detection_auroc": auroc, "detection_tpr_at_fpr_0_05": found}
        notes = {
            "points": len(points),
            "right_and_accepted": int(right.sum()),
            "successful_adversarial_images": successes,
        }
        return Findings(metrics=metrics, notes=notes)


@dataclass(frozen=True, slots=True, eq=False)
class _Answers:
    """What the deployed model says of images (N,)."""

    label: Tensor
    classified: Tensor
    """The class, whether rejected or not."""
    score: Tensor | None


def _answers(predictor: Predictor, images: Tensor, ctx: TrialContext) -> _Answers:
    generator = ctx.generator("detection", "answers")
    found = ask_in_batches(
        predictor, torch.split(images, BATCH), generator, ctx.dataset.num_classes
    )
    return _Answers(
        label=found.label,
        classified=found.log_probabilities.argmax(1),
        score=None if found.reject_score is None else found.reject_score.double(),
    )


def _undetected(attacker: Attacker, right: Tensor) -> Tensor:
    """Return which points (N,) of those that are right an attack that knows the detector breaks."""
    broken = torch.zeros_like(right)
    # Without a detector nothing aims at one, and what evasion runs too need not run again.
    aimed = "detector_aware_pgd" if attacker.target.predictor.rejects else "pgd_dlr"
    for name in ("pgd", aimed):
        broken |= attacker.run(name, eps=attacker.ctx.dataset.radius).broken
    return right & broken


def _detected(attacker: Attacker, clean: _Answers) -> tuple[MetricValue, MetricValue, int]:
    """Return AUROC, TPR at 5 % FPR, and how many images they are judged on."""
    ctx, labels = attacker.ctx, attacker.points.labels
    run = attacker.run("pgd", eps=ctx.dataset.radius)
    attacked = _answers(attacker.target.predictor, run.adversarial, ctx)
    success = (clean.classified == labels) & (attacked.classified != labels)
    count = int(success.sum())
    if count == 0 or clean.score is None or attacked.score is None:
        return Missing(_NO_SUCCESS), Missing(_NO_SUCCESS), 0
    suspicious = attacked.score[success].cpu().numpy()
    innocent = clean.score[success].cpu().numpy()
    threshold = np.quantile(innocent, 1 - _FPR, method="higher")
    found = intervals.proportion(int((suspicious > threshold).sum()), count)
    # Each image is on both sides, attacked and not: there are as many items as images.
    area = replace(intervals.auc(suspicious, innocent), n=count)
    return area, found, count
