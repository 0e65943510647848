"""The deployed model: what it answers, and what an attacker who knows it may differentiate.

Axes: B batch, C channels, H, W, K classes.
"""

from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from typing import Literal

import torch
from torch import Tensor, nn

from trainables.errors import PredictorError

REFUSED = -1
"""Label of an image that the deployed model rejects or abstains on."""
SMALLEST_LOG = -100.0
"""Log-probabilities are cut here, so that one confident mistake makes no mean infinite."""
PREDICTION_SEED = 0
"""The declared seed of `probabilities`."""


@dataclass(frozen=True, slots=True, eq=False)
class Prediction:
    """What the deployed model says of a batch."""

    label: Tensor
    """(B,) class, or REFUSED."""
    log_probabilities: Tensor
    """(B, K)"""
    reject_score: Tensor | None = None
    """(B,) larger is more suspicious; None where the predictor never rejects."""


@dataclass(frozen=True, slots=True, eq=False)
class Surface:
    """One way to differentiate the deployed model."""

    scores: Callable[[Tensor, torch.Generator], Tensor]
    """(x (B, C, H, W), generator) -> scores (B, K), softmax not yet applied; of a predictor that
    averages draws, the log of the mean softmax over fresh draws."""
    kind: Literal["exact", "eot", "bpda"]
    """exact: the true gradient; eot: of fresh random draws; bpda: a step without a gradient is
    passed backwards as the identity (Athalye et al., 2018)."""
    draws: int = 1
    """Draws that a gradient is averaged over."""
    reject_margin: Callable[[Tensor, torch.Generator], Tensor] | None = None
    """(x, generator) -> (B,) differentiable, positive where the image is rejected; a predictor
    that rejects sets it, so that an attack can aim at being accepted."""


@dataclass(frozen=True, slots=True, eq=False)
class Certificates:
    """What is proven of a batch: inside the L2 ball the likeliest label is that of the centre.

    A predictor that votes over few draws may abstain or err near the edge of the ball.
    """

    label: Tensor
    """(B,) the class that the certificate is about, or REFUSED where it abstains."""
    radius: Tensor
    """(B,) float64, L2 in pixel units of [0, 1]; 0 where it abstains."""
    draws: Tensor
    """(B,) noisy draws that it took."""
    failure_probability: float
    """Highest probability that the certificate of one image is wrong."""


class Predictor:
    """A trained model deployed as it is; a defense that deploys otherwise wraps it in its own."""

    forward_passes_per_prediction = 1
    stochastic = False
    """Whether two predictions of one image may differ."""
    rejects = False
    """Whether it may refuse an image as adversarial (and then sets a reject_score)."""
    max_screen_points: int | None = None
    """Most points that a screen, or an audit without a GPU, attacks of it: a gradient is dear."""

    def __init__(self, model: nn.Module) -> None:
        self.model = model.eval().requires_grad_(False)

    def predict(self, x: Tensor, generator: torch.Generator) -> Prediction:
        """Classify x (B, C, H, W) in [0, 1]."""
        with torch.no_grad():
            log_probabilities = self.scores(x, generator).log_softmax(1)
        return Prediction(log_probabilities.argmax(1), log_probabilities)

    def scores(self, x: Tensor, generator: torch.Generator) -> Tensor:
        """Return scores (B, K) before the softmax, differentiable with respect to x."""
        del generator  # a deterministic predictor draws nothing
        scores: Tensor = self.model(x)
        return scores

    def probabilities(self, x: Tensor) -> Tensor:
        """Return class probabilities (B, K), with a fixed declared seed where there is
        randomness.
        """
        generator = torch.Generator(x.device).manual_seed(PREDICTION_SEED)
        return self.predict(x, generator).log_probabilities.exp()

    def certificates(self, x: Tensor, generator: torch.Generator) -> Certificates | None:
        """Prove what can be proven of images x (B, C, H, W), or return None: this proves none."""
        del x, generator
        return None

    def certify(self, x: Tensor, generator: torch.Generator) -> Tensor | None:
        """Return the certified L2 radius of each image (B,), or None where nothing certifies."""
        found = self.certificates(x, generator)
        return None if found is None else found.radius

    def surfaces(self) -> list[Surface]:
        """List what an attacker who knows the defense may differentiate; the worst counts."""
        return [Surface(self.scores, "exact")]


class WrappedPredictor(Predictor):
    """Another predictor with something done before or after it; all else is the inner one's."""

    def __init__(self, inner: Predictor) -> None:
        super().__init__(inner.model)
        self.inner = inner
        self.forward_passes_per_prediction = inner.forward_passes_per_prediction
        self.stochastic = inner.stochastic
        self.rejects = inner.rejects
        self.max_screen_points = inner.max_screen_points

    def predict(self, x: Tensor, generator: torch.Generator) -> Prediction:
        """Return the inner answer."""
        return self.inner.predict(x, generator)

    def scores(self, x: Tensor, generator: torch.Generator) -> Tensor:
        """Return the inner scores."""
        return self.inner.scores(x, generator)

    def certificates(self, x: Tensor, generator: torch.Generator) -> Certificates | None:
        """Return the inner certificates."""
        return self.inner.certificates(x, generator)

    def surfaces(self) -> list[Surface]:
        """Return the inner surfaces."""
        return self.inner.surfaces()


@dataclass(slots=True, eq=False)
class Faults:
    """Faults of many answers, gathered on their device: to look at each would wait for it."""

    _marks: dict[str, Tensor] = field(default_factory=dict)

    def note(self, message: str, values: Tensor) -> None:
        """Note that a fault is there where any of the values (..) is true."""
        mark = values.any()
        self._marks[message] = self._marks[message] | mark if message in self._marks else mark

    def check(self) -> None:
        """Raise PredictorError for the first kind of fault that was there; waits once."""
        if not self._marks:
            return
        found = torch.stack(list(self._marks.values())).tolist()
        for message, there in zip(self._marks, found, strict=True):
            if there:
                raise PredictorError(message)


def ask(
    predictor: Predictor,
    x: Tensor,
    generator: torch.Generator,
    num_classes: int,
    faults: Faults | None = None,
) -> Prediction:
    """Return the predictor's answer on x (B, C, H, W), if it is one.

    Raises PredictorError where shapes, the number of classes or the labels are not what they must
    be, or where a log-probability is NaN. With `faults`, what is wrong except the shapes is noted
    there instead, and raised when they are checked.
    """
    noted = Faults() if faults is None else faults
    found = predictor.predict(x, generator)
    name = type(predictor).__name__
    _check_shape(name, "log_probabilities", found.log_probabilities, (len(x), num_classes))
    _check_shape(name, "label", found.label, (len(x),))
    noted.note(
        f"{name} returns NaN log-probabilities; fix what it computes them from",
        found.log_probabilities.isnan(),
    )
    noted.note(
        f"{name} returns labels outside [-1, {num_classes - 1}]; -1 is a rejection",
        (found.label < REFUSED) | (found.label >= num_classes),
    )
    if found.reject_score is not None:
        _check_shape(name, "reject_score", found.reject_score, (len(x),))
        noted.note(f"{name} returns a NaN reject_score", found.reject_score.isnan())
    if faults is None:
        noted.check()
    return found


def ask_in_batches(
    predictor: Predictor, batches: Iterable[Tensor], generator: torch.Generator, num_classes: int
) -> Prediction:
    """Return the predictor's answer on all images of some batches, each asked as `ask` does."""
    parts = [ask(predictor, x, generator, num_classes) for x in batches]
    scores = [part.reject_score for part in parts if part.reject_score is not None]
    return Prediction(
        torch.cat([part.label for part in parts]),
        torch.cat([part.log_probabilities for part in parts]),
        torch.cat(scores) if scores else None,
    )


def surface_scores(
    surface: Surface,
    x: Tensor,
    generator: torch.Generator,
    num_classes: int,
    faults: Faults | None = None,
) -> Tensor:
    """Return a surface's scores on x (B, C, H, W); PredictorError where they are none.

    With `faults`, NaN scores are noted there instead, and raised when they are checked.
    """
    scores = surface.scores(x, generator)
    _check_shape("a surface", "scores", scores, (len(x), num_classes))
    noted = Faults() if faults is None else faults
    noted.note("a surface returns NaN scores; an attack cannot climb them", scores.detach().isnan())
    if faults is None:
        noted.check()
    return scores


def _check_shape(name: str, what: str, found: Tensor, expected: tuple[int, ...]) -> None:
    if tuple(found.shape) != expected:
        raise PredictorError(
            f"{name} returns {what} of shape {tuple(found.shape)}, but they must be {expected}"
        )
