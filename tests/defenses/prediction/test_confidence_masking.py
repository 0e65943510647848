from pathlib import Path

import pytest
import torch
from torch import Tensor

from tests.conftest import TrainedNet
from tests.making import EPS, FixedPredictor, spec_of
from trainables.defenses.prediction.confidence_masking import (
    SMALLEST,
    ConfidenceMasking,
    MaskedPredictor,
    mask_probabilities,
)
from trainables.deployed.predictor import REFUSED, Certificates, Prediction, Predictor
from trainables.records.value import Measured
from trainables.storage.artefacts import ArtefactStore
from trainables.threats import build_threat
from trainables.trial.stages import run_trial


def _seed() -> torch.Generator:
    return torch.Generator().manual_seed(0)


def _random(rows: int, classes: int) -> Tensor:
    return (4 * torch.randn(rows, classes, generator=_seed())).softmax(1)


def test_the_largest_are_rounded_and_the_others_share_the_rest() -> None:
    given = torch.tensor([[0.52, 0.26, 0.1, 0.09, 0.03], [0.01, 0.02, 0.04, 0.03, 0.9]])
    found = mask_probabilities(given, 2, 2)
    torch.testing.assert_close(found[0], torch.tensor([0.52, 0.26, 0.07, 0.07, 0.07]) / 0.99)
    torch.testing.assert_close(found[1], torch.tensor([0.02, 0.02, 0.04, 0.02, 0.9]))


def test_as_many_classes_as_there_are_and_all_digits_change_nothing_to_speak_of() -> None:
    given = _random(200, 7)
    for top_k in (7, 100):
        torch.testing.assert_close(mask_probabilities(given, top_k, 6), given, atol=1e-5, rtol=0)


@pytest.mark.parametrize("classes", [2, 10, 1000])
@pytest.mark.parametrize("top_k", [1, 3, 5000])
@pytest.mark.parametrize("digits", [0, 1, 6])
def test_masked_rows_are_finite_sum_to_one_and_keep_their_first(
    classes: int, top_k: int, digits: int
) -> None:
    hard = torch.eye(classes)[:2]
    near = torch.full((1, classes), 1 / classes).index_put(
        (torch.tensor([0]), torch.tensor([classes - 1])), torch.tensor(1 / classes + 1e-5)
    )
    for given in (_random(300, classes), hard, near):
        found = mask_probabilities(given, top_k, digits)
        torch.testing.assert_close(found.sum(1), torch.ones(len(given)))
        assert bool(found.log().isfinite().all())
        assert torch.equal(found.argmax(1), given.argmax(1))


def test_few_digits_leave_few_values() -> None:
    found = mask_probabilities(_random(2000, 10), 1, 1)
    first = {round(value, 3) for value in found.amax(1).tolist()}
    assert 2 < len(first) <= 40  # eleven roundings, over what is left of the others
    exact = mask_probabilities(_random(2000, 10), 1, 6)
    assert len({round(value, 4) for value in exact.amax(1).tolist()}) > 500


def test_what_rounds_to_nothing_has_a_finite_logarithm() -> None:
    found = mask_probabilities(torch.tensor([[1.0, 0.0, 0.0]]), 1, 2)
    assert float(found[0, 1]) == pytest.approx(SMALLEST, rel=1e-3)


class _Rejecting(FixedPredictor):
    """A vote that rejects, whose label is not that of its largest probability, and certifies."""

    rejects = True

    def predict(self, x: Tensor, generator: torch.Generator) -> Prediction:
        """Return label 1 or a rejection."""
        answer = super().predict(x, generator)
        label = torch.where(torch.arange(len(x)) % 2 == 0, 1, REFUSED)
        return Prediction(label, answer.log_probabilities, torch.arange(len(x)).float())

    def certificates(self, x: Tensor, generator: torch.Generator) -> Certificates:
        """Return what a test can tell again."""
        rows = torch.arange(len(x))
        return Certificates(rows % 3, rows.double(), rows, 0.001)


def test_label_rejection_certificates_and_surfaces_are_the_inner_ones() -> None:
    inner = _Rejecting(torch.randn(6, 4, generator=_seed()))
    masked = ConfidenceMasking(top_k=1, digits=1).deploy(inner, None)  # type: ignore[arg-type]
    x = torch.zeros(6, 1, 2, 2)
    found = masked.predict(x, _seed())
    assert found.label.tolist() == [1, REFUSED] * 3
    assert found.reject_score is not None and found.reject_score.tolist() == list(range(6))
    assert masked.rejects
    kept = masked.certificates(x, _seed())
    assert kept is not None and kept.radius.tolist() == list(range(6))


def test_an_attacker_differentiates_what_stands_before_the_masking(undefended: TrainedNet) -> None:
    plain = Predictor(undefended.model)
    masked = MaskedPredictor(plain, 1, 0)
    x = undefended.x[:20].clone().requires_grad_(True)
    (surface,) = masked.surfaces()
    for scores in (surface.scores(x, _seed()), masked.scores(x, _seed())):
        assert torch.equal(scores, plain.scores(x, _seed()))
        (gradient,) = torch.autograd.grad(scores.sum(), x)
        assert float(gradient.abs().amin(0).sum()) > 0
    labels = [p.predict(undefended.x, _seed()).label for p in (plain, masked)]
    assert torch.equal(*labels)


def test_it_changes_the_loss_alone_and_raises_no_alarm(tmp_path: Path) -> None:
    def measured(*stack: ConfidenceMasking) -> tuple[dict[str, float], bool]:
        threats = [build_threat(name, {}, radius=EPS) for name in ("evasion", "membership")]
        spec = spec_of(*stack, threats=threats, epochs=8, train_images=300, measured_images=200)
        record = run_trial(spec, ArtefactStore(tmp_path))
        assert record.error is None, record.error
        values = {k: v.value for k, v in record.metrics.items() if isinstance(v, Measured)}
        return values, record.is_struck_off

    (plain, _), (masked, struck) = measured(), measured(ConfidenceMasking(top_k=1, digits=0))
    assert masked["clean_accuracy"] == plain["clean_accuracy"]
    assert masked["robust_accuracy"] == pytest.approx(plain["robust_accuracy"], abs=0.05)
    assert not struck and masked["masking_suspected"] == 0
    assert masked["nll"] != plain["nll"]
