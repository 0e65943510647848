import pytest

from tests.making import LinearSoftmax, random_images
from trainables.defenses import EpochData
from trainables.defenses.training.early_stopping import EarlyStopping
from trainables.training.evaluation import loss_and_accuracy


@pytest.mark.parametrize(
    ("patience", "scores", "verdicts"),
    [
        # (stop, best epoch) after each score
        (2, [3.0, 2.0, 1.0], [(False, 0), (False, 1), (False, 2)]),
        (2, [3.0, 1.0, 2.0, 2.0], [(False, 0), (False, 1), (False, 1), (True, 1)]),
        (1, [1.0, 1.0], [(False, 0), (True, 0)]),
        (3, [2.0, 3.0, 3.0, 1.0, 2.0, 2.0, 2.0],
         [(False, 0), (False, 0), (False, 0), (False, 3), (False, 3), (False, 3), (True, 3)]),
    ],
)  # fmt: skip
def test_the_verdicts_follow_the_scores(
    patience: int, scores: list[float], verdicts: list[tuple[bool, int]]
) -> None:
    defense = EarlyStopping(patience=patience)
    found = [defense.after_epoch(scores[: epoch + 1]) for epoch in range(len(scores))]
    assert [(verdict.stop, verdict.best_epoch) for verdict in found if verdict] == verdicts


def test_the_score_is_the_loss_on_the_calibration_pool() -> None:
    model, images = LinearSoftmax(64, 10), random_images(40)
    data = EpochData(train=random_images(8), calibration=images)
    assert EarlyStopping().epoch_score(model, data) == loss_and_accuracy(model, images).loss
    assert EarlyStopping().needs_calibration
