import torch

from tests.conftest import TrainedNet
from tests.threats.predictors import Rejecting, brightness
from trainables.deployed.predictor import Predictor
from trainables.records.value import Measured, Missing
from trainables.threats.detection.detection import Detection
from trainables.threats.evasion.evasion import Evasion


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
    assert 0.5 < area.value < 1.0  # PGD brightens black borders, which it cannot darken
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
