"""How well a detector recognises attacked images, and how many get past it unseen.

Axes: N points.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from trainables.attacks import variant
from trainables.deployed.predictor import REFUSED, Predictor, ask_in_batches
from trainables.metrics import intervals
from trainables.parameters import parameter
from trainables.records.value import MetricValue, Missing
from trainables.threats.detection.hardest import Suspects, comparable, hardest, level_of
from trainables.threats.detection.signs import AWARE
from trainables.threats.evasion.attacking import BATCH, Attacker
from trainables.threats.evasion.efforts import core_attacks, headline_of, settings_of
from trainables.threats.evasion.evasion import HEADLINE, WHOLE
from trainables.threats.evasion.points import points_for
from trainables.threats.evasion.run import Run
from trainables.threats.evasion.target import target_of
from trainables.threats.threat import Findings, Threat
from trainables.trial.context import TrialContext

_NO_DETECTOR = "the deployed model rejects nothing"
_NO_SUCCESS = "no attack fools the classifier, so there is nothing to detect"
_BLIND = "pgd"


@dataclass(frozen=True, kw_only=True)
class Detection(Threat):
    """Attack the classifier alone and ask the detector; then attack both at once.

    Detection is judged on adversarial images that fool the classifier, made from correctly
    classified images, against those images themselves: of PGD that ignores the detector, stopped
    once it fools and run to its end, and of the attack that knows the detector, those that the
    detector finds hardest. Getting past is judged by all of evasion's attacks, on all points.
    """

    name = "detection"
    meaning = "A detector looks for attacked images; an attacker tries to get past unseen."
    source = "Carlini & Wagner, 2017; Lee et al., 2018; Bryniarski et al., 2022"
    VERSION = 5

    points: int | None = parameter(
        None, kind="int", low=2, high=1_000_000, unit="images",
        meaning="points that are attacked, up to the effort's own limit",
    )  # fmt: skip
    extent: str = parameter(
        WHOLE, kind="word", words=(WHOLE, HEADLINE),
        meaning="attacks that may get past unseen, in an audit: whole: all of evasion's in Linf; "
        "headline: without those that it runs for its signs of masking alone",
    )  # fmt: skip

    def canonical(self) -> dict[str, Any]:
        """Return name and parameters; points and extent only where they say something, so that
        trials from before there were any keep their identity."""
        plain = super().canonical()
        usual = {"points": None, "extent": WHOLE}
        return {k: v for k, v in plain.items() if k not in usual or v != usual[k]}

    def metric_names(self) -> tuple[str, ...]:
        """List the detection metrics."""
        return (
            "detection_auroc",
            "detection_tpr_at_fpr_0_05",
            "undetected_success_rate",
            "clean_rejection_rate",
        )

    def _measure(self, predictor: Predictor, ctx: TrialContext) -> Findings:
        """Attack the effort's points at the standard Linf radius; clean images are all of them."""
        points = points_for(predictor, ctx, self.points)
        target = target_of(predictor, points, ctx)
        attacker = Attacker(target, points, ctx, settings_of(ctx.spec.effort, target))
        clean = _answers(predictor, points.images(), ctx)
        right = clean.label == points.labels
        undetected = right & self._broken(attacker)
        every = ctx.points()
        rejected = _answers(predictor, every.images(), ctx).label == REFUSED
        judged = _detected(attacker, clean)
        metrics: dict[str, MetricValue] = {
            "undetected_success_rate": intervals.proportion(int(undetected.sum()), len(points)),
            "clean_rejection_rate": intervals.proportion(int(rejected.sum()), len(every)),
            **judged.metrics,
        }
        notes = {
            "points": len(points),
            "right_and_accepted": int(right.sum()),
            **judged.notes,
        }
        return Findings(metrics=metrics, notes=notes)

    def _broken(self, attacker: Attacker) -> Tensor:
        """Return which points (N,) any of evasion's attacks breaks, so that the two agree.

        What evasion has run before in the trial is not run again.
        """
        names = core_attacks(attacker.ctx.spec.effort, attacker.target)
        if self.extent == WHOLE:
            names = tuple(name for name in names if variant(name).norm == "linf")
        else:
            names = headline_of(names)
        eps = attacker.ctx.dataset.radius
        return torch.stack([attacker.run(name, eps=eps).broken for name in names]).any(0)


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


def _made(attacker: Attacker) -> dict[str, Run]:
    """Return what is to be detected: images of attacks that ignore the detector, of one that
    knows it."""
    eps, settings = attacker.ctx.dataset.radius, attacker.settings

    def to_the_end(name: str) -> Run:
        own = {**settings.get(name, {}), "early_stop": False}
        return attacker.with_settings({**settings, name: own}).run(name, eps=eps)

    return {
        "blind_stopped": attacker.run(_BLIND, eps=eps),
        "blind_full": to_the_end(_BLIND),
        "aware": to_the_end(AWARE),
    }


def _detected(attacker: Attacker, clean: _Answers) -> Findings:
    """Measure AUROC and TPR at 5 % FPR, each on the images that the detector finds hardest."""
    names = ("detection_auroc", "detection_tpr_at_fpr_0_05")
    if clean.score is None:
        return _missing(names, _NO_DETECTOR)
    labels, predictor = attacker.points.labels, attacker.target.predictor
    every: dict[str, Suspects] = {}
    for name, run in _made(attacker).items():
        attacked = _answers(predictor, run.adversarial, attacker.ctx)
        assert attacked.score is not None
        success = (clean.classified == labels) & (attacked.classified != labels)
        every[name] = Suspects.of(attacked.score, clean.score, success)
    kept = comparable(every)
    if not kept:
        return _missing(names, _NO_SUCCESS)
    level = level_of(len(kept))
    by_area, area = hardest({name: found.area(level) for name, found in kept.items()})
    by_found, found = hardest({name: found.found(level) for name, found in kept.items()})
    notes = {
        "successful_adversarial_images": area.n,
        "hardest": {names[0]: by_area, names[1]: by_found},
        "by_attack": _by_attack(every),
    }
    return Findings(metrics={names[0]: area, names[1]: found}, notes=notes)


def _missing(names: tuple[str, ...], reason: str) -> Findings:
    return Findings(
        metrics={name: Missing(reason) for name in names},
        notes={"successful_adversarial_images": 0},
    )


def _by_attack(every: Mapping[str, Suspects]) -> dict[str, Any]:
    """Return the figures on each attack's images, in plain JSON values."""
    return {
        name: {
            "images": len(found),
            "auroc": found.area().value if len(found) else None,
            "tpr_at_fpr_0_05": found.found().value if len(found) else None,
        }
        for name, found in every.items()
    }
