import pytest
import torch
from torch import Tensor, nn

from trainables.deployed.predictor import (
    Faults,
    Prediction,
    Predictor,
    Surface,
    ask,
    surface_scores,
)
from trainables.errors import PredictorError

X = torch.zeros(4, 1, 2, 2)
SOUND = torch.zeros(4, 3)
NAN = SOUND.index_fill(0, torch.tensor([2]), torch.nan)


class Given(Predictor):
    """Answers what it was given."""

    def __init__(self, answer: Prediction) -> None:
        super().__init__(nn.Identity())
        self.answer = answer

    def predict(self, x: Tensor, generator: torch.Generator) -> Prediction:
        """Return the answer."""
        return self.answer


def _asked(answer: Prediction, faults: Faults | None = None) -> Prediction:
    return ask(Given(answer), X, torch.Generator(), 3, faults)


LABELS = torch.zeros(4, dtype=torch.int64)
UNSOUND = [
    (Prediction(LABELS, NAN), "Given returns NaN log-probabilities"),
    (Prediction(LABELS + 3, SOUND), r"Given returns labels outside \[-1, 2\]"),
    (Prediction(LABELS - 2, SOUND), r"Given returns labels outside \[-1, 2\]"),
    (Prediction(LABELS, SOUND, NAN[:, 0]), "Given returns a NaN reject_score"),
]
unsound = pytest.mark.parametrize(("answer", "message"), UNSOUND)


@unsound
def test_an_answer_that_is_none_is_an_error(answer: Prediction, message: str) -> None:
    with pytest.raises(PredictorError, match=message):
        _asked(answer)


@unsound
def test_faults_wait_until_they_are_checked(answer: Prediction, message: str) -> None:
    faults = Faults()
    for one in (Prediction(LABELS, SOUND), answer, Prediction(LABELS, SOUND)):
        assert _asked(one, faults) is one
    with pytest.raises(PredictorError, match=message):
        faults.check()


def test_sound_answers_have_no_faults() -> None:
    faults = Faults()
    faults.check()
    _asked(Prediction(LABELS - 1, SOUND, SOUND[:, 0]), faults)
    faults.check()


def test_a_shape_is_an_error_at_once() -> None:
    with pytest.raises(PredictorError, match="shape"):
        _asked(Prediction(LABELS, SOUND[:, :2]), Faults())
    with pytest.raises(PredictorError, match="shape"):
        surface_scores(_surface(SOUND[:, :2]), X, torch.Generator(), 3, Faults())


def test_nan_scores_of_a_surface_are_an_error_at_once_or_when_they_are_checked() -> None:
    with pytest.raises(PredictorError, match="NaN scores"):
        surface_scores(_surface(NAN), X, torch.Generator(), 3)
    faults = Faults()
    for scores in (NAN, SOUND):
        assert surface_scores(_surface(scores), X, torch.Generator(), 3, faults) is scores
    with pytest.raises(PredictorError, match="NaN scores"):
        faults.check()


def _surface(scores: Tensor) -> Surface:
    return Surface(lambda x, generator: scores, "exact")
