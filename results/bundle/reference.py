"""Reference inputs of a bundle: what it answered to them when it was exported.

Axes: R reference images, C channels, H, W, K classes.
"""

from collections.abc import Mapping
from dataclasses import dataclass

import torch
from torch import Tensor

from results.bundle.errors import BundleError
from trainables.datasets import LabelledImages, stratified_subset
from trainables.deployed.predictor import PREDICTION_SEED, Predictor
from trainables.device import CPU, full_precision

COUNT = 64
CERTIFIED = 4
"""Images whose certificate is kept too: of many draws, each takes a while."""
TOLERANCE = 1e-6
_SEED = 0


@dataclass(frozen=True, slots=True, eq=False, kw_only=True)
class Reference:
    """Images of the test pool and what the bundle answered, on the CPU, with the declared seed."""

    images: Tensor
    """(R, C, H, W) float32 in [0, 1]."""
    labels: Tensor
    """(R,) true classes."""
    probabilities: Tensor
    """(R, K)"""
    answers: Tensor
    """(R,) class, or -1 where it rejects or abstains."""
    reject_scores: Tensor
    """(R,), or (0,) where it rejects nothing."""
    radii: Tensor
    """(4,) certified L2 radii of the first images, or (0,) where nothing is certified."""

    def tensors(self) -> dict[str, Tensor]:
        """Return its tensors by name."""
        return {name: getattr(self, name).contiguous() for name in self.__dataclass_fields__}


def make_reference(predictor: Predictor, pool: LabelledImages) -> Reference:
    """Ask a predictor on the CPU about a fixed, stratified part of a pool."""
    chosen = pool.select(stratified_subset(pool.labels, COUNT, _SEED)).to("cpu")
    return _asked(predictor, chosen.images(), chosen.labels)


def reference_of(tensors: Mapping[str, Tensor]) -> Reference:
    """Read what was kept back; BundleError where it is not a reference."""
    try:
        found = Reference(**tensors)
    except TypeError as error:
        raise BundleError(f"its reference inputs are of another form ({error})") from None
    rows = len(found.images)
    if rows == 0 or found.images.ndim != 4 or len(found.probabilities) != rows:
        raise BundleError("its reference inputs are of another format; export it again")
    return found


def differences(predictor: Predictor, reference: Reference) -> dict[str, float]:
    """Ask a predictor on the CPU again; return, by name, how far each answer is from the kept one.

    Of probabilities, reject scores and radii that is the largest absolute difference, relative to
    what is larger than 1; of labels, the number that differ. Another shape is infinitely far.
    """
    again = _asked(predictor, reference.images, reference.labels)
    found = {}
    for name in ("probabilities", "reject_scores", "radii"):
        kept, now = getattr(reference, name).double(), getattr(again, name).double()
        found[name] = _furthest(kept, now)
    same = again.answers.shape == reference.answers.shape
    wrong = int((again.answers != reference.answers).sum()) if same else COUNT
    return {**found, "answers": float(wrong)}


def _furthest(kept: Tensor, now: Tensor) -> float:
    if kept.shape != now.shape:
        return float("inf")
    if kept.numel() == 0:
        return 0.0
    gaps = (kept - now).abs() / kept.abs().clamp_min(1.0)
    # NaN is not agreement.
    return float(gaps.max()) if bool(gaps.isfinite().all()) else float("inf")


def _asked(predictor: Predictor, images: Tensor, labels: Tensor) -> Reference:
    with full_precision(CPU):
        answer = predictor.predict(images, _generator())
        radii = predictor.certify(images[:CERTIFIED], _generator())
        probabilities = predictor.probabilities(images)
    scores = answer.reject_score
    return Reference(
        images=images,
        labels=labels,
        probabilities=probabilities,
        answers=answer.label,
        reject_scores=torch.zeros(0) if scores is None else scores.detach(),
        radii=torch.zeros(0, dtype=torch.float64) if radii is None else radii.double(),
    )


def _generator() -> torch.Generator:
    return torch.Generator("cpu").manual_seed(PREDICTION_SEED)
