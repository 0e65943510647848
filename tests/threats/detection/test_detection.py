from dataclasses import replace

import pytest
import torch

from tests.conftest import TrainedNet
from tests.threats.predictors import Rejecting, brightness
from trainables.deployed.predictor import Predictor
from trainables.records.value import Measured, Missing
from trainables.threats.detection.detection import Detection
from trainables.threats.evasion.evasion import HEADLINE, Evasion
from trainables.trial.context import TrialContext


def test_without_a_detector_nothing_is_detected(undefended: TrainedNet) -> None:
    found = Detection().measure(Predictor(undefended.model), undefended.ctx).metrics
    assert found["detection_auroc"] == Missing("the deployed model rejects nothing")
    assert found["detection_tpr_at_fpr_0_05"] == Missing("the deployed model rejects nothing")
    undetected, rejected = found["undetected_success_rate"], found["clean_rejection_rate"]
    assert isinstance(undetected, Measured) and isinstance(rejected, Measured)
    assert undetected.value > 0.7 and rejected.value == 0.0


def test_a_detector_that_attacks_ignore_is_judged_on_what_fools(undefended: TrainedNet) -> None:
    limit = float(undefended.x.flatten(1).mean(1).max())
    predictor = Rejecting(undefended.model, brightness, limit)
    found = Detection().measure(predictor, undefended.ctx)
    area, undetected = found.metrics["detection_auroc"], found.metrics["undetected_success_rate"]
    assert isinstance(area, Measured) and isinstance(undetected, Measured)
    successes = found.notes["successful_adversarial_images"]
    assert area.n == successes and 0 < successes <= len(undefended.x)
    blind = found.notes["by_attack"]["blind_stopped"]["auroc"]
    assert 0.5 < blind < 1.0  # PGD brightens black borders, which it cannot darken
    assert area.value <= blind
    assert undetected.value > 0.5


def test_a_detector_that_knows_the_images_is_perfect(undefended: TrainedNet) -> None:
    known = undefended.x.flatten(1)
    predictor = Rejecting(
        undefended.model, lambda x: torch.cdist(x.flatten(1), known).amin(1), limit=1e-3
    )
    found = Detection().measure(predictor, undefended.ctx).metrics
    area, tpr = found["detection_auroc"], found["detection_tpr_at_fpr_0_05"]
    assert isinstance(area, Measured) and area.value == 1.0
    assert isinstance(tpr, Measured) and tpr.value == 1.0
    undetected = found["undetected_success_rate"]
    assert isinstance(undetected, Measured) and undetected.value == 0.0
    robust = Evasion().measure(predictor, undefended.ctx).metrics["robust_accuracy"]
    assert isinstance(robust, Measured) and robust.value > 0.95


def _few(ctx: TrialContext) -> TrialContext:
    """Return the context with fewer points."""
    assert ctx.pools.validation is not None
    fewer = ctx.pools.validation.select(torch.arange(80))
    return replace(ctx, pools=replace(ctx.pools, validation=fewer))


def test_the_attack_that_the_detector_finds_hardest_is_the_headline(undefended: TrainedNet) -> None:
    model = undefended.model

    def unsure(x: torch.Tensor) -> torch.Tensor:
        """Suspect what the classifier is not sure of: what crosses the border and stops."""
        scores: torch.Tensor = model(x)
        return 1 - scores.softmax(1).amax(1)

    found = Detection().measure(Rejecting(model, unsure, 0.2), _few(undefended.ctx))
    by_attack = found.notes["by_attack"]
    assert set(by_attack) == {"blind_stopped", "blind_full", "aware"}
    # Run to its end an attack is sure of itself; stopped at the border it is not.
    assert by_attack["blind_full"]["auroc"] < by_attack["blind_stopped"]["auroc"] - 0.1
    for name, figure in (
        ("detection_auroc", "auroc"), ("detection_tpr_at_fpr_0_05", "tpr_at_fpr_0_05"),
    ):  # fmt: skip
        headline, hardest = found.metrics[name], found.notes["hardest"][name]
        assert isinstance(headline, Measured) and hardest != "blind_stopped"
        assert headline.value == min(row[figure] for row in by_attack.values())
        assert headline.value == by_attack[hardest][figure]
        assert headline.low < headline.value < headline.high


@pytest.mark.parametrize("limit", [0.02, 2.0])
def test_what_gets_past_unseen_is_what_evasion_breaks(limit: float, undefended: TrainedNet) -> None:
    model, ctx = undefended.model, _few(undefended.ctx)
    predictor = Rejecting(model, lambda x: 1 - model(x).softmax(1).amax(1), limit)
    undetected = Detection().measure(predictor, ctx).metrics["undetected_success_rate"]
    robust = Evasion(extent=HEADLINE).measure(predictor, ctx).metrics["robust_accuracy"]
    assert isinstance(undetected, Measured) and isinstance(robust, Measured)
    points = ctx.points()
    answer = predictor.predict(points.images(), torch.Generator()).label
    right = float((answer == points.labels).double().mean())
    assert undetected.value == pytest.approx(right - robust.value)


def test_the_extent_keeps_the_identity_of_detection_without_one() -> None:
    assert Detection().canonical() == {"name": "detection"}
    assert Detection(extent=HEADLINE).canonical() == {"name": "detection", "extent": "headline"}
    assert Detection(points=9).canonical() == {"name": "detection", "points": 9}


def test_the_points_bound_what_is_attacked_and_not_the_clean_images(undefended: TrainedNet) -> None:
    ctx = _few(undefended.ctx)
    predictor = Rejecting(undefended.model, lambda x: x.flatten(1).mean(1), 0.5)
    whole, few = (Detection(points=points).measure(predictor, ctx) for points in (None, 10))
    assert (whole.notes["points"], few.notes["points"]) == (len(ctx.points()), 10)
    rejected = [found.metrics["clean_rejection_rate"] for found in (whole, few)]
    assert rejected[0] == rejected[1]
    assert isinstance(undetected := few.metrics["undetected_success_rate"], Measured)
    assert undetected.n == 10
